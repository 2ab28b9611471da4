"""Commands in processes of their own, some at a time; a request to stop reaches each once.

Children have a session of their own, so that Ctrl-C in a terminal comes from here alone: a second
signal would make them leave without a checkpoint.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from calo_train.training.stopping import StopRequest

STOP_CODES = (75, 130)  # of a command that a signal has stopped
_POLL = 0.1  # seconds
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(frozen=True)
class Task:
    """A command line with its name; `output` takes what it writes, None leaves that to us."""

    name: str
    command: tuple[str, ...]
    output: Path | None = None


def run_at_once(
    tasks: Sequence[Task],
    slots: Sequence[Mapping[str, str]],
    stop: StopRequest,
    on_end: Callable[[Task, int], None],
) -> None:
    """Run the tasks in order, at most one a slot, whose environment variables it gets.

    `on_end` is told every exit code; it is negative when a signal ended the process. When a stop
    is asked for, no further task starts and those that run are asked to stop, too.
    """
    waiting = list(tasks)
    running: dict[int, tuple[Task, subprocess.Popen[bytes]]] = {}
    is_told = False
    try:
        while waiting or running:
            for slot in range(len(slots)):
                if waiting and slot not in running and not stop.is_raised:
                    task = waiting.pop(0)
                    running[slot] = (task, _start(task, slots[slot]))
            if stop.is_raised and not is_told:
                waiting, is_told = [], True
                for _, process in running.values():
                    process.send_signal(signal.SIGTERM)
            for slot, (task, process) in list(running.items()):
                if process.poll() is not None:
                    del running[slot]
                    on_end(task, process.returncode)
            time.sleep(_POLL)
    finally:  # nobody waits for them any more
        for _, process in running.values():
            process.kill()


def _start(task: Task, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    output = None
    if task.output is not None:
        task.output.parent.mkdir(parents=True, exist_ok=True)
        output = task.output.open("ab")
    try:
        return subprocess.Popen(  # noqa: S603 - our own command lines
            task.command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        if output is not None:
            output.close()


def end_with_parent(parent: int) -> None:
    """Have Linux stop this process when `parent` dies, so that a killed command leaves none."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked
        raise SystemExit(STOP_CODES[0])


def job_command(file: Path, *changes: str) -> tuple[str, ...]:
    """Give the command line that trains what a file of a resolved configuration says."""
    parent = f"--parent={os.getpid()}"
    return (sys.executable, "-m", "calo_train.cli.job", str(file), parent, *changes)
