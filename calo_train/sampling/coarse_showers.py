"""Coarse showers from a file, to be refined: row k of the file, over and over, is shower k.

The file holds showers of the generator's coarse detector, or of its fine one; the latter are
summed to coarse voxels when they are read, and the energies of their layers are known.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import torch

from calo_train.errors import DataError
from calo_train.families.contracts import CoarseTile
from calo_train.showers.fitting import first_difference, refuse
from calo_train.showers.layouts import open_file
from calo_train.showers.source import ShowerSource

if TYPE_CHECKING:
    from pathlib import Path

    from calo_train.families.generator import Generator
    from calo_train.geometry import Geometry, Regrouping

FloatArray = npt.NDArray[np.float64]
EnergyArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CoarseShowers:
    """Rows of an open file of coarse or fine showers; several threads may read."""

    source: ShowerSource
    fine: Geometry
    regrouping: Regrouping | None  # fine to coarse voxels; None where the file is coarse
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()

    def __len__(self) -> int:
        return self.source.num_showers

    def tile(self, first: int, count: int) -> CoarseTile:
        """Give coarse showers first .. first + count; after the last row comes the first."""
        energies = self._rows(first, count)
        if self.regrouping is None:
            return CoarseTile(torch.from_numpy(energies), None)
        starts = [piece.start for piece in self.fine.layer_slices]
        layers = np.add.reduceat(energies, starts, axis=1, dtype=np.float64)
        coarse = self.regrouping.apply(energies)
        return CoarseTile(torch.from_numpy(coarse), torch.from_numpy(layers))

    def conditions(self, count: int) -> dict[str, FloatArray]:
        """Give the conditions of the first `count` showers."""
        file = self.source.files[0]
        columns = file.read_conditions(0, min(count, len(self)))
        index = np.arange(count) % len(self)
        return {name: values.astype(np.float64)[index] for name, values in columns.items()}

    def fingerprint(self) -> str:
        """Hash what the showers are."""
        return self.source.fingerprint()

    def notes(self, num_showers: int) -> tuple[str, ...]:
        """Say what changes how refined showers must be read."""
        if num_showers <= len(self):
            return ()
        words = f"{num_showers} showers refine {len(self)} coarse ones; they are not independent"
        return (words,)

    def _rows(self, first: int, count: int) -> EnergyArray:
        number = len(self)
        if count >= number:
            return self._read(0, number)[np.arange(first, first + count) % number]
        start = first % number
        head = self._read(start, min(start + count, number))
        if len(head) == count:
            return head
        return np.concatenate([head, self._read(0, count - len(head))])

    def _read(self, start: int, stop: int) -> EnergyArray:
        with self._reading:
            energies = self.source.read(start, stop).energies
        is_bad = ~((energies.min(axis=1) >= 0) & (energies.max(axis=1) < np.inf))
        if is_bad.any():
            raise DataError(
                f"{int(is_bad.sum())} showers hold energies that are not finite or negative",
                where=f"{self.source.paths[0]}: row {start + int(np.flatnonzero(is_bad)[0])}",
                do="take these rows out, or write them anew",
            )
        return energies


def open_coarse(path: Path, generator: Generator) -> CoarseShowers:
    """Open a file of showers to be refined; one of another detector is a GeometryMismatch.

    Raises UsageError where the generator's family does not refine.
    """
    fine = generator.geometry
    coarse, regrouping = generator.family.coarse_geometry(fine)
    file = open_file(path)
    try:
        if first_difference(coarse, file) is None:
            return CoarseShowers(ShowerSource([file], coarse), fine, None)
        if first_difference(fine, file) is None:
            return CoarseShowers(ShowerSource([file], fine), fine, regrouping)
        raise refuse(file, coarse, fine)
    except BaseException:
        file.close()
        raise
