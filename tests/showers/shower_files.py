"""Small detectors, showers on them, and files of them, for the tests of this room."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from calo_train.geometry import Axis, Geometry, Layer
from calo_train.showers.layouts import create_showers
from calo_train.showers.showers import Showers

if TYPE_CHECKING:
    from pathlib import Path

X = Axis("x", (-15.0, -5.0, 5.0, 15.0))
Y = Axis("y", (-20.0, -10.0, 0.0, 10.0, 20.0))
ALPHA = Axis("alpha", tuple(-math.pi + math.pi / 2 * i for i in range(5)), "rad", is_periodic=True)
R = Axis("r", (0.0, 4.0, 10.0))


def cartesian() -> Geometry:
    """Two layers of 3 x 4 cells."""
    return Geometry("cartesian", tuple(Layer((X, Y), 10.0 * i, 10.0) for i in range(2)))


def polar() -> Geometry:
    """Three layers of 4 periodic angular x 2 radial cells."""
    return Geometry("polar", tuple(Layer((ALPHA, R), 5.0 * i, 5.0) for i in range(3)))


def ragged() -> Geometry:
    """Three layers of different grids."""
    return Geometry("ragged", (Layer((X, Y), 0, 5), Layer((ALPHA, R), 5, 5), Layer((Y, X), 10, 5)))


DETECTORS = {"cartesian": cartesian, "polar": polar, "ragged": ragged}


def random_showers(geometry: Geometry, num_showers: int, seed: int = 1) -> Showers:
    """Sparse random showers of 10 to 100 GeV; the third has no energy."""
    random = np.random.default_rng(seed)
    energies = random.gamma(0.5, 20.0, (num_showers, geometry.num_voxels)).astype(np.float32)
    energies[random.random(energies.shape) < 0.5] = 0.0
    energies[2:3] = 0.0
    incident = random.uniform(1e4, 1e5, num_showers).astype(np.float32)
    return Showers(energies, {"incident_energy": incident}, geometry)


def write(path: Path, showers: Showers, layout: str = "native", **attributes: Any) -> Path:
    """Write showers to a file of a layout."""
    with create_showers(
        path,
        layout,
        showers.geometry,
        attributes=attributes,
        condition_names=tuple(showers.conditions),
    ) as writer:
        writer.append(showers)
    return path


def edit(path: Path, key: str, row: int, value: float) -> None:
    """Set one value of a file: of voxel 1 of a shower, or of a condition."""
    with h5py.File(path, "r+") as file:
        flat = file[key][row : row + 1].reshape(-1)
        flat[min(1, len(flat) - 1)] = value
        file[key][row] = flat.reshape(file[key].shape[1:])
