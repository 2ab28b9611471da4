"""Showers are computed in tiles of fixed size, so that results do not depend on how they are cut.

Tile t holds showers t * tile .. (t + 1) * tile of the request, whatever the shard or batch; the
last is filled up. Matrix products of one shape on one thread give one set of bits, products of
another shape or thread count may not: so a tile is always full and has one thread, and several
tiles run in processes of their own.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from calo_train.errors import DivergedError
from calo_train.families.contracts import Sampler
from calo_train.families.generator import Generator, load_generator
from calo_train.quantities import format_energy
from calo_train.sampling.noise import normals
from calo_train.sampling.request import SampleRequest


@dataclass(frozen=True, eq=False)
class Tile:
    """The wanted showers of one tile: energies (rows, voxels) float32 MeV from shower `first` on."""

    number: int
    first: int
    energies: npt.NDArray[np.float32]
    repairs: dict[str, int]


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
        noise = normals(request.seed, start, sampler.tile, sampler.num_normals)
        drawn = sampler.draw(
            torch.from_numpy(noise),
            {name: torch.from_numpy(values) for name, values in conditions.items()},
        )
        first, end = request.rows
        wanted = slice(max(first - start, 0), min(end - start, sampler.tile))
        energies = drawn.energies[wanted].cpu().numpy().astype(np.float32)
        self._require_physical(energies, start + wanted.start, conditions, wanted)
        repairs = {name: int(counts[wanted].sum()) for name, counts in drawn.repairs.items()}
        return Tile(number, start + wanted.start, energies, repairs)

    def _require_physical(
        self,
        energies: npt.NDArray[np.float32],
        first: int,
        conditions: dict[str, npt.NDArray[np.float64]],
        wanted: slice,
    ) -> None:
        is_bad = ~(np.isfinite(energies) & (energies >= 0)).all(axis=1)
        if not is_bad.any():
            return
        row = int(np.flatnonzero(is_bad)[0])
        energy = format_energy(float(conditions["incident_energy"][wanted][row]))
        raise DivergedError(
            f"{int(is_bad.sum())} showers of a tile hold energies that are not finite or negative",
            where=f"shower {first + row} of seed {self._request.seed}, incident energy {energy}",
            do="sample with --dtype float64; if it stays, the generator's training diverged",
        )


def tile_numbers(request: SampleRequest, tile: int) -> range:
    """Give the tiles that a request's shard touches."""
    first, end = request.rows
    return range(first // tile, -(-end // tile)) if end > first else range(0)


def draw_tiles(
    generator: Generator,
    folder: Path,
    request: SampleRequest,
    numbers: list[int],
    *,
    num_workers: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[Tile]:
    """Draw tiles in order, here or in worker processes that read the generator from `folder`."""
    if min(num_workers, len(numbers)) <= 1 or device.type != "cpu":
        torch.set_num_threads(1)
        maker = TileMaker(generator.sampler(dtype=dtype, device=device), request)
        for number in numbers:
            yield maker.draw(number)
        return
    with ProcessPoolExecutor(
        min(num_workers, len(numbers)),
        mp_context=get_context("spawn"),
        initializer=_start_worker,
        initargs=(folder, generator.fingerprint, request, dtype),
    ) as workers:
        try:
            yield from workers.map(_draw_in_worker, numbers)
        finally:
            workers.shutdown(wait=True, cancel_futures=True)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_makers: list[TileMaker] = []  # of a worker process


def _start_worker(
    folder: Path, fingerprint: str, request: SampleRequest, dtype: torch.dtype
) -> None:
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    generator = load_generator(folder)
    if generator.fingerprint != fingerprint:
        message = "the generator changed while it was sampled"
        raise RuntimeError(message)
    sampler = generator.sampler(dtype=dtype, device=torch.device("cpu"))
    _makers.append(TileMaker(sampler, request))


def _draw_in_worker(number: int) -> Tile:
    return _makers[0].draw(number)
