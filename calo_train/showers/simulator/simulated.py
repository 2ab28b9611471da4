"""Simulated showers as rows that nobody stored: made when they are read, the same every time.

Shower k is a function of the settings, the law of its conditions, the seed and k. So it is the
same whatever is read beside it, and a training may read its rows in any order and as often as it
likes without a file.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calo_train import __version__
from calo_train.errors import UsageError
from calo_train.geometry.sources import geometry_to_mapping
from calo_train.kernels.noise import CONDITIONS, uniforms
from calo_train.showers.layouts.native import Native
from calo_train.showers.layouts.rows import ShowerRows
from calo_train.showers.showers import Showers
from calo_train.showers.simulator.deposits import DepositSimulator
from calo_train.showers.simulator.origin import GENERATOR, SIMULATION_NOTE

if TYPE_CHECKING:
    from calo_train.geometry import Geometry
    from calo_train.quantities import Spectrum
    from calo_train.showers.showers import FloatArray
    from calo_train.showers.simulator.settings import SimulatorConfig

_REVISION = 1  # of the showers: raised whenever a change of the program changes them
_BLOCK_BYTES = 1 << 20  # of one float64 array over voxels; a few of these lie in a CPU's cache
_CHUNK_ROWS = 64


class SimulatedShowers(ShowerRows):
    """So many showers of one detector and one kind of particle, computed when read."""

    def __init__(
        self, geometry: Geometry, config: SimulatorConfig, energies: Spectrum, num_showers: int
    ) -> None:
        if num_showers < 1:
            raise UsageError(
                f"{num_showers} showers are to be simulated",
                where="dataset.n_showers or -n",
                do="ask for one or more, such as dataset.n_showers=10000",
            )
        if not energies.low > 0:
            raise UsageError(
                "incident energies are not above zero",
                where="dataset.energy_range or --energy",
                do="give energies above zero, such as 10:100GeV",
            )
        self._simulator = DepositSimulator(geometry, config)
        self._laws = {"incident_energy": energies}
        if config.polar_angles is not None:
            self._laws["polar_angle"] = config.polar_angles
        self.path = Path(f"simulated_{config.particle}s")
        self.layout = "simulated"
        self.columns = Native().plan(geometry, list(self._laws))
        self.num_showers = num_showers
        self.mantissa_bits = 0
        self.attributes: dict[str, Any] = {
            "generator": GENERATOR,
            "particle": config.particle,
            "simulation": self.recipe,
            "notes": SIMULATION_NOTE,
            "written_by": f"calo-train {__version__}",
        }

    @property
    def recipe(self) -> str:
        """Settings, laws and seed as JSON text; equal where the showers are."""
        laws = {name: asdict(law) for name, law in self._laws.items()}
        config = asdict(self._simulator.config)
        edges = json.dumps(geometry_to_mapping(self.detector), sort_keys=True)
        # Edges of large detectors do not fit into an attribute of a file.
        geometry = {"name": self.detector.name, "sha256": sha256(edges.encode()).hexdigest()}
        stated = {"revision": _REVISION, "laws": laws, "simulator": config, "geometry": geometry}
        return json.dumps(stated | {"num_showers": self.num_showers}, sort_keys=True)

    @property
    def detector(self) -> Geometry:
        """The geometry that showers are simulated on."""
        return self._simulator.geometry

    @property
    def storage_words(self) -> str:
        return "nowhere: computed when read"

    @property
    def chunk_rows(self) -> int:
        return min(_CHUNK_ROWS, self.num_showers)

    @property
    def stored_type(self) -> str:
        return "float32"

    def read(self, start: int, stop: int, geometry: Geometry) -> Showers:
        """Simulate rows [start, stop), a block at a time so that memory stays bounded."""
        conditions = self.read_conditions(start, stop)
        incident = conditions["incident_energy"].astype(np.float64)
        angle = conditions.get("polar_angle", np.zeros(stop - start)).astype(np.float64)
        energies = np.empty((stop - start, self.num_voxels), np.float32)
        step = max(_BLOCK_BYTES // (8 * self.num_voxels), 1)
        for first in range(0, stop - start, step):
            rows = slice(first, first + step)
            energies[rows] = self._simulator.energies(start + first, incident[rows], angle[rows])
        return Showers(energies, conditions, geometry)

    def read_conditions(self, start: int, stop: int) -> dict[str, FloatArray]:
        """Draw the conditions of rows [start, stop), rounded to what files store."""
        seed, names = self._simulator.config.seed, list(self._laws)
        uniform = uniforms(seed, start, stop - start, len(names), purpose=CONDITIONS)
        return {
            name: self._laws[name].quantiles(uniform[:, column]).astype(np.float32)
            for column, name in enumerate(names)
        }

    def close(self) -> None:
        """Nothing is open."""
