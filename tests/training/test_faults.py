"""What goes wrong while training: message, exit code, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import commands
import h5py
import pytest

from calo_train.errors import DataError, MachineError
from calo_train.training.compose import composed_run
from calo_train.training.data import prepare_data
from calo_train.training.lock import owned
from calo_train.training.plan import plan_groups
from calo_train.training.run import build_module, planned_work, train

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = "runs/native/l2lflows/default"


def test_diverging_loss_names_part_batch_and_rows(tmp_path: Path, tiny_data: Path) -> None:
    """R12: the step is not applied and the message says where it happened."""
    done = commands.run(
        "calo-train",
        *commands.tiny_training(tiny_data, "model.energy_training.learning_rate=1e30"),
        cwd=tmp_path,
    )
    commands.require_message(
        done, 4, "energy/0", "epoch", "batch", "data rows", "largest feature", "learning_rate"
    )


def test_same_seed_twice_gives_equal_losses_and_zero_is_a_seed(
    tmp_path: Path, tiny_data: Path
) -> None:
    """R24."""
    losses = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        arguments = commands.tiny_training(
            tiny_data, f"seed={seed}", f"name={name}", "only=energy"
        )
        done = commands.run("calo-train", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        table = tmp_path / f"runs/native/l2lflows/{name}/stages/energy/0/metrics.csv"
        losses[name] = table.read_text(encoding="utf-8")
    assert losses["a"] == losses["b"]
    assert losses["a"] != losses["c"]


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that refuses writing; permissions do not bind root, a read-only mount does."""
    folder = tmp_path / "read only"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_read_only_folder_is_refused_before_data_are_read(
    read_only_folder: Path, tmp_path: Path
) -> None:
    """R10: the data file does not even exist, and the folder is named first."""
    arguments = commands.tiny_training(tmp_path / "none.h5", f"runs_folder={read_only_folder}")
    done = commands.run("calo-train", *arguments, cwd=tmp_path)
    commands.require_message(done, 5, "cannot write", str(read_only_folder), "mode")
    assert list(read_only_folder.iterdir()) == []


def test_small_disk_is_refused_before_training(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R9: before anything is trained."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 1000))
    arguments = commands.tiny_training(tiny_data, f"runs_folder={tmp_path}")
    with pytest.raises(MachineError, match="disk space") as refused:
        train(composed_run(arguments))
    assert "needed" in str(refused.value)
    assert list(tmp_path.glob("**/*.ckpt")) == []


def test_second_process_on_a_run_is_refused(tmp_path: Path, tiny_data: Path) -> None:
    """R7."""
    run = tmp_path / RUN
    run.mkdir(parents=True)
    with owned(run / "lock"):
        done = commands.run("calo-train", *commands.tiny_training(tiny_data), cwd=tmp_path)
    commands.require_message(done, 5, f"pid {os.getpid()}")


def test_lock_of_a_dead_process_is_taken_over(tmp_path: Path, tiny_data: Path) -> None:
    """R8, R22: locks are files created whole; no lock of the file system is used."""
    run = tmp_path / RUN
    with owned(tmp_path / "lock"):
        owner = json.loads((tmp_path / "lock").read_text(encoding="utf-8"))
    run.mkdir(parents=True)
    (run / "lock").write_text(json.dumps(owner | {"process_start": "0"}), encoding="utf-8")
    done = commands.run("calo-train", *commands.tiny_training(tiny_data), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "taking over the lock" in done.stderr


def test_data_that_changed_during_a_run_are_refused(tmp_path: Path, tiny_data: Path) -> None:
    """D8."""
    data = tmp_path / "data.h5"
    data.write_bytes(tiny_data.read_bytes())
    arguments = commands.tiny_training(data)
    assert commands.run("calo-train", *arguments, "only=energy", cwd=tmp_path).returncode == 0
    with h5py.File(data, "r+") as file:
        file["energies"][0] *= 2
    done = commands.run("calo-train", *arguments, cwd=tmp_path)
    commands.require_message(done, 3, "changed", "data.h5")


def test_a_gpu_that_is_not_there_is_no_silent_cpu_run(tmp_path: Path, tiny_data: Path) -> None:
    """R14: what torch sees, and the way out."""
    hidden = {**commands.environment(), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        commands.command_line("calo-train", *commands.tiny_training(tiny_data, "trainer=gpu")),
        cwd=tmp_path, env=hidden, capture_output=True, text=True, timeout=commands.TIMEOUT,
        check=False,
    )  # fmt: skip
    commands.require_message(done, 5, "GPU", "torch", "visible", "trainer=cpu")


def test_dry_run_estimates_and_writes_nothing(tmp_path: Path, tiny_data: Path) -> None:
    """U3."""
    done = commands.run(
        "calo-train", *commands.tiny_training(tiny_data, "dry_run=true"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for word in ("memory", "disk", "weights", "nothing was written"):
        assert word in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_of_another_format_is_refused(tiny_data: Path) -> None:
    """R19: the first format held a whole optimiser for each part."""
    config = composed_run(commands.tiny_training(tiny_data))
    data = prepare_data(config)
    stages = config.family.stages(data.geometry, data.statistics, data.threshold)
    (group,) = plan_groups(stages, only="energy", sizes={"energy": 1})
    module = build_module(config, group, planned_work(config, group, data), data)
    with pytest.raises(DataError, match="format 1") as refused:
        module.load_checkpoint_state({"format": 1, "epoch": 3, "batch": 0})
    assert "restart=true" in str(refused.value)
    assert module.epoch == 0
