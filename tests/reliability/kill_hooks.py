"""Inside a training that is to be killed: a trace of its steps, and death amid a checkpoint.

The trace tells how much was lost: `S TIME DUE` at the start and when a checkpoint was written, the
next being due DUE seconds later, `B TIME` when a batch ended that was not the last of its epoch.
"""

from __future__ import annotations

import io
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_LAST_EVENT = 16  # of file operations while saving; most tiny trainings have more


def install(trace: str, kill_seed: int | None) -> None:
    """Trace this process's training; with a seed, kill it at a random point of a checkpoint."""
    _trace_steps(trace)
    if kill_seed is not None:
        _kill_amid_checkpoint(random.Random(kill_seed))


def steps_past_the_interval(trace: Path) -> int:
    """Count the steps that ended after the last checkpoint plus the interval that then held."""
    if not trace.exists():
        return 0
    past, due = 0, float("inf")
    for line in trace.read_text(encoding="utf-8").splitlines():
        kind, *numbers = line.split()
        if kind == "S" and len(numbers) == 2:
            past, due = 0, float(numbers[0]) + float(numbers[1])
        elif kind == "B" and numbers and float(numbers[0]) > due:
            past += 1
    return past


def _trace_steps(trace: str) -> None:
    from calo_train.training.fit import _LARGEST_SAVING_SHARE, _FitCallback

    descriptor = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    save, batch_end = _FitCallback._save, _FitCallback.on_train_batch_end

    def due(callback: Any) -> float:
        seconds: float = callback._save_seconds / _LARGEST_SAVING_SHARE
        return max(callback._interval, seconds)

    def traced_save(self: Any, module: Any) -> None:
        save(self, module)
        os.write(descriptor, f"S {self._saved} {due(self)}\n".encode())

    def traced_end(self: Any, trainer: Any, module: Any, *rest: Any) -> None:
        # The clock is read first: what ends before the checkpoint is due needs none.
        ended = time.monotonic()
        if not hasattr(self, "is_traced"):
            self.is_traced = True
            os.write(descriptor, f"S {self._saved} {due(self)}\n".encode())
        batch_end(self, trainer, module, *rest)
        # The last batch of an epoch leaves saving to the end of the epoch.
        if module.batch < module.num_batches:
            os.write(descriptor, f"B {ended}\n".encode())

    _FitCallback._save = traced_save
    _FitCallback.on_train_batch_end = traced_end


def _kill_amid_checkpoint(chance: random.Random) -> None:
    """Die at a random file operation of a random checkpoint, or in the middle of its bytes."""
    import torch

    from calo_train.training import checkpoints

    state = {"left": chance.randrange(1, _LAST_EVENT), "is_saving": False}

    def may_die(before: Callable[[], None] = lambda: None) -> None:
        if not state["is_saving"]:
            return
        state["left"] -= 1
        if state["left"] <= 0:
            before()
            os.kill(os.getpid(), signal.SIGKILL)

    save_checkpoint, torch_save = checkpoints.save_checkpoint, torch.save
    replace, fsync = Path.replace, os.fsync

    def saving(folder: Path, content: Any) -> None:
        state["is_saving"] = True
        save_checkpoint(folder, content)
        may_die()
        state["is_saving"] = False

    def save_some(content: Any, path: Path) -> None:
        whole = io.BytesIO()
        torch_save(content, whole)
        may_die(lambda: _write_some(path, whole.getvalue(), chance) or None)
        torch_save(content, path)

    def dying_replace(self: Path, target: Path) -> Path:
        may_die()
        return replace(self, target)

    def dying_fsync(descriptor: int) -> None:
        may_die()
        fsync(descriptor)

    from calo_train.training import fit

    fit.save_checkpoint = saving
    torch.save = save_some
    Path.replace = dying_replace
    os.fsync = dying_fsync


def _write_some(path: Path, content: bytes, chance: random.Random) -> None:
    path.write_bytes(content[: chance.randrange(len(content))])
