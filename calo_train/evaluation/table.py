"""One streaming pass: blocks of showers in, a table of columns with one row a shower out.

Memory is a block and the table. Profiles and the cell spectrum are columns too, so that halves,
bootstraps and slices in energy are selections of rows and need no second pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError
from calo_train.evaluation.deposits import Deposits, FloatArray, Grid, apply_threshold
from calo_train.evaluation.observables import OBSERVABLES
from calo_train.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.showers.showers import Showers

SPECTRUM_BINS = 49  # 50 logarithmic edges (2410.21611)
NUM_EXAMPLES = 3
MAX_INVALID_SHARE = 0.01

IndexArray = npt.NDArray[np.int64]


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
    (n, bins + 1), the last column above the last edge; `positions` are the rows that were kept.
    """

    incident_energy: FloatArray
    observables: Mapping[str, FloatArray]
    profiles: Mapping[str, FloatArray]
    spectrum: npt.NDArray[np.int32]
    mean_energies: FloatArray  # (voxels,)
    examples: npt.NDArray[np.float32]  # (up to NUM_EXAMPLES, voxels), thresholded
    positions: IndexArray
    health: ShowerHealth

    def __len__(self) -> int:
        return len(self.incident_energy)


@dataclass
class _Pieces:
    incident: list[FloatArray] = field(default_factory=list)
    observables: dict[str, list[FloatArray]] = field(default_factory=dict)
    profiles: dict[str, list[FloatArray]] = field(default_factory=dict)
    spectrum: list[npt.NDArray[np.int32]] = field(default_factory=list)
    positions: list[IndexArray] = field(default_factory=list)
    examples: list[npt.NDArray[np.float32]] = field(default_factory=list)


def voxel_range(showers: ShowerSet, threshold: float) -> tuple[float, float]:
    """Give the smallest and largest voxel energy that the threshold keeps; (1, 1) without any."""
    low, high = np.inf, 0.0
    smallest = max(np.float32(threshold), np.finfo("f4").tiny)
    for block in showers.blocks():
        kept = block.energies[(block.energies >= smallest) & (block.energies < np.inf)]
        if kept.size:
            low, high = min(low, float(kept.min())), max(high, float(kept.max()))
    return (low, high) if high > 0 else (1.0, 1.0)


def spectrum_edges(voxel_ends: tuple[float, float], threshold: float) -> FloatArray:
    """Give logarithmic edges from the threshold to the reference's largest voxel.

    Without a threshold they begin at the reference's smallest one.
    """
    low = float(np.float32(threshold)) if threshold > 0 else voxel_ends[0]
    high = max(voxel_ends[1], low * 1.01)
    return np.geomspace(low, high, SPECTRUM_BINS + 1)


def measure(
    showers: ShowerSet, grid: Grid, *, threshold: float, spectrum: FloatArray
) -> ShowerTable:
    """Measure every valid shower of a set; invalid ones are counted and left out.

    Raises DataError when more than 1 % of them hold NaN, infinite or negative energies.
    """
    pieces, health = _Pieces(), ShowerHealth()
    energy_sum = np.zeros(grid.geometry.num_voxels)
    with Progress(f"observables of {showers.label}", len(showers), unit="showers") as progress:
        for block in showers.blocks():
            valid = _valid_rows(block, health)
            positions = np.flatnonzero(valid) + health.num_read
            health.num_read += len(block)
            if len(positions):
                good = block if valid.all() else block.rows(np.flatnonzero(valid))
                deposits = _deposits(good, grid, threshold)
                health.num_empty += int(np.count_nonzero(deposits.visible_energy == 0))
                energy_sum += deposits.energies.sum(axis=0, dtype=np.float64)
                _append(pieces, deposits, positions, spectrum)
            progress.advance(len(block))
    _require_valid(showers, health)
    return _table(pieces, energy_sum, health)


def _valid_rows(block: Showers, health: ShowerHealth) -> npt.NDArray[np.bool_]:
    is_finite = np.isfinite(block.energies.sum(axis=1, dtype=np.float64))
    is_negative = is_finite & (block.energies.min(axis=1) < 0)
    health.num_non_finite += int(np.count_nonzero(~is_finite))
    health.num_negative += int(np.count_nonzero(is_negative))
    valid: npt.NDArray[np.bool_] = is_finite & ~is_negative
    return valid


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


def _deposits(block: Showers, grid: Grid, threshold: float) -> Deposits:
    incident = block.conditions["incident_energy"].astype(np.float64)
    return Deposits(apply_threshold(block.energies, threshold), incident, grid)


def _append(
    pieces: _Pieces, deposits: Deposits, positions: IndexArray, spectrum: FloatArray
) -> None:
    pieces.incident.append(deposits.incident_energy)
    pieces.positions.append(positions)
    for name, observable in OBSERVABLES.items():
        pieces.observables.setdefault(name, []).append(observable.measure(deposits))
    for name in deposits.grid.profiles:
        pieces.profiles.setdefault(name, []).append(deposits.sums(f"profile_{name}"))
    pieces.spectrum.append(count_voxels(deposits.energies, spectrum))
    wanted = NUM_EXAMPLES - sum(map(len, pieces.examples))
    if wanted > 0:
        pieces.examples.append(deposits.energies[:wanted].copy())


def count_voxels(energies: npt.NDArray[np.float32], edges: FloatArray) -> npt.NDArray[np.int32]:
    """Count voxels a shower in bins [a, b), the last closed, and above: (n, bins + 1)."""
    num_columns = len(edges)
    rows, voxels = np.nonzero(energies)
    values = energies[rows, voxels].astype(np.float64)
    bins = np.searchsorted(edges, values, side="right") - 1
    bins[values == edges[-1]] = num_columns - 2
    counts = np.bincount(rows * num_columns + bins, minlength=len(energies) * num_columns)
    return counts.reshape(len(energies), num_columns).astype(np.int32)


def _table(pieces: _Pieces, energy_sum: FloatArray, health: ShowerHealth) -> ShowerTable:
    incident = np.concatenate(pieces.incident)
    return ShowerTable(
        incident_energy=incident,
        observables={name: np.concatenate(cols) for name, cols in pieces.observables.items()},
        profiles={name: np.concatenate(cols) for name, cols in pieces.profiles.items()},
        spectrum=np.concatenate(pieces.spectrum),
        mean_energies=energy_sum / len(incident),
        examples=np.concatenate(pieces.examples),
        positions=np.concatenate(pieces.positions),
        health=health,
    )
