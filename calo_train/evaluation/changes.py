"""What became better or worse between two metrics.json by the same reference and settings.

Better means nearer to the floor. The change of |value - floor| is counted in standard deviations
of both values together; of each, the larger of its error and the spread of its floor. Both share
the reference and its halves, which makes the true deviation of the difference smaller: what is
called a change is one. Among hundreds of numbers 3 sigma by chance is rare, not impossible.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from calo_train.errors import DataError
from calo_train.evaluation.floor import MAX_SIGNIFICANCE
from calo_train.evaluation.named_numbers import numbers_in
from calo_train.evaluation.words import with_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SIGNIFICANT = 3.0
_ERROR_SUFFIXES = ("error", "deviation")  # the first that is there
_NUM_SHOWN = 8  # differences in a message


@dataclass(frozen=True)
class Measured:
    """A value with its error beside its floor with its spread."""

    value: float
    error: float
    floor: float
    floor_error: float

    @property
    def distance(self) -> float:
        return abs(self.value - self.floor)

    @property
    def deviation(self) -> float:
        return max(self.error, self.floor_error)


@dataclass(frozen=True)
class Change:
    """One number of one sample, before and after."""

    name: str
    old: Measured
    new: Measured

    @property
    def significance(self) -> float:
        """How many standard deviations farther from the floor the new value is."""
        excess = self.new.distance - self.old.distance
        deviation = math.hypot(self.old.deviation, self.new.deviation)
        if deviation > 0:
            return max(-MAX_SIGNIFICANCE, min(excess / deviation, MAX_SIGNIFICANCE))
        return math.copysign(MAX_SIGNIFICANCE, excess) if excess else 0.0

    @property
    def verdict(self) -> str:
        if abs(self.significance) <= SIGNIFICANT:
            return "unchanged"
        return "worse" if self.significance > 0 else "better"

    def as_mapping(self) -> dict[str, Any]:
        """Give the change as plain data."""
        return asdict(self) | {"significance": self.significance, "verdict": self.verdict}


@dataclass(frozen=True)
class SampleChanges:
    """All numbers of a sample that both files give, and the names that only one gives."""

    old_label: str
    new_label: str
    changes: tuple[Change, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]

    def as_mapping(self) -> dict[str, Any]:
        """Give all changes as plain data."""
        return {
            "old": self.old_label,
            "new": self.new_label,
            "changes": [change.as_mapping() for change in self.changes],
            "only_old": list(self.only_old),
            "only_new": list(self.only_new),
        }


def compare_metrics(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[SampleChanges, ...]:
    """Compare sample by sample; DataError names what makes the two incomparable."""
    differences = list(_differences(old, new))
    if differences:
        more = len(differences) - _NUM_SHOWN
        raise DataError(
            "; ".join(differences[:_NUM_SHOWN]) + (f"; and {more} more" if more > 0 else ""),
            where="the two metrics.json",
            do="judge both samples by one reference with equal settings",
        )
    return tuple(_sample_changes(*pair) for pair in _pairs(old["samples"], new["samples"]))


def as_text(samples: tuple[SampleChanges, ...]) -> str:
    """Write what is better and worse, a line each, and how much is unchanged."""
    return "\n\n".join("\n".join(_lines(sample)) for sample in samples)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if old["geometry"] != new["geometry"]:
        yield f"other detectors: {old['geometry']['name']} and {new['geometry']['name']}"
    if old["reference"]["fingerprint"] != new["reference"]["fingerprint"]:
        labels = [metrics["reference"]["label"] for metrics in (old, new)]
        yield f"other references: {labels[0]} and {labels[1]}, by their content"
    settings = [_leaves(metrics["settings"], "settings.") for metrics in (old, new)]
    for name in sorted({*settings[0], *settings[1]}):
        before, after = (found.get(name, "absent") for found in settings)
        if before != after:
            yield f"{name}: {before} and {after}"


def _leaves(block: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in block.items():
        inner = _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        found |= {f"{prefix}{name}": value} if inner is None else inner
    return found


def _pairs(
    old: list[dict[str, Any]], new: list[dict[str, Any]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pair samples by label; one with one whatever they are called."""
    if len(old) == len(new) == 1:
        return [(old[0], new[0])]
    by_label = {sample["label"]: sample for sample in old}
    pairs = [(by_label[after["label"]], after) for after in new if after["label"] in by_label]
    if not pairs:
        raise DataError(
            "no sample of one is in the other",
            where=f"{', '.join(by_label)}; {', '.join(sample['label'] for sample in new)}",
            do="compare reports of samples with equal labels, or of one sample each",
        )
    return pairs


def _sample_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> SampleChanges:
    before, after = _measured(old), _measured(new)
    changes = [Change(name, before[name], after[name]) for name in before if name in after]
    return SampleChanges(
        old["label"],
        new["label"],
        tuple(sorted(changes, key=lambda change: -abs(change.significance))),
        tuple(name for name in before if name not in after),
        tuple(name for name in after if name not in before),
    )


def _measured(sample: Mapping[str, Any]) -> dict[str, Measured]:
    """Find every number that has an error and a floor."""
    numbers = {name: value for name, value in numbers_in(sample) if value is not None}
    found = {}
    for name, value in numbers.items():
        # Two spellings: `auc`, `auc_error`, `auc_floor`; and a block of value, error, floor.
        block, _, last = name.rpartition(".")
        title, stem = (block, f"{block}.") if last == "value" else (name, f"{name}_")
        error = _first_of(numbers, [f"{stem}{suffix}" for suffix in _ERROR_SUFFIXES])
        spread = _first_of(numbers, [f"{stem}floor_{suffix}" for suffix in _ERROR_SUFFIXES])
        floor = numbers.get(f"{stem}floor")
        if error is not None and floor is not None:
            found[title] = Measured(value, error, floor, spread or 0.0)
    return found


def _first_of(numbers: Mapping[str, float], names: list[str]) -> float | None:
    return next((numbers[name] for name in names if name in numbers), None)


def _lines(sample: SampleChanges) -> Iterator[str]:
    verdicts = {
        verdict: [change for change in sample.changes if change.verdict == verdict]
        for verdict in ("worse", "better", "unchanged")
    }
    counts = ", ".join(f"{len(changes)} {verdict}" for verdict, changes in verdicts.items())
    yield f"{sample.new_label} against {sample.old_label}: {counts} (limit {SIGNIFICANT:g} sigma)"
    for verdict in ("worse", "better"):
        for change in verdicts[verdict]:
            yield (
                f"  {verdict:6}  {change.name}: {with_error(change.old.value, change.old.error)} "
                f"-> {with_error(change.new.value, change.new.error)}, floor "
                f"{with_error(change.new.floor, change.new.floor_error)}, "
                f"{abs(change.significance):.1f} sigma"
            )
    for names, which in ((sample.only_old, "old"), (sample.only_new, "new")):
        if names:
            yield f"  only in the {which} one: {', '.join(names)}"
