"""Copies of training showers, in the reference and in a sample; other incident spectra."""

from __future__ import annotations

import detectors
import judged
import numpy as np
import pytest

from calo_train.errors import DataError
from calo_train.evaluation.comparison import evaluate
from calo_train.evaluation.incident_spectra import spectrum_histograms
from calo_train.evaluation.memorisation import nearer_share
from calo_train.evaluation.metrics import metrics_of
from calo_train.evaluation.results import Settings
from calo_train.evaluation.shower_keys import MIN_HITS, keys_of
from calo_train.showers.showers import Showers, concatenate


def judge(sample: Showers, reference: Showers, training: Showers, **settings):
    sets = [
        judged.shower_set(showers, label)
        for showers, label in ((sample, "sample"), (reference, "reference"), (training, "trained"))
    ]
    chosen = Settings(judged.THRESHOLD, repetitions=10, classifiers=(), **settings)
    return evaluate([sets[0]], sets[1], chosen, (sets[2],)).samples[0]


def three(number: int = 300) -> list[Showers]:
    geometry = judged.deep_detector()
    return [judged.smooth_showers(geometry, number, seed) for seed in (1, 2, 3)]


def keys(showers: Showers):
    return keys_of(judged.shower_set(showers), judged.THRESHOLD)


def test_keys_find_the_rows_that_are_equal():
    """Against a naive comparison of all pairs, soft hits aside."""
    first, second, _ = three(60)
    mixed = concatenate([first.rows(slice(0, 7)), second, first.rows(slice(0, 3))])
    kept = [np.where(s.energies >= judged.THRESHOLD, s.energies, 0) for s in (mixed, first)]
    naive = (kept[0][:, None] == kept[1][None]).all(axis=2).any(axis=1).sum()
    assert keys(mixed).num_in(keys(first)) == naive == 10
    assert keys(mixed).num_repeated == 3


def test_one_bit_of_one_voxel_makes_another_shower():
    shower = three(1)[0]
    other = judged.changed(shower, shower.energies.copy())
    hit = np.flatnonzero(shower.energies[0] > 1)[0]
    other.energies[0, hit] = np.nextafter(other.energies[0, hit], np.float32(np.inf))
    assert keys(other).num_in(keys(shower)) == 0


def test_showers_of_few_hits_are_not_called_copies():
    """Empty showers and single hits are equal by chance."""
    shower = three(1)[0]
    for num_hits, expected in ((0, 0), (MIN_HITS - 1, 0), (MIN_HITS, 1)):
        energies = np.zeros_like(shower.energies)
        energies[:, :num_hits] = 1
        sparse = judged.changed(shower, energies)
        assert keys(sparse).num_in(keys(sparse)) == expected


def test_a_reference_that_was_trained_on_is_refused_with_files_and_rows():
    """D6"""
    sample, reference, training = three()
    leaked = concatenate([training, reference.rows(slice(0, 5))])
    with pytest.raises(DataError, match=r"^5 of 300 showers of the reference") as caught:
        judge(sample, reference, leaked)
    assert caught.value.exit_code == 3
    assert caught.value.where == "memory.h5 and memory.h5"


def test_a_reference_that_is_the_training_data_is_called_so():
    """D6"""
    sample, reference, _ = three()
    with pytest.raises(DataError, match=r"^the reference is the training data itself: 300 of"):
        judge(sample, reference, reference)


def test_memorised_showers_are_counted_and_told():
    """E14: copies by content, and neighbours too near, beside the floor of other showers."""
    sample, reference, training = three()
    recited = training.rows(np.arange(300) % 200)
    result = judge(recited, reference, training, allow_different_energies=True)
    copies = result.memorisation.copies
    assert (copies.num_in_training, copies.num_repeated, copies.num_in_reference) == (300, 100, 0)
    assert any(w.startswith("memorised: 300 of 300 showers") for w in result.warnings)
    assert any(w.startswith("100 of 300 showers of sample repeat") for w in result.warnings)
    assert result.memorisation.nearer.value > 0.6
    assert result.memorisation.nearer.significance > 3
    honest = judge(sample, reference, training).memorisation
    assert honest.copies.num_in_training == 0
    assert abs(honest.nearer.significance) < 4


def test_nearly_copied_showers_are_near_without_being_copies():
    """E14: noise on every voxel hides a copy from its key, not from its neighbours."""
    _, reference, training = three()
    noise = np.random.default_rng(0).normal(1, 0.01, training.energies.shape)
    blurred = judged.changed(training, training.energies * noise)
    result = judge(blurred, reference, training, allow_different_energies=True).memorisation
    assert result.copies.num_in_training == 0
    assert result.nearer.significance > 3


def test_share_of_nearer_showers_equals_a_naive_loop():
    random = np.random.default_rng(3)
    queries, first, second = (random.random((number, 5)) for number in (40, 30, 30))
    second[0] = first[0]
    queries[0] = first[0]  # as near to one pool as to the other
    naive = []
    for query in queries:
        near, far = (np.linalg.norm(pool - query, axis=1).min() for pool in (first, second))
        naive.append(0.5 if near == far else float(near < far))
    assert nearer_share(queries, first, second)[0] == pytest.approx(np.mean(naive))


def test_without_training_data_the_share_is_null_with_the_reason():
    metrics = metrics_of(judged.judge(*judged.independent_pair(100)))
    found = metrics["samples"][0]["memorisation"]
    assert found["nearer_to_training"] is None
    assert found["num_in_training"] is None
    assert "--training" in found["reason"]


def test_showers_of_the_reference_in_a_sample_are_told():
    sample, reference, training = three()
    mixed = concatenate([sample.rows(slice(0, 280)), reference.rows(slice(0, 20))])
    result = judge(mixed, reference, training)
    assert "20 of 300 showers of sample are showers of the reference" in result.warnings


def test_other_incident_energies_can_be_allowed_and_are_shown():
    """E6: both histograms, in the error and in the warning of the report."""
    sample, reference, training = three()
    sample.conditions["incident_energy"][:] *= 0.5
    with pytest.raises(DataError, match="incident energies differ") as caught:
        judge(sample, reference, training)
    assert "--allow-different-energies" in caught.value.do
    histograms = caught.value.what.partition("\n")[2]
    assert histograms.count("#") > 20
    (warning,) = (
        w for w in judge(sample, reference, training, allow_different_energies=True).warnings
        if "incident energies differ" in w
    )  # fmt: skip
    assert histograms in warning
    assert "distorted" in warning


def test_histograms_hold_every_shower():
    wide, single = np.geomspace(1e3, 1e6, 50), np.full(20, 5e4)
    for pair in ((wide, single), (single, single), (np.linspace(1e4, 1e5, 30), single)):
        rows = spectrum_histograms(*pair).splitlines()[1:]
        shares = np.asarray([[float(word) for word in row.split()[2:] if word[:2] in ("0.", "1.")]
                             for row in rows])  # fmt: skip
        np.testing.assert_allclose(shares.sum(axis=0), 1, atol=0.006)


def test_showers_without_any_energy_are_judged():
    """All voxels zero, in the sample alone and in both."""
    geometry = detectors.cartesian()
    reference, sample = (detectors.make_showers(geometry, 60, seed) for seed in (1, 2))
    sample.energies[:] = 0
    result = judged.judge(sample, reference).samples[0]
    assert result.verdict == "above 3 sigma"
    assert result.memorisation.copies.num_repeated == 0
    reference.energies[:] = 0
    assert judged.judge(sample, reference).samples[0].verdict == "within 1 sigma"
