"""What is asked for: how many showers, under which conditions, from which seed, which shard."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calo_train.errors import UsageError, nearest_names
from calo_train.kernels.noise import CONDITIONS, uniforms
from calo_train.quantities import Spectrum, discrete_spectrum, format_energy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from calo_train.families.generator import Generator
    from calo_train.sampling.coarse_showers import CoarseShowers

FloatArray = npt.NDArray[np.float64]
_DOMAIN_SLACK = 0.01  # of its width: a finite training sample does not reach the ends of its law
_VALUE_RTOL = 1e-6  # a value in another unit and back is off by two roundings of float32
_SHOWN_VALUES = 3


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
    """A request; each condition follows a law or is given shower by shower, in house units.

    With `coarse`, these coarse showers are refined; otherwise showers are drawn.
    """

    num_showers: int
    laws: Mapping[str, Spectrum] = field(default_factory=dict)
    given: Mapping[str, FloatArray] = field(default_factory=dict)
    seed: int = 0
    shard: Shard = field(default_factory=Shard)
    is_extrapolating: bool = False
    coarse: CoarseShowers | None = None

    def __post_init__(self) -> None:
        if self.num_showers < 0:
            raise UsageError(f"-n {self.num_showers} is negative", where="-n", do="give 0 or more")
        if not 0 <= self.seed < 2**63:
            raise UsageError(
                f"seed {self.seed} is out of range", where="--seed", do="give 0 to 2^63 - 1"
            )
        for name, values in self.given.items():
            if len(values) < max(self.num_showers, 1):
                raise UsageError(
                    f"{self.num_showers} showers are asked for and {len(values)} values given",
                    where=f"-n and the condition {name}",
                    do=f"give -n {len(values)} or less"
                    if len(values)
                    else "give a file with rows",
                )

    @property
    def rows(self) -> tuple[int, int]:
        """Showers [first, end) that this shard draws."""
        return self.shard.rows(self.num_showers)

    @property
    def num_rows(self) -> int:
        """Number of showers that this shard draws."""
        first, end = self.rows
        return end - first

    def conditions(self, first: int, count: int) -> dict[str, FloatArray]:
        """Give the conditions of showers first .. first + count; beyond the end the last given.

        They are rounded to float32, so that what a file stores is what its showers were drawn at.
        """
        names = sorted({*self.laws, *self.given})
        uniform = uniforms(self.seed, first, count, len(names), purpose=CONDITIONS)
        index = np.minimum(np.arange(first, first + count), max(self.num_showers - 1, 0))
        exact = {
            name: self.given[name][index]
            if name in self.given
            else self.laws[name].quantiles(uniform[:, column])
            for column, name in enumerate(names)
        }
        return {
            name: values.astype(np.float32).astype(np.float64) for name, values in exact.items()
        }

    def describe(self) -> dict[str, Any]:
        """Give the request as plain data, for attributes; equal for equal showers."""
        laws = {
            name: {"low": law.low, "high": law.high, "logarithmic": law.is_logarithmic}
            | ({"values": list(law.values)} if law.values else {})
            for name, law in sorted(self.laws.items())
        }
        given = {
            name: hashlib.sha256(values.tobytes()).hexdigest()
            for name, values in sorted(self.given.items())
        }
        asked = {"num_showers": self.num_showers, "seed": self.seed, "laws": laws, "given": given}
        return asked if self.coarse is None else asked | {"coarse": self.coarse.fingerprint()}

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


def trained_laws(generator: Generator) -> dict[str, Spectrum]:
    """Give the laws of a request that names no condition.

    Uniform over the trained domain; equally often each value where the data hold only a few.
    """
    statistics = generator.statistics
    return {
        name: discrete_spectrum(statistics.condition_values[name])
        if statistics.condition_values.get(name)
        else Spectrum(*statistics.condition_range[name])
        for name in generator.condition_names
    }


def require_conditions(request: SampleRequest, generator: Generator) -> None:
    """Raise UsageError for missing or unknown conditions, or such outside the trained domain.

    The domain may be left by a request that extrapolates.
    """
    wanted = generator.condition_names
    offered = {*request.laws, *request.given}
    for name in sorted(offered - set(wanted)):
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
    if "incident_energy" in wanted and not _extremes(request, "incident_energy")[0] > 0:
        raise UsageError(
            "an incident energy is not above zero",
            where="conditions of the request",
            do="give energies above zero",
        )
    outside = conditions_outside(request, generator)
    if outside and not request.is_extrapolating:
        raise UsageError(
            "; ".join(outside),
            where="conditions of the request",
            do="stay inside, or add --extrapolate, which marks the file",
        )


def conditions_outside(request: SampleRequest, generator: Generator) -> tuple[str, ...]:
    """Say for each condition that leaves the trained domain how it does."""
    found = []
    for name in generator.condition_names:
        low, high = generator.statistics.condition_range[name]
        slack = _DOMAIN_SLACK * (high - low)
        ends = _extremes(request, name)
        if low - slack <= ends[0] and ends[1] <= high + slack:
            continue
        words = _words(name)
        found.append(
            f"{name} is {words(ends[0])} to {words(ends[1])}, outside the trained "
            f"{words(low)} to {words(high)}"
        )
    return tuple(found)


def conditions_between(request: SampleRequest, generator: Generator) -> tuple[str, ...]:
    """Say for each condition that was trained at a few values only how the request leaves them.

    Such a generator has seen nothing in between, so showers there are an interpolation that the
    data cannot judge.
    """
    found = []
    for name in generator.condition_names:
        trained = generator.statistics.condition_values.get(name, ())
        if not trained or _takes_only(request, name, trained):
            continue
        words = _words(name)
        shown = [words(value) for value in trained]
        if len(shown) > _SHOWN_VALUES + 1:
            shown = [*shown[:_SHOWN_VALUES], "...", shown[-1]]
        found.append(
            f"{name} takes values between those trained; the data hold {len(trained)}: "
            + ", ".join(shown)
        )
    return tuple(found)


def _takes_only(request: SampleRequest, name: str, trained: tuple[float, ...]) -> bool:
    law = request.laws.get(name)
    if law is None:
        values = np.unique(request.given[name])
    elif law.values or law.low == law.high:
        values = np.asarray(law.values or (law.low,))
    else:
        return False
    known = np.asarray(trained)
    nearest = known[np.abs(values[:, None] - known).argmin(axis=1)]
    return bool(np.isclose(values, nearest, rtol=_VALUE_RTOL, atol=0.0).all())


def _words(name: str) -> Callable[[float], str]:
    return format_energy if name == "incident_energy" else "{:g} rad".format


def _extremes(request: SampleRequest, name: str) -> tuple[float, float]:
    if name in request.laws:
        return request.laws[name].low, request.laws[name].high
    return float(request.given[name].min()), float(request.given[name].max())
