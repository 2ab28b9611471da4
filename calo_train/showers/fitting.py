"""Does a file hold showers of this detector? As far as its layout can tell.

Native files are compared edge by edge; a grid by its shape, and by the attributes `axes` and
`cell_mm` where it has them; a flat list of voxels by its length; point clouds by where the points
of the first showers lie.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from calo_train.config_folder import conf_folder
from calo_train.errors import GeometryMismatch, MachineError
from calo_train.geometry import geometry_from_mapping
from calo_train.showers.layouts.point_clouds import (
    holds_points,
    layers_of_points,
    voxels_of_points,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calo_train.geometry import Geometry
    from calo_train.showers.layouts import ShowerRows

_CELL = re.compile(r"\s*([\d.]+)\s*x\s*([\d.]+)\s*")
_PROBED_SHOWERS = 64  # of a point cloud
_SHARE_INSIDE = 0.9  # of their energy that a fitting detector holds; a core holds a little less
_CELL_RTOL = 1e-3  # attributes are decimal text for people


def first_difference(geometry: Geometry, file: ShowerRows) -> str | None:
    """Say where a file first departs from a detector, expected against found, or None."""
    if file.geometry is not None:
        return geometry.difference(file.geometry)
    if file.columns.has_points:
        return _point_difference(geometry, file)
    grids = file.columns.grids
    if len(grids) > 1 or len(grids[0]) == 2:
        return _layers_difference(geometry, grids)
    if len(grids[0]) == 3:
        return _shape_difference(geometry, grids[0]) or _attribute_difference(geometry, file)
    if file.num_voxels != geometry.num_voxels:
        return f"{geometry.num_voxels} voxels against {file.num_voxels}"
    return None


def refuse(file: ShowerRows, geometry: Geometry, parent: Geometry | None) -> GeometryMismatch:
    """Describe both detectors and the first difference, and name configured ones that fit."""
    also = f" (or its parent {parent.describe()})" if parent is not None else ""
    return GeometryMismatch(
        f"another detector: expected {geometry.describe()}{also}; found {file.shape_words}; "
        f"first difference: {first_difference(geometry, file)}",
        where=str(file.path),
        do=f"give a file of the expected detector; {fitting_words(file)}",
    )


def fitting_words(file: ShowerRows) -> str:
    """Say which configured data sets and geometries this file fits."""
    datasets, geometries = fitting_datasets(file), fitting_geometries(file)
    if datasets:
        return f"this file fits dataset={' or '.join(datasets)}"
    if geometries:
        return f"this file fits the geometry {' or '.join(geometries)}"
    return "no data set or geometry under conf/ fits this file"


def fitting_geometries(file: ShowerRows) -> list[str]:
    """Name the detectors of `conf/geometry` that a file fits."""
    detectors = {
        name: geometry_from_mapping(mapping, where=name)
        for name, mapping in _group("geometry").items()
    }
    return [
        name
        for name, geometry in detectors.items()
        if first_difference(geometry, file) is None
        and (not file.columns.has_points or _has_its_cells(geometry, file))
    ]


def fitting_datasets(file: ShowerRows) -> list[str]:
    """Name the data sets of `conf/dataset` whose detector, or its parent, a file fits."""
    fits = set(fitting_geometries(file))
    return [
        name
        for name, mapping in _group("dataset").items()
        if not fits.isdisjoint(_geometries_of(mapping))
        or (file.geometry is not None and mapping.get("geometry", "") is None)
    ]


def _geometries_of(dataset: Mapping[str, Any]) -> list[str]:
    """Name the geometries that a data set's defaults list brings in."""
    entries = [entry for entry in dataset.get("defaults", []) if isinstance(entry, dict)]
    return [name for entry in entries for key, name in entry.items() if "/geometry@" in key]


def _group(name: str) -> dict[str, dict[str, Any]]:
    try:
        folder = conf_folder() / name
    except MachineError:  # an installation without config groups still reads and samples
        return {}
    return {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.yaml"))
    }


def _shape_difference(geometry: Geometry, grid: tuple[int, ...]) -> str | None:
    if not geometry.is_regular:
        return "layers of different grids against layers of one grid"
    if grid[0] != geometry.num_layers:
        return f"{geometry.num_layers} layers against {grid[0]}"
    for axis, found in zip(geometry.layers[0].axes, grid[1:], strict=True):
        if found != axis.num_cells:
            return f"layer 0, axis {axis.name}: {axis.num_cells} cells against {found}"
    return None


def _layers_difference(geometry: Geometry, grids: tuple[tuple[int, ...], ...]) -> str | None:
    """Compare the grids of layers that are arrays of their own."""
    if len(grids) != geometry.num_layers:
        return f"{geometry.num_layers} layers against {len(grids)}"
    for index, (layer, grid) in enumerate(zip(geometry.layers, grids, strict=True)):
        if layer.shape != grid:
            return f"layer {index}: {layer.shape} cells against {grid}"
    return None


def _point_difference(geometry: Geometry, file: ShowerRows) -> str | None:
    """Say when points of the first showers lie beyond the layers, or many beside the cells."""
    if not holds_points(geometry):
        return "axes that have no place in x and y against points"
    layers, inside = points_inside(geometry, file)
    if layers > geometry.num_layers:
        return f"{geometry.num_layers} layers against {layers}"
    if inside < _SHARE_INSIDE:
        return f"{100 * inside:.0f} % of the energy of the first showers lies in these cells"
    return None


def points_inside(geometry: Geometry, file: ShowerRows) -> tuple[int, float]:
    """Give the layers that points of the first showers reach and the share of energy in voxels."""
    rows = file.read_points(0, min(file.num_showers, _PROBED_SHOWERS))
    points = np.concatenate(rows) if rows else np.empty((0, file.columns.point_size))
    whole = float(points[:, 3].sum(dtype=np.float64))
    if whole <= 0:
        return 0, 1.0
    is_inside = voxels_of_points(points, geometry) >= 0
    inside = float(points[is_inside, 3].sum(dtype=np.float64))
    return int(layers_of_points(points).max()) + 1, inside / whole


def _has_its_cells(geometry: Geometry, file: ShowerRows) -> bool:
    """Say whether points look like the cells of a detector: all layers, one point a voxel."""
    layers, _ = points_inside(geometry, file)
    rows = file.read_points(0, min(file.num_showers, _PROBED_SHOWERS))
    voxels = [voxels_of_points(row, geometry) for row in rows]
    hit = [found[found >= 0] for found in voxels]
    return layers == geometry.num_layers and all(len(np.unique(v)) == len(v) for v in hit)


def _attribute_difference(geometry: Geometry, file: ShowerRows) -> str | None:
    """Compare what the file says of its axes: `shower,layer(z),x,y` and `5x5` mm."""
    stored = file.columns.attributes.get(file.key_of(), {})
    axes = geometry.layers[0].axes
    names = str(stored.get("axes", "")).split(",")[-2:]
    if len(names) == 2 and tuple(names) != (axes[0].name, axes[1].name):
        return f"axes {axes[0].name}, {axes[1].name} against {', '.join(names)} (attribute axes)"
    cell = _CELL.fullmatch(str(stored.get("cell_mm", "")))
    if cell is None:
        return None
    for axis, text in zip(axes, cell.groups(), strict=True):
        widths = np.diff(axis.edges)
        if axis.unit == "mm" and not np.allclose(widths, float(text), rtol=_CELL_RTOL):
            return (
                f"layer 0, axis {axis.name}: cells of {widths[0]:g} mm against {text} mm "
                "(attribute cell_mm)"
            )
    return None
