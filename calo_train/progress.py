"""What long work shows: done of the whole, rate, time left.

On a terminal one live line; in a pipe or a batch log a plain line every 30 s; nothing when the
`calo_train` logger is quieter than INFO. Results go to stdout, so everything here is on stderr.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Self

from calo_train.quantities import format_duration

if TYPE_CHECKING:
    from types import TracebackType

_PLAIN_INTERVAL = 30.0  # seconds between lines in a log; USERS of batch systems read them later
_log = logging.getLogger(__name__)


class Progress:
    """A counter of work with a name, shown live or as occasional lines.

    `total` is in `unit`s ("showers"); `advance` takes how many were done and a short note (a loss,
    a part). Weighted work has no unit and shows its share only. Use as a context manager.
    """

    def __init__(self, name: str, total: float, *, unit: str = "") -> None:
        self._name = name
        self._total = total
        self._unit = unit
        self._done = 0.0
        self._resumed = 0.0
        self._note = ""
        self._started = time.monotonic()
        self._last_line = self._started
        self._live = _LiveLine(total) if _shows_live() else None

    def __enter__(self) -> Self:
        self._started = self._last_line = time.monotonic()
        if self._live is not None:
            self._live.start(self._text())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def skip(self, amount: float) -> None:
        """Count work that an earlier process did; it does not enter the rate."""
        self._resumed += amount
        self.advance(amount)

    def advance(self, amount: float, note: str = "") -> None:
        """Count `amount` of work as done and show it."""
        self._done += amount
        self._note = note or self._note
        if self._live is not None:
            self._live.update(self._done, self._text())
            return
        now = time.monotonic()
        if now - self._last_line >= _PLAIN_INTERVAL:
            self._last_line = now
            _log.info("%s", self._text())

    @property
    def rate(self) -> float:
        """Units a second since the start of this process; 0 before anything was done."""
        elapsed = time.monotonic() - self._started
        return (self._done - self._resumed) / elapsed if elapsed > 0 else 0.0

    @property
    def share_done(self) -> float:
        """Share of the whole that is done, with what earlier processes did; from 0 to 1."""
        return self._done / self._total if self._total else 1.0

    @property
    def seconds_left(self) -> float | None:
        """Time left at the rate so far; None before there is one."""
        return (self._total - self._done) / self.rate if self.rate > 0 else None

    def _text(self) -> str:
        seconds = self.seconds_left
        left = "estimating" if seconds is None else format_duration(seconds) + " left"
        pieces = [self._name, f"{100 * self.share_done:3.0f} %"]
        if self._unit:
            pieces.append(f"{self._done:.0f}/{self._total:.0f} {self._unit}")
            pieces.append(f"{self.rate:.3g} {self._unit}/s")
        pieces.append(left)
        return "  ".join([*pieces, self._note] if self._note else pieces)


class _LiveLine:
    def __init__(self, total: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        console = Console(stderr=True)
        self._progress = RichProgress(
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=total or 1)

    def start(self, text: str) -> None:
        self._progress.start()
        self._progress.update(self._task, description=text)

    def update(self, done: float, text: str) -> None:
        self._progress.update(self._task, completed=done, description=text)

    def stop(self) -> None:
        self._progress.stop()


def _shows_live() -> bool:
    is_terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return is_terminal and logging.getLogger("calo_train").isEnabledFor(logging.INFO)
