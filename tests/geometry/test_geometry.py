"""What a geometry says of its voxels, and when two geometries are one detector."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from calo_train.errors import DataError, GeometryMismatch
from calo_train.geometry import Axis, Geometry, Layer

X = Axis("x", (-3.0, -1.0, 1.0, 3.0))
Y = Axis("y", (0.0, 1.0, 4.0))
ALPHA = Axis("alpha", tuple(-math.pi + math.pi / 2 * i for i in range(5)), "rad", is_periodic=True)
R = Axis("r", (0.0, 4.0, 10.0))


def regular(num_layers: int = 2) -> Geometry:
    return Geometry("regular", tuple(Layer((X, Y), 10.0 * i, 8.0) for i in range(num_layers)))


def polar() -> Geometry:
    return Geometry("polar", tuple(Layer((ALPHA, R), 5.0 * i, 5.0) for i in range(2)))


def ragged() -> Geometry:
    return Geometry("ragged", (Layer((X, Y), 0.0, 2.0), Layer((ALPHA, R), 2.0, 4.0)))


def test_voxels_are_ordered_by_layer_then_first_axis_then_second() -> None:
    """Known answer, written out voxel by voxel."""
    geometry = ragged()
    expected = [
        (layer, first, second)
        for layer, (rows, columns) in enumerate(((3, 2), (4, 2)))
        for first in range(rows)
        for second in range(columns)
    ]
    assert geometry.num_voxels == len(expected) == 14
    assert geometry.layer_slices == (slice(0, 6), slice(6, 14))
    assert geometry.layer_of_voxel.tolist() == [layer for layer, _, _ in expected]
    for voxel, (layer, first, second) in enumerate(expected):
        axes = geometry.layers[layer].axes
        assert geometry.axis_values(0)[voxel] == axes[0].centres[first]
        assert geometry.axis_values(1)[voxel] == axes[1].centres[second]


def test_centres_of_cells_with_unequal_edges() -> None:
    assert Y.centres.tolist() == [0.5, 2.5]
    assert regular().layer_centres.tolist() == [4.0, 14.0]


def test_polar_cells_lie_at_radius_and_angle_of_their_centres() -> None:
    """CaloChallenge's convention: x = r cos(alpha), y = r sin(alpha), at bin centres."""
    x, y = polar().cartesian_centres
    radii, angles = (2.0, 7.0), [-math.pi + math.pi / 4 + math.pi / 2 * i for i in range(4)]
    expected = [
        (r * math.cos(a), r * math.sin(a)) for _ in range(2) for a in angles for r in radii
    ]
    np.testing.assert_allclose(np.stack([x, y], axis=1), expected, atol=1e-12)


def test_equality_is_of_edges_not_of_names() -> None:
    assert regular() == replace(regular(), name="other")
    assert regular().difference(regular()) is None
    assert hash(regular()) == hash(replace(regular(), name="other"))
    assert regular() != polar()
    assert regular() != "regular"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (regular(3), "2 layers against 3"),
        (polar(), "layer 0, axis x (mm) against alpha (rad, periodic)"),
        (
            Geometry("g", (regular().layers[0], Layer((X, replace(Y, edges=(0, 1, 5))), 10, 8))),
            "layer 1, axis y, edge 2: 4 against 5 mm",
        ),
        (
            Geometry("g", (Layer((X, Axis("y", (0.0, 1.0, 2.0, 4.0))), 0, 8),) * 2),
            "layer 0, axis y: 2 cells against 3",
        ),
    ],
)
def test_first_difference_names_layer_axis_and_edge(other: Geometry, words: str) -> None:
    assert regular().difference(other) == words
    with pytest.raises(GeometryMismatch) as caught:
        regular().require_equal(other, where="a.h5", do="give another file")
    assert words in caught.value.what
    assert regular().describe() in caught.value.what
    assert other.describe() in caught.value.what


def test_edges_that_went_through_float32_are_equal() -> None:
    edges = tuple(float(np.float32(edge)) for edge in ALPHA.edges)
    assert ALPHA.edges != edges
    assert ALPHA.difference(replace(ALPHA, edges=edges)) is None


@pytest.mark.parametrize("edges", [(0.0,), (0.0, 0.0), (0.0, 2.0, 1.0), (0.0, math.nan)])
def test_edges_that_do_not_rise_are_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="rising edges"):
        Axis("x", edges)


def test_other_units_and_no_layers_are_refused() -> None:
    with pytest.raises(DataError, match="cm"):
        Axis("x", (0.0, 1.0), "cm")
    with pytest.raises(DataError, match="at least one layer"):
        Geometry("none", ())


def test_only_layers_of_one_grid_are_regular() -> None:
    assert regular().is_regular
    assert not ragged().is_regular
    assert "2 layers of 3 x x 2 y (12 voxels)" in regular().describe()
    assert "3x2, 4x2 (14 voxels)" in ragged().describe()
