"""An open file of showers, whatever its layout: measured at the door, read in slices."""

from __future__ import annotations

import os
from shlex import quote
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from calo_train.errors import DataError
from calo_train.showers.layouts.hdf5 import (
    open_hdf5,
    plain_attributes,
    printable,
    read_rows,
    require_array,
    storage,
)
from calo_train.showers.layouts.rows import ShowerRows
from calo_train.showers.showers import Showers

if TYPE_CHECKING:
    from pathlib import Path

    from calo_train.geometry import Geometry
    from calo_train.showers.layouts.layout import Column, Columns, Layout, Rows
    from calo_train.showers.showers import FloatArray

_MAX_MANTISSA_BITS = 23  # of a float32
_DEFAULT_CHUNK_ROWS = 64  # for files that are stored in one piece


class ShowerFile(ShowerRows):
    """A file of showers of one detector, opened for reading; its handle belongs to one process.

    After a fork the file is opened again on first use: HDF5 handles must not be shared.
    """

    def __init__(self, path: Path, file: h5py.File, layout: Layout, columns: Columns) -> None:
        self.path = path
        self.layout = layout.name
        self._layout = layout
        self.columns = columns
        self._handle = file
        self._process = os.getpid()
        self._inherited: list[h5py.File] = []
        self.attributes: dict[str, Any] = {
            name: printable(value) if isinstance(value, str) else value
            for name, value in {**columns.file_attributes, **plain_attributes(file)}.items()
        }
        self._arrays = self._open_arrays()
        self._changed = _change_mark(path)
        self._scales = {
            column.key: column.house_scale(where=f"{path}: {column.key}")
            for column in self._all_columns
        }
        self.num_showers = self._require_rows()
        self.mantissa_bits = self._read_mantissa_bits()

    @property
    def storage_words(self) -> str:
        """Say how the voxel energies are stored: type, filters, chunks."""
        return storage(self._array(self.columns.energies[0]))

    @property
    def chunk_rows(self) -> int:
        """Rows that are decoded together."""
        chunks = self._array(self.columns.energies[0]).chunks
        return int(chunks[0]) if chunks else min(_DEFAULT_CHUNK_ROWS, max(self.num_showers, 1))

    @property
    def stored_type(self) -> str:
        kind = self._array(self.columns.energies[0]).dtype
        return str(h5py.check_vlen_dtype(kind) or kind)

    @property
    def recipe(self) -> str:
        """Stored showers are what they are."""
        return ""

    def read(self, start: int, stop: int, geometry: Geometry) -> Showers:
        """Read rows [start, stop) in house units, float32, as showers of a fitting geometry."""
        energies = self.columns.energies
        rows = [self._rows(column, start, stop) for column in energies]
        values = self._layout.decode(rows, self.columns, geometry)
        return Showers(
            self._in_house_units(energies[0], values), self.read_conditions(start, stop), geometry
        )

    def read_conditions(self, start: int, stop: int) -> dict[str, FloatArray]:
        """Read the conditions of rows [start, stop) in house units, name -> (n,) float32."""
        return {
            name: self._in_house_units(column, column.values(self._rows(column, start, stop)))
            for name, column in self.columns.conditions.items()
        }

    def require_declared_units(self) -> None:
        """Raise DataError when an array's own `unit` is not that of the layout."""
        flags = {self.key_of(): "--voxel-unit", self.key_of("incident_energy"): "--energy-unit"}
        for column in self._all_columns:
            stored = plain_attributes(self._arrays[column.key])
            declared = printable(str(stored.get("unit", column.unit)))
            if declared != column.unit:
                raise DataError(
                    f"'{column.key}' says that it is in {declared}, layout {self.layout} stores "
                    f"{column.unit}",
                    where=str(self.path),
                    do=f"calo-data convert {quote(str(self.path))} {flags[column.key]} {declared} "
                    "-o CONVERTED.h5    (nothing was changed)",
                )

    def close(self) -> None:
        """Close the file, if this process opened it."""
        if self._process == os.getpid():
            self._handle.close()

    def read_points(self, start: int, stop: int) -> list[FloatArray]:
        """Read rows [start, stop) of a point cloud as they are stored, (points, numbers) each."""
        rows = self._rows(self.columns.energies[0], start, stop)
        return [row.reshape(-1, self.columns.point_size) for row in rows]

    def _rows(self, column: Column, start: int, stop: int) -> Rows:
        rows = read_rows(self._array(column), start, stop, path=self.path)
        if self.columns.has_points and column in self.columns.energies:
            self._require_points(rows, start)
        return rows

    def _require_points(self, rows: Rows, start: int) -> None:
        for index, row in enumerate(rows):
            if len(row) % self.columns.point_size:
                raise DataError(
                    f"row {start + index} of '{self.key_of()}' holds {len(row)} numbers, "
                    f"{self.columns.point_size} a point",
                    where=str(self.path),
                    do="write whole points",
                )

    def _in_house_units(self, column: Column, values: Rows) -> FloatArray:
        scale = self._scales[column.key]
        if scale == 1.0:
            return values.astype(np.float32, copy=False)
        return (values * np.float64(scale)).astype(np.float32)

    def _array(self, column: Column) -> h5py.Dataset:
        if self._process != os.getpid():
            self._reopen()
        return self._arrays[column.key]

    def _reopen(self) -> None:
        # The inherited handle is kept, not closed: closing would touch the parent's state.
        self._inherited.append(self._handle)
        if _change_mark(self.path) != self._changed:
            raise DataError(
                "the file was changed while it was in use",
                where=str(self.path),
                do="restore it, or start again",
            )
        self._handle = open_hdf5(self.path, is_ragged=self.columns.has_points)
        self._process = os.getpid()
        self._arrays = self._open_arrays()

    def _open_arrays(self) -> dict[str, h5py.Dataset]:
        return {
            column.key: require_array(
                self._handle,
                column.key,
                path=self.path,
                is_ragged=self.columns.has_points and column in self.columns.energies,
            )
            for column in self._all_columns
        }

    @property
    def _all_columns(self) -> tuple[Column, ...]:
        return (*self.columns.energies, *self.columns.conditions.values())

    def _require_rows(self) -> int:
        """Give the number of showers after checking that every array has a row for each."""
        for column in self.columns.conditions.values():
            shape = self._arrays[column.key].shape
            if shape[1:] not in column.row_shapes or not shape:
                raise DataError(
                    f"'{column.key}' has the shape {shape}, expected (n,) or (n, 1)",
                    where=str(self.path),
                    do="write one value a shower",
                )
        lengths = {key: len(array) for key, array in self._arrays.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(
                "lengths differ: " + ", ".join(f"{n} rows in '{k}'" for k, n in lengths.items()),
                where=str(self.path),
                do="write one row a shower in every data set",
            )
        if "incident_energy" not in self.columns.conditions:
            raise DataError(
                "no incident energies; the conditions are "
                + (", ".join(self.condition_names) or "none"),
                where=str(self.path),
                do="add the column incident_energy",
            )
        return lengths[self.columns.energies[0].key]

    def _read_mantissa_bits(self) -> int:
        stored = plain_attributes(self._arrays[self.columns.energies[0].key])
        bits = stored.get("mantissa_bits", self.attributes.get("mantissa_bits", 0))
        if not isinstance(bits, int) or not 0 <= bits <= _MAX_MANTISSA_BITS:
            raise DataError(
                f"mantissa_bits is {bits}, expected 0 (not rounded) to {_MAX_MANTISSA_BITS}",
                where=f"{self.path}: {self.key_of()}",
                do="correct the attribute to the bits that energies were rounded to",
            )
        return bits


def _change_mark(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
