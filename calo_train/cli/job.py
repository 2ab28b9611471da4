"""What the commands start for one training: a process that trains a resolved configuration.

    python -m calo_train.cli.job FILE [--parent=PID] [--quiet] [only=STAGE/PARTS]

FILE holds `config`; a point of a sweep holds its key, too, and the process keeps its state in the
sweep's ledger. Exit codes are those of calo-train.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from calo_train.cli.errors import log_to_stderr, run_command


def main() -> None:
    """Train what the command line says and leave with its exit code."""
    file, *words = sys.argv[1:]
    parents = [word.partition("=")[2] for word in words if word.startswith("--parent=")]
    # A further process of a data-parallel training is started with the words of the first.
    if parents and "LOCAL_RANK" not in os.environ:
        from calo_train.training.processes import end_with_parent

        end_with_parent(int(parents[0]))
    only = next((word.partition("=")[2] for word in words if word.startswith("only=")), None)
    raise SystemExit(run_job(Path(file), only=only, is_quiet="--quiet" in words))


def run_job(
    file: Path, *, only: str | None = None, job: str | None = None, is_quiet: bool = False
) -> int:
    """Train the configuration in `file`, or `only` a selection of its parts; give an exit code.

    A job of a cluster calls this directly and gives its id.
    """
    content = json.loads(file.read_text(encoding="utf-8"))
    config = content["config"]
    if only is not None:
        # A run has one logger; the process that trains the whole sends these curves, too.
        config |= {"only": only, "logger": {**config["logger"], "kind": "csv"}}
    key = content.get("key")
    with log_to_stderr(is_quiet=is_quiet):
        if key is None or only is not None or config["dry_run"]:
            return run_command(lambda: _train(config))
        from calo_train.training.ledger import SweepFolder
        from calo_train.training.provenance import is_main_process

        if not is_main_process():
            return run_command(lambda: _train(config))
        ledger = SweepFolder(file.parent.parent)
        ledger.started(key, job)
        code = run_command(lambda: _train(config))
        ledger.ended(key, code)
        return code


def _train(resolved: dict[str, Any]) -> None:
    from calo_train.training.config import check_config

    config = check_config(resolved)
    if config.dry_run:
        from calo_train.training.estimate import estimate

        print(estimate(config).as_text())
        return
    from calo_train.training.run import train

    print(train(config).as_text())


if __name__ == "__main__":
    main()
