"""Every observable and column against a loop over showers and voxels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import detectors
import judged
import numpy as np
import pytest

from calo_train.errors import DataError
from calo_train.evaluation.deposits import Grid
from calo_train.evaluation.observables import OBSERVABLES
from calo_train.evaluation.table import (
    ShowerTable,
    count_voxels,
    measure,
    spectrum_edges,
    voxel_range,
)
from calo_train.showers.showers import Showers

if TYPE_CHECKING:
    from calo_train.geometry import Geometry

FLOAT32_SUM_RTOL = 1e-5
NUM_SHOWERS = 50


def table_of(showers: Showers, threshold: float = judged.THRESHOLD) -> ShowerTable:
    given = judged.shower_set(showers)
    edges = spectrum_edges(voxel_range(given, threshold), threshold)
    return measure(given, Grid.of(showers.geometry), threshold=threshold, spectrum=edges)


def voxels(geometry: Geometry) -> list[tuple[int, float, float]]:
    """Layer and transverse centre of every voxel, by loops."""
    found = []
    for index, layer in enumerate(geometry.layers):
        for first in layer.axes[0].centres:
            for second in layer.axes[1].centres:
                x, y = first, second
                if layer.axes[1].name == "r":
                    x, y = second * math.cos(first), second * math.sin(first)
                found.append((index, float(x), float(y)))
    return found


def naive(shower: np.ndarray, incident: float, geometry: Geometry) -> dict[str, object]:
    kept = [float(e) if e >= np.float32(judged.THRESHOLD) else 0.0 for e in shower]
    total = sum(kept)
    places = voxels(geometry)
    num_layers = geometry.num_layers

    def mean(values: list[float]) -> float:
        return sum(e * v for e, v in zip(kept, values, strict=True)) / total if total else 0.0

    found: dict[str, object] = {
        "visible_energy": total,
        "visible_fraction": total / incident,
        "num_hits": float(sum(e > 0 for e in kept)),
    }
    for position, name in enumerate("zxy"):
        values = [float(place[position]) for place in places]
        found[f"centre_of_gravity_{name}"] = mean(values)
        found[f"second_moment_{name}"] = mean([(v - mean(values)) ** 2 for v in values])
    layers = [
        sum(e for e, place in zip(kept, places, strict=True) if place[0] == index)
        for index in range(num_layers)
    ]
    found["layer_energy"] = layers
    ends = [0, num_layers // 3, 2 * num_layers // 3, num_layers]
    for third, name in enumerate(("first_third", "second_third", "last_third")):
        found[name] = sum(layers[ends[third] : ends[third + 1]]) / total if total else 0.0
    return found


@pytest.mark.parametrize("name", detectors.ALL)
def test_every_observable_equals_a_naive_loop(name):
    geometry = detectors.ALL[name]()
    showers = detectors.make_showers(geometry, NUM_SHOWERS, seed=3)
    showers.energies[4] = 0
    table = table_of(showers)
    expected = [
        naive(shower, float(incident), geometry)
        for shower, incident in zip(
            showers.energies, showers.conditions["incident_energy"], strict=True
        )
    ]
    assert set(expected[0]) == set(OBSERVABLES)
    for observable in OBSERVABLES:
        wanted = np.asarray([entry[observable] for entry in expected])
        scale = max(np.abs(wanted).max(), 1.0)
        np.testing.assert_allclose(
            table.observables[observable], wanted, rtol=FLOAT32_SUM_RTOL,
            atol=FLOAT32_SUM_RTOL * scale,
        )  # fmt: skip
    assert table.health.num_empty == sum(entry["visible_energy"] == 0 for entry in expected)


@pytest.mark.parametrize("name", ["cartesian", "polar"])
def test_profiles_sum_voxels_by_their_cell_along_the_axis(name):
    geometry = detectors.ALL[name]()
    showers = detectors.make_showers(geometry, NUM_SHOWERS)
    table = table_of(showers, threshold=0.0)
    shape = (NUM_SHOWERS, geometry.num_layers, *geometry.layer_shapes[0])
    for position, axis in enumerate(geometry.layers[0].axes):
        grid = showers.energies.reshape(shape)
        wanted = grid.sum(axis=(1, 3 - position), dtype=np.float64)
        np.testing.assert_allclose(table.profiles[axis.name], wanted, rtol=FLOAT32_SUM_RTOL)


@pytest.mark.parametrize("name", ["cartesian", "polar", "ragged"])
def test_radial_profile_holds_the_whole_energy(name):
    showers = detectors.make_showers(detectors.ALL[name](), NUM_SHOWERS)
    table = table_of(showers)
    np.testing.assert_allclose(
        table.profiles["radius"].sum(axis=1), table.observables["visible_energy"]
    )


def test_radial_bins_count_cells_from_the_middle():
    """Four by four cells of 5 mm: 4 at 3.5 mm, 8 at 7.9 mm, 4 at 10.6 mm."""
    profile = Grid.of(detectors.cartesian()).profiles["radius"]
    np.testing.assert_allclose(profile.edges, [0, 5, 10, 15])
    np.testing.assert_array_equal(np.bincount(profile.bin_of_voxel[:16]), [4, 8, 4])


def test_ragged_profiles_use_the_coarsest_grid_and_skip_layers_that_cannot_tell():
    geometry = detectors.ragged()
    grid = Grid.of(geometry)
    assert grid.profiles["eta"].num_bins == 2
    assert grid.profiles["phi"].num_bins == 2
    in_single_row = [geometry.layer_slices[0], geometry.layer_slices[3]]
    assert all((grid.profiles["eta"].bin_of_voxel[piece] == -1).all() for piece in in_single_row)


def test_threshold_keeps_what_equals_it():
    geometry = detectors.cartesian()
    energies = np.zeros((1, geometry.num_voxels), dtype=np.float32)
    energies[0, :3] = 0.1, np.nextafter(np.float32(0.1), np.float32(0)), 0.2
    showers = Showers(energies, {"incident_energy": np.ones(1, dtype=np.float32)}, geometry)
    assert table_of(showers, threshold=0.1).observables["num_hits"][0] == 2


def test_spectrum_counts_every_voxel_once():
    """The edges run from the threshold to the reference's maximum; a sample may lie above."""
    edges = np.array([0.1, 1.0, 10.0])
    energies = np.array([[0, 0.1, 0.5, 1.0], [10.0, 10.1, 0, 50.0]], dtype=np.float32)
    edges[0] = np.float32(0.1)
    np.testing.assert_array_equal(count_voxels(energies, edges), [[2, 1, 0], [0, 1, 2]])


def test_spectrum_of_the_reference_has_nothing_outside():
    table = table_of(detectors.make_showers(detectors.cartesian(), 200))
    assert table.spectrum[:, -1].sum() == 0
    assert table.spectrum.sum() == table.observables["num_hits"].sum()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_invalid_showers_are_counted_and_left_out(value):
    """E4: never set to zero silently."""
    showers = detectors.make_showers(detectors.cartesian(), 200)
    whole = table_of(showers)
    showers.energies[7, 3] = value
    table = table_of(showers)
    assert table.health.num_invalid == 1
    assert table.health.num_negative == (value == -1.0)
    kept = np.delete(np.arange(200), 7)
    np.testing.assert_array_equal(table.positions, kept)
    np.testing.assert_array_equal(
        table.observables["visible_energy"], whole.observables["visible_energy"][kept]
    )


def test_more_than_one_per_cent_invalid_is_refused():
    """E4: exit 3 above a limit."""
    showers = detectors.make_showers(detectors.cartesian(), 200)
    showers.energies[:3, 0] = np.nan
    with pytest.raises(DataError, match="3 showers with NaN"):
        table_of(showers)


def test_rows_of_a_set_are_read_across_blocks():
    showers = detectors.make_showers(detectors.cartesian(), 100)
    rows = np.array([0, 36, 37, 73, 99])
    chosen = judged.ShowerSet("rows", judged.Memory(showers), rows)
    gathered = chosen.gather(np.array([1, 2, 4]))
    np.testing.assert_array_equal(gathered.energies, showers.energies[[36, 37, 99]])
    np.testing.assert_array_equal(
        np.concatenate([block.energies for block in chosen.blocks()]), showers.energies[rows]
    )
