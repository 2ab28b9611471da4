"""Showers from a parametrisation: for tests, demonstrations and load tests on any detector.

Grindhammer & Peters, arXiv:hep-ex/0001020: a shower is a gamma distribution in depth and two
radial components, with fluctuating parameters. No particle is followed through matter, and
everything that is written says so. `docs/simulator.md` has equations, constants and comparisons.
"""

from calo_train.showers.simulator.settings import SimulatorConfig, StackRegion

__all__ = ["SimulatorConfig", "StackRegion"]
