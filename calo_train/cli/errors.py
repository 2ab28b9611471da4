"""How a command ends: exit codes, three-part messages, no traceback unless asked.

0 done; 2 usage or configuration; 3 data; 4 diverged; 5 the machine; 6 a condition of --fail-if
holds; 75 stopped by a signal and 130 by Ctrl-C, where the same command resumes. 1 is a bug of ours
and says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING

from calo_train import __version__
from calo_train.errors import CaloTrainError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BUG_EXIT = 1
_CTRL_C_EXIT = 130


def run_command(command: Callable[[], object], *, is_debug: bool = False) -> int:
    """Run a command, print what went wrong if anything did, and give its exit code."""
    try:
        command()
    except CaloTrainError as error:
        if is_debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; the same command goes on where it stopped", file=sys.stderr)
        return _CTRL_C_EXIT
    except BrokenPipeError:
        # The reader of our stdout (head, less) has enough; later flushes must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last door: anything unforeseen is our bug
        if is_debug:
            traceback.print_exc()
        print(
            f"error: this is a bug in calo-train {__version__}: {type(error).__name__}: {error}\n"
            "  where: run the command again with --debug for the traceback\n"
            "  do:    report it with that output and the command",
            file=sys.stderr,
        )
        return _BUG_EXIT
    return 0


@contextlib.contextmanager
def log_to_stderr(*, is_quiet: bool = False, is_debug: bool = False) -> Iterator[None]:
    """Send the package's log to stderr, plain lines, for the time of a command."""
    logger = logging.getLogger("calo_train")
    level = logging.DEBUG if is_debug else logging.ERROR if is_quiet else logging.INFO
    handler = logging.StreamHandler()
    handler.setFormatter(_LevelFormatter())
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _LevelFormatter(logging.Formatter):
    """INFO lines as they are; others with their level in front."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        return (
            message if record.levelno == logging.INFO else f"{record.levelname.lower()}: {message}"
        )
