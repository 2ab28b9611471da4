"""E13: the protocol of timing, by a clock that only drawing moves."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.resources import files

import judged
import numpy as np
import pytest
import structure

from calo_train.evaluation.figures.timing import timing_table
from calo_train.evaluation.metrics import metrics_of
from calo_train.evaluation.terminal import summary
from calo_train.evaluation.timing import (
    BatchTiming,
    GenerationTiming,
    TimingProtocol,
    time_batch,
    with_timings,
)

TILE = 20


@dataclass
class FakeGenerator:
    """A tile takes the next of `seconds`, then the last for ever."""

    seconds: list[float]
    drawn: list[int] = field(default_factory=list)
    now: float = 0.0

    def draw(self, number: int) -> None:
        self.now += self.seconds[min(len(self.drawn), len(self.seconds) - 1)]
        self.drawn.append(number)

    def time(self, batch_size: int, protocol: TimingProtocol) -> BatchTiming:
        return time_batch(self.draw, batch_size, TILE, protocol, clock=lambda: self.now)


def test_the_first_tile_warms_up_and_does_not_count():
    generator = FakeGenerator([100.0, 1.0, 2.0, 6.0])
    found = generator.time(TILE, TimingProtocol(repetitions=3))
    assert found.milliseconds == pytest.approx((50, 100, 300))
    assert (found.median, found.mean) == pytest.approx((100, 150))
    assert found.deviation == pytest.approx(np.sqrt((100**2 + 50**2 + 150**2) / 3))
    assert found.note is None


@pytest.mark.parametrize(
    ("batch_size", "tiles", "computed"), [(1, 1, 20), (20, 1, 20), (21, 2, 40), (100, 5, 100)]
)
def test_a_batch_pays_for_whole_tiles(batch_size, tiles, computed):
    generator = FakeGenerator([1.0])
    found = generator.time(batch_size, TimingProtocol(repetitions=2, limit=1e9))
    assert found.milliseconds == pytest.approx((1000 * tiles / batch_size,) * 2)
    assert (found.num_drawn, found.num_computed) == (batch_size, computed)
    assert generator.drawn == [0, *range(tiles), *range(tiles)]


def test_a_long_batch_is_cut_after_the_tile_that_uses_up_its_share():
    found = FakeGenerator([1.0]).time(10_000, TimingProtocol(repetitions=3, limit=30.0))
    assert (found.num_drawn, found.num_computed) == (11 * TILE, 11 * TILE)
    assert found.milliseconds[0] == pytest.approx(1000 / TILE)
    assert "220 of 10000 showers" in found.note


def test_repetitions_end_when_the_next_would_pass_the_limit():
    found = FakeGenerator([50.0]).time(1, TimingProtocol(repetitions=10, limit=180.0))
    assert len(found.milliseconds) == 3
    assert found.note == "cut to 3 of 10 repetitions by the limit of 3 min 00 s"
    slow = FakeGenerator([1000.0]).time(1, TimingProtocol(repetitions=10, limit=180.0))
    assert len(slow.milliseconds) == 1


def timed_evaluation():
    batches = tuple(
        BatchTiming(size, (1.0, 2.0, 4.0), size, 100, "cut" if size == 10_000 else None)
        for size in (1, 100, 10_000)
    )
    timing = GenerationTiming(
        "cpu", "a processor", 1, "float64", 100, 2.5, 1000, 4000, 1 << 30, batches
    )
    return with_timings(judged.judge(*judged.independent_pair(60)), [(timing,)])


def test_timing_stands_in_metrics_terminal_and_report():
    evaluation = timed_evaluation()
    metrics = metrics_of(evaluation)
    schema = json.loads(
        files("calo_train.evaluation").joinpath("metrics.schema.json").read_text(encoding="utf-8")
    )
    structure.require(metrics, schema, schema)
    batch = metrics["samples"][0]["timing"]["cpu"]["batches"]["100"]
    assert batch["milliseconds_median"] == 2
    assert "2 ms (batch 100)" in summary(metrics)
    (table,) = timing_table(evaluation, "Timing")
    assert [row[2:4] for row in table.rows] == [("1", "2"), ("100", "2"), ("10000", "2")]
    assert "Batch 10000: cut." in table.caption


def test_files_have_no_timing():
    evaluation = with_timings(judged.judge(*judged.independent_pair(60)), [()])
    assert metrics_of(evaluation)["samples"][0]["timing"] is None
    assert not list(timing_table(evaluation, "Timing"))
