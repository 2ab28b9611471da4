"""Loss curves as metrics.csv, one row an epoch and part; a resumed fit repeats no row."""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from calo_train.atomic_files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class EpochMetrics:
    """Losses of one part after one epoch, means over showers: negative log-likelihoods in nats, or
    what a part of another loss minimises and is judged by."""

    epoch: int
    part: str
    train_loss: float
    validation_loss: float
    learning_rate: float
    is_best: bool


_COLUMNS = tuple(item.name for item in fields(EpochMetrics))


def named_values(stage: str, rows: Iterable[EpochMetrics]) -> dict[str, float]:
    """Give what a logger gets of the rows of an epoch, as `stage/part/metric`."""
    values: dict[str, float] = {}
    for row in rows:
        prefix = f"{stage}/{row.part}"
        values[f"{prefix}/train_loss"] = row.train_loss
        values[f"{prefix}/validation_loss"] = row.validation_loss
        values[f"{prefix}/learning_rate"] = row.learning_rate
    return values


def read_metrics(path: Path) -> dict[int, list[EpochMetrics]]:
    """Give the rows of each epoch, counted from 0."""
    epochs: dict[int, list[EpochMetrics]] = {}
    with path.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            found = EpochMetrics(
                epoch=int(row["epoch"]),
                part=row["part"],
                train_loss=float(row["train_loss"]),
                validation_loss=float(row["validation_loss"]),
                learning_rate=float(row["learning_rate"]),
                is_best=row["is_best"] == "True",
            )
            epochs.setdefault(found.epoch, []).append(found)
    return epochs


def append_metrics(path: Path, rows: Iterable[EpochMetrics]) -> None:
    """Append rows, with a header in a new file."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as table:
        writer = csv.writer(table, lineterminator="\n")
        if is_new:
            writer.writerow(_COLUMNS)
        writer.writerows([getattr(row, name) for name in _COLUMNS] for row in rows)


def keep_epochs(path: Path, num_epochs: int) -> None:
    """Drop rows of epochs from `num_epochs` on, which a resumed fit will write again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    # A kill may leave the header or the last row cut short.
    whole = [line.split(",") for line in lines[1:] if line.count(",") == len(_COLUMNS) - 1]
    kept = [",".join(row) for row in whole if row[0].isdigit() and int(row[0]) < num_epochs]
    write_text(path, "\n".join([",".join(_COLUMNS), *kept]) + "\n")
