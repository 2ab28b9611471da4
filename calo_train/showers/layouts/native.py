"""Our own layout: self-describing, with geometry, conditions and units inside.

Attribute `layout` is "native", `layout_version` 1, `geometry` the yaml of the detector. Data set
`energies` (n, voxels) MeV in the geometry's voxel order; group `conditions` with one column each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import yaml

from calo_train.errors import DataError
from calo_train.geometry import Geometry, geometry_from_mapping
from calo_train.geometry.sources import geometry_to_mapping
from calo_train.showers.layouts.layout import ShowerFile, ShowerWriter, member
from calo_train.showers.showers import Showers

VERSION = 1
_UNITS = {"incident_energy": "MeV", "polar_angle": "rad", "azimuth": "rad"}
_MAX_GEOMETRY_TEXT = 16 << 20


class NativeFile(ShowerFile):
    """An open file in our own layout."""

    layout: ClassVar[str] = "native"

    def __init__(self, path: Path, file: h5py.File) -> None:
        super().__init__(path, file)
        version = int(file.attrs.get("layout_version", 0))
        if version != VERSION:
            raise DataError(
                f"native layout version {version}, this program reads {VERSION}",
                where=str(path),
                do="install the calo-train version that wrote it, or a newer one",
            )
        group = file.get("conditions")
        if not isinstance(group, h5py.Group) or not len(group):
            raise DataError(
                "no conditions", where=f"{path}: /conditions", do="give a complete native file"
            )
        self.condition_names = tuple(sorted(group, key=lambda name: name != "incident_energy"))
        columns = [member(path, group, name) for name in self.condition_names]
        self.require_rows(self.energies_dataset, *columns)

    @classmethod
    def recognises(cls, file: h5py.File) -> bool:
        """The attribute `layout` says so."""
        return file.attrs.get("layout") == "native"

    @property
    def energies_dataset(self) -> h5py.Dataset:
        return member(self.path, self.file, "energies")

    @property
    def num_showers(self) -> int:
        return len(self.energies_dataset)

    @property
    def shape_words(self) -> str:
        return self.geometry.describe()

    @cached_property
    def geometry(self) -> Geometry:
        """The detector that the file describes."""
        text = str(self.file.attrs.get("geometry", ""))
        if not text or len(text) > _MAX_GEOMETRY_TEXT:
            raise self._bad_geometry("missing or too long")
        try:
            mapping = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise self._bad_geometry(str(error).splitlines()[0]) from error
        if not isinstance(mapping, dict):
            raise self._bad_geometry("no keys")
        return geometry_from_mapping(mapping, where=f"{self.path}: attribute geometry")

    def mismatch(self, geometry: Geometry) -> str | None:
        """Compare all edges."""
        return self.geometry.difference(geometry)

    def read(self, start: int, stop: int, geometry: Geometry) -> Showers:
        """Read rows as they are."""
        energies = self.energies_dataset[start:stop].astype(np.float32, copy=False)
        group = self.file["conditions"]
        conditions = {
            name: group[name][start:stop].astype(np.float32, copy=False)
            for name in self.condition_names
        }
        return Showers(energies, conditions, geometry)

    def _bad_geometry(self, reason: str) -> DataError:
        return DataError(
            f"the file's geometry cannot be read: {reason}",
            where=f"{self.path}: attribute geometry",
            do="write the file again with calo-data convert",
        )


class NativeWriter(ShowerWriter):
    """A file in our own layout being written."""

    layout: ClassVar[str] = "native"

    def __init__(
        self,
        path: Path,
        geometry: Geometry,
        attributes: Mapping[str, Any],
        condition_names: Sequence[str] = ("incident_energy",),
    ) -> None:
        super().__init__(path, geometry, attributes)
        self._file.attrs["layout"] = self.layout
        self._file.attrs["layout_version"] = VERSION
        self._file.attrs["geometry"] = yaml.safe_dump(geometry_to_mapping(geometry), sort_keys=False)
        self._create(self._file, "energies", (geometry.num_voxels,), "MeV")
        group = self._file.create_group("conditions")
        for name in condition_names:
            self._create(group, name, (), _UNITS.get(name, ""))

    def _append(self, showers: Showers) -> None:
        self._extend(self._file["energies"], showers.energies)
        for name, column in self._file["conditions"].items():
            self._extend(column, showers.conditions[name])
