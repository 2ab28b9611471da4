"""calo-runs: what it says of machines and runs, and a run trained again."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import commands
import pytest

from calo_train.errors import MachineError
from calo_train.training import doctor
from calo_train.training.lock import owned

if TYPE_CHECKING:
    from pathlib import Path


def test_run_trained_again_has_the_same_bits(finished_run: Path) -> None:
    """From the record alone, in a folder that was moved; on one CPU nothing differs."""
    run = _in_place(finished_run)
    done = commands.run("calo-runs", "reproduce", str(run), "--json", cwd=finished_run.parent)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["identical"]
    assert {part["part"] for part in found["parts"]} >= {"energy/0", "causal/0"}
    assert all(part["recorded_loss"] == part["new_loss"] for part in found["parts"])
    again = commands.run("calo-runs", "reproduce", str(run), "--name", "x/y", cwd=run)
    commands.require_message(again, 2, "name")


def test_altered_part_is_not_called_identical(finished_run: Path) -> None:
    from safetensors.torch import load_file, save_file

    run = _in_place(finished_run)
    path = run / "stages/causal/parts/1.safetensors"
    weights = load_file(path)
    name = next(name for name, value in weights.items() if name.endswith("bias"))
    weights[name] += 0.25
    save_file(weights, path)
    done = commands.run("calo-runs", "reproduce", str(run), "--json", cwd=run)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not found["identical"]
    moved = {part["part"]: part["largest_difference"] for part in found["parts"]}
    assert moved["causal/1"] == pytest.approx(0.25, rel=1e-6)
    assert moved["causal/0"] == 0


def _in_place(run: Path) -> Path:
    """Put a run where a folder of runs has it: DATASET/MODEL/NAME."""
    place = run.parent / "runs/native/l2lflows/default"
    place.parent.mkdir(parents=True)
    return run.rename(place)


def test_doctor_finds_a_dead_lock_and_frees_it_when_asked(finished_run: Path) -> None:
    """R8: a dead owner's lock is told, kept without a yes, removed with one."""
    lock = finished_run / "lock"
    lock.write_text(json.dumps({"host": os.uname().nodename, "pid": 2**22 + 1, "command": "x"}))
    found = commands.run("calo-runs", "doctor", str(finished_run), cwd=finished_run)
    commands.require_message(found, 5, "lock")
    assert re.search(r"WRONG\s+lock", found.stdout)
    assert lock.exists()
    freed = commands.run(
        "calo-runs", "doctor", str(finished_run), "--free-locks", "--yes", cwd=finished_run
    )
    assert freed.returncode == 0, freed.stderr
    assert not lock.exists()


def test_lock_of_a_living_owner_is_never_freed(tmp_path: Path) -> None:
    with owned(tmp_path / "lock") as lock, pytest.raises(MachineError, match="alive"):
        doctor.free_stale_lock(lock)


def test_doctor_finds_a_generator_that_was_altered(finished_run: Path) -> None:
    """R11: nothing is deleted, the folder and the way out are named."""
    part = finished_run / "generator/energy-0.safetensors"
    part.write_bytes(part.read_bytes()[:-1] + b"\x00")
    found = commands.run("calo-runs", "doctor", str(finished_run), cwd=finished_run)
    commands.require_message(found, 5, "generator", "intact copy")
    assert part.exists()


@pytest.mark.parametrize(
    ("environment", "is_good"),
    [
        ({}, True),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, True),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "2"}, False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "RANK": "0", "WORLD_SIZE": "4"}, False),
    ],
)
def test_ranks_that_disagree_are_found(environment: dict[str, str], *, is_good: bool) -> None:
    (check,) = doctor._ranks(environment)
    assert check.is_good == is_good


def test_papers_of_a_run_are_printed(finished_run: Path) -> None:
    done = commands.run("calo-runs", "cite", str(finished_run), cwd=finished_run)
    assert done.returncode == 0, done.stderr
    keys = re.findall(r"^@\w+\{([\w-]+),", done.stdout, re.MULTILINE)
    assert keys[0] == "l2lflows"
    assert {"calochallenge", "fpd-kpd", "separation-power"} <= set(keys)
    assert done.stdout.count("{") == done.stdout.count("}")
