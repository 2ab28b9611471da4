"""How long a generator takes a shower, by the CaloChallenge's protocol (2410.21611).

Milliseconds a shower in batches of 1, 100 and 10,000, repeated after a warm-up, without loading
and without writing. Showers are computed in tiles: a batch smaller than a tile is filled up, and
what was computed stands beside what was asked for. A batch that takes too long is cut after a
tile. The generator is a function here; who builds it knows what it is.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from calo_train.evaluation.plain_data import rounded
from calo_train.quantities import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from calo_train.evaluation.results import Evaluation


@dataclass(frozen=True)
class TimingProtocol:
    """Batch sizes, repetitions of each, and the seconds that one batch size may take in all."""

    batch_sizes: tuple[int, ...] = (1, 100, 10_000)
    repetitions: int = 3
    limit: float = 180.0


@dataclass(frozen=True)
class BatchTiming:
    """Milliseconds a shower in every repetition of one batch size.

    `num_drawn` showers of a batch were drawn, in tiles that hold `num_computed`; `note` says what
    was cut.
    """

    batch_size: int
    milliseconds: tuple[float, ...]
    num_drawn: int
    num_computed: int
    note: str | None = None

    @property
    def median(self) -> float:
        return float(np.median(self.milliseconds))

    @property
    def mean(self) -> float:
        return float(np.mean(self.milliseconds))

    @property
    def deviation(self) -> float:
        """Standard deviation of the population, as published."""
        return float(np.std(self.milliseconds))


@dataclass(frozen=True)
class GenerationTiming:
    """All batch sizes of a generator on one device; seconds and bytes.

    `start_up` goes from the start of a process to a generator that is ready to draw; `peak_bytes`
    is the largest resident memory of that process, on a GPU the memory allocated there;
    `weight_bytes` are those of all stored parts, with masks and permutations.
    """

    device: str
    hardware: str
    num_threads: int
    dtype: str
    tile: int
    start_up: float
    num_weights: int
    weight_bytes: int
    peak_bytes: int
    batches: tuple[BatchTiming, ...]


def time_batch(
    draw: Callable[[int], object],
    batch_size: int,
    tile: int,
    protocol: TimingProtocol,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> BatchTiming:
    """Time batches of one size; `draw(number)` computes a tile and returns when it is done.

    The first tile warms up. Repetitions end when the next would pass the limit; one is always
    made. A batch of many tiles ends after the tile that uses up its share of the limit.
    """
    num_tiles = -(-batch_size // tile)
    draw(0)
    found: list[tuple[float, int]] = []  # seconds and tiles of each repetition
    while len(found) < protocol.repetitions:
        found.append(_draw_tiles(draw, num_tiles, protocol.limit / protocol.repetitions, clock))
        spent = sum(seconds for seconds, _ in found)
        if spent * (1 + 1 / len(found)) > protocol.limit:
            break
    drawn = [min(tiles * tile, batch_size) for _, tiles in found]
    return BatchTiming(
        batch_size,
        tuple(1000 * seconds / number for (seconds, _), number in zip(found, drawn, strict=True)),
        min(drawn),
        min(tiles for _, tiles in found) * tile,
        _note(min(drawn), batch_size, len(found), protocol),
    )


def _draw_tiles(
    draw: Callable[[int], object], num_tiles: int, limit: float, clock: Callable[[], float]
) -> tuple[float, int]:
    started = clock()
    for number in range(num_tiles):
        draw(number)
        seconds = clock() - started
        if seconds > limit:
            break
    return seconds, number + 1


def _note(
    num_drawn: int, batch_size: int, repetitions: int, protocol: TimingProtocol
) -> str | None:
    cut = []
    if num_drawn < batch_size:
        cut.append(f"{num_drawn} of {batch_size} showers")
    if repetitions < protocol.repetitions:
        cut.append(f"{repetitions} of {protocol.repetitions} repetitions")
    if not cut:
        return None
    return f"cut to {' and '.join(cut)} by the limit of {format_duration(protocol.limit)}"


def with_timings(
    evaluation: Evaluation, timings: Sequence[tuple[GenerationTiming, ...]]
) -> Evaluation:
    """Put the timings of each sample's generator into its result; none for files."""
    samples = tuple(
        replace(result, timings=found)
        for result, found in zip(evaluation.samples, timings, strict=True)
    )
    return replace(evaluation, samples=samples)


def timing_data(timings: Sequence[GenerationTiming]) -> dict[str, Any] | None:
    """Give the block of metrics.json: device -> numbers; null where nothing was timed."""
    return {entry.device: _entry_data(entry) for entry in timings} if timings else None


def _entry_data(timing: GenerationTiming) -> dict[str, Any]:
    numbers: Mapping[str, Any] = asdict(timing)
    return {
        **{name: value for name, value in numbers.items() if name not in ("device", "batches")},
        "start_up": rounded(timing.start_up),
        "batches": {str(entry.batch_size): _batch_data(entry) for entry in timing.batches},
    }


def _batch_data(batch: BatchTiming) -> dict[str, Any]:
    return {
        "milliseconds_median": rounded(batch.median),
        "milliseconds_mean": rounded(batch.mean),
        "milliseconds_deviation": rounded(batch.deviation),
        "repetitions": len(batch.milliseconds),
        "num_drawn": batch.num_drawn,
        "num_computed": batch.num_computed,
        "note": batch.note,
    }
