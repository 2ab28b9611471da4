"""HDF5 as it may come from anywhere: opened without locks, never trusted before it is measured.

A file of a kilobyte can declare terabytes, point outside itself or end too early. Every array is
checked for its kind, its declared size and its stored size before a byte of it is read.
"""

from __future__ import annotations

import importlib
import math
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from calo_train.errors import DataError, MachineError
from calo_train.quantities import format_size
from calo_train.showers.layouts.heaps import watched

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_ROW_BYTES = 80 << 20  # ten million voxels in float64, the largest geometry that is accepted
_MAX_CHUNK_BYTES = 1 << 30  # a chunk is decoded as a whole, whatever is asked of it
_MAX_LISTED = 12
_COPY_AGAIN = "fetch or copy the file again"
_ENDS = re.compile(r"eof = (\d+).*stored_eof = (\d+)")


def open_hdf5(path: Path, *, is_ragged: bool = False) -> h5py.File:
    """Open a file for reading, without a lock, so that a reader never disturbs a writer.

    The arrays of a ragged one lie in heaps, which are watched.
    """
    try:
        return watched(path) if is_ragged else h5py.File(path, "r", locking=False)
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path), do="check the path") from error
    except IsADirectoryError as error:
        raise DataError(
            "a folder, not a file", where=str(path), do=f"name its files, such as '{path}/*.h5'"
        ) from error
    except PermissionError as error:
        raise MachineError(
            "reading is not permitted", where=str(path), do="ask its owner for access"
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what h5py raises for a damaged structure into a DataError that names the file.

    It is of no one kind: RuntimeError for trees and heaps, KeyError for objects, and others.
    """
    try:
        yield
    except (RuntimeError, LookupError, OSError, ValueError, TypeError, ArithmeticError) as error:
        raise DataError(
            f"the file is damaged: {_first_line(error)}", where=str(path), do=_COPY_AGAIN
        ) from error
    except MemoryError as error:
        raise DataError(
            "the file asks for more memory than there is", where=str(path), do=_COPY_AGAIN
        ) from error


def contents(group: h5py.Group) -> list[str]:
    """List what a file holds, `name (shape) type`, links as links; at most a dozen entries."""
    found: list[str] = []
    for name, kind in _walk(group, depth=2):
        if len(found) == _MAX_LISTED:
            return [*found, "..."]
        found.append(f"{printable(name)} {kind}".rstrip())
    return found


def names(group: h5py.Group) -> list[str]:
    """Name the data sets of a file, two levels deep, without following links."""
    return [name for name, kind in _walk(group, depth=2) if kind.startswith("(")]


def require_array(
    file: h5py.File, key: str, *, path: Path, is_ragged: bool = False
) -> h5py.Dataset:
    """Give the numeric data set `key` after checking that reading it is safe; else DataError.

    Of a ragged one, rows are arrays of numbers of different lengths.
    """
    node: Any = file
    for name in key.split("/"):
        link = node.get(name, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            raise DataError(
                f"the data set '{key}' is missing; the file holds {', '.join(contents(file))}",
                where=str(path),
                do="add it, or write the file anew",
            )
        if not isinstance(link, h5py.HardLink):
            raise _refused(path, key, f"a link to {_link_target(link)}")
        node = node[name]
    if not isinstance(node, h5py.Dataset):
        raise DataError(f"'{key}' is not a data set", where=str(path), do="write the file anew")
    _require_plain(node, key, path, is_ragged=is_ragged)
    _require_filters(node, path)
    _require_stored(node, key, path)
    return node


def require_row_bytes(row_bytes: int, key: str, *, where: str) -> None:
    """Raise DataError when a shower of an array is declared larger than any that is accepted."""
    if row_bytes > _MAX_ROW_BYTES:
        raise DataError(
            f"'{key}' declares {format_size(row_bytes)} a row",
            where=where,
            do=f"check the file; at most {format_size(_MAX_ROW_BYTES)} a shower are accepted",
        )


def read_rows(array: h5py.Dataset, start: int, stop: int, *, path: Path) -> np.ndarray[Any, Any]:
    """Read rows [start, stop); a damaged block is a DataError that names the rows."""
    try:
        return np.asarray(array[start:stop])
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        raise DataError(
            f"rows {start} to {stop - 1} of '{array.name}' are damaged: {_first_line(error)}",
            where=str(path),
            do=_COPY_AGAIN,
        ) from error


def plain_attributes(node: h5py.HLObject) -> dict[str, Any]:
    """Give attributes as plain text, numbers and lists; other kinds are left out.

    Text lies in heaps, so that the file is opened once more, with these watched.
    """
    if node.file.driver == "fileobj":
        return _plain(node.attrs)
    with watched(Path(node.file.filename)) as file:
        return _plain(file[node.name].attrs)


def storage(array: h5py.Dataset) -> str:
    """Say how an array is stored, such as `float32, gzip 9, shuffle, chunks of 64 rows`."""
    ragged = h5py.check_vlen_dtype(array.dtype)
    pieces = [str(array.dtype) if ragged is None else f"rows of {ragged} of different lengths"]
    if array.compression is not None:
        level = "" if array.compression_opts is None else f" {array.compression_opts}"
        pieces.append(f"{array.compression}{level}")
    if array.shuffle:
        pieces.append("shuffle")
    pieces.append("one piece" if array.chunks is None else _chunk_words(array))
    return ", ".join(pieces)


def printable(text: str) -> str:
    """Show control characters of foreign text as escapes: they must not act on a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _plain(attributes: h5py.AttributeManager) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in attributes:
        try:
            value = attributes[name]
        except (OSError, TypeError):  # a type that h5py cannot read
            continue
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        if isinstance(value, np.generic | np.ndarray):
            value = value.tolist()
        if isinstance(value, str | int | float | bool | list):
            found[str(name)] = value
    return found


def _walk(group: h5py.Group, *, depth: int) -> Iterator[tuple[str, str]]:
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            yield name, f"-> {_link_target(link)}"
            continue
        node = group[name]
        if isinstance(node, h5py.Dataset):
            yield name, f"{node.shape} {node.dtype}"
        elif isinstance(node, h5py.Group) and depth > 1:
            for inner, kind in _walk(node, depth=depth - 1):
                yield f"{name}/{inner}", kind


def _require_plain(array: h5py.Dataset, key: str, path: Path, *, is_ragged: bool) -> None:
    if array.is_virtual:
        raise _refused(path, key, "a virtual data set whose values lie in other files")
    if array.external:
        raise _refused(path, key, f"stored outside the file, in {printable(array.external[0][0])}")
    kind = h5py.check_vlen_dtype(array.dtype) if is_ragged else array.dtype
    if kind is None or np.dtype(kind).kind not in "fiu":
        raise DataError(
            f"'{key}' holds {array.dtype}, not numbers", where=str(path), do="write numbers"
        )


def _require_filters(array: h5py.Dataset, path: Path) -> None:
    creation = array.id.get_create_plist()
    for index in range(creation.get_nfilters()):
        code, _, _, name = creation.get_filter(index)
        if not h5py.h5z.filter_avail(code):
            # Importing the package registers its filters with HDF5.
            try:
                importlib.import_module("hdf5plugin")
            except ImportError as error:
                raise DataError(
                    f"compressed with {name.decode(errors='replace') or code}, which plain HDF5 "
                    "cannot read",
                    where=f"{path}: {array.name}",
                    do="pip install 'calo-train[zstd]'",
                ) from error


def _require_stored(array: h5py.Dataset, key: str, path: Path) -> None:
    """Compare what is declared with what is stored; unwritten chunks would read as zeros."""
    rows = array.shape[0] if array.shape else 0
    row_bytes = math.prod(array.shape[1:]) * array.dtype.itemsize
    require_row_bytes(row_bytes, key, where=f"{path}: shape {array.shape}")
    if array.chunks is None:
        stored, expected = array.id.get_storage_size(), rows * row_bytes
    else:
        if math.prod(array.chunks) * array.dtype.itemsize > _MAX_CHUNK_BYTES:
            raise DataError(
                f"'{key}' is stored in chunks of {array.chunks}, over 1 GiB each",
                where=str(path),
                do="write it with chunks of 16 to 64 showers",
            )
        pairs = zip(array.shape, array.chunks, strict=True)
        stored = array.id.get_num_chunks()
        expected = math.prod(math.ceil(size / chunk) for size, chunk in pairs)
    if stored < expected:
        unit = "bytes" if array.chunks is None else "chunks"
        raise DataError(
            f"'{key}' declares {array.shape} but holds {stored} of {expected} {unit}",
            where=str(path),
            do=f"the file was never finished; {_COPY_AGAIN}, or write it anew",
        )


def _unreadable(path: Path, error: OSError) -> DataError:
    text = _first_line(error)
    ends = _ENDS.search(text)
    if ends is not None:
        return DataError(
            f"the file is truncated: {ends.group(1)} bytes found, {ends.group(2)} expected",
            where=str(path),
            do=_COPY_AGAIN,
        )
    if "signature not found" in text:
        size = path.stat().st_size
        return DataError(
            "an empty file" if size == 0 else "not an HDF5 file",
            where=f"{path}, {format_size(size)}",
            do=_COPY_AGAIN if size == 0 else "give a file of showers in HDF5",
        )
    return DataError(f"the file cannot be opened: {text}", where=str(path), do=_COPY_AGAIN)


def _refused(path: Path, key: str, reason: str) -> DataError:
    return DataError(
        f"'{key}' is {reason}; this is not followed",
        where=str(path),
        do="copy the values into one file, for example with h5repack or h5copy",
    )


def _link_target(link: object) -> str:
    if isinstance(link, h5py.ExternalLink):
        return printable(f"{link.filename}:{link.path}")
    return printable(str(getattr(link, "path", "elsewhere")))


def _chunk_words(array: h5py.Dataset) -> str:
    if array.chunks[1:] == array.shape[1:]:
        return f"chunks of {array.chunks[0]} rows"
    return f"chunks of {array.chunks}, which cut showers into pieces"


def _first_line(error: Exception) -> str:
    return printable(str(error).splitlines()[0]) if str(error) else type(error).__name__
