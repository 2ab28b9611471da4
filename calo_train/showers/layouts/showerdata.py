"""Layout of the ShowerData package (FLC-QU-hep/ShowerData): showers as point clouds.

As written by showerdata 0.6.1: `showers` (n,) of flattened points (x mm, y mm, layer number,
energy GeV, and sometimes time), `energies` (n, 1) GeV, `directions` (n, 3) unit vectors, `pdg`,
`shower_ids` and `num_points` (n,), `shape` (3,), attribute `showerdata_version`.
A geometry makes voxels of points. Not kept: times, places inside a voxel, points outside the
geometry; not read: several particles in a file, and the groups `target` and `observables`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from calo_train.errors import DataError
from calo_train.showers.layouts.hdf5 import require_array, require_row_bytes
from calo_train.showers.layouts.layout import Column, Columns, Layout, StoredArray, in_unit_of
from calo_train.showers.layouts.point_clouds import (
    energies_of_points,
    holds_points,
    points_of_showers,
    voxel_points,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import h5py

    from calo_train.geometry import Geometry
    from calo_train.showers.layouts.layout import Rows
    from calo_train.showers.showers import Showers

_VERSION = "0.6.1"
_POINT_SIZES = (4, 5)  # the fifth is a time
_PARTICLES = {"photon": 22, "electron": 11, "positron": -11, "pi+": 211, "pi-": -211}
_UNKNOWN_PDG = 0
_ANGLES = ("polar_angle", "azimuth")


@dataclass(frozen=True)
class _PolarAngle(Column):
    """Angle of a direction to the third axis."""

    row_shapes: ClassVar[tuple[tuple[int, ...], ...]] = ((3,),)

    def values(self, rows: Rows) -> Rows:
        return np.arctan2(np.hypot(rows[:, 0], rows[:, 1]), rows[:, 2])


@dataclass(frozen=True)
class _Azimuth(Column):
    """Angle of a direction around the third axis, from the first to the second."""

    row_shapes: ClassVar[tuple[tuple[int, ...], ...]] = ((3,),)

    def values(self, rows: Rows) -> Rows:
        return np.arctan2(rows[:, 1], rows[:, 0])


_ENERGIES = Column("showers", "GeV")
_INCIDENT = Column("energies", "GeV")
_DIRECTION = {
    "polar_angle": _PolarAngle("directions", "rad"),
    "azimuth": _Azimuth("directions", "rad"),
}


class ShowerData(Layout):
    """Point clouds `showers` with `energies`, `directions` and `pdg`."""

    name: ClassVar[str] = "showerdata"
    summary: ClassVar[str] = "showers (n,) of points x, y, layer, energy GeV; energies (n, 1) GeV"
    keys: ClassVar[tuple[str, ...]] = ("showers", "energies", "directions", "pdg", "num_points")

    def recognises(self, file: h5py.File) -> bool:
        return "showerdata_version" in file.attrs or {"showers", "num_points", "shape"} <= set(
            file
        )

    def columns(self, file: h5py.File, path: Path) -> Columns:
        require_array(file, _ENERGIES.key, path=path, is_ragged=True)
        point_size = _point_size(file, path)
        num_points = require_array(file, "num_points", path=path)
        most = int(np.max(num_points, initial=0))
        require_row_bytes(4 * point_size * most, _ENERGIES.key, where=f"{path}: num_points")
        pdg = np.unique(require_array(file, "pdg", path=path))
        if len(pdg) > 1:
            raise DataError(
                f"showers of {len(pdg)} particles: pdg {', '.join(map(str, pdg[:8]))}",
                where=str(path),
                do="write the showers of one particle into a file",
            )
        directions = require_array(file, "directions", path=path)
        has_angles = bool(len(directions)) and bool(np.ptp(directions, axis=0).any())
        return Columns(
            (_ENERGIES,),
            {"incident_energy": _INCIDENT, **(_DIRECTION if has_angles else {})},
            (),
            point_size=point_size,
            file_attributes=_particle(pdg),
        )

    def plan(self, geometry: Geometry, condition_names: Sequence[str]) -> Columns:
        angles = [name for name in condition_names if name != "incident_energy"]
        if sorted(angles) not in ([], sorted(_ANGLES)):
            raise DataError(
                f"layout {self.name} holds incident energies and directions, not "
                + ", ".join(condition_names),
                where=self.summary,
                do="write the layout native, which holds any condition",
            )
        if not holds_points(geometry):
            raise DataError(
                f"layout {self.name} needs layers over x and y, or over alpha and r",
                where=geometry.describe(),
                do="write the layout native, which holds any detector",
            )
        conditions = {"incident_energy": _INCIDENT, **(_DIRECTION if angles else {})}
        return Columns((_ENERGIES,), conditions, (), point_size=_POINT_SIZES[0])

    def file_attributes(self, geometry: Geometry) -> Mapping[str, Any]:  # noqa: ARG002 - points do without
        return {"showerdata_version": _VERSION}

    def decode(self, rows: Sequence[Rows], columns: Columns, geometry: Geometry) -> Rows:
        points = [row.reshape(-1, columns.point_size) for row in rows[0]]
        return energies_of_points(points, geometry)

    def stored_arrays(self, columns: Columns) -> tuple[StoredArray, ...]:  # noqa: ARG002 - the same for all
        return (
            StoredArray(_ENERGIES.key, (), is_ragged=True),
            StoredArray(_INCIDENT.key, (1,), _INCIDENT.unit),
            StoredArray("directions", (3,)),
            StoredArray("pdg", (), dtype="int32"),
            StoredArray("shower_ids", (), dtype="int32"),
            StoredArray("num_points", (), dtype="int32"),
        )

    def encode(self, showers: Showers, columns: Columns, first: int) -> Mapping[str, Rows]:  # noqa: ARG002 - the same for all
        number = len(showers)
        stored = in_unit_of(_ENERGIES, showers.energies)
        incident = in_unit_of(_INCIDENT, showers.conditions["incident_energy"])
        return {
            _ENERGIES.key: points_of_showers(stored, voxel_points(showers.geometry)),
            _INCIDENT.key: incident.reshape(-1, 1),
            "directions": _directions(showers),
            "pdg": np.full(number, _UNKNOWN_PDG, dtype=np.int32),
            "shower_ids": np.arange(first, first + number, dtype=np.int32),
            "num_points": np.count_nonzero(stored, axis=1).astype(np.int32),
        }

    def finish(self, file: h5py.File) -> None:
        """Write the particle, which is an attribute here, and the shape that a reader pads to."""
        file["pdg"][...] = file.attrs.get(
            "pdg", _PARTICLES.get(str(file.attrs.get("particle")), _UNKNOWN_PDG)
        )
        most = int(np.max(file["num_points"], initial=0))
        shape = np.asarray([len(file["showers"]), most, _POINT_SIZES[0]], dtype=np.int64)
        if "shape" not in file:
            file.create_dataset("shape", data=shape)
        file["shape"][...] = shape


def _point_size(file: h5py.File, path: Path) -> int:
    shape = require_array(file, "shape", path=path)
    found = np.asarray(shape).tolist() if shape.shape == (3,) else []
    if not found or found[2] not in _POINT_SIZES:
        raise DataError(
            f"'shape' is {found or shape.shape}, expected (showers, points, 4 or 5)",
            where=str(path),
            do="write the file with showerdata",
        )
    return int(found[2])


def _particle(pdg: Rows) -> dict[str, Any]:
    if len(pdg) == 0 or pdg[0] == _UNKNOWN_PDG:
        return {}
    names = [name for name, code in _PARTICLES.items() if code == pdg[0]]
    return {"pdg": int(pdg[0]), **({"particle": names[0]} if names else {})}


def _directions(showers: Showers) -> Rows:
    """Give unit vectors (n, 3); along the third axis where showers have no angles."""
    if "polar_angle" not in showers.conditions:
        return np.tile(np.asarray([0, 0, 1], dtype=np.float32), (len(showers), 1))
    polar, azimuth = (showers.conditions[name].astype(np.float64) for name in _ANGLES)
    transverse = np.sin(polar)
    columns = [transverse * np.cos(azimuth), transverse * np.sin(azimuth), np.cos(polar)]
    return np.column_stack(columns).astype(np.float32)
