"""Hyperparameter search: what it minimises, that it goes on, what it refuses."""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import commands
import pytest

from calo_train.errors import UsageError
from calo_train.training.run_folder import RunFolder

SCRIPT = Path(__file__).parents[2] / "scripts" / "tune.py"
RATES = "model.energy_training.learning_rate=float:1e-4:1e-2:log"


@pytest.fixture(scope="module")
def tune() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def _line(data: Path, trials: int, *more: str) -> list[str]:
    return [
        sys.executable, str(SCRIPT), "--study", "rates", "--trials", str(trials),
        "--range", RATES, *commands.tiny_training(data, "only=energy", *more),
    ]  # fmt: skip


@pytest.mark.skipif(find_spec("optuna") is None, reason="the extra `tune` is not installed")
def test_trials_are_runs_and_an_interrupted_one_goes_on(
    tmp_path: Path, tiny_data: Path, tune: dict[str, Any]
) -> None:
    words = ("model.energy_training.num_epochs=25", "trainer.checkpoint_interval=0.05s")
    arguments = {"cwd": tmp_path, "env": commands.environment(), "text": True}
    process = subprocess.Popen(_line(tiny_data, 2, *words), **arguments)
    deadline = time.monotonic() + commands.TIMEOUT
    while not list(tmp_path.glob("runs/native/l2lflows/rates-*/stages/energy/0/last.ckpt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(commands.TIMEOUT) == 75
    done = subprocess.run(
        _line(tiny_data, 2, *words), capture_output=True, timeout=commands.TIMEOUT, check=False,
        **arguments,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "going on at epoch" in done.stderr
    runs = sorted(tmp_path.glob("runs/native/l2lflows/rates-*"))
    assert len(runs) == 2
    losses = {
        str(run.relative_to(tmp_path)): tune["validation_loss"](RunFolder(run)) for run in runs
    }
    best = min(losses, key=losses.__getitem__)
    assert f"best: {best}" in done.stdout
    shown = re.findall(r"^\d+ +(-?\d+\.\d+)", done.stdout, re.MULTILINE)
    assert [float(text) for text in shown] == pytest.approx(sorted(losses.values()), abs=1e-4)


@pytest.mark.parametrize(
    "text", ["key=float:1:2:3", "key=whole:1:2", "key=float:2:1", "key=float:0:1:log", "key=int:1"]
)
def test_range_that_says_nothing_is_refused(text: str, tune: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="not a range"):
        tune["parse_range"](text)


def test_choice_needs_two_values(tune: dict[str, Any]) -> None:
    parse_choice = tune["parse_choice"]
    assert parse_choice("model.tile=16,32").choices == ("16", "32")
    with pytest.raises(UsageError, match="no choices"):
        parse_choice("model.tile=16")
