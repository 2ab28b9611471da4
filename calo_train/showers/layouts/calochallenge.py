"""The layout of the CaloChallenge 2022 (arXiv:2410.21611 Sec. 3).

`incident_energies` (n, 1) and `showers` (n, voxels), both MeV; voxels layer by layer, angle, then
radius fastest. The file holds no geometry.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from calo_train.errors import DataError
from calo_train.geometry import Geometry
from calo_train.showers.layouts.layout import ShowerFile, ShowerWriter, member
from calo_train.showers.showers import Showers


class CaloChallengeFile(ShowerFile):
    """An open file in the CaloChallenge layout."""

    layout: ClassVar[str] = "calochallenge"

    def __init__(self, path: Path, file: h5py.File) -> None:
        super().__init__(path, file)
        energies, incident = self.energies_dataset, self._incident
        if energies.ndim != 2 or incident.size != len(incident):
            raise DataError(
                f"showers {energies.shape} and incident_energies {incident.shape} have wrong shapes",
                where=str(path),
                do="store showers (n, voxels) and incident_energies (n, 1)",
            )
        self.require_rows(energies, incident)

    @classmethod
    def recognises(cls, file: h5py.File) -> bool:
        """Either of the two names at the top, so that a missing one is named."""
        return ("showers" in file or "incident_energies" in file) and "layout" not in file.attrs

    @property
    def energies_dataset(self) -> h5py.Dataset:
        return member(self.path, self.file, "showers")

    @property
    def _incident(self) -> h5py.Dataset:
        return member(self.path, self.file, "incident_energies")

    @property
    def num_showers(self) -> int:
        return len(self.energies_dataset)

    @property
    def shape_words(self) -> str:
        return f"{self.energies_dataset.shape[1]} voxels"

    def mismatch(self, geometry: Geometry) -> str | None:
        """Compare the number of voxels; the layout tells no more."""
        found = self.energies_dataset.shape[1]
        return None if found == geometry.num_voxels else f"{found} voxels against {geometry.num_voxels}"

    def read(self, start: int, stop: int, geometry: Geometry) -> Showers:
        """Read rows, which are MeV already."""
        energies = self.energies_dataset[start:stop].astype(np.float32, copy=False)
        incident = self._incident[start:stop].reshape(-1).astype(np.float32)
        return Showers(energies, {"incident_energy": incident}, geometry)


class CaloChallengeWriter(ShowerWriter):
    """A file in the CaloChallenge layout being written."""

    layout: ClassVar[str] = "calochallenge"

    def __init__(self, path: Path, geometry: Geometry, attributes: Mapping[str, Any]) -> None:
        super().__init__(path, geometry, attributes)
        self._create(self._file, "incident_energies", (1,), "MeV")
        self._create(self._file, "showers", (geometry.num_voxels,), "MeV")

    def _append(self, showers: Showers) -> None:
        self._extend(self._file["showers"], showers.energies)
        self._extend(self._file["incident_energies"], showers.conditions["incident_energy"][:, None])
