"""Sweeps (`-m`) and jobs of a cluster: points, their ledger, and who runs them.

What is done is skipped, what runs or waits is left alone, what failed or is missing is started
again. On this machine the command waits for its trainings; a cluster gets jobs, and it returns.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from calo_train.cli.errors import log_to_stderr
from calo_train.cli.tables import table
from calo_train.config_folder import conf_folder
from calo_train.errors import CaloTrainError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.cli.train import Arguments
    from calo_train.training.config import LauncherConfig, RunConfig
    from calo_train.training.ledger import Point, PointStatus, SweepFolder


class SweepFailed(CaloTrainError):
    """Some points of a sweep failed; carries the worst exit code."""

    def __init__(self, failures: dict[str, int], total: int) -> None:
        listed = "; ".join(f"{name}: exit {code}" for name, code in failures.items())
        super().__init__(
            f"{len(failures)} of {total} trainings of the sweep did not finish",
            where=listed,
            do="mend the cause; the same command resumes those and skips what is finished",
        )
        # A negative code is a signal that no process can catch, or a crash: the machine.
        self.exit_code = max(5 if code < 0 else code for code in failures.values())  # type: ignore[misc]


def hand_to_hydra(arguments: Arguments) -> None:
    """Let Hydra answer what it knows best: `--cfg`, shell completion, its own help."""
    import hydra

    from calo_train.training.compose import quote_paths

    own_groups = (
        [] if arguments.config_dir is None else ["--config-dir", str(arguments.config_dir)]
    )
    saved = sys.argv
    overrides = quote_paths(arguments.overrides)
    sys.argv = [saved[0], *arguments.hydra_flags, *own_groups, *overrides]
    try:
        with log_to_stderr(is_quiet=arguments.is_quiet, is_debug=arguments.is_debug):
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="train")(
                _refuse_to_train
            )()
    finally:
        sys.argv = saved


def _refuse_to_train(_config: object) -> None:
    raise UsageError(
        "these options print and do not train",
        where="calo-train",
        do="leave them out, or see calo-train --help",
    )


def sweep(arguments: Arguments) -> None:
    """Train every point of a sweep that is not done."""
    from calo_train.cli.sweep_points import sweep_name, sweep_points

    points = sweep_points(arguments.overrides, arguments.config_dir)
    name = sweep_name(arguments.overrides) or "default"
    _launch(points, name, arguments)


def submit_training(config: RunConfig, arguments: Arguments) -> None:
    """Hand a single training to a cluster: a sweep of one point, named as its run."""
    from calo_train.cli.sweep_points import single_point

    _launch([single_point(config)], config.name, arguments)


def _launch(points: list[tuple[Point, RunConfig]], name: str, arguments: Arguments) -> None:
    from calo_train.training.ledger import SweepFolder

    first = points[0][1]
    if first.launcher.is_cluster:
        from calo_train.cli.slurm import launch

        ledger = SweepFolder.of(first.runs_folder.absolute(), name)
        launch(ledger, points)
        _print_status(ledger, [point for point, _ in points], arguments)
        return
    if first.dry_run:
        with tempfile.TemporaryDirectory(prefix="calo-train-") as folder:
            ledger = SweepFolder(Path(folder))
            _run_here(ledger, [point for point, _ in points], first.launcher, arguments)
        return
    ledger = SweepFolder.of(first.runs_folder.absolute(), name)
    chosen = [point for point, _ in points]
    wanted = chosen if first.restart else _wanted(ledger, chosen)
    failures = _run_here(ledger, wanted, first.launcher, arguments)
    _print_status(ledger, chosen, arguments)
    if failures:
        raise SweepFailed(failures, len(chosen))


def _wanted(ledger: SweepFolder, points: Sequence[Point]) -> list[Point]:
    from calo_train.training.ledger import WANTED

    return [point for point in points if ledger.status(point).state in WANTED]


def _run_here(
    ledger: SweepFolder, points: Sequence[Point], launcher: LauncherConfig, arguments: Arguments
) -> dict[str, int]:
    """Train points in processes of their own; give the exit codes of those that failed."""
    from calo_train.training.processes import Task, job_command, run_at_once
    from calo_train.training.stopping import StopRequest

    flags = ["--quiet"] if arguments.is_quiet else []
    # Trainings side by side would write over each other's lines.
    keeps_output = launcher.at_once > 1 or arguments.is_json
    for point in points:
        ledger.add(point)
    tasks = [
        Task(
            point.key,
            job_command(ledger.point_file(point.key), *flags),
            ledger.output_file(point.key) if keeps_output else None,
        )
        for point in points
    ]
    titles = {point.key: point.title for point in points}
    failures: dict[str, int] = {}

    def on_end(task: Task, code: int) -> None:
        if code:
            failures[titles[task.name]] = code
        if code < 0:  # it could not say so itself
            ledger.ended(task.name, code)

    stop = StopRequest()
    stop.listen()
    run_at_once(tasks, [{}] * launcher.at_once, stop, on_end)
    if stop.is_raised:
        raise stop.error(str(ledger.path))
    return failures


def _print_status(ledger: SweepFolder, points: Sequence[Point], arguments: Arguments) -> None:
    from calo_train.cli.slurm import living_jobs

    if not ledger.exists():  # a dry run of a cluster
        return
    jobs = living_jobs() if ledger.has_jobs() else None
    rows = [ledger.status(point, jobs) for point in points]
    if arguments.is_json:
        print(json.dumps([row.as_row() for row in rows]))
        return
    print(status_text(rows))
    if not arguments.is_quiet:
        folder = quote(_shown(ledger.path))
        print(f"next: calo-runs status {folder}\n      calo-eval {folder}")


def status_text(rows: Sequence[PointStatus]) -> str:
    """Write a table of points, and how many are in which state."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row.state)] = counts.get(str(row.state), 0) + 1
    summed = ", ".join(f"{number} {state}" for state, number in counts.items())
    shown = [row.as_row() | {"run": _shown(row.point.folder)} for row in rows]
    return f"{table(shown)}\n{summed}"


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
