"""Numbers of a metrics.json by name: the dotted path inside a sample, or any unique end of it.

`observables.num_hits.separation` and `num_hits.separation` are one number; `separation` alone is
many, and is refused with what it could mean. The headline `observables` come before others of the
same name, and `auc_low` is the AUC of the classifier `low`. Names of blocks beside the samples
(`settings`, `reference`) begin at the top.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from calo_train.errors import DataError, UsageError, nearest_names
from calo_train.evaluation.metrics import SCHEMA, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

METRICS_FILE = "metrics.json"
_AUC = "auc_"  # auc_low: classifiers.low.auc
_NUM_SHOWN = 6  # meanings of an ambiguous name


def read_metrics(path: Path) -> dict[str, Any]:
    """Read a metrics.json, or that of a report's folder; DataError unless it is of this schema."""
    file = path / METRICS_FILE if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"this cannot be read as metrics: {error}",
            where=str(file),
            do="give a metrics.json of calo-eval, or the folder of its report",
        ) from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise DataError(
            "this holds no metrics of calo-eval",
            where=str(file),
            do=f"give a file whose `schema` is {SCHEMA}",
        )
    if found.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"schema_version is {found.get('schema_version')}, this program reads "
            f"{SCHEMA_VERSION}",
            where=str(file),
            do="judge the showers again with this calo-eval",
        )
    return found


def numbers_in(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | None]]:
    """Yield the dotted path and value of every number; None where one could not be given."""
    for name, value in block.items():
        if isinstance(value, dict):
            yield from numbers_in(value, f"{prefix}{name}.")
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            yield f"{prefix}{name}", value


def values_of(metrics: Mapping[str, Any], name: str) -> dict[str, float]:
    """Give a named number of every sample by the sample's label; one of the whole under "".

    Raises UsageError for unknown and ambiguous names and DataError where it could not be given.
    """
    whole = {key: value for key, value in metrics.items() if key != "samples"}
    owners = {"": (whole, dict(numbers_in(whole)))}
    for index, sample in enumerate(metrics["samples"], start=1):
        label = sample["label"]
        owners[label if label not in owners else f"{label} ({index})"] = (
            sample,
            dict(numbers_in(sample)),
        )
    path = _resolve(name, {known for _, numbers in owners.values() for known in numbers})
    found = {}
    for label, (block, numbers) in owners.items():
        if path in numbers:
            found[label] = _given(numbers[path], block, path, label)
    return found


def _resolve(name: str, known: set[str]) -> str:
    """Give the one path that a name means."""
    if name.startswith(_AUC) and (path := f"classifiers.{name.removeprefix(_AUC)}.auc") in known:
        return path
    meant = {name} if name in known else {path for path in known if path.endswith(f".{name}")}
    headline = {path for path in meant if path.startswith("observables.")}
    for choice in (meant, headline):
        if len(choice) == 1:
            return choice.pop()
    if not meant:
        ends = {f"{_AUC}{path.split('.')[1]}" for path in known if path.startswith("classifiers.")}
        ends |= {".".join(path.split(".")[-count:]) for path in known for count in (1, 2, 3)}
        raise UsageError(
            f"no number is called '{name}'",
            where=METRICS_FILE,
            do=f"use a name that exists; {nearest_names(name, ends | known)}",
        )
    ordered = sorted(meant, key=lambda path: (path not in headline, path))
    shown = ", ".join(ordered[:_NUM_SHOWN]) + (", ..." if len(meant) > _NUM_SHOWN else "")
    raise UsageError(
        f"'{name}' may mean {len(meant)} numbers", where=METRICS_FILE, do=f"say which: {shown}"
    )


def _given(value: float | None, block: Mapping[str, Any], path: str, label: str) -> float:
    if value is not None:
        return value
    raise DataError(
        f"{path} could not be given: {_reason(block, path) or 'it is null'}",
        where=label or METRICS_FILE,
        do="mend the reason, or leave the number out of the condition",
    )


def _reason(block: Mapping[str, Any], path: str) -> str | None:
    """Find the `reason` beside a null, or in the nearest block around it."""
    reason = block.get("reason")
    for name in path.split(".")[:-1]:
        block = block[name]
        reason = block.get("reason") or reason
    return reason
