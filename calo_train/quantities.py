"""Dimensional values as people write them: `50GeV`, `0.1MeV`, `10keV`, `4GiB`, `log:1:1000GeV`.

Inside the program energies are MeV, lengths mm, angles rad and sizes bytes; a unit exists only at
a door (command line, config, message), and it is converted here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from calo_train.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import numpy.typing as npt

MEV_PER_GEV = 1000.0
_SCALES: dict[str, dict[str, float]] = {
    "energy": {"eV": 1e-6, "keV": 1e-3, "MeV": 1.0, "GeV": MEV_PER_GEV, "TeV": 1e6},
    "length": {"um": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1000.0},
    "angle": {"rad": 1.0, "mrad": 1e-3, "deg": math.pi / 180.0},
    "size": {
        "B": 1.0,
        "KiB": 2.0**10,
        "MiB": 2.0**20,
        "GiB": 2.0**30,
        "kB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
    },
    "duration": {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0},
}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_QUANTITY = re.compile(rf"^\s*({_NUMBER})\s*([A-Za-z]+)\s*$")
_VALUES = re.compile(rf"^\s*({_NUMBER}(?:\s*,\s*{_NUMBER})+)\s*([A-Za-z]+)\s*$")
_SPECTRUM = re.compile(rf"^\s*(log:)?({_NUMBER}):({_NUMBER})\s*([A-Za-z]+)\s*$")

Dimension = Literal["energy", "length", "angle", "size", "duration"]


def parse_quantity(text: str, dimension: Dimension, *, where: str) -> float:
    """Convert `50GeV` and the like to house units; a missing or foreign unit is a UsageError."""
    match = _QUANTITY.match(str(text))
    if match is None:
        raise UsageError(
            f"'{text}' is not {_article(dimension)} with its unit",
            where=where,
            do=f"write a number and a unit, such as {_example(dimension)}",
        )
    return float(match.group(1)) * _scale(match.group(2), dimension, where=where)


@dataclass(frozen=True)
class Spectrum:
    """A law for one condition, in house units: fixed, uniform or log-uniform in [low, high].

    With `values`, rising from low to high, it takes these alone, all equally likely.
    """

    low: float
    high: float
    is_logarithmic: bool = False
    values: tuple[float, ...] = ()

    def quantiles(self, probability: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Give the values below which the shares `probability` (n,) of the law lie."""
        if self.values:
            import numpy as np

            index = np.minimum((probability * len(self.values)).astype(int), len(self.values) - 1)
            chosen: npt.NDArray[np.float64] = np.asarray(self.values)[index]
            return chosen
        if self.is_logarithmic:
            values: npt.NDArray[np.float64] = self.low * (self.high / self.low) ** probability
            return values
        return self.low + (self.high - self.low) * probability


def parse_spectrum(text: str, dimension: Dimension, *, where: str) -> Spectrum:
    """Read `50GeV` (fixed), `10:100GeV` (uniform), `log:1:1000GeV` or `1,2,4GeV` (these)."""
    listed = _VALUES.match(str(text))
    if listed is not None:
        scale = _scale(listed.group(2), dimension, where=where)
        return discrete_spectrum(float(value) * scale for value in listed.group(1).split(","))
    match = _SPECTRUM.match(str(text))
    if match is None:
        value = parse_quantity(text, dimension, where=where)
        return Spectrum(value, value)
    scale = _scale(match.group(4), dimension, where=where)
    spectrum = Spectrum(
        float(match.group(2)) * scale, float(match.group(3)) * scale, match.group(1) is not None
    )
    if not spectrum.low < spectrum.high or (spectrum.is_logarithmic and spectrum.low <= 0):
        raise UsageError(
            f"'{text}' is not a range",
            where=where,
            do="write the lower end first, and above zero for log:, such as 10:100GeV",
        )
    return spectrum


def discrete_spectrum(values: Iterable[float]) -> Spectrum:
    """Give the law of values that are equally likely, at least one; each counts once."""
    rising = tuple(sorted(set(values)))
    return Spectrum(rising[0], rising[-1], values=rising)


def format_energy(energy: float) -> str:
    """Write an energy in MeV with the unit that reads best, such as `50 GeV` or `15.15 keV`."""
    for unit in ("TeV", "GeV", "MeV", "keV"):
        scale = _SCALES["energy"][unit]
        if abs(energy) >= scale:
            return f"{energy / scale:.4g} {unit}"
    return f"{energy / _SCALES['energy']['eV']:.4g} eV" if energy else "0 MeV"


def format_size(num_bytes: float) -> str:
    """Write a size in bytes as `412 MiB`."""
    for unit in ("GiB", "MiB", "KiB"):
        if abs(num_bytes) >= _SCALES["size"][unit]:
            return f"{num_bytes / _SCALES['size'][unit]:.3g} {unit}"
    return f"{num_bytes:.0f} B"


def format_duration(seconds: float) -> str:
    """Write a duration as `3 min 20 s`; under ten seconds one decimal is kept."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {left:02d} s" if minutes else f"{left} s"


def _scale(unit: str, dimension: Dimension, *, where: str) -> float:
    scales = _SCALES[dimension]
    if unit not in scales:
        raise UsageError(
            f"'{unit}' is not a unit of {dimension}",
            where=where,
            do=f"use one of {', '.join(scales)}",
        )
    return scales[unit]


def _article(dimension: Dimension) -> str:
    return f"an {dimension}" if dimension[0] in "aeiou" else f"a {dimension}"


def _example(dimension: Dimension) -> str:
    examples = {
        "energy": "50GeV",
        "length": "5mm",
        "angle": "0.1rad",
        "size": "4GiB",
        "duration": "2h",
    }
    return examples[dimension]
