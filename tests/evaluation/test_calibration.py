"""Scores as probabilities, against hand computation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calo_train.evaluation.classifiers.calibration import (
    area_under_roc,
    calibrated,
    calibration_curve,
    jensen_shannon,
    roc_curve,
)


def test_calibration_pools_violators_and_clips():
    """Labels 0, 1, 0, 1 at rising scores: the middle two pool to 1/2; ends are limited."""
    selection, labels = np.array([0.1, 0.4, 0.6, 0.9]), np.array([0, 1, 0, 1])
    found = calibrated(np.array([0.0, 0.4, 0.5, 0.6, 0.75, 1.0]), selection, labels)
    np.testing.assert_allclose(found, [1e-6, 0.5, 0.5, 0.5, (0.5 + 1 - 1e-6) / 2, 1 - 1e-6])


def test_jensen_shannon_bound_by_hand():
    """1 + mean log2 of the probability of the true class."""
    scores, labels = np.array([0.25, 0.5, 0.8]), np.array([0, 0, 1])
    expected = 1 + (math.log2(0.75) + math.log2(0.5) + math.log2(0.8)) / 3
    assert jensen_shannon(scores, labels) == pytest.approx(expected)
    assert jensen_shannon(np.full(4, 0.5), np.array([0, 1, 0, 1])) == pytest.approx(0, abs=1e-12)


def test_area_counts_ties_half():
    assert area_under_roc(np.array([0.2, 0.5, 0.5, 0.9]), np.array([0, 0, 1, 1])) == 0.875


def test_roc_curve_of_two_steps():
    curve = roc_curve(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 1, 0, 1]), num_points=5)
    np.testing.assert_allclose(curve.false_positive, [0, 0.25, 0.5, 0.75, 1])
    assert curve.true_positive[-1] == 1
    np.testing.assert_allclose(
        np.trapezoid(curve.true_positive, curve.false_positive), 0.75, atol=0.13
    )


def test_calibration_curve_leaves_empty_bins_out():
    curve = calibration_curve(np.array([0.05, 0.07, 0.55, 1.0]), np.array([0, 1, 1, 1]))
    np.testing.assert_allclose(curve.mean_score, [0.06, 0.55, 1.0])
    np.testing.assert_allclose(curve.share, [0.5, 1, 1])
    assert curve.counts.tolist() == [2, 1, 1]
    np.testing.assert_allclose(curve.error, [math.sqrt(0.125), 0, 0])
