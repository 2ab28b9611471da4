"""The door from a `dataset` config group to showers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calo_train.errors import UsageError
from calo_train.geometry import Geometry, geometry_from_mapping
from calo_train.quantities import Spectrum, parse_quantity, parse_spectrum
from calo_train.showers.source import Crop, ShowerSource, expand_paths, open_paths

_EMBEDDED = "embedded:"


@dataclass
class CropConfig:
    """A parent detector whose files may be cut to this data set's core."""

    parent: dict[str, Any] = field(default_factory=dict)
    ranges: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class DatasetConfig:
    """Which detector and which files; `conf/dataset` explains each value."""

    name: str
    path: Any
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

    def __post_init__(self) -> None:
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
        return _geometry(self.geometry, "dataset.geometry")

    @property
    def patterns(self) -> list[str]:
        """`path` as a list of file names or globs, with package data resolved."""
        given = [self.path] if isinstance(self.path, str) else list(self.path or [])
        if not given or not all(isinstance(item, str) and item for item in given):
            raise UsageError(
                f"dataset.path={self.path} names no file",
                where="dataset.path",
                do="give a file, a list or a glob: dataset.path=photons.h5",
            )
        return [_resolve(item) for item in given]


def open_dataset(config: DatasetConfig) -> ShowerSource:
    """Open the files of a data set; DataError when one is missing or of another detector."""
    paths = expand_paths(config.patterns, where=f"dataset.path of {config.name}")
    return open_paths(paths, geometry=config.detector, crop=_crop(config))


def embedded_file(name: str) -> Path:
    """Give the path of a file that ships with the package."""
    return Path(__file__).parent / "embedded" / name


def _resolve(item: str) -> str:
    if item.startswith(_EMBEDDED):
        return str(embedded_file(item.removeprefix(_EMBEDDED)))
    return item


def _crop(config: DatasetConfig) -> Crop | None:
    if config.crop is None:
        return None
    parent = _geometry(config.crop.parent, "dataset.crop.parent")
    if parent is None:
        return None
    ranges = {name: (ends[0], ends[1]) for name, ends in config.crop.ranges.items()}
    return Crop(parent, ranges)


def _geometry(mapping: Mapping[str, Any] | None, where: str) -> Geometry | None:
    return geometry_from_mapping(mapping, where=where) if mapping else None
