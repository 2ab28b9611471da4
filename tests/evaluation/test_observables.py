"""Every observable and column against a loop over showers and voxels."""

from __future__ import annotations

import detectors
import judged
import naive_observables
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from calo_train.errors import DataError
from calo_train.evaluation import layer_sums
from calo_train.evaluation import table as table_module
from calo_train.evaluation.deposits import Grid, apply_threshold
from calo_train.evaluation.observables import observables_of
from calo_train.evaluation.spectrum import SpectrumBins, spectrum_edges, voxel_range
from calo_train.evaluation.table import ShowerTable, measure
from calo_train.geometry import Geometry, Layer
from calo_train.showers.showers import Showers

DETECTORS = {**detectors.ALL, "polar_ragged": detectors.polar_ragged}
SUM_TOLERANCE = 1e-6  # of the loop; further layers are kept in float32
WIDTH_ATOL = 1e-6
FLOAT32_SUM_RTOL = 1e-5
NUM_SHOWERS = 50


def table_of(showers: Showers, threshold: float = judged.THRESHOLD) -> ShowerTable:
    given = judged.shower_set(showers)
    edges = spectrum_edges(voxel_range(given, threshold), threshold)
    return measure(given, Grid.of(showers.geometry), threshold=threshold, spectrum=edges)


@pytest.fixture(params=["compiled", "numpy"])
def sweep(request, monkeypatch):
    """Both ways of summing over layers."""
    if request.param == "numpy":
        monkeypatch.setattr(layer_sums, "_compiled", lambda: None)
    return request.param


@pytest.mark.parametrize("name", DETECTORS)
def test_every_observable_equals_a_naive_loop(name, sweep):
    geometry = DETECTORS[name]()
    showers = detectors.make_showers(geometry, NUM_SHOWERS, seed=3)
    showers.energies[4] = 0
    table = table_of(showers)
    require_equal_observables(table, showers)
    assert table.health.num_empty == np.count_nonzero(
        (showers.energies < judged.THRESHOLD).all(axis=1)
    )


def require_equal_observables(table: ShowerTable, showers: Showers) -> None:
    expected = [
        naive_observables.measure(shower, float(incident), showers.geometry, judged.THRESHOLD)
        for shower, incident in zip(
            showers.energies, showers.conditions["incident_energy"], strict=True
        )
    ]
    assert set(expected[0]) == set(table.observables)
    for name, found in table.observables.items():
        wanted = np.asarray([entry[name] for entry in expected])
        scale = max(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0), 1.0)
        # A width of zero is the root of a difference of squares.
        atol = scale * (WIDTH_ATOL if "width" in name or "spread" in name else SUM_TOLERANCE)
        np.testing.assert_allclose(found, wanted, rtol=SUM_TOLERANCE, atol=atol, err_msg=name)


@given(
    name=st.sampled_from(sorted(DETECTORS)),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_observables_of_any_showers_equal_a_naive_loop(name, data):
    """Ties, single hits, empty layers, and voxels at the threshold."""
    geometry = DETECTORS[name]()
    deposit = st.sampled_from([0.0, 0.0, 0.25, judged.THRESHOLD, 1.0, 7.5, 1e4])
    energies = data.draw(arrays.arrays(np.float32, (3, geometry.num_voxels), elements=deposit))
    incident = np.asarray([1e3, 1e4, 1e5], dtype=np.float32)
    showers = Showers(energies, {"incident_energy": incident}, geometry)
    require_equal_observables(table_of(showers), showers)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_the_table_does_not_depend_on_threads_or_blocks(num_threads, monkeypatch):
    showers = detectors.make_showers(detectors.polar(), 200)
    whole = table_of(showers)
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    monkeypatch.setattr(table_module, "_PIECE_BYTES", 7 * showers.energies[0].nbytes)
    pieces = table_of(showers)
    for name, column in whole.observables.items():
        np.testing.assert_array_equal(pieces.observables[name], column)
    np.testing.assert_array_equal(pieces.spectrum, whole.spectrum)


def test_regular_layers_have_neighbours_and_polar_ones_a_radius():
    assert "layer_centroid_r" not in observables_of(Grid.of(detectors.cartesian()))
    assert "layer_centroid_r" in observables_of(Grid.of(detectors.polar()))
    assert "layer_cosine" not in observables_of(Grid.of(detectors.single_voxel()))


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
    """The edges run from the threshold to the reference's maximum; a sample may lie outside."""
    bins = SpectrumBins(np.array([np.float32(0.1), 1.0, 10.0]))
    energies = np.array([[0, 0.1, 0.5, 1.0], [10.0, 10.1, 0.09, 50.0]], dtype=np.float32)
    np.testing.assert_array_equal(bins.folded(bins.count(energies)), [[2, 1, 0], [0, 1, 3]])


@pytest.mark.parametrize("span", [1.001, 1.5, 1e5])
def test_spectrum_equals_a_search_at_every_edge(span, sweep):
    """Also where edges are nearer than the bits of the table tell."""
    geometry = line_of_voxels(150)
    edges = np.geomspace(np.float32(0.0151515), 0.0151515 * span, 50)
    near = edges.astype(np.float32)
    values = np.concatenate([near, np.nextafter(near, np.float32(0)), np.nextafter(near, 9e9)])
    bins = np.searchsorted(edges, values.astype(np.float64), side="right") - 1
    bins[values == edges[-1]] = 48
    bins[bins < 0] = 49
    showers = Showers(
        values[None].astype(np.float32), {"incident_energy": np.ones(1, "f4")}, geometry
    )
    table = measure(judged.shower_set(showers), Grid.of(geometry), threshold=0.0, spectrum=edges)
    np.testing.assert_array_equal(table.spectrum[0], np.bincount(bins, minlength=50))


def line_of_voxels(number: int) -> Geometry:
    """One layer of cells in a row."""
    axes = (detectors.axis("x", number, 0, number), detectors.axis("y", 1, 0, 1))
    return Geometry("line", (Layer(axes, 0.0, 1.0),))


def test_spectrum_of_the_reference_has_nothing_outside():
    table = table_of(detectors.make_showers(detectors.cartesian(), 200))
    assert table.spectrum[:, -1].sum() == 0
    assert table.spectrum.sum() == table.observables["num_hits"].sum()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_invalid_showers_are_counted_and_left_out(value, sweep):
    """E4: never set to zero silently."""
    showers = detectors.make_showers(detectors.cartesian(), 200)
    whole = table_of(showers)
    valid = showers.energies[7].copy()
    showers.energies[7, 3] = value
    table = table_of(showers)
    assert table.health.num_invalid == 1
    assert table.health.num_negative == (value == -1.0)
    kept = np.delete(np.arange(200), 7)
    np.testing.assert_array_equal(table.positions, kept)
    np.testing.assert_array_equal(table.spectrum, whole.spectrum[kept])
    np.testing.assert_array_equal(table.profiles["radius"], whole.profiles["radius"][kept])
    mean = (whole.mean_energies * 200 - apply_threshold(valid, judged.THRESHOLD)) / 199
    np.testing.assert_allclose(table.mean_energies, mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(
        table.observables["visible_energy"], whole.observables["visible_energy"][kept]
    )


def test_minus_zero_is_an_energy(sweep):
    showers = detectors.make_showers(detectors.cartesian(), 200)
    whole = table_of(showers)
    showers.energies[showers.energies == 0] = -0.0
    table = table_of(showers)
    assert table.health.num_invalid == 0
    for name, column in whole.observables.items():
        np.testing.assert_array_equal(table.observables[name], column)


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
