"""What became of every point of a sweep, in RUNS_FOLDER/sweeps/NAME.

    points/KEY.json   what tells the point from others, its run folder and resolved configuration
    states/KEY.yaml   what its newest process said: state, exit code, job
    jobs/             output of the processes

A point is known by a hash of the configuration that decides what is trained. Each state file has
one writer at a time, so that jobs on many machines need no lock. Where a state and a run folder
disagree, the run folder is right: a process that was killed wrote no state.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import yaml

from calo_train.atomic_files import machine_error, write_text
from calo_train.errors import DataError
from calo_train.training.lock import describe_owner
from calo_train.training.processes import STOP_CODES
from calo_train.training.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

SWEEPS = "sweeps"  # folder of all sweeps in a runs folder


class State(StrEnum):
    """Where a point of a sweep is."""

    MISSING = "missing"  # never started, or lost without a word
    QUEUED = "queued"
    RUNNING = "running"
    STOPPED = "stopped"  # asked to stop; goes on where it was
    FAILED = "failed"
    DONE = "done"


WANTED = (State.MISSING, State.STOPPED, State.FAILED)  # what the same command starts again


@dataclass(frozen=True)
class Point:
    """One training of a sweep: its key, what tells it from others, folder and configuration."""

    key: str
    words: tuple[str, ...]
    folder: Path
    config: Mapping[str, Any]

    @property
    def title(self) -> str:
        return " ".join(self.words) or self.folder.name


@dataclass(frozen=True)
class PointStatus:
    """A point with its state, and what its newest process left."""

    point: Point
    state: State
    message: str
    job: str | None

    def as_row(self) -> dict[str, str]:
        """Give a row of the table that the commands print."""
        return {
            "point": self.point.title,
            "state": str(self.state),
            "job": self.job or "-",
            "run": str(self.point.folder),
            "message": self.message or "-",
        }


@dataclass(frozen=True)
class SweepFolder:
    """The ledger of a sweep."""

    path: Path

    @classmethod
    def of(cls, runs_folder: Path, name: str) -> SweepFolder:
        """Give the ledger of the sweep `name`."""
        return cls(runs_folder / SWEEPS / name)

    @property
    def jobs(self) -> Path:
        return self.path / "jobs"

    def exists(self) -> bool:
        return (self.path / "points").is_dir()

    def point_file(self, key: str) -> Path:
        return self.path / "points" / f"{key}.json"

    def output_file(self, key: str) -> Path:
        """What a point's process writes, where it has no terminal to itself."""
        return self.jobs / f"{key}.log"

    def add(self, point: Point) -> None:
        """Note a point; one that is there keeps its state."""
        file = self.point_file(point.key)
        content = {
            "key": point.key,
            "words": list(point.words),
            # Relative, so that a runs folder can be moved.
            "folder": os.path.relpath(point.folder, self.path),
            "config": dict(point.config),
        }
        try:
            for folder in (file.parent, self._states, self.jobs):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise machine_error(error, self.path) from error
        write_text(file, json.dumps(content, indent=1, default=str) + "\n")

    def points(self) -> list[Point]:
        """Give all points that were ever part of this sweep."""
        return [self._read_point(path) for path in sorted((self.path / "points").glob("*.json"))]

    def has_jobs(self) -> bool:
        """Whether a point was ever handed to a cluster, which then knows more of it."""
        keys = [path.stem for path in self._states.glob("*.yaml")]
        return any(self._read_state(key).get("job") for key in keys)

    def submitted(self, key: str, job: str) -> None:
        """Note that a point waits as this job of a cluster."""
        if self._read_state(key).get("job") != job:  # else it has begun already
            self._write_state(key, State.QUEUED, job=job)

    def started(self, key: str, job: str | None = None) -> None:
        """Note that this process, a job of a cluster or not, trains the point."""
        self._write_state(key, State.RUNNING, job=job)

    def ended(self, key: str, exit_code: int) -> None:
        """Note how the process that trained the point ended; negative is the signal's number."""
        state = State.DONE if exit_code == 0 else State.FAILED
        if exit_code in STOP_CODES:
            state = State.STOPPED
        self._write_state(key, state, exit_code=exit_code, job=self._read_state(key).get("job"))

    def status(self, point: Point, living_jobs: Collection[str] | None = None) -> PointStatus:
        """Say where a point is; `living_jobs` are those that a cluster knows, None if unknown."""
        noted = self._read_state(point.key)
        run = RunFolder(point.folder)
        record = run.read_record() if run.exists() else {}
        job = noted.get("job")
        is_whole = point.config.get("only") is None
        state = State(noted.get("state", State.MISSING))
        if is_whole and record.get("state") == "finished":
            state = State.DONE
        elif state is State.DONE and (is_whole or not run.exists()):
            state = State.MISSING  # moved away, or begun anew, since
        elif _is_owned(run):
            state = State.RUNNING
        elif state in (State.QUEUED, State.RUNNING, State.STOPPED):
            state = _state_without_owner(state, job, living_jobs)
            if state is State.MISSING and record.get("state") == "failed":
                state = State.FAILED  # a job of its parts said so
        return PointStatus(point, state, self._message(point, state, noted, record), job)

    def _message(
        self, point: Point, state: State, noted: Mapping[str, Any], record: Mapping[str, Any]
    ) -> str:
        if state is State.MISSING and noted:
            return "the process is gone without a word; see its output"
        if state is not State.FAILED:
            return ""
        said = record.get("message") or f"see {self._newest_output(point.key, noted)}"
        code = noted.get("exit_code")
        return said if code is None else f"exit {code}: {said}"

    def _newest_output(self, key: str, noted: Mapping[str, Any]) -> Path:
        job = noted.get("job")
        return self.output_file(key) if job is None else self.jobs / f"{job}_0_log.err"

    @property
    def _states(self) -> Path:
        return self.path / "states"

    def _read_point(self, path: Path) -> Point:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            folder = (self.path / content["folder"]).resolve()
            return Point(content["key"], tuple(content["words"]), folder, content["config"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"a point of this sweep cannot be read: {error}",
                where=str(path),
                do="remove the file; the command that made the sweep writes it again",
            ) from error

    def _read_state(self, key: str) -> dict[str, Any]:
        try:
            noted = yaml.safe_load((self._states / f"{key}.yaml").read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError):
            return {}
        return noted if isinstance(noted, dict) else {}

    def _write_state(
        self, key: str, state: State, *, job: str | None, exit_code: int | None = None
    ) -> None:
        noted = {"state": str(state), "exit_code": exit_code, "job": job}
        write_text(self._states / f"{key}.yaml", yaml.safe_dump(noted, sort_keys=False))


def _is_owned(run: RunFolder) -> bool:
    return any(describe_owner(path) is not None for path in run.path.glob("lock*"))


def _state_without_owner(
    state: State, job: str | None, living_jobs: Collection[str] | None
) -> State:
    """Judge a point that no process holds, by whether its job still waits in a queue."""
    if job is None:
        return state if state is State.STOPPED else State.MISSING
    if living_jobs is None or job in living_jobs:
        return State.QUEUED  # also one that was requeued
    return state if state is State.STOPPED else State.MISSING
