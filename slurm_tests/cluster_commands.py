"""Asking a cluster, and waiting for what its jobs do."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_JOB_LIMIT = 900  # seconds; a job imports torch on a machine that others may share


def slurm(*command: str) -> str:
    """Run a command of SLURM and give what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def wait_until_idle() -> None:
    """Wait until no job waits or runs."""
    _wait(lambda: not slurm("squeue", "--noheader").strip(), "jobs are left")


def wait_for_file(folder: Path, pattern: str) -> Path:
    """Wait until a file of this pattern exists, and give it."""
    _wait(lambda: any(folder.glob(pattern)), f"no {pattern} in {folder}")
    return next(folder.glob(pattern))


def _wait(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + _JOB_LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"{complaint}\n{slurm('squeue')}"
        time.sleep(0.5)
