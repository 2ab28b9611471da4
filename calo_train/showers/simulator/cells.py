"""What share of a round shower falls into each cell, exactly.

A component with f(r) = 2 r R^2/(r^2 + R^2)^2 has the density R^2/(pi (r^2 + R^2)^2) around its
axis, which is the divergence of the field r/(2 pi (r^2 + R^2)). By the divergence theorem the
share of a cell is the flux through its sides, and the flux through a straight line and through an
arc of any circle has a closed form. So cells, x-y or r-angle, need no numerical integral wherever
the axis passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError

if TYPE_CHECKING:
    from calo_train.geometry import Geometry, Layer

FloatArray = npt.NDArray[np.float64]

_TABLE_NODES = 384  # radii at which a table holds shares; linear between: below 1e-4
_TABLE_ENDS = (1e-2, 1e4)  # mm


def cell_shares(layer: Layer, radius: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Give shares (..., cells) of components of `radius` (...) mm around axes at x, y (...) mm."""
    primitive = _polar_primitive if layer.is_polar else _cartesian_primitive
    corners = primitive(layer, radius[..., None, None], x[..., None, None], y[..., None, None])
    shares: FloatArray = np.diff(np.diff(corners, axis=-1), axis=-2)
    # Differences of corners may round to just below zero.
    np.maximum(shares, 0.0, out=shares)
    return shares.reshape(*radius.shape, layer.num_voxels)


def _cartesian_primitive(
    layer: Layer, radius: FloatArray, x: FloatArray, y: FloatArray
) -> FloatArray:
    first = np.asarray(layer.axes[0].edges)[:, None] - x
    second = np.asarray(layer.axes[1].edges)[None, :] - y
    first_scale, second_scale = np.hypot(first, radius), np.hypot(second, radius)
    corners: FloatArray = (
        first / first_scale * np.arctan(second / first_scale)
        + second / second_scale * np.arctan(first / second_scale)
    ) / (2 * np.pi)
    return corners


def _polar_primitive(layer: Layer, radius: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Flux through the arc of radius a up to angle phi, and through the ray at phi up to a."""
    is_radius_first = layer.axes[0].name == "r"
    rings, angles = layer.axes if is_radius_first else layer.axes[::-1]
    a, phi = np.asarray(rings.edges), np.asarray(angles.edges)
    a, phi = (a[:, None], phi[None, :]) if is_radius_first else (a[None, :], phi[:, None])
    distance = np.hypot(x, y)
    turned = phi - np.arctan2(y, x)
    arc, ray = (flux(a, turned, distance, radius) for flux in (_arc_flux, _ray_flux))
    return arc + ray


def _arc_flux(
    a: FloatArray, angle: FloatArray, distance: FloatArray, radius: FloatArray
) -> FloatArray:
    """(angle + (2 a^2 - A) int d psi/(A - B cos psi))/(4 pi), A = a^2 + d^2 + R^2, B = 2 a d."""
    total, product = a**2 + distance**2 + radius**2, 2 * a * distance
    root = np.sqrt((total - product) * (total + product))
    ratio = np.sqrt((total + product) / (total - product))
    half = angle / 2
    cosine, sine = np.cos(half), np.sin(half)
    # atan(ratio tan(half)) without its jumps: half and what is left between the two angles.
    rest = np.arctan2((ratio - 1) * sine * cosine, cosine**2 + ratio * sine**2)
    flux: FloatArray = (angle + (2 * a**2 - total) * 2 * (half + rest) / root) / (4 * np.pi)
    return flux


def _ray_flux(
    a: FloatArray, angle: FloatArray, distance: FloatArray, radius: FloatArray
) -> FloatArray:
    """h/sqrt(h^2 + R^2) (atan of both ends)/(2 pi) of a line at height h over the axis."""
    height, foot = distance * np.sin(angle), distance * np.cos(angle)
    scale = np.hypot(height, radius)
    ends = np.arctan((a - foot) / scale) + np.arctan(foot / scale)
    flux: FloatArray = height / scale * ends / (2 * np.pi)
    return flux


@dataclass(frozen=True)
class GridGroup:
    """Layers of equal grids: their numbers, the common layer and their voxels."""

    layer_index: npt.NDArray[np.int64]
    layer: Layer
    voxels: slice | npt.NDArray[np.int64]


def grid_groups(geometry: Geometry) -> list[GridGroup]:
    """Collect layers of equal grids; DataError where cells have no place in mm."""
    members: dict[tuple[object, ...], list[int]] = {}
    for index, layer in enumerate(geometry.layers):
        _require_lengths(geometry, layer)
        members.setdefault(layer.axes, []).append(index)
    groups = []
    for indices in members.values():
        places = [np.arange(geometry.num_voxels)[geometry.layer_slices[i]] for i in indices]
        groups.append(
            GridGroup(np.asarray(indices), geometry.layers[indices[0]], np.concatenate(places))
        )
    return groups


def impact_point(geometry: Geometry) -> tuple[float, float]:
    """Give where showers enter: the middle of the first layer's grid, r = 0 of polar ones."""
    layer = geometry.layers[0]
    if layer.is_polar:
        return 0.0, 0.0
    first, second = ((axis.edges[0] + axis.edges[-1]) / 2 for axis in layer.axes)
    return first, second


@dataclass(frozen=True)
class ShareTable:
    """Shares of one grid around one axis on a ladder of radii, (nodes, cells)."""

    shares: FloatArray

    @classmethod
    def of(cls, layer: Layer, x: float, y: float) -> ShareTable:
        """Tabulate a grid."""
        radius = np.geomspace(*_TABLE_ENDS, _TABLE_NODES)
        return cls(cell_shares(layer, radius, np.full_like(radius, x), np.full_like(radius, y)))

    def mixed(self, radius: FloatArray, weights: FloatArray) -> FloatArray:
        """Give sum_k weights_k shares(radius_k), (n, cells), of radii and weights (n, k)."""
        low, high = np.log(_TABLE_ENDS)
        place = (np.log(radius) - low) / (high - low) * (_TABLE_NODES - 1)
        place = np.clip(place, 0, _TABLE_NODES - 1 - 1e-9)
        node = place.astype(np.int64)
        share = place - node
        found = np.zeros((len(radius), self.shares.shape[1]))
        for component in range(radius.shape[1]):
            rows, weight = node[:, component], weights[:, component]
            upper = (weight * share[:, component])[:, None]
            found += (weight[:, None] - upper) * self.shares[rows]
            found += upper * self.shares[rows + 1]
        return found


def _require_lengths(geometry: Geometry, layer: Layer) -> None:
    for axis in layer.axes:
        if (axis.unit == "rad") != (layer.is_polar and axis.name != "r"):
            raise DataError(
                f"axis '{axis.name}' in {axis.unit} has no place in mm",
                where=geometry.describe(),
                do="simulate a geometry of x-y cells in mm, or of r and an angle",
            )
