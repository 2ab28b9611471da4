"""Half splits, significances, verdicts; response and correlations."""

from __future__ import annotations

import numpy as np
import pytest

from calo_train.errors import DataError
from calo_train.evaluation.distances import automatic_binning
from calo_train.evaluation.floor import (
    MAX_SIGNIFICANCE,
    Metric,
    half_splits,
    matched_size,
    repeated_separation,
    repeated_wasserstein,
    verdict_of,
)
from calo_train.evaluation.moments import central_interval, correlation_matrix


def splits(num_reference, num_sample, *, repetitions=60, seed=0):
    size = matched_size(num_reference, [num_sample])
    return list(
        half_splits(num_reference, num_sample, size=size, repetitions=repetitions, seed=seed)
    )


def test_halves_are_disjoint_and_as_large_as_the_sample_part():
    for halves in splits(101, 300, repetitions=5):
        assert len(halves.first) == len(halves.second) == len(halves.sample) == 50
        assert not set(halves.first) & set(halves.second)
        assert len(set(halves.sample)) == 50


def test_a_small_sample_sets_the_size():
    assert matched_size(1000, [30, 400]) == 30
    with pytest.raises(DataError, match="too few showers"):
        matched_size(19, [1000])


def test_floor_does_not_depend_on_the_sample():
    """All samples of a report share one floor."""
    reference = np.random.default_rng(0).normal(size=200)
    binning = automatic_binning(reference, "linear")
    floors = [
        repeated_separation(reference, sample, binning, splits(200, len(sample))).floors
        for sample in (np.zeros(200), np.ones(500))
    ]
    np.testing.assert_array_equal(*floors)


def test_a_copy_of_the_reference_lies_on_its_floor():
    """E2: the self-check is exact, not only within errors."""
    reference = np.random.default_rng(0).normal(size=300)
    binning = automatic_binning(reference, "linear")
    for repeated in (
        repeated_separation(reference, reference, binning, splits(300, 300)),
        repeated_wasserstein(reference, reference, splits(300, 300)),
    ):
        np.testing.assert_array_equal(repeated.values, repeated.floors)
        assert repeated.metric.significance == 0


def test_equal_distributions_are_rarely_called_different():
    """40 independent pairs at 3 sigma: one false alarm is unlikely, two are not seen."""
    alarms = 0
    for trial in range(40):
        random = np.random.default_rng(trial)
        reference, sample = random.normal(size=(2, 400))
        binning = automatic_binning(reference, "linear")
        repeated = repeated_separation(reference, sample, binning, splits(400, 400, seed=trial))
        alarms += repeated.metric.significance > 3
    assert alarms <= 1


@pytest.mark.parametrize("repeated", ["separation", "wasserstein"])
def test_significance_grows_with_the_shift(repeated):
    random = np.random.default_rng(0)
    reference, sample = random.normal(size=(2, 1000))
    binning = automatic_binning(reference, "linear")
    found = []
    for shift in (0.0, 0.3, 0.6, 1.2):
        if repeated == "separation":
            result = repeated_separation(reference, sample + shift, binning, splits(1000, 1000))
        else:
            result = repeated_wasserstein(reference, sample + shift, splits(1000, 1000))
        found.append(result.metric.significance)
    assert found == sorted(found)
    assert found[-1] > 10


def test_verdicts_follow_the_spread_of_the_floor():
    words = [verdict_of(value) for value in (-5, 1.0, 1.5, 2.5, 3.1)]
    assert words == [
        "within 1 sigma", "within 1 sigma", "within 2 sigma", "within 3 sigma", "above 3 sigma",
    ]  # fmt: skip
    assert Metric(1.0, 0.0, 0.0, 0.0).significance == MAX_SIGNIFICANCE
    assert Metric(0.0, 0.0, 0.0, 0.0).significance == 0


def test_shortest_interval_holds_ninety_per_cent():
    """A narrow core of 90 values and a far tail of 10: only the core counts."""
    values = np.concatenate([np.linspace(0, 1, 90), np.linspace(50, 60, 10)])
    interval = central_interval(np.random.default_rng(0).permutation(values))
    assert interval.mean == pytest.approx(0.5)
    assert interval.deviation == pytest.approx(np.linspace(0, 1, 90).std())
    assert interval.mean_error == pytest.approx(interval.deviation / 90**0.5)


def test_shortest_interval_of_few_values_is_all_of_them():
    assert central_interval(np.array([1.0, 2.0, 6.0])).mean == 3


def test_correlations_equal_numpy_and_a_constant_has_none():
    columns = np.random.default_rng(0).normal(size=(500, 4))
    columns[:, 1] += columns[:, 0]
    np.testing.assert_allclose(correlation_matrix(columns), np.corrcoef(columns.T), atol=1e-12)
    columns[:, 2] = 0.1
    assert (correlation_matrix(columns)[2] == 0).all()
