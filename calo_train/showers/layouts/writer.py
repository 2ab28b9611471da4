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
from calo_train.errors import DataError
from calo_train.showers.layouts.hdf5 import open_hdf5

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
    """Appends showers to a file; made by `create_showers` and `reopen_showers`."""

    def __init__(self, path: Path, file: h5py.File, geometry: Geometry, columns: Columns) -> None:
        self.path = path
        self.geometry = geometry
        self._file = file
        self._columns = columns
        self.num_showers = len(file[columns.energies.key])

    def append(self, showers: Showers) -> None:
        """Append rows; a full disk is a MachineError and the rows do not count."""
        self.geometry.require_equal(
            showers.geometry, where=str(self.path), do="write showers of one detector to a file"
        )
        try:
            self._append(self._columns.energies, showers.energies)
            for name, column in self._columns.conditions.items():
                self._append(column, showers.conditions[name])
        except OSError as error:
            raise machine_error(error, self.path) from error
        self.num_showers += len(showers)

    def truncate(self, num_showers: int) -> None:
        """Forget all rows from `num_showers` on, such as those of an unfinished append."""
        for column in (self._columns.energies, *self._columns.conditions.values()):
            self._file[column.key].resize(num_showers, axis=0)
        self.num_showers = num_showers

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes of the file; those of its layout cannot be meant."""
        for name, value in attributes.items():
            self._file.attrs[name] = value

    def flush(self) -> None:
        """Hand everything to the operating system; the rows so far then survive a kill."""
        try:
            self._file.flush()
        except OSError as error:
            raise machine_error(error, self.path) from error

    def close(self) -> None:
        """Finish the file."""
        try:
            self._file.close()
        except (OSError, RuntimeError) as error:  # h5py gives RuntimeError for a failed last flush
            raise machine_error(OSError(str(error)), self.path) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, column: Column, values: FloatArray) -> None:
        array = self._file[column.key]
        scale = column.house_scale(where=f"{self.path}: {column.key}")
        stored = values if scale == 1.0 else (values / np.float64(scale)).astype(np.float32)
        array.resize(self.num_showers + len(stored), axis=0)
        array[self.num_showers :] = stored.reshape(-1, *array.shape[1:])


def create_file(
    path: Path,
    layout: Layout,
    geometry: Geometry,
    *,
    attributes: Mapping[str, Any],
    condition_names: Sequence[str],
) -> ShowerWriter:
    """Create an empty file of a layout; an existing one is replaced."""
    columns = layout.plan(geometry, condition_names)
    # Attributes that decide how a file is read come last: no foreign one may change its layout.
    own = layout.file_attributes(geometry)
    try:
        file = h5py.File(path, "w")
        for name, value in {**_foreign(attributes), **own}.items():
            file.attrs[name] = value
        _create(file, columns.energies, columns.grid, columns)
        for column in columns.conditions.values():
            _create(file, column, layout.condition_shape, columns)
    except OSError as error:
        raise machine_error(error, path) from error
    return ShowerWriter(path, file, geometry, columns)


def reopen_file(path: Path, layout: Layout, geometry: Geometry) -> ShowerWriter:
    """Open a file that `create_file` made, to append to it."""
    with open_hdf5(path) as written:
        if not layout.recognises(written):
            raise DataError(
                f"not a file of the layout {layout.name}", where=str(path), do="remove the file"
            )
        columns = layout.columns(written, path)
    try:
        file = h5py.File(path, "r+")
    except OSError as error:
        raise machine_error(error, path) from error
    return ShowerWriter(path, file, geometry, columns)


def _create(file: h5py.File, column: Column, shape: tuple[int, ...], columns: Columns) -> None:
    array = file.create_dataset(
        column.key,
        shape=(0, *shape),
        maxshape=(None, *shape),
        dtype=np.float32,
        chunks=(_chunk_rows(shape), *shape),
        compression="gzip",
        compression_opts=1,
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
