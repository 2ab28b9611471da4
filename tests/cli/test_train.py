"""calo-train and calo-runs as installed: first contact, loggers, sweeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import commands
import pytest

if TYPE_CHECKING:
    from pathlib import Path

RUN = "runs/native/l2lflows/default"


def test_typo_costs_no_heavy_import(tmp_path: Path) -> None:
    """U2: refused with the nearest name before torch is imported."""
    line = commands.command_line("calo-train", "model.causal_flow.hiden_features=3")
    line[1:1] = ["-X", "importtime"]
    done = subprocess.run(
        line, cwd=tmp_path, env=commands.environment(), capture_output=True, text=True,
        timeout=commands.TIMEOUT, check=False,
    )  # fmt: skip
    commands.require_message(done, 2, "hidden_features")
    imported = {text.rpartition("|")[2].strip() for text in done.stderr.splitlines()}
    assert "omegaconf" in imported
    assert "torch" not in imported


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--hlep", "--help"),
        ("model", "KEY=VALUE"),
        ("only=cusal/0", "causal"),
        ("only=causal/9", "0 to 2"),
    ],
)
def test_wrong_arguments_are_refused(
    argument: str, words: str, tmp_path: Path, tiny_data: Path
) -> None:
    """U2."""
    done = commands.run("calo-train", *commands.tiny_training(tiny_data), argument, cwd=tmp_path)
    commands.require_message(done, 2, words)


def test_own_groups_are_listed_first_and_checked(tmp_path: Path, tiny_data: Path) -> None:
    """U11."""
    own = tmp_path / "my groups/model/mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("_target_: calo_train.families.l2lflows.L2LFlows\ntle: 7\n", encoding="utf-8")
    words = ("--config-dir", "my groups")
    listed = commands.run("calo-train", *words, "--info", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.partition("model=")[2].split()[0] == "mine"
    chosen = ("model=mine", "dataset=native", f"dataset.path={tiny_data}")
    done = commands.run("calo-train", *words, *chosen, cwd=tmp_path)
    commands.require_message(done, 2, "unknown key 'model.tle'", "tile")


def test_results_go_to_stdout_and_the_log_to_stderr(tmp_path: Path, tiny_data: Path) -> None:
    """U5, U6, U10, U14: parsable, no control codes, few warnings, nothing else on stdout."""
    done = commands.run("calo-train", *commands.tiny_training(tiny_data), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["finished"]
    assert (tmp_path / result["generator"] / "generator.yaml").is_file()
    assert "\x1b" not in done.stderr
    assert done.stderr.lower().count("warning") <= 3
    table = (tmp_path / RUN / "stages/energy/0/metrics.csv").read_text(encoding="utf-8")
    assert table.startswith("epoch,part,train_loss,validation_loss")


def test_closed_pipe_is_no_error(tmp_path: Path, finished_run: Path) -> None:
    """U6."""
    line = commands.command_line("calo-runs", "status", str(finished_run))
    process = subprocess.Popen(
        line, cwd=tmp_path, env=commands.environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    log = process.stderr.read()
    process.stderr.close()
    assert process.wait(commands.TIMEOUT) == 0, log
    assert b"Traceback" not in log


def test_runs_are_listed_with_their_state(finished_run: Path) -> None:
    """U13: stages, best losses, whether a process works on it, the last message."""
    done = commands.run("calo-runs", "list", str(finished_run), "--json", cwd=finished_run.parent)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["state"] == "finished"
    assert row["parts"] == "4/4"
    assert row["stages"] == "energy done, causal done"
    assert row["process"] == "none"
    best = {word.partition(" ")[0] for word in row["best"].split(", ")}
    assert best == {"energy", "causal"}
    assert row["message"] == "-"


def test_default_logger_opens_no_connection(tmp_path: Path, tiny_data: Path) -> None:
    """W1: any attempt to connect ends the process."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(*_):\n    raise SystemExit('a connection was opened')\n"
        "socket.socket.connect = refuse\nsocket.socket.connect_ex = refuse\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        commands.command_line("calo-train", *commands.tiny_training(tiny_data, "only=energy")),
        cwd=tmp_path, env={**commands.environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=commands.TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "connection" not in done.stderr


def test_wandb_works_offline_without_key_and_sends_no_paths(
    tmp_path: Path, tiny_data: Path
) -> None:
    """W2, W7."""
    arguments = commands.tiny_training(tiny_data, "logger=wandb", "only=energy")
    done = commands.run("calo-train", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "wandb sync" in done.stderr
    (log,) = (tmp_path / RUN).glob("wandb/offline-run-*/*.wandb")
    sent = log.read_bytes()
    assert b"energy/0/validation_loss" in sent
    assert str(tmp_path).encode() not in sent
    assert os.uname().nodename.encode() not in sent


def test_missing_logger_package_is_named_before_data(tmp_path: Path) -> None:
    """W6: wandb hidden from the import system; the data file does not exist either."""
    hide = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'wandb' else find(name, *a)\n"
        "from calo_train.cli.train import main\nmain()\n"
    )
    arguments = commands.tiny_training(tmp_path / "none.h5", "logger=wandb")
    done = subprocess.run(
        [sys.executable, "-c", hide, *arguments],
        cwd=tmp_path, env=commands.environment(), capture_output=True, text=True,
        timeout=commands.TIMEOUT, check=False,
    )  # fmt: skip
    commands.require_message(done, 2, "wandb", "pip install", "logger=csv")


def test_tensorboard_files_are_written(tmp_path: Path, tiny_data: Path) -> None:
    arguments = commands.tiny_training(tiny_data, "logger=tensorboard", "only=energy")
    done = commands.run("calo-train", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / RUN).glob("tensorboard/**/events*"))


def test_points_of_a_sweep_have_folders_of_their_own(tmp_path: Path, tiny_data: Path) -> None:
    arguments = commands.tiny_training(tiny_data, "only=energy", "seed=0,1")
    done = commands.run("calo-train", "-m", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert sorted(p.name for p in (tmp_path / RUN).parent.iterdir()) == [
        "default-seed=0",
        "default-seed=1",
    ]


def test_traceback_is_shown_on_demand_and_a_bug_says_so(tmp_path: Path) -> None:
    """U7."""
    wrong = ("dataset=native", f"dataset.path={tmp_path / 'none.h5'}")
    plain = commands.run("calo-train", *wrong, cwd=tmp_path)
    commands.require_message(plain, 3, "no such file")
    shown = commands.run("calo-train", *wrong, "--debug", cwd=tmp_path)
    assert "Traceback" in shown.stderr
    broken = (
        "from calo_train.cli.errors import run_command\n"
        "raise SystemExit(run_command(lambda: 1 / 0))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", broken], capture_output=True, text=True, check=False,
        timeout=commands.TIMEOUT, env=commands.environment(),
    )  # fmt: skip
    commands.require_message(done, 1, "bug", "ZeroDivisionError", "--debug")
