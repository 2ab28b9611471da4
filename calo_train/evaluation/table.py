"""One streaming pass: blocks of showers in, a table of columns with one row a shower out.

Memory is a piece of a block for each thread, one more, and the table. Profiles and the cell
spectrum are columns too, so that halves, bootstraps and slices in energy are selections of rows
and need no second pass.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError
from calo_train.evaluation.coarse_cosine import COSINE_BINS, CoarseCosine
from calo_train.evaluation.deposits import (
    Deposits,
    Energies,
    FloatArray,
    Grid,
    IndexArray,
)
from calo_train.evaluation.observables import OBSERVABLES, Observable, observables_of
from calo_train.evaluation.spectrum import SpectrumBins
from calo_train.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.showers.showers import Showers

MAX_INVALID_SHARE = 0.01
# Showers measured at once, by one thread: many, since the interpreter, which one thread at a time
# may use, takes as long for few. More threads would only wait for it.
_PIECE_BYTES = 32 << 20
_MAX_THREADS = 8
_Item = TypeVar("_Item")


@dataclass
class ShowerHealth:
    """How many showers were read, and how many of them cannot be or should not be measured."""

    num_read: int = 0
    num_non_finite: int = 0
    num_negative: int = 0
    num_empty: int = 0

    @property
    def num_invalid(self) -> int:
        return self.num_non_finite + self.num_negative

    def add(self, other: ShowerHealth) -> None:
        """Count other showers as well."""
        self.num_read += other.num_read
        self.num_non_finite += other.num_non_finite
        self.num_negative += other.num_negative
        self.num_empty += other.num_empty


@dataclass(frozen=True, eq=False)
class ShowerTable:
    """Columns (n,) or (n, k) of the valid showers of one set.

    `profiles` maps an axis name or `radius` to (n, bins) MeV; `spectrum` holds counts
    (n, bins + 1), the last column above the last edge; `positions` are the rows that were kept;
    `coarse_cosines` holds counts like `spectrum` of each choice of coarse voxels.
    """

    incident_energy: FloatArray
    observables: Mapping[str, npt.NDArray[np.floating]]
    profiles: Mapping[str, FloatArray]
    spectrum: npt.NDArray[np.int32]
    mean_energies: FloatArray  # (voxels,)
    positions: IndexArray
    health: ShowerHealth
    coarse_cosines: Mapping[str, npt.NDArray[np.int32]]

    def __len__(self) -> int:
        return len(self.incident_energy)

    def column(self, name: str, layer: int | None = None) -> FloatArray:
        """Give an observable, of one layer where it has many, (n,) in float64."""
        values = self.observables[name]
        chosen = values if layer is None else values[:, layer]
        return chosen.astype(np.float64, copy=False)


def measure(
    showers: ShowerSet,
    grid: Grid,
    *,
    threshold: float,
    spectrum: FloatArray,
    coarse: Sequence[CoarseCosine] = (),
) -> ShowerTable:
    """Measure every valid shower of a set; invalid ones are counted and left out.

    Raises DataError when more than 1 % of them hold NaN, infinite or negative energies.
    """
    import torch
    from threadpoolctl import threadpool_limits

    filling = _Filling.of(len(showers), grid, threshold, SpectrumBins(spectrum), coarse)
    num_threads = min(torch.get_num_threads(), _MAX_THREADS)
    with (
        Progress(f"observables of {showers.label}", len(showers), unit="showers") as progress,
        ThreadPoolExecutor(num_threads, thread_name_prefix="observables") as threads,
        # Threads of small matrix products, below those here, would only wait for each other.
        threadpool_limits(1),
    ):
        started = (
            (len(piece), threads.submit(filling.measure, piece, start))
            for start, piece in _pieces(showers)
        )
        # One waits while each thread has one, so that memory is bounded and threads are busy.
        for number, work in _ahead(started, num_threads + 1):
            filling.add(work.result())
            progress.advance(number)
    _require_valid(showers, filling.health)
    return filling.table()


def _pieces(showers: ShowerSet) -> Iterator[tuple[int, Showers]]:
    """Cut the blocks of a set; yield the row where each piece begins, and the piece."""
    start = 0
    for block in showers.blocks():
        num_pieces = max(-(-block.energies.nbytes // _PIECE_BYTES), 1)
        step = max(-(-len(block) // num_pieces), 1)
        for first in range(0, len(block), step):
            yield start + first, block.rows(slice(first, first + step))
        start += len(block)


def _ahead(items: Iterable[_Item], number: int) -> Iterator[_Item]:
    """Yield items in order, when `number` more have been taken."""
    waiting: deque[_Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > number:
            yield waiting.popleft()
    yield from waiting


@dataclass(frozen=True, eq=False)
class _Measured:
    """What measuring a piece adds to a table besides its rows."""

    energy_sum: FloatArray  # (voxels,)
    health: ShowerHealth


@dataclass(eq=False)
class _Filling:
    """Arrays of a table, with a row for every shower that is read; not all are valid."""

    grid: Grid
    threshold: float
    spectrum_bins: SpectrumBins
    coarse: Sequence[CoarseCosine]
    incident: FloatArray
    is_valid: npt.NDArray[np.bool_]
    observables: dict[str, npt.NDArray[np.floating]]
    profiles: dict[str, FloatArray]
    spectrum: npt.NDArray[np.int32]
    coarse_cosines: dict[str, npt.NDArray[np.int32]]
    energy_sum: FloatArray
    health: ShowerHealth = field(default_factory=ShowerHealth)

    @classmethod
    def of(
        cls,
        number: int,
        grid: Grid,
        threshold: float,
        spectrum_bins: SpectrumBins,
        coarse: Sequence[CoarseCosine],
    ) -> _Filling:
        return cls(
            grid,
            threshold,
            spectrum_bins,
            coarse,
            incident=np.empty(number),
            is_valid=np.zeros(number, dtype=np.bool_),
            observables={
                name: _column(entry, grid, number) for name, entry in observables_of(grid).items()
            },
            profiles={
                name: np.empty((number, entry.num_bins)) for name, entry in grid.profiles.items()
            },
            spectrum=np.empty((number, len(spectrum_bins.edges)), dtype=np.int32),
            coarse_cosines={
                entry.cells.name: np.empty((number, COSINE_BINS + 1), dtype=np.int32)
                for entry in coarse
            },
            energy_sum=np.zeros(grid.geometry.num_voxels),
        )

    def measure(self, showers: Showers, start: int) -> _Measured:
        """Measure showers that were read from row `start` on; any thread may."""
        incident = showers.conditions["incident_energy"].astype(np.float64)
        deposits = Deposits(
            showers.energies, incident, self.threshold, self.grid, self.spectrum_bins
        )
        self._fill(deposits, slice(start, start + len(showers)))
        health = _health(showers.energies, deposits.swept.is_valid)
        return _Measured(deposits.swept.totals, health)

    def add(self, measured: _Measured) -> None:
        """Add sums; in the order of the showers, so that they do not depend on threads."""
        self.energy_sum += measured.energy_sum
        self.health.add(measured.health)

    def _fill(self, deposits: Deposits, rows: slice) -> None:
        self.is_valid[rows] = deposits.swept.is_valid
        self.incident[rows] = deposits.incident_energy
        for name, column in self.observables.items():
            column[rows] = OBSERVABLES[name].measure(deposits)
        for name, profile in self.profiles.items():
            profile[rows] = deposits.profile(name)
        self.spectrum[rows] = deposits.spectrum_counts
        for entry in self.coarse:
            self.coarse_cosines[entry.cells.name][rows] = entry.counts(deposits.energies)

    def table(self) -> ShowerTable:
        """Give the valid rows of what was filled."""
        positions = np.flatnonzero(self.is_valid)
        if len(positions) < len(self.is_valid):
            self._keep(positions)
        self.health.num_empty = int(np.count_nonzero(self.observables["visible_energy"] == 0))
        return ShowerTable(
            incident_energy=self.incident,
            observables=self.observables,
            profiles=self.profiles,
            spectrum=self.spectrum,
            mean_energies=self.energy_sum / max(len(positions), 1),
            positions=positions,
            health=self.health,
            coarse_cosines=self.coarse_cosines,
        )

    def _keep(self, rows: IndexArray) -> None:
        """Drop other rows, one column at a time: a second table would double the memory."""
        self.incident, self.spectrum = self.incident[rows], self.spectrum[rows]
        for columns in (self.observables, self.profiles, self.coarse_cosines):
            _keep_rows(columns, rows)


def _column(entry: Observable, grid: Grid, number: int) -> npt.NDArray[np.floating]:
    """Give an empty column: (number,), or (number, layers) whose layers lie together in memory."""
    if not entry.is_per_layer:
        return np.empty(number)
    dtype = np.float64 if entry.is_exact else np.float32
    return np.empty((entry.num_columns(grid), number), dtype=dtype).T


def _keep_rows(columns: dict[str, npt.NDArray[Any]], rows: IndexArray) -> None:
    for name in list(columns):
        # Taken from the other side, layers stay together in memory.
        columns[name] = columns[name].T[..., rows].T


def _health(energies: Energies, is_valid: npt.NDArray[np.bool_]) -> ShowerHealth:
    """Say why showers are not valid."""
    invalid = energies[~is_valid]
    num_finite = int(np.count_nonzero(np.isfinite(invalid.sum(axis=1, dtype=np.float64))))
    return ShowerHealth(len(energies), len(invalid) - num_finite, num_finite)


def _require_valid(showers: ShowerSet, health: ShowerHealth) -> None:
    share = health.num_invalid / max(health.num_read, 1)
    if share > MAX_INVALID_SHARE or health.num_invalid == health.num_read:
        raise DataError(
            f"{health.num_non_finite} showers with NaN or infinite and {health.num_negative} with "
            f"negative voxel energies among {health.num_read}: more than "
            f"{100 * MAX_INVALID_SHARE:g} % cannot be judged",
            where=", ".join(str(path) for path in showers.source.paths),
            do="mend what wrote the file; invalid showers are never set to zero here",
        )
