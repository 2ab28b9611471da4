"""Simulator settings for small detectors, and showers of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calo_train.cli.inputs import named_dataset
from calo_train.quantities import Spectrum
from calo_train.showers.dataset import simulated_showers
from calo_train.showers.simulator import SimulatorConfig, StackRegion
from calo_train.showers.simulator.simulated import SimulatedShowers

if TYPE_CHECKING:
    from calo_train.geometry import Geometry
    from calo_train.showers.showers import Showers

TUNGSTEN_SILICON = (
    {"material": "W", "thickness": "2mm"},
    {"material": "Si", "thickness": "0.5mm", "active": True},
)


def stack(**values: Any) -> SimulatorConfig:
    """Tungsten and silicon in every layer."""
    given = {"sampling_resolution": 0.15, "particle": "electron"} | values
    return SimulatorConfig([StackRegion(0, list(TUNGSTEN_SILICON))], **given)


def simulated(
    geometry: Geometry, number: int, *, energy: float = 1e4, **values: Any
) -> SimulatedShowers:
    """Showers of one energy on a detector whose layers are 1 to 2 X0 deep."""
    lengths = [f"{6 * (1 + index % 2)}mm" for index in range(geometry.num_layers)]
    config = stack(**({"layer_lengths": lengths} | values))
    return SimulatedShowers(geometry, config, Spectrum(energy, energy), number)


def known(dataset: str, energies: str, number: int, **beam: str) -> Showers:
    """Showers of a data set of conf/dataset."""
    values = {f"simulator.{name}": value for name, value in beam.items()}
    rows = simulated_showers(named_dataset(dataset, values | {"energy_range": energies}), number)
    return rows.read(0, number, rows.detector)


def by_layer(showers: Showers) -> npt.NDArray[np.float64]:
    """Sum deposits to (n, layers)."""
    pieces = [showers.energies[:, piece].sum(axis=1) for piece in showers.geometry.layer_slices]
    return np.stack(pieces, axis=1).astype(np.float64)
