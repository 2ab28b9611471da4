"""A file on disk that HDF5 writes to and that never fails in front of it.

HDF5 cannot close a file whose last write failed: it keeps the file, prints errors and crashes the
process at exit (seen with HDF5 2.0 on a full disk). So the first error of the operating system is
kept here, all later writes are let go, and the writer asks for the error when HDF5 has returned.
The file is lost then, which is why whoever writes one gives it a temporary name.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import ReadableBuffer, WriteableBuffer


class GuardedFile(io.RawIOBase):
    """A new, unbuffered file for h5py's file-object driver; `error` is the first that was met."""

    def __init__(self, path: Path) -> None:
        self._file = io.FileIO(path, "w+")
        self.error: OSError | None = None

    def write(self, data: ReadableBuffer) -> int:
        """Write all of `data`, which FileIO does not promise, unless a write has failed."""
        left = memoryview(data).cast("B")
        num_bytes = len(left)
        try:
            while len(left) and self.error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self.error = error
        return num_bytes

    def truncate(self, size: int | None = None) -> int:
        """Set the size of the file, unless a write has failed."""
        try:
            return self._file.truncate(size) if self.error is None else 0
        except OSError as error:
            self.error = error
            return 0

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read what HDF5 wants to see again."""
        return self._file.readinto(buffer) or 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Give the place in the file."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file; some file systems report a failed write only here."""
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error
        super().close()
