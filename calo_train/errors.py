"""Errors that a user can cause: what is wrong, where, and what to do.

Every room raises these and `calo_train.cli.errors` prints them. The exit codes are part of the
interface: job scripts decide on them whether to stop, to mend the data or to come back.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class CaloTrainError(Exception):
    """A problem with three parts: what is wrong, where it was seen, what to do about it."""

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, *, where: str, do: str) -> None:
        super().__init__(what, where, do)
        self.what = what
        self.where = where
        self.do = do

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call the class with positional arguments when a worker's error is
        # unpickled.
        return _rebuilt, (type(self), self.what, self.where, self.do)

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where}\n  do:    {self.do}"


def _rebuilt(kind: type[CaloTrainError], what: str, where: str, do: str) -> CaloTrainError:
    return kind(what, where=where, do=do)


class UsageError(CaloTrainError):
    """The request itself is wrong: a flag, a config key, a value, a condition."""

    exit_code = 2


class DataError(CaloTrainError):
    """A file of showers, a generator or a run folder does not hold what it should."""

    exit_code = 3


class GeometryMismatch(DataError):
    """Two detectors that must be equal are not; the message shows the first difference."""


class DivergedError(CaloTrainError):
    """Training left the finite numbers; the last good checkpoint is intact."""

    exit_code = 4


class MachineError(CaloTrainError):
    """Disk, memory, permission, device or lock: the machine refused, not the request."""

    exit_code = 5


class ConditionMet(CaloTrainError):
    """A condition of `--fail-if` holds: all was done, and the result is what was to be found."""

    exit_code = 6


class Stopped(CaloTrainError):
    """A signal asked to stop; everything is saved and the same command goes on."""

    exit_code = 75


class Interrupted(Stopped):
    """Ctrl-C: as `Stopped`, with the shell's exit code for it."""

    exit_code = 130


def nearest_names(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Name up to `count` known names near to `name`, else the first ones, for a message."""
    names = sorted(set(known))
    close = get_close_matches(name, names, n=count, cutoff=0.5)
    if close:
        return "nearest: " + ", ".join(close)
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known: {shown}" if names else "none are known"
