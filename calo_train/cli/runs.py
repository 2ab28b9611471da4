"""calo-runs: what trainings there are, how far they are, whether their process is alive."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from calo_train.cli.errors import log_to_stderr, run_command

app = typer.Typer(
    help="List trainings and look at one of them.",
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
            _print_table(rows, folder)

    _finish(command, debug=debug)


@app.command()
def status(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show the state of one training: parts, best losses, process, last message."""

    def command() -> None:
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


def main() -> None:
    """Run the command."""
    app()


def _print_table(rows: list[dict[str, Any]], folder: Path) -> None:
    if not rows:
        print(f"no runs below {folder}")
        return
    columns = list(rows[0])
    cells = [columns, *([str(row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    for line in cells:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def _finish(command: Any, *, debug: bool) -> None:
    with log_to_stderr(is_debug=debug):
        code = run_command(command, is_debug=debug)
    sys.exit(code)


if __name__ == "__main__":
    main()
