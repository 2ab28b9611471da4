"""One streaming pass: blocks of showers in, a table of columns with one row a shower out.

Memory is a block and the table. Profiles and the cell spectrum are columns too, so that halves,
bootstraps and slices in energy are selections of rows and need no second pass.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError
from calo_train.evaluation.coarse_cosine import COSINE_BINS, CoarseCosine
from calo_train.evaluation.deposits import (
    Deposits,
    FloatArray,
    Grid,
    IndexArray,
)
from calo_train.evaluation.observables import OBSERVABLES, Observable, observables_of
from calo_train.evaluation.spectrum import SpectrumBins
from calo_train.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor

    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.showers.showers import Showers

MAX_INVALID_SHARE = 0.01
_BITS_OF_INFINITY = 0x7F800000
_PIECE_BYTES = 16 << 20  # showers measured at once, by one thread


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

    filling = _Filling.of(len(showers), grid, SpectrumBins(spectrum), coarse)
    health = ShowerHealth()
    with (
        Progress(f"observables of {showers.label}", len(showers), unit="showers") as progress,
        ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="observables") as threads,
        # Threads of small matrix products, below those here, would only wait for each other.
        threadpool_limits(1),
    ):
        for block in showers.blocks():
            valid = _valid_rows(block, health)
            filling.positions[filling.stop : filling.stop + len(valid)] = valid + health.num_read
            health.num_read += len(block)
            good = block if len(valid) == len(block) else block.rows(valid)
            filling.add(good, threshold, threads)
            progress.advance(len(block))
    _require_valid(showers, health)
    return filling.table(health)


@dataclass(eq=False)
class _Filling:
    """Arrays of a table for all showers of a set, filled up to row `stop`."""

    grid: Grid
    spectrum_bins: SpectrumBins
    incident: FloatArray
    positions: IndexArray
    observables: dict[str, npt.NDArray[np.floating]]
    profiles: dict[str, FloatArray]
    spectrum: npt.NDArray[np.int32]
    energy_sum: FloatArray
    coarse: Sequence[CoarseCosine]
    coarse_cosines: dict[str, npt.NDArray[np.int32]]
    stop: int = 0

    @classmethod
    def of(
        cls, number: int, grid: Grid, spectrum_bins: SpectrumBins, coarse: Sequence[CoarseCosine]
    ) -> _Filling:
        return cls(
            grid,
            spectrum_bins,
            np.empty(number),
            np.empty(number, dtype=np.int64),
            {name: _column(entry, grid, number) for name, entry in observables_of(grid).items()},
            {name: np.empty((number, entry.num_bins)) for name, entry in grid.profiles.items()},
            np.empty((number, len(spectrum_bins.edges)), dtype=np.int32),
            np.zeros(grid.geometry.num_voxels),
            coarse,
            {
                entry.cells.name: np.empty((number, COSINE_BINS + 1), dtype=np.int32)
                for entry in coarse
            },
        )

    def add(self, showers: Showers, threshold: float, threads: Executor) -> None:
        """Measure valid showers, a few at a time on each thread."""
        num_pieces = -(-showers.energies.nbytes // _PIECE_BYTES)
        step = max(-(-len(showers) // max(num_pieces, 1)), 1)
        starts = range(0, len(showers), step)

        def work(start: int) -> FloatArray:
            piece = slice(start, min(start + step, len(showers)))
            incident = showers.conditions["incident_energy"][piece].astype(np.float64)
            deposits = Deposits(
                showers.energies[piece], incident, threshold, self.grid, self.spectrum_bins
            )
            self._fill(deposits, slice(self.stop + piece.start, self.stop + piece.stop))
            return deposits.swept.totals

        for total in threads.map(work, starts):  # added in order, whatever the threads
            self.energy_sum += total
        self.stop += len(showers)

    def _fill(self, deposits: Deposits, rows: slice) -> None:
        self.incident[rows] = deposits.incident_energy
        for name, column in self.observables.items():
            column[rows] = OBSERVABLES[name].measure(deposits)
        for name, profile in self.profiles.items():
            profile[rows] = deposits.profile(name)
        self.spectrum[rows] = deposits.spectrum_counts
        for entry in self.coarse:
            self.coarse_cosines[entry.cells.name][rows] = entry.counts(deposits.energies)

    def table(self, health: ShowerHealth) -> ShowerTable:
        """Give what was filled."""
        filled = slice(self.stop)
        visible = self.observables["visible_energy"][filled]
        health.num_empty = int(np.count_nonzero(visible == 0))
        return ShowerTable(
            incident_energy=self.incident[filled],
            observables={name: column[filled] for name, column in self.observables.items()},
            profiles={name: column[filled] for name, column in self.profiles.items()},
            spectrum=self.spectrum[filled],
            mean_energies=self.energy_sum / max(self.stop, 1),
            positions=self.positions[filled],
            health=health,
            coarse_cosines={name: column[filled] for name, column in self.coarse_cosines.items()},
        )


def _column(entry: Observable, grid: Grid, number: int) -> npt.NDArray[np.floating]:
    """Give an empty column: (number,), or (number, layers) whose layers lie together in memory."""
    if not entry.is_per_layer:
        return np.empty(number)
    dtype = np.float64 if entry.is_exact else np.float32
    return np.empty((entry.num_columns(grid), number), dtype=dtype).T


def _valid_rows(block: Showers, health: ShowerHealth) -> IndexArray:
    # Bits of negative, infinite and NaN floats are larger than those of all others.
    if block.energies.view(np.uint32).max(initial=0) < _BITS_OF_INFINITY:
        return np.arange(len(block))
    is_finite = np.isfinite(block.energies.sum(axis=1, dtype=np.float64))
    is_negative = is_finite & (block.energies.min(axis=1) < 0)
    health.num_non_finite += int(np.count_nonzero(~is_finite))
    health.num_negative += int(np.count_nonzero(is_negative))
    return np.flatnonzero(is_finite & ~is_negative)


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
