"""A short kill suite; `make kill-test` runs the long one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kill_suite import Suite, same_run


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return Suite(tmp_path_factory.mktemp("kill suite"), seed=3)


@pytest.mark.parametrize(("kind", "number"), [("training", 2), ("checkpoint", 3), ("sampling", 2)])
def test_killed_commands_lose_nothing(kind: str, number: int, suite: Suite) -> None:
    """R1, R2, S3: kill -9 at random moments; the same command ends as if nothing had been."""
    suite.kill(kind, number)
    assert suite.tally.problems == []
    assert suite.tally.kills[kind] == number
    assert suite.tally.latest_steps <= 1


def test_a_lost_weight_would_be_seen(suite: Suite, tmp_path: Path) -> None:
    """The suite itself: it must tell a run that differs by one byte, or left a file behind."""
    import shutil

    expected = suite.folder / "runs/native/l2lflows/expected"
    other = tmp_path / "other"
    shutil.copytree(expected, other)
    assert same_run(other, expected) == []
    part = other / "generator/energy-0.safetensors"
    part.write_bytes(part.read_bytes()[:-1] + b"\x01")
    (other / ".last.ckpt.part-1").touch()
    assert len(same_run(other, expected)) == 2
