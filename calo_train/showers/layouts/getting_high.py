"""The layout of the Getting High photon showers (arXiv:2005.05334; DOI 10.5281/zenodo.3826103).

A group named by the layer's cells, such as `30x30`, with `energy` (n, 1) in GeV and `layers`
(n, layers, x, y) in MeV. The file does not hold cell edges.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from calo_train.errors import DataError
from calo_train.geometry import Geometry
from calo_train.quantities import MEV_PER_GEV
from calo_train.showers.layouts.layout import ShowerFile, ShowerWriter, member
from calo_train.showers.showers import Showers

_GROUP = re.compile(r"^\d+x\d+$")


class GettingHighFile(ShowerFile):
    """An open file in the Getting High layout."""

    layout: ClassVar[str] = "getting_high"
    incident_unit: ClassVar[str] = "GeV"

    def __init__(self, path: Path, file: h5py.File) -> None:
        super().__init__(path, file)
        self._group = next(name for name in file if _GROUP.match(name))
        energies, incident = self.energies_dataset, self._incident
        if energies.ndim != 4 or incident.ndim not in (1, 2) or incident.size != len(incident):
            raise DataError(
                f"layers {energies.shape} and energy {incident.shape} have wrong shapes",
                where=f"{path}: /{self._group}",
                do="store layers (n, layers, x, y) and energy (n, 1)",
            )
        self.require_rows(energies, incident)

    @classmethod
    def recognises(cls, file: h5py.File) -> bool:
        """A group such as 30x30 at the top."""
        return any(_GROUP.match(name) for name in file)

    @property
    def energies_dataset(self) -> h5py.Dataset:
        return member(self.path, self.file[self._group], "layers")

    @property
    def _incident(self) -> h5py.Dataset:
        return member(self.path, self.file[self._group], "energy")

    @property
    def num_showers(self) -> int:
        return len(self.energies_dataset)

    @property
    def shape_words(self) -> str:
        layers, first, second = self.energies_dataset.shape[1:]
        return f"{layers} layers of {first}x{second} cells"

    def mismatch(self, geometry: Geometry) -> str | None:
        """Compare array shapes; the layout has no edges to compare."""
        shape = self.energies_dataset.shape[1:]
        expected = (geometry.num_layers, *geometry.layer_shapes[0])
        if not geometry.is_regular:
            return f"{self.shape_words} against ragged layers"
        if shape[0] != expected[0]:
            return f"{shape[0]} layers against {expected[0]}"
        for name, found, wanted in zip(
            (axis.name for axis in geometry.layers[0].axes), shape[1:], expected[1:], strict=True
        ):
            if found != wanted:
                return f"layer 0, axis {name}: {found} cells against {wanted}"
        return None

    def read(self, start: int, stop: int, geometry: Geometry) -> Showers:
        """Read rows; incident energies become MeV."""
        energies = self.energies_dataset[start:stop].astype(np.float32, copy=False)
        incident = self._incident[start:stop].reshape(-1).astype(np.float32)
        return Showers(
            energies.reshape(len(energies), -1),
            {"incident_energy": incident * np.float32(MEV_PER_GEV)},
            geometry,
        )


class GettingHighWriter(ShowerWriter):
    """A file in the Getting High layout being written; regular geometries only."""

    layout: ClassVar[str] = "getting_high"

    def __init__(self, path: Path, geometry: Geometry, attributes: Mapping[str, Any]) -> None:
        if not geometry.is_regular:
            raise DataError(
                "the getting_high layout holds equal layers only",
                where=geometry.describe(),
                do="write the native layout",
            )
        super().__init__(path, geometry, attributes)
        first, second = geometry.layer_shapes[0]
        group = self._file.create_group(f"{first}x{second}")
        self._create(group, "energy", (1,), "GeV")
        self._create(group, "layers", (geometry.num_layers, first, second), "MeV")
        names = ",".join(axis.name for axis in geometry.layers[0].axes)
        group["layers"].attrs["axes"] = f"shower,layer(z),{names}"
        self._group = group

    def _append(self, showers: Showers) -> None:
        shape = (len(showers), *self._group["layers"].shape[1:])
        incident = showers.conditions["incident_energy"] / np.float32(MEV_PER_GEV)
        self._extend(self._group["layers"], showers.energies.reshape(shape))
        self._extend(self._group["energy"], incident[:, None])
