"""Fixtures that several rooms share."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import commands
import detectors


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native file of 300 showers on the small cartesian detector."""
    folder = tmp_path_factory.mktemp("data of ω")
    return detectors.write_showers(folder / "showers.h5", detectors.cartesian(), 300)


@pytest.fixture(scope="session")
def _finished_run(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("a folder with spaces")
    done = commands.run("calo-train", *commands.tiny_training(tiny_data), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "native" / "l2lflows" / "default"


@pytest.fixture
def finished_run(_finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished tiny run; copying also shows that a run can be moved."""
    target = tmp_path / "moved run"
    shutil.copytree(_finished_run, target)
    return target
