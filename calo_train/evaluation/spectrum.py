"""The cell energy spectrum: voxels a shower in logarithmic bins.

The upper 16 bits of a float32 hold its exponent and 7 bits of its mantissa. Where no two edges
share them, a table of 65536 entries gives the bin of a voxel by one sum, exactly; the compiled
sweep counts by it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from calo_train.evaluation.layer_plan import Energies, FloatArray, IndexArray
    from calo_train.evaluation.shower_set import ShowerSet

SPECTRUM_BINS = 49  # 50 logarithmic edges (2410.21611)

HALF = 16  # bits of a float32
Counts = npt.NDArray[np.int32]


def voxel_range(showers: ShowerSet, threshold: float) -> tuple[float, float]:
    """Give the smallest and largest voxel energy that the threshold keeps; (1, 1) without any.

    With a threshold the smallest is the threshold itself.
    """
    import torch

    low, high = np.inf, 0.0
    num_threads = torch.get_num_threads()
    with ThreadPoolExecutor(num_threads) as threads:
        for block in showers.blocks():
            pieces = np.array_split(block.energies, num_threads)
            ends = list(threads.map(lambda piece: _ends(piece, threshold), pieces))
            low = min(low, *(lowest for lowest, _ in ends))
            high = max(high, *(highest for _, highest in ends))
    if threshold > 0:
        low = float(np.float32(threshold))
    return (low, high) if high >= low else (1.0, 1.0)


def _ends(energies: Energies, threshold: float) -> tuple[float, float]:
    """Give the smallest positive energy, where it is asked for, and the largest finite one."""
    high = float(energies.max(initial=0.0))
    if not np.isfinite(high):
        high = float(energies[np.isfinite(energies)].max(initial=0.0))
    low = np.inf if threshold > 0 else float(energies[energies > 0].min(initial=np.inf))
    return low, high


def spectrum_edges(voxel_ends: tuple[float, float], threshold: float) -> FloatArray:
    """Give logarithmic edges from the threshold to the reference's largest voxel.

    Without a threshold they begin at the reference's smallest one.
    """
    low = float(np.float32(threshold)) if threshold > 0 else voxel_ends[0]
    high = max(voxel_ends[1], low * 1.01)
    return np.geomspace(low, high, SPECTRUM_BINS + 1)


@dataclass(frozen=True, eq=False)
class SpectrumBins:
    """Bins [a, b) of positive energies, the last closed; all others count as outside."""

    edges: FloatArray  # rising and positive

    @property
    def num_columns(self) -> int:
        """Columns before folding: below, the bins, above."""
        return len(self.edges) + 1

    def count(self, energies: Energies) -> IndexArray:
        """Count positive voxels (n, voxels) in each column, (n, bins + 2)."""
        rows, voxels = np.nonzero(energies)
        columns = np.searchsorted(self._single_edges, energies[rows, voxels], side="right")
        size = len(energies) * self.num_columns
        counts = np.bincount(rows * self.num_columns + columns, minlength=size)
        return counts.reshape(len(energies), self.num_columns).astype(np.int64)

    def folded(self, counts: IndexArray) -> Counts:
        """Join what lies below and above: (n, bins + 1), the last outside."""
        inside = counts[:, 1:].astype(np.int32)
        inside[:, -1] += counts[:, 0].astype(np.int32)
        return inside

    @cached_property
    def table(self) -> npt.NDArray[np.uint32] | None:
        """Give the column of a voxel by the upper half of its bits, (65536,).

        The upper half of the entry plus the lower half of the voxel: the entry is the column at
        the start of the interval, and what the lower half lacks to carry over at the edge inside
        it. None where two edges meet in an interval.
        """
        borders = self._single_edges
        bits = borders.view(np.uint32)
        intervals = bits >> HALF
        if len(np.unique(intervals)) < len(borders):
            return None
        starts = (np.arange(1 << HALF, dtype=np.uint32) << HALF).view(np.float32)
        first = np.searchsorted(borders, np.nan_to_num(starts, nan=np.inf), side="right")
        # An edge at the very start of its interval carries over for all of it.
        first[intervals] -= borders == starts[intervals]
        table: npt.NDArray[np.uint32] = first.astype(np.uint32) << np.uint32(HALF)
        table[intervals] += (1 << HALF) - (bits & ((1 << HALF) - 1))
        return table

    @cached_property
    def _single_edges(self) -> Energies:
        """The smallest float32 at or above each edge, and above the last one."""
        edges = self.edges.astype(np.float32)
        is_below = edges.astype(np.float64) < self.edges
        is_below[-1] |= edges[-1] == self.edges[-1]
        return np.where(is_below, np.nextafter(edges, np.float32(np.inf)), edges)
