"""A run on Weights & Biases, kept by a process of its own so that a training never waits for it.

Metrics, figures and tables go to the child as lines of JSON through a pipe that a thread fills. A
server that is slow, lost or not there holds up the child alone: the command waits for it at most
`finish_limit` at its end, then leaves, and what was not sent stays in the run folder.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PROCESS = ["-m", "calo_train.tracking_process"]
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackedRun:
    """Which W&B run is written, and how; `config` is sent, `folder` and `host` are not."""

    run_id: str
    project: str
    name: str
    folder: str
    is_online: bool
    finish_limit: float  # seconds that the server may take at the end
    config: Mapping[str, Any]


class Tracker:
    """The child process of a tracked run; nothing here waits for it but `close`."""

    def __init__(self, run: TrackedRun, *, where: Path) -> None:
        self._run = run
        self._where = where
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._child = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, *PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for the training; the child ends with its input
        )
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._write, self._listen)
        ]
        for thread in self._threads:
            thread.start()
        self._send(asdict(run))

    @property
    def run_id(self) -> str:
        return self._run.run_id

    def log(self, values: Mapping[str, float], *, stage: str) -> None:
        """Add one row of metrics of a stage, `stage/...`, to the run's history."""
        self._send({"log": dict(values), "stage": stage})

    def add_report(self, title: str, figures: Mapping[str, str], rows: list[list[Any]]) -> None:
        """Add figures, name -> path of a PNG, and a table whose first row is its header."""
        self._send({"report": title, "figures": dict(figures), "rows": rows})

    def close(self, limit: float | None = None) -> None:
        """Let the child send what is left, for at most `limit` (default: the run's) seconds."""
        allowed = self._run.finish_limit if limit is None else min(limit, self._run.finish_limit)
        self._send({"finish": allowed})
        self._lines.put(None)
        try:
            # The child ends by itself at the limit; a second more for its last words.
            status = self._child.wait(allowed + 1.0)
            if status != 0:
                _log.warning(
                    "the process of W&B ended with status %d; metrics.csv has every epoch", status
                )
        except subprocess.TimeoutExpired:
            self._kill()
            _log.warning("W&B did not finish in %.0f s; %s", allowed, self.words_for_later)
        for thread in self._threads:
            thread.join(1.0)
        for pipe in (self._child.stdin, self._child.stdout):
            with suppress(OSError, ValueError):  # what a dead child was not given is lost
                pipe.close()  # type: ignore[union-attr]

    @property
    def words_for_later(self) -> str:
        """Say how what was not sent is sent by hand."""
        return f"send the rest later with: wandb sync {self._where / 'wandb'}/*run-*"

    def _send(self, message: Mapping[str, Any]) -> None:
        self._lines.put(json.dumps(message))

    def _write(self) -> None:
        assert self._child.stdin is not None
        with suppress(OSError, ValueError):  # the child is gone: metrics.csv has all it would get
            while (line := self._lines.get()) is not None:
                self._child.stdin.write(line + "\n")
                self._child.stdin.flush()
            self._child.stdin.close()

    def _listen(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            level, _, text = line.strip().partition(" ")
            if level in _LEVELS:
                _log.log(_LEVELS[level], "%s", text.replace("FOLDER", str(self._where)))

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
