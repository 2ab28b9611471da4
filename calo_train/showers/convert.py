"""One file of showers into another: layout, stated units, crop, or simply stored to be read fast.

The original is only read. The result appears under its name when it is whole and has been read
back; it carries a mark of what it was made from, by which a second run knows that it is done.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calo_train import __version__
from calo_train.atomic_files import replacing, require_free_space, sha256_of
from calo_train.errors import DataError, MachineError, UsageError
from calo_train.geometry.sources import geometry_to_mapping
from calo_train.progress import Progress
from calo_train.showers.layouts import create_showers, open_file
from calo_train.showers.source import open_paths

if TYPE_CHECKING:
    from pathlib import Path

    from calo_train.geometry import Geometry
    from calo_train.showers.layouts import Units
    from calo_train.showers.showers import Showers
    from calo_train.showers.source import Crop, ShowerSource

_MARK = "conversion_mark"
_UNIT_RTOL = 2.0**-22  # a unit is changed in float64 and rounded to float32 at most twice
_ANGLES = ("polar_angle", "azimuth")
_DIRECTION_ATOL = 2.0**-21  # of angles up to pi in float32, and of unit vectors in float32
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Conversion:
    """What is asked for; `layout` None keeps that of the source, `geometry` None its own."""

    source: Path
    target: Path
    layout: str | None = None
    units: Units | None = None
    geometry: Geometry | None = None
    crop: Crop | None = None


@dataclass(frozen=True)
class Converted:
    """What there is now; `was_done` when an earlier run had written it."""

    path: Path
    layout: str
    num_showers: int
    was_done: bool


def convert(request: Conversion, *, force: bool) -> Converted:
    """Write the target unless an equal one is there; `force` replaces a different one."""
    if request.target.exists() and request.target.samefile(request.source):
        raise UsageError(
            "the output is the input", where=str(request.target), do="name another file with -o"
        )
    mark = _mark(request)
    if request.target.exists():
        done = _already_done(request.target, mark)
        if done is not None:
            return done
        if not force:
            raise UsageError(
                "the output exists and was made from something else",
                where=str(request.target),
                do="choose another name with -o, or replace it with --force",
            )
        _log.info("replacing %s", request.target)
    with open_paths(
        [request.source], geometry=request.geometry, crop=request.crop, units=request.units
    ) as source:
        layout = request.layout or source.layouts[0]
        require_free_space(
            request.target.parent, request.source.stat().st_size, purpose="the converted file"
        )
        with replacing(request.target) as temporary:
            _write(source, temporary, layout, _attributes(source, mark))
            _compare(source, temporary, request.target)
        return Converted(request.target, layout, source.num_showers, was_done=False)


def _mark(request: Conversion) -> str:
    """Hash what decides the content of the target: the source's bytes and what is done to them."""
    if not request.source.is_file():
        raise DataError("no such file", where=str(request.source), do="check the path")
    units = request.units
    settings = {
        "source": sha256_of(request.source),
        "layout": request.layout,
        "units": None if units is None else [units.incident_energy, units.voxel_energies],
        "geometry": None if request.geometry is None else geometry_to_mapping(request.geometry),
        "crop": None if request.crop is None else request.crop.ranges,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _already_done(target: Path, mark: str) -> Converted | None:
    try:
        written = open_file(target)
    except DataError:
        return None
    try:
        if written.attributes.get(_MARK) != mark:
            return None
        return Converted(target, written.layout, written.num_showers, was_done=True)
    finally:
        written.close()


def _attributes(source: ShowerSource, mark: str) -> dict[str, Any]:
    """Keep where the showers come from and add what was done to them."""
    kept = dict(source.attributes)
    kept.pop("energy_unit", None)  # of the old file's arrays; the new ones say their own
    bits = source.files[0].mantissa_bits
    if bits:
        kept["mantissa_bits"] = bits
    return {
        **kept,
        "converted_from": source.paths[0].name,
        "converted_by": f"calo-train {__version__}",
        _MARK: mark,
    }


def _write(source: ShowerSource, path: Path, layout: str, attributes: dict[str, Any]) -> None:
    with (
        create_showers(
            path,
            layout,
            source.geometry,
            attributes=attributes,
            condition_names=source.condition_names,
        ) as writer,
        Progress("converting", source.num_showers, unit="showers") as progress,
    ):
        for showers in source.blocks():
            writer.append(showers)
            progress.advance(len(showers))


def _compare(source: ShowerSource, path: Path, target: Path) -> None:
    """Read back what was written and compare it, row by row, with the source."""
    with open_paths([path], geometry=source.geometry) as written:
        start = 0
        for expected in source.blocks():
            found = written.read(start, start + len(expected))
            if not _is_equal(expected, found):
                raise MachineError(
                    f"rows {start} to {start + len(expected) - 1} read back differently",
                    where=str(target),
                    do="run the command again; if it happens again, check the disk",
                )
            start += len(expected)


def _is_equal(expected: Showers, found: Showers) -> bool:
    pairs = [(expected.energies, found.energies)]
    angles = _ANGLES if all(name in expected.conditions for name in _ANGLES) else ()
    pairs += [
        (values, found.conditions[name])
        for name, values in expected.conditions.items()
        if name not in angles
    ]
    is_equal = all(np.allclose(a, b, rtol=_UNIT_RTOL, atol=0.0, equal_nan=True) for a, b in pairs)
    if not angles:
        return is_equal
    # A layout may hold a direction instead, in which pi is -pi and the pole has no azimuth.
    return is_equal and np.allclose(
        _direction(expected), _direction(found), rtol=0.0, atol=_DIRECTION_ATOL, equal_nan=True
    )


def _direction(showers: Showers) -> npt.NDArray[np.float64]:
    polar, azimuth = (showers.conditions[name].astype(np.float64) for name in _ANGLES)
    across = np.sin(polar)
    return np.stack([across * np.cos(azimuth), across * np.sin(azimuth), np.cos(polar)])
