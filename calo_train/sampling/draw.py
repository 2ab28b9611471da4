"""Draw a request to a file that survives kills and appears under its name only when complete.

Each finished tile is stored by an atomic rename in a folder beside the target; a killed command
finds them and draws only the rest. At the end they are written in order to one file of the data
set's layout. An HDF5 file that is appended to tile by tile would be lost with a kill between two
of its own writes.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from calo_train import __version__
from calo_train.atomic_files import (
    machine_error,
    replacing,
    require_free_space,
    require_writable,
    write_text,
)
from calo_train.errors import Interrupted, Stopped, UsageError
from calo_train.families.generator import Generator
from calo_train.families.targets import family_name
from calo_train.geometry.sources import geometry_to_mapping
from calo_train.progress import Progress
from calo_train.sampling.request import SampleRequest, require_conditions
from calo_train.sampling.tiles import Tile, draw_tiles, tile_numbers
from calo_train.showers.layouts import create_showers
from calo_train.showers.showers import Showers

_COMPRESSED = 0.25  # stored over decoded size of sparse showers, at most
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawn:
    """What was written."""

    path: Path
    num_showers: int
    seconds: float
    notes: tuple[str, ...]

    def as_mapping(self) -> dict[str, Any]:
        """Give the result as plain data."""
        return {**vars(self), "path": str(self.path), "notes": list(self.notes)}


def draw_to_file(
    generator: Generator,
    folder: Path,
    request: SampleRequest,
    out: Path,
    *,
    num_workers: int = 1,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
    layout: str | None = None,
    is_forced: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> Drawn:
    """Draw the shard of a request to `out`; `folder` is where the generator lies.

    Goes on where an interrupted call of the same request stopped. Raises UsageError when `out`
    exists and is not forced, Stopped or Interrupted on a signal.
    """
    started = time.monotonic()
    device = device or torch.device("cpu")
    notes = (*generator.notes, *require_conditions(request, generator))
    if out.exists() and not is_forced:
        raise UsageError(
            "the output exists already",
            where=str(out),
            do="give another --out, or --force, which replaces it",
        )
    require_writable(out.parent)
    first, end = request.rows
    size = (end - first) * generator.geometry.num_voxels * 4
    require_free_space(out.parent, int(2 * _COMPRESSED * size), purpose=f"{end - first} showers")
    store = _TileStore(out, _identity(generator, request, dtype, device))
    sampler_tile = generator.family.tile
    numbers = list(tile_numbers(request, sampler_tile))
    left = [number for number in numbers if not store.has(number)]
    if len(left) < len(numbers):
        _log.info("going on: %d of %d tiles are drawn", len(numbers) - len(left), len(numbers))
    with Progress("sampling", end - first, unit="showers") as progress, _stopping(out) as check:
        progress.skip((len(numbers) - len(left)) * sampler_tile)
        tiles = draw_tiles(
            generator, folder, request, left, num_workers=num_workers, dtype=dtype, device=device
        )
        for tile in tiles:
            store.save(tile)
            progress.advance(len(tile.energies))
            check()
    repairs = _assemble(
        generator,
        request,
        store,
        numbers,
        out,
        layout or generator.layout,
        {**_provenance(generator, request, dtype, device, notes), **(attributes or {})},
    )
    store.remove()
    for name, count in repairs.items():
        _log.debug("%s: %d", name, count)
    return Drawn(out, end - first, time.monotonic() - started, notes)


def _assemble(
    generator: Generator,
    request: SampleRequest,
    store: _TileStore,
    numbers: list[int],
    out: Path,
    layout: str,
    attributes: dict[str, Any],
) -> dict[str, int]:
    """Write all tiles in order under a temporary name, then rename; give the repair counts."""
    repairs: dict[str, int] = {}
    names = generator.condition_names
    with replacing(out) as temporary:
        with create_showers(
            temporary, layout, generator.geometry, attributes=attributes, condition_names=names
        ) as writer:
            for number in numbers:
                tile = store.load(number)
                conditions = request.conditions(tile.first, len(tile.energies))
                columns = {name: conditions[name].astype(np.float32) for name in names}
                writer.append(Showers(tile.energies, columns, generator.geometry))
                for name, count in tile.repairs.items():
                    repairs[name] = repairs.get(name, 0) + count
            writer.set_attributes(
                {f"repaired_{name}": count for name, count in repairs.items()}
            )
    return repairs


class _TileStore:
    """Finished tiles of one request, in a folder beside its output."""

    def __init__(self, out: Path, identity: str) -> None:
        self._folder = out.with_name(f".{out.name}.tiles")
        request = self._folder / "request.json"
        if self._folder.exists() and not _same(request, identity):
            _log.info("tiles of another request were left beside %s; they are dropped", out.name)
            shutil.rmtree(self._folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise machine_error(error, self._folder) from error
        write_text(request, identity)

    def has(self, number: int) -> bool:
        return self._path(number).is_file()

    def save(self, tile: Tile) -> None:
        names = sorted(tile.repairs)
        with replacing(self._path(tile.number)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                energies=tile.energies,
                first=tile.first,
                names=np.array(names, dtype=str),
                counts=np.array([tile.repairs[name] for name in names], dtype=np.int64),
            )

    def load(self, number: int) -> Tile:
        with np.load(self._path(number), allow_pickle=False) as stored:
            repairs = dict(zip(stored["names"].tolist(), stored["counts"].tolist(), strict=True))
            return Tile(number, int(stored["first"]), stored["energies"], repairs)

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:09d}.npz"


def _same(path: Path, identity: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == identity


def _identity(
    generator: Generator, request: SampleRequest, dtype: torch.dtype, device: torch.device
) -> str:
    shard = f"{request.shard.index}/{request.shard.count}"
    return f"{generator.fingerprint} {request.as_text()} {shard} {dtype} {device.type}"


def _provenance(
    generator: Generator,
    request: SampleRequest,
    dtype: torch.dtype,
    device: torch.device,
    notes: tuple[str, ...],
) -> dict[str, Any]:
    return {
        "generator": f"calo-train {__version__} {family_name(generator.family)}",
        "generator_fingerprint": generator.fingerprint,
        "trained_on": generator.dataset_name,
        "threshold_mev": generator.threshold,
        "request": request.as_text(),
        "seed": request.seed,
        "shard": f"{request.shard.index}/{request.shard.count}",
        "tile": generator.family.tile,
        "dtype": str(dtype).removeprefix("torch."),
        "device": device.type,
        "torch_version": str(torch.__version__),
        "sampled_geometry": json.dumps(geometry_to_mapping(generator.geometry)),
        "notes": "\n".join(notes),
    }


@contextmanager
def _stopping(out: Path) -> Iterator[Any]:
    """Turn signals into an orderly end after the tile in hand; a second one leaves at once."""
    caught: list[signal.Signals] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(signal.Signals(number))

    def check() -> None:
        if not caught:
            return
        kind = Interrupted if caught[0] is signal.SIGINT else Stopped
        raise kind(
            f"stopped by {caught[0].name}; the tiles so far are kept",
            where=str(out),
            do="run the same command again; it goes on where it stopped",
        )

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, remember) for number in numbers}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
