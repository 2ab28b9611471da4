"""What classifiers found, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.evaluation.floor import verdict_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.evaluation.classifiers.attribution import Attribution
    from calo_train.evaluation.classifiers.calibration import CalibrationCurve, RocCurve
    from calo_train.evaluation.classifiers.protocol import Protocol

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Training:
    """What one trained classifier reached on showers that it has not seen.

    `auc` is of the calibrated scores where the protocol says so, `raw_auc` never; the Jensen-
    Shannon bound `jsd` and the curve `calibration` are of calibrated scores.
    """

    auc: float
    raw_auc: float
    accuracy: float
    jsd: float
    best_epoch: int
    roc: RocCurve
    calibration: CalibrationCurve


@dataclass(frozen=True, eq=False)
class SureShowers:
    """The showers of one class that a classifier was surest of, the surest first."""

    energies: npt.NDArray[np.float32]  # (k, voxels), thresholded, MeV
    incident_energy: FloatArray  # (k,) MeV
    positions: npt.NDArray[np.int64]  # in the set
    scores: FloatArray  # probability of the reference


@dataclass(frozen=True, eq=False)
class Insight:
    """What the first training of a classifier that separates has seen."""

    attribution: Attribution
    sample: SureShowers
    reference: SureShowers


@dataclass(frozen=True, eq=False)
class ClassifierResult:
    """AUC of sample against reference beside reference against reference, all runs."""

    protocol: Protocol
    num_weights: int
    sample_runs: tuple[Training, ...]
    floor_runs: tuple[Training, ...]
    num_per_class: int
    num_test: int  # a class
    num_floor_per_class: int
    num_floor_test: int
    insight: Insight | None = None

    @property
    def name(self) -> str:
        return self.protocol.name

    @property
    def title(self) -> str:
        """Name it as tables do."""
        return f"classifier AUC, {self.name}" + (" (reduced)" if self.protocol.is_reduced else "")

    @property
    def auc(self) -> tuple[float, float]:
        """Mean and standard deviation over runs."""
        return _mean_and_deviation([run.auc for run in self.sample_runs])

    @property
    def floor(self) -> tuple[float, float]:
        """Mean and standard deviation over runs."""
        return _mean_and_deviation([run.auc for run in self.floor_runs])

    @property
    def jsd(self) -> tuple[float, float]:
        """Mean and standard deviation over runs."""
        return _mean_and_deviation([run.jsd for run in self.sample_runs])

    @property
    def jsd_floor(self) -> tuple[float, float]:
        """Mean and standard deviation over runs."""
        return _mean_and_deviation([run.jsd for run in self.floor_runs])

    @property
    def floor_error(self) -> float:
        """Spread of the floor: over runs, but not below that of a rank test on the test showers.

        sqrt((2 m + 1) / 12 m^2) is the deviation of an AUC of m against m equal showers.
        """
        m = self.num_floor_test
        return max(self.floor[1], float(np.sqrt((2 * m + 1) / (12 * m**2))))

    @property
    def significance(self) -> float:
        """How many spreads of the floor the AUC lies above it."""
        return (self.auc[0] - self.floor[0]) / self.floor_error

    @property
    def verdict(self) -> str:
        return verdict_of(self.significance)


@dataclass(frozen=True)
class Posterior:
    """Mean posterior of one generator on reference showers: mean and deviation over runs."""

    label: str
    log: float
    log_deviation: float
    share: float
    share_deviation: float


@dataclass(frozen=True, eq=False)
class MultiResult:
    """Which generator the reference looks like: posteriors over generators on its showers.

    The classifier is trained among `labels` alone. `log_posteriors` (runs, generators) are means
    over reference showers, `posteriors` likewise; `floors` (runs,) are means over generators of
    the log posterior after the labels of the training showers were shuffled.
    """

    protocol: Protocol
    labels: tuple[str, ...]
    log_posteriors: FloatArray
    posteriors: FloatArray
    floors: FloatArray
    num_per_class: int
    num_reference: int

    @property
    def chance(self) -> float:
        """Log posterior of equal generators, told apart by nothing."""
        return -float(np.log(len(self.labels)))

    @property
    def generators(self) -> tuple[Posterior, ...]:
        """The posteriors of each generator, in order."""
        columns = zip(self.labels, self.log_posteriors.T, self.posteriors.T, strict=True)
        return tuple(
            Posterior(label, *_mean_and_deviation(logs), *_mean_and_deviation(shares))
            for label, logs, shares in columns
        )

    @property
    def floor(self) -> tuple[float, float]:
        """Mean and standard deviation over runs."""
        return _mean_and_deviation(self.floors)

    @property
    def ranking(self) -> tuple[str, ...]:
        """Generators, the most reference-like first."""
        order = np.argsort(-self.log_posteriors.mean(axis=0), kind="stable")
        return tuple(self.labels[index] for index in order)


def _mean_and_deviation(values: Sequence[float] | FloatArray) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values))
