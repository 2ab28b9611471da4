"""What an evaluation says of known changes."""

from __future__ import annotations

import re

import detectors
import judged
import numpy as np
import pytest

from calo_train.errors import DataError, GeometryMismatch
from calo_train.evaluation.floor import VERDICTS


def test_a_sample_against_itself_lies_on_the_floor():
    """E2: distances at the floor, all-shower distances at zero, and it is said."""
    _, reference = judged.independent_pair()
    result = judged.judge(reference, reference).samples[0]
    for entry in (*result.observables, *result.layers):
        assert entry.separation_all == 0
        assert entry.verdict == VERDICTS[0]
    assert result.correlations.significance == 0
    assert any("self-check" in warning for warning in result.warnings)


def test_independent_showers_of_one_law_are_compatible():
    result = judged.judge(*judged.independent_pair()).samples[0]
    beyond = [entry for entry in result.observables if entry.verdict == VERDICTS[-1]]
    assert not beyond


def test_one_per_cent_more_energy_is_named_as_visible_energy():
    """E3: the response fluctuates by 2 %, the spectrum is wide, so the ratio tells first."""
    sample, reference = judged.independent_pair(1500)
    scaled = judged.changed(sample, sample.energies * 1.01)
    result = judged.judge(scaled, reference).samples[0]
    assert result.ranking[0].name == "visible_fraction"
    assert result.ranking[0].verdict == VERDICTS[-1]


def test_a_dead_layer_is_named():
    """E3"""
    sample, reference = judged.independent_pair(width=0.2)
    dead = sample.energies.copy()
    dead[:, sample.geometry.layer_slices[1]] = 0
    result = judged.judge(judged.changed(sample, dead), reference).samples[0]
    assert result.ranking[0].layer == 1
    energy = result.layers_of("layer_energy")[1]
    assert energy.separation.value == 1
    assert energy.outside_sample == 1


def test_doubled_fluctuations_of_cells_are_named_by_cells():
    """E3: doubled noise moves cells, hardly any sum."""
    sample, reference = judged.independent_pair(width=0.2)
    random = np.random.default_rng(0)
    factors = random.choice([0.5, 1.5], size=sample.energies.shape)
    result = judged.judge(judged.changed(sample, sample.energies * factors), reference)
    first, spectrum = result.samples[0].ranking[0], result.samples[0].observables[-1]
    assert (first.group or first.name) in {
        spectrum.name,
        "brightest_share",
        "layer_brightest_share",
    }
    assert first.verdict == spectrum.verdict == VERDICTS[-1]


def test_classifier_stands_beside_its_floor():
    sample, reference = judged.independent_pair()
    dead = sample.energies.copy()
    dead[:, sample.geometry.layer_slices[1]] = 0
    evaluation = judged.judge(judged.changed(sample, dead), reference, protocol=judged.TINY)
    (classifier,) = evaluation.samples[0].classifiers
    assert classifier.num_per_class == evaluation.size == 200
    assert len(classifier.sample_runs) == len(classifier.floor_runs) == 2
    assert classifier.auc[0] > 0.9
    assert abs(classifier.floor[0] - 0.5) < 4 * classifier.floor_error
    assert classifier.significance > 3


def test_other_incident_energies_are_refused_with_both_described():
    """E6"""
    sample, reference = judged.independent_pair(600)
    sample.conditions["incident_energy"][:] *= 0.8
    with pytest.raises(DataError) as caught:
        judged.judge(sample, reference)
    both = r"8\.\d+ GeV to 79\.\d+ GeV.*10\.\d+ GeV to 99\.\d+ GeV"
    assert re.search(both, caught.value.what)
    assert "--like" in caught.value.do


def test_other_detectors_are_refused():
    reference = detectors.make_showers(detectors.polar(), 100)
    with pytest.raises(GeometryMismatch):
        judged.judge(detectors.make_showers(detectors.cartesian(), 100), reference)


def test_few_showers_are_judged_with_a_warning():
    """E5"""
    evaluation = judged.judge(*judged.independent_pair(60))
    assert evaluation.size == 30
    assert "30 showers with 30" in evaluation.warnings[0]


@pytest.mark.parametrize("name", detectors.ALL)
def test_every_detector_and_empty_showers_can_be_judged(name):
    geometry = detectors.ALL[name]()
    pair = [detectors.make_showers(geometry, 80, seed) for seed in (1, 2)]
    for showers in pair:
        showers.energies[:5] = 0
    result = judged.judge(*pair).samples[0]
    assert len(result.layers_of("layer_energy")) == geometry.num_layers
    assert result.table.health.num_empty >= 5


def test_single_energy_showers_can_be_judged():
    sample, reference = judged.independent_pair(100)
    for showers in (sample, reference):
        showers.conditions["incident_energy"][:] = 50_000
    assert judged.judge(sample, reference).samples[0].observables
