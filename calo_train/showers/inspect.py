"""What a file of showers holds, and how well it is stored: `calo-data info` and `check`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calo_train.progress import Progress
from calo_train.showers.checks import CheckedPass
from calo_train.showers.dataset import DatasetConfig
from calo_train.showers.fitting import fitting_datasets
from calo_train.showers.layouts import create_showers, open_file
from calo_train.showers.layouts.layout import HOUSE_UNITS
from calo_train.showers.source import open_paths

if TYPE_CHECKING:
    from calo_train.geometry import Geometry
    from calo_train.showers.layouts import ShowerFile
    from calo_train.showers.source import ShowerSource

_PROBE_BYTES = 16 << 20  # decoded showers that are written anew to see whether they read faster
_WORTHWHILE = 1.5  # a repacked file is offered when it reads this much faster


@dataclass(frozen=True)
class FileDescription:
    """What is in a file; energies in MeV, angles in rad, sizes in bytes."""

    file: str
    num_bytes: int
    layout: str
    num_showers: int
    shower: str  # detector or shape
    conditions: dict[str, dict[str, Any]]  # name -> low, high, unit, stored_unit
    voxel_unit: str  # as stored
    mantissa_bits: int
    storage: str
    datasets: list[str]  # of conf/dataset, that it fits
    attributes: dict[str, Any]

    def as_mapping(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class CheckResult:
    """A file that passed all checks; rates in showers a second."""

    file: str
    num_showers: int
    detector: str
    num_empty: int
    incident_energy: tuple[float, float]  # MeV
    visible_fraction: float
    rate: float
    repacked_rate: float
    storage: str
    datasets: list[str]

    @property
    def is_slow(self) -> bool:
        """Whether writing the file anew makes reading clearly faster."""
        return self.repacked_rate > _WORTHWHILE * self.rate

    def as_mapping(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {**asdict(self), "is_slow": self.is_slow}


def describe_file(path: Path) -> FileDescription:
    """Describe one file without reading its voxel energies."""
    file = open_file(path)
    try:
        return FileDescription(
            file=str(path),
            num_bytes=path.stat().st_size,
            layout=file.layout,
            num_showers=file.num_showers,
            shower=file.shape_words,
            conditions=_conditions(file),
            voxel_unit=file.unit_of(),
            mantissa_bits=file.mantissa_bits,
            storage=file.storage_words,
            datasets=fitting_datasets(file),
            # The geometry is what `shower` describes, and long.
            attributes={k: v for k, v in file.attributes.items() if k != "geometry"},
        )
    finally:
        file.close()


def check_file(
    path: Path, dataset: DatasetConfig | None, *, geometry: Geometry | None = None
) -> CheckResult:
    """Check every shower of a file and measure how fast it reads; DataError for what is wrong.

    With a data set its detector, energies and visible fraction are compared as well.
    """
    config = dataset or DatasetConfig(name=path.name, path=str(path))
    detector = geometry if dataset is None else dataset.detector
    with open_paths([path], geometry=detector, crop=config.core) as source:
        checked = CheckedPass(source, config)
        visible = incident = 0.0
        ends = (np.inf, -np.inf)
        with Progress(f"checking {path.name}", source.num_showers, unit="showers") as progress:
            for _, showers in checked.blocks():
                energies = showers.conditions["incident_energy"]
                visible += float(showers.energies.sum(dtype=np.float64))
                incident += float(energies.sum(dtype=np.float64))
                ends = (min(ends[0], float(energies.min())), max(ends[1], float(energies.max())))
                progress.advance(len(showers))
        rate, repacked_rate = _reading_rates(source)
        return CheckResult(
            file=str(path),
            num_showers=source.num_showers,
            detector=source.geometry.describe(),
            num_empty=checked.num_empty,
            incident_energy=ends,
            visible_fraction=visible / incident,
            rate=rate,
            repacked_rate=repacked_rate,
            storage=source.files[0].storage_words,
            datasets=fitting_datasets(source.files[0]),
        )


def _conditions(file: ShowerFile) -> dict[str, dict[str, Any]]:
    values = file.read_conditions(0, file.num_showers)
    return {
        name: {
            "low": float(np.nanmin(column)) if len(column) else None,
            "high": float(np.nanmax(column)) if len(column) else None,
            "unit": HOUSE_UNITS.get(name, file.unit_of(name)),
            "stored_unit": file.unit_of(name),
        }
        for name, column in values.items()
    }


def _reading_rates(source: ShowerSource) -> tuple[float, float]:
    """Measure showers a second of the file as it is, and of its first showers written anew."""
    num_rows = min(max(_PROBE_BYTES // source.row_bytes, 1), source.num_showers)
    with tempfile.TemporaryDirectory(prefix="calo-data-") as folder:
        probe = Path(folder) / "probe.h5"
        with create_showers(
            probe,
            "native",
            source.geometry,
            attributes={},
            condition_names=source.condition_names,
        ) as writer:
            writer.append(source.read(0, num_rows))
        with open_paths([probe], geometry=None) as repacked:
            return _rate(source, num_rows), _rate(repacked, num_rows)


def _rate(source: ShowerSource, num_rows: int) -> float:
    """Read the first rows block by block, twice, and take the faster; the first fills caches."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        done = 0
        for start, stop in source.block_ranges():
            if done >= num_rows:
                break
            done += len(source.read(start, min(stop, num_rows)))
        seconds.append(time.perf_counter() - started)
    return num_rows / min(seconds)
