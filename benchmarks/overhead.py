"""What checkpoints and logging take of a default training, in processor and wall time.

A default training (`experiment=quickstart`) runs for some minutes; the calls of its fits that
save, write the loss curves, show progress and keep the lock alive are clocked inside that one
process, so that the load of the machine falls on both sides of the ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calo_train.errors import Stopped
from calo_train.training import fit, run
from calo_train.training.compose import composed_run
from calo_train.training.provenance import describe_hardware, describe_program
from calo_train.training.work import WorkDisplay

if TYPE_CHECKING:
    from collections.abc import Callable

RESULT = Path(__file__).parent / "results" / "overhead.json"
LIMIT = 0.03  # of the time of a training


@dataclass
class Clocked:
    """Calls of one kind: their number and their seconds of this thread's processor and of wall."""

    calls: int = 0
    cpu: float = 0.0
    wall: float = 0.0

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Give `work` with its calls clocked."""

        def clocked(*arguments: Any, **options: Any) -> Any:
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return work(*arguments, **options)
            finally:
                self.calls += 1
                self.cpu += time.thread_time() - cpu
                self.wall += time.perf_counter() - wall

        return clocked


def measure(seconds: float, overrides: list[str]) -> dict[str, Any]:
    """Train for so long and give what each kind of overhead took."""
    kinds = {name: Clocked() for name in ("checkpoints", "loss curves", "progress", "heartbeat")}
    whole = Clocked()
    callback: Any = fit._FitCallback
    callback._save = kinds["checkpoints"].around(callback._save)
    callback._beat = kinds["heartbeat"].around(callback._beat)
    fit.log_epoch = kinds["loss curves"].around(fit.log_epoch)
    fit.append_metrics = kinds["loss curves"].around(fit.append_metrics)
    WorkDisplay.batch_done = kinds["progress"].around(WorkDisplay.batch_done)  # type: ignore[method-assign]
    run.fit_group = whole.around(fit.fit_group)
    with tempfile.TemporaryDirectory() as folder:
        words = ["experiment=quickstart", f"runs_folder={folder}", "trainer.num_threads=1"]
        with contextlib.suppress(Stopped):
            run.train(composed_run([*words, f"trainer.max_time={seconds:.0f}s", *overrides]))
    shares = {
        name: {"calls": kind.calls, "cpu_share": kind.cpu / whole.cpu,
               "wall_share": kind.wall / whole.wall}
        for name, kind in kinds.items()
    }  # fmt: skip
    return {
        "seconds": whole.wall,
        "cpu_seconds": whole.cpu,
        "shares": shares,
        "cpu_share": sum(entry["cpu_share"] for entry in shares.values()),
        "wall_share": sum(entry["wall_share"] for entry in shares.values()),
        "limit": LIMIT,
        "overrides": overrides,
        "program": describe_program(),
        "hardware": describe_hardware("cpu"),
    }


def main() -> None:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE, as for calo-train")
    asked = parser.parse_args()
    found = measure(asked.seconds, asked.overrides)
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, entry in found["shares"].items():
        print(f"{name:<12} {100 * entry['cpu_share']:.2f} % of cpu, "
              f"{100 * entry['wall_share']:.2f} % of wall, {entry['calls']} calls")  # fmt: skip
    print(f"in all {100 * found['wall_share']:.2f} % of wall; at most {100 * LIMIT:.0f} %")


if __name__ == "__main__":
    main()
