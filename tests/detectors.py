"""Small detectors and showers on them, for every test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from calo_train.geometry import Axis, Geometry, Layer
from calo_train.showers.layouts import create_showers
from calo_train.showers.showers import Showers

if TYPE_CHECKING:
    from pathlib import Path


def axis(name: str, cells: int, low: float, high: float, **options: object) -> Axis:
    """An axis of equal cells."""
    edges = tuple(low + (high - low) * index / cells for index in range(cells + 1))
    return Axis(name, edges, **options)  # type: ignore[arg-type]


def cartesian() -> Geometry:
    """Three equal layers of 4 x 4 cells."""
    axes = (axis("x", 4, -10, 10), axis("y", 4, -10, 10))
    return Geometry("cartesian", tuple(Layer(axes, 5.0 * index, 5.0) for index in range(3)))


def polar() -> Geometry:
    """Three equal layers of 4 angles x 2 radii, periodic in the angle."""
    alpha = axis("alpha", 4, -math.pi, math.pi, unit="rad", is_periodic=True)
    axes = (alpha, axis("r", 2, 0, 20))
    return Geometry("polar", tuple(Layer(axes, 3.0 * index, 3.0) for index in range(3)))


def ragged() -> Geometry:
    """Four layers of different grids, one of them a single row."""
    shapes = ((1, 5), (4, 3), (2, 6), (1, 2))
    return Geometry(
        "ragged",
        tuple(
            Layer((axis("eta", a, -9, 9), axis("phi", b, -12, 12)), 4.0 * index, 4.0)
            for index, (a, b) in enumerate(shapes)
        ),
    )


def polar_ragged() -> Geometry:
    """Three polar layers: whole rings, then two equal grids, as in CaloChallenge data set 1."""
    shapes = ((1, 3), (4, 2), (4, 2))
    return Geometry(
        "polar_ragged",
        tuple(
            Layer(
                (
                    axis("alpha", a, -math.pi, math.pi, unit="rad", is_periodic=True),
                    axis("r", r, 0, 20),
                ),
                3.0 * index,
                3.0,
            )
            for index, (a, r) in enumerate(shapes)
        ),
    )


def single_voxel() -> Geometry:
    """One layer of one cell."""
    return Geometry("single_voxel", (Layer((axis("x", 1, 0, 1), axis("y", 1, 0, 1)), 0.0, 1.0),))


ALL = {"cartesian": cartesian, "polar": polar, "ragged": ragged, "single_voxel": single_voxel}


def make_showers(geometry: Geometry, number: int, seed: int = 0) -> Showers:
    """Showers of 10 to 100 GeV with a share of 2 % visible, exponential voxels, some empty."""
    random = np.random.Generator(np.random.Philox(seed))
    incident = random.uniform(10_000, 100_000, number).astype(np.float32)
    shares = random.exponential(1.0, (number, geometry.num_voxels))
    shares *= random.random(shares.shape) < 0.7
    energies = 0.004 * incident[:, None] * shares / geometry.num_voxels
    return Showers(energies.astype(np.float32), {"incident_energy": incident}, geometry)


def write_showers(path: Path, geometry: Geometry, number: int, seed: int = 0) -> Path:
    """Write such showers in the native layout."""
    with create_showers(path, "native", geometry, attributes={}) as writer:
        writer.append(make_showers(geometry, number, seed))
    return path
