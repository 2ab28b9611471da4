"""New geometries from old ones: crop, coarsen, segment, with the index map that sums energies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError, UsageError, nearest_names

if TYPE_CHECKING:
    from calo_train.geometry.geometry import Axis, Geometry, Layer


@dataclass(frozen=True, eq=False)
class Regrouping:
    """Where each old voxel's energy goes: `target` (old voxels,) holds new indices, -1 outside."""

    target: npt.NDArray[np.int64]
    num_voxels: int

    def apply(self, energies: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Sum energies (n, old voxels) to (n, new voxels), float32, without what lies outside."""
        kept = np.flatnonzero(self.target >= 0)
        targets = self.target[kept]
        if len(np.unique(targets)) == len(targets) == self.num_voxels:
            source = np.empty(self.num_voxels, dtype=np.int64)
            source[targets] = kept
            return np.ascontiguousarray(energies[:, source])
        order = np.argsort(targets, kind="stable")
        starts = np.searchsorted(targets[order], np.arange(self.num_voxels))
        summed = np.add.reduceat(energies[:, kept[order]], starts, axis=1, dtype=np.float64)
        return summed.astype(np.float32)


def regroup(
    geometry: Geometry,
    *,
    crop: dict[str, tuple[int, int]],
    factors: dict[str, int],
    groups: list[tuple[int, int]] | None,
) -> tuple[tuple[Layer, ...], Regrouping]:
    """Build the new layers and the map from old voxels to new ones."""
    _require_axes(geometry, [*crop, *factors])
    groups = groups or [(index, index + 1) for index in range(geometry.num_layers)]
    target = np.full(geometry.num_voxels, -1, dtype=np.int64)
    layers: list[Layer] = []
    offset = 0
    for start, stop in groups:
        members = geometry.layers[start:stop]
        if not members or any(member.axes != members[0].axes for member in members):
            raise DataError(
                f"layers {start} to {stop - 1} do not share one grid and cannot be joined",
                where=geometry.name,
                do="join only layers of equal segmentation",
            )
        joined, cell_of = _join(members, crop, factors)
        for index in range(start, stop):
            target[geometry.layer_slices[index]] = np.where(cell_of < 0, -1, cell_of + offset)
        layers.append(joined)
        offset += joined.num_voxels
    return tuple(layers), Regrouping(target, offset)


def _join(
    members: tuple[Layer, ...], crop: dict[str, tuple[int, int]], factors: dict[str, int]
) -> tuple[Layer, npt.NDArray[np.int64]]:
    from calo_train.geometry.geometry import Layer

    (first, first_map), (second, second_map) = (
        _regroup_axis(axis, crop, factors) for axis in members[0].axes
    )
    inside = (first_map[:, None] >= 0) & (second_map[None, :] >= 0)
    cells = np.where(inside, first_map[:, None] * second.num_cells + second_map[None, :], -1)
    end = members[-1].depth + members[-1].thickness
    return Layer((first, second), members[0].depth, end - members[0].depth), cells.ravel()


def _regroup_axis(
    axis: Axis, crop: dict[str, tuple[int, int]], factors: dict[str, int]
) -> tuple[Axis, npt.NDArray[np.int64]]:
    from calo_train.geometry.geometry import Axis

    start, stop = crop.get(axis.name, (0, axis.num_cells))
    factor = factors.get(axis.name, 1)
    if not 0 <= start < stop <= axis.num_cells or (stop - start) % factor:
        raise UsageError(
            f"axis '{axis.name}' has {axis.num_cells} cells: cannot keep [{start}, {stop}) in "
            f"groups of {factor}",
            where="crop or coarsen",
            do="choose a range inside the axis that the factor divides",
        )
    cells = np.arange(axis.num_cells)
    target = np.where((cells >= start) & (cells < stop), (cells - start) // factor, -1)
    is_whole = stop - start == axis.num_cells
    edges = axis.edges[start : stop + 1 : factor]
    return Axis(axis.name, edges, axis.unit, axis.is_periodic and is_whole), target


def _require_axes(geometry: Geometry, names: list[str]) -> None:
    known = {axis.name for layer in geometry.layers for axis in layer.axes}
    for name in names:
        if name not in known:
            raise UsageError(
                f"no axis '{name}'",
                where=geometry.name,
                do=f"name one of its axes; {nearest_names(name, known)}",
            )
