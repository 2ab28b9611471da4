"""A short fuzz suite; `make fuzz-test` runs the long one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_suite import Outcome, fuzz
from fuzz_targets import TARGETS, Target


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_files_are_read_or_refused_with_a_message(name: str, tmp_path: Path) -> None:
    """X3, X5, X6: no crash without three parts, no hang; some must pass, else nothing was read."""
    outcome = fuzz(TARGETS[name], 60, seed=1, folder=tmp_path)
    assert outcome.failures == []
    assert outcome.refused > 0
    assert outcome.inputs == 60


class _Faulty(Target):
    """A door that does all that the suite has to notice, by the input's number."""

    name = "faulty"

    def write(self, chance: object, folder: Path) -> Path:  # noqa: ARG002
        number = len(list(folder.iterdir()))
        path = folder / str(number)
        path.touch()
        return path

    def read(self, path: Path) -> None:
        import os
        import signal

        number = int(path.name)
        if number == 1:
            raise KeyError("no message")
        if number == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == 3:
            os.kill(os.getpid(), signal.SIGPROF)  # as the limit of processor time does


def test_a_crash_and_a_hang_would_be_seen(tmp_path: Path) -> None:
    """The suite itself: an error without parts, a dead process and one past its time."""
    outcome: Outcome = fuzz(_Faulty(), 6, seed=0, folder=tmp_path)
    assert outcome.inputs == 6
    assert outcome.accepted == 3
    assert [word in words for word, words in zip(
        ("KeyError", "status", "no end"), outcome.failures, strict=True
    )] == [True, True, True], outcome.failures  # fmt: skip
    assert outcome.hangs == 1
