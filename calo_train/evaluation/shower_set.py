"""Showers that are judged, or that others are judged by: rows of a source under a label."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.showers.showers import Showers, concatenate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calo_train.geometry import Geometry
    from calo_train.showers.source import ShowerSource

IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ShowerSet:
    """Rows of a source, all of them where `rows` is None; `rows` must rise.

    `label` names the set in figures; `notes` change how results on it must be read.
    """

    label: str
    source: ShowerSource
    rows: IndexArray | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.source.num_showers if self.rows is None else len(self.rows)

    @property
    def geometry(self) -> Geometry:
        return self.source.geometry

    @property
    def file_names(self) -> tuple[str, ...]:
        return tuple(path.name for path in self.source.paths)

    def blocks(self) -> Iterator[Showers]:
        """Yield the showers in order, a bounded number at a time."""
        start = 0
        for showers in self.source.blocks():
            stop = start + len(showers)
            if self.rows is None:
                yield showers
            else:
                low, high = np.searchsorted(self.rows, (start, stop))
                if low < high:
                    yield showers.rows(self.rows[low:high] - start)
            start = stop

    def gather(self, positions: IndexArray) -> Showers:
        """Read the showers at rising positions of this set into memory."""
        rows = positions if self.rows is None else self.rows[positions]
        energies = np.empty((len(rows), self.geometry.num_voxels), dtype=np.float32)
        conditions = {
            name: np.empty(len(rows), dtype=np.float32) for name in self.source.condition_names
        }
        chosen = ShowerSet(self.label, self.source, rows)
        filled = 0
        for showers in chosen.blocks():
            place = slice(filled, filled + len(showers))
            energies[place] = showers.energies
            for name, values in showers.conditions.items():
                conditions[name][place] = values
            filled += len(showers)
        return Showers(energies, conditions, self.geometry)

    def pick(self, positions: IndexArray) -> Showers:
        """Read a few showers, at least one, at any positions, in their order."""
        rows = positions if self.rows is None else self.rows[positions]
        return concatenate([self.source.read(row, row + 1) for row in rows.tolist()])

    def fingerprint(self) -> str:
        """Hash the content of the source and which rows are meant, whatever the path."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        whole = self.source.fingerprint()
        if self.rows is None:
            return whole
        return hashlib.sha256(whole.encode() + self.rows.tobytes()).hexdigest()
