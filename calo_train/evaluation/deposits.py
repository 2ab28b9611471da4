"""A block of thresholded showers with the sums that observables share.

Everything comes from the Geometry: the transverse coordinates and the profile bins of a voxel are
weights, so that one matrix product gives all transverse sums of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calo_train.geometry import Axis, Geometry

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]

_MAX_RADIAL_BINS = 40


@dataclass(frozen=True, eq=False)
class Profile:
    """Bins along one coordinate: edges (bins + 1,) and the bin of each voxel, -1 for none."""

    name: str
    edges: FloatArray
    unit: str
    bin_of_voxel: IndexArray

    @property
    def num_bins(self) -> int:
        return len(self.edges) - 1


@dataclass(frozen=True, eq=False)
class Grid:
    """What observables need of a geometry, computed once."""

    geometry: Geometry
    profiles: Mapping[str, Profile]  # by axis name, and `radius`
    weights: FloatArray  # (voxels, columns)
    columns: Mapping[str, slice]

    @classmethod
    def of(cls, geometry: Geometry) -> Self:
        """Prepare the weights of a geometry."""
        x, y = geometry.cartesian_centres
        profiles = {profile.name: profile for profile in _profiles(geometry)}
        pieces = {"x": x[:, None], "y": y[:, None], "xx": x[:, None] ** 2, "yy": y[:, None] ** 2}
        for name, profile in profiles.items():
            pieces[f"profile_{name}"] = np.equal.outer(
                profile.bin_of_voxel, np.arange(profile.num_bins)
            ).astype(np.float64)
        ends = np.cumsum([piece.shape[1] for piece in pieces.values()]).tolist()
        columns = {
            name: slice(end - piece.shape[1], end)
            for (name, piece), end in zip(pieces.items(), ends, strict=True)
        }
        return cls(geometry, profiles, np.concatenate(list(pieces.values()), axis=1), columns)

    @property
    def transverse_names(self) -> tuple[str, str]:
        """Names of the coordinates behind `x` and `y`: the axes' own, but x, y of a polar grid."""
        first, second = self.geometry.layers[0].axes
        return ("x", "y") if self.geometry.layers[0].is_polar else (first.name, second.name)


@dataclass(frozen=True, eq=False)
class Deposits:
    """Thresholded energies (n, voxels) float32 MeV and what they belong to."""

    energies: npt.NDArray[np.float32]
    incident_energy: FloatArray
    grid: Grid

    def __len__(self) -> int:
        return len(self.energies)

    @cached_property
    def layer_energies(self) -> FloatArray:
        """Energy of each layer, (n, layers)."""
        starts = [piece.start for piece in self.grid.geometry.layer_slices]
        sums: FloatArray = np.add.reduceat(self.energies, starts, axis=1, dtype=np.float64)
        return sums

    @cached_property
    def visible_energy(self) -> FloatArray:
        """Energy of all voxels, (n,)."""
        total: FloatArray = self.layer_energies.sum(axis=1)
        return total

    @cached_property
    def _sums(self) -> FloatArray:
        # float64: second moments are differences of large sums
        return self.energies.astype(np.float64) @ self.grid.weights

    def sums(self, name: str) -> FloatArray:
        """Sum energies with the weights `name`: (n,) of a coordinate, (n, bins) of a profile."""
        columns = self._sums[:, self.grid.columns[name]]
        return columns if name.startswith("profile_") else columns[:, 0]

    def mean_of(self, name: str) -> FloatArray:
        """Energy-weighted mean of a coordinate, (n,); 0 for an empty shower."""
        return ratio(self.sums(name), self.visible_energy)

    def layer_moment(self, power: int) -> FloatArray:
        """Energy-weighted mean of the layer index to a power, (n,), counted from 0."""
        index = np.arange(self.grid.geometry.num_layers, dtype=np.float64) ** power
        return ratio(self.layer_energies @ index, self.visible_energy)


def apply_threshold(
    energies: npt.NDArray[np.float32], threshold: float
) -> npt.NDArray[np.float32]:
    """Set what lies below the threshold to 0; what equals it is kept (2410.21611)."""
    return np.where(energies >= np.float32(threshold), energies, np.float32(0))


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide; 0 where the denominator is 0 (empty showers count as 0, as in 2410.21611)."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def _profiles(geometry: Geometry) -> list[Profile]:
    names = dict.fromkeys(axis.name for layer in geometry.layers for axis in layer.axes)
    found = [_axis_profile(geometry, name) for name in names]
    return [*(profile for profile in found if profile is not None), _radial_profile(geometry)]


def _axis_profile(geometry: Geometry, name: str) -> Profile | None:
    """Bin voxels along a named axis, by the coarsest of its grids where layers differ.

    Layers with one cell along the axis cannot tell and are left out.
    """
    axes = [_axis_of(layer.axes, name) for layer in geometry.layers]
    telling = [axis for axis in axes if axis is not None and axis.num_cells > 1]
    if not telling:
        return None
    coarsest = min(telling, key=lambda axis: axis.num_cells)
    edges = np.asarray(coarsest.edges)
    bins = np.full(geometry.num_voxels, -1, dtype=np.int64)
    values = (geometry.axis_values(0), geometry.axis_values(1))
    for layer, axis, piece in zip(geometry.layers, axes, geometry.layer_slices, strict=True):
        if axis is not None and axis.num_cells > 1:
            centres = values[layer.axes.index(axis)][piece]
            bins[piece] = np.clip(
                np.searchsorted(edges, centres, side="right") - 1, 0, len(edges) - 2
            )
    return Profile(name, edges, coarsest.unit, bins)


def _axis_of(axes: tuple[Axis, Axis], name: str) -> Axis | None:
    return next((axis for axis in axes if axis.name == name), None)


def _radial_profile(geometry: Geometry) -> Profile:
    """Bin voxels by the distance of their centre from a polar grid's axis, else its middle."""
    x, y = geometry.cartesian_centres
    if not geometry.layers[0].is_polar:
        x, y = x - _middle(geometry, 0), y - _middle(geometry, 1)
    radius = np.hypot(x, y)
    radial = _axis_of(geometry.layers[0].axes, "r")
    if radial is not None and geometry.is_regular:
        edges = np.asarray(radial.edges)
    else:
        edges = _radial_edges(geometry, float(radius.max()))
    bins = np.clip(np.searchsorted(edges, radius, side="right") - 1, 0, len(edges) - 2)
    unit = "mm" if radial is not None else geometry.layers[0].axes[0].unit
    return Profile("radius", edges, unit, bins)


def _radial_edges(geometry: Geometry, largest: float) -> FloatArray:
    """Step by the coarser axis' narrowest cell; finer steps would show the grid instead."""
    narrowest = [
        min(float(np.diff(layer.axes[position].edges).min()) for layer in geometry.layers)
        for position in (0, 1)
        if geometry.layers[0].axes[position].unit == "mm" or not geometry.layers[0].is_polar
    ]
    step = max(*narrowest, largest / _MAX_RADIAL_BINS, np.finfo(float).tiny)
    num_bins = max(int(np.ceil(largest * (1 + 1e-9) / step)), 1)
    return np.asarray(step * np.arange(num_bins + 1), dtype=np.float64)


def _middle(geometry: Geometry, position: int) -> float:
    edges = [layer.axes[position].edges for layer in geometry.layers]
    return (min(edge[0] for edge in edges) + max(edge[-1] for edge in edges)) / 2
