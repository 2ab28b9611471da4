"""Kill -9 at random moments: nothing may be lost, nothing corrupt, and the end equal to the bit.

`python tests/reliability/kill_suite.py --kills 500` kills commands while they train, write
checkpoints, sample and evaluate, lets the same command go on until it ends, and compares with an
undisturbed run. It prints the counts and, with `--out`, writes them as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

import commands
import detectors
import forked
import kill_hooks
import numpy as np
from safetensors import safe_open

if TYPE_CHECKING:
    from collections.abc import Callable

# Of the kills; an evaluation costs thirty trainings and writes only at its end.
SHARES = {"training": 0.46, "checkpoint": 0.3, "sampling": 0.21, "evaluation": 0.03}
_TRAINING = (
    "model.causal_training.num_epochs=6", "trainer.checkpoint_interval=0.02s",
    "dataset.memory_budget=1GiB",
)  # fmt: skip
_NUM_SHOWERS = 600
_PATIENCE = 1800.0  # seconds; a hang is one however long it is waited for
_MOST_PROBLEMS = 10  # then something is wrong with all
_MOST_KILLS = 8  # of one run, so that every run also comes to its end


@dataclass
class Tally:
    """What the kills did; all but `kills` and `runs` must stay empty."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    latest_steps: int = 0  # ended after a checkpoint was due; one may, while it is written

    def as_mapping(self) -> dict[str, object]:
        """Give the counts as plain data."""
        return {
            "kills": dict(self.kills),
            "total_kills": self.kills.total(),
            "runs_compared": dict(self.runs),
            "lost_or_corrupt": len(self.problems),
            "steps_past_the_interval": self.latest_steps,
            "problems": self.problems[:20],
        }


class Suite:
    """A working folder with its data and the results of undisturbed commands."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.tally = Tally()
        self._random = random.Random(seed)
        self._number = 0
        data = detectors.write_showers(folder / "showers.h5", detectors.cartesian(), 300)
        self._training = commands.tiny_training(data, *_TRAINING)
        self._durations: dict[str, float] = {}
        self._expected_run = self._undisturbed("training", "calo-train", *self._train("expected"))
        self._sample = ("-n", str(_NUM_SHOWERS), "--energy", "10:90GeV")
        self._expected_file = folder / "expected.h5"
        run = str(self._run("expected"))
        self._undisturbed("sampling", "calo-sample", run, *self._sample, "--out", "expected.h5")
        # The first command of all waited for the server's imports.
        self._undisturbed("training", "calo-train", *self._train("second"))

    def kill(self, kind: str, number: int) -> None:
        """Kill commands of a kind so many times, in runs that each end and are compared."""
        target = self.tally.kills[kind] + number
        cycle = {
            "training": partial(self._train_cycle, is_checkpoint=False),
            "checkpoint": partial(self._train_cycle, is_checkpoint=True),
            "sampling": self._sample_cycle,
            "evaluation": self._evaluate_cycle,
        }[kind]
        while (left := target - self.tally.kills[kind]) > 0:
            if len(self.tally.problems) > _MOST_PROBLEMS:
                return
            self._number += 1
            cycle(f"{kind}-{self._number}", min(left, _MOST_KILLS))

    def _train_cycle(self, name: str, most: int, *, is_checkpoint: bool) -> None:
        kind = "checkpoint" if is_checkpoint else "training"
        trace = self.folder / f"{name}.trace"

        def attempt() -> forked.Forked:
            trace.unlink(missing_ok=True)
            seed = self._random.randrange(1 << 30) if is_checkpoint else None
            prepare = partial(kill_hooks.install, str(trace), seed)
            return self._start("calo-train", *self._train(name), prepare=prepare)

        def look() -> None:
            late = kill_hooks.steps_past_the_interval(trace)
            self.tally.latest_steps = max(self.tally.latest_steps, late)
            if late > 1:
                self.tally.problems.append(f"{name}: {late} steps since a checkpoint was due")

        self._until_done(kind, most, attempt, look=look, kills_itself=is_checkpoint)
        last = self._start("calo-train", *self._train(name))
        self._compare(kind, name, last, lambda: same_run(self._run(name), self._run("expected")))
        shutil.rmtree(self._run(name), ignore_errors=True)

    def _sample_cycle(self, name: str, most: int) -> None:
        out = self.folder / f"{name}.h5"
        words = ("calo-sample", str(self._run("expected")), *self._sample, "--out", str(out))
        self._until_done("sampling", most, lambda: self._start(*words), is_done=out.exists)
        last = None if out.exists() else self._start(*words)
        self._compare("sampling", name, last, lambda: same_file(out, self._expected_file))
        out.unlink(missing_ok=True)

    def _evaluate_cycle(self, name: str, most: int) -> None:
        expected, out = self.folder / "expected-report", self.folder / f"{name}-report"
        words = (
            "calo-eval", "expected.h5", "--reference", "showers.h5", "-n", "60",
            "--classifier", "none", "--allow-different-energies", "--threshold", "0.01MeV",
        )  # fmt: skip
        if not expected.exists():
            self._undisturbed("evaluation", *words, "--out", str(expected))
        words = (*words, "--out", str(out))
        self._until_done("evaluation", min(most, 3), lambda: self._start(*words))
        last = self._start(*words)
        self._compare("evaluation", name, last, lambda: same_report(out, expected))
        shutil.rmtree(out, ignore_errors=True)

    def _until_done(
        self,
        kind: str,
        most: int,
        attempt: Callable[[], forked.Forked],
        *,
        look: Callable[[], None] = lambda: None,
        kills_itself: bool = False,
        is_done: Callable[[], bool] = lambda: False,
    ) -> None:
        """Start and kill the same command until it ends by itself or was killed often enough."""
        for number in range(most):
            if is_done():
                return
            began = time.monotonic()
            started = attempt()
            if not kills_itself:
                started.process.join(self._random.uniform(0.1, 0.9) * self._durations[kind])
                if started.is_running:
                    os.kill(started.pid, signal.SIGKILL)
            code = started.wait(_PATIENCE)
            if code != -signal.SIGKILL:
                if code != 0:
                    self.tally.problems.append(f"{kind}: exit {code}: {started.log[-500:]}")
                if number == 0:  # the whole: a busy machine is not always as busy
                    self._durations[kind] = time.monotonic() - began
                return
            self.tally.kills[kind] += 1
            look()

    def _compare(
        self,
        kind: str,
        name: str,
        last: forked.Forked | None,
        differences: Callable[[], list[str]],
    ) -> None:
        self.tally.runs[kind] += 1
        if last is not None and (code := last.wait(_PATIENCE)) != 0:
            self.tally.problems.append(f"{name}: exit {code} at last: {last.log[-500:]}")
            return
        self.tally.problems += [f"{name}: {words}" for words in differences()]

    def _undisturbed(self, kind: str, command: str, *words: str) -> None:
        started = time.monotonic()
        done = self._start(command, *words)
        if done.wait(_PATIENCE) != 0:
            raise RuntimeError(done.log)
        self._durations[kind] = time.monotonic() - started
        self._durations.setdefault("checkpoint", self._durations[kind])

    def _start(
        self, command: str, *words: str, prepare: Callable[[], None] | None = None
    ) -> forked.Forked:
        log = self.folder / "last.log"
        return forked.start(command, *words, cwd=self.folder, log=log, prepare=prepare)

    def _train(self, name: str) -> list[str]:
        return [*self._training, f"name={name}"]

    def _run(self, name: str) -> Path:
        return self.folder / "runs/native/l2lflows" / name


def same_run(found: Path, expected: Path) -> list[str]:
    """Say how a run differs from another: weights, loss curves, and files left behind."""
    differences = []
    for path in sorted(expected.rglob("*")):
        same = found / path.relative_to(expected)
        if path.suffix in _CONTENT and (
            not same.is_file() or _CONTENT[path.suffix](same) != _CONTENT[path.suffix](path)
        ):
            differences.append(f"{path.relative_to(expected)} differs")
    names = {str(path.relative_to(expected)) for path in expected.rglob("*")}
    strays = [path for path in found.rglob("*") if str(path.relative_to(found)) not in names]
    return differences + [f"{path.relative_to(found)} was left behind" for path in strays]


def _tensors(path: Path) -> dict[str, object]:
    """Give the bytes of all tensors and the metadata; in a file their order is by chance."""
    with safe_open(path, framework="np") as stored:
        tensors = {name: stored.get_tensor(name).tobytes() for name in stored.keys()}  # noqa: SIM118
        return {**tensors, "metadata": stored.metadata()}


_CONTENT: dict[str, Callable[[Path], object]] = {
    ".safetensors": _tensors,
    ".csv": Path.read_bytes,
}


def same_file(found: Path, expected: Path) -> list[str]:
    """Say how two files of showers differ."""
    import h5py

    with h5py.File(found) as one, h5py.File(expected) as other:
        keys = ("energies", "conditions/incident_energy")
        return [key for key in keys if not np.array_equal(one[key][:], other[key][:])]


def same_report(found: Path, expected: Path) -> list[str]:
    """Say how the numbers of two reports differ, and which files one lacks."""
    names = {str(path.relative_to(expected)) for path in expected.rglob("*")}
    missing = names - {str(path.relative_to(found)) for path in found.rglob("*")}
    differences = [f"{name} is missing" for name in sorted(missing)]
    if found.joinpath("metrics.json").is_file():
        metrics = [json.loads((p / "metrics.json").read_text()) for p in (found, expected)]
        one, other = (entry["samples"] for entry in metrics)
        differences += [] if one == other else ["metrics.json differs"]
    return differences


def main() -> None:
    """Run the suite and say how many runs were lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-time", type=float, default=float("inf"), help="seconds")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    asked = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill suite ") as folder:
        suite = Suite(Path(folder), asked.seed)
        # In turn, so that a suite that runs out of time has killed everything.
        wanted = {kind: round(share * asked.kills) for kind, share in SHARES.items()}
        while any(suite.tally.kills[kind] < number for kind, number in wanted.items()):
            for kind, number in wanted.items():
                left = number - suite.tally.kills[kind]
                if left > 0 and time.monotonic() - started < asked.max_time:
                    suite.kill(kind, min(left, _MOST_KILLS))
                sys.stderr.write(f"{suite.tally.kills.total()} kills: {dict(suite.tally.kills)}\n")
            is_late = time.monotonic() - started >= asked.max_time
            if is_late or len(suite.tally.problems) > _MOST_PROBLEMS:
                break
        result = suite.tally.as_mapping() | {
            "asked": asked.kills, "seed": asked.seed, "seconds": round(time.monotonic() - started),
        }  # fmt: skip
    text = json.dumps(result, indent=1)
    sys.stdout.write(text + "\n")
    if asked.out is not None:
        asked.out.write_text(text + "\n", encoding="utf-8")
    raise SystemExit(1 if suite.tally.problems else 0)


if __name__ == "__main__":
    main()
