"""Shares of cells against brute force, and of whole planes against closed forms."""

from __future__ import annotations

import math

import detectors
import numpy as np
import pytest

from calo_train.errors import DataError
from calo_train.geometry import Axis, Geometry, Layer
from calo_train.showers.simulator.cells import ShareTable, cell_shares, grid_groups

NUM_THROWN = 100_000


def layers() -> dict[str, Layer]:
    return {
        "cartesian": detectors.cartesian().layers[0],
        "ragged": detectors.ragged().layers[2],
        "polar": detectors.polar().layers[0],
        "ring": detectors.polar_ragged().layers[0],
    }


def shares(layer: Layer, radius: float, x: float, y: float) -> np.ndarray:
    return cell_shares(layer, *(np.asarray([value]) for value in (radius, x, y)))[0]


def thrown(layer: Layer, radius: float, x: float, y: float) -> np.ndarray:
    """Throw spots: r = R sqrt(u/(1 - u)), and count them cell by cell."""
    random = np.random.Generator(np.random.Philox(11))
    u, angle = random.random(NUM_THROWN), random.uniform(0, 2 * np.pi, NUM_THROWN)
    r = radius * np.sqrt(u / (1 - u))
    first, second = x + r * np.cos(angle), y + r * np.sin(angle)
    if layer.is_polar:
        first, second = np.arctan2(second, first), np.hypot(first, second)
    edges = [np.asarray(axis.edges) for axis in layer.axes]
    counts, _, _ = np.histogram2d(first, second, bins=edges)
    return counts.ravel() / NUM_THROWN


@pytest.mark.parametrize("kind", layers())
@pytest.mark.parametrize("place", [(0.0, 0.0), (3.0, -1.0), (-14.0, 9.0)])
@pytest.mark.parametrize("radius", [0.3, 6.0])
def test_shares_are_those_of_thrown_spots(
    kind: str, place: tuple[float, float], radius: float
) -> None:
    """Binomial errors of 5 sigma: false alarm below 1e-4 over all cells of all cases."""
    layer = layers()[kind]
    exact = shares(layer, radius, *place)
    error = np.sqrt(np.maximum(exact * (1 - exact), 1 / NUM_THROWN) / NUM_THROWN)
    assert (np.abs(thrown(layer, radius, *place) - exact) < 5 * error).all()


def test_centred_discs_hold_their_closed_form() -> None:
    """a^2/(a^2 + R^2) of a disc of radius a."""
    assert shares(layers()["ring"], 7.0, 0, 0).sum() == pytest.approx(400 / (400 + 49))


def test_displaced_discs_hold_what_the_stereographic_cap_does() -> None:
    """On the sphere of the map r = R tan(theta/2) a disc is a cap, whose area is known."""
    radius, a, d = 7.0, 20.0, math.hypot(9.0, 5.0)
    square = (radius**2 + d**2 + a**2) ** 2 - 4 * a**2 * d**2
    cap = (1 - (radius**2 + d**2 - a**2) / math.sqrt(square)) / 2
    for kind in ("ring", "polar"):
        assert shares(layers()[kind], radius, 9.0, 5.0).sum() == pytest.approx(cap, rel=1e-12)


@pytest.mark.parametrize("kind", layers())
def test_tables_are_the_exact_shares(kind: str) -> None:
    """Linear between radii 3.7 % apart: below 3e-4."""
    layer = layers()[kind]
    table = ShareTable.of(layer, 0.0, 0.0)
    radius = np.geomspace(0.05, 100, 173)
    found = table.mixed(radius[:, None], np.ones((173, 1)))
    exact = cell_shares(layer, radius, np.zeros(173), np.zeros(173))
    np.testing.assert_allclose(found, exact, atol=3e-4)


def test_angles_without_a_radius_have_no_place_in_millimetres() -> None:
    axes = (Axis("eta", (0.0, 0.1), "rad"), Axis("phi", (0.0, 0.1), "rad"))
    with pytest.raises(DataError, match="no place in mm"):
        grid_groups(Geometry("eta_phi", (Layer(axes, 0.0, 1.0),)))
