"""A file of showers being written: rows appended in order, in the units of its layout.

gzip 1 without shuffle reads fastest of what every HDF5 can read, and a chunk holds whole showers:
shuffling the bytes of sparse showers costs time and space, and chunks that cut showers into pieces
cost a decode of everything for a single row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np

from calo_train.atomic_files import machine_error
from calo_train.showers.layouts.chunked_array import GZIP_LEVEL, ChunkedArray
from calo_train.showers.layouts.guarded_file import GuardedFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from calo_train.geometry import Geometry
    from calo_train.showers.layouts.layout import Column, Columns, Layout
    from calo_train.showers.showers import FloatArray, Showers

_CHUNK_BYTES = 1 << 20  # aimed at, decoded
_CHUNK_ROWS = (16, 64)  # fewest and most showers in a chunk
_COLUMN_CHUNK_ROWS = 4096  # of one condition


class ShowerWriter:
    """Appends showers to a file; made by `create_showers`."""

    def __init__(
        self,
        path: Path,
        disk: GuardedFile,
        file: h5py.File,
        geometry: Geometry,
        columns: Columns,
        *,
        num_threads: int,
    ) -> None:
        self.path = path
        self.geometry = geometry
        self._disk = disk
        self._file = file
        self._columns = columns
        self._arrays = {
            column.key: ChunkedArray(file[column.key], num_threads=num_threads)
            for column in (columns.energies, *columns.conditions.values())
        }
        self.num_showers = 0

    def append(self, showers: Showers) -> None:
        """Append rows; a full disk is a MachineError, and the file is then of no use any more."""
        self.geometry.require_equal(
            showers.geometry, where=str(self.path), do="write showers of one detector to a file"
        )
        self._append(self._columns.energies, showers.energies)
        for name, column in self._columns.conditions.items():
            self._append(column, showers.conditions[name])
        self._require_written()
        self.num_showers += len(showers)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes of the file; those of its layout cannot be meant."""
        for name, value in attributes.items():
            self._file.attrs[name] = value

    def flush(self) -> None:
        """Hand everything to the operating system; the rows so far then survive a kill."""
        self._write_waiting()
        self._file.flush()
        self._require_written()

    def close(self) -> None:
        """Finish the file; a MachineError when anything in it could not be written."""
        self._write_waiting()
        self._file.close()
        self._disk.close()
        self._require_written()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _require_written(self) -> None:
        error = self._disk.error
        if error is not None:
            raise machine_error(error, self.path) from error

    def _write_waiting(self) -> None:
        for array in self._arrays.values():
            array.write_waiting()

    def _append(self, column: Column, values: FloatArray) -> None:
        scale = column.house_scale(where=f"{self.path}: {column.key}")
        stored = values if scale == 1.0 else (values / np.float64(scale)).astype(np.float32)
        shape = self._file[column.key].shape[1:]
        self._arrays[column.key].append(stored.reshape(-1, *shape))


def create_file(
    path: Path,
    layout: Layout,
    geometry: Geometry,
    *,
    attributes: Mapping[str, Any],
    condition_names: Sequence[str],
    num_threads: int,
) -> ShowerWriter:
    """Create an empty file of a layout; an existing one is replaced."""
    columns = layout.plan(geometry, condition_names)
    try:
        disk = GuardedFile(path)
    except OSError as error:
        raise machine_error(error, path) from error
    file = h5py.File(disk, "w")
    # Attributes that decide how a file is read come last: none of others may change them.
    for name, value in {**_foreign(attributes), **layout.file_attributes(geometry)}.items():
        file.attrs[name] = value
    _create(file, columns.energies, columns.grid, columns)
    for column in columns.conditions.values():
        _create(file, column, layout.condition_shape, columns)
    return ShowerWriter(path, disk, file, geometry, columns, num_threads=num_threads)


def _create(file: h5py.File, column: Column, shape: tuple[int, ...], columns: Columns) -> None:
    array = file.create_dataset(
        column.key,
        shape=(0, *shape),
        maxshape=(None, *shape),
        dtype=np.float32,
        chunks=(_chunk_rows(shape), *shape),
        compression="gzip",
        compression_opts=GZIP_LEVEL,
        shuffle=False,
    )
    array.attrs["unit"] = column.unit
    for name, value in columns.attributes.get(column.key, {}).items():
        array.attrs[name] = value


def _chunk_rows(shape: tuple[int, ...]) -> int:
    row_bytes = 4 * int(np.prod(shape))
    if row_bytes <= 4:
        return _COLUMN_CHUNK_ROWS
    return int(np.clip(_CHUNK_BYTES // row_bytes, *_CHUNK_ROWS))


def _foreign(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what would make a file of another layout look like a native one."""
    own = ("layout", "layout_version", "geometry")
    return {name: value for name, value in attributes.items() if name not in own}
