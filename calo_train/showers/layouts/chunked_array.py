"""Rows appended to a compressed HDF5 array, whole chunks at a time.

HDF5 compresses one chunk after the other and lets no other thread of Python run meanwhile. Here
several threads compress, as its gzip filter would, and HDF5 stores what they give. Rows that fill
no chunk wait for the next ones.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from calo_train.kernels.threads import run_in_ranges

if TYPE_CHECKING:
    from collections.abc import Sequence

    import h5py
    import numpy.typing as npt

    Rows = npt.NDArray[Any]

GZIP_LEVEL = 1


class RaggedArray:
    """An array of rows of different lengths; they lie in HDF5's heap, which no filter reaches."""

    def __init__(self, array: h5py.Dataset) -> None:
        self._array = array

    def append(self, rows: Rows) -> None:
        """Append rows, an object array (n,) of arrays."""
        start = len(self._array)
        self._array.resize(start + len(rows), axis=0)
        for index, row in enumerate(rows):  # h5py 3 mistakes rows of one length for a grid
            self._array[start + index] = row

    def write_waiting(self) -> None:
        """Nothing waits here."""


class ChunkedArray:
    """An array (rows, ...) of numbers in chunks of whole rows, with gzip as its only filter."""

    def __init__(self, array: h5py.Dataset, *, num_threads: int) -> None:
        self._array = array
        self._num_threads = num_threads
        self._num_written = 0  # rows in whole chunks
        self._waiting: Rows = np.empty((0, *array.shape[1:]), dtype=array.dtype)

    def append(self, rows: Rows) -> None:
        """Append rows, in the array's shape."""
        size = self._array.chunks[0]
        chunks = []
        if len(self._waiting):
            missing = size - len(self._waiting)
            self._waiting = np.concatenate([self._waiting, rows[:missing]])
            rows = rows[missing:]
            if len(self._waiting) < size:
                return
            chunks.append(self._waiting)
        whole = len(rows) // size * size
        chunks += [rows[first : first + size] for first in range(0, whole, size)]
        self._waiting = rows[whole:].copy()
        self._write(chunks)

    def write_waiting(self) -> None:
        """Write the rows that fill no chunk yet; more may follow."""
        self._array.resize(self._num_written + len(self._waiting), axis=0)
        self._array[self._num_written :] = self._waiting

    def _write(self, chunks: Sequence[Rows]) -> None:
        compressed = [b""] * len(chunks)

        def compress(first: int, end: int) -> None:
            for number in range(first, end):
                plain = np.ascontiguousarray(chunks[number]).data
                compressed[number] = zlib.compress(plain, GZIP_LEVEL)

        run_in_ranges(compress, len(chunks), grain=1, num_threads=self._num_threads)
        size, *others = self._array.chunks
        self._array.resize(self._num_written + size * len(chunks), axis=0)
        for chunk in compressed:
            place = (self._num_written, *[0] * len(others))
            self._array.id.write_direct_chunk(place, chunk)
            self._num_written += size
