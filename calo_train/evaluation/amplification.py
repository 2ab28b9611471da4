"""How many training showers a generated sample is worth: quantiles of a large reference.

GANplification (2008.06545) cuts the truth into Q cells of equal probability p_j and takes the mean
square of a sample's shares x_j around them. A true sample of N showers expects

    E[MSE] = 1/Q sum_j p_j (1 - p_j) / N ,

so a generated sample with an MSE of its own is worth N_equiv true showers, and the amplification
is G = N_equiv / N_training. Calomplification (2202.07352) takes the Jensen-Shannon divergence
instead; for small deviations its expectation is (Q - 1) / 8N nats. The truth is a finite reference
here: below its own E[MSE], at N = its size, nothing can be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError

if TYPE_CHECKING:
    from calo_train.evaluation.deposits import FloatArray

IndexArray = npt.NDArray[np.int64]

NUM_BOOTSTRAPS = 500
ENOUGH_REFERENCE = 20  # times the training sample
_MIN_IN_CELL = 5  # reference showers
_NEAR_FLOOR = 2.0  # standard deviations


@dataclass(frozen=True, eq=False)
class QuantileCells:
    """Cells of equal reference probability, cut along one axis after the other.

    `edges` are the inner ones of the first axis; `inner` the cells of the next axes within each
    interval, none where this is the last axis.
    """

    edges: FloatArray
    inner: tuple[QuantileCells, ...] = ()

    @classmethod
    def of(cls, reference: FloatArray, num_quantiles: int) -> QuantileCells:
        """Cut a reference (n, axes); DataError when cells would hold too few of its showers."""
        num_cells = num_quantiles ** reference.shape[1]
        if len(reference) < _MIN_IN_CELL * num_cells:
            raise DataError(
                f"{len(reference)} reference showers are too few for {num_cells} cells",
                where=f"{reference.shape[1]} observables, {num_quantiles} quantiles each",
                do="take fewer quantiles or observables, or more reference showers",
            )
        return cls._cut(reference, num_quantiles)

    @classmethod
    def _cut(cls, reference: FloatArray, num_quantiles: int) -> QuantileCells:
        first = reference[:, 0]
        edges = np.quantile(first, np.arange(1, num_quantiles) / num_quantiles)
        if reference.shape[1] == 1:
            return cls(edges)
        interval = np.searchsorted(edges, first, side="right")
        rest = [reference[interval == index, 1:] for index in range(num_quantiles)]
        return cls(edges, tuple(cls._cut(rows, num_quantiles) for rows in rest))

    @property
    def num_cells(self) -> int:
        return sum(cell.num_cells for cell in self.inner) or len(self.edges) + 1

    def cell_of(self, values: FloatArray) -> IndexArray:
        """Give the cell of each row (n, axes)."""
        interval = np.searchsorted(self.edges, values[:, 0], side="right")
        if not self.inner:
            return interval
        found = np.empty(len(values), dtype=np.int64)
        first = 0
        for index, inner in enumerate(self.inner):
            rows = interval == index
            found[rows] = first + inner.cell_of(values[rows, 1:])
            first += inner.num_cells
        return found

    def counts(self, values: FloatArray) -> IndexArray:
        """Count rows (n, axes) in every cell."""
        return np.bincount(self.cell_of(values), minlength=self.num_cells)


@dataclass(frozen=True)
class Worth:
    """What a sample of `num_showers` is worth by both distances, with bootstrap errors.

    `mse_showers` and `jsd_showers` are sizes of true samples with the same distance.
    """

    num_showers: int
    mse: float
    mse_error: float
    mse_showers: float
    mse_showers_error: float
    jsd: float
    jsd_error: float
    jsd_showers: float
    jsd_showers_error: float


@dataclass(frozen=True)
class Amplification:
    """A generated sample beside its training sample: worth of both, of growing sizes, and floor.

    `factor` is G by the mean square error of the largest size, `jsd_factor` by the divergence.
    """

    num_cells: int
    training: Worth
    generated: tuple[Worth, ...]
    mse_floor: float
    jsd_floor: float
    warnings: tuple[str, ...]

    @property
    def factor(self) -> tuple[float, float]:
        last = self.generated[-1]
        size = self.training.num_showers
        return last.mse_showers / size, last.mse_showers_error / size

    @property
    def jsd_factor(self) -> tuple[float, float]:
        last = self.generated[-1]
        size = self.training.num_showers
        return last.jsd_showers / size, last.jsd_showers_error / size


def amplification(
    reference: FloatArray,
    training: FloatArray,
    generated: FloatArray,
    *,
    num_quantiles: int,
    sizes: tuple[int, ...],
    seed: int,
) -> Amplification:
    """Compare a training and a generated sample, rows (n, axes), by quantiles of a reference.

    The generated sample is taken from its start in growing `sizes`, the last being all of it.
    """
    cells = QuantileCells.of(reference, num_quantiles)
    truth = cells.counts(reference)
    random = np.random.Generator(np.random.Philox(seed))
    worth = [
        worth_of(cells.counts(rows), truth, random)
        for rows in (training, *(generated[:size] for size in sizes))
    ]
    mse_floor, jsd_floor = expected_distances(truth, len(reference))
    return Amplification(
        cells.num_cells,
        worth[0],
        tuple(worth[1:]),
        mse_floor,
        jsd_floor,
        tuple(_warnings(len(reference), worth[0], worth[-1], mse_floor)),
    )


def worth_of(counts: IndexArray, truth: IndexArray, random: np.random.Generator) -> Worth:
    """Give distances of cell counts (Q,) to those of the reference, and what they are worth."""
    size = int(counts.sum())
    resampled = random.multinomial(size, counts / size, size=NUM_BOOTSTRAPS)
    mse, jsd = (float(distance[0]) for distance in _distances(counts[None], truth))
    mse_error, jsd_error = (float(found.std()) for found in _distances(resampled, truth))
    unit_mse, unit_jsd = expected_distances(truth, 1)
    return Worth(
        size,
        mse,
        mse_error,
        *_showers(unit_mse, mse, mse_error),
        jsd,
        jsd_error,
        *_showers(unit_jsd, jsd, jsd_error),
    )


def expected_distances(truth: IndexArray, size: int) -> tuple[float, float]:
    """Give what a true sample of `size` showers expects: MSE, and JSD in nats."""
    probabilities = truth / truth.sum()
    mse = float(np.mean(probabilities * (1 - probabilities))) / size
    return mse, (len(truth) - 1) / (8 * size)


def _distances(counts: IndexArray, truth: IndexArray) -> tuple[FloatArray, FloatArray]:
    """Give MSE and JSD (rows,) of counts (rows, Q) against the reference's."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    probabilities = truth / truth.sum()
    middle = (shares + probabilities) / 2
    return (
        np.mean((shares - probabilities) ** 2, axis=1),
        (_divergence(shares, middle) + _divergence(probabilities, middle)) / 2,
    )


def _divergence(first: FloatArray, second: FloatArray) -> FloatArray:
    from scipy.special import rel_entr

    found: FloatArray = rel_entr(first, second).sum(axis=-1)
    return found


def _showers(unit: float, distance: float, error: float) -> tuple[float, float]:
    """Turn a distance into a number of true showers, with its error."""
    if distance <= 0:
        return float("inf"), float("inf")
    return unit / distance, unit / distance * error / distance


def _warnings(num_reference: int, training: Worth, last: Worth, mse_floor: float) -> list[str]:
    found = []
    if num_reference < ENOUGH_REFERENCE * training.num_showers:
        found.append(
            f"the reference has {num_reference / training.num_showers:.1f} times as many showers "
            f"as the training sample; {ENOUGH_REFERENCE} times are wanted"
        )
    if last.mse - mse_floor < _NEAR_FLOOR * last.mse_error:
        found.append(
            f"the generated sample is within {_NEAR_FLOOR:g} standard deviations of the "
            f"reference's own floor: the amplification is a lower limit"
        )
    if last.num_showers < last.mse_showers * 2:
        found.append(
            f"{last.num_showers} generated showers limit what they are worth; more of them would "
            "be worth more"
        )
    return found
