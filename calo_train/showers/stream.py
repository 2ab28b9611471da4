"""Batches of rows in an order that is a function of (seed, epoch), from memory or streamed.

When the rows fit the budget they are held and the order is a full permutation. Otherwise an epoch
cuts the rows into blocks of consecutive ones, takes the blocks in random order, joins them to
super-blocks that fit the budget and shuffles inside each. Rows of one block then share a
super-block but not their place in it: a super-block of m blocks mixes m random regions of the
file, so two neighbours in the file meet in one batch about (rows / rows of a super-block) times as
often as under a full shuffle. The next super-block is read by one thread while the present one is
used.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from calo_train.showers.showers import Showers, concatenate
from calo_train.showers.source import ShowerSource

IndexArray = npt.NDArray[np.int64]

_BLOCK_ROWS = 256  # consecutive rows; a few chunks of every layout
_SUPERBLOCKS_HELD = 3  # one in use, one being read, one while it is joined


@dataclass(frozen=True)
class HostBatch:
    """Rows of one batch on the host."""

    showers: Showers
    rows: IndexArray
    mantissa_bits: IndexArray


class BatchStream:
    """Batches of some rows of a source; `memory_budget` in bytes of decoded showers."""

    def __init__(
        self,
        source: ShowerSource,
        rows: IndexArray,
        *,
        batch_size: int,
        seed: int,
        memory_budget: int,
        shuffle: bool,
    ) -> None:
        self.rows = rows  # sorted
        self.batch_size = batch_size
        self._source = source
        self._seed = seed
        self._is_shuffled = shuffle
        row_bytes = 4 * (source.geometry.num_voxels + len(source.condition_names))
        self.is_in_memory = len(rows) * row_bytes <= memory_budget
        per_block = _BLOCK_ROWS * row_bytes * _SUPERBLOCKS_HELD
        self._blocks_joined = max(memory_budget // per_block, 1)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    @cached_property
    def showers(self) -> Showers:
        """All rows of this stream; only for streams that are in memory."""
        return self._gather(self.rows)

    @cached_property
    def mantissa_bits(self) -> IndexArray:
        """Bits that each of `rows` was rounded to."""
        return self._source.mantissa_bits[self.rows]

    def order(self, epoch: int) -> IndexArray:
        """Give the row numbers of an epoch in order."""
        if not self._is_shuffled:
            return self.rows
        return np.concatenate(self._superblocks(epoch))

    def batches(self, epoch: int, start: int = 0) -> Iterator[HostBatch]:
        """Yield the batches of an epoch from number `start` on."""
        if self.is_in_memory:
            yield from self._memory_batches(epoch, start)
        else:
            yield from self._streamed_batches(epoch, start)

    def _memory_batches(self, epoch: int, start: int) -> Iterator[HostBatch]:
        positions = np.searchsorted(self.rows, self.order(epoch))
        for first in range(start * self.batch_size, len(positions), self.batch_size):
            index = positions[first : first + self.batch_size]
            yield HostBatch(self.showers.rows(index), self.rows[index], self.mantissa_bits[index])

    def _streamed_batches(self, epoch: int, start: int) -> Iterator[HostBatch]:
        """Cut super-blocks into batches; what is left of one goes into the next one's first."""
        to_skip = start * self.batch_size
        rest: HostBatch | None = None
        for loaded in self._loaded(epoch, to_skip):
            whole = loaded if rest is None else _joined(rest, loaded)
            num_whole = len(whole.rows) // self.batch_size * self.batch_size
            for first in range(0, num_whole, self.batch_size):
                yield _cut(whole, first, first + self.batch_size)
            rest = _cut(whole, num_whole, len(whole.rows)) if num_whole < len(whole.rows) else None
        if rest is not None:
            yield rest

    def _loaded(self, epoch: int, to_skip: int) -> Iterator[HostBatch]:
        """Read super-blocks one ahead, without those that lie before row `to_skip` of the epoch."""
        wanted = []
        for rows in self._superblocks(epoch):
            skipped = min(to_skip, len(rows))
            to_skip -= skipped
            if skipped < len(rows):
                wanted.append(rows[skipped:])
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="showers") as reader:
            ahead: Future[HostBatch] | None = None
            try:
                for number, rows in enumerate(wanted):
                    present = ahead or reader.submit(self._load, rows)
                    loaded = present.result()
                    following = wanted[number + 1 : number + 2]
                    ahead = reader.submit(self._load, following[0]) if following else None
                    yield loaded
            finally:
                if ahead is not None:
                    ahead.cancel()

    def _load(self, rows: IndexArray) -> HostBatch:
        ascending, position = np.unique(rows, return_inverse=True)
        showers = self._gather(ascending).rows(position)
        bits = self.mantissa_bits[np.searchsorted(self.rows, rows)]
        return HostBatch(showers, rows, bits)

    def _superblocks(self, epoch: int) -> list[IndexArray]:
        if self.is_in_memory and self._is_shuffled:
            return [self._random(epoch).permutation(self.rows)]
        starts = range(0, len(self.rows), _BLOCK_ROWS)
        blocks = [self.rows[start : start + _BLOCK_ROWS] for start in starts]
        if not self._is_shuffled:
            return [
                np.concatenate(blocks[first : first + self._blocks_joined])
                for first in range(0, len(blocks), self._blocks_joined)
            ]
        random = self._random(epoch)
        taken = random.permutation(len(blocks))
        joined = [
            np.concatenate([blocks[index] for index in taken[first : first + self._blocks_joined]])
            for first in range(0, len(blocks), self._blocks_joined)
        ]
        return [random.permutation(rows) for rows in joined]

    def _random(self, epoch: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((self._seed, epoch))))

    def _gather(self, rows: IndexArray) -> Showers:
        """Read sorted rows: runs that lie close together as slices, the wanted rows kept."""
        # A gap shorter than a block costs less to read than to skip: chunks are read whole.
        breaks = np.flatnonzero(np.diff(rows) > _BLOCK_ROWS) + 1
        pieces = []
        for run in np.split(rows, breaks):
            for first in range(0, len(run), self._source.rows_per_block):
                part = run[first : first + self._source.rows_per_block]
                read = self._source.read(int(part[0]), int(part[-1]) + 1)
                pieces.append(read.rows(part - part[0]))
        return concatenate(pieces)


def _joined(first: HostBatch, second: HostBatch) -> HostBatch:
    return HostBatch(
        concatenate([first.showers, second.showers]),
        np.concatenate([first.rows, second.rows]),
        np.concatenate([first.mantissa_bits, second.mantissa_bits]),
    )


def _cut(batch: HostBatch, start: int, stop: int) -> HostBatch:
    piece = slice(start, stop)
    return HostBatch(batch.showers.rows(piece), batch.rows[piece], batch.mantissa_bits[piece])
