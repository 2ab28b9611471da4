"""What a layout says: under which keys, in which units and in which shape a file holds showers.

A file is one or several arrays of voxel energies and a column for each condition, so a layout is
a description; reading and writing are done once for all, in `reader` and `writer`. Layouts whose
rows are no grids (point clouds) say how rows become voxel energies and back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from calo_train.errors import DataError, UsageError
from calo_train.quantities import Dimension, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import h5py
    import numpy.typing as npt

    from calo_train.geometry import Geometry
    from calo_train.showers.showers import FloatArray, Showers

    Rows = npt.NDArray[Any]

# Unit of each condition inside the program; other names of native files keep their unit.
HOUSE_UNITS = {"incident_energy": "MeV", "polar_angle": "rad", "azimuth": "rad"}
_DIMENSIONS: tuple[Dimension, ...] = ("energy", "angle", "length")


@dataclass(frozen=True)
class Column:
    """An array of a file and the unit of its values there."""

    key: str
    unit: str
    row_shapes: ClassVar[tuple[tuple[int, ...], ...]] = ((), (1,))

    def values(self, rows: Rows) -> Rows:
        """Give one value a shower, (n,), from the rows of the array."""
        return rows.reshape(-1)

    def house_scale(self, *, where: str) -> float:
        """Give the factor to house units; a unit that nobody knows is a DataError."""
        if self.unit == "":
            return 1.0
        for dimension in _DIMENSIONS:
            try:
                return parse_quantity(f"1{self.unit}", dimension, where=where)
            except UsageError:
                continue
        raise DataError(
            f"'{self.key}' is in '{self.unit}', which is no known unit",
            where=where,
            do="write it in MeV, GeV, rad or deg, or correct its attribute `unit`",
        )


@dataclass(frozen=True)
class Units:
    """Units that a user states for a file; None leaves the layout's."""

    incident_energy: str | None = None
    voxel_energies: str | None = None


@dataclass(frozen=True)
class Columns:
    """Where a file of some layout holds what.

    Rows of the arrays `energies`, flattened and joined in order, are the voxel energies of a
    shower; `grids` are their shapes. Point clouds are one array without a grid.
    """

    energies: tuple[Column, ...]
    conditions: Mapping[str, Column]
    grids: tuple[tuple[int, ...], ...]
    geometry: Geometry | None = None  # of self-describing files only
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # key -> attributes
    point_size: int = 0  # numbers a point, of point clouds only
    file_attributes: Mapping[str, Any] = field(default_factory=dict)  # that arrays tell

    @property
    def has_points(self) -> bool:
        """Whether rows are point clouds, of which only a geometry makes voxels."""
        return self.point_size > 0

    def with_units(self, units: Units) -> Columns:
        """Read incident or voxel energies in other units than the layout says."""
        conditions = dict(self.conditions)
        incident = conditions.get("incident_energy")
        if units.incident_energy is not None and incident is not None:
            conditions["incident_energy"] = replace(incident, unit=units.incident_energy)
        energies = tuple(
            replace(column, unit=units.voxel_energies or column.unit) for column in self.energies
        )
        return replace(self, energies=energies, conditions=conditions)


@dataclass(frozen=True)
class StoredArray:
    """An array to be written: what a row is there."""

    key: str
    row_shape: tuple[int, ...]
    unit: str = ""
    dtype: str = "float32"
    is_ragged: bool = False  # rows of different lengths


class Layout(ABC):
    """One way in which files hold showers."""

    name: ClassVar[str]
    summary: ClassVar[str]  # its keys, for messages
    keys: ClassVar[tuple[str, ...]]  # leaf names that tell it from others
    condition_shape: ClassVar[tuple[int, ...]] = (1,)  # as published layouts have it, (n, 1)

    @abstractmethod
    def recognises(self, file: h5py.File) -> bool:
        """Say whether the file means to be of this layout, complete or not."""

    @abstractmethod
    def columns(self, file: h5py.File, path: Path) -> Columns:
        """Describe an existing file; DataError when something is missing."""

    @abstractmethod
    def plan(self, geometry: Geometry, condition_names: Sequence[str]) -> Columns:
        """Describe a file to be written; DataError when the layout cannot hold it."""

    def file_attributes(self, geometry: Geometry) -> Mapping[str, Any]:  # noqa: ARG002 - layouts that hold it use it
        """Give the attributes that make a written file recognisable; none for most layouts."""
        return {}

    def decode(self, rows: Sequence[Rows], columns: Columns, geometry: Geometry) -> Rows:  # noqa: ARG002 - point clouds use them
        """Make voxel energies (n, voxels), in the file's unit, of the rows of each array."""
        flat = [array.reshape(len(array), -1) for array in rows]
        return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)

    def stored_arrays(self, columns: Columns) -> tuple[StoredArray, ...]:
        """List the arrays of a file to be written."""
        energies = (
            StoredArray(column.key, grid, column.unit)
            for column, grid in zip(columns.energies, columns.grids, strict=True)
        )
        conditions = (
            StoredArray(column.key, self.condition_shape, column.unit)
            for column in columns.conditions.values()
        )
        return (*energies, *conditions)

    def encode(self, showers: Showers, columns: Columns, first: int) -> Mapping[str, Rows]:  # noqa: ARG002 - numbered rows use it
        """Give the rows to append to each array for showers, of which the first is row `first`."""
        sizes = [int(np.prod(grid)) for grid in columns.grids]
        pieces = np.split(showers.energies, np.cumsum(sizes)[:-1], axis=1)
        rows = {
            column.key: in_unit_of(column, piece).reshape(-1, *grid)
            for column, piece, grid in zip(columns.energies, pieces, columns.grids, strict=True)
        }
        for name, column in columns.conditions.items():
            values = in_unit_of(column, showers.conditions[name])
            rows[column.key] = values.reshape(-1, *self.condition_shape)
        return rows

    def finish(self, file: h5py.File) -> None:  # noqa: B027 - most layouts have nothing to add
        """Write what is known only of all rows so far; nothing for most layouts."""


def in_unit_of(column: Column, values: FloatArray) -> FloatArray:
    """Convert values in house units to those of a column, float32."""
    scale = column.house_scale(where=column.key)
    return values if scale == 1.0 else (values / np.float64(scale)).astype(np.float32)


def require_incident_energy_only(layout: Layout, condition_names: Sequence[str]) -> None:
    """Raise DataError unless the conditions are what a layout without named columns can hold."""
    if tuple(condition_names) != ("incident_energy",):
        raise DataError(
            f"layout {layout.name} holds only incident energies, not {', '.join(condition_names)}",
            where=layout.summary,
            do="write the layout native, which holds any condition",
        )
