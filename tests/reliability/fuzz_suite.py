"""Mutated files: each is read, or refused by a message of three parts, and none hangs.

`python tests/reliability/fuzz_suite.py --inputs 10000` feeds mutations to the readers of HDF5
showers (bytes and structure), binning XML, generator.yaml and config.yaml. Inputs are functions of
(target, seed, number). They are read by a forked child under limits of time and memory; when one
kills it, the parent notes that input and goes on with the next.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from fuzz_targets import TARGETS, Target

from calo_train.errors import CaloTrainError

TIME_LIMIT = 5.0  # seconds of processor time for one input
_SILENCE_LIMIT = 600.0  # seconds of any clock: a child that waits for something
_MEMORY_LIMIT = 3 << 30  # bytes of address space beyond what the child begins with


@dataclass
class Outcome:
    """Of one target: inputs read, refused with a message, and failures by what went wrong."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def hangs(self) -> int:
        return sum("no end" in words for words in self.failures)


def fuzz(
    target: Target, number: int, *, seed: int, folder: Path, deadline: float = float("inf")
) -> Outcome:
    """Feed so many mutated inputs to a target, or as many as there is time for."""
    outcome = Outcome()
    target.prepare(folder)
    while outcome.inputs < number and time.monotonic() < deadline:
        _serve(target, outcome, number, seed=seed, folder=folder, deadline=deadline)
    return outcome


def judge(target: Target, chance: random.Random, folder: Path) -> str:
    """Read one mutated input: `accepted`, `refused`, or what went wrong."""
    path = target.write(chance, folder)
    try:
        target.read(path)
    except CaloTrainError as error:
        return "refused" if all((error.what, error.where, error.do)) else f"no parts: {error!r}"
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = (
            "" if where is None else f" in {where.tb_frame.f_code.co_filename}:{where.tb_lineno}"
        )
        return f"{type(error).__name__}: {str(error)[:200]}{place}"
    return "accepted"


def _serve(
    target: Target, outcome: Outcome, number: int, *, seed: int, folder: Path, deadline: float
) -> None:
    """Fork a child that judges inputs until all are done or one ends it."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        try:
            _judge_all(target, range(outcome.inputs, number), sender, seed, folder, deadline)
        except BaseException:  # noqa: BLE001 - the child must not go on as a second parent
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb", buffering=0) as answers:
        for words in _answers(answers):
            _count(outcome, words, seed)
        silent = not select.select([answers], [], [], 0)[0]
    if silent:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if status != 0:
        reason = "no end in time" if silent or _was_late(status) else f"ended by status {status}"
        _count(outcome, reason, seed)


def _judge_all(
    target: Target, numbers: range, sender: int, seed: int, folder: Path, deadline: float
) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY_LIMIT, used + _MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        if time.monotonic() >= deadline:
            break
        signal.setitimer(signal.ITIMER_PROF, TIME_LIMIT)  # SIGPROF ends the process
        chance = random.Random(f"{target.name} {seed} {number}")
        words = judge(target, chance, folder)
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(sender, words.replace("\n", " ").encode(errors="replace")[:3000] + b"\n")


def _answers(pipe: object) -> object:
    rest = b""
    while select.select([pipe], [], [], _SILENCE_LIMIT)[0]:
        new = pipe.read(1 << 16)  # type: ignore[attr-defined]
        if not new:
            return
        *lines, rest = (rest + new).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")


def _was_late(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF


def _count(outcome: Outcome, words: str, seed: int) -> None:
    if words == "accepted":
        outcome.accepted += 1
    elif words == "refused":
        outcome.refused += 1
    else:
        outcome.failures.append(f"input {outcome.inputs} of seed {seed}: {words}")
    outcome.inputs += 1


def main() -> None:
    """Fuzz all targets, or one, and say what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=sorted(TARGETS))
    parser.add_argument("--max-time", type=float, default=float("inf"), help="seconds")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    asked = parser.parse_args()
    chosen = [TARGETS[asked.target]] if asked.target else list(TARGETS.values())
    started = time.monotonic()
    results = {}
    for index, target in enumerate(chosen):
        share = (asked.max_time - (time.monotonic() - started)) / (len(chosen) - index)
        with tempfile.TemporaryDirectory(prefix="fuzz suite ") as folder:
            outcome = fuzz(
                target, asked.inputs // len(chosen), seed=asked.seed, folder=Path(folder),
                deadline=time.monotonic() + share,
            )  # fmt: skip
        results[target.name] = vars(outcome) | {"hangs": outcome.hangs}
        sys.stderr.write(f"{target.name}: {outcome.inputs}, {len(outcome.failures)} failed\n")
    text = json.dumps(
        {
            "inputs": sum(entry["inputs"] for entry in results.values()),
            "failures": sum(len(entry["failures"]) for entry in results.values()),
            "hangs": sum(entry["hangs"] for entry in results.values()),
            "seed": asked.seed,
            "seconds": round(time.monotonic() - started),
            "targets": results,
        },
        indent=1,
    )
    sys.stdout.write(text + "\n")
    if asked.out is not None:
        asked.out.write_text(text + "\n", encoding="utf-8")
    raise SystemExit(1 if any(entry["failures"] for entry in results.values()) else 0)


if __name__ == "__main__":
    main()
