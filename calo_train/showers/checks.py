"""Checks of the showers themselves, in the same pass that gathers statistics.

Nothing is repaired or scaled by guess: wrong units and impossible values are refused with where
they are; bad rows are dropped only when the data set says so, and counted. Showers without energy
are showers like others: they are kept and counted.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError
from calo_train.quantities import format_energy, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calo_train.quantities import Spectrum
    from calo_train.showers.dataset import DatasetConfig
    from calo_train.showers.layouts import ShowerRows
    from calo_train.showers.showers import FloatArray, Showers
    from calo_train.showers.source import ShowerSource

IndexArray = npt.NDArray[np.int64]

_SHOWN_ROWS = 5
_ENOUGH_ROWS = 100  # to judge units by; a whole file is judged however short it is
_RANGE_SLACK = 0.1  # incident energies may leave the stated range by this share
_VALUE_RTOL = 1e-3  # of listed energies, which may have been written rounded
_FRACTION_FACTOR = 10.0  # by which the mean visible fraction may be off; a unit is 1000
_UNIT_TOLERANCE = 0.7  # decades around a power of 1000 that count as a wrong unit
_UNITS = ("eV", "keV", "MeV", "GeV", "TeV")
_log = logging.getLogger(__name__)


@dataclass
class _Found:
    """Rows with one kind of problem: how many, and where the first ones are."""

    count: int = 0
    first: list[int] = field(default_factory=list)


@dataclass
class _Totals:
    """What units are judged by, over the good showers of one file; energies in MeV."""

    file: ShowerRows
    num_showers: int = 0
    visible: float = 0.0
    incident: float = 0.0
    ends: tuple[float, float] = (math.inf, -math.inf)
    num_inside: dict[str, int] = field(default_factory=dict)  # unit -> in range if it were that
    num_stated: int = 0  # at energies that the data set is said to hold

    def add(self, visible: npt.NDArray[np.float64], incident: FloatArray) -> None:
        self.num_showers += len(incident)
        self.visible += float(visible.sum())
        self.incident += float(incident.sum(dtype=np.float64))
        low, high = self.ends
        self.ends = (min(low, float(incident.min())), max(high, float(incident.max())))

    def count_inside(self, incident: FloatArray, spectrum: Spectrum) -> None:
        read_as = _scale(self.file.unit_of("incident_energy"))
        low, high = spectrum.low * (1 - _RANGE_SLACK), spectrum.high * (1 + _RANGE_SLACK)
        for unit in _UNITS:
            energies = incident * (_scale(unit) / read_as)
            inside = np.count_nonzero((energies >= low) & (energies <= high))
            self.num_inside[unit] = self.num_inside.get(unit, 0) + int(inside)
        self.num_stated += int(np.count_nonzero(_are_stated(incident, spectrum)))


class CheckedPass:
    """One pass over a source: gives good showers block by block and remembers which they were."""

    def __init__(self, source: ShowerSource, config: DatasetConfig) -> None:
        self.num_empty = 0  # good showers without any energy
        self.problems: dict[tuple[str, str], _Found] = {}  # (kind, condition or "") -> rows
        self._source = source
        self._config = config
        self._spectrum = config.energy_spectrum
        self._kept: list[IndexArray] = []
        self._leaves_range: ShowerRows | None = None

    def blocks(self) -> Iterator[tuple[IndexArray, Showers]]:
        """Yield the rows and showers of each block that are good.

        Wrong units raise DataError as soon as they are clear, bad rows at the end, all counted.
        """
        totals: _Totals | None = None
        for start, stop in self._source.block_ranges():
            file, _ = self._source.locate(start)
            if totals is None or totals.file is not file:
                self._judge(totals)
                totals = _Totals(file)
            showers = self._source.read(start, stop)
            visible, is_good = self._examine(showers, start)
            rows = np.arange(start, stop)[is_good]
            self._kept.append(rows)
            if not len(rows):
                continue
            good = showers if is_good.all() else showers.rows(np.flatnonzero(is_good))
            self._measure(totals, visible[is_good], good.conditions["incident_energy"])
            yield rows, good
        self._judge(totals)
        self._require_good()

    @property
    def valid_rows(self) -> IndexArray:
        """Rows that passed, sorted; complete after `blocks` is exhausted."""
        return np.concatenate(self._kept) if self._kept else np.empty(0, dtype=np.int64)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped, for run.yaml and reports."""
        return tuple(
            f"dropped {_showers(found.count)} with {kind}"
            for (kind, _), found in self.problems.items()
        )

    def _examine(
        self, showers: Showers, start: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Give the visible energy of each shower and whether all its values are possible."""
        with np.errstate(invalid="ignore", over="ignore"):  # of the very values looked for
            visible = showers.energies.sum(axis=1, dtype=np.float64)
            problems = {
                ("NaN or infinite voxel energies", ""): ~np.isfinite(visible),
                ("negative voxel energies", ""): showers.energies.min(axis=1) < 0,
            }
        for name, values in showers.conditions.items():
            problems[f"{name} that is NaN or infinite", name] = ~np.isfinite(values)
        incident = showers.conditions["incident_energy"]
        problems["incident_energy that is not positive", "incident_energy"] = incident <= 0
        is_good = np.ones(len(showers), dtype=bool)
        for kind, is_bad in problems.items():
            self._record(kind, np.flatnonzero(is_bad & is_good) + start)
            is_good &= ~is_bad
        return visible, is_good

    def _record(self, kind: tuple[str, str], rows: IndexArray) -> None:
        if len(rows):
            found = self.problems.setdefault(kind, _Found())
            found.count += len(rows)
            found.first += rows[: _SHOWN_ROWS - len(found.first)].tolist()

    def _measure(
        self, totals: _Totals, visible: npt.NDArray[np.float64], incident: FloatArray
    ) -> None:
        was_enough = totals.num_showers >= _ENOUGH_ROWS
        self.num_empty += int(np.count_nonzero(visible == 0))
        totals.add(visible, incident)
        if self._spectrum is not None:
            totals.count_inside(incident, self._spectrum)
        if not was_enough and totals.num_showers >= _ENOUGH_ROWS:
            self._judge(totals)

    def _judge(self, totals: _Totals | None) -> None:
        if totals is None or totals.num_showers == 0:
            return
        if self._spectrum is not None:
            self._judge_incident(totals, self._spectrum)
        if self._config.visible_fraction is not None:
            self._judge_visible(totals, self._config.visible_fraction)

    def _judge_incident(self, totals: _Totals, spectrum: Spectrum) -> None:
        file, inside = totals.file, totals.num_inside
        read_as = file.unit_of("incident_energy")
        likely = max(_UNITS, key=lambda unit: (inside[unit], unit == read_as))
        listed = f", {len(spectrum.values)} values" if spectrum.values else ""
        stated = f"{self._config.name} holds {_ends(spectrum.low, spectrum.high)}{listed}"
        if likely != read_as and 2 * inside[read_as] < totals.num_showers <= 1.1 * inside[likely]:
            raise DataError(
                f"incident energies look like {likely}, layout {file.layout} stores {read_as}",
                where=f"{file.path}: {file.key_of('incident_energy')}, "
                f"{_ends(*totals.ends)} as {read_as}; {stated}",
                do=_convert(file, self._config, "--energy-unit", likely),
            )
        if totals.num_stated < totals.num_showers and self._leaves_range is not file:
            self._leaves_range = file
            _log.warning(
                "%s: incident energies of %s leave what %s; what is trained covers what the "
                "file holds",
                file.path.name,
                _ends(*totals.ends),
                stated,
            )

    def _judge_visible(self, totals: _Totals, expected: float) -> None:
        file, found = totals.file, totals.visible / totals.incident
        if expected / _FRACTION_FACTOR <= found <= expected * _FRACTION_FACTOR:
            return
        read_as = file.unit_of()
        unit = _likely_unit(found / expected, read_as)
        known = "set dataset.visible_fraction if this is another detector"
        raise DataError(
            f"voxel energies look like {unit or 'another unit'}, layout {file.layout} stores "
            f"{read_as}",
            where=f"{file.path}: {file.key_of()}, showers hold {found:.3g} of their incident "
            f"energy; {self._config.name} holds about {expected:.3g}",
            do=f"{_convert(file, self._config, '--voxel-unit', unit)}; or {known}"
            if unit
            else f"check the units of the file, or {known}",
        )

    def _require_good(self) -> None:
        if not self.problems:
            return
        if self._config.invalid_showers == "drop" and len(self.valid_rows):
            for note in self.notes:
                _log.warning("%s; results are of the others", note)
            return
        raise DataError(
            "; ".join(
                f"{_showers(f.count)} with {kind}" for (kind, _), f in self.problems.items()
            ),
            where="; ".join(self._places()),
            do="mend the file, or train on the others with dataset.invalid_showers=drop"
            if len(self.valid_rows)
            else "mend the file; no shower in it is good",
        )

    def _places(self) -> Iterator[str]:
        """Name file, key and first rows of each kind of problem; rows as counted in the file."""
        for (_, condition), found in self.problems.items():
            file, _ = self._source.locate(found.first[0])
            here = [self._source.locate(row) for row in found.first]
            rows = ", ".join(str(row) for other, row in here if other is file)
            yield f"{file.path}: {file.key_of(condition or None)}, first in rows {rows}"


def valid_rows(source: ShowerSource, config: DatasetConfig) -> IndexArray:
    """Give the rows that training may use: all, or those that pass where bad ones are dropped."""
    if config.invalid_showers == "refuse":
        return np.arange(source.num_showers)
    checked = CheckedPass(source, config)
    for _ in checked.blocks():
        pass
    return checked.valid_rows


def _likely_unit(ratio: float, read_as: str) -> str | None:
    """Name the unit that values were in, from how far they are off when read as `read_as`."""
    if ratio <= 0 or read_as not in _UNITS:
        return None
    steps = round(math.log10(ratio) / 3)
    index = _UNITS.index(read_as) - steps
    is_near = abs(math.log10(ratio) - 3 * steps) < _UNIT_TOLERANCE
    return _UNITS[index] if steps and is_near and 0 <= index < len(_UNITS) else None


def _convert(file: ShowerRows, config: DatasetConfig, flag: str, unit: str) -> str:
    dataset = "" if file.geometry is not None else f" --dataset {quote(config.name)}"
    target = file.path.with_name(f"{file.path.stem}_converted.h5")
    return (
        f"calo-data convert {quote(str(file.path))} {flag} {unit}{dataset} "
        f"-o {quote(str(target))}    (nothing was changed)"
    )


def _are_stated(energies: FloatArray, spectrum: Spectrum) -> npt.NDArray[np.bool_]:
    """Say of each energy whether the data set is known to hold it, with some slack."""
    if spectrum.values:
        known = np.asarray(spectrum.values)
        nearest = known[np.abs(energies[:, None] - known).argmin(axis=1)]
        is_near: npt.NDArray[np.bool_] = np.isclose(energies, nearest, rtol=_VALUE_RTOL, atol=0.0)
        return is_near
    low, high = spectrum.low * (1 - _RANGE_SLACK), spectrum.high * (1 + _RANGE_SLACK)
    return (energies >= low) & (energies <= high)


def _ends(low: float, high: float) -> str:
    return f"{format_energy(low)} to {format_energy(high)}"


def _showers(count: int) -> str:
    return f"{count} shower" if count == 1 else f"{count} showers"


def _scale(unit: str) -> float:
    return parse_quantity(f"1{unit}", "energy", where="unit of incident_energy")
