"""Crop, coarsen and segment against loops over single voxels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calo_train.errors import DataError, UsageError
from calo_train.geometry import Axis, Geometry, Layer

PERIODIC = Axis("alpha", (0.0, 1.0, 2.0, 3.0, 4.0), "rad", is_periodic=True)
R = Axis("r", (0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 21.0))


def barrel(num_layers: int = 5) -> Geometry:
    """Layers of 4 angular x 6 radial cells of growing thickness."""
    layers = tuple(Layer((PERIODIC, R), float(i * i), 2.0 * i + 1) for i in range(num_layers))
    return Geometry("barrel", layers)


def showers(geometry: Geometry) -> np.ndarray:
    random = np.random.default_rng(3)
    return random.gamma(0.5, 10.0, (7, geometry.num_voxels)).astype(np.float32)


def naive(
    energies: np.ndarray,
    *,
    ranges: dict[str, tuple[int, int]],
    factors: dict[str, int],
    groups: list[tuple[int, int]],
) -> np.ndarray:
    """Walk over all voxels of all showers and add each to where it belongs."""
    (a0, a1), (r0, r1) = ranges.get("alpha", (0, 4)), ranges.get("r", (0, 6))
    fa, fr = factors.get("alpha", 1), factors.get("r", 1)
    shape = (len(energies), len(groups), (a1 - a0) // fa, (r1 - r0) // fr)
    result = np.zeros(shape)
    grid = energies.reshape(len(energies), -1, 4, 6).astype(np.float64)
    for shower in range(len(energies)):
        for new_layer, (start, stop) in enumerate(groups):
            for layer in range(start, stop):
                for a in range(a0, a1):
                    for r in range(r0, r1):
                        target = (shower, new_layer, (a - a0) // fa, (r - r0) // fr)
                        result[target] += grid[shower, layer, a, r]
    return result.reshape(len(energies), -1)


def test_crop_keeps_the_cells_and_their_edges() -> None:
    ranges = {"alpha": (1, 3), "r": (0, 4)}
    core, regrouping = barrel().crop(**ranges)
    energies = showers(barrel())
    expected = naive(energies, ranges=ranges, factors={}, groups=[(i, i + 1) for i in range(5)])
    found = regrouping.apply(energies)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    assert core.layers[0].axes[0].edges == (1.0, 2.0, 3.0)
    assert core.layers[0].axes[1].edges == (0.0, 1.0, 3.0, 6.0, 10.0)
    assert not core.layers[0].axes[0].is_periodic
    assert core.crop(alpha=(0, 2))[0].layers[0].axes[0].edges == (1.0, 2.0, 3.0)


def test_whole_turn_stays_periodic() -> None:
    assert barrel().crop(r=(0, 2))[0].layers[0].axes[0].is_periodic


@given(
    factor_alpha=st.sampled_from([1, 2, 4]),
    factor_r=st.sampled_from([1, 2, 3, 6]),
    num_layers=st.integers(1, 5),
)
def test_coarsening_sums_neighbours_and_loses_nothing(
    factor_alpha: int, factor_r: int, num_layers: int
) -> None:
    energies = showers(barrel())
    factors = {"alpha": factor_alpha, "r": factor_r}
    coarse, regrouping = barrel().coarsen(num_layers=num_layers, **factors)
    groups = [(start, min(start + num_layers, 5)) for start in range(0, 5, num_layers)]
    expected = naive(energies, ranges={}, factors=factors, groups=groups)
    found = regrouping.apply(energies)
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    assert found.shape == (7, coarse.num_voxels)
    # float32 rounds each of at most 120 sums once, to 2^-24.
    np.testing.assert_allclose(
        found.sum(axis=1, dtype=np.float64), energies.sum(axis=1, dtype=np.float64), rtol=2.0**-24
    )


def test_segments_join_layers_with_their_depth() -> None:
    boundaries = (0, 1, 3, 5)
    joined, regrouping = barrel().segment(boundaries)
    energies = showers(barrel())
    expected = naive(energies, ranges={}, factors={}, groups=list(pairwise(boundaries)))
    np.testing.assert_array_equal(regrouping.apply(energies), expected.astype(np.float32))
    assert [(layer.depth, layer.thickness) for layer in joined.layers] == [(0, 1), (1, 8), (9, 16)]


def test_segments_may_leave_layers_out() -> None:
    joined, regrouping = barrel().segment((1, 3))
    energies = showers(barrel())
    expected = energies.reshape(7, 5, 24)[:, 1:3].astype(np.float64).sum(axis=1)
    assert joined.num_layers == 1
    np.testing.assert_array_equal(regrouping.apply(energies), expected.astype(np.float32))


def test_ragged_layers_are_cut_by_axis_name_and_joined_only_when_equal() -> None:
    other = Axis("x", (0.0, 1.0, 2.0))
    geometry = Geometry(
        "ragged", (Layer((PERIODIC, R), 0, 1), Layer((PERIODIC, R), 1, 1), Layer((other, R), 2, 1))
    )
    cut, regrouping = geometry.crop(r=(1, 2))
    energies = showers(geometry)
    pieces = [energies[:, part].reshape(7, -1, 6)[:, :, 1] for part in geometry.layer_slices]
    np.testing.assert_array_equal(regrouping.apply(energies), np.concatenate(pieces, axis=1))
    assert cut.layer_shapes == ((4, 1), (4, 1), (2, 1))
    assert geometry.segment((0, 2, 3))[0].num_layers == 2
    with pytest.raises(DataError, match="layers 1 to 2 do not share one grid"):
        geometry.segment((0, 1, 3))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"r": (0, 7)}, "6 cells"),
        ({"r": (2, 2)}, "cannot keep"),
        ({"r": (-1, 2)}, "cannot keep"),
        ({"radius": (0, 2)}, "nearest: r|known: alpha, r"),
    ],
)
def test_impossible_ranges_are_refused(wrong: dict[str, tuple[int, int]], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        barrel().crop(**wrong)


def test_factor_must_divide() -> None:
    with pytest.raises(UsageError, match="groups of 4"):
        barrel().coarsen(r=4)
