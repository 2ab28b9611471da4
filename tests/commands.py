"""Commands as installed, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT = 240  # seconds; a hang must fail, not wait
TINY_MODEL = [
    "model=l2lflows", "model.energy_flow.num_blocks=1", "model.energy_flow.hidden_features=8",
    "model.causal_flow.num_blocks=1", "model.causal_flow.hidden_features=8",
    "model.embedding_hidden=[8]", "model.embedding_features=4", "model.tile=16",
    "model.energy_training.batch_size=32", "model.energy_training.num_epochs=2",
    "model.causal_training.batch_size=32", "model.causal_training.num_epochs=2",
]  # fmt: skip
TINY_CALOFLOW = [
    "model=caloflow", "model.energy_flow.num_blocks=1", "model.energy_flow.hidden_features=8",
    "model.voxel_flow.num_blocks=2", "model.voxel_flow.hidden_features=8",
    "model.student.hidden_features=8", "model.tile=16", "trainer.max_epochs=2",
    "model.energy_training.batch_size=32", "model.voxel_training.batch_size=32",
    "model.student_training.batch_size=32",
]  # fmt: skip

_TINY_FLOWS = [
    f"model.{flow}.{key}"
    for flow in ("energy_flow", "first_layer_flow", "next_layers_flow")
    for key in ("num_blocks=1", "num_hidden_layers=1", "hidden_features=8")
]
_TINY_STUDENTS = [
    f"model.{flow}.{key}"
    for flow in ("first_layer_student", "next_layers_student")
    for key in ("num_hidden_layers=1", "hidden_features=8")
]
TINY_ICALOFLOW = [
    "model=icaloflow", *_TINY_FLOWS, *_TINY_STUDENTS, "model.tile=16", "trainer.max_epochs=2",
]  # fmt: skip
TINY_SUPERCALO = [
    "model=supercalo", "model.tile=16",
    *(
        f"model.{stage}_{words}"
        for stage in ("energy", "coarse", "upsampling")
        for words in (
            "flow.num_blocks=1", "flow.hidden_features=8",
            "training.batch_size=32", "training.num_epochs=2",
        )
    ),
]  # fmt: skip


def environment() -> dict[str, str]:
    """One thread, no colour, no terminal, no network loggers."""
    return {
        **os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200",
        "PYTHONWARNINGS": "default",
    }  # fmt: skip


def command_line(command: str, *arguments: str) -> list[str]:
    """Give the process arguments of an installed command."""
    module = {"calo-train": "train", "calo-sample": "sample", "calo-eval": "evaluate",
              "calo-data": "data", "calo-runs": "runs"}[command]  # fmt: skip
    return [sys.executable, "-m", f"calo_train.cli.{module}", *arguments]


def run(command: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return run_with(environment(), command, *arguments, cwd=cwd)


def run_with(
    variables: dict[str, str], command: str, *arguments: str, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in an environment of its own."""
    return subprocess.run(
        command_line(command, *arguments),
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def start(command: str, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, to be signalled."""
    return subprocess.Popen(
        command_line(command, *arguments),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def tiny_training(data: Path, *more: str) -> list[str]:
    """Arguments of a training that takes a second after its start."""
    return [
        *TINY_MODEL,
        "dataset=native",
        f"dataset.path={data}",
        "dataset.threshold=0.01MeV",
        *more,
    ]


def require_message(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Assert the exit code and a three-part message without a traceback."""
    assert done.returncode == code, done.stderr
    assert "error:" in done.stderr
    assert "where:" in done.stderr
    assert "do:" in done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
