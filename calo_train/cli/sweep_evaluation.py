"""`calo-eval RUNS_FOLDER/sweeps/NAME`: finished trainings of a sweep, and one table of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any

from calo_train.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from calo_train.evaluation.sweep_table import SweepTable
    from calo_train.training.ledger import Point, SweepFolder

_log = logging.getLogger("calo_train.cli.sweep_evaluation")


@dataclass(frozen=True)
class JudgedSweep:
    """A sweep whose finished points are the targets of a report."""

    ledger: SweepFolder
    points: tuple[Point, ...]

    @property
    def targets(self) -> list[Path]:
        """The run folder of each point."""
        return [point.folder for point in self.points]

    @property
    def report(self) -> Path:
        return self.ledger.path / "report"

    def write_table(self, metrics: Mapping[str, Any], folder: Path) -> SweepTable:
        """Write sweep.csv and sweep.html beside the report, and give the table."""
        from calo_train.atomic_files import write_text
        from calo_train.evaluation.sweep_table import sweep_table

        points = [(f"{p.folder.parent.name}/{p.folder.name}", p.words) for p in self.points]
        found = sweep_table(metrics, points)
        write_text(folder / "sweep.csv", found.as_csv())
        write_text(folder / "sweep.html", found.as_page(f"Sweep {self.ledger.path.name}"))
        return found


def judged_sweep(targets: Sequence[Path]) -> JudgedSweep | None:
    """Give the sweep that is asked for, None when the targets are something else."""
    from calo_train.training.ledger import State, SweepFolder

    ledgers = [SweepFolder(path.expanduser()) for path in targets]
    if not any(ledger.exists() for ledger in ledgers):
        return None
    if len(ledgers) > 1:
        raise UsageError(
            "a sweep is judged by itself",
            where=", ".join(str(path) for path in targets),
            do="give the sweep alone; or give run folders, which share one report",
        )
    ledger = ledgers[0]
    statuses = [ledger.status(point) for point in ledger.points()]
    done = tuple(
        status.point
        for status in statuses
        if status.state is State.DONE and status.point.config.get("only") is None
    )
    left = [status for status in statuses if status.point not in done]
    if left:
        named = ", ".join(f"{status.point.title} ({status.state})" for status in left)
        _log.warning("%d of %d trainings are not judged: %s", len(left), len(statuses), named)
    if not done:
        raise DataError(
            "no training of this sweep has finished",
            where=str(ledger.path),
            do=f"see calo-runs status {quote(str(ledger.path))}",
        )
    return JudgedSweep(ledger, done)


def table_text(found: SweepTable, folder: Path) -> str:
    """Write the table for a terminal, with the best training named."""
    from calo_train.cli.tables import table

    rows = [dict(zip(found.columns, cells, strict=True)) for cells in found.texts()]
    return (
        f"\n{table(rows)}\nbest by {found.judge}: {found.best['run']}\n"
        f"table: {folder / 'sweep.html'}, sweep.csv"
    )
