"""Binnings and distances between two distributions of one observable.

Separation power as in the CaloChallenge (2410.21611; triangular discrimination, 2009.03796 eq. 15)
and the Wasserstein-1 distance. Binnings come from the reference alone, so that a sample cannot
choose how it is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.evaluation.bin_kernel import BinArray, compiled_histograms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.evaluation.observables import Scale

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]

CENTRAL_SHARE = 0.998
_MARGIN = 0.05  # of the central range, on either side
_DECADES_OF_LOG = 2.0  # "auto" is logarithmic above this span
MIN_BINS, MAX_BINS = 10, 100
_SMALL = 1e-16  # the official regulator of empty bins


@dataclass(frozen=True, eq=False)
class Binning:
    """Edges (bins + 1,), equally spaced, in the logarithm where `is_log`."""

    edges: FloatArray
    is_log: bool

    @property
    def num_bins(self) -> int:
        return len(self.edges) - 1

    def indices(self, values: FloatArray) -> BinArray:
        """Give the bin of each value, [a, b) and the last closed; `num_bins` for those outside."""
        compiled = compiled_histograms()
        if compiled is None:
            return self._searched(values)
        found = compiled.find(values, self.edges, is_log=self.is_log)
        if len(found) == len(values):
            return found
        return np.concatenate([found, self._searched(values[len(found) :])])

    def _searched(self, values: FloatArray) -> BinArray:
        edges = self.edges
        is_inside = (values >= edges[0]) & (values <= edges[-1])  # not for NaN
        inside = np.where(is_inside, values, edges[0])
        places, ends = (np.log(inside), np.log(edges)) if self.is_log else (inside, edges)
        guess = (places - ends[0]) * (self.num_bins / (ends[-1] - ends[0]))
        bins = np.minimum(guess.astype(np.int32), self.num_bins - 1)
        # Equal spacing gives the bin up to the rounding of an edge; the edges decide.
        bins -= inside < edges[bins]
        bins += (inside >= edges[bins + 1]) & (bins < self.num_bins - 1)
        return np.where(is_inside, bins, np.int32(self.num_bins))

    def counts(self, values: FloatArray) -> FloatArray:
        """Histogram the values; those outside are dropped."""
        return histogram(self.indices(values), self.num_bins)[:-1]

    def share_outside(self, values: FloatArray) -> float:
        """Give the share of values that no bin holds."""
        return float(np.mean(self.indices(values) == self.num_bins))


def histogram(bins: BinArray, num_bins: int, rows: IndexArray | None = None) -> FloatArray:
    """Count bins, of some rows or all: (bins + 1,), the last those outside."""
    if compiled := compiled_histograms():
        return compiled.count(bins, num_bins + 1, rows).astype(np.float64)
    chosen = bins if rows is None else bins[rows]
    return np.bincount(chosen, minlength=num_bins + 1).astype(np.float64)


def automatic_binning(reference: FloatArray, scale: Scale, *, is_count: bool = False) -> Binning:
    """Bin by the reference: its central 99.8 %, widened by 5 % on either side, in equal steps.

    The number of bins is Rice's 2 n^(1/3), at least 10, at most 100: between two sets of n showers
    the separation power is about bins / 2n by chance alone, so that more bins would hide small
    differences. Counts get whole-numbered bins around the integers. Logarithmic bins cover
    positive values only; zeros then count as outside.
    """
    reference = reference[~np.isnan(reference)]
    num_bins = int(np.clip(round(2 * len(reference) ** (1 / 3)), MIN_BINS, MAX_BINS))
    is_log = _is_logarithmic(reference, scale)
    values = reference[reference > 0] if is_log else reference
    tail = (1 - CENTRAL_SHARE) / 2
    low, high = np.quantile(values, (tail, 1 - tail)) if len(values) else (0.5, 1.5)
    if is_count and not is_log:
        return Binning(_count_edges(low, high, num_bins), is_log)
    if is_log:
        low, high = np.log10(low), np.log10(high)
    # An observable that never varies still needs a bin that holds its value.
    margin = _MARGIN * (high - low) or max(abs(low), 1.0) * 1e-3
    edges = np.linspace(low - margin, high + margin, num_bins + 1)
    return Binning(10**edges if is_log else edges, is_log)


def separation_power(first: FloatArray, second: FloatArray) -> float:
    """Give S = 1/2 sum (h-g)^2 / (h+g) of two histograms after normalising each to 1.

    0 for equal shapes, 1 for disjoint ones; 1 when one is empty and 0 when both are.
    """
    return float(separation_powers(first[None], second[None])[0])


def separation_powers(first: FloatArray, second: FloatArray) -> FloatArray:
    """Give the same of many pairs of histograms (R, bins): (R,)."""
    h, g = _normalised(first), _normalised(second)
    # An empty histogram has no shape: it is as far from any other as can be, but not from itself.
    empty, other = (~values.any(axis=1) for values in (first, second))
    powers = 0.5 * np.sum((h - g) ** 2 / (h + g + _SMALL), axis=1)
    found: FloatArray = np.where(empty | other, (empty != other).astype(np.float64), powers)
    return found


def reduced_chi2(first: FloatArray, second: FloatArray) -> FloatArray:
    """Give chi2 a degree of freedom of pairs of histograms of counts (R, bins), normalised to 1.

    Sum of (h - g)^2 / (h/N + g/M) over bins that either fills, for N and M entries, over their
    number less 1: about 1 for two samples of one law. 0 when one is empty or one bin holds all.
    """
    h, g = _normalised(first), _normalised(second)
    variance = _over(h, first.sum(axis=1, keepdims=True)) + _over(
        g, second.sum(axis=1, keepdims=True)
    )
    chi2 = np.sum(_over((h - g) ** 2, variance), axis=1)
    freedom = np.maximum(np.count_nonzero(first + second, axis=1) - 1, 0)
    is_given = first.any(axis=1) & second.any(axis=1)
    return np.where(is_given, _over(chi2, freedom.astype(np.float64)), 0.0)


class PooledOrder:
    """Wasserstein-1 distances between many subsets of two samples, after sorting once.

    W1 is the area between the two cumulative distributions, so a subset only changes weights on
    the pooled, sorted values. Undefined values (NaN) are left out.
    """

    def __init__(self, first: FloatArray, second: FloatArray) -> None:
        pooled = np.concatenate([first, second])
        self._is_defined = ~np.isnan(pooled)
        pooled = np.where(self._is_defined, pooled, 0.0)
        order = np.argsort(pooled, kind="stable")
        self._gaps = np.diff(pooled[order])
        self._rank = np.empty(len(pooled), dtype=np.int64)
        self._rank[order] = np.arange(len(pooled))
        self._num_first = len(first)

    def distance(self, first_rows: IndexArray, second_rows: IndexArray) -> float:
        """Give W1 between rows of the first and rows of the second sample.

        0 when neither has a defined value; the range from 0 on when only one has.
        """
        weights = np.zeros(len(self._rank))
        for rows, sign in ((first_rows, 1.0), (self._num_first + second_rows, -1.0)):
            defined = rows[self._is_defined[rows]]
            weights[self._rank[defined]] = sign / max(len(defined), 1)
        return float(np.abs(np.cumsum(weights)[:-1]) @ self._gaps)

    def distances(
        self, first_rows: Sequence[IndexArray], second_rows: Sequence[IndexArray]
    ) -> FloatArray:
        """Give W1 of many pairs of rows."""
        pairs = zip(first_rows, second_rows, strict=True)
        return np.asarray([self.distance(first, second) for first, second in pairs])


def _normalised(counts: FloatArray) -> FloatArray:
    return _over(counts, counts.sum(axis=1, keepdims=True))


def _over(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide; 0 by zero."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def _is_logarithmic(reference: FloatArray, scale: Scale) -> bool:
    if scale != "auto":
        return scale == "log"
    positive = reference[reference > 0]
    if not len(positive):
        return False
    low, high = np.quantile(positive, (0.01, 0.99))
    return bool(np.log10(high / low) > _DECADES_OF_LOG)


def _count_edges(low: float, high: float, num_bins: int) -> FloatArray:
    first, last = np.floor(low), np.ceil(high)
    margin = np.ceil(_MARGIN * (last - first))
    width = max(np.ceil((last - first + 2 * margin + 1) / num_bins), 1.0)
    start = max(first - margin, 0.0) - 0.5
    steps = np.ceil((last + margin + 0.5 - start) / width)
    return np.asarray(start + width * np.arange(int(steps) + 1), dtype=np.float64)
