"""Geometries from text: the yaml of `conf/geometry`, CaloChallenge binning XML, our own files.

The yaml form is also what generators and native files carry, so `to_mapping` and
`geometry_from_mapping` are inverse to each other.
"""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from calo_train.errors import DataError
from calo_train.geometry.geometry import Axis, Geometry, Layer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MAX_XML_BYTES = 1 << 20
_MAX_VOXELS = 10_000_000


def geometry_from_mapping(mapping: Mapping[str, Any], *, where: str = "geometry") -> Geometry:
    """Build a geometry from yaml data.

    Either one grid for all layers (`axes`, `depth`, `layer_thicknesses`) or a list `layers` of
    grids (`axes`, `depth`, `thickness`). An axis is `{name, edges}` or
    `{name, start, stop, cells}`, with `unit` (mm) and `periodic` (false). Raises DataError.
    """
    try:
        if "layers" in mapping:
            layers = tuple(_layer(entry) for entry in mapping["layers"])
        else:
            layers = _equal_layers(mapping)
        geometry = Geometry(str(mapping["name"]), layers)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not a geometry: {type(error).__name__} {error}",
            where=where,
            do="give name, axes, depth and layer_thicknesses, or a list of layers",
        ) from error
    if geometry.num_voxels > _MAX_VOXELS:
        raise DataError(
            f"{geometry.num_voxels} voxels are more than {_MAX_VOXELS}",
            where=where,
            do="check the cell counts",
        )
    return geometry


def geometry_to_mapping(geometry: Geometry) -> dict[str, Any]:
    """Give the yaml form of a geometry, plain numbers, text and lists only; short where layers
    are equal and follow each other.
    """
    layers = geometry.layers
    follow = all(a.depth + a.thickness == b.depth for a, b in pairwise(layers))
    if follow and all(layer.axes == layers[0].axes for layer in layers):
        return {
            "name": geometry.name,
            "axes": _axes_to_mapping(layers[0]),
            "depth": layers[0].depth,
            "layer_thicknesses": [layer.thickness for layer in layers],
        }
    return {
        "name": geometry.name,
        "layers": [
            {"depth": layer.depth, "thickness": layer.thickness, "axes": _axes_to_mapping(layer)}
            for layer in layers
        ],
    }


def _axes_to_mapping(layer: Layer) -> list[dict[str, Any]]:
    return [
        {
            "name": axis.name,
            "edges": list(axis.edges),
            "unit": axis.unit,
            "periodic": axis.is_periodic,
        }
        for axis in layer.axes
    ]


def geometry_from_xml(path: Path, particle: str, *, layer_thickness: float = 1.0) -> Geometry:
    """Build a geometry from a CaloChallenge binning file (2410.21611; homepage XMLHandler).

    Layers with `r_edges="0"` hold no voxels and are left out. Radial edges are mm, angular cells
    divide [-pi, pi] equally; the file has no depths, so layers follow each other by
    `layer_thickness` mm. Document types and entities are refused.
    """
    if path.stat().st_size > _MAX_XML_BYTES:
        raise DataError(
            "a binning file over 1 MiB", where=str(path), do="give the published binning XML"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 text: {error}", where=str(path), do="give the published binning XML"
        ) from error
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(
            "a binning file with a document type", where=str(path), do="remove DOCTYPE and ENTITY"
        )
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - entities are refused above
    except ElementTree.ParseError as error:
        raise DataError(
            f"not XML: {error}", where=str(path), do="give the published binning XML"
        ) from error
    bins = {entry.get("name"): entry for entry in root.iter() if entry.get("name") is not None}
    if particle not in bins:
        raise DataError(
            f"no particle '{particle}'",
            where=str(path),
            do=f"choose one of {', '.join(map(str, bins))}",
        )
    grids = [_xml_axes(entry, path) for entry in bins[particle].iter("Layer")]
    layers = [
        Layer(axes, index * layer_thickness, layer_thickness)
        for index, axes in enumerate(axes for axes in grids if axes is not None)
    ]
    return Geometry(f"{path.stem}_{particle}", tuple(layers))


def _xml_axes(entry: ElementTree.Element, path: Path) -> tuple[Axis, Axis] | None:
    try:
        edges = tuple(float(edge) for edge in (entry.get("r_edges") or "").split(","))
        num_alpha = int(entry.get("n_bin_alpha") or "")
        if not 0 < num_alpha <= _MAX_VOXELS:
            raise ValueError(f"{num_alpha} angular cells")
    except ValueError as error:
        raise DataError(
            f"layer {entry.get('id')}: {error}",
            where=str(path),
            do="check r_edges and n_bin_alpha",
        ) from error
    if len(edges) < 2:
        return None
    alpha_edges = tuple(
        -math.pi + 2 * math.pi * index / num_alpha for index in range(num_alpha + 1)
    )
    return Axis("alpha", alpha_edges, "rad", is_periodic=True), Axis("r", edges)


def _equal_layers(mapping: Mapping[str, Any]) -> tuple[Layer, ...]:
    axes = _axes(mapping["axes"])
    thicknesses = [float(thickness) for thickness in mapping["layer_thicknesses"]]
    ends = list(accumulate(thicknesses, initial=float(mapping["depth"])))
    return tuple(
        Layer(axes, depth, thickness) for depth, thickness in zip(ends, thicknesses, strict=False)
    )


def _layer(entry: Mapping[str, Any]) -> Layer:
    return Layer(_axes(entry["axes"]), float(entry["depth"]), float(entry["thickness"]))


def _axes(entries: Any) -> tuple[Axis, Axis]:
    first, second = (_axis(entry) for entry in entries)
    return first, second


def _axis(entry: Mapping[str, Any]) -> Axis:
    if "edges" in entry:
        edges = tuple(float(edge) for edge in entry["edges"])
    else:
        start, stop, cells = float(entry["start"]), float(entry["stop"]), int(entry["cells"])
        if not 0 < cells <= _MAX_VOXELS:
            raise ValueError(f"axis {entry['name']} has {cells} cells")
        edges = tuple(start + (stop - start) * index / cells for index in range(cells + 1))
    return Axis(
        str(entry["name"]), edges, str(entry.get("unit", "mm")), bool(entry.get("periodic", False))
    )
