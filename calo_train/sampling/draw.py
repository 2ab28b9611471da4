"""Draw a request to a file that survives kills and appears under its name only when complete.

Each finished tile is stored in a folder beside the target; a killed command finds them and draws
only the rest. At the end they are written in order to one file of the data set's layout. An HDF5
file that is appended to tile by tile would be lost with a kill between two of its own writes.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from calo_train import __version__
from calo_train.atomic_files import replacing, require_free_space, require_writable
from calo_train.errors import Interrupted, Stopped, UsageError
from calo_train.families.targets import family_name
from calo_train.geometry.sources import geometry_to_mapping
from calo_train.progress import Progress
from calo_train.sampling.request import (
    conditions_between,
    conditions_outside,
    require_conditions,
)
from calo_train.sampling.tile_store import owned_store
from calo_train.sampling.tiles import (
    Computing,
    Drawing,
    draw_tiles,
    rows_of_tile,
    tile_numbers,
)
from calo_train.showers.layouts import create_showers
from calo_train.showers.showers import Showers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import FrameType

    from calo_train.families.generator import Generator
    from calo_train.sampling.request import SampleRequest

# Stored bytes of a decoded byte, twice: mask and hits of the tiles, gzip in the file. Showers with
# a tenth of their voxels hit need 0.3 in all; an untrained generator hits them all.
_STORED = 0.4
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawn:
    """What was written; repairs count values that left what the family can represent."""

    path: Path
    num_showers: int
    num_resumed: int  # showers that an earlier, interrupted call had drawn
    seconds: float
    repairs: dict[str, int]
    notes: tuple[str, ...]

    def as_mapping(self) -> dict[str, Any]:
        """Give the result as plain data."""
        return {**vars(self), "path": str(self.path), "notes": list(self.notes)}


def draw_to_file(
    generator: Generator,
    request: SampleRequest,
    out: Path,
    *,
    num_threads: int = 1,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
    layout: str | None = None,
    is_forced: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> Drawn:
    """Draw the shard of a request to `out`, on so many threads.

    Goes on where an interrupted call of the same request stopped. `attributes` are added to the
    file's. Raises UsageError when `out` exists and is not forced, Stopped or Interrupted on a
    signal.
    """
    started = time.monotonic()
    computing = Computing(dtype, device or torch.device("cpu"), num_threads)
    require_conditions(request, generator)
    outside = conditions_outside(request, generator)
    between = conditions_between(request, generator)
    for words in between:
        _log.warning("%s", words)
    notes = (
        *generator.notes,
        *(f"extrapolated: {words}" for words in outside),
        *(f"interpolated: {words}" for words in between),
    )
    if request.coarse is not None:
        notes += request.coarse.notes(request.num_showers)
    provenance = {
        **_provenance(generator, request, computing),
        "is_extrapolated": bool(outside),
        "is_interpolated": bool(between),
        "notes": "\n".join(notes),
        **(attributes or {}),
    }
    _require_target(out, is_forced=is_forced)
    identity = _identity(generator, request, computing)
    with owned_store(out, identity) as store, _stopping(out) as check:
        drawing = Drawing(generator, request, store, computing)
        num_resumed = _draw_missing(drawing, check)
        layout = layout or generator.layout
        repairs = _assemble(drawing, out, layout=layout, attributes=provenance, check=check)
        store.remove()
    seconds = time.monotonic() - started
    return Drawn(out, request.num_rows, num_resumed, seconds, repairs, notes)


def _require_target(out: Path, *, is_forced: bool) -> None:
    if out.is_dir():
        raise UsageError(
            "the output is a folder", where=str(out), do="give the name of a file in it"
        )
    if out.exists() and not is_forced:
        raise UsageError(
            "the output exists already",
            where=str(out),
            do="give another --out, or --force, which replaces it",
        )
    require_writable(out.parent)


def _draw_missing(drawing: Drawing, check: Callable[[], None]) -> int:
    """Draw all tiles that are not stored yet; give how many showers were."""
    request, tile = drawing.request, drawing.generator.family.tile
    stored = drawing.store.numbers()
    num_stored = sum(rows_of_tile(request, tile, number) for number in stored)
    if num_stored:
        _log.info("going on: %d of %d showers are drawn", num_stored, request.num_rows)
    num_left = request.num_rows - num_stored
    needed = _STORED * 4 * drawing.generator.geometry.num_voxels * num_left
    require_free_space(drawing.store.folder.parent, int(needed), purpose=f"{num_left} showers")
    left = [number for number in tile_numbers(request, tile) if number not in stored]
    with Progress("sampling", request.num_rows, unit="showers") as progress:
        progress.skip(num_stored)
        with closing(draw_tiles(drawing, left)) as tiles:
            for num_rows in tiles:
                progress.advance(num_rows)
                check()
    return num_stored


def _assemble(
    drawing: Drawing,
    out: Path,
    *,
    layout: str,
    attributes: Mapping[str, Any],
    check: Callable[[], None],
) -> dict[str, int]:
    """Write all tiles in order under a temporary name, then rename; give the repair counts."""
    generator, request = drawing.generator, drawing.request
    repairs: dict[str, int] = {}
    names = generator.condition_names
    with (
        replacing(out) as temporary,
        create_showers(
            temporary,
            layout,
            generator.geometry,
            attributes=attributes,
            condition_names=names,
            num_threads=drawing.computing.num_threads,
        ) as writer,
    ):
        for number in tile_numbers(request, generator.family.tile):
            tile = drawing.store.load(number)
            conditions = request.conditions(tile.first, len(tile.energies))
            columns = {name: conditions[name].astype(np.float32) for name in names}
            writer.append(Showers(tile.energies, columns, generator.geometry))
            for name, count in tile.repairs.items():
                repairs[name] = repairs.get(name, 0) + count
            check()
        writer.set_attributes({f"repaired_{name}": count for name, count in repairs.items()})
    return repairs


def _identity(generator: Generator, request: SampleRequest, computing: Computing) -> str:
    """Give what the bits of a tile depend on."""
    shard = f"{request.shard.index}/{request.shard.count}"
    place = f"{computing.dtype} {computing.device.type} {__version__} torch {torch.__version__}"
    return f"{generator.fingerprint} {_sampler(generator)} {request.as_text()} {shard} {place}"


def _provenance(
    generator: Generator, request: SampleRequest, computing: Computing
) -> dict[str, Any]:
    return {
        "generator": f"calo-train {__version__} {family_name(generator.family)}",
        "generator_fingerprint": generator.fingerprint,
        "sampler": _sampler(generator),
        "trained_on": generator.dataset_name,
        "threshold_mev": generator.threshold,
        "request": request.as_text(),
        "seed": request.seed,
        "shard": f"{request.shard.index}/{request.shard.count}",
        "tile": generator.family.tile,
        "dtype": str(computing.dtype).removeprefix("torch."),
        "device": computing.device.type,
        "torch_version": str(torch.__version__),
        "llvmlite_version": version("llvmlite"),
        "sampled_geometry": json.dumps(geometry_to_mapping(generator.geometry)),
    }


def _sampler(generator: Generator) -> str:
    """Name the sampler where the family has several."""
    return str(getattr(generator.family, "sampler", "the only one"))


@contextmanager
def _stopping(out: Path) -> Iterator[Callable[[], None]]:
    """Turn signals into an orderly end after the tiles in hand; a second one leaves at once."""
    caught: list[signal.Signals] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        if caught:  # an exception would wait for the threads, and finished tiles are safe
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
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

    if threading.current_thread() is not threading.main_thread():
        yield check  # only a main thread may handle signals
        return
    before = {number: signal.signal(number, remember) for number in _STOP_SIGNALS}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
