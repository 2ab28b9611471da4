"""Rows of showers of one detector, from a file or not: what a source needs to know of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from calo_train.geometry import Geometry
    from calo_train.showers.layouts.layout import Column, Columns
    from calo_train.showers.showers import FloatArray, Showers


class ShowerRows(ABC):
    """Numbered showers in the columns of a layout."""

    path: Path
    layout: str
    columns: Columns
    attributes: dict[str, Any]
    num_showers: int
    mantissa_bits: int

    @property
    def condition_names(self) -> tuple[str, ...]:
        return tuple(self.columns.conditions)

    @property
    def geometry(self) -> Geometry | None:
        """The detector, where the rows themselves describe it."""
        return self.columns.geometry

    @property
    def num_voxels(self) -> int:
        """Voxels of a shower; 0 for point clouds, which have none of their own."""
        return sum(math.prod(grid) for grid in self.columns.grids)

    @property
    def shape_words(self) -> str:
        """Say what a shower looks like here, for messages."""
        if self.geometry is not None:
            return self.geometry.describe()
        if self.columns.has_points:
            return "points (x, y, layer, energy)"
        grids = self.columns.grids
        if len(grids) > 1:
            shapes = ", ".join("x".join(map(str, grid)) for grid in grids)
            return f"{len(grids)} layers of {shapes} ({self.num_voxels} voxels)"
        grid = grids[0]
        if len(grid) == 3:
            return f"{grid[0]} layers of {grid[1]} x {grid[2]} cells ({self.num_voxels} voxels)"
        return f"{self.num_voxels} voxels"

    def key_of(self, condition: str | None = None) -> str:
        """Name the array of a condition, or of the voxel energies, as it is stored."""
        return self._column(condition).key

    def unit_of(self, condition: str | None = None) -> str:
        """Give the unit in which a condition, or the voxel energies, are read."""
        return self._column(condition).unit

    def _column(self, condition: str | None) -> Column:
        return self.columns.conditions[condition] if condition else self.columns.energies[0]

    @property
    @abstractmethod
    def storage_words(self) -> str:
        """Say how the voxel energies are stored."""

    @property
    @abstractmethod
    def chunk_rows(self) -> int:
        """Rows that are decoded together."""

    @property
    @abstractmethod
    def stored_type(self) -> str:
        """Name the type in which energies are stored."""

    @property
    @abstractmethod
    def recipe(self) -> str:
        """What decides the showers, where that is not what is stored; else empty."""

    @abstractmethod
    def read(self, start: int, stop: int, geometry: Geometry) -> Showers:
        """Read rows [start, stop) in house units, float32, as showers of a fitting geometry."""

    @abstractmethod
    def read_conditions(self, start: int, stop: int) -> dict[str, FloatArray]:
        """Read the conditions of rows [start, stop) in house units, name -> (n,) float32."""

    def read_points(self, start: int, stop: int) -> list[FloatArray]:  # noqa: ARG002
        """Read the points of rows [start, stop) of a point cloud, (k, 4 and more)."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Let go of what is open."""
