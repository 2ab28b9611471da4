"""Trainings and samples as jobs of a real SLURM: sweeps, arrays, DDP, preemption."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import commands
import h5py
import numpy as np
import pytest
from cluster_commands import slurm, wait_for_file, wait_until_idle

SCRIPTS = Path(__file__).parents[1] / "scripts" / "slurm"
RUN = "runs/native/l2lflows/default"
SMALL_JOBS = (
    "launcher.time=10min", "launcher.warning=30s", "launcher.memory=1GiB", "launcher.cpus=1",
)  # fmt: skip
LONG = ("model.causal_training.num_epochs=40", "trainer.checkpoint_interval=0.2s")
SCRIPT_OPTIONS = "--cpus-per-task=1 --mem=1G --time=10"


def _status(sweep: str, cwd: Path) -> dict[str, dict[str, str]]:
    done = commands.run("calo-runs", "status", f"runs/sweeps/{sweep}", "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return {row["point"]: row for row in json.loads(done.stdout)}


def _train(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = commands.run("calo-train", *words, *SMALL_JOBS, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


def test_sweep_submits_returns_and_resumes_only_what_failed(
    tmp_path: Path, tiny_data: Path
) -> None:
    """R23, U13: a point diverges and leaves the other alone; it alone is submitted again."""
    rates = "model.energy_training.learning_rate=1e30,0.001"
    words = commands.tiny_training(tiny_data, "only=energy", "name=rates", rates)
    done = _train("-m", "launcher=slurm", *words, cwd=tmp_path)
    assert "2 queued" in done.stdout
    assert not list(tmp_path.glob("runs/native/l2lflows/*/stages/energy/parts/*"))
    wait_until_idle()
    bad, good = (f"model.energy_training.learning_rate={rate}" for rate in ("1e+30", "0.001"))
    first = _status("rates", tmp_path)
    assert first[bad]["state"] == "failed"
    assert "exit 4" in first[bad]["message"]
    assert first[good]["state"] == "done"
    again = _train("-m", "launcher=slurm", *words, cwd=tmp_path)
    assert "1 queued" in again.stdout
    assert "1 done" in again.stdout
    second = _status("rates", tmp_path)
    assert second[good]["job"] == first[good]["job"]
    assert second[bad]["job"] != first[bad]["job"]
    wait_until_idle()


def test_dry_run_shows_the_jobs_and_submits_nothing(tmp_path: Path, tiny_data: Path) -> None:
    """U3."""
    words = commands.tiny_training(tiny_data, "seed=0,1", "launcher.gpus=2", "dry_run=true")
    done = _train("-m", "launcher=slurm", *words, cwd=tmp_path)
    # two jobs on two GPUs for ten minutes
    assert "at most 0.667 GPU hours" in done.stdout
    assert "nothing was submitted" in done.stdout
    assert not slurm("squeue", "--noheader")
    assert not list(tmp_path.iterdir())


def test_refused_job_says_what_the_cluster_said(tmp_path: Path, tiny_data: Path) -> None:
    """U7."""
    words = commands.tiny_training(tiny_data, "launcher=slurm", "launcher.partition=nowhere")
    done = commands.run("calo-train", *words, cwd=tmp_path)
    commands.require_message(done, 5, "invalid partition", "sinfo")


@pytest.mark.parametrize("reason", ["signal", "preemption"])
def test_part_array_completes_with_a_preempted_task(
    reason: str, tmp_path: Path, tiny_data: Path
) -> None:
    """R3: the task saves, comes back, goes on in mid-training; all parts make one generator."""
    words = commands.tiny_training(tiny_data, "model.parts_per_group=2", *LONG)
    _train("launcher=slurm_array", *words, cwd=tmp_path)
    wait_for_file(tmp_path, f"{RUN}/stages/causal/0-1/last.ckpt")
    if reason == "signal":
        running = slurm("squeue", "--noheader", "--array", "--states=R", "--format=%i").split()
        slurm("scancel", "--signal=TERM", next(job for job in running if job.endswith("_0")))
    else:
        # The other partition has priority; it needs the whole node for a moment.
        slurm("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    wait_until_idle()
    log = (tmp_path / RUN / "train.log").read_text(encoding="utf-8")
    assert "stopped by SIGTERM" in log
    assert "stage causal, parts 0-1: going on at epoch" in log
    parts = sorted(path.name for path in (tmp_path / RUN / "generator").glob("*.safetensors"))
    assert parts == [
        f"{key}.safetensors" for key in ("causal-0", "causal-1", "causal-2", "energy-0")
    ]
    assert _status("default", tmp_path)["default"]["state"] == "done"


def test_two_tasks_of_a_job_train_as_one(tmp_path: Path, tiny_data: Path) -> None:
    """W5 for metrics: SLURM starts the two processes of a data-parallel training, one writes."""
    words = commands.tiny_training(tiny_data, "trainer.num_devices=2")
    _train("launcher=slurm", *words, cwd=tmp_path)
    wait_until_idle()
    assert _status("default", tmp_path)["default"]["state"] == "done"
    with (tmp_path / RUN / "stages/energy/0/metrics.csv").open(encoding="utf-8") as table:
        assert [row["epoch"] for row in csv.DictReader(table)] == ["0", "1"]
    logs = sorted((tmp_path / "runs/sweeps/default/jobs").glob("*_log.err"))
    assert len(logs) == 2  # one a process


def test_scripts_train_part_groups_and_sample_in_shards(tmp_path: Path, tiny_data: Path) -> None:
    """S2: sites without submitit; the merged file equals one that was drawn in one piece."""
    words = commands.tiny_training(tiny_data)
    _submit("submit_parts.sh", "energy:1:1", "causal:3:2", "--", *words, cwd=tmp_path)
    wait_until_idle()
    assert (tmp_path / RUN / "generator" / "generator.yaml").is_file()
    request = (RUN, "-n", "50", "--energy", "50GeV")
    _submit("submit_sample.sh", "3", "merged.h5", *request, cwd=tmp_path)
    wait_until_idle()
    done = commands.run("calo-sample", *request, "--out", "whole.h5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    merged, whole = _datasets(tmp_path / "merged.h5"), _datasets(tmp_path / "whole.h5")
    assert merged.keys() == whole.keys()
    assert all(np.array_equal(merged[name], whole[name]) for name in whole)
    assert not list(tmp_path.glob("*.shard*.h5"))


def _submit(script: str, *words: str, cwd: Path) -> None:
    subprocess.run(
        [SCRIPTS / script, *words],
        cwd=cwd,
        env={**os.environ, "SBATCH_OPTIONS": SCRIPT_OPTIONS},
        check=True,
        timeout=60,
    )


def _datasets(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found
