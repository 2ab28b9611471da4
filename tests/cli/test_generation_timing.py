"""E13: a real generator in a process of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from calo_train.cli.generation_timing import require_generators, time_generator
from calo_train.errors import UsageError
from calo_train.evaluation.timing import TimingProtocol


def test_a_generator_is_timed_with_what_it_needs(finished_run):
    folder = finished_run / "generator"
    timing = time_generator(folder, TimingProtocol(batch_sizes=(1, 40), repetitions=2))[0]
    one, forty = timing.batches
    assert len(one.milliseconds) == len(forty.milliseconds) == 2
    assert (one.num_computed, forty.num_computed) == (16, 48)
    assert min(one.milliseconds) > 0
    assert timing.start_up > 0
    assert (timing.device, timing.num_threads, timing.tile) == ("cpu", 1, 16)
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert 0 < timing.weight_bytes <= stored
    assert timing.num_weights == pytest.approx(trained_weights(finished_run), rel=5e-3)
    assert timing.peak_bytes > 50 << 20  # Python and torch alone take more


def trained_weights(run: Path) -> int:
    """Read what calo-train logged, rounded there to three digits."""
    (line,) = re.findall(r"parts to train, ([\d,.e+]+) weights", (run / "train.log").read_text())
    return int(float(line.replace(",", "")))


def test_files_cannot_be_timed():
    require_generators([None, Path("generator")])
    with pytest.raises(UsageError, match="no generator to time"):
        require_generators([None, None])
