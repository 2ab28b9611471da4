"""CPU and wall time of several works that take turns in one process."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SHORTEST_SAMPLE = 0.02  # seconds; shorter works are repeated inside one sample
_LONG_CALL = 0.25  # seconds; the first call of a longer work counts, else it is a warm-up


@dataclass(frozen=True)
class Work:
    """Something to be timed; a whole is `factor` times what `run` does."""

    run: Callable[[], object]
    factor: float = 1.0


@dataclass(frozen=True)
class Seconds:
    """CPU and wall seconds of one work: medians and minima over rounds."""

    cpu: float
    cpu_min: float
    wall: float
    wall_min: float
    rounds: int


@dataclass
class _Samples:
    work: Work
    repeats: int = 1
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def begin(self) -> None:
        """Warm up and find how many calls make a sample."""
        cpu, wall = clock(self.work.run)
        if wall > _LONG_CALL:
            self.cpu.append(cpu)
            self.wall.append(wall)
        else:
            self.repeats = max(1, math.ceil(_SHORTEST_SAMPLE / wall))

    def take(self) -> None:
        def several() -> None:
            for _ in range(self.repeats):
                self.work.run()

        cpu, wall = clock(several)
        self.cpu.append(cpu / self.repeats)
        self.wall.append(wall / self.repeats)

    def result(self) -> Seconds:
        factor = self.work.factor
        return Seconds(
            factor * statistics.median(self.cpu),
            factor * min(self.cpu),
            factor * statistics.median(self.wall),
            factor * min(self.wall),
            len(self.cpu),
        )


def clock(work: Callable[[], object]) -> tuple[float, float]:
    """Give CPU seconds, of all threads, and wall seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def take_turns(works: Mapping[str, Work], rounds: int, seconds: float) -> dict[str, Seconds]:
    """Time works A B C A B C ...: `rounds` rounds, or fewer once `seconds` have gone by."""
    stop = time.perf_counter() + seconds
    samples = {name: _Samples(work) for name, work in works.items()}
    for own in samples.values():
        own.begin()
    for _ in range(rounds):
        for own in samples.values():
            if time.perf_counter() < stop or not own.cpu:
                own.take()
    return {name: own.result() for name, own in samples.items()}
