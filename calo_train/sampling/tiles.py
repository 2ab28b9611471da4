"""Showers are computed in tiles of fixed size, so that results do not depend on how they are cut.

Tile t holds showers t * tile .. (t + 1) * tile of the request, whatever the shard or batch; the
last is filled up. Matrix products of one shape on one thread give one set of bits, products of
another shape or thread count may not: so a tile is always full and has one thread, and several
tiles run in processes of their own (threads would queue for the interpreter: a tile is thousands
of small operations). A worker stores its tiles itself and sends back only how many showers they
hold.
"""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context, parent_process, resource_tracker
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from calo_train.errors import DataError, DivergedError
from calo_train.families.generator import Generator, load_generator
from calo_train.quantities import format_energy
from calo_train.sampling.noise import normals
from calo_train.sampling.tile_store import Tile, TileStore

if TYPE_CHECKING:
    from collections.abc import Generator as GeneratorType
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from calo_train.families.contracts import Sampler
    from calo_train.sampling.request import SampleRequest

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class Computing:
    """Precision and place of the computation, and how many tiles run at once."""

    dtype: torch.dtype
    device: torch.device
    num_workers: int


@dataclass(frozen=True, eq=False)
class Drawing:
    """A request on its way: from which generator, in which folder it lies, where tiles go."""

    generator: Generator
    folder: Path
    request: SampleRequest
    store: TileStore
    computing: Computing


@dataclass(frozen=True, eq=False)
class _WorkerSetting:
    """What a worker process is told; the generator it reads itself."""

    folder: Path
    fingerprint: str
    request: SampleRequest
    store: TileStore
    computing: Computing


class TileMaker:
    """Draws single tiles of a request."""

    def __init__(self, sampler: Sampler, request: SampleRequest) -> None:
        self._sampler = sampler
        self._request = request

    def draw(self, number: int) -> Tile:
        """Draw tile `number`; energies that are not finite or negative are an error."""
        request, sampler = self._request, self._sampler
        start = number * sampler.tile
        conditions = request.conditions(start, sampler.tile)
        base_noise = normals(request.seed, start, sampler.tile, sampler.num_normals)
        drawn = sampler.draw(
            torch.from_numpy(base_noise),
            {name: torch.from_numpy(values) for name, values in conditions.items()},
        )
        first, end = request.rows
        wanted = slice(max(first - start, 0), min(end - start, sampler.tile))
        energies = drawn.energies[wanted].cpu().numpy().astype(np.float32)
        self._require_physical(
            energies, start + wanted.start, conditions["incident_energy"][wanted]
        )
        repairs = {name: int(counts[wanted].sum()) for name, counts in drawn.repairs.items()}
        return Tile(number, start + wanted.start, energies, repairs)

    def _require_physical(
        self,
        energies: npt.NDArray[np.float32],
        first: int,
        incident_energies: npt.NDArray[np.float64],
    ) -> None:
        is_bad = ~(np.isfinite(energies) & (energies >= 0)).all(axis=1)
        if not is_bad.any():
            return
        row = int(np.flatnonzero(is_bad)[0])
        energy = format_energy(float(incident_energies[row]))
        raise DivergedError(
            f"{int(is_bad.sum())} showers of a tile hold energies that are not finite or negative",
            where=f"shower {first + row} of seed {self._request.seed}, incident energy {energy}",
            do="sample with --dtype float64; if it stays, the generator's training diverged",
        )


def tile_numbers(request: SampleRequest, tile: int) -> range:
    """Give the tiles that a request's shard touches."""
    first, end = request.rows
    return range(first // tile, -(-end // tile)) if end > first else range(0)


def rows_of_tile(request: SampleRequest, tile: int, number: int) -> int:
    """Count the showers of tile `number` that the request's shard wants."""
    first, end = request.rows
    return min(end, (number + 1) * tile) - max(first, number * tile)


def draw_tiles(drawing: Drawing, numbers: Sequence[int]) -> GeneratorType[int]:
    """Draw and store tiles, here or in workers that read the generator from its folder.

    Yields the number of showers of each tile that was stored, in order.
    """
    computing = drawing.computing
    num_workers = min(computing.num_workers, len(numbers))
    if num_workers > 1 and computing.device.type == "cpu":
        yield from _draw_in_workers(drawing, numbers, num_workers)
        return
    with _one_thread():
        sampler = drawing.generator.sampler(dtype=computing.dtype, device=computing.device)
        maker = TileMaker(sampler, drawing.request)
        for number in numbers:
            yield _stored(maker.draw(number), drawing.store)


def available_cores() -> int:
    """Cores that this process may use."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


def _draw_in_workers(drawing: Drawing, numbers: Sequence[int], num_workers: int) -> Iterator[int]:
    setting = _WorkerSetting(
        drawing.folder,
        drawing.generator.fingerprint,
        drawing.request,
        drawing.store,
        drawing.computing,
    )
    workers = ProcessPoolExecutor(
        num_workers,
        mp_context=get_context("spawn"),
        initializer=_start_worker,
        initargs=(setting,),
    )
    try:
        with _signals_held():
            finished = workers.map(_draw_in_worker, numbers)
        yield from finished
    finally:
        workers.shutdown(wait=True, cancel_futures=True)


def _stored(tile: Tile, store: TileStore) -> int:
    store.save(tile)
    return len(tile.energies)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold stop signals back; processes started meanwhile never see them.

    A batch system or a terminal signals the whole group: workers finish the tile in hand, and
    what a signal means is decided by the parent alone.
    """
    resource_tracker.ensure_running()  # started later, it would let the signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker_setting: list[_WorkerSetting] = []  # of a worker process


def _start_worker(setting: _WorkerSetting) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _worker_setting.append(setting)


def _leave_with_parent() -> None:
    """End a worker whose parent was killed: it would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _draw_in_worker(number: int) -> int:
    maker, store = _worker_tools()
    return _stored(maker.draw(number), store)


@cache
def _worker_tools() -> tuple[TileMaker, TileStore]:
    """Build the sampler with the first tile: unlike an initialiser's, its errors arrive."""
    setting = _worker_setting[0]
    generator = load_generator(setting.folder)
    if generator.fingerprint != setting.fingerprint:
        raise DataError(
            "the generator changed while it was sampled",
            where=str(setting.folder),
            do="run the command again",
        )
    sampler = generator.sampler(dtype=setting.computing.dtype, device=setting.computing.device)
    return TileMaker(sampler, setting.request), setting.store
