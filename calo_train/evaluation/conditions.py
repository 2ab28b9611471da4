"""Conditions on numbers of a metrics.json, such as `classifier.auc>0.8`, for scripts and CI."""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calo_train.errors import ConditionMet, UsageError
from calo_train.evaluation.named_numbers import values_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_CONDITION = re.compile(r"\s*([\w.\-]+)\s*(<=|>=|<|>)\s*([^\s<>=]+)\s*")


@dataclass(frozen=True)
class Condition:
    """A name, one of < <= > >=, and a limit."""

    name: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.limit:g}"

    def holds(self, value: float) -> bool:
        return bool(_OPERATORS[self.sign](value, self.limit))


def parse_condition(text: str) -> Condition:
    """Read `NAME>LIMIT`; UsageError says how one is written."""
    match = _CONDITION.fullmatch(text)
    try:
        limit = float(match.group(3)) if match else math.nan
    except ValueError:
        limit = math.nan
    if match is None or not math.isfinite(limit):
        raise UsageError(
            f"'{text}' is not a condition",
            where="--fail-if",
            do="write a name, one of < <= > >=, and a number: --fail-if 'visible_energy."
            "separation>0.01'",
        )
    return Condition(match.group(1), match.group(2), limit)


def require_none_holds(
    conditions: Sequence[Condition], metrics: Mapping[str, Any], file: Path
) -> None:
    """Raise ConditionMet, naming every value, when a condition holds for any sample."""
    met = [
        f"{condition} holds: {value:.4g}" + (f" in {label}" if label else "")
        for condition in conditions
        for label, value in values_of(metrics, condition.name).items()
        if condition.holds(value)
    ]
    if met:
        raise ConditionMet(
            "; ".join(met),
            where=str(file),
            do="look at the report beside it; metrics.json has the errors and floors",
        )
