"""Longitudinal and radial profiles of electromagnetic showers.

Grindhammer & Peters, arXiv:hep-ex/0001020: Sec. 2 for homogeneous media, Sec. 3 for sampling
calorimeters; the constants are those of its Appendix A, compared with the released tables of
Geant4 11 (GVFlashHomoShowerTuning.hh, GFlashSamplingShowerTuning.hh). Depths are in X0, radii in
Moliere radii, y = E/E_c; T is the depth of the maximum, alpha the shape of the gamma distribution.
Departures: none in the constants; means are kept above small limits as Geant4 does, since the
logarithms are fits from 1 GeV on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from calo_train.showers.simulator.materials import Medium

FloatArray = npt.NDArray[np.float64]

_SMALLEST_MEAN = 0.1  # of ln T and of what logarithms are taken of
_LARGEST_WIDTH = 0.5  # of ln T and ln alpha
_SMALLEST_DEPTH = 1.0  # X0; of a maximum
_SMALLEST_SHAPE = 1.1  # so that there is a maximum
_SMALLEST_RADIUS = 0.005  # Moliere radii
_SMALLEST_SPOT_DEPTH = 0.5


@dataclass(frozen=True)
class GammaProfile:
    """A gamma distribution in depth for each shower: maximum at `depth` X0, shape (n,)."""

    depth: FloatArray
    shape: FloatArray

    @property
    def rate(self) -> FloatArray:
        """beta = (alpha - 1)/T, in 1/X0."""
        rate: FloatArray = (self.shape - 1) / self.depth
        return rate


@dataclass(frozen=True)
class Longitudinal:
    """Depth profiles of energy and of spots, and the mean shape that radial profiles refer to."""

    energy: GammaProfile
    spots: GammaProfile
    mean_shape: FloatArray

    def relative_depth(self, depth: FloatArray) -> FloatArray:
        """Give tau for depths (n, layers) behind the start: 1 at the maximum."""
        shape, mean = self.energy.shape, self.mean_shape
        scale = (shape - 1) / shape * mean / (mean - 1) / self.energy.depth
        tau: FloatArray = depth * scale[:, None]
        return tau


def draw_longitudinal(
    medium: Medium, incident_energy: FloatArray, noise: FloatArray
) -> Longitudinal:
    """Draw depth profiles at energies (n,) MeV from standard normal numbers (n, 2).

    The same two numbers move the energies and the spots of a shower, whose profiles come from
    the homogeneous means.
    """
    log_y = np.log(np.maximum(incident_energy / medium.critical_energy, 2.0))
    charge, sampling, passive = (
        medium.atomic_number,
        medium.sampling_length,
        1 - medium.response_ratio,
    )
    depth = np.maximum(log_y - 0.812, _SMALLEST_MEAN)
    shape = np.maximum(0.81 + (0.458 + 2.26 / charge) * log_y, _SMALLEST_MEAN)
    homogeneous = _drawn(depth, shape, _homogeneous_widths(log_y), noise)
    if medium.is_homogeneous:
        energy, mean_shape = homogeneous, shape
        factors = (0.698 + 0.00212 * charge, 0.639 + 0.00334 * charge)
    else:
        sampled = np.maximum(depth - 0.55 * sampling - 0.69 * passive, np.exp(_SMALLEST_MEAN))
        mean_shape = np.maximum(shape - 0.476 * sampling, np.exp(_SMALLEST_MEAN))
        energy = _drawn(sampled, mean_shape, _sampling_widths(log_y), noise)
        factors = (0.813 + 0.0019 * charge, 0.844 + 0.0026 * charge)
    spots = GammaProfile(
        np.maximum(homogeneous.depth * factors[0], _SMALLEST_SPOT_DEPTH),
        np.maximum(homogeneous.shape * factors[1], _SMALLEST_SHAPE),
    )
    return Longitudinal(energy, spots, np.maximum(mean_shape, _SMALLEST_SHAPE))


def num_spots(medium: Medium, energy: FloatArray, sampling_resolution: float) -> FloatArray:
    """Give the mean number of spots of showers of energies MeV.

    A detector that reads out all of a stack takes the number of homogeneous media.
    """
    energy_gev = energy / 1e3
    if medium.is_homogeneous or sampling_resolution == 0:
        homogeneous: FloatArray = 93 * np.log(medium.atomic_number) * energy_gev**0.876
        return homogeneous
    sampling: FloatArray = 10.3 / sampling_resolution * energy_gev**0.959
    return sampling


@dataclass(frozen=True)
class RadialProfile:
    """Core and tail, f(r) = 2 r R^2/(r^2 + R^2)^2 each: radii in R_M and the share of the core."""

    core: FloatArray
    tail: FloatArray
    core_share: FloatArray


def radial_profile(medium: Medium, energy: FloatArray, tau: FloatArray) -> RadialProfile:
    """Give the radial profile at relative depths tau (n, layers) of energies (n,) MeV."""
    log_energy = np.log(energy / 1e3)[:, None]
    charge, sampling, passive = (
        medium.atomic_number,
        medium.sampling_length,
        1 - medium.response_ratio,
    )
    core = 0.0251 + 0.00319 * log_energy + (0.1162 - 0.000381 * charge) * tau
    k1, k4 = 0.659 - 0.00309 * charge, 0.3585 + 0.0412 * log_energy
    tail = k1 * (np.exp(-2.59 * (tau - 0.645)) + np.exp(k4 * (tau - 0.645)))
    ratio = (0.401 + 0.00187 * charge - tau) / (1.313 - 0.0686 * log_energy)
    share = (2.632 - 0.00094 * charge) * np.exp(ratio - np.exp(ratio))
    core = core - 0.0203 * passive + 0.0397 * sampling * np.exp(-tau)
    tail = tail - 0.14 * passive - 0.495 * sampling * np.exp(-tau)
    share = share + passive * (0.348 - 0.642 * sampling * np.exp(-((tau - 1) ** 2)))
    return RadialProfile(
        np.maximum(core, _SMALLEST_RADIUS),
        np.maximum(tail, _SMALLEST_RADIUS),
        np.clip(share, 0.0, 1.0),
    )


def _homogeneous_widths(log_y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Widths of ln T and ln alpha and their correlation."""
    return (
        _width(-1.4 + 1.26 * log_y),
        _width(-0.58 + 0.86 * log_y),
        np.clip(0.705 - 0.023 * log_y, -1, 1),
    )


def _sampling_widths(log_y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Widths of ln T and ln alpha and their correlation."""
    return (
        _width(-2.5 + 1.25 * log_y),
        _width(-0.82 + 0.79 * log_y),
        np.clip(0.784 - 0.023 * log_y, -1, 1),
    )


def _width(inverse: FloatArray) -> FloatArray:
    # The fit is of large y; near its pole, below about 50 MeV, the width is its limit.
    width: FloatArray = 1 / np.maximum(inverse, 1 / _LARGEST_WIDTH)
    return width


def _drawn(
    depth: FloatArray,
    shape: FloatArray,
    widths: tuple[FloatArray, FloatArray, FloatArray],
    noise: FloatArray,
) -> GammaProfile:
    """Draw ln T and ln alpha around ln of their means with correlation rho."""
    depth_width, shape_width, correlation = widths
    common = np.sqrt((1 + correlation) / 2) * noise[:, 0]
    apart = np.sqrt((1 - correlation) / 2) * noise[:, 1]
    return GammaProfile(
        np.maximum(depth * np.exp(depth_width * (common + apart)), _SMALLEST_DEPTH),
        np.maximum(shape * np.exp(shape_width * (common - apart)), _SMALLEST_SHAPE),
    )
