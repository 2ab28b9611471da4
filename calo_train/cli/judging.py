"""calo-eval for scripts: --compare two results, --fail-if a condition holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calo_train.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.evaluation.conditions import Condition

Compare = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        metavar="OLD NEW", help="Say what became better or worse from one metrics.json to another."
    ),
]
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if", help="Exit with 6 when this holds, such as 'num_hits.separation>0.01'."
    ),
]


def parse_conditions(texts: Sequence[str] | None) -> list[Condition]:
    """Read all conditions before any work is done."""
    from calo_train.evaluation.conditions import parse_condition

    return [parse_condition(text) for text in texts or ()]


def compare_files(old: Path, new: Path, conditions: Sequence[Condition], *, is_json: bool) -> None:
    """Print what changed between two metrics.json; conditions are on the new one."""
    from calo_train.evaluation.changes import as_text, compare_metrics
    from calo_train.evaluation.conditions import require_none_holds
    from calo_train.evaluation.named_numbers import read_metrics

    before, after = read_metrics(old.expanduser()), read_metrics(new.expanduser())
    samples = compare_metrics(before, after)
    if is_json:
        print(json.dumps([sample.as_mapping() for sample in samples], indent=2))
    else:
        print(as_text(samples))
    require_none_holds(conditions, after, new)


def require_targets(targets: Sequence[Path]) -> None:
    """Raise UsageError when there is nothing to judge."""
    if not targets:
        raise UsageError(
            "nothing to judge",
            where="calo-eval",
            do="give run folders, generator folders or files of showers, or --compare OLD NEW",
        )
