"""FPD, KPD, neighbours and what depends on energy, against independent versions."""

from __future__ import annotations

import detectors
import judged
import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.neighbors import NearestNeighbors

from calo_train.evaluation.deposits import Grid
from calo_train.evaluation.energy_dependence import energy_slices, response_of
from calo_train.evaluation.floor import half_splits
from calo_train.evaluation.high_features import high_features
from calo_train.evaluation.moments import energy_edges
from calo_train.evaluation.neighbours import (
    NeighbourProtocol,
    compare_neighbours,
    neighbour_shares,
)
from calo_train.evaluation.observable_distances import TablePair
from calo_train.evaluation.physics_distances import (
    FrechetProtocol,
    KernelProtocol,
    frechet_distance,
    gaussian_distance,
    kernel_distance,
    physics_distances,
    scaled_features,
    squared_mmd,
)
from calo_train.evaluation.spectrum import spectrum_edges, voxel_range
from calo_train.evaluation.table import measure

SMALL = FrechetProtocol(min_size=100, max_size=500, num_draws=5)
SMALL_KERNEL = KernelProtocol(size=80, num_draws=6)


def pair_of(sample, reference, repetitions: int = 5) -> TablePair:
    grid = Grid.of(reference.geometry)
    sets = [judged.shower_set(showers) for showers in (reference, sample)]
    edges = spectrum_edges(voxel_range(sets[0], judged.THRESHOLD), judged.THRESHOLD)
    tables = [measure(entry, grid, threshold=judged.THRESHOLD, spectrum=edges) for entry in sets]
    size = min(len(reference) // 2, len(sample))
    splits = half_splits(len(reference), len(sample), size=size, repetitions=repetitions, seed=0)
    return TablePair(tables[0], tables[1], grid, list(splits))


@pytest.fixture
def features():
    random = np.random.default_rng(3)
    mixing = random.normal(size=(6, 6))
    return random.normal(size=(700, 6)) @ mixing, random.normal(0.1, 1.1, (600, 6)) @ mixing


def test_distance_of_gaussians_has_its_closed_form(features):
    first, second = features
    covariances = [np.cov(rows, rowvar=False) for rows in features]
    shift = first.mean(axis=0) - second.mean(axis=0)
    expected = shift @ shift + np.trace(
        sum(covariances) - 2 * sqrtm(covariances[0] @ covariances[1])
    )
    assert gaussian_distance(first, second) == pytest.approx(expected.real, rel=1e-9)


def test_singular_covariances_are_no_trouble():
    """A feature that never varies, and one that repeats another."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(500, 2))
    padded = np.column_stack([rows, rows[:, :1], np.ones(500)])
    assert gaussian_distance(padded, padded) == pytest.approx(0, abs=1e-6)


def test_fpd_draws_and_fits_as_published(features):
    """E8: the published implementation in plain terms, same seed and draws."""
    real, generated = scaled_features(*features)
    random = np.random.default_rng(42)
    sizes = (1 / np.linspace(1 / 100, 1 / 500, 10)).astype("int32")
    means = []
    for size in sizes:
        drawn = [
            (
                real[random.choice(len(real), size=size)],
                generated[random.choice(len(generated), size=size)],
            )
            for _ in range(5)
        ]
        means.append(np.mean([_frechet(*rows) for rows in drawn]))
    slope, intercept = np.polyfit(1 / sizes, means, 1)
    assert min(slope, intercept) > 0
    value, error = frechet_distance(real, generated, SMALL)
    assert value == pytest.approx(intercept, rel=1e-5)
    covariance = np.polyfit(1 / sizes, means, 1, cov=True)[1]
    assert error == pytest.approx(np.sqrt(covariance[1, 1]), rel=1e-3)


def _frechet(first, second):
    covariances = [np.cov(rows, rowvar=False) for rows in (first, second)]
    shift = first.mean(axis=0) - second.mean(axis=0)
    root = sqrtm(covariances[0] @ covariances[1]).real
    return shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * root)


def test_published_sizes_are_equally_spaced_in_their_inverse():
    """Rounded down, as published."""
    sizes = FrechetProtocol().sizes
    assert (sizes[0], sizes[-1], len(sizes)) == (10_000, 49_999, 10)
    np.testing.assert_allclose(np.diff(1 / sizes), (1 / 50_000 - 1 / 10_000) / 9, rtol=1e-3)


def test_squared_mmd_sums_the_kernel_over_pairs(features):
    """E8: by loops, i = j left out within a set."""
    first, second = (rows[:7] for rows in features)

    def kernel(x, y):
        return (x @ y / 6 + 1) ** 4

    within = [
        np.mean([kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j])
        for rows in (first, second)
    ]
    between = np.mean([kernel(x, y) for x in first for y in second])
    assert squared_mmd(first, second) == pytest.approx(sum(within) - 2 * between, rel=1e-9)


def test_kpd_is_the_median_of_its_draws(features):
    values = []
    for draw in range(6):
        random = np.random.default_rng(42 + 1000 * draw)
        rows = [features[0][random.choice(700, size=80)], features[1][random.choice(600, size=80)]]
        values.append(squared_mmd(*rows))
    value, error = kernel_distance(*features, SMALL_KERNEL)
    assert value == pytest.approx(np.median(values))
    assert error == pytest.approx(np.subtract(*np.percentile(values, [83.725, 16.275])) / 2)


def test_high_features_of_data_set_2_are_362():
    """Two more of the incident and the visible energy than 8 a layer."""
    assert 362 == 2 + 8 * 45
    pair = pair_of(*(detectors.make_showers(detectors.polar(), 60, seed) for seed in (1, 2)))
    assert high_features(pair.reference, pair.grid).shape == (60, 2 + 8 * 3)


def test_physics_distances_need_as_many_showers_as_a_draw():
    """E5: null with the reason."""
    sample, reference = judged.independent_pair(200)
    found = physics_distances(pair_of(sample, reference))
    assert found.fpd is None
    assert "100 showers against 100" in found.reason
    small = physics_distances(
        pair_of(sample, reference),
        frechet=FrechetProtocol(min_size=50, max_size=100, num_draws=3),
        kernel=KernelProtocol(size=50),
    )
    assert small.fpd.floor > 0
    assert small.fpd_all[0] >= 0


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_neighbour_shares_equal_a_tree_of_neighbours(shift):
    random = np.random.default_rng(8)
    real, generated = random.normal(size=(120, 3)), random.normal(shift, 1.2, (90, 3))
    radii = []
    for rows in (real, generated):
        distances, _ = NearestNeighbors(n_neighbors=6).fit(rows).kneighbors(rows)
        radii.append(distances[:, 5])
    between = np.linalg.norm(real[:, None] - generated[None], axis=2)
    expected = {
        "precision": np.mean([(between[:, j] < radii[0]).any() for j in range(90)]),
        "recall": np.mean([(between[i] < radii[1]).any() for i in range(120)]),
        "density": (between < radii[0][:, None]).sum() / (5 * 90),
        "coverage": np.mean([between[i].min() < radii[0][i] for i in range(120)]),
    }
    found = neighbour_shares(real, generated, 5)
    assert {name: value for name, (value, _) in found.items()} == pytest.approx(expected)


def test_empty_voxels_count_as_published_and_as_half_the_threshold():
    """Which of two values empty voxels have decides who is near; all rows are compared."""
    geometry = detectors.cartesian()
    reference, sample = (detectors.make_showers(geometry, 160, seed) for seed in (1, 2))
    pair = pair_of(sample, reference, repetitions=1)
    halves = pair.splits[0]
    found = compare_neighbours(
        (judged.shower_set(reference), judged.shower_set(sample)),
        (pair.reference, pair.sample), halves, judged.THRESHOLD, NeighbourProtocol(),
    )  # fmt: skip
    assert len(found.shares) == 8
    for empty, suffix in ((0.1, ""), (judged.THRESHOLD / 2, "_half_threshold")):
        real, generated = (
            np.log10(np.where(rows >= judged.THRESHOLD, rows, empty))
            for rows in (
                reference.energies[np.sort(halves.first)].astype(np.float64),
                sample.energies[np.sort(halves.sample)].astype(np.float64),
            )
        )
        for name, (value, _) in neighbour_shares(real, generated, 5).items():
            assert found.shares[name + suffix].value == pytest.approx(value, abs=1e-6)
    assert found.shares["density"].value != found.shares["density_half_threshold"].value


def test_a_copy_has_neighbours_of_its_own():
    """Precision, recall and coverage of a set with itself are 1; its density is (k + 1) / k
    where no ball holds its own border."""
    rows = np.random.default_rng(1).normal(size=(50, 4))
    found = neighbour_shares(rows, rows, 5)
    assert {found[name][0] for name in ("precision", "recall", "coverage")} == {1.0}


def test_a_scaled_response_shows_in_the_linearity_alone():
    sample, reference = judged.independent_pair(2000)
    scaled = response_of(pair_of(judged.changed(sample, sample.energies * 1.05), reference))
    assert scaled.linearity.value == pytest.approx(0.05, abs=0.005)
    assert scaled.resolution.value < scaled.resolution.floor + 4 * scaled.resolution.floor_error
    ratios = [entry.sample.mean / entry.reference.mean for entry in scaled.bins]
    np.testing.assert_allclose(ratios, 1.05, atol=0.01)


def test_single_energies_are_bins_of_their_own():
    incident = np.repeat([20e3, 50e3, 80e3], 40)
    edges = energy_edges(incident)
    np.testing.assert_array_equal(np.searchsorted(edges, [20e3, 50e3, 80e3]), [1, 2, 3])
    sample, reference = judged.independent_pair(120)
    for showers in (sample, reference):
        showers.conditions["incident_energy"][:] = incident
    found = response_of(pair_of(sample, reference))
    assert [entry.energies.mean for entry in found.bins] == [20e3, 50e3, 80e3]


def test_a_change_at_high_energies_is_seen_in_their_slice():
    sample, reference = judged.independent_pair(1500, width=0.1)
    is_high = sample.conditions["incident_energy"] > 82_000
    energies = np.where(is_high[:, None], sample.energies * 1.2, sample.energies)
    slices = energy_slices(pair_of(judged.changed(sample, energies), reference, 20), seed=0)
    significances = [entry.separations["visible_fraction"].significance for entry in slices]
    assert len(slices) == 5
    assert np.argmax(significances) == 4
    assert significances[4] > 5 > max(significances[:4])
