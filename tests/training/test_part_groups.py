"""Part groups side by side on one machine, each in a process of its own."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import commands
import pytest

from calo_train.errors import MachineError, UsageError
from calo_train.training.compose import composed_run
from calo_train.training.config import TrainerConfig
from calo_train.training.lock import owned
from calo_train.training.part_groups import device_slots
from calo_train.training.run import require_no_other
from calo_train.training.run_folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

RUN = "runs/native/l2lflows/default"
LOSS_RTOL = 1e-5  # sums in another order, as for parts that are trained one by one
PARTS = ("trainer.parallel=parts", "trainer.num_devices=2")


def _losses(run: Path) -> dict[tuple[str, str, str], float]:
    losses = {}
    for path in run.glob("stages/*/*/metrics.csv"):
        with path.open(encoding="utf-8", newline="") as table:
            for row in csv.DictReader(table):
                key = (path.parent.parent.name, row["part"], row["epoch"])
                losses[key] = float(row["validation_loss"])
    return losses


def test_groups_on_two_devices_train_as_on_one(
    tmp_path: Path, tiny_data: Path, finished_run: Path
) -> None:
    """W5: and one W&B run has the curves of all of them."""
    arguments = commands.tiny_training(tiny_data, *PARTS, "logger=wandb")
    done = commands.run("calo-train", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / RUN
    (sent,) = (path.read_bytes() for path in run.glob("wandb/offline-run-*/*.wandb"))
    for part in ("energy/0", "causal/0", "causal/1", "causal/2"):
        assert f"{part}/validation_loss".encode() in sent
    assert sorted(path.name for path in (run / "stages/causal").iterdir()) == ["0-1", "2", "parts"]
    assert (run / "generator/generator.yaml").is_file()
    assert _losses(run) == pytest.approx(_losses(finished_run), rel=LOSS_RTOL)


def test_stopped_groups_save_and_go_on(tmp_path: Path, tiny_data: Path) -> None:
    """R3: a signal to the command reaches every group."""
    long = ("model.causal_training.num_epochs=30", "trainer.checkpoint_interval=0.05s")
    arguments = commands.tiny_training(tiny_data, "only=causal", *PARTS, *long)
    process = commands.start("calo-train", *arguments, cwd=tmp_path)
    deadline = time.monotonic() + commands.TIMEOUT
    while len(list(tmp_path.glob(f"{RUN}/stages/causal/*/last.ckpt"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    _, log = process.communicate(timeout=commands.TIMEOUT)
    assert process.returncode == 75, log
    done = commands.run("calo-train", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / RUN / "train.log").read_text(encoding="utf-8")
    assert "stage causal, parts 0-1: going on at epoch" in log
    assert "stage causal, parts 2: going on at epoch" in log


def test_failing_group_names_its_log_and_exit_code(tmp_path: Path, tiny_data: Path) -> None:
    """R12 for a group: the others are trained, the next stage is not begun."""
    bad = "model.energy_training.learning_rate=1e30"
    done = commands.run(
        "calo-train", *commands.tiny_training(tiny_data, *PARTS, bad), cwd=tmp_path
    )
    commands.require_message(done, 4, "energy/0 (exit 4)", "output.log")
    assert "not finite" in (tmp_path / RUN / "stages/energy/0/output.log").read_text("utf-8")
    assert not (tmp_path / RUN / "stages/causal").exists()


def test_groups_share_one_machine() -> None:
    with pytest.raises(UsageError, match="one machine"):
        composed_run(["trainer.parallel=parts", "trainer.num_nodes=2"])


def test_every_process_sees_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = TrainerConfig(accelerator="gpu", num_devices=2, parallel="parts")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in device_slots(gpus)] == ["3", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in device_slots(gpus)] == ["0", "1"]


def test_whole_training_and_one_of_parts_exclude_each_other(tmp_path: Path) -> None:
    """R7: either would overwrite checkpoints of the other."""
    run = RunFolder(tmp_path)
    for held, only in (("lock-causal-0", None), ("lock", "causal/0")):
        with owned(tmp_path / held), pytest.raises(MachineError, match="another process"):
            require_no_other(run, only)
    with owned(tmp_path / "lock-causal-0"):
        require_no_other(run, "causal/1")


def test_requeued_job_takes_its_own_lock_on_another_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R8: SLURM runs a job once at a time, so an earlier start of it is gone."""
    lock = tmp_path / "lock"
    owner = {"host": f"not-{socket.gethostname()}", "pid": 1, "job": "12", "restart": 0}
    lock.write_text(json.dumps(owner), encoding="utf-8")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    with pytest.raises(MachineError), owned(lock):
        pass
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with owned(lock):
        assert json.loads(lock.read_text(encoding="utf-8"))["restart"] == 1
