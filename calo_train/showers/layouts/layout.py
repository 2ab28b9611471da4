"""What a layout says: under which keys, in which units and in which shape a file holds showers.

Every layout here is one array of voxel energies and one column for each condition, so a layout is
a description; reading and writing are done once for all, in `reader` and `writer`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from calo_train.errors import DataError, UsageError
from calo_train.quantities import Dimension, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import h5py

    from calo_train.geometry import Geometry

# Unit of each condition inside the program; other names of native files keep their unit.
HOUSE_UNITS = {"incident_energy": "MeV", "polar_angle": "rad", "azimuth": "rad"}
_DIMENSIONS: tuple[Dimension, ...] = ("energy", "angle", "length")


@dataclass(frozen=True)
class Column:
    """An array of a file and the unit of its values there."""

    key: str
    unit: str

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
    """Where a file of some layout holds what; `grid` is the shape of a shower there."""

    energies: Column
    conditions: Mapping[str, Column]
    grid: tuple[int, ...]
    geometry: Geometry | None = None  # of self-describing files only
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # key -> attributes

    def with_units(self, units: Units) -> Columns:
        """Read incident or voxel energies in other units than the layout says."""
        conditions = dict(self.conditions)
        incident = conditions.get("incident_energy")
        if units.incident_energy is not None and incident is not None:
            conditions["incident_energy"] = replace(incident, unit=units.incident_energy)
        energies = replace(self.energies, unit=units.voxel_energies or self.energies.unit)
        return replace(self, energies=energies, conditions=conditions)


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


def require_incident_energy_only(layout: Layout, condition_names: Sequence[str]) -> None:
    """Raise DataError unless the conditions are what a layout without named columns can hold."""
    if tuple(condition_names) != ("incident_energy",):
        raise DataError(
            f"layout {layout.name} holds only incident energies, not {', '.join(condition_names)}",
            where=layout.summary,
            do="write the layout native, which holds any condition",
        )
