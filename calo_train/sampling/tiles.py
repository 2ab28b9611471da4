"""Showers are computed in tiles of fixed size, so that results do not depend on how they are cut.

Tile t holds showers t * tile .. (t + 1) * tile of the request, whatever the shard or batch; the
last is filled up. Matrix products of one shape on one thread give one set of bits, products of
another shape or thread count may not: so a tile is always full and has one thread, and several
threads draw a tile each. They hardly wait for the interpreter, since a tile is a few long calls
that release it. A thread stores its tile itself; what is in memory is one tile a thread.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from calo_train.errors import DivergedError
from calo_train.families.contracts import Refiner
from calo_train.kernels.noise import normals
from calo_train.quantities import format_energy
from calo_train.sampling.tile_store import Tile, TileStore

if TYPE_CHECKING:
    from collections.abc import Generator as GeneratorType
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from calo_train.families.contracts import DrawnTile, Sampler
    from calo_train.families.generator import Generator
    from calo_train.sampling.request import SampleRequest


@dataclass(frozen=True)
class Computing:
    """Precision and place of the computation, and how many tiles are drawn at once."""

    dtype: torch.dtype
    device: torch.device
    num_threads: int


@dataclass(frozen=True, eq=False)
class Drawing:
    """A request on its way: from which generator, and where its tiles go."""

    generator: Generator
    request: SampleRequest
    store: TileStore
    computing: Computing


class TileMaker:
    """Draws single tiles of a request."""

    def __init__(self, sampler: Sampler | Refiner, request: SampleRequest) -> None:
        self._sampler = sampler
        self._request = request

    def draw(self, number: int) -> Tile:
        """Draw tile `number`; energies that are not finite or negative are an error."""
        request, sampler = self._request, self._sampler
        start = number * sampler.tile
        conditions = request.conditions(start, sampler.tile)
        drawn = self._drawn(start, conditions)
        first, end = request.rows
        wanted = slice(max(first - start, 0), min(end - start, sampler.tile))
        energies = drawn.energies[wanted].cpu().numpy().astype(np.float32, copy=False)
        self._require_physical(
            energies, start + wanted.start, conditions["incident_energy"][wanted]
        )
        repairs = {name: int(counts[wanted].sum()) for name, counts in drawn.repairs.items()}
        return Tile(number, start + wanted.start, energies, repairs)

    def _drawn(self, start: int, conditions: dict[str, npt.NDArray[np.float64]]) -> DrawnTile:
        """Draw, or refine the coarse showers of, a full tile."""
        request, sampler = self._request, self._sampler
        base_noise = torch.from_numpy(
            normals(request.seed, start, sampler.tile, sampler.num_normals)
        )
        columns = {name: torch.from_numpy(values) for name, values in conditions.items()}
        if isinstance(sampler, Refiner):
            assert request.coarse is not None
            coarse = request.coarse.tile(start, sampler.tile)
            return sampler.refine(base_noise, columns, coarse)
        return sampler.draw(base_noise, columns)

    def _require_physical(
        self,
        energies: npt.NDArray[np.float32],
        first: int,
        incident_energies: npt.NDArray[np.float64],
    ) -> None:
        # A comparison with NaN does not hold.
        is_bad = ~((energies.min(axis=1) >= 0) & (energies.max(axis=1) < np.inf))
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
    """Draw and store tiles, one on each thread.

    Yields the number of showers of each tile that was stored, in order. Closed early, it returns
    when the tiles in hand are stored.
    """
    if not numbers:
        return
    computing = drawing.computing
    # A GPU is fed from one thread: tiles on it would only wait for each other.
    num_threads = computing.num_threads if computing.device.type == "cpu" else 1
    generator = drawing.generator
    build = generator.sampler if drawing.request.coarse is None else generator.refiner
    sampler = build(dtype=computing.dtype, device=computing.device)
    maker = TileMaker(sampler, drawing.request)

    def draw(number: int) -> int:
        tile = maker.draw(number)
        drawing.store.save(tile)
        return len(tile.energies)

    with _one_torch_thread():
        threads = ThreadPoolExecutor(num_threads, "tile", initializer=_use_one_torch_thread)
        left = iter(numbers)
        running: deque[Future[int]] = deque()
        try:
            # One more than there are threads, so that none waits for the reader.
            running.extend(
                threads.submit(draw, number) for number in islice(left, num_threads + 1)
            )
            while running:
                yield running.popleft().result()
                running.extend(threads.submit(draw, number) for number in islice(left, 1))
        finally:
            threads.shutdown(cancel_futures=True)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    _use_one_torch_thread()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _use_one_torch_thread() -> None:
    """torch keeps this number for each thread."""
    torch.set_num_threads(1)
