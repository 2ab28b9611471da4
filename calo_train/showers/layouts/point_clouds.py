"""Between points (x, y, layer, energy) and the voxels of a geometry.

A point lies where a voxel has its centre; a voxel holds the sum of the points inside it. Layers
are grids over x and y, or over alpha and r with x = r cos(alpha), y = r sin(alpha).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from calo_train.geometry import Axis, Geometry, Layer
    from calo_train.showers.layouts.layout import Rows
    from calo_train.showers.showers import FloatArray

    DoubleArray = npt.NDArray[np.float64]
    IndexArray = npt.NDArray[np.int64]

_GRIDS = ({"x", "y"}, {"alpha", "r"})
# The layer of a point is a whole number, up to what float32 arithmetic does to it (showerdata
# 0.6.1, observables).
_LAYER_SLACK = 0.1


def holds_points(geometry: Geometry) -> bool:
    """Say whether all layers are grids that have places in x and y."""
    return all({axis.name for axis in layer.axes} in _GRIDS for layer in geometry.layers)


def voxel_points(geometry: Geometry) -> DoubleArray:
    """Give the place (x, y, layer) of each voxel's centre, (voxels, 3); mm."""
    places = []
    for index, layer in enumerate(geometry.layers):
        grids = np.meshgrid(*(axis.centres for axis in layer.axes), indexing="ij")
        values = {axis.name: grid.ravel() for axis, grid in zip(layer.axes, grids, strict=True)}
        if layer.is_polar:
            radius, angle = values["r"], values["alpha"]
            values = {"x": radius * np.cos(angle), "y": radius * np.sin(angle)}
        numbers = np.full(layer.num_voxels, float(index))
        places.append(np.column_stack([values["x"], values["y"], numbers]))
    return np.concatenate(places)


def points_of_showers(energies: FloatArray, places: DoubleArray) -> Rows:
    """Give a row of points for each shower, (n,) of (4 hits,) float32, one point a hit voxel.

    Energies (n, voxels) keep their unit.
    """
    showers, voxels = np.nonzero(energies)
    points = np.column_stack([places[voxels], energies[showers, voxels]]).astype(np.float32)
    ends = np.cumsum(np.count_nonzero(energies, axis=1))
    rows = np.empty(len(energies), dtype=object)
    for index, piece in enumerate(np.split(points, ends[:-1])):
        rows[index] = piece.ravel()
    return rows


def voxels_of_points(points: Rows, geometry: Geometry) -> IndexArray:
    """Give the voxel of each point (n, 3 or more), -1 where it lies in none."""
    layer_of_point = layers_of_points(points)
    found = np.full(len(points), -1, dtype=np.int64)
    for index, (layer, voxels) in enumerate(
        zip(geometry.layers, geometry.layer_slices, strict=True)
    ):
        inside = np.flatnonzero(layer_of_point == index)
        cells = _cells(layer, points[inside, :2].astype(np.float64))
        found[inside] = np.where(cells >= 0, voxels.start + cells, -1)
    return found


def layers_of_points(points: Rows) -> IndexArray:
    """Give the layer number of each point, (n,)."""
    layers: IndexArray = np.floor(points[:, 2] + _LAYER_SLACK).astype(np.int64)
    return layers


def energies_of_points(rows: Sequence[Rows], geometry: Geometry) -> FloatArray:
    """Sum the points (points, 4 or 5) of each shower to voxels, (n, voxels), in their unit.

    Points outside the geometry are left out.
    """
    points = np.concatenate(rows)
    voxels = voxels_of_points(points, geometry)
    showers = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    inside = voxels >= 0
    place = showers[inside] * geometry.num_voxels + voxels[inside]
    summed = np.bincount(
        place, weights=points[inside, 3], minlength=len(rows) * geometry.num_voxels
    )
    energies: FloatArray = summed.astype(np.float32).reshape(len(rows), -1)
    return energies


def _cells(layer: Layer, places: DoubleArray) -> IndexArray:
    """Give the cell of a layer at each place (x, y), -1 outside."""
    x, y = places[:, 0], places[:, 1]
    if layer.is_polar:
        values = {"r": np.hypot(x, y), "alpha": np.arctan2(y, x)}
    else:
        values = {"x": x, "y": y}
    first, second = (_bins(axis, values[axis.name]) for axis in layer.axes)
    is_inside = (first >= 0) & (second >= 0)
    cells: IndexArray = np.where(is_inside, first * layer.axes[1].num_cells + second, -1)
    return cells


def _bins(axis: Axis, values: DoubleArray) -> IndexArray:
    """Give the bin [low, high) of each value, -1 outside; periodic axes have no outside."""
    edges = np.asarray(axis.edges)
    if axis.is_periodic:
        turned = edges[0] + np.mod(values - edges[0], edges[-1] - edges[0])
        bins = np.searchsorted(edges, turned, side="right") - 1
        turned_bins: IndexArray = np.minimum(bins, axis.num_cells - 1)
        return turned_bins
    bins = np.searchsorted(edges, values, side="right") - 1
    inside: IndexArray = np.where(bins < axis.num_cells, bins, -1)
    return inside
