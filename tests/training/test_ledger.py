"""The ledger of a sweep: what a point is known by, and where it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calo_train.training.compose import compose_config
from calo_train.training.config import check_config, fingerprint
from calo_train.training.ledger import Point, State, SweepFolder
from calo_train.training.lock import owned
from calo_train.training.run_folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ledger(tmp_path: Path) -> SweepFolder:
    return SweepFolder.of(tmp_path / "runs", "seeds")


def _point(ledger: SweepFolder, *words: str) -> Point:
    runs = ledger.path.parents[1]
    resolved = compose_config([f"runs_folder={runs}", *words])
    folder = check_config(resolved).folder
    point = Point(fingerprint(resolved), words, folder, resolved)
    ledger.add(point)
    return point


def test_point_is_known_by_what_decides_its_training() -> None:
    plain = fingerprint(compose_config([]))
    assert fingerprint(compose_config(["trainer.num_threads=1", "launcher=slurm"])) == plain
    for word in ("seed=1", "name=other", "model.tile=16", "only=energy"):
        assert fingerprint(compose_config([word])) != plain


def test_ledger_gives_points_back_and_can_be_moved(ledger: SweepFolder, tmp_path: Path) -> None:
    point = _point(ledger, "seed=1")
    assert ledger.points() == [point]
    (tmp_path / "runs").rename(tmp_path / "moved")
    (moved,) = SweepFolder.of(tmp_path / "moved", "seeds").points()
    assert moved.folder == tmp_path / "moved" / point.folder.relative_to(tmp_path / "runs")
    assert moved.config == point.config


def test_state_follows_the_process(ledger: SweepFolder) -> None:
    point = _point(ledger)
    assert ledger.status(point).state is State.MISSING
    ledger.started(point.key)
    run = RunFolder(point.folder)
    run.create(point.config)
    with owned(run.path / "lock"):
        assert ledger.status(point).state is State.RUNNING
    assert ledger.status(point).state is State.MISSING  # killed: it could not say so
    ledger.ended(point.key, 75)
    assert ledger.status(point).state is State.STOPPED
    ledger.ended(point.key, 4)
    assert ledger.status(point).state is State.FAILED
    run.write_record({"state": "finished"})
    assert ledger.status(point).state is State.DONE


def test_job_that_left_the_queue_without_a_word_is_missing(ledger: SweepFolder) -> None:
    """A node that dies, or `scancel`; without an answer of the cluster the job counts as there."""
    point = _point(ledger)
    ledger.submitted(point.key, "7_1")
    assert ledger.status(point, {"7_0", "7_1"}).state is State.QUEUED
    assert ledger.status(point, None).state is State.QUEUED
    assert ledger.status(point, {"7_0"}).state is State.MISSING
    ledger.started(point.key, "7_1")
    ledger.ended(point.key, 75)
    assert ledger.status(point, {"7_1"}).state is State.QUEUED  # it was requeued
    assert ledger.status(point, set()).state is State.STOPPED


def test_late_note_of_a_submission_does_not_hide_how_the_job_ended(ledger: SweepFolder) -> None:
    point = _point(ledger)
    ledger.started(point.key, "7")
    ledger.ended(point.key, 2)
    ledger.submitted(point.key, "7")
    assert ledger.status(point, set()).state is State.FAILED


def test_run_that_was_moved_away_is_missing(ledger: SweepFolder) -> None:
    point = _point(ledger)
    ledger.started(point.key)
    ledger.ended(point.key, 0)
    assert ledger.status(point).state is State.MISSING
