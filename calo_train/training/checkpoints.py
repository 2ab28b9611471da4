"""Checkpoints of one fit: written whole, read back, and never fewer than one good one.

A checkpoint holds only tensors and plain values and is loaded with `weights_only`. `last.ckpt` is
replaced only after its successor has been read back; the one before stays as `previous.ckpt`.
torch writes a ZIP archive with a CRC-32 of every tensor but does not look at it when it reads
(2.13); here it is checked, so that a flipped bit never trains on.
"""

from __future__ import annotations

import logging
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import torch

from calo_train.atomic_files import remove_leftovers, replacing
from calo_train.errors import MachineError

if TYPE_CHECKING:
    from pathlib import Path

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
# What torch, its unpickler and the archive raise for content that is damaged or foreign.
_UNREADABLE = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
_PROBE_BYTES = 1 << 20  # more than a full disk still takes
_log = logging.getLogger(__name__)


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as the last checkpoint of `folder`."""
    last = folder / LAST
    with replacing(last) as temporary:
        _write(state, temporary)
        _prove(temporary)  # before the old one goes
        if last.exists():
            last.replace(folder / PREVIOUS)


def _write(state: dict[str, Any], path: Path) -> None:
    """Write with torch; what the file system refuses is an OSError."""
    try:
        torch.save(state, path)
    except RuntimeError:
        # torch tells of a full disk as of a bug of its own; a plain write tells the reason.
        with path.open("ab") as rest:
            rest.write(bytes(_PROBE_BYTES))
        raise


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read the newest checkpoint that can be read, or None when the fit has not saved one yet."""
    for leftover in remove_leftovers(folder):
        _log.info("removed %s, which a killed process left half written", leftover.name)
    problems = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = _load(path)
        except _UNREADABLE as error:
            problems.append(f"{name}: {(str(error) or type(error).__name__).splitlines()[0]}")
            continue
        for problem in problems:
            _log.warning(
                "using %s of epoch %s, batch %s, since %s cannot be read",
                name, state.get("epoch", 0) + 1, state.get("batch", 0) + 1, problem,
            )  # fmt: skip
        return state
    if problems:
        raise MachineError(
            f"no checkpoint can be read ({'; '.join(problems)})",
            where=str(folder),
            do="restore it from a copy, or train anew with restart=true, which deletes nothing",
        )
    return None


def has_checkpoint(folder: Path) -> bool:
    """Whether a fit saved one here and has not finished."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def discard_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a finished fit; its best weights lie under their final names."""
    for name in (LAST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def _prove(path: Path) -> None:
    """Raise what is in _UNREADABLE unless `path` can be loaded; its tensors stay on the disk."""
    _require_checksums(path)
    torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _load(path: Path) -> dict[str, Any]:
    _require_checksums(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise TypeError(f"{path.name} holds a {type(state).__name__}")
    return state


def _require_checksums(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} differs")
