"""From layers to cells: sampling fluctuations, spots, and shares of each cell.

hep-ex/0001020 throws N spots of equal energy around the axis. The counts of spots in cells are
then Poisson with the means N p, p the share of a cell; drawing the counts is the same law at a
price that does not grow with energy. Departures: counts are not conditioned on their sum, and the
energy of a spot is a gamma number, so that single spots do not stand on a comb of equal deposits.
Its width is such that all spots together fluctuate by the sampling resolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calo_train.kernels.noise import (
    SIMULATED_DEPOSITS,
    SIMULATED_LAYERS,
    SIMULATED_SHOWERS,
    SIMULATED_SPOTS,
    many_uniforms,
    normals,
    uniforms,
)
from calo_train.quantities import MEV_PER_GEV
from calo_train.showers.simulator.axis_profile import (
    NUM_SHOWER_NUMBERS,
    LayerStack,
    draw_axis_profile,
)
from calo_train.showers.simulator.cells import ShareTable, cell_shares, grid_groups, impact_point
from calo_train.showers.simulator.fluctuations import (
    gamma_from_normals,
    gamma_numbers,
    poisson_counts,
)

if TYPE_CHECKING:
    from calo_train.geometry import Geometry
    from calo_train.showers.simulator.axis_profile import AxisProfile
    from calo_train.showers.simulator.cells import FloatArray, GridGroup
    from calo_train.showers.simulator.settings import SimulatorConfig

_FEWEST_SPOTS = 1e-12  # so that a layer that no shower reaches divides
_LARGEST_TABLES = 30_000  # cells, at 3 KiB each
_LARGEST_SPOT_SHAPE = 4.0  # spots of more equal energies would stand on a comb


class DepositSimulator:
    """Showers of one detector and one kind of particle."""

    def __init__(self, geometry: Geometry, config: SimulatorConfig) -> None:
        self.geometry = geometry
        self.config = config
        self.stack = LayerStack.of(geometry, config)
        self._response = _responses(self.stack, config)
        self._groups = grid_groups(geometry)
        self._impact = impact_point(geometry)
        law = config.polar_angles
        # Showers of one direction share their axis, and so tables of shares where these are small.
        is_one_direction = law is None or law.low == law.high
        num_cells = geometry.num_voxels if law else sum(g.layer.num_voxels for g in self._groups)
        is_small = num_cells <= _LARGEST_TABLES
        self._tables = self._tabulate() if is_one_direction and is_small else None

    def energies(
        self, first: int, incident_energy: FloatArray, polar_angle: FloatArray
    ) -> FloatArray:
        """Give deposits (n, voxels) MeV of showers `first` on, of energies and angles (n,)."""
        seed, count = self.config.seed, len(incident_energy)
        layers, voxels = self.geometry.num_layers, self.geometry.num_voxels
        numbers = uniforms(seed, first, count, NUM_SHOWER_NUMBERS, purpose=SIMULATED_SHOWERS)
        profile = draw_axis_profile(self.stack, self.config, incident_energy, polar_angle, numbers)
        numbers = uniforms(seed, first, count, 2 * layers, purpose=SIMULATED_LAYERS)
        energy = self._sampled(profile, numbers[:, :layers])
        expected = self._expected_spots(profile, polar_angle)
        outside = poisson_counts(
            numbers[:, layers:], np.maximum(profile.spots - self._layer_sums(expected), 0.0)
        ).reshape(count, layers)
        counts = poisson_counts(
            many_uniforms(seed, first, count, voxels, purpose=SIMULATED_SPOTS), expected
        )
        weights = self._weights(
            counts, normals(seed, first, count, voxels, purpose=SIMULATED_DEPOSITS)
        )
        total = self._layer_sums(weights) + outside
        scale = np.divide(energy, total, out=np.zeros_like(energy), where=total > 0)
        weights *= scale[:, self.geometry.layer_of_voxel]
        return weights

    def _sampled(self, profile: AxisProfile, uniform: FloatArray) -> FloatArray:
        """Let the energy of each layer fluctuate: a gamma of the variance c^2 E.

        A layer is empty where no spot falls, so its mean is divided by the probability of any.
        """
        any_spot = -np.expm1(-np.maximum(profile.spots, _FEWEST_SPOTS))
        resolution = self.config.sampling_resolution
        absorbed = profile.energy / any_spot
        if resolution == 0:
            return absorbed * self._response
        # Thicker absorbers are sampled more rarely: the variance grows with their depth.
        depth = self.stack.values("sampling_length") / self.stack.leading.sampling_length
        shape = absorbed / MEV_PER_GEV / (resolution**2 * depth)
        return absorbed * self._response * gamma_numbers(uniform, shape)

    def _expected_spots(self, profile: AxisProfile, polar_angle: FloatArray) -> FloatArray:
        """Give the mean number of spots in each cell, (n, voxels)."""
        expected = np.empty((len(polar_angle), self.geometry.num_voxels))
        weights = profile.share * profile.spots[..., None]
        for number, group in enumerate(self._groups):
            radius, weight = profile.radius[:, group.layer_index], weights[:, group.layer_index]
            if self._tables is None:
                shares = self._exact(group, radius, weight, polar_angle)
            else:
                shares = self._tabulated(number, radius, weight)
            expected[:, group.voxels] = shares.reshape(len(shares), -1)
        return expected

    def _exact(
        self, group: GridGroup, radius: FloatArray, weight: FloatArray, polar_angle: FloatArray
    ) -> FloatArray:
        x = self._impact[0] + self._path(group) * np.tan(polar_angle)[:, None]
        y = np.full_like(x, self._impact[1])
        found = np.zeros((*x.shape, group.layer.num_voxels))
        for k in range(radius.shape[-1]):
            found += weight[..., k, None] * cell_shares(group.layer, radius[..., k], x, y)
        return found

    def _tabulated(self, number: int, radius: FloatArray, weight: FloatArray) -> FloatArray:
        assert self._tables is not None
        tables = self._tables[number]
        if len(tables) == 1:
            components = radius.shape[-1]
            mixed = tables[0].mixed(radius.reshape(-1, components), weight.reshape(-1, components))
            return mixed.reshape(len(radius), -1)
        layers = [table.mixed(radius[:, i], weight[:, i]) for i, table in enumerate(tables)]
        return np.stack(layers, axis=1)

    def _tabulate(self) -> list[list[ShareTable]]:
        """Tables of every grid group: one where all its layers see the axis at one place."""
        law = self.config.polar_angles
        slope = 0.0 if law is None else np.tan(law.low)
        tables = []
        for group in self._groups:
            places = np.unique(self._impact[0] + slope * self._path(group)).tolist()
            tables.append([ShareTable.of(group.layer, x, self._impact[1]) for x in places])
        return tables

    def _path(self, group: GridGroup) -> FloatArray:
        """Depth of the middle of each layer of a group behind the front face, mm."""
        ends = np.cumsum(self.stack.thicknesses)
        return (ends - self.stack.thicknesses / 2)[group.layer_index]

    def _weights(self, counts: FloatArray, normal: FloatArray) -> FloatArray:
        """Give the energy of so many spots in units of a spot's mean, (n, voxels)."""
        hit = np.flatnonzero(counts)
        shape = counts[hit] * self._spot_shape
        weights = np.zeros(len(counts))
        weights[hit] = counts[hit] * gamma_from_normals(normal.ravel()[hit], shape)
        return weights.reshape(normal.shape)

    @property
    def _spot_shape(self) -> float:
        """Shape k of one spot's energy: (1 + 1/k)/N = c^2/E at 1 GeV, N = 10.3/c."""
        excess = 10.3 * self.config.sampling_resolution - 1
        return min(1 / excess, _LARGEST_SPOT_SHAPE) if excess > 0 else _LARGEST_SPOT_SHAPE

    def _layer_sums(self, values: FloatArray) -> FloatArray:
        starts = [piece.start for piece in self.geometry.layer_slices]
        sums: FloatArray = np.add.reduceat(values, starts, axis=1)
        return sums


def _responses(stack: LayerStack, config: SimulatorConfig) -> FloatArray:
    """Give the visible share of what a layer absorbs, (layers,): active share, e/mip, scale."""
    ratios = stack.values("response_ratio")
    if config.e_over_mip is not None:
        ratios = np.full_like(ratios, config.e_over_mip)
    active = stack.values("active_share")
    # Where everything is read out there is nothing to share out.
    responses: FloatArray = active * np.where(active == 1, 1.0, ratios) * config.readout_scale
    return responses
