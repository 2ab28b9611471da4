"""The door from a `dataset` config group to showers."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from calo_train.errors import UsageError
from calo_train.geometry import geometry_from_mapping
from calo_train.quantities import Spectrum, parse_quantity, parse_spectrum
from calo_train.showers.layouts import layout_named
from calo_train.showers.paths import expand_paths
from calo_train.showers.simulator import SimulatorConfig  # noqa: TC001 - settings read the hints
from calo_train.showers.simulator.origin import SIMULATION_NOTE
from calo_train.showers.source import Crop, ShowerSource, open_paths

if TYPE_CHECKING:
    from calo_train.geometry import Geometry
    from calo_train.showers.simulator.simulated import SimulatedShowers

SOURCES = ("files", "simulated")
_log = logging.getLogger(__name__)


@dataclass
class CropConfig:
    """A parent detector whose files may be cut to this data set's core."""

    parent: dict[str, Any] = field(default_factory=dict)
    ranges: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class DatasetConfig:
    """Which detector and which files; `conf/dataset` explains each value."""

    name: str
    path: Any = None
    source: str = "files"
    n_showers: int | None = None
    simulator: SimulatorConfig | None = None
    geometry: dict[str, Any] | None = None
    description: str = ""
    crop: CropConfig | None = None
    layout: str = "native"
    threshold: str = "0.1MeV"
    energy_range: str | None = None
    visible_fraction: float | None = None
    conditions: list[str] = field(default_factory=lambda: ["incident_energy"])
    train_fraction: float = 0.8
    validation_fraction: float = 0.1
    memory_budget: str = "4GiB"
    invalid_showers: str = "refuse"
    symmetries: list[str] = field(default_factory=list)
    doi: str | None = None
    published_files: str = "*"
    papers: list[str] = field(default_factory=list)  # short names in references/papers.bib

    def __post_init__(self) -> None:
        layout_named(self.layout)
        if self.source not in SOURCES:
            raise UsageError(
                f"source={self.source} is unknown",
                where="dataset.source",
                do=f"use one of {', '.join(SOURCES)}",
            )
        if self.invalid_showers not in ("refuse", "drop"):
            raise UsageError(
                f"invalid_showers={self.invalid_showers} is unknown",
                where="dataset.invalid_showers",
                do="use refuse or drop",
            )
        shares = (self.train_fraction, self.validation_fraction)
        if min(shares) <= 0 or sum(shares) > 1:
            raise UsageError(
                f"train_fraction={shares[0]} and validation_fraction={shares[1]} do not fit",
                where="dataset",
                do="give positive shares with a sum of at most 1; the rest is the test split",
            )
        # Parsed here once, so that an ill-written value is refused before any file is opened.
        _ = self.threshold_energy, self.memory_bytes, self.energy_spectrum

    @property
    def threshold_energy(self) -> float:
        """Readout threshold of a voxel in MeV."""
        return parse_quantity(self.threshold, "energy", where="dataset.threshold")

    @property
    def memory_bytes(self) -> int:
        """Budget of decoded showers in memory."""
        return int(parse_quantity(self.memory_budget, "size", where="dataset.memory_budget"))

    @property
    def energy_spectrum(self) -> Spectrum | None:
        """Incident energies that the data set is known to hold."""
        if self.energy_range is None:
            return None
        return parse_spectrum(self.energy_range, "energy", where="dataset.energy_range")

    @property
    def detector(self) -> Geometry | None:
        """The configured detector; None where the file describes its own."""
        if not self.geometry:
            return None
        return geometry_from_mapping(self.geometry, where="dataset.geometry")

    @property
    def core(self) -> Crop | None:
        """How files of the parent detector are cut; None where they are refused."""
        if self.crop is None:
            return None
        ends = self.crop.ranges
        if not ends or any(len(pair) != 2 for pair in ends.values()):
            raise UsageError(
                f"crop ranges {dict(ends)} are not [first, end) of axes",
                where="dataset.crop.ranges",
                do="give two cell numbers an axis, such as {x: [10, 20], y: [10, 20]}",
            )
        parent = geometry_from_mapping(self.crop.parent, where="dataset.crop.parent")
        return Crop(parent, {name: (first, end) for name, (first, end) in ends.items()})

    @property
    def contents(self) -> str:
        """Say what the showers are."""
        if self.source == "simulated":
            return f"parametrised showers on the detector of: {self.description}"
        return self.description

    @property
    def num_simulated(self) -> int:
        """Number of showers to simulate."""
        if self.n_showers is None or self.n_showers < 1:
            raise UsageError(
                f"dataset.n_showers={self.n_showers} is no number of showers",
                where="dataset.n_showers",
                do="say how many to simulate, such as dataset.n_showers=10000",
            )
        return self.n_showers

    @property
    def patterns(self) -> list[str]:
        """`path` as a list of file names, globs and `embedded:` names."""
        given = [self.path] if isinstance(self.path, str) else list(self.path or [])
        if not given or not all(isinstance(item, str) and item for item in given):
            raise UsageError(
                f"dataset.path={self.path} names no file",
                where="dataset.path",
                do="give a file, a list or a glob: dataset.path=photons.h5",
            )
        return [str(item) for item in given]


def open_dataset(config: DatasetConfig) -> ShowerSource:
    """Open the files of a data set, or simulate it where it says so.

    DataError when a file is missing or of another detector.
    """
    if config.source == "simulated":
        rows = simulated_showers(config, config.num_simulated)
        return ShowerSource([rows], rows.detector)
    paths = expand_paths(config.patterns, where=f"dataset.path of {config.name}")
    source = open_paths(paths, geometry=config.detector, crop=config.core)
    _log_stored_type(source)
    return source


def simulated_showers(config: DatasetConfig, num_showers: int) -> SimulatedShowers:
    """Give so many showers of the parametrisation on a data set's detector and energies."""
    # Imported here: a training is configured before numbers are needed.
    from calo_train.showers.simulator.simulated import SimulatedShowers

    geometry, energies = config.detector, config.energy_spectrum
    if config.simulator is None or geometry is None:
        raise UsageError(
            f"{config.name} does not say of what matter its layers are",
            where="dataset.simulator, dataset.geometry",
            do="choose a data set with both, such as ild_photons_core",
        )
    if energies is None:
        raise UsageError(
            f"{config.name} does not say its incident energies",
            where="dataset.energy_range",
            do="give them, such as dataset.energy_range=10:100GeV or --energy 10:100GeV",
        )
    _log.warning("%s: %s", config.name, SIMULATION_NOTE)
    return SimulatedShowers(geometry, config.simulator, energies, num_showers)


def _log_stored_type(source: ShowerSource) -> None:
    """Say once that energies of another type are read as float32."""
    others = sorted({file.stored_type for file in source.files} - {"float32"})
    if others:
        _log.info("energies are stored as %s and read as float32", ", ".join(others))
