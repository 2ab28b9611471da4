"""One process owns a run: an atomically created lock with host, pid and start.

A dead owner's lock is taken over with a log line; a live one's is an error that names it. No
file-system lock is used, since network file systems often have none.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import socket
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calo_train.atomic_files import machine_error, write_text
from calo_train.errors import MachineError
from calo_train.quantities import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRESS = ("share_done", "seconds_left")  # that an owner may tell with its heartbeat
_FOREIGN_STALE_AFTER = 1800.0  # seconds without a heartbeat from another host
_TURN_POLL, _STALE_TURN = 0.02, 30.0  # seconds
_log = logging.getLogger(__name__)


@contextmanager
def owned(path: Path) -> Iterator[Path]:
    """Hold the lock file `path` for the time of a with-block; MachineError if another does.

    The owner touches the file as its heartbeat (`beat`), so that other hosts can tell it is alive.
    """
    _acquire(path)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Hold `path` for the moment that a small file is read and written again.

    Whoever finds it held waits; an old one was left by a process that was killed.
    """
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            break
        except FileExistsError:
            _discard_stale_turn(path)
            time.sleep(_TURN_POLL)
        except OSError as error:
            raise machine_error(error, path) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _discard_stale_turn(path: Path) -> None:
    with suppress(FileNotFoundError):
        if time.time() - path.stat().st_mtime > _STALE_TURN:
            path.unlink()


def beat(path: Path, **progress: float) -> None:
    """Show other hosts that the owner is alive, and leave word of its memory and progress."""
    owner = _read(path)
    if owner is None or owner.get("pid") != os.getpid():
        path.touch()  # a further process of the owner's training
        return
    write_text(path, json.dumps({**owner, "peak_memory": peak_memory(), **progress}))


def peak_memory() -> int:
    """Give the most memory that this process has held at once, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def read_progress(path: Path) -> dict[str, float]:
    """Give what the living owner of a lock last said of its progress; empty where none does."""
    owner = _read(path)
    if owner is None or not _is_alive(owner, path):
        return {}
    return {key: float(owner[key]) for key in PROGRESS if isinstance(owner.get(key), int | float)}


def describe_owner(path: Path) -> str | None:
    """Say who holds the lock, or None when nobody alive does."""
    owner = _read(path)
    return _words(owner) if owner is not None and _is_alive(owner, path) else None


def is_held_by_parent(path: Path) -> bool:
    """Whether the process that started this one holds the lock."""
    owner = _read(path) or {}
    return owner.get("host") == socket.gethostname() and owner.get("pid") == os.getppid()


def _acquire(path: Path) -> None:
    for _ in range(2):
        try:
            _create(path, json.dumps(_self()))
        except FileExistsError:
            _take_over(path)
            continue
        except OSError as error:
            raise machine_error(error, path) from error
        return
    raise MachineError(
        "another process took this run at the same moment",
        where=str(path),
        do="wait for it, or train under another name=...",
    )


def _create(path: Path, content: str) -> None:
    """Create a file that must not exist, with its content from the first moment on."""
    whole = path.with_name(f".{path.name}.own-{os.getpid()}")
    whole.write_text(content, encoding="utf-8")
    try:
        os.link(whole, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: others may see it empty for a moment
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as lock:
            lock.write(content)
    finally:
        whole.unlink(missing_ok=True)


def _take_over(path: Path) -> None:
    owner = _read(path)
    if owner is not None and _is_alive(owner, path):
        raise MachineError(
            f"another process is working on this run: {_words(owner)}",
            where=str(path),
            do="wait for it, stop it, or train under another name=...",
        )
    _log.info("taking over the lock of a process that is gone (%s)", _words(owner or {}))
    if owner is not None and owner.get("host") == socket.gethostname():
        _say_how_it_ended(owner)
    _remove(path, owner)


def _remove(path: Path, owner: dict[str, Any] | None) -> None:
    """Remove the lock of `owner`, and no other that a faster process put there meanwhile."""
    aside = path.with_name(f".{path.name}.stale-{os.getpid()}")
    try:
        path.rename(aside)  # of several processes one succeeds
    except FileNotFoundError:
        return
    if _read(aside) != owner:
        with suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _say_how_it_ended(owner: dict[str, Any]) -> None:
    """Tell what a lock that was left behind means: every other end removes it."""
    peak = owner.get("peak_memory")
    held = f"; it held up to {format_size(peak)}" if isinstance(peak, int) else ""
    _log.warning(
        "that process was killed (signal 9), or the machine went down%s. Where the kernel killed "
        "it for want of memory, lower dataset.memory_budget",
        held,
    )


def _self() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_start": _process_start(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": Path(sys.argv[0]).name,
        **_cluster_job(),
    }


def _cluster_job() -> dict[str, Any]:
    """Name the SLURM job of this process and how often it was requeued; empty elsewhere."""
    job = os.environ.get("SLURM_JOB_ID")
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    return {} if job is None else {"job": job, "restart": int(restart)}


def _is_of_earlier_start(owner: dict[str, Any]) -> bool:
    """Whether the owner is this very job before it was requeued: SLURM runs a job once at a time.

    Without this a job whose node died would wait half an hour for its own lock on the next node.
    """
    own = _cluster_job()
    is_same = bool(own) and owner.get("job") == own["job"]
    return is_same and int(owner.get("restart", 0)) < int(own["restart"])


def _read(path: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def _is_alive(owner: dict[str, Any], path: Path) -> bool:
    if owner.get("host") != socket.gethostname():
        if _is_of_earlier_start(owner):
            return False
        return time.time() - path.stat().st_mtime < _FOREIGN_STALE_AFTER
    start = _process_start(int(owner.get("pid", -1)))
    # A pid is used again after a reboot; its start time tells the two processes apart.
    return start is not None and start == owner.get("process_start")


def _process_start(pid: int) -> str | None:
    """Give something that distinguishes processes of one pid, or None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None if Path("/proc").is_dir() else _start_without_proc(pid)
    return stat.rpartition(")")[2].split()[19]


def _start_without_proc(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return "unknown"
    except (OSError, OverflowError):
        return None
    return "unknown"


def _words(owner: dict[str, Any]) -> str:
    return (
        f"{owner.get('command', 'unknown command')}, pid {owner.get('pid', '?')} "
        f"on {owner.get('host', '?')} since {owner.get('since', '?')}"
    )
