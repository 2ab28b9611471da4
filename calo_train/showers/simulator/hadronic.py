"""A simple hadronic shower: a start, a share of neutral pions, two gamma distributions in depth.

Grindhammer, Rudowicz & Peters, SLAC-PUB-5072 (NIM A290 (1990) 469), with the constants that the
fast simulation of CMS uses for it (HDShowerParametrization.h): the energy behind the first
interaction is a part in X0 (neutral pions) and a part in interaction lengths. Departures: the
share of neutral pions fluctuates as a beta distribution, the hadronic part is seen with h/e, and
the track before the first interaction leaves nothing. Not here: recoils, neutrons, times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaincinv

if TYPE_CHECKING:
    from calo_train.showers.simulator.electromagnetic import FloatArray

# Typical of lead and tungsten with thin readout, and of the electromagnetic share in lead and iron
# (Wigmans, Calorimetry, Oxford 2000); one value each for every detector.
H_OVER_E = 0.7  # response to the hadronic part
_SHARE_WIDTH = 0.2  # rms of the electromagnetic share
SPOT_ENERGY = 200.0  # MeV of hadronic energy; eHDspot in HDRShower.cc of the CMS fast simulation
_LOW, _MIDDLE, _HIGH = 2.0, 10.0, 500.0  # GeV; range of the fits, and where the two meet


@dataclass(frozen=True)
class HadronicProfile:
    """Shares and gamma distributions of the two parts, (n,); rates in 1/X0 and 1/lambda."""

    electromagnetic_share: FloatArray
    electromagnetic_shape: FloatArray
    electromagnetic_rate: FloatArray
    hadronic_shape: FloatArray
    hadronic_rate: FloatArray


def draw_hadronic(incident_energy: FloatArray, uniform: FloatArray) -> HadronicProfile:
    """Draw the parts of pions of energies (n,) MeV from numbers in (0, 1), (n,).

    The shapes depend on the logarithm of the deposited energy, (0.35 + 0.09 ln E) E of E in GeV.
    """
    energy_gev = np.clip(incident_energy / 1e3, _LOW, _HIGH)
    log_deposit = np.log((0.35 + 0.09 * np.log(energy_gev)) * energy_gev)
    is_low = energy_gev < _MIDDLE

    def fitted(low: tuple[float, float], high: tuple[float, float]) -> FloatArray:
        return np.where(is_low, low[0] + low[1] * log_deposit, high[0] + high[1] * log_deposit)

    mean = np.clip(fitted((0.751, -0.177), (0.509, -0.021)), 0.05, 0.95)
    # A beta distribution of this mean and width; narrower where the mean is near an end.
    width = np.minimum(_SHARE_WIDTH, 0.5 * np.sqrt(mean * (1 - mean)))
    concentration = mean * (1 - mean) / width**2 - 1
    return HadronicProfile(
        betaincinv(mean * concentration, (1 - mean) * concentration, uniform),
        fitted((1.08, 0.24), (1.30, 0.255)),
        fitted((0.478, -0.135), (0.289, -0.010)),
        fitted((1.17, 0.21), (0.38, 0.23)),
        fitted((2.10, -0.72), (0.83, -0.049)),
    )


def hadronic_radius(incident_energy: FloatArray, depth: FloatArray) -> FloatArray:
    """Give R of the hadronic part in interaction lengths at depths (n, layers) behind the start.

    R1 + (R2 - R3 ln E) z with f(r) = 2 r R^2/(r^2 + R^2)^2; E in GeV, up to where it was fitted.
    """
    energy_gev = np.clip(incident_energy / 1e3, _LOW, _HIGH)[:, None]
    radius: FloatArray = 0.0124 + (0.359 - 0.0511 * np.log(energy_gev)) * depth
    return radius
