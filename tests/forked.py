"""Commands as forked processes: real ones, to be killed, but without the seconds of their imports.

A server process imports everything once and forks for every command (multiprocessing's
`forkserver`); it starts no thread and computes nothing, so that what is forked is as new.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import commands

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess
    from pathlib import Path

_PRELOADED = [
    "forked", "lightning.pytorch", "hydra", "yaml", "matplotlib.figure", "calo_train.cli.train",
    "calo_train.cli.sample", "calo_train.cli.evaluate", "calo_train.cli.runs",
    "calo_train.training.compose", "calo_train.training.run", "calo_train.sampling.draw",
    "calo_train.families.l2lflows.family", "calo_train.evaluation.comparison",
    "calo_train.evaluation.report", "calo_train.evaluation.classifiers.catalogue",
]  # fmt: skip
_MODULES = {"calo-train": "train", "calo-sample": "sample", "calo-eval": "evaluate",
            "calo-data": "data", "calo-runs": "runs"}  # fmt: skip


@dataclass(frozen=True)
class Forked:
    """A command that runs, or has ended; `returncode` is negative after a signal."""

    process: BaseProcess
    log_file: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.exitcode is None

    @property
    def log(self) -> str:
        """Its stdout and stderr so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float = commands.TIMEOUT) -> int:
        """Wait for the end and give the exit code; AssertionError when it does not come."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"no end after {seconds} s:\n{self.log}")
        return self.process.exitcode

    def require_end(self, code: int) -> None:
        """Assert that it ended with this exit code."""
        assert self.process.exitcode == code, self.log


def start(
    command: str, *arguments: str, cwd: Path, log: Path, prepare: Callable[[], None] | None = None
) -> Forked:
    """Start a command in a session of its own; `prepare` is called in it before it begins."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    process = context.Process(
        target=_run, args=(command, arguments, str(cwd), str(log), prepare), daemon=False
    )
    process.start()
    return Forked(process, log)


def run(
    command: str, *arguments: str, cwd: Path, log: Path, prepare: Callable[[], None] | None = None
) -> Forked:
    """Run a command to its end."""
    started = start(command, *arguments, cwd=cwd, log=log, prepare=prepare)
    started.wait()
    return started


def _run(
    command: str,
    arguments: tuple[str, ...],
    cwd: str,
    log: str,
    prepare: Callable[[], None] | None,
) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.update(commands.environment())
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    sys.argv = [command, *arguments]
    if prepare is not None:
        prepare()
    importlib.import_module(f"calo_train.cli.{_MODULES[command]}").main()
