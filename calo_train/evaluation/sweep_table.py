"""One table over the trainings of a sweep: what was swept, how each is judged, which is best.

The best training is the one that the first classifier tells least from the reference (lowest
AUC); without classifiers, the one with the smallest mean separation of the observables. Less than
the errors of these numbers means nothing; the report says what they are.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SEPARATION = "mean separation"
_FLOOR = " floor"  # of a column of the same name


@dataclass(frozen=True)
class SweepTable:
    """Rows by training, best first; `judge` is the column that decides."""

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str | float], ...]
    judge: str

    @property
    def best(self) -> Mapping[str, str | float]:
        return self.rows[0]

    def texts(self) -> list[list[str]]:
        """Give the cells as people read them."""
        return [[_text(row.get(column, "")) for column in self.columns] for row in self.rows]

    def as_csv(self) -> str:
        """Write all digits."""
        written = io.StringIO()
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([row.get(column, "") for column in self.columns] for row in self.rows)
        return written.getvalue()

    def as_page(self, title: str) -> str:
        """Write a page of its own, whose columns sort when their names are clicked."""
        from jinja2 import Environment, PackageLoader

        environment = Environment(
            loader=PackageLoader("calo_train.evaluation"), autoescape=True, trim_blocks=True
        )
        return environment.get_template("sweep.html.j2").render(
            title=title, table=self, texts=self.texts(), best=self.best["run"]
        )


def sweep_table(
    metrics: Mapping[str, Any], points: Sequence[tuple[str, Sequence[str]]]
) -> SweepTable:
    """Join metrics.json with the points, each its run and `key=value` words, in order."""
    samples = metrics["samples"][: len(points)]  # a self-check comes last
    rows = [
        {"run": run, **_swept(words), **_numbers(sample)}
        for (run, words), sample in zip(points, samples, strict=True)
    ]
    judge = next((name for name in rows[0] if name.startswith("AUC ")), SEPARATION)
    rows.sort(key=lambda row: (float(row[judge]), str(row["run"])))
    columns = dict.fromkeys(name for row in rows for name in row if name != "run")
    return SweepTable((*columns, "run"), tuple(rows), judge)


def _swept(words: Sequence[str]) -> dict[str, str | float]:
    pairs = (word.partition("=") for word in words)
    return {key: value for key, _, value in pairs}


def _numbers(sample: Mapping[str, Any]) -> dict[str, str | float]:
    numbers: dict[str, str | float] = {}
    for name, found in sample["classifiers"].items():
        numbers[f"AUC {name}"] = found["auc"]
        numbers[f"AUC {name}{_FLOOR}"] = found["auc_floor"]
    observables = sample["observables"].values()
    numbers[SEPARATION] = fmean(entry["separation"] for entry in observables)
    numbers[f"{SEPARATION}{_FLOOR}"] = fmean(entry["separation_floor"] for entry in observables)
    numbers["verdict"] = sample["verdict"]
    return numbers


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
