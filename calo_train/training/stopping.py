"""Stopping on request: a signal sets a flag, the next batch saves and leaves.

SIGTERM, SIGUSR1 and SIGUSR2 (batch systems; the last is submitit's) end with exit 75, Ctrl-C with
130. A second signal leaves at once; the checkpoint before it is intact.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from calo_train.errors import Interrupted, Stopped

if TYPE_CHECKING:
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """Whether and why training should stop; `deadline` is a monotonic time or None."""

    def __init__(self, max_time: float | None = None) -> None:
        self._signal: signal.Signals | None = None
        self._deadline = None if max_time is None else time.monotonic() + max_time

    def listen(self) -> None:
        """Install the handlers; called after Lightning has installed its own."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    @property
    def is_raised(self) -> bool:
        return self._signal is not None or self._is_late

    def error(self, where: str) -> Stopped:
        """Describe the stop for the command line; everything is saved by then."""
        do = "run the same command again; it goes on where it stopped"
        if self._signal is signal.SIGINT:
            return Interrupted("stopped by Ctrl-C; the checkpoint is saved", where=where, do=do)
        if self._signal is not None:
            reason = f"stopped by {self._signal.name}; the checkpoint is saved"
            return Stopped(reason, where=where, do=do)
        return Stopped("trainer.max_time is over; the checkpoint is saved", where=where, do=do)

    @property
    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._signal is not None:
            raise KeyboardInterrupt  # the second request: leave at once
        self._signal = signal.Signals(number)
