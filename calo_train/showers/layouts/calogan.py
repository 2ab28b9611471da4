"""Layout of the CaloGAN files (1712.10321): one array a layer in MeV, `energy` in GeV.

`layer_0` (n, 3, 96), `layer_1` (n, 12, 12), `layer_2` (n, 12, 6) and `energy` (n, 1), keys and
units as in hep-lbdl/CaloGAN, generation/convert.py; other numbers of layers and cells are read
alike. `overflow` (n, layers) is the energy outside the grid, MeV: it is no part of a shower here,
so it is left out on reading and 0 on writing, as in CaloFlow's samples (2106.05285).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from calo_train.errors import DataError
from calo_train.showers.layouts.hdf5 import plain_attributes, require_array
from calo_train.showers.layouts.layout import (
    Column,
    Columns,
    Layout,
    StoredArray,
    require_incident_energy_only,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import h5py

    from calo_train.geometry import Geometry
    from calo_train.showers.layouts.layout import Rows
    from calo_train.showers.showers import Showers

_CONDITIONS = {"incident_energy": Column("energy", "GeV")}
_OVERFLOW = "overflow"


class CaloGan(Layout):
    """`layer_0`, `layer_1`, ... in MeV and `energy` in GeV."""

    name: ClassVar[str] = "calogan"
    summary: ClassVar[str] = "energy (n, 1) GeV, layer_0, layer_1, ... (n, A, B) MeV"
    keys: ClassVar[tuple[str, ...]] = ("energy", "layer_0", "layer_1", "layer_2")

    def recognises(self, file: h5py.File) -> bool:
        return "layer_0" in file

    def columns(self, file: h5py.File, path: Path) -> Columns:
        found = sum(name.startswith("layer_") for name in file)
        columns = _layers(found)
        arrays = [require_array(file, column.key, path=path) for column in columns]
        for column, array in zip(columns, arrays, strict=True):
            if array.ndim != 3:
                raise DataError(
                    f"'{column.key}' has the shape {array.shape}, expected (n, cells, cells)",
                    where=str(path),
                    do="write one grid a shower in every layer",
                )
        return Columns(
            columns,
            _CONDITIONS,
            tuple(tuple(array.shape[1:]) for array in arrays),
            attributes={
                column.key: plain_attributes(array)
                for column, array in zip(columns, arrays, strict=True)
            },
        )

    def plan(self, geometry: Geometry, condition_names: Sequence[str]) -> Columns:
        require_incident_energy_only(self, condition_names)
        return Columns(_layers(geometry.num_layers), _CONDITIONS, geometry.layer_shapes)

    def stored_arrays(self, columns: Columns) -> tuple[StoredArray, ...]:
        overflow = StoredArray(_OVERFLOW, (len(columns.energies),), "MeV")
        return (*super().stored_arrays(columns), overflow)

    def encode(self, showers: Showers, columns: Columns, first: int) -> Mapping[str, Rows]:
        overflow = np.zeros((len(showers), len(columns.energies)), dtype=np.float32)
        return {**super().encode(showers, columns, first), _OVERFLOW: overflow}


def _layers(number: int) -> tuple[Column, ...]:
    return tuple(Column(f"layer_{index}", "MeV") for index in range(number))
