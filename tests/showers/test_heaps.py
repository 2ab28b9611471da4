"""Heaps of damaged files, by the sizes at which HDF5 itself would never end or read outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import detectors
import h5py
import numpy as np
import pytest

from calo_train.errors import DataError
from calo_train.showers.layouts import create_showers, open_file
from calo_train.showers.layouts.heaps import watched

if TYPE_CHECKING:
    from pathlib import Path

_HEADER, _OBJECT = 16, 16  # bytes before a heap's first object, and before what an object holds


@pytest.mark.parametrize(
    ("index", "size"),
    [(0, 0), (0, 8), (0, 1 << 40), (1, 1 << 40), (1, (1 << 64) - 16), (1, (1 << 64) - 1)],
)
def test_impossible_sizes_in_a_heap_are_refused(index: int, size: int, tmp_path: Path) -> None:
    """X6: free space, index 0, of size zero makes HDF5 loop; sizes near 2^64 wrap around."""
    path = detectors.write_showers(tmp_path / "showers.h5", detectors.cartesian(), 4)
    content = bytearray(path.read_bytes())
    first = content.index(b"GCOL") + _HEADER
    content[first : first + 2] = index.to_bytes(2, "little")
    content[first + 8 : first + 16] = size.to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match="impossible size") as caught:
        open_file(path)
    assert f"byte {first}" in caught.value.where


def test_points_in_a_damaged_heap_are_refused(tmp_path: Path) -> None:
    """X6: rows of point clouds lie in heaps too; those before the damage are still read."""
    showers = detectors.make_showers(detectors.cartesian(), 300)
    path = tmp_path / "points.h5"
    with create_showers(path, "showerdata", showers.geometry, attributes={}) as writer:
        writer.append(showers)
    content = bytearray(path.read_bytes())
    last = content.rindex(b"GCOL") + _HEADER
    content[last : last + 16] = bytes(16)
    path.write_bytes(content)
    file = open_file(path)
    assert len(file.read(0, 8, showers.geometry)) == 8
    with pytest.raises(DataError, match="impossible size"):
        file.read(8, 300, showers.geometry)
    file.close()


def test_watched_file_reads_what_was_written(tmp_path: Path) -> None:
    """Text, rows of different lengths, and heaps that are full or hold nothing but free space."""
    rows = [np.arange(length, dtype="f4") for length in (0, 1, 5000, 3, 250_000)]
    texts = ["", "a", "b" * 5000, "é" * 30_000]
    with h5py.File(tmp_path / "file.h5", "w") as file:
        array = file.create_dataset("rows", (len(rows),), h5py.vlen_dtype("f4"))
        for index, row in enumerate(rows):
            array[index] = row
        file.attrs["texts"] = texts
        file.attrs["long"] = "GCOL\x01" + "c" * 9000
    with watched(tmp_path / "file.h5") as file:
        assert list(file.attrs["texts"]) == texts
        assert file.attrs["long"].endswith("ccc")
        for found, expected in zip(file["rows"][:], rows, strict=True):
            np.testing.assert_array_equal(found, expected)
