"""One or several files as one sequence of rows on one detector."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError
from calo_train.showers.fitting import (
    first_difference,
    fitting_words,
    points_inside,
    refuse,
)
from calo_train.showers.layouts import ShowerRows, Units, open_file
from calo_train.showers.showers import Showers, concatenate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from calo_train.geometry import Geometry, Regrouping

IndexArray = npt.NDArray[np.int64]

_BLOCK_BYTES = 32 << 20  # decoded size of a block in one streaming pass
_CONDITION_ROWS = 1 << 20  # conditions are read this many rows at a time
_FINGERPRINT_BYTES = 32 << 20  # decoded energies that enter a fingerprint
_FINGERPRINT_BLOCKS = 64
_CROP_PROBE_ROWS = 256  # showers that tell the share of energy in the core
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Crop:
    """A larger parent detector whose files may be cut to cells [start, stop) of named axes."""

    parent: Geometry
    ranges: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class FileRows:
    """A file of a source: which rows of the whole it holds, and how its showers are cut."""

    file: ShowerRows
    first_row: int
    geometry: Geometry  # of the file
    regrouping: Regrouping | None  # to the source's geometry; None where it is the same

    @property
    def end_row(self) -> int:
        return self.first_row + self.file.num_showers


class ShowerSource:
    """Rows of one or several files, in order, on one geometry; a context manager."""

    def __init__(
        self, files: Sequence[ShowerRows], geometry: Geometry, crop: Crop | None = None
    ) -> None:
        self.geometry = geometry
        self.parts: tuple[FileRows, ...] = ()
        for file in files:
            first_row = self.parts[-1].end_row if self.parts else 0
            self.parts += (_fit(file, first_row, geometry, crop),)
        self.num_showers = self.parts[-1].end_row
        self.condition_names = files[0].condition_names
        self._require_showers()

    @property
    def files(self) -> tuple[ShowerRows, ...]:
        return tuple(part.file for part in self.parts)

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
        """Say what the first file tells of its origin: generator and particle."""
        known = (self.attributes.get(name) for name in ("generator", "particle"))
        return ", ".join(str(words) for words in known if words)

    @property
    def recipe(self) -> str:
        """What decides simulated showers; empty for those of files."""
        return "".join(file.recipe for file in self.files)

    @property
    def row_bytes(self) -> int:
        """Decoded size of one shower with its conditions."""
        return 4 * (self.geometry.num_voxels + len(self.condition_names))

    @cached_property
    def mantissa_bits(self) -> IndexArray:
        """Bits that the energies of each row were rounded to, (n,); 0 where they were not."""
        bits = np.asarray([file.mantissa_bits for file in self.files], dtype=np.int64)
        return np.repeat(bits, [file.num_showers for file in self.files])

    def read(self, start: int, stop: int) -> Showers:
        """Read rows [start, stop), at least one, across file borders."""
        pieces = [
            self._read_part(part, max(start, part.first_row), min(stop, part.end_row))
            for part in self.parts
            if max(start, part.first_row) < min(stop, part.end_row)
        ]
        return pieces[0] if len(pieces) == 1 else concatenate(pieces)

    def blocks(self, num_rows: int | None = None) -> Iterator[Showers]:
        """Yield all rows in order in bounded memory; no block crosses a file border."""
        for start, stop in self.block_ranges(num_rows):
            yield self.read(start, stop)

    def block_ranges(self, num_rows: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield rows [start, stop) of consecutive blocks that share no chunk of a file.

        A block holds about `num_rows` rows (default: what decodes to 32 MiB), at least one chunk.
        """
        for part in self.parts:
            wanted = num_rows or _BLOCK_BYTES // (4 * part.geometry.num_voxels)
            chunk = part.file.chunk_rows
            step = max(wanted // chunk, 1) * chunk
            for start in range(part.first_row, part.end_row, step):
                yield start, min(start + step, part.end_row)

    def locate(self, row: int) -> tuple[ShowerRows, int]:
        """Give the file of a row and its row number there."""
        part = next(part for part in self.parts if row < part.end_row)
        return part.file, row - part.first_row

    def fingerprint(self) -> str:
        """Hash what the showers are: all conditions, and energies spread over all rows.

        Equal for copies under other names, in other layouts or recompressed. Energies enter fully
        up to 32 MiB decoded; beyond that blocks of rows, evenly spaced, stand for all. Of
        simulated showers it is the recipe: another processor may round their last bits otherwise.
        """
        digest = hashlib.sha256(f"{self.geometry.layer_shapes} {self.num_showers}".encode())
        if self.recipe:
            digest.update(self.recipe.encode())
            return digest.hexdigest()
        for part in self.parts:
            for start in range(0, part.file.num_showers, _CONDITION_ROWS):
                stop = min(start + _CONDITION_ROWS, part.file.num_showers)
                conditions = part.file.read_conditions(start, stop)
                for name in sorted(conditions):
                    digest.update(conditions[name].tobytes())
        for start, stop in self._probed_ranges():
            digest.update(self.read(start, stop).energies.tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        """Close all files."""
        for file in self.files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _probed_ranges(self) -> list[tuple[int, int]]:
        num_rows = max(_FINGERPRINT_BYTES // (4 * self.geometry.num_voxels), _FINGERPRINT_BLOCKS)
        if self.num_showers <= num_rows:
            return list(self.block_ranges())
        length = num_rows // _FINGERPRINT_BLOCKS
        starts = np.linspace(0, self.num_showers - length, _FINGERPRINT_BLOCKS).astype(int)
        return [(start, start + length) for start in starts.tolist()]

    def _read_part(self, part: FileRows, start: int, stop: int) -> Showers:
        showers = part.file.read(start - part.first_row, stop - part.first_row, part.geometry)
        if part.regrouping is None:
            return Showers(showers.energies, showers.conditions, self.geometry)
        return Showers(part.regrouping.apply(showers.energies), showers.conditions, self.geometry)

    def _require_showers(self) -> None:
        for file in self.files:
            if file.num_showers == 0:
                raise DataError("no showers", where=str(file.path), do="give a file with rows")
            if set(file.condition_names) != set(self.condition_names):
                raise DataError(
                    f"conditions differ: {', '.join(file.condition_names)} against "
                    + ", ".join(self.condition_names),
                    where=f"{file.path} and {self.paths[0]}",
                    do="give files with the same conditions",
                )


def open_paths(
    paths: Sequence[Path | str],
    *,
    geometry: Geometry | None,
    crop: Crop | None = None,
    units: Units | None = None,
) -> ShowerSource:
    """Open files as one source; without a geometry they must describe their detector."""
    files: list[ShowerRows] = []
    try:
        for path in paths:
            files.append(open_file(Path(path).expanduser(), units=units))  # noqa: PERF401 - all files so far are closed on an error
        return ShowerSource(files, geometry or _own_geometry(files[0]), crop)
    except BaseException:
        for file in files:
            file.close()
        raise


def _own_geometry(file: ShowerRows) -> Geometry:
    if file.geometry is not None:
        return file.geometry
    raise DataError(
        f"layout {file.layout} does not say of which detector its {file.shape_words} are",
        where=str(file.path),
        do=f"name its geometry or data set; {fitting_words(file)}",
    )


def _fit(file: ShowerRows, first_row: int, geometry: Geometry, crop: Crop | None) -> FileRows:
    if first_difference(geometry, file) is None:
        _log_outside(file, geometry)
        return FileRows(file, first_row, geometry, None)
    if crop is None or first_difference(crop.parent, file) is not None:
        raise refuse(file, geometry, crop.parent if crop else None)
    core, regrouping = crop.parent.crop(**crop.ranges)
    geometry.require_equal(
        core, where="dataset.crop", do="choose ranges of the parent that give the core's cells"
    )
    _log_crop(file, crop, regrouping)
    return FileRows(file, first_row, crop.parent, regrouping)


def _log_outside(file: ShowerRows, geometry: Geometry) -> None:
    """Say what share of a point cloud's energy lies in no voxel, in its first showers."""
    if file.columns.has_points:
        _, inside = points_inside(geometry, file)
        if inside < 1:
            _log.warning(
                "%s: %.2g %% of the energy of its first showers lies outside the cells of %s and "
                "is left out",
                file.path.name,
                100 * (1 - inside),
                geometry.name,
            )


def _log_crop(file: ShowerRows, crop: Crop, regrouping: Regrouping) -> None:
    """Say which cells of a file are kept, and what share of energy in its first showers."""
    energies = file.read(0, min(file.num_showers, _CROP_PROBE_ROWS), crop.parent).energies
    whole = float(energies.sum(dtype=np.float64))
    kept = float(regrouping.apply(energies).sum(dtype=np.float64))
    cells = ", ".join(f"{name} {first} to {end - 1}" for name, (first, end) in crop.ranges.items())
    share = f", {100 * kept / whole:.1f} % of the visible energy" if whole > 0 else ""
    _log.info("%s: %s cropped to cells %s%s", file.path.name, crop.parent.name, cells, share)
