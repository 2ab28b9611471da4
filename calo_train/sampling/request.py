"""What is asked for: how many showers, under which conditions, from which seed, which shard."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calo_train.errors import UsageError, nearest_names
from calo_train.quantities import Spectrum, format_energy
from calo_train.sampling.noise import CONDITIONS, uniforms

if TYPE_CHECKING:
    from calo_train.families.generator import Generator

FloatArray = npt.NDArray[np.float64]
_DOMAIN_SLACK = 0.01  # of its width: a finite training sample does not reach the ends of its law


@dataclass(frozen=True)
class Shard:
    """Piece `index`, from 0, of `count` pieces of a request."""

    index: int = 0
    count: int = 1

    def rows(self, num_showers: int) -> tuple[int, int]:
        """Give the showers [first, end) of this piece."""
        ends = [num_showers * number // self.count for number in (self.index, self.index + 1)]
        return ends[0], ends[1]


@dataclass(frozen=True, eq=False)
class SampleRequest:
    """A request; each condition follows a law or is given shower by shower, in house units."""

    num_showers: int
    laws: Mapping[str, Spectrum] = field(default_factory=dict)
    given: Mapping[str, FloatArray] = field(default_factory=dict)
    seed: int = 0
    shard: Shard = field(default_factory=Shard)
    is_extrapolating: bool = False

    def __post_init__(self) -> None:
        if self.num_showers < 0:
            raise UsageError(f"-n {self.num_showers} is negative", where="-n", do="give 0 or more")
        if not 0 <= self.seed < 2**63:
            raise UsageError(
                f"seed {self.seed} is out of range", where="--seed", do="give 0 to 2^63 - 1"
            )

    @property
    def rows(self) -> tuple[int, int]:
        """Showers [first, end) that this shard draws."""
        return self.shard.rows(self.num_showers)

    def conditions(self, first: int, count: int) -> dict[str, FloatArray]:
        """Give the conditions of showers first .. first + count; beyond the end the last given."""
        names = sorted({*self.laws, *self.given})
        uniform = uniforms(self.seed, first, count, len(names), purpose=CONDITIONS)
        index = np.minimum(np.arange(first, first + count), max(self.num_showers - 1, 0))
        return {
            name: self.given[name][index]
            if name in self.given
            else _quantiles(self.laws[name], uniform[:, column])
            for column, name in enumerate(names)
        }

    def describe(self) -> dict[str, Any]:
        """Give the request as plain data, for attributes; equal for equal showers."""
        laws = {
            name: {"low": law.low, "high": law.high, "logarithmic": law.is_logarithmic}
            for name, law in sorted(self.laws.items())
        }
        given = {
            name: hashlib.sha256(values.tobytes()).hexdigest()
            for name, values in sorted(self.given.items())
        }
        return {"num_showers": self.num_showers, "seed": self.seed, "laws": laws, "given": given}

    def as_text(self) -> str:
        """Give `describe` as one line."""
        return json.dumps(self.describe(), sort_keys=True)


def parse_shard(text: str) -> Shard:
    """Read `i/n`, counted from 0."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not int(match.group(1)) < int(match.group(2)):
        raise UsageError(
            f"'{text}' is not a shard",
            where="--shard",
            do="write i/n with i from 0 to n - 1, such as 0/4 for the first of four",
        )
    return Shard(int(match.group(1)), int(match.group(2)))


def require_conditions(request: SampleRequest, generator: Generator) -> tuple[str, ...]:
    """Check the request's conditions against the generator; give notes for the file.

    Missing and unknown conditions, and values outside the trained domain, are UsageErrors; the
    last only becomes a note when the request extrapolates.
    """
    wanted = generator.condition_names
    offered = {*request.laws, *request.given}
    for name in offered - set(wanted):
        raise UsageError(
            f"this generator has no condition '{name}'",
            where=f"conditions: {', '.join(wanted)}",
            do=f"give only these; {nearest_names(name, wanted)}",
        )
    missing = [name for name in wanted if name not in offered]
    if missing:
        raise UsageError(
            f"no value for the condition {', '.join(missing)}",
            where=f"conditions of the generator: {', '.join(wanted)}",
            do="give it, such as --energy 50GeV, or take all from a file with --like FILE",
        )
    notes = []
    for name in wanted:
        outside = _outside(request, generator, name)
        if outside is None:
            continue
        if not request.is_extrapolating:
            raise UsageError(
                f"{name} is {outside}",
                where="conditions of the request",
                do="stay inside, or add --extrapolate, which marks the file",
            )
        notes.append(f"extrapolated: {name} is {outside}")
    return tuple(notes)


def _outside(request: SampleRequest, generator: Generator, name: str) -> str | None:
    low, high = generator.statistics.condition_range[name]
    slack = _DOMAIN_SLACK * (high - low)
    if name in request.laws:
        law = request.laws[name]
        ends = (law.low, law.high)
    elif len(request.given[name]):
        ends = (float(request.given[name].min()), float(request.given[name].max()))
    else:
        return None
    if low - slack <= ends[0] and ends[1] <= high + slack:
        return None
    words = format_energy if name == "incident_energy" else "{:g} rad".format
    return (
        f"{words(ends[0])} to {words(ends[1])}, outside the trained {words(low)} to {words(high)}"
    )


def _quantiles(law: Spectrum, uniform: FloatArray) -> FloatArray:
    if law.is_logarithmic:
        return law.low * (law.high / law.low) ** uniform
    return law.low + (law.high - law.low) * uniform
