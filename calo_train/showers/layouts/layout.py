"""What every layout of shower files has in common: opening safely, reading slices, appending.

A layout knows the names, shapes and units inside a file and nothing else; it converts to house
units (MeV, mm, rad) at this door. Files are opened per process and read without locks, which
network file systems often lack.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import h5py
import numpy as np

from calo_train.atomic_files import machine_error
from calo_train.errors import DataError
from calo_train.geometry import Geometry
from calo_train.showers.showers import Showers

CHUNK_ROWS = 32  # whole showers in a chunk: reading a shower touches one chunk
_MAX_ROWS = 2**40


class ShowerFile(ABC):
    """An open file of showers of one detector."""

    layout: ClassVar[str]
    incident_unit: ClassVar[str] = "MeV"  # as stored
    voxel_unit: ClassVar[str] = "MeV"
    condition_names: tuple[str, ...] = ("incident_energy",)

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        self._pid = os.getpid()

    @classmethod
    @abstractmethod
    def recognises(cls, file: h5py.File) -> bool:
        """Whether the names inside a file are those of this layout."""

    @property
    @abstractmethod
    def num_showers(self) -> int:
        """Number of rows."""

    @property
    @abstractmethod
    def shape_words(self) -> str:
        """Say what the rows look like, for messages."""

    @property
    def geometry(self) -> Geometry | None:
        """The detector, where the file itself describes it."""
        return None

    @abstractmethod
    def mismatch(self, geometry: Geometry) -> str | None:
        """Say how the file's arrays differ from a geometry, or None when they fit."""

    @abstractmethod
    def read(self, start: int, stop: int, geometry: Geometry) -> Showers:
        """Read rows [start, stop) in house units; the geometry must fit."""

    @property
    @abstractmethod
    def energies_dataset(self) -> h5py.Dataset:
        """The HDF5 data set of voxel energies, for its chunks and attributes."""

    @property
    def mantissa_bits(self) -> int:
        """Bits that stored energies were rounded to, 0 when they were not."""
        return int(self.energies_dataset.attrs.get("mantissa_bits", 0))

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the file as plain values."""
        return {name: _plain(value) for name, value in self.file.attrs.items()}

    @property
    def file(self) -> h5py.File:
        """The open file; opened again in a forked process, since handles are not shared."""
        if self._pid != os.getpid():
            self._file = h5_open(self.path)
            self._pid = os.getpid()
        return self._file

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def require_rows(self, *datasets: h5py.Dataset) -> None:
        """Raise DataError unless all data sets have one length above zero and are real."""
        for dataset in datasets:
            _require_real(self.path, dataset)
        lengths = {dataset.name: len(dataset) for dataset in datasets}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise DataError(
                f"lengths differ: {listed}",
                where=str(self.path),
                do="write the file again with one row a shower in every data set",
            )
        if next(iter(lengths.values())) == 0:
            raise DataError("no showers", where=str(self.path), do="give a file with rows")


class ShowerWriter(ABC):
    """A file of showers being written; rows are appended in order."""

    layout: ClassVar[str]

    def __init__(self, path: Path, geometry: Geometry, attributes: Mapping[str, Any]) -> None:
        self.path = path
        self.geometry = geometry
        self.num_showers = 0
        try:
            self._file = h5py.File(path, "w")
        except OSError as error:
            raise machine_error(error, path) from error
        for name, value in attributes.items():
            self._file.attrs[name] = value

    def append(self, showers: Showers) -> None:
        """Append rows; a full disk is a MachineError."""
        try:
            self._append(showers)
        except OSError as error:
            raise machine_error(error, self.path) from error
        self.num_showers += len(showers)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _append(self, showers: Showers) -> None: ...

    def _create(self, group: h5py.Group, name: str, shape: tuple[int, ...], unit: str) -> None:
        """Create an empty data set that grows by rows of `shape`."""
        dataset = group.create_dataset(
            name,
            shape=(0, *shape),
            maxshape=(None, *shape),
            dtype="f4",
            # gzip 1 without shuffle: for sparse showers shuffle costs time and space.
            chunks=(CHUNK_ROWS, *shape),
            compression="gzip",
            compression_opts=1,
        )
        dataset.attrs["unit"] = unit

    def _extend(self, dataset: h5py.Dataset, values: np.ndarray[Any, Any]) -> None:
        start = len(dataset)
        dataset.resize(start + len(values), axis=0)
        dataset[start:] = values


def h5_open(path: Path) -> h5py.File:
    """Open an HDF5 file for reading; DataError for a missing, cut or foreign one."""
    if not path.is_file():
        raise DataError("no such file", where=str(path), do="check the path")
    try:
        return h5py.File(path, "r", locking=False)
    except PermissionError as error:
        raise machine_error(error, path) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    text = str(error)
    size = path.stat().st_size
    if "truncated" in text:
        expected = text.partition("stored_eof = ")[2].rstrip(")") or "more"
        return DataError(
            f"the file is cut off: {size} bytes found, {expected} expected",
            where=str(path),
            do="copy or fetch it again",
        )
    return DataError(
        "not an HDF5 file" if "signature" in text else f"cannot be read: {text}",
        where=f"{path} ({size} bytes)",
        do="give an HDF5 file of showers; calo-data info FILE shows what is inside",
    )


def _require_real(path: Path, dataset: h5py.Dataset) -> None:
    """Refuse data that lie outside the file, or sizes that its bytes cannot hold."""
    if dataset.is_virtual or dataset.external is not None:
        raise DataError(
            f"{dataset.name} lies in other files",
            where=str(path),
            do="give a file that holds its showers itself",
        )
    if dataset.dtype.kind not in "fiu":
        raise DataError(
            f"{dataset.name} holds {dataset.dtype}, not numbers", where=str(path), do="store floats"
        )
    stored = dataset.id.get_storage_size()
    if len(dataset) > _MAX_ROWS or (dataset.size and stored == 0):
        raise DataError(
            f"{dataset.name} declares {dataset.shape} but stores {stored} bytes",
            where=str(path),
            do="write the file again; its rows were never written",
        )


def member(path: Path, group: h5py.Group, name: str) -> h5py.Dataset:
    """Give a data set of a group; links to other files are not followed."""
    link = group.get(name, getlink=True)
    if link is not None and not isinstance(link, h5py.HardLink):
        raise DataError(
            f"{group.name.rstrip('/')}/{name} is a link",
            where=str(path),
            do="give a file that holds its showers itself",
        )
    found = group.get(name)
    if not isinstance(found, h5py.Dataset):
        raise DataError(
            f"'{name}' is missing in {group.name}; it holds {', '.join(group) or 'nothing'}",
            where=str(path),
            do="give a complete file; calo-data info FILE shows what is inside",
        )
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value.item() if isinstance(value, np.generic) else value
