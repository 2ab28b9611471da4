"""Files that appear under their final name only when whole.

Write to a temporary name in the same folder, flush, fsync, rename, fsync the folder: a kill or a
full disk at any moment leaves either the old file or the new one.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from calo_train.errors import MachineError
from calo_train.quantities import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEMPORARY_MARK = ".part-"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success it takes the name `path`.

    On any exception the temporary file is removed and `path` stays as it was. A full disk or a
    refused permission becomes a MachineError that names the folder.
    """
    with _becoming(path) as temporary:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; on success it takes the name `path`, else it goes.

    `path` must not exist, or be empty. What a killed process left of the same folder is removed.
    """
    with _becoming(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, of=path.name)
        temporary.mkdir()
        yield temporary
        sync_folder(temporary)


@contextmanager
def _becoming(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` for what is to take its place, or to be removed."""
    temporary = path.with_name(f".{path.name}{_TEMPORARY_MARK}{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)  # of a folder: over an empty one too
        sync_folder(path.parent)
    except OSError as error:
        _discard(temporary)
        raise machine_error(error, path) from error
    except BaseException:
        _discard(temporary)
        raise


def _discard(temporary: Path) -> None:
    # Removing may fail for the reason that writing did; that reason is what is reported.
    with suppress(OSError):
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, *, of: str | None = None) -> list[Path]:
    """Remove what a killed process left in `folder` of anything, or of the name `of`; give it.

    What a process that lives on this machine is writing is left alone.
    """
    name = "*" if of is None else glob.escape(of)
    found = sorted(folder.glob(f".{name}{_TEMPORARY_MARK}*"))
    leftovers = [path for path in found if not _has_living_writer(path)]
    for leftover in leftovers:
        _remove(leftover)
    return leftovers


def _has_living_writer(temporary: Path) -> bool:
    pid = temporary.name.rpartition("-")[2]
    if not pid.isdigit() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file's content as hexadecimal text."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def machine_error(error: OSError, path: Path) -> MachineError:
    """Describe a failed file operation on `path` with what is free and what to do."""
    folder = next((parent for parent in (path, *path.parents) if parent.exists()), Path("/"))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = format_size(shutil.disk_usage(folder).free)
        return MachineError(
            "the disk is full",
            where=f"writing {path}; {free} free on its file system",
            do="free some space or choose another folder; the same command then goes on",
        )
    status = folder.stat()
    return MachineError(
        f"cannot write: {error.strerror or error}",
        where=f"{path}; {folder}: owner uid {status.st_uid}, mode {status.st_mode & 0o777:03o}",
        do="choose a folder that you may write to",
    )


def require_free_space(folder: Path, needed: int, *, purpose: str) -> None:
    """Raise MachineError when `folder`'s file system has less than `needed` bytes free."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise MachineError(
            f"not enough disk space: {format_size(needed)} needed, {format_size(free)} free",
            where=f"{folder}, for {purpose}",
            do="free some space or choose another folder",
        )


def require_writable(folder: Path) -> None:
    """Raise MachineError unless files can be created in `folder` or its nearest parent."""
    existing = next(
        parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists()
    )
    if not existing.is_dir():
        raise machine_error(
            NotADirectoryError(errno.ENOTDIR, "not a folder", str(existing)), folder
        )
    # The mode bits do not tell for root or on a read-only mount; only trying does.
    probe = existing / f".writable{_TEMPORARY_MARK}{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise machine_error(error, folder) from error
