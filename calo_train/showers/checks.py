"""Checks of the showers themselves, in the same pass that gathers statistics.

Nothing is repaired or scaled by guess: wrong units and impossible values are refused with where
they are; bad rows are dropped only when the data set says so, and counted.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError
from calo_train.quantities import format_energy
from calo_train.showers.dataset import DatasetConfig
from calo_train.showers.showers import Showers
from calo_train.showers.source import ShowerSource

_SHOWN_ROWS = 5
_RANGE_SLACK = 0.1  # incident energies may leave the stated range by this share
_FRACTION_FACTOR = 10.0
_UNITS = ("eV", "keV", "MeV", "GeV", "TeV")
_log = logging.getLogger(__name__)
BoolArray = npt.NDArray[np.bool_]

_PROBLEMS: dict[str, Callable[[Showers], BoolArray]] = {
    "NaN or infinite voxel energies": lambda s: ~np.isfinite(s.energies).all(axis=1),
    "negative voxel energies": lambda s: (s.energies < 0).any(axis=1),
    "incident energies that are not positive and finite": lambda s: ~(
        np.isfinite(s.conditions["incident_energy"]) & (s.conditions["incident_energy"] > 0)
    ),
    "other conditions that are not finite": lambda s: ~np.all(
        [np.isfinite(values) for values in s.conditions.values()], axis=0
    ),
}


@dataclass
class CheckedPass:
    """One pass over a source: yields good rows in blocks, remembers which rows they were."""

    source: ShowerSource
    config: DatasetConfig
    counts: dict[str, int] = field(default_factory=dict)
    _first_rows: dict[str, list[int]] = field(default_factory=dict)
    _kept: list[npt.NDArray[np.int64]] = field(default_factory=list)
    _energy_ends: tuple[float, float] = (math.inf, -math.inf)
    _visible: float = 0.0
    _incident: float = 0.0

    def blocks(self) -> Iterator[tuple[npt.NDArray[np.int64], Showers]]:
        """Yield rows and checked showers; the end raises DataError for what the whole shows."""
        start = 0
        for showers in self.source.blocks():
            bad = self._bad_rows(showers, start)
            rows = np.arange(start, start + len(showers))
            start += len(showers)
            good = showers if not bad.any() else showers.rows(np.flatnonzero(~bad))
            self._kept.append(rows[~bad])
            if len(good):
                self._measure(good)
                yield rows[~bad], good
        self._require_good()
        self._require_units()

    @property
    def valid_rows(self) -> npt.NDArray[np.int64]:
        """Rows that passed, sorted; complete after `blocks` is exhausted."""
        return np.concatenate(self._kept) if self._kept else np.empty(0, dtype=np.int64)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped, for run.yaml and reports."""
        return tuple(f"dropped {count} showers with {name}" for name, count in self.counts.items())

    def _bad_rows(self, showers: Showers, start: int) -> BoolArray:
        bad = np.zeros(len(showers), dtype=bool)
        for name, find in _PROBLEMS.items():
            found = find(showers) & ~bad
            if found.any():
                rows = (np.flatnonzero(found) + start).tolist()
                self.counts[name] = self.counts.get(name, 0) + len(rows)
                self._first_rows.setdefault(name, []).extend(rows[:_SHOWN_ROWS])
                bad |= found
        return bad

    def _measure(self, showers: Showers) -> None:
        incident = showers.conditions["incident_energy"]
        low, high = self._energy_ends
        self._energy_ends = (min(low, float(incident.min())), max(high, float(incident.max())))
        self._visible += float(showers.energies.sum(dtype=np.float64))
        self._incident += float(incident.sum(dtype=np.float64))

    def _require_good(self) -> None:
        if not self.counts:
            return
        if self.config.invalid_showers == "drop" and len(self.valid_rows):
            for note in self.notes:
                _log.warning("%s; results are of the others", note)
            return
        listed = "; ".join(f"{count} showers with {name}" for name, count in self.counts.items())
        name, rows = next(iter(self._first_rows.items()))
        path, _ = self.source.locate(rows[0])
        shown = [self.source.locate(row)[1] for row in rows[:_SHOWN_ROWS]]
        raise DataError(
            listed,
            where=f"{path}: {_key_of(self.source, path, name)}, first rows {shown}",
            do="mend the file, or train on the others with dataset.invalid_showers=drop",
        )

    def _require_units(self) -> None:
        low, high = self._energy_ends
        path = self.source.paths[0]
        spectrum = self.config.energy_spectrum
        if spectrum is not None:
            inside = spectrum.low * (1 - _RANGE_SLACK) <= low <= high <= spectrum.high * (1 + _RANGE_SLACK)
            ratio = math.sqrt(low * high / (spectrum.low * spectrum.high))
            unit = _likely_unit(ratio, self.source.files[0].incident_unit)
            if not inside and unit is not None:
                raise DataError(
                    f"incident energies look like {unit}: {format_energy(low)} to "
                    f"{format_energy(high)} as this layout reads them",
                    where=f"{path}: {_key_of(self.source, path, 'incident')}; {self.config.name} "
                    f"holds {format_energy(spectrum.low)} to {format_energy(spectrum.high)}",
                    do=f"calo-data convert {path} --incident-unit {unit} -o CONVERTED.h5   "
                    "(nothing was changed)",
                )
            if not inside:
                _log.warning(
                    "incident energies of %s to %s leave the range that %s states (%s to %s); the "
                    "generator will cover what the data hold",
                    format_energy(low), format_energy(high), self.config.name,
                    format_energy(spectrum.low), format_energy(spectrum.high),
                )  # fmt: skip
        self._require_visible_fraction(str(path))

    def _require_visible_fraction(self, path: str) -> None:
        expected = self.config.visible_fraction
        if expected is None or self._visible <= 0:
            return
        found = self._visible / self._incident
        if expected / _FRACTION_FACTOR <= found <= expected * _FRACTION_FACTOR:
            return
        unit = _likely_unit(found / expected, self.source.files[0].voxel_unit)
        raise DataError(
            f"voxel energies look like {unit or 'another unit'}: showers hold {found:.3g} of their "
            f"incident energy, expected about {expected:.3g}",
            where=f"{path}: {self.source.files[0].energies_dataset.name}",
            do=f"calo-data convert {path} --voxel-unit {unit or 'UNIT'} -o CONVERTED.h5   "
            "(nothing was changed), or set dataset.visible_fraction for another detector",
        )


def _likely_unit(ratio: float, read_as: str) -> str | None:
    """Name the unit that values were really in, from how far off they are when read as `read_as`."""
    if ratio <= 0:
        return None
    steps = round(math.log10(ratio) / 3)
    index = _UNITS.index(read_as) - steps
    is_near = abs(math.log10(ratio) - 3 * steps) < 0.7
    return _UNITS[index] if steps and is_near and 0 <= index < len(_UNITS) else None


def _key_of(source: ShowerSource, path: object, problem: str) -> str:
    file = next(file for file in source.files if file.path == path)
    if "incident" not in problem:
        return str(file.energies_dataset.name)
    return {"getting_high": "energy", "calochallenge": "/incident_energies"}.get(
        file.layout, "/conditions/incident_energy"
    )


def valid_rows(source: ShowerSource, config: DatasetConfig) -> npt.NDArray[np.int64]:
    """Give the rows that training may use: all, or those that pass where bad ones are dropped."""
    if config.invalid_showers == "refuse":
        return np.arange(source.num_showers)
    checked = CheckedPass(source, config)
    for _ in checked.blocks():
        pass
    return checked.valid_rows
