"""Layout of the CaloChallenge files (2410.21611): `incident_energies` and `showers`, both in MeV.

Voxels are one row a shower, radial cells fastest, then angular cells, then layers. The file does
not say which detector it is of, so only the number of voxels can be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from calo_train.errors import DataError
from calo_train.showers.layouts.hdf5 import plain_attributes, require_array
from calo_train.showers.layouts.layout import (
    Column,
    Columns,
    Layout,
    require_incident_energy_only,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import h5py

    from calo_train.geometry import Geometry

_ENERGIES = Column("showers", "MeV")
_CONDITIONS = {"incident_energy": Column("incident_energies", "MeV")}


class CaloChallenge(Layout):
    """`incident_energies` (n, 1) and `showers` (n, voxels)."""

    name: ClassVar[str] = "calochallenge"
    summary: ClassVar[str] = "incident_energies (n, 1) MeV, showers (n, voxels) MeV"
    keys: ClassVar[tuple[str, ...]] = ("incident_energies", "showers")

    def recognises(self, file: h5py.File) -> bool:
        return "incident_energies" in file

    def columns(self, file: h5py.File, path: Path) -> Columns:
        showers = require_array(file, _ENERGIES.key, path=path)
        if showers.ndim != 2:
            raise DataError(
                f"'showers' has the shape {showers.shape}, expected (n, voxels)",
                where=str(path),
                do="write one row a shower",
            )
        return Columns(
            (_ENERGIES,),
            _CONDITIONS,
            (tuple(showers.shape[1:]),),
            attributes={_ENERGIES.key: plain_attributes(showers)},
        )

    def plan(self, geometry: Geometry, condition_names: Sequence[str]) -> Columns:
        require_incident_energy_only(self, condition_names)
        return Columns((_ENERGIES,), _CONDITIONS, ((geometry.num_voxels,),))
