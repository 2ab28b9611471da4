"""Batches of rows in an order that is a function of (seed, epoch), from memory or streamed.

When the rows fit the budget they are held, and the order of an epoch is a full permutation.
Otherwise the rows are cut into blocks of about 256 consecutive ones that share no chunk of a file;
an epoch takes the blocks in random order, joins them to super-blocks that fit the budget and
shuffles all rows inside each. The next super-block is read by a thread while one is used.

How close that is to a full shuffle, with n rows in all, S rows in a super-block, and batches of B:
every row is used once; a batch mixes rows of S/256 random places of the file; two rows of one
block come into the same batch with probability (B - 1)/(S - 1) instead of (B - 1)/(n - 1), that
is n/S times as often, and never in a fixed order; two rows of different blocks practically as
under a full shuffle. Only structure of the file at the scale of 256 rows can be felt, diluted to
256/S of a batch.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.errors import MachineError
from calo_train.showers.showers import Showers, concatenate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from calo_train.showers.showers import FloatArray
    from calo_train.showers.source import ShowerSource

IndexArray = npt.NDArray[np.int64]

READING_LIMIT = 600.0  # seconds for one super-block; a slow disk reads gigabytes in that time
_STOPPING_LIMIT = 5.0  # seconds for the block in hand when an epoch is left early
_BLOCK_ROWS = 256  # consecutive rows that are read together
_MIN_BLOCKS = 16  # places of the file that a super-block mixes, where memory allows
# A shuffled and a sequential stream share one budget: training and validation rows.
_SHUFFLED_SHARE = 0.75
_SEQUENTIAL_SHARE = 0.25


@dataclass(frozen=True)
class HostBatch:
    """Rows of one batch on the host."""

    showers: Showers
    rows: IndexArray
    mantissa_bits: IndexArray


class BatchStream:
    """Batches of sorted `rows` of a source, shuffled anew every epoch or in order.

    `memory_budget` (bytes) is what all streams of a training may hold decoded: a shuffled stream
    keeps to three quarters of it, a sequential one to a quarter. The last batch may be short.
    """

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
        self.rows = rows
        self.batch_size = batch_size
        self._source = source
        self._seed = seed
        self._is_shuffled = shuffle
        budget = memory_budget * (_SHUFFLED_SHARE if shuffle else _SEQUENTIAL_SHARE)
        budget_rows = int(budget // source.row_bytes)
        self.is_in_memory = len(rows) <= budget_rows
        # One super-block is used while the next is read, and a batch is a copy.
        self._superblock_rows = max((budget_rows - 2 * batch_size) // 2, 1)

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size)

    @cached_property
    def showers(self) -> Showers:
        """All rows of this stream, in the order of `rows`; read once. Only when `is_in_memory`."""
        return self._read(self._blocks, threading.Event())

    @cached_property
    def mantissa_bits(self) -> IndexArray:
        """Bits that each of `rows` was rounded to, (n,)."""
        return self._source.mantissa_bits[self.rows]

    def order(self, epoch: int) -> IndexArray:
        """Give the row numbers of an epoch in order."""
        if not self._is_shuffled:
            return self.rows
        if self.is_in_memory:
            return self._random(epoch).permutation(self.rows)
        return np.concatenate([rows for _, rows in self._superblocks(epoch)])

    def batches(self, epoch: int, start: int = 0) -> Iterator[HostBatch]:
        """Yield the batches of an epoch from number `start` on; what lies before is not read."""
        if not self.is_in_memory:
            yield from self._streamed(epoch, start)
            return
        positions = np.searchsorted(self.rows, self.order(epoch))
        for first in range(start * self.batch_size, len(positions), self.batch_size):
            index = positions[first : first + self.batch_size]
            yield HostBatch(self.showers.rows(index), self.rows[index], self.mantissa_bits[index])

    def _streamed(self, epoch: int, start: int) -> Iterator[HostBatch]:
        """Cut super-blocks into batches; what is left of one begins the next one's first batch."""
        rest: list[HostBatch] = []
        missing = self.batch_size
        for held, order in self._superblocks_read(epoch, start * self.batch_size):
            first = 0
            while first < len(order):
                piece = self._cut(held, order[first : first + missing])
                first += len(piece.rows)
                missing -= len(piece.rows)
                rest.append(piece)
                if missing == 0:
                    yield _joined(rest)
                    rest, missing = [], self.batch_size
            del held  # the next one is read now, and two are all that the budget has room for
        if rest:
            yield _joined(rest)

    def _superblocks_read(
        self, epoch: int, num_skipped: int
    ) -> Iterator[tuple[HostBatch, IndexArray]]:
        """Yield super-blocks, read one ahead, each with its rows in the order of the epoch."""
        wanted: list[tuple[list[IndexArray], IndexArray]] = []
        for blocks, order in self._superblocks(epoch):
            left = order[num_skipped:]
            num_skipped = max(num_skipped - len(order), 0)
            if len(left):
                wanted.append((blocks, left))
        stop = threading.Event()
        ahead = _Ahead(self._load, wanted[0][0], stop) if wanted else None
        try:
            for (_, order), following in zip_longest(wanted, wanted[1:]):
                assert ahead is not None
                held = ahead.result()
                if following is not None:
                    ahead = _Ahead(self._load, following[0], stop)
                yield held, order
                del held
        finally:
            stop.set()
            if ahead is not None:
                ahead.join()

    def _superblocks(self, epoch: int) -> Iterator[tuple[list[IndexArray], IndexArray]]:
        """Yield the blocks of each super-block, and all its rows in the order of the epoch."""
        random = self._random(epoch)
        blocks = self._blocks
        taken = random.permutation(len(blocks)) if self._is_shuffled else np.arange(len(blocks))
        sizes = [len(blocks[index]) for index in taken]
        for first, end in pairwise(_packed(sizes, self._superblock_rows)):
            members = [blocks[index] for index in sorted(taken[first:end])]
            rows = np.concatenate(members)
            yield members, random.permutation(rows) if self._is_shuffled else rows

    @cached_property
    def _blocks(self) -> list[IndexArray]:
        """`rows` in pieces that share no chunk of a file; small enough that super-blocks mix."""
        num_rows = max(min(_BLOCK_ROWS, self._superblock_rows // _MIN_BLOCKS), 1)
        edges = [start for start, _ in self._source.block_ranges(num_rows)]
        pieces = np.split(self.rows, np.searchsorted(self.rows, edges[1:]))
        return [piece for piece in pieces if len(piece)]

    def _load(self, blocks: list[IndexArray], stop: threading.Event) -> HostBatch:
        rows = np.concatenate(blocks)
        bits = self.mantissa_bits[np.searchsorted(self.rows, rows)]
        return HostBatch(self._read(blocks, stop), rows, bits)

    def _read(self, blocks: list[IndexArray], stop: threading.Event) -> Showers:
        """Read sorted rows into one array, block by block; cut short once `stop` is set."""
        num_rows = sum(len(block) for block in blocks)
        source = self._source
        energies: FloatArray = np.empty((num_rows, source.geometry.num_voxels), np.float32)
        conditions: dict[str, FloatArray] = {
            name: np.empty(num_rows, np.float32) for name in source.condition_names
        }
        filled = 0
        for block in blocks:
            if stop.is_set():
                break
            place, first = slice(filled, filled + len(block)), int(block[0])
            showers = source.read(first, int(block[-1]) + 1)
            np.take(showers.energies, block - first, axis=0, out=energies[place])
            for name, values in conditions.items():
                values[place] = showers.conditions[name][block - first]
            filled += len(block)
        return Showers(energies, conditions, source.geometry)

    def _cut(self, held: HostBatch, rows: IndexArray) -> HostBatch:
        index = np.searchsorted(held.rows, rows)
        return HostBatch(held.showers.rows(index), rows, held.mantissa_bits[index])

    def _random(self, epoch: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((self._seed, epoch))))


class _Ahead:
    """Rows that a thread of its own reads; a thread that hangs holds up nobody's end."""

    def __init__(
        self,
        load: Callable[[list[IndexArray], threading.Event], HostBatch],
        blocks: list[IndexArray],
        stop: threading.Event,
    ) -> None:
        self._load = load
        self._blocks = blocks
        self._stop = stop
        self._batch: HostBatch | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="showers", daemon=True)
        self._thread.start()

    def result(self) -> HostBatch:
        """Wait for the rows; raise what reading them raised, or MachineError when it hangs."""
        self._thread.join(READING_LIMIT)
        if self._thread.is_alive():
            rows = f"{self._blocks[0][0]} to {self._blocks[-1][-1]}"
            raise MachineError(
                f"reading the data hangs: nothing came in {READING_LIMIT:.0f} s",
                where=f"data rows {rows}",
                do="check the file system that the data lie on; the same command goes on from the "
                "last checkpoint",
            )
        if isinstance(self._error, OSError | MemoryError):
            raise MachineError(
                f"reading the data failed: {self._error or type(self._error).__name__}",
                where=f"data rows {self._blocks[0][0]} to {self._blocks[-1][-1]}",
                do="check the file system, or lower dataset.memory_budget; the same command goes "
                "on from the last checkpoint",
            ) from self._error
        if self._error is not None:
            raise self._error
        assert self._batch is not None
        batch, self._batch = self._batch, None
        return batch

    def join(self) -> None:
        """Wait a moment for a read that was told to stop."""
        self._thread.join(_STOPPING_LIMIT)

    def _run(self) -> None:
        try:
            self._batch = self._load(self._blocks, self._stop)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
            self._error = error


def _packed(sizes: list[int], capacity: int) -> list[int]:
    """Give the ends, 0 first, of consecutive groups of about equal size, at most `capacity`."""
    num_groups = max(math.ceil(sum(sizes) / capacity), 1)
    enough = sum(sizes) / num_groups
    ends, filled = [0], 0
    for index, size in enumerate(sizes):
        if filled and (filled + size > capacity or filled >= enough):
            ends.append(index)
            filled = 0
        filled += size
    return [*ends, len(sizes)]


def _joined(pieces: list[HostBatch]) -> HostBatch:
    if len(pieces) == 1:
        return pieces[0]
    return HostBatch(
        concatenate([piece.showers for piece in pieces]),
        np.concatenate([piece.rows for piece in pieces]),
        np.concatenate([piece.mantissa_bits for piece in pieces]),
    )
