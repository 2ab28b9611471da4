"""Layout of the Getting High ILD photons (2005.05334) and of L2LFlows' files.

A group named after the grid, `30x30` or `10x10`: `energy` (n, 1) in GeV and `layers`
(n, layers, x, y) in MeV; keys and units as in FLC-QU-hep/getting_high and ConvL2LFlow's reader.
The cell edges are not in the file; attributes `axes` and `cell_mm`, where present, are compared.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

import h5py

from calo_train.errors import DataError
from calo_train.showers.layouts.hdf5 import plain_attributes, require_array
from calo_train.showers.layouts.layout import (
    Column,
    Columns,
    Layout,
    require_incident_energy_only,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from calo_train.geometry import Geometry

_GRID = re.compile(r"(\d+)x(\d+)")


class GettingHigh(Layout):
    """Group `AxB` with `energy` in GeV and `layers` in MeV."""

    name: ClassVar[str] = "getting_high"
    summary: ClassVar[str] = "group AxB: energy (n, 1) GeV, layers (n, L, A, B) MeV"
    keys: ClassVar[tuple[str, ...]] = ("energy", "layers")

    def recognises(self, file: h5py.File) -> bool:
        return bool(_grid_groups(file))

    def columns(self, file: h5py.File, path: Path) -> Columns:
        groups = _grid_groups(file)
        if len(groups) > 1:
            raise DataError(
                f"groups {' and '.join(groups)} in one file",
                where=str(path),
                do="keep one grid in a file, for example with h5copy",
            )
        group = groups[0]
        layers = require_array(file, f"{group}/layers", path=path)
        grid = tuple(layers.shape[1:])
        named = tuple(int(cells) for cells in group.split("x"))
        if len(grid) != 3 or grid[1:] != named:
            raise DataError(
                f"'{group}/layers' has the shape {layers.shape}, "
                f"expected (n, layers, {named[0]}, {named[1]})",
                where=str(path),
                do="write one grid of the group's size for every layer and shower",
            )
        return _columns(group, grid, plain_attributes(layers))

    def plan(self, geometry: Geometry, condition_names: Sequence[str]) -> Columns:
        require_incident_energy_only(self, condition_names)
        if not geometry.is_regular:
            raise DataError(
                "layout getting_high needs layers of one grid",
                where=geometry.describe(),
                do="write the layout native, which holds any detector",
            )
        first, second = geometry.layers[0].axes
        attributes = {"axes": f"shower,layer(z),{first.name},{second.name}"}
        widths = [axis.edges[1] - axis.edges[0] for axis in (first, second)]
        if all(axis.unit == "mm" for axis in (first, second)):
            attributes["cell_mm"] = "x".join(f"{width:g}" for width in widths)
        return _columns(
            f"{first.num_cells}x{second.num_cells}",
            (geometry.num_layers, first.num_cells, second.num_cells),
            attributes,
        )


def _columns(group: str, grid: tuple[int, ...], attributes: Mapping[str, Any]) -> Columns:
    layers = Column(f"{group}/layers", "MeV")
    return Columns(
        (layers,),
        {"incident_energy": Column(f"{group}/energy", "GeV")},
        (grid,),
        attributes={layers.key: attributes},
    )


def _grid_groups(file: h5py.File) -> list[str]:
    return [
        name
        for name in file
        if _GRID.fullmatch(name)
        and isinstance(file.get(name, getlink=True), h5py.HardLink)
        and isinstance(file[name], h5py.Group)
        and ("layers" in file[name] or "energy" in file[name])
    ]
