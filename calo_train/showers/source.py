"""One or several files as one sequence of rows on one detector."""

from __future__ import annotations

import glob
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError, GeometryMismatch
from calo_train.geometry import Geometry, Regrouping
from calo_train.showers.layouts import ShowerFile, open_file
from calo_train.showers.showers import Showers, concatenate

BLOCK_BYTES = 64 << 20  # decoded size of a block in one streaming pass
_FINGERPRINT_ROWS = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Crop:
    """A larger parent detector whose files may be cut to their core: cells [start, stop) by axis."""

    parent: Geometry
    ranges: dict[str, tuple[int, int]]

    def regrouping(self) -> Regrouping:
        """Give the map from the parent's voxels to the core's."""
        return self.parent.crop(**self.ranges)[1]


@dataclass(frozen=True)
class _Piece:
    """A file with where its rows begin in the whole, and how it is cut."""

    file: ShowerFile
    first_row: int
    geometry: Geometry
    crop: Regrouping | None


class ShowerSource:
    """Rows of one or several files, in order, on one geometry; a context manager."""

    def __init__(
        self, files: Sequence[ShowerFile], geometry: Geometry, crop: Crop | None = None
    ) -> None:
        self.geometry = geometry
        self._pieces: list[_Piece] = []
        first_row = 0
        for file in files:
            self._pieces.append(_fit(file, first_row, geometry, crop))
            first_row += file.num_showers
        self.num_showers = first_row
        self.condition_names = files[0].condition_names
        for file in files[1:]:
            if file.condition_names != self.condition_names:
                raise DataError(
                    f"conditions differ: {', '.join(file.condition_names)} against "
                    f"{', '.join(self.condition_names)}",
                    where=f"{file.path} and {files[0].path}",
                    do="give files with the same conditions",
                )

    @property
    def files(self) -> tuple[ShowerFile, ...]:
        return tuple(piece.file for piece in self._pieces)

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(file.path for file in self.files)

    @property
    def layouts(self) -> tuple[str, ...]:
        return tuple(file.layout for file in self.files)

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the first file."""
        return self.files[0].attributes

    @property
    def description(self) -> str:
        """Say what the files tell of their origin: generator and particle."""
        words = [str(self.attributes[name]) for name in ("generator", "particle") if name in self.attributes]
        return ", ".join(words)

    @property
    def mantissa_bits(self) -> npt.NDArray[np.int64]:
        """Bits that each row was rounded to, (n,); 0 where it was not."""
        counts = [file.num_showers for file in self.files]
        return np.repeat([file.mantissa_bits for file in self.files], counts).astype(np.int64)

    @property
    def rows_per_block(self) -> int:
        """Rows whose decoded size is a block."""
        widest = max(piece.geometry.num_voxels for piece in self._pieces)
        return max(BLOCK_BYTES // (4 * widest), 1)

    def read(self, start: int, stop: int) -> Showers:
        """Read rows [start, stop), at least one, across file borders."""
        pieces = []
        for piece in self._pieces:
            first, last = piece.first_row, piece.first_row + piece.file.num_showers
            low, high = max(start, first), min(stop, last)
            if low < high:
                pieces.append(self._read_piece(piece, low - first, high - first))
        return pieces[0] if len(pieces) == 1 else concatenate(pieces)

    def blocks(self, num_rows: int | None = None) -> Iterator[Showers]:
        """Yield all rows in order, a bounded number at a time."""
        step = num_rows or self.rows_per_block
        for start in range(0, self.num_showers, step):
            yield self.read(start, min(start + step, self.num_showers))

    def locate(self, row: int) -> tuple[Path, int]:
        """Give the file of a row and its row number there."""
        for piece in reversed(self._pieces):
            if row >= piece.first_row:
                return piece.file.path, row - piece.first_row
        raise IndexError(row)

    def fingerprint(self) -> str:
        """Hash shapes and rows spread over each file; equal for copies, whatever their path."""
        digest = hashlib.sha256()
        for piece in self._pieces:
            count = piece.file.num_showers
            digest.update(f"{piece.file.layout} {piece.file.shape_words} {count}".encode())
            digest.update(str(piece.file.path.stat().st_size).encode())
            for row in np.unique(np.linspace(0, count - 1, _FINGERPRINT_ROWS).astype(int)):
                showers = piece.file.read(int(row), int(row) + 1, piece.geometry)
                digest.update(showers.energies.tobytes())
                for name in sorted(showers.conditions):
                    digest.update(showers.conditions[name].tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        """Close all files."""
        for file in self.files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_piece(self, piece: _Piece, start: int, stop: int) -> Showers:
        try:
            showers = piece.file.read(start, stop, piece.geometry)
        except OSError as error:
            raise DataError(
                f"rows {start} to {stop - 1} cannot be read: {error}",
                where=str(piece.file.path),
                do="copy or fetch the file again",
            ) from error
        if piece.crop is None:
            return showers
        return Showers(piece.crop.apply(showers.energies), showers.conditions, self.geometry)


def open_paths(
    paths: Sequence[Path | str], *, geometry: Geometry | None, crop: Crop | None = None
) -> ShowerSource:
    """Open files as one source. Without a geometry they must describe their detector themselves."""
    files: list[ShowerFile] = []
    try:
        for path in paths:
            files.append(open_file(Path(path).expanduser()))
        if geometry is None:
            geometry = _own_geometry(files[0])
        return ShowerSource(files, geometry, crop)
    except BaseException:
        for file in files:
            file.close()
        raise


def expand_paths(patterns: Sequence[str], *, where: str) -> list[Path]:
    """Expand `~` and globs, sorted; a pattern without a match is a DataError with near names."""
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern).expanduser()
        # A file whose own name holds *, ? or [ is taken as it is.
        matches = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(str(path)))]
        if not matches:
            beside = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
            near = get_close_matches(path.name, beside, n=3, cutoff=0.4)
            raise DataError(
                f"no such file: {pattern}",
                where=where,
                do="check the path" + (f"; near: {', '.join(near)}" if near else ""),
            )
        found += matches
    return found


def _own_geometry(file: ShowerFile) -> Geometry:
    if file.geometry is None:
        raise DataError(
            f"the layout {file.layout} does not describe its detector ({file.shape_words})",
            where=str(file.path),
            do="name the data set, such as --dataset ild_photons_core, or convert to native",
        )
    return file.geometry


def _fit(file: ShowerFile, first_row: int, geometry: Geometry, crop: Crop | None) -> _Piece:
    difference = file.mismatch(geometry)
    if difference is None:
        return _Piece(file, first_row, geometry, None)
    if crop is not None and file.mismatch(crop.parent) is None:
        piece = _Piece(file, first_row, crop.parent, crop.regrouping())
        _log_crop(piece, crop)
        return piece
    raise GeometryMismatch(
        f"another detector: expected {geometry.describe()}; found {file.shape_words}; first "
        f"difference: {difference}",
        where=str(file.path),
        do="give a file of this detector, or choose the data set that fits: calo-data info FILE "
        "shows which",
    )


def _log_crop(piece: _Piece, crop: Crop) -> None:
    assert piece.crop is not None
    showers = piece.file.read(0, min(piece.file.num_showers, 256), piece.geometry)
    whole = float(showers.energies.sum(dtype=np.float64))
    kept = float(piece.crop.apply(showers.energies).sum(dtype=np.float64))
    cells = ", ".join(f"{name} {start} to {stop - 1}" for name, (start, stop) in crop.ranges.items())
    share = f", {100 * kept / whole:.1f} % of the visible energy" if whole > 0 else ""
    _log.info("%s: %s cropped to cells %s%s", piece.file.path.name, crop.parent.name, cells, share)
