"""From a particle to what each layer gets: energy, spots, and the radii around the axis.

Everything here is along the shower's axis and knows layers by their depth alone; `deposits` puts
it into cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammainc, ndtri

from calo_train.errors import UsageError
from calo_train.showers.simulator.electromagnetic import (
    GammaProfile,
    draw_longitudinal,
    num_spots,
    radial_profile,
)
from calo_train.showers.simulator.hadronic import (
    H_OVER_E,
    SPOT_ENERGY,
    draw_hadronic,
    hadronic_radius,
)

if TYPE_CHECKING:
    from calo_train.geometry import Geometry
    from calo_train.showers.simulator.electromagnetic import FloatArray
    from calo_train.showers.simulator.materials import Medium
    from calo_train.showers.simulator.settings import SimulatorConfig

NUM_SHOWER_NUMBERS = 4  # two of the profile, the start, the share of neutral pions
_CONVERSION = 9 / 7  # X0; mean free path of a photon to its first pair
_FEWEST_SPOTS = 1e-9  # so that a layer without energy divides


@dataclass(frozen=True)
class LayerStack:
    """What lies behind each layer's cells, (layers,): lengths mm, depths X0 or lambda."""

    media: tuple[Medium, ...]
    medium_of_layer: tuple[int, ...]
    thicknesses: FloatArray

    @classmethod
    def of(cls, geometry: Geometry, config: SimulatorConfig) -> LayerStack:
        """Give each layer of a geometry its medium; UsageError where the two do not fit."""
        starts = [region.first_layer for region in config.regions]
        thicknesses = config.lengths or [layer.thickness for layer in geometry.layers]
        if len(thicknesses) != geometry.num_layers or starts[-1] >= geometry.num_layers:
            raise UsageError(
                f"a stack of {len(config.lengths)} layer lengths, with a region from layer "
                f"{starts[-1]} on, for {geometry.num_layers} layers",
                where="simulator.layer_lengths, simulator.regions",
                do=f"describe the layers of {geometry.describe()}",
            )
        layers = np.arange(geometry.num_layers)
        numbers = np.searchsorted(starts, layers, side="right") - 1
        return cls(config.media, tuple(numbers.tolist()), np.asarray(thicknesses))

    @property
    def leading(self) -> Medium:
        """The medium where showers begin: it decides their mean shape."""
        return self.media[0]

    @cached_property
    def radiation_depths(self) -> FloatArray:
        """Depth of each border between layers in X0, (layers + 1,)."""
        return self._depths("radiation_length")

    @cached_property
    def interaction_depths(self) -> FloatArray:
        """Depth of each border in interaction lengths, (layers + 1,)."""
        return self._depths("interaction_length")

    def values(self, name: str) -> FloatArray:
        """Give an attribute of the medium of each layer, (layers,)."""
        return np.asarray([getattr(self.media[index], name) for index in self.medium_of_layer])

    def _depths(self, name: str) -> FloatArray:
        return np.concatenate([[0.0], np.cumsum(self.thicknesses / self.values(name))])


@dataclass(frozen=True)
class AxisProfile:
    """What layers get, (n, layers), and radii (mm) with their shares, (n, layers, components).

    `energy` is what all matter of a layer absorbs, MeV; `spots` a mean number.
    """

    energy: FloatArray
    spots: FloatArray
    radius: FloatArray
    share: FloatArray


def draw_axis_profile(
    stack: LayerStack,
    config: SimulatorConfig,
    incident_energy: FloatArray,
    polar_angle: FloatArray,
    uniform: FloatArray,
) -> AxisProfile:
    """Draw showers of energies (n,) MeV at angles (n,) rad from numbers in (0, 1), (n, 4)."""
    if config.particle == "pion":
        return _pion(stack, config, incident_energy, polar_angle, uniform)
    start = np.zeros(len(incident_energy))
    if config.particle == "photon":
        start = -_CONVERSION * np.log(uniform[:, 2])
    return _shower(stack, config, incident_energy, polar_angle, start, uniform)


def _joined(parts: list[AxisProfile]) -> AxisProfile:
    """Give the sum of parts; a component's share is that of its part's energy."""
    energy = np.sum([part.energy for part in parts], axis=0)
    weights = [part.energy[..., None] * part.share for part in parts]
    share = np.concatenate(weights, axis=-1)
    total = energy[..., None]
    return AxisProfile(
        energy=energy,
        spots=np.sum([part.spots for part in parts], axis=0),
        radius=np.concatenate([part.radius for part in parts], axis=-1),
        share=np.divide(share, total, out=np.zeros_like(share), where=total > 0),
    )


def _shower(
    stack: LayerStack,
    config: SimulatorConfig,
    energy: FloatArray,
    polar_angle: FloatArray,
    start: FloatArray,
    uniform: FloatArray,
) -> AxisProfile:
    """An electron, or a photon that converts at `start` X0 along its path."""
    medium = stack.leading
    depths = stack.radiation_depths / np.cos(polar_angle)[:, None] - start[:, None]
    profile = draw_longitudinal(medium, energy, ndtri(uniform[:, :2]))
    radius, share = _radii(stack, energy, profile.relative_depth(_middles(depths)))
    number = num_spots(medium, energy, config.sampling_resolution)
    return AxisProfile(
        energy[:, None] * _by_layer(profile.energy, depths),
        number[:, None] * _by_layer(profile.spots, depths),
        radius,
        share,
    )


def _pion(
    stack: LayerStack,
    config: SimulatorConfig,
    energy: FloatArray,
    polar_angle: FloatArray,
    uniform: FloatArray,
) -> AxisProfile:
    """A pion that interacts after an exponential path: a part in X0 and one in lambda."""
    drawn = draw_hadronic(energy, uniform[:, 3])
    paths = stack.interaction_depths / np.cos(polar_angle)[:, None]
    start = -np.log(uniform[:, 2])
    start_x0 = _interpolated(start, paths, stack.radiation_depths) / np.cos(polar_angle)
    depths = stack.radiation_depths / np.cos(polar_angle)[:, None] - start_x0[:, None]
    neutral = drawn.electromagnetic_share * energy
    profile = _gamma_profile(drawn.electromagnetic_shape, drawn.electromagnetic_rate)
    tau = _middles(depths) / profile.depth[:, None]
    radius, share = _radii(stack, np.maximum(neutral, 1.0), tau)
    shares = _by_layer(profile, depths)
    number = num_spots(stack.leading, neutral, config.sampling_resolution)
    light = AxisProfile(neutral[:, None] * shares, number[:, None] * shares, radius, share)

    behind = paths - start[:, None]
    profile = _gamma_profile(drawn.hadronic_shape, drawn.hadronic_rate)
    hadronic = (energy - neutral)[:, None] * _by_layer(profile, behind)
    wide = hadronic_radius(energy, _middles(behind)) * stack.values("interaction_length")
    seen = H_OVER_E * hadronic
    heavy = AxisProfile(seen, hadronic / SPOT_ENERGY, wide[..., None], np.ones((*wide.shape, 1)))
    return _joined([light, heavy])


def _gamma_profile(shape: FloatArray, rate: FloatArray) -> GammaProfile:
    # A shape below 1 has no maximum; its distribution is still given by shape and rate.
    return _RatedProfile(depth=np.maximum(shape - 1, 0.1) / rate, shape=shape, given_rate=rate)


@dataclass(frozen=True)
class _RatedProfile(GammaProfile):
    given_rate: FloatArray

    @property
    def rate(self) -> FloatArray:
        return self.given_rate


def _by_layer(profile: GammaProfile, depths: FloatArray) -> FloatArray:
    """Integrate a profile between borders (n, layers + 1) behind its start, to (n, layers)."""
    reached = np.maximum(depths, 0.0) * profile.rate[:, None]
    shares: FloatArray = np.diff(gammainc(profile.shape[:, None], reached), axis=1)
    return shares


def _radii(
    stack: LayerStack, energy: FloatArray, tau: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Core and tail in mm and their shares, (n, layers, 2)."""
    radial = radial_profile(stack.leading, energy, np.maximum(tau, 0.0))
    radius = np.stack([radial.core, radial.tail], axis=-1)
    radius *= stack.values("moliere_radius")[:, None]
    return radius, np.stack([radial.core_share, 1 - radial.core_share], axis=-1)


def _middles(depths: FloatArray) -> FloatArray:
    """Give the middle of what lies behind the start in each layer, (n, layers)."""
    reached = np.maximum(depths, 0.0)
    middles: FloatArray = (reached[:, 1:] + reached[:, :-1]) / 2
    return middles


def _interpolated(path: FloatArray, paths: FloatArray, values: FloatArray) -> FloatArray:
    """Give `values` (layers + 1,) at `path` (n,) on ladders `paths` (n, layers + 1)."""
    scale = paths[:, -1]
    return np.where(
        path < scale, np.interp(path / scale, paths[0] / scale[0], values), values[-1] + 1e3
    )
