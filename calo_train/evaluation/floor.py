"""Every distance beside its floor: the same distance between two halves of the reference.

A distance between finite sets is never zero, and it falls as sets grow, so sample and floor are
measured at one size n: at most half of the reference, and no more than a sample holds. In each of
R repetitions the reference is shuffled and gives two disjoint sets A and B of n showers; the
floor is d(B, A) and the value d(S, A), S being n showers of the sample. When sample and reference
are equally long, S takes the rows of B: showers drawn at the reference's conditions then share
them with B, the comparison differs in the showers alone, and a copy of the reference lies on its
floor exactly.

The spread of the floor over repetitions is that of a permutation test at size n. The spread of the
value over half-samples is the delete-half jackknife, hence the error of the value for all showers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError
from calo_train.evaluation.distances import (
    Binning,
    FloatArray,
    PooledOrder,
    histogram,
    reduced_chi2,
    separation_power,
    separation_powers,
)
from calo_train.evaluation.lazily import lazily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from calo_train.evaluation.bin_kernel import BinArray

IndexArray = npt.NDArray[np.int64]

MIN_SHOWERS = 10
MAX_SIGNIFICANCE = 999.0
VERDICTS = ("within 1 sigma", "within 2 sigma", "within 3 sigma", "above 3 sigma")


@dataclass(frozen=True, eq=False)
class Halves:
    """One repetition: n rows of the reference each in A and B, n rows of the sample."""

    first: IndexArray
    second: IndexArray
    sample: IndexArray


def matched_size(num_reference: int, sample_sizes: Sequence[int]) -> int:
    """Give the number of showers at which all distances are taken; DataError when too few."""
    size = min(num_reference // 2, *sample_sizes)
    if size < MIN_SHOWERS:
        raise DataError(
            f"too few showers: {num_reference} in the reference, {min(sample_sizes)} in a sample",
            where="reference and sample",
            do=f"give at least {2 * MIN_SHOWERS} reference showers and {MIN_SHOWERS} to judge",
        )
    return size


def half_splits(
    num_reference: int, num_sample: int, *, size: int, repetitions: int, seed: int
) -> Iterator[Halves]:
    """Yield seeded repetitions; A and B depend on the reference's size and the seed only."""
    for repetition in range(repetitions):
        random = np.random.Generator(np.random.Philox(key=[seed, repetition]))
        order = random.permutation(num_reference)
        first, second = order[:size], order[size : 2 * size]
        is_aligned = num_sample == num_reference
        sample = second if is_aligned else random.permutation(num_sample)[:size]
        yield Halves(first, second, sample)


@dataclass(frozen=True)
class Metric:
    """A value with its error beside its floor with its spread, at one number of showers."""

    value: float
    error: float
    floor: float
    floor_error: float

    @property
    def significance(self) -> float:
        """How many spreads of the floor the value lies above it; negative below."""
        excess = self.value - self.floor
        if self.floor_error > 0:
            return float(np.clip(excess / self.floor_error, -MAX_SIGNIFICANCE, MAX_SIGNIFICANCE))
        return MAX_SIGNIFICANCE if excess > 0 else 0.0

    @classmethod
    def of(cls, values: FloatArray, floors: FloatArray) -> Metric:
        """Summarise repetitions (R,) by means and standard deviations."""
        return cls(
            float(values.mean()), float(values.std()), float(floors.mean()), float(floors.std())
        )


def verdict_of(significance: float) -> str:
    """Put a significance into words: within 1, 2, 3 sigma of the floor, or above."""
    for limit, verdict in enumerate(VERDICTS[:-1], start=1):
        if significance <= limit:
            return verdict
    return VERDICTS[-1]


@dataclass(frozen=True, eq=False)
class Repeated:
    """A distance in every repetition, for sample and floor: (R,) each."""

    values: FloatArray
    floors: FloatArray

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]]) -> Repeated:
        """Take (value, floor) of each repetition."""
        found = np.asarray(pairs)
        return cls(found[:, 0], found[:, 1])

    @property
    def metric(self) -> Metric:
        return Metric.of(self.values, self.floors)

    def scaled(self, scale: float) -> Repeated:
        """Divide both by a scale; without one (a constant observable) they stay as they are."""
        return Repeated(self.values / scale, self.floors / scale) if scale > 0 else self


def repeat(
    splits: Sequence[Halves], distance: Callable[[Halves], tuple[float, float]]
) -> Repeated:
    """Evaluate `distance(halves) -> (value, floor)` in all repetitions."""
    return Repeated.of([distance(halves) for halves in splits])


@dataclass(frozen=True, eq=False)
class BinnedPair:
    """The bins of an observable of all showers of a reference and a sample; `num_bins` outside."""

    reference: BinArray
    sample: BinArray
    num_bins: int

    @classmethod
    def of(cls, reference: FloatArray, sample: FloatArray, binning: Binning) -> BinnedPair:
        """Bin both."""
        return cls(binning.indices(reference), binning.indices(sample), binning.num_bins)

    @lazily
    def counts(self) -> tuple[FloatArray, FloatArray]:
        """Count all showers of the reference and of the sample, (bins + 1,), the last outside."""
        return histogram(self.reference, self.num_bins), histogram(self.sample, self.num_bins)

    @property
    def separation_all(self) -> float:
        """The separation power of all showers."""
        reference, sample = self.counts
        return separation_power(sample[:-1], reference[:-1])

    @property
    def shares_outside(self) -> tuple[float, float]:
        """The shares of the sample and of the reference that no bin holds."""
        reference, sample = self.counts
        return float(sample[-1] / len(self.sample)), float(reference[-1] / len(self.reference))

    def repeated(self, splits: Sequence[Halves]) -> tuple[Repeated, Repeated]:
        """Give separation powers and chi2 a degree of freedom in every repetition."""
        base, value, floor = self._counted(splits)
        return (
            Repeated(separation_powers(value, base), separation_powers(floor, base)),
            Repeated(reduced_chi2(value, base), reduced_chi2(floor, base)),
        )

    def repeated_separation(self, splits: Sequence[Halves]) -> Repeated:
        """Give the separation powers alone."""
        base, value, floor = self._counted(splits)
        return Repeated(separation_powers(value, base), separation_powers(floor, base))

    def _counted(self, splits: Sequence[Halves]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Histogram A, S and B of every repetition, (R, bins) each."""
        base, value, floor = (
            np.stack([histogram(bins, self.num_bins, rows)[:-1] for rows in chosen])
            for bins, chosen in (
                (self.reference, [halves.first for halves in splits]),
                (self.sample, [halves.sample for halves in splits]),
                (self.reference, [halves.second for halves in splits]),
            )
        )
        return base, value, floor


def repeated_separation(
    reference: FloatArray, sample: FloatArray, binning: Binning, splits: Sequence[Halves]
) -> Repeated:
    """Give separation powers of one observable (n,)."""
    return BinnedPair.of(reference, sample, binning).repeated_separation(splits)


def repeated_wasserstein(
    reference: FloatArray, sample: FloatArray, splits: Sequence[Halves]
) -> Repeated:
    """Give Wasserstein-1 distances in units of the reference's standard deviation."""
    first = [halves.first for halves in splits]
    repeated = Repeated(
        PooledOrder(sample, reference).distances([halves.sample for halves in splits], first),
        PooledOrder(reference, reference).distances([halves.second for halves in splits], first),
    )
    return repeated.scaled(deviation(reference))


def repeated_spectrum(
    reference: npt.NDArray[np.int32], sample: npt.NDArray[np.int32], splits: Sequence[Halves]
) -> Repeated:
    """Give separation powers of the cell spectrum from counts (n, bins + 1), the last dropped."""

    def distance(halves: Halves) -> tuple[float, float]:
        base = _spectrum_counts(reference, halves.first)
        return (
            separation_power(_spectrum_counts(sample, halves.sample), base),
            separation_power(_spectrum_counts(reference, halves.second), base),
        )

    return repeat(splits, distance)


def mean_of_group(members: Sequence[Repeated]) -> Repeated:
    """Average a distance over a group of observables, such as all layers, in each repetition."""
    return Repeated(
        np.mean([member.values for member in members], axis=0),
        np.mean([member.floors for member in members], axis=0),
    )


def _spectrum_counts(counts: npt.NDArray[np.int32], rows: IndexArray) -> FloatArray:
    totals: FloatArray = counts[rows, :-1].sum(axis=0, dtype=np.float64)
    return totals


def deviation(values: FloatArray) -> float:
    """Give the standard deviation of the defined values; 0 without any."""
    defined = values[~np.isnan(values)]
    return float(defined.std()) if len(defined) else 0.0
