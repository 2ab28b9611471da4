"""calo-runs: what trainings there are, how far they are, whether their process is alive."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calo_train.cli.errors import log_to_stderr, run_command
from calo_train.cli.tables import table

if TYPE_CHECKING:
    from calo_train.training.ledger import SweepFolder
    from calo_train.training.run_folder import RunFolder

app = typer.Typer(
    help="List trainings, look at one, check it, train it again, cite its papers.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command("list")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Folder with runs.")] = Path("runs"),
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List all trainings below a folder."""

    def command() -> None:
        from calo_train.training.overview import find_runs, overview

        rows = [overview(run) for run in find_runs(folder)]
        if as_json:
            print(json.dumps(rows))
        else:
            print(table(rows) if rows else f"no runs below {folder}")

    _finish(command, debug=debug)


@app.command()
def status(
    run: Annotated[Path, typer.Argument(help="A run folder, or RUNS_FOLDER/sweeps/NAME.")],
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show the state of one training, or of every point of a sweep.

    Parts, best losses, process, last message.
    """

    def command() -> None:
        from calo_train.training.ledger import SweepFolder

        if SweepFolder(run).exists():
            _print_sweep(SweepFolder(run), as_json=as_json)
            return
        from calo_train.training.overview import details
        from calo_train.training.run_folder import open_run

        found = details(open_run(run))
        if as_json:
            print(json.dumps(found))
            return
        for key, value in found.items():
            if isinstance(value, dict):
                print(f"{key}:")
                for name, inner in value.items():
                    print(f"  {name:<14} {inner}")
            else:
                print(f"{key:<10} {value}")

    _finish(command, debug=debug)


@app.command()
def doctor(
    run: Annotated[
        Path, typer.Argument(help="A run folder, or the folder that runs go to.")
    ] = Path("runs"),
    *,
    free_locks: Annotated[
        bool,
        typer.Option("--free-locks", help="Remove locks whose owner gives no sign of life."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before that.")] = False,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Check this machine, and a run where one is given.

    Nothing is changed without --free-locks. Exits with 5 when something is wrong.
    """

    def command() -> None:
        from calo_train.training.doctor import check_machine, check_run, require_good
        from calo_train.training.run_folder import RunFolder

        folder = RunFolder(run)
        if free_locks:
            _free_locks(folder, is_sure=yes)
        checks = check_machine(run) + (check_run(folder) if folder.exists() else [])
        if as_json:
            print(json.dumps([{**vars(check), "good": check.is_good} for check in checks]))
        else:
            width = max(len(check.name) for check in checks)
            for check in checks:
                mark = "ok   " if check.is_good else "WRONG"
                print(f"{mark}  {check.name:<{width}}  {check.found}")
        require_good(checks)

    _finish(command, debug=debug)


@app.command()
def reproduce(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    *,
    name: Annotated[
        str | None, typer.Option(help="Name of the new run [default: NAME-reproduced].")
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Train a run again from its record, and compare.

    Same configuration, seed and data under another name; on one CPU all bits are equal.
    """

    def command() -> None:
        from calo_train.training.reproduce import reproduce as train_again
        from calo_train.training.run_folder import open_run

        found = train_again(open_run(run), name)
        if as_json:
            print(json.dumps(found.as_mapping()))
            return
        for part in found.parts:
            print(
                f"{part.part:<16} loss {part.recorded_loss:.6g} then, {part.new_loss:.6g} now; "
                f"largest difference of a weight {part.largest_difference:.3g}"
            )
        for library, change in found.changed_versions.items():
            print(f"note: {library} {change}")
        print("identical: all bits" if found.is_identical else "not identical")
        print(f"wrote: {found.run}")

    _finish(command, debug=debug)


@app.command()
def cite(
    run: Annotated[Path, typer.Argument(help="A run folder or a generator folder.")],
    debug: DebugFlag = False,
) -> None:
    """Print the papers to cite with a run, as BibTeX."""

    def command() -> None:
        from calo_train.cli.inputs import generator_folder
        from calo_train.families.generator import load_generator
        from calo_train.references import METRICS, bibtex

        generator = load_generator(generator_folder(run.expanduser()))
        print(bibtex([*generator.family.papers, *generator.papers, *METRICS]))

    _finish(command, debug=debug)


def main() -> None:
    """Run the command."""
    app()


def _print_sweep(ledger: SweepFolder, *, as_json: bool) -> None:
    from calo_train.cli.slurm import living_jobs
    from calo_train.cli.sweep import status_text

    jobs = living_jobs() if ledger.has_jobs() else None
    rows = [ledger.status(point, jobs) for point in ledger.points()]
    print(json.dumps([row.as_row() for row in rows]) if as_json else status_text(rows))


def _free_locks(run: RunFolder, *, is_sure: bool) -> None:
    """Remove the locks of a run whose owners are gone, after asking."""
    from calo_train.training.doctor import free_stale_lock

    for path in sorted(run.path.glob("lock*")):
        if is_sure or typer.confirm(f"remove {path}?", err=True):
            free_stale_lock(path)


def _finish(command: Any, *, debug: bool) -> None:
    with log_to_stderr(is_debug=debug):
        code = run_command(command, is_debug=debug)
    sys.exit(code)


if __name__ == "__main__":
    main()
