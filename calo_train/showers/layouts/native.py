"""Our own layout: a file that needs no configuration to be understood.

Attributes `layout`, `layout_version` and `geometry` (its yaml form, as YAML or JSON text);
`energies` (n, voxels); a group `conditions` with a column (n,) for each condition. An array may
carry its `unit`; without it the values are in house units.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import h5py
import yaml

from calo_train.errors import DataError
from calo_train.geometry import geometry_from_mapping
from calo_train.geometry.sources import geometry_to_mapping
from calo_train.showers.layouts.hdf5 import plain_attributes, require_array
from calo_train.showers.layouts.layout import HOUSE_UNITS, Column, Columns, Layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from calo_train.geometry import Geometry

_VERSION = 1
_ENERGIES = "energies"
_CONDITIONS = "conditions"
_MAX_GEOMETRY_TEXT = 16 << 20  # characters


class Native(Layout):
    """`energies`, `conditions/NAME` and the geometry inside."""

    name: ClassVar[str] = "native"
    summary: ClassVar[str] = "attribute geometry, energies (n, voxels), conditions/NAME (n,)"
    keys: ClassVar[tuple[str, ...]] = ("energies", "incident_energy", "conditions")
    condition_shape: ClassVar[tuple[int, ...]] = ()

    def recognises(self, file: h5py.File) -> bool:
        return plain_attributes(file).get("layout") == self.name

    def columns(self, file: h5py.File, path: Path) -> Columns:
        attributes = plain_attributes(file)
        version = attributes.get("layout_version")
        if version != _VERSION:
            raise DataError(
                f"native layout version {version}; this program reads {_VERSION}",
                where=str(path),
                do="install the calo-train that wrote it, or a newer one",
            )
        geometry = _geometry(attributes.get("geometry"), path)
        keys = [_ENERGIES, *_condition_keys(file, path)]
        stored = {key: plain_attributes(require_array(file, key, path=path)) for key in keys}
        units = {key: str(found.get("unit", "")) for key, found in stored.items()}
        return Columns(
            (Column(_ENERGIES, units[_ENERGIES] or "MeV"),),
            {key.partition("/")[2]: Column(key, units[key]) for key in keys[1:]},
            ((geometry.num_voxels,),),
            geometry,
            stored,
        )

    def plan(self, geometry: Geometry, condition_names: Sequence[str]) -> Columns:
        conditions = {
            name: Column(f"{_CONDITIONS}/{name}", HOUSE_UNITS.get(name, ""))
            for name in condition_names
        }
        energies = (Column(_ENERGIES, "MeV"),)
        return Columns(energies, conditions, ((geometry.num_voxels,),), geometry)

    def file_attributes(self, geometry: Geometry) -> Mapping[str, Any]:
        return {
            "layout": self.name,
            "layout_version": _VERSION,
            "geometry": json.dumps(geometry_to_mapping(geometry)),
        }


def _geometry(text: object, path: Path) -> Geometry:
    where = f"{path}: attribute 'geometry'"
    if not isinstance(text, str) or len(text) > _MAX_GEOMETRY_TEXT:
        raise DataError("the geometry is missing", where=where, do="write the file anew")
    try:
        # We write JSON, which is read a hundred times faster; people write YAML.
        mapping = json.loads(text) if text.startswith("{") else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(
            f"the geometry is damaged: {str(error).splitlines()[0]}",
            where=where,
            do="write the file anew",
        ) from error
    if not isinstance(mapping, dict):
        raise DataError("the geometry is damaged: no keys", where=where, do="write the file anew")
    return geometry_from_mapping(mapping, where=where)


def _condition_keys(file: h5py.File, path: Path) -> list[str]:
    link = file.get(_CONDITIONS, getlink=True)
    if not isinstance(link, h5py.HardLink) or not isinstance(file[_CONDITIONS], h5py.Group):
        raise DataError("the group 'conditions' is missing", where=str(path), do="write it anew")
    found = sorted(file[_CONDITIONS], key=lambda name: (name != "incident_energy", name))
    return [f"{_CONDITIONS}/{name}" for name in found]
