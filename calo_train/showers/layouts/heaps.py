"""Heaps that hold values of variable length, looked at before the HDF5 library sees them.

The library steps through a heap by the sizes that its objects declare, and never ends on a damaged
one whose free space declares zero (HDF5 2.0; h5py issue 2088).
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import h5py

from calo_train.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import WriteableBuffer

# HDF5 file format 3.0, section III.E: signature, version, three zeros, size of the collection;
# objects of index (2 bytes), references (2), zeros (4), size (8), and content in steps of 8 bytes.
_START = b"GCOL\x01\x00\x00\x00"
_HEADER = 16
_STEP = 8


def watched(path: Path) -> h5py.File:
    """Open a file for reading; what lies in a damaged heap raises DataError."""
    return h5py.File(_HeapWatch(path), "r")


class _HeapWatch(io.RawIOBase):
    """A file for h5py's file-object driver that checks each heap it reads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = io.FileIO(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read what HDF5 asks for, once the heaps that begin there are known to be sound."""
        start = self._file.tell()
        num_bytes = self._file.readinto(buffer) or 0
        content = bytes(memoryview(buffer).cast("B")[:num_bytes])
        place = content.find(_START)
        while place >= 0:
            self._require_sound(start + place)
            place = content.find(_START, place + _STEP)
        return num_bytes

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Give the place in the file."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def _require_sound(self, start: int) -> None:
        heap = self._at(start, _HEADER)
        size = int.from_bytes(heap[8:], "little")
        if size <= os.fstat(self._file.fileno()).st_size - start:  # else HDF5 refuses it
            heap = self._at(start, size)
        place = _HEADER
        while place + _HEADER <= len(heap):
            index, length = heap[place : place + 2], heap[place + 8 : place + _HEADER]
            stored = int.from_bytes(length, "little")
            # The size of free space, index 0, counts its own header.
            taken = stored if index == b"\0\0" else _HEADER + -(-stored // _STEP) * _STEP
            if taken < _HEADER or place + taken > len(heap):
                raise DataError(
                    "the file is damaged: an object of a heap declares an impossible size",
                    where=f"{self._path}, byte {start + place}",
                    do="fetch or copy the file again",
                )
            place += taken

    def _at(self, start: int, num_bytes: int) -> bytes:
        return os.pread(self._file.fileno(), num_bytes, start)
