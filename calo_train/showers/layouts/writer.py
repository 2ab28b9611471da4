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
from calo_train.showers.layouts.chunked_array import GZIP_LEVEL, ChunkedArray, RaggedArray
from calo_train.showers.layouts.guarded_file import GuardedFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from calo_train.geometry import Geometry
    from calo_train.showers.layouts.layout import Columns, Layout, StoredArray
    from calo_train.showers.showers import Showers

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
        layout: Layout,
        columns: Columns,
        *,
        num_threads: int,
    ) -> None:
        self.path = path
        self.geometry = geometry
        self._disk = disk
        self._file = file
        self._layout = layout
        self._columns = columns
        self._arrays = {
            array.key: RaggedArray(file[array.key])
            if array.is_ragged
            else ChunkedArray(file[array.key], num_threads=num_threads)
            for array in layout.stored_arrays(columns)
        }
        self.num_showers = 0

    def append(self, showers: Showers) -> None:
        """Append rows; a full disk is a MachineError, and the file is then of no use any more."""
        self.geometry.require_equal(
            showers.geometry, where=str(self.path), do="write showers of one detector to a file"
        )
        if len(showers):
            rows = self._layout.encode(showers, self._columns, self.num_showers)
            for key, values in rows.items():
                self._arrays[key].append(values)
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
        self._layout.finish(self._file)


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
    for stored in layout.stored_arrays(columns):
        _create(file, stored, columns.attributes.get(stored.key, {}))
    return ShowerWriter(path, disk, file, geometry, layout, columns, num_threads=num_threads)


def _create(file: h5py.File, stored: StoredArray, attributes: Mapping[str, Any]) -> None:
    shape = stored.row_shape
    if stored.is_ragged:
        array = file.create_dataset(
            stored.key,
            shape=(0,),
            maxshape=(None,),
            dtype=h5py.vlen_dtype(np.dtype(stored.dtype)),
            chunks=(_COLUMN_CHUNK_ROWS,),
        )
    else:
        array = file.create_dataset(
            stored.key,
            shape=(0, *shape),
            maxshape=(None, *shape),
            dtype=stored.dtype,
            chunks=(_chunk_rows(shape), *shape),
            compression="gzip",
            compression_opts=GZIP_LEVEL,
            shuffle=False,
        )
    if stored.unit:
        array.attrs["unit"] = stored.unit
    for name, value in attributes.items():
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
