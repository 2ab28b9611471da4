"""Interrupted trainings: nothing is lost, and on one CPU the end is the same to the bit."""

from __future__ import annotations

import csv
import os
import signal
import time
from typing import TYPE_CHECKING

import commands
import pytest
import torch
from safetensors.torch import load_file

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

# A loss sums 16 features and a mean over showers, each rounded to 6e-8 of its size (float32), and
# 14 steps move the weights by rounding errors of their gradients.
LOSS_RTOL = 1e-5
LONG = ("model.causal_training.num_epochs=12", "trainer.checkpoint_interval=0.05s")


def _wait_for(path_pattern: str, folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + commands.TIMEOUT
    while not list(folder.glob(path_pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.name}/{name}": value
        for path in sorted((run / "generator").glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def _losses(run: Path) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Give the training and validation loss of each stage, part and epoch."""
    losses = {}
    for path in run.glob("stages/*/*/metrics.csv"):
        with path.open(encoding="utf-8", newline="") as table:
            for row in csv.DictReader(table):
                key = (path.parent.parent.name, row["part"], row["epoch"])
                losses[key] = (float(row["train_loss"]), float(row["validation_loss"]))
    return losses


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = commands.run("calo-train", *commands.tiny_training(tiny_data, *LONG), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs/native/l2lflows/default"


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)],
)
def test_stopped_training_ends_as_the_uninterrupted_one(
    number: signal.Signals, code: int, tmp_path: Path, tiny_data: Path, uninterrupted: Path
) -> None:
    """R1, R3, R4: kill -9 or a request to stop; the same command goes on; weights are equal."""
    arguments = commands.tiny_training(tiny_data, *LONG)
    process = commands.start("calo-train", *arguments, cwd=tmp_path)
    _wait_for("runs/native/l2lflows/default/stages/causal/*/last.ckpt", tmp_path, process)
    os.kill(process.pid, number)
    _, log = process.communicate(timeout=commands.TIMEOUT)
    assert process.returncode == code, log
    done = commands.run("calo-train", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "going on at epoch" in done.stderr
    run = tmp_path / "runs/native/l2lflows/default"
    resumed, expected = _weights(run), _weights(uninterrupted)
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    for path in uninterrupted.glob("stages/*/*/metrics.csv"):
        same = run / path.relative_to(uninterrupted)
        assert same.read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


def test_finished_run_says_so_and_changes_nothing(finished_run: Path, tiny_data: Path) -> None:
    """R5, and R18: the run was copied to another folder."""
    home = finished_run.parent / "runs/native/l2lflows"
    home.mkdir(parents=True)
    run = finished_run.rename(home / "default")
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    done = commands.run("calo-train", *commands.tiny_training(tiny_data), cwd=finished_run.parent)
    assert done.returncode == 0, done.stderr
    assert "finished, nothing to do" in done.stdout
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}


def test_changed_configuration_is_refused_and_restart_keeps_the_old_run(
    finished_run: Path, tiny_data: Path
) -> None:
    """R6: differing keys and two ways out; hardware keys may change."""
    home = finished_run.parent / "runs/native/l2lflows"
    home.mkdir(parents=True)
    run = finished_run.rename(home / "default")
    cwd = finished_run.parent
    changed = commands.tiny_training(tiny_data, "model.causal_flow.num_bins=5")
    done = commands.run("calo-train", *changed, cwd=cwd)
    commands.require_message(
        done, 2, "model.causal_flow.num_bins: 8 -> 5", "name=", "restart=true"
    )
    free = commands.tiny_training(tiny_data, "trainer.num_threads=1")
    assert commands.run("calo-train", *free, cwd=cwd).returncode == 0
    done = commands.run("calo-train", *changed, "restart=true", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert (home / "default.old-1" / "generator" / "generator.yaml").is_file()
    assert (run / "generator" / "generator.yaml").is_file()


def test_parts_trained_one_by_one_equal_parts_trained_together(
    tmp_path: Path, tiny_data: Path, finished_run: Path
) -> None:
    """Grouping decides who computes, never what: the losses are equal up to the order of sums."""
    arguments = commands.tiny_training(tiny_data)
    for only in ("energy", "causal/1-2", "causal/0"):
        done = commands.run("calo-train", *arguments, f"only={only}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/native/l2lflows/default"
    assert _weights(run).keys() == _weights(finished_run).keys()
    alone, together = _losses(run), _losses(finished_run)
    assert alone.keys() == together.keys()
    assert len(together) == 2 * 4, "two epochs of four parts"
    for row, losses in together.items():
        assert alone[row] == pytest.approx(losses, rel=LOSS_RTOL)
