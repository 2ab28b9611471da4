"""Published files to a folder: continued where they stopped, verified, then given their name.

`NAME.part` grows while NAME is fetched, over several commands if need be; it takes the name when
its size and checksum are those of the record. Whatever goes wrong, nothing else has that name.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import time
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from calo_train.atomic_files import machine_error, require_free_space, sync_folder
from calo_train.errors import DataError, MachineError, UsageError
from calo_train.progress import Progress
from calo_train.quantities import format_size
from calo_train.showers.web import (
    CONNECTION_ERRORS,
    Refused,
    Unreachable,
    is_partial,
    open_url,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import FileIO
    from pathlib import Path

    from calo_train.showers.records import PublishedFile

_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 5  # in a row that bring nothing new
_PAUSE = 2.0  # seconds before the next attempt
_MB = 1e6
_PASSING = (  # what a server answers when it is overloaded
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_log = logging.getLogger(__name__)


def download_all(
    files: Sequence[PublishedFile], folder: Path, *, pause: float = _PAUSE
) -> list[Path]:
    """Fetch files into a folder; those that are there already and intact are left as they are."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise machine_error(error, folder) from error
    missing = [file for file in files if not _is_there(file, folder / file.name)]
    needed = sum(file.size - _num_fetched(file, folder) for file in missing)
    require_free_space(folder, needed, purpose=f"{len(missing)} files")
    for file in missing:
        _download(file, folder, pause=pause)
    return [folder / file.name for file in files]


def _is_there(file: PublishedFile, path: Path) -> bool:
    if not path.exists():
        return False
    if path.stat().st_size == file.size and _checksum(path, file.algorithm) == file.checksum:
        _log.info("already there: %s", path)
        return True
    raise UsageError(
        "a file of this name is there and is not the published one",
        where=str(path),
        do="move it away, or choose another folder with --to",
    )


def _part(file: PublishedFile, folder: Path) -> Path:
    return folder / f"{file.name}.part"


def _num_fetched(file: PublishedFile, folder: Path) -> int:
    part = _part(file, folder)
    return min(part.stat().st_size, file.size) if part.exists() else 0


def _download(file: PublishedFile, folder: Path, *, pause: float) -> None:
    target, part = folder / file.name, _part(file, folder)
    with _owned(part) as content:
        try:
            _fetch(file, content, part, pause=pause)
            os.fsync(content.fileno())
        except OSError as error:
            raise machine_error(error, part) from error
        found = _checksum(part, file.algorithm)
        if found != file.checksum:
            part.unlink()
            raise DataError(
                f"wrong checksum: {file.algorithm} {found}, expected {file.checksum}",
                where=file.url,
                do="run the command again, which starts this file anew; what came is deleted",
            )
        part.replace(target)
        sync_folder(folder)
    _log.info("fetched %s, %s, %s as published", target, format_size(file.size), file.algorithm)


@contextmanager
def _owned(part: Path) -> Iterator[FileIO]:
    """Open a partial file that no other process is filling."""
    try:
        content = part.open("a+b", buffering=0)
    except OSError as error:
        raise machine_error(error, part) from error
    with content:
        try:
            fcntl.flock(content, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MachineError(
                "another process is fetching this file", where=str(part), do="wait for it"
            ) from error
        try:
            yield content
        finally:
            if os.fstat(content.fileno()).st_size == 0:
                part.unlink(missing_ok=True)


def _fetch(file: PublishedFile, content: FileIO, part: Path, *, pause: float) -> None:
    """Append what is missing, over as many connections as it takes while each brings something."""
    failures = 0
    with Progress(f"fetching {file.name}", file.size / _MB, unit="MB") as progress:
        started = content.seek(0, os.SEEK_END)
        if started:
            _log.info("going on with %s at %s", part.name, format_size(started))
        progress.skip(started / _MB)
        while content.seek(0, os.SEEK_END) < file.size:
            before = content.tell()
            reason = _append(file, content, progress)
            after = content.seek(0, os.SEEK_END)
            if after >= file.size:
                break
            failures = 0 if after > before else failures + 1
            if failures >= _ATTEMPTS:
                raise MachineError(
                    f"the file is cut: {after} of {file.size} bytes came ({reason})",
                    where=f"{file.url}, kept in {part}",
                    do="run the same command again; it goes on where it stopped",
                )
            time.sleep(pause)
    if content.tell() > file.size:
        part.unlink()
        raise DataError(
            f"more came than the {file.size} bytes of the record",
            where=file.url,
            do="run the command again, which starts this file anew; what came is deleted",
        )


def _append(file: PublishedFile, content: FileIO, progress: Progress) -> str:
    """Append what one connection gives, at most a block too much; say why it ended."""
    first_byte = content.tell()
    try:
        answer = open_url(file.url, first_byte=first_byte)
    except Unreachable as error:
        return error.what
    except Refused as error:
        if error.status not in _PASSING:
            raise
        return error.what
    with answer:
        if first_byte and not is_partial(answer, first_byte):
            _log.info("the server cannot continue a file: starting anew")
            content.truncate(0)
            content.seek(0)
            progress.skip(-first_byte / _MB)
        while content.tell() <= file.size:
            try:
                block = answer.read1(_BLOCK_BYTES)
            except CONNECTION_ERRORS as error:
                return str(error) or type(error).__name__
            if not block:
                return "the connection ended"
            _write(content, block)
            progress.advance(len(block) / _MB)
    return "too many bytes"


def _write(content: FileIO, block: bytes) -> None:
    """Write all of a block, which an unbuffered file does not promise; a full disk shows here."""
    left = memoryview(block)
    while left:
        left = left[content.write(left) :]


def _checksum(path: Path, algorithm: str) -> str:
    with path.open("rb") as content:
        # md5 is what Zenodo publishes; it guards against accidents, as we use it.
        return hashlib.file_digest(
            content, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()
