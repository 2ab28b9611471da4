"""Scores of a classifier as probabilities, and what is read from them: AUC, JSD, curves.

A score is the probability of the reference (label 1). Calibration is an isotonic regression on the
selection showers, limited to [1e-6, 1 - 1e-6] (2410.21611).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]

_LIMIT = 1e-6
_NUM_BINS = 10  # of the calibration curve


def calibrated(scores: FloatArray, selection: FloatArray, labels: IndexArray) -> FloatArray:
    """Map scores (n,) by the isotonic regression of selection scores to their labels."""
    from sklearn.isotonic import IsotonicRegression

    regression = IsotonicRegression(y_min=_LIMIT, y_max=1 - _LIMIT, out_of_bounds="clip")
    regression.fit(selection, labels.astype(np.float64))
    return np.asarray(regression.predict(scores), dtype=np.float64)


def area_under_roc(scores: FloatArray, labels: IndexArray) -> float:
    """Give the chance that a reference shower scores above a sampled one; ties count half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def jensen_shannon(scores: FloatArray, labels: IndexArray) -> float:
    """Give 1 - BCE / ln 2 of probabilities: 0 for chance, 1 when told apart; below 0 if wrong.

    It bounds the Jensen-Shannon divergence of the two classes (in bits) from below.
    """
    kept = np.clip(scores, _LIMIT, 1 - _LIMIT)
    entropy = -np.where(labels == 1, np.log(kept), np.log1p(-kept)).mean()
    return float(1 - entropy / np.log(2))


@dataclass(frozen=True, eq=False)
class RocCurve:
    """Share of reference showers above a cut against that of sampled ones, (points,) each."""

    false_positive: FloatArray
    true_positive: FloatArray


def roc_curve(scores: FloatArray, labels: IndexArray, num_points: int = 101) -> RocCurve:
    """Give the ROC curve on an even grid of false positives."""
    from sklearn.metrics import roc_curve as all_points

    false_positive, true_positive, _ = all_points(labels, scores)
    grid = np.linspace(0.0, 1.0, num_points)
    return RocCurve(grid, np.interp(grid, false_positive, true_positive))


@dataclass(frozen=True, eq=False)
class CalibrationCurve:
    """Mean score and share of reference showers in bins of the score that hold any."""

    mean_score: FloatArray
    share: FloatArray
    counts: IndexArray

    @property
    def error(self) -> FloatArray:
        """Binomial standard deviation of the share."""
        deviation: FloatArray = np.sqrt(self.share * (1 - self.share) / self.counts)
        return deviation


def calibration_curve(scores: FloatArray, labels: IndexArray) -> CalibrationCurve:
    """Compare scores with what they promise, in ten equal bins."""
    bins = np.minimum((scores * _NUM_BINS).astype(np.int64), _NUM_BINS - 1)
    counts = np.bincount(bins, minlength=_NUM_BINS)
    kept = counts > 0
    sums = [np.bincount(bins, weights=w, minlength=_NUM_BINS)[kept] for w in (scores, labels)]
    return CalibrationCurve(sums[0] / counts[kept], sums[1] / counts[kept], counts[kept])
