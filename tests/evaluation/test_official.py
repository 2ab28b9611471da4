"""Official numbers equal an independent computation on files of the challenge's shapes."""

from __future__ import annotations

import detectors
import judged
import numpy as np
import official_way
import pytest

from calo_train.evaluation.deposits import Grid
from calo_train.evaluation.floor import half_splits
from calo_train.evaluation.observable_distances import TablePair
from calo_train.evaluation.official import compare_officially, official_dataset
from calo_train.evaluation.spectrum import spectrum_edges, voxel_range
from calo_train.evaluation.table import measure
from calo_train.geometry import Axis, Geometry, Layer
from calo_train.showers.showers import Showers

SMALL_THRESHOLD = 0.5e-3 / 0.033
RINGS = {
    "1-photons": (
        (0, 1, (0, 5, 10, 30, 50, 100, 200, 400, 600)),
        (1, 10, (0, 2, 4, 6, 8, 10, 12, 15, 20, 30, 40, 50, 70, 90, 120, 150, 200)),
        (2, 10, (0, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 130, 160, 200, 250, 300, 350,
                 400)),
        (3, 1, (0, 50, 100, 200, 400, 600)),
        (12, 1, (0, 100, 200, 400, 1000, 2000)),
    ),
    "1-pions": (
        (0, 1, (0, 5, 10, 30, 50, 100, 200, 400, 600)),
        (1, 10, (0, 1, 4, 7, 10, 15, 30, 50, 90, 150, 200)),
        (2, 10, (0, 5, 10, 20, 30, 50, 80, 130, 200, 300, 400)),
        (3, 1, (0, 50, 100, 200, 400, 600)),
        (12, 10, (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 1000, 2000)),
        (13, 10, (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 600, 1000,
                  2000)),
        (14, 1, (0, 50, 100, 150, 200, 250, 300, 400, 600, 1000, 2000)),
    ),
    "2": tuple((index, 16, tuple(4.65 * edge for edge in range(10))) for index in range(45)),
    "3": tuple((index, 50, tuple(2.325 * edge for edge in range(19))) for index in range(45)),
}  # fmt: skip
VOXELS = {"1-photons": 368, "1-pions": 533, "2": 6480, "3": 40500}


def polar_layers(dataset: str) -> list[official_way.PolarLayer]:
    return [official_way.PolarLayer(*entry) for entry in RINGS[dataset]]


def geometry_of(dataset: str) -> Geometry:
    layers = []
    for index, (_, num_alpha, edges) in enumerate(RINGS[dataset]):
        alpha = detectors.axis("alpha", num_alpha, -np.pi, np.pi, unit="rad", is_periodic=True)
        axes = (alpha, Axis("r", tuple(map(float, edges))))
        layers.append(Layer(axes, float(index), 1.0))
    return Geometry("any name", tuple(layers))


def showers_of(dataset: str, threshold: float, number: int, seed: int) -> Showers:
    """Showers with empty layers, voxels at and below the threshold, and some far out of range."""
    random = np.random.default_rng(seed)
    geometry = geometry_of(dataset)
    powers = (
        random.integers(8, 23, number) if dataset[0] == "1" else random.uniform(10, 20, number)
    )
    incident = (2.0**powers).astype(np.float32)
    energies = random.exponential(1.0, (number, geometry.num_voxels)) ** 3
    energies *= random.random(energies.shape) < random.uniform(0.05, 0.6, (number, 1))
    energies *= (
        incident[:, None]
        * random.normal(1, 0.1, (number, 1))
        / energies.sum(axis=1, keepdims=True)
    )
    at_threshold = (random.random(energies.shape) < 0.05) & (energies > 0)
    energies = np.where(at_threshold, threshold, energies).astype(np.float32)
    energies[:, geometry.layer_slices[1]] *= random.random((number, 1)) < 0.8
    # Exact halves and tenths of a layer's cells lie on edges of the sparsity histogram.
    first = geometry.layer_slices[0]
    energies[:10, first] = np.arange(first.stop) < first.stop // 2
    return Showers(energies, {"incident_energy": incident}, geometry)


def tables(reference: Showers, sample: Showers, threshold: float) -> TablePair:
    grid = Grid.of(reference.geometry)
    sets = [judged.shower_set(showers) for showers in (reference, sample)]
    edges = spectrum_edges(voxel_range(sets[0], threshold), threshold)
    found = [measure(entry, grid, threshold=threshold, spectrum=edges) for entry in sets]
    splits = half_splits(len(reference), len(sample), size=20, repetitions=3, seed=0)
    return TablePair(found[0], found[1], grid, list(splits))


@pytest.mark.parametrize(
    ("dataset", "number"), [("1-photons", 150), ("1-pions", 150), ("2", 80), ("3", 40)]
)
def test_official_numbers_equal_the_published_definitions(dataset, number):
    """E9: on files of the published shapes."""
    threshold = 1.0 if dataset[0] == "1" else SMALL_THRESHOLD
    reference = showers_of(dataset, threshold, number, seed=1)
    sample = showers_of(dataset, threshold, number - 10, seed=2)
    assert reference.geometry.num_voxels == VOXELS[dataset]
    found = compare_officially(tables(reference, sample, threshold), threshold)
    features = [
        official_way.features(
            showers.energies.astype(np.float64), polar_layers(dataset), np.float32(threshold)
        )
        for showers in (reference, sample)
    ]
    incident = tuple(
        showers.conditions["incident_energy"].astype(np.float64) for showers in (reference, sample)
    )
    expected = official_way.separations(dataset, *features, incident, float(np.float32(threshold)))
    groups = {entry.name: entry for entry in found.observables}
    layers = {entry.name: entry for entry in found.layers}
    assert found.dataset == dataset
    assert set(groups) == set(expected)
    for name, by_layer in expected.items():
        mean = np.mean(list(by_layer.values()))
        assert groups[name].separation_all == pytest.approx(mean, abs=1e-6), name
        for number_of_layer, value in by_layer.items() if len(by_layer) > 1 else ():
            entry = layers[f"{name}_{number_of_layer:02d}"]
            assert entry.separation_all == pytest.approx(value, abs=1e-6), entry.name


def test_detectors_of_the_challenge_are_recognised_by_their_cells():
    for name in RINGS:
        assert official_dataset(geometry_of(name)).name == name
    assert official_dataset(detectors.polar()) is None


def test_another_threshold_gives_no_official_numbers_but_the_reason():
    reference = showers_of("1-photons", 1.0, 60, seed=1)
    found = compare_officially(tables(reference, reference, 5.0), 5.0)
    assert found.observables == ()
    assert "threshold of 1 MeV, not at 5 MeV" in found.reason


def test_what_lies_outside_the_official_range_is_said():
    """A response of 4 is dropped from [0.5, 1.5]: the histogram alone would not show it."""
    reference = showers_of("1-photons", 1.0, 100, seed=1)
    larger = judged.changed(reference, reference.energies * 4)
    found = compare_officially(tables(reference, larger, 1.0), 1.0)
    response = next(entry for entry in found.observables if entry.name == "visible_fraction")
    assert response.outside_sample > 0.9
    assert response.outside_reference < 0.2
