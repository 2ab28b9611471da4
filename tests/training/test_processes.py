"""Processes side by side: how many at once, who is told to stop, who is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calo_train.training.processes import Task, run_at_once
from calo_train.training.stopping import StopRequest

LIMIT = 60  # seconds


def _task(name: str, program: str, *words: str) -> Task:
    return Task(name, (sys.executable, "-c", program, *words))


def test_tasks_share_slots_and_tell_their_exit_codes(tmp_path: Path) -> None:
    """Each slot has one task at a time, with the slot's environment."""
    program = (
        "import os, pathlib, sys, time\n"
        "mine = pathlib.Path(os.environ['SLOT'])\n"
        "mine.touch(exist_ok=False)\n"
        "time.sleep(0.2)\n"
        "mine.unlink()\n"
        "sys.exit(int(sys.argv[1]))\n"
    )
    tasks = [_task(str(code), program, str(code)) for code in (0, 3, 0, 4)]
    slots = [{"SLOT": str(tmp_path / name)} for name in ("first", "second")]
    codes: list[tuple[str, int]] = []
    run_at_once(tasks, slots, StopRequest(), lambda task, code: codes.append((task.name, code)))
    assert sorted(codes) == [("0", 0), ("0", 0), ("3", 3), ("4", 4)]


def test_stop_reaches_a_task_once_and_starts_no_other(tmp_path: Path) -> None:
    """R3: a second signal would make a training leave without its checkpoint."""
    program = (
        "import pathlib, signal, sys, time\n"
        "told = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: told.append(1))\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "while not told: time.sleep(0.01)\n"
        "time.sleep(0.5)\n"
        "sys.exit(74 + len(told))\n"
    )
    started = [tmp_path / "first", tmp_path / "second"]
    tasks = [_task(path.name, program, str(path)) for path in started]

    class StopWhenStarted(StopRequest):
        @property
        def is_raised(self) -> bool:
            return started[0].exists()

    codes: dict[str, int] = {}
    run_at_once(tasks, [{}], StopWhenStarted(), lambda task, code: codes.update({task.name: code}))
    assert codes == {"first": 75}
    assert not started[1].exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of this")
def test_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    """R21: kill -9 of a command leaves no training that holds the run."""
    child = (
        "import os, pathlib, sys, time\n"
        "from calo_train.training.processes import end_with_parent\n"
        "end_with_parent(os.getppid())\n"
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    parent = (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', *sys.argv[1:]], start_new_session=True)\n"
    )
    file = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "-c", parent, child, str(file)])
    deadline = time.monotonic() + LIMIT
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(LIMIT)
    pid = int(file.read_text())
    while _is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Nobody may have waited for it yet.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
