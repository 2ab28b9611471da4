"""A block of thresholded showers with the sums that observables share.

Everything comes from the Geometry. Sums over layers are made in one sweep; profiles are sums of
the lateral cells that layers of equal grid share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from calo_train.evaluation.layer_plan import Energies, FloatArray, IndexArray, LayerPlan
from calo_train.evaluation.layer_sums import LayerSums, Sweep, sweep
from calo_train.evaluation.lazily import lazily

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calo_train.evaluation.spectrum import Counts, SpectrumBins
    from calo_train.geometry import Axis, Geometry

__all__ = [
    "Deposits", "Energies", "FloatArray", "Grid", "IndexArray", "Profile", "apply_threshold",
    "ratio",
]  # fmt: skip

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
    """What observables need of a geometry, computed once.

    `weights` (lateral cells, bins of all profiles) are those that the sums of profiles take.
    """

    geometry: Geometry
    plan: LayerPlan
    profiles: Mapping[str, Profile]  # by axis name, and `radius`
    weights: FloatArray

    @classmethod
    def of(cls, geometry: Geometry) -> Self:
        """Prepare the coordinates and weights of a geometry."""
        plan = LayerPlan.of(geometry)
        profiles = {profile.name: profile for profile in _profiles(geometry)}
        weights = [
            np.equal.outer(profile.bin_of_voxel[plan.voxel_of_cell], np.arange(profile.num_bins))
            for profile in profiles.values()
        ]
        return cls(geometry, plan, profiles, np.concatenate(weights, axis=1, dtype=np.float64))

    @property
    def transverse_names(self) -> tuple[str, str]:
        """Names of the coordinates behind `x` and `y`: the axes' own, but x, y of a polar grid."""
        first, second = self.geometry.layers[0].axes
        return ("x", "y") if self.is_polar else (first.name, second.name)

    @property
    def is_polar(self) -> bool:
        return self.geometry.layers[0].is_polar


@dataclass(frozen=True, eq=False)
class Deposits:
    """Showers of a block: energies (n, voxels) float32 MeV, read through a threshold.

    Those with NaN, infinite or negative energies are told apart by `swept`, and empty else.
    """

    raw_energies: Energies
    incident_energy: FloatArray
    threshold: float
    grid: Grid
    spectrum: SpectrumBins

    def __len__(self) -> int:
        return len(self.raw_energies)

    @lazily
    def energies(self) -> Energies:
        """Energies (n, voxels) after the threshold; 0 in invalid showers."""
        kept = apply_threshold(self.raw_energies, self.threshold)
        kept[~self.swept.is_valid] = 0
        return kept

    @lazily
    def swept(self) -> Sweep:
        """All that one sweep over the voxels gives."""
        return sweep(self.grid.plan, self.raw_energies, self.threshold, self.spectrum)

    @property
    def layers(self) -> LayerSums:
        """Sums of each layer."""
        return self.swept.layers

    @property
    def spectrum_counts(self) -> Counts:
        """Voxels a shower in the bins of the cell spectrum, the last column outside."""
        return self.spectrum.folded(self.swept.counts)

    @property
    def layer_energies(self) -> FloatArray:
        """Energy of each layer, (n, layers)."""
        return self.layers.energy

    @lazily
    def visible_energy(self) -> FloatArray:
        """Energy of each shower, (n,)."""
        total: FloatArray = self.layer_energies.sum(axis=1)
        return total

    def per_layer_energy(self, values: FloatArray, *, otherwise: float = 0.0) -> FloatArray:
        """Divide values of layers (n, layers) by their energies; `otherwise` where empty."""
        return values / (self._nan_for_empty if otherwise else self._infinite_for_empty)

    def layer_means(self, coordinate: str) -> FloatArray:
        """Energy-weighted mean of a coordinate in each layer, (n, layers); 0 for an empty one."""
        return self._layer_moments[coordinate][0]

    def layer_variances(self, coordinate: str) -> FloatArray:
        """Energy-weighted variance of a coordinate in each layer, (n, layers)."""
        return self._layer_moments[coordinate][1]

    def unbiased_layer_variances(self, coordinate: str) -> FloatArray:
        """Variances times M / (M - 1) for M hits, (n, layers); NaN for M below 2."""
        return self.layer_variances(coordinate) * self._bessel

    def layer_steps(self, coordinate: str) -> FloatArray:
        """From the mean of a layer to that of the next, (n, layers - 1); NaN if one is empty."""
        return self._layer_steps[coordinate]

    @lazily
    def _infinite_for_empty(self) -> FloatArray:
        return divisor(self.layer_energies)

    @lazily
    def _nan_for_empty(self) -> FloatArray:
        return divisor(self.layer_energies, otherwise=np.nan)

    @lazily
    def _layer_moments(self) -> dict[str, tuple[FloatArray, FloatArray]]:
        sums, found = self.layers, {}
        for name, first, second in zip(sums.names, sums.first, sums.second, strict=True):
            mean = self.per_layer_energy(first)
            variance = self.per_layer_energy(second)
            variance -= mean**2
            # Rounding can leave a layer of one cell slightly below zero.
            found[name] = mean, np.maximum(variance, 0.0, out=variance)
        return found

    @lazily
    def _bessel(self) -> FloatArray:
        hits = self.layers.hits
        return ratio(hits, np.maximum(hits - 1, 0), otherwise=np.nan)

    @lazily
    def _layer_steps(self) -> dict[str, FloatArray]:
        firsts = dict(zip(self.layers.names, self.layers.first, strict=True))
        return {
            name: np.diff(self.per_layer_energy(firsts[name], otherwise=np.nan), axis=1)
            for name in ("x", "y")
        }

    def profile(self, name: str) -> FloatArray:
        """Energies in the bins of a profile, (n, bins)."""
        return self._profiles[name]

    @lazily
    def _profiles(self) -> dict[str, FloatArray]:
        # One product of all weights: the cells are read once.
        ends = np.cumsum([profile.num_bins for profile in self.grid.profiles.values()])
        energies = np.split(self.layers.lateral @ self.grid.weights, ends[:-1], axis=1)
        return dict(zip(self.grid.profiles, energies, strict=True))

    def mean_of(self, coordinate: str, power: int = 1) -> FloatArray:
        """Energy-weighted mean of a coordinate's power 1 or 2, (n,); 0 for an empty shower."""
        sums = self.layers.first if power == 1 else self.layers.second
        total = sums[self.layers.names.index(coordinate)].sum(axis=1)
        return ratio(total, self.visible_energy)

    def layer_moment(self, power: int) -> FloatArray:
        """Energy-weighted mean of the layer index to a power, (n,), counted from 0."""
        index = np.arange(self.grid.geometry.num_layers, dtype=np.float64) ** power
        return ratio(self.layer_energies @ index, self.visible_energy)


def apply_threshold(energies: Energies, threshold: float) -> Energies:
    """Set what lies below the threshold to 0; what equals it is kept (2410.21611)."""
    return np.where(energies >= np.float32(threshold), energies, np.float32(0))


def ratio(numerator: FloatArray, denominator: FloatArray, *, otherwise: float = 0.0) -> FloatArray:
    """Divide; `otherwise` where the denominator is 0 (0 for what is empty, as in 2410.21611)."""
    return numerator / divisor(denominator, otherwise=otherwise)


def divisor(denominator: FloatArray, *, otherwise: float = 0.0) -> FloatArray:
    """Give what to divide by, so that the quotient is 0 or NaN where the denominator is 0."""
    # Anything over infinity is 0, over NaN it is NaN: quicker than dividing under a mask.
    return np.where(denominator != 0, denominator, np.nan if otherwise else np.inf)


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
