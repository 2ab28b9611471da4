"""Frechet and kernel physics distances, FPD and KPD, of high-level features (2211.10295).

Draws, fits and errors are those of the published implementation (JetNet) with the CaloChallenge's
parameters, so equal features give equal numbers. Both draw with replacement from sets that should
be much larger than a draw: with fewer showers than the smallest draw they are not given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calo_train.evaluation.floor import Metric
from calo_train.evaluation.high_features import high_features

if TYPE_CHECKING:
    from calo_train.evaluation.deposits import FloatArray
    from calo_train.evaluation.floor import IndexArray
    from calo_train.evaluation.observable_distances import TablePair
    from calo_train.progress import Progress

RECOMMENDED_SHOWERS = 50_000
_ROWS = 1000  # of a kernel matrix at once


@dataclass(frozen=True)
class FrechetProtocol:
    """Sizes and draws of FPD: `num_sizes` sizes, equally spaced in 1/N, `num_draws` each."""

    min_size: int = 10_000
    max_size: int = 50_000
    num_sizes: int = 10
    num_draws: int = 20
    seed: int = 42

    @property
    def sizes(self) -> IndexArray:
        inverse = np.linspace(1 / self.min_size, 1 / self.max_size, self.num_sizes)
        return (1 / inverse).astype("int32").astype(np.int64)


@dataclass(frozen=True)
class KernelProtocol:
    """Draws of KPD and their size."""

    size: int = 10_000
    num_draws: int = 10
    seed: int = 42


@dataclass(frozen=True)
class PhysicsDistances:
    """FPD and KPD beside their floors; `reason` says why they are not given.

    `fpd` and `kpd` compare as many showers as their floors; those with `_all` take all of both
    sets, as (value, error).
    """

    fpd: Metric | None = None
    kpd: Metric | None = None
    fpd_all: tuple[float, float] | None = None
    kpd_all: tuple[float, float] | None = None
    num_features: int = 0
    frechet: FrechetProtocol = FrechetProtocol()
    kernel: KernelProtocol = KernelProtocol()
    reason: str | None = None


def physics_distances(
    pair: TablePair,
    *,
    frechet: FrechetProtocol = FrechetProtocol(),
    kernel: KernelProtocol = KernelProtocol(),
    progress: Progress | None = None,
) -> PhysicsDistances:
    """Give FPD and KPD of a sample and of one half of the reference against the other."""
    halves = pair.splits[0]
    needed = max(frechet.min_size, kernel.size)
    if len(halves.first) < needed:
        return PhysicsDistances(
            frechet=frechet,
            kernel=kernel,
            reason=f"{len(halves.first)} showers against {len(halves.first)}: the published draws "
            f"hold {needed} or more",
        )
    reference = high_features(pair.reference, pair.grid)
    sample = high_features(pair.sample, pair.grid)
    found = []
    for real, generated in (
        (reference[halves.first], sample[halves.sample]),
        (reference[halves.first], reference[halves.second]),
        (reference, sample),
    ):
        scaled = scaled_features(real, generated)
        found.append((frechet_distance(*scaled, frechet), kernel_distance(*scaled, kernel)))
        if progress is not None:
            progress.advance(1)
    (fpd, kpd), (fpd_floor, kpd_floor), (fpd_all, kpd_all) = found
    return PhysicsDistances(
        Metric(*fpd, *fpd_floor), Metric(*kpd, *kpd_floor), fpd_all, kpd_all,
        reference.shape[1], frechet, kernel,
    )  # fmt: skip


def scaled_features(real: FloatArray, generated: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Divide each feature by the largest |reference| of it; by 1 where that is 0."""
    largest = np.abs(real).max(axis=0)
    largest[largest == 0] = 1.0
    return real / largest, generated / largest


def frechet_distance(
    real: FloatArray, generated: FloatArray, protocol: FrechetProtocol
) -> tuple[float, float]:
    """Give FPD and its error: the intercept of a line in 1/N with slope and intercept >= 0."""
    from scipy.optimize import curve_fit

    random = np.random.default_rng(protocol.seed)
    means = []
    for size in protocol.sizes:
        values = []
        for _ in range(protocol.num_draws):
            drawn = random.choice(len(real), size=size), random.choice(len(generated), size=size)
            values.append(gaussian_distance(real[drawn[0]], generated[drawn[1]]))
        means.append(np.mean(values))
    fitted, covariance = curve_fit(
        _line, 1 / protocol.sizes, means, bounds=([0, 0], [np.inf, np.inf])
    )
    return float(fitted[0]), float(np.sqrt(covariance[0, 0]))


def gaussian_distance(first: FloatArray, second: FloatArray) -> float:
    """Give |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^1/2) of two samples (n, features)."""
    (mean, covariance), (other_mean, other) = _moments(first), _moments(second)
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    # The eigenvalues of S1 S2 are those of S1^1/2 S2 S1^1/2, which is symmetric.
    shared = np.linalg.eigvalsh(root @ other @ root)
    trace = np.trace(covariance) + np.trace(other) - 2 * np.sqrt(np.maximum(shared, 0.0)).sum()
    return float(((mean - other_mean) ** 2).sum() + trace)


def kernel_distance(
    real: FloatArray, generated: FloatArray, protocol: KernelProtocol
) -> tuple[float, float]:
    """Give KPD, the median over draws of the unbiased squared MMD, and half its 68 % range."""
    values = []
    for draw in range(protocol.num_draws):
        random = np.random.default_rng(protocol.seed + 1000 * draw)
        first = real[random.choice(len(real), size=protocol.size)]
        second = generated[random.choice(len(generated), size=protocol.size)]
        values.append(squared_mmd(first, second))
    low, middle, high = np.percentile(values, (16.275, 50, 83.725))
    return float(middle), float(high - low) / 2


def squared_mmd(first: FloatArray, second: FloatArray) -> float:
    """Give the unbiased squared MMD with the kernel (x.y / features + 1)^4 of (n, features)."""
    count, other = len(first), len(second)
    within = (_kernel_sum(first, first) - _kernel_trace(first)) / (count * (count - 1))
    within += (_kernel_sum(second, second) - _kernel_trace(second)) / (other * (other - 1))
    return within - 2 * _kernel_sum(first, second) / (count * other)


def _kernel_sum(first: FloatArray, second: FloatArray) -> float:
    total = 0.0
    for start in range(0, len(first), _ROWS):
        products = first[start : start + _ROWS] @ second.T
        products /= first.shape[1]
        products += 1.0
        np.square(products, out=products)
        total += float(np.vdot(products, products))  # the fourth power is the square of squares
    return total


def _kernel_trace(values: FloatArray) -> float:
    return float(((np.square(values).sum(axis=1) / values.shape[1] + 1) ** 4).sum())


def _moments(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    mean = values.mean(axis=0)
    centred = values - mean
    covariance: FloatArray = centred.T @ centred / (len(values) - 1)
    return mean, covariance


def _line(inverse_size: FloatArray, intercept: float, slope: float) -> FloatArray:
    return intercept + slope * inverse_size
