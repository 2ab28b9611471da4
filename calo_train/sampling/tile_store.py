"""Finished tiles of one request in a folder beside its output, to go on from after a kill.

Each tile is a file of its own that appears by an atomic rename, with the mask of hit voxels and
the energies in them: most voxels of a shower are empty. One process owns the folder at a time.
"""

from __future__ import annotations

import fcntl
import glob
import logging
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.atomic_files import machine_error, remove_leftovers, replacing, write_text
from calo_train.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DIGITS = 9  # of a tile's number, at least, so that a listing is in order
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Tile:
    """The wanted showers of one tile, from shower `first` on: energies (rows, voxels) in MeV."""

    number: int
    first: int
    energies: npt.NDArray[np.float32]
    repairs: dict[str, int]


@dataclass(frozen=True)
class TileStore:
    """The folder of the finished tiles of one output."""

    folder: Path

    def numbers(self) -> set[int]:
        """Give the numbers of the finished tiles."""
        return {int(path.stem) for path in self.folder.glob(f"{'[0-9]' * _DIGITS}*.npz")}

    def save(self, tile: Tile) -> None:
        """Store a finished tile."""
        is_hit = tile.energies != 0
        names = sorted(tile.repairs)
        with replacing(self._path(tile.number)) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                first=tile.first,
                shape=np.array(tile.energies.shape),
                is_hit=np.packbits(is_hit),
                hits=tile.energies[is_hit],
                repair_names=np.array(names, dtype=str),
                repair_counts=np.array([tile.repairs[name] for name in names], dtype=np.int64),
            )

    def load(self, number: int) -> Tile:
        """Read a finished tile back."""
        with np.load(self._path(number), allow_pickle=False) as stored:
            energies = np.zeros(stored["shape"], dtype=np.float32)
            is_hit = np.unpackbits(stored["is_hit"], count=energies.size)
            energies[is_hit.reshape(energies.shape).astype(bool)] = stored["hits"]
            names, counts = stored["repair_names"].tolist(), stored["repair_counts"].tolist()
            repairs = dict(zip(names, counts, strict=True))
            return Tile(number, int(stored["first"]), energies, repairs)

    def remove(self) -> None:
        """Remove all tiles once they are part of the output."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:0{_DIGITS}d}.npz"


@contextmanager
def owned_store(out: Path, identity: str) -> Iterator[TileStore]:
    """Own the tiles of `out`; those of a request with another identity are dropped.

    Raises MachineError when another process draws the same output.
    """
    store = TileStore(out.with_name(f".{out.name}.tiles"))
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        lock = (store.folder / "lock").open("w", encoding="utf-8")
    except OSError as error:
        raise machine_error(error, store.folder) from error
    with lock:
        _require_lock(lock, out)
        _drop_leftovers(store, out)
        request = store.folder / "request.json"
        if not (request.is_file() and request.read_text(encoding="utf-8") == identity):
            _drop_tiles(store, out)
            write_text(request, identity)
        try:
            yield store
        finally:
            if not store.numbers():
                store.remove()


def _require_lock(lock: IO[str], out: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise MachineError(
            "another process is drawing this output",
            where=str(out),
            do="wait for it, or give another --out",
        ) from error
    except OSError as error:  # some network file systems have no locks
        _log.debug("no lock on %s: %s", lock.name, error)


def _drop_leftovers(store: TileStore, out: Path) -> None:
    """Remove what a killed process was writing."""
    remove_leftovers(store.folder)
    for leftover in out.parent.glob(f".{glob.escape(out.name)}.part-*"):
        leftover.unlink(missing_ok=True)


def _drop_tiles(store: TileStore, out: Path) -> None:
    tiles = list(store.folder.glob("*.npz"))
    if tiles:
        _log.info(
            "%d tiles of another request lay beside %s; they are dropped", len(tiles), out.name
        )
    for tile in tiles:
        tile.unlink()
