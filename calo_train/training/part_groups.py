"""`trainer.parallel=parts`: groups of parts side by side on the devices of one machine.

Every device takes one group at a time, in a process of its own that trains it as `only=` would.
Parts have nothing in common but the data, so no gradient crosses a device, and a group ends as it
would alone. A stage begins when the one before it is done. Every process reads the data itself.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calo_train.errors import CaloTrainError
from calo_train.training.grouping import num_devices
from calo_train.training.lock import beat
from calo_train.training.loggers import log_trained
from calo_train.training.processes import STOP_CODES, Task, job_command, run_at_once
from calo_train.training.stopping import StopRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calo_train.training.config import RunConfig, TrainerConfig
    from calo_train.training.loggers import MetricsLogger
    from calo_train.training.plan import Group
    from calo_train.training.run_folder import RunFolder

_log = logging.getLogger(__name__)


class GroupsFailed(CaloTrainError):
    """Some part groups did not finish; carries the worst exit code."""

    def __init__(self, failures: dict[str, int], logs: Path) -> None:
        super().__init__(
            f"part groups did not finish: {_codes(failures)}",
            where=f"{logs}/STAGE/PARTS/output.log",
            do="mend the cause; the same command goes on with what is missing",
        )
        # A negative code is a signal that no process can catch, or a crash: the machine.
        self.exit_code = max(5 if code < 0 else code for code in failures.values())  # type: ignore[misc]


@dataclass(frozen=True)
class GroupsContext:
    """What the groups of a training share."""

    run: RunFolder
    lock: Path
    logger: MetricsLogger | None


def train_groups(config: RunConfig, groups: Sequence[Group], context: GroupsContext) -> None:
    """Train the groups, a process for each device; raises when one fails or a stop is asked for.

    A group that fails leaves the others of its stage alone; the next stage does not begin.
    """
    stop = StopRequest(config.trainer.max_seconds)
    stop.listen()
    slots = device_slots(config.trainer)
    _log.info("%d part groups on %d devices", len(groups), len(slots))
    with tempfile.TemporaryDirectory(prefix="calo-train-") as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps({"config": _of_a_process(config)}), encoding="utf-8")
        for _, members in itertools.groupby(groups, key=lambda group: group.stage.name):
            _train_stage(list(members), file, slots, stop, context)


def _train_stage(
    groups: Sequence[Group],
    file: Path,
    slots: Sequence[Mapping[str, str]],
    stop: StopRequest,
    context: GroupsContext,
) -> None:
    by_name = {group.selection: group for group in groups}
    failures: dict[str, int] = {}

    def on_end(task: Task, code: int) -> None:
        beat(context.lock)
        _log.info("%s: %s", task.name, "trained" if code == 0 else f"exit {code}")
        if code:
            failures[task.name] = code
        else:
            log_trained(context.logger, context.run, [by_name[task.name]])

    run_at_once([_task(group, context.run, file) for group in groups], slots, stop, on_end)
    if stop.is_raised:
        raise stop.error(str(context.run.path))
    if failures:
        raise GroupsFailed(failures, context.run.path / "stages")


def device_slots(trainer: TrainerConfig) -> list[dict[str, str]]:
    """Give the environment that shows each process its own GPU, or its share of the cores."""
    count = num_devices(trainer)
    if trainer.accelerator == "gpu":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = visible.split(",") if visible else [str(index) for index in range(count)]
        return [{"CUDA_VISIBLE_DEVICES": name} for name in names[:count]]
    if "OMP_NUM_THREADS" in os.environ:
        return [{} for _ in range(count)]
    threads = max((os.cpu_count() or 1) // count, 1)
    return [{"OMP_NUM_THREADS": str(threads)} for _ in range(count)]


def _task(group: Group, run: RunFolder, file: Path) -> Task:
    output = run.group_folder(group.stage.name, group.label) / "output.log"
    return Task(group.selection, job_command(file, f"only={group.selection}"), output)


def _of_a_process(config: RunConfig) -> dict[str, Any]:
    # Time is over for all of them at once, and this process has the one logger.
    changes = {"num_devices": 1, "parallel": "data", "max_time": None}
    return {
        **config.resolved,
        "trainer": {**config.resolved["trainer"], **changes},
        "logger": {**config.resolved["logger"], "kind": "csv"},
        "restart": False,  # that was done before
        "runs_folder": str(config.runs_folder.absolute()),
    }


def _codes(failures: dict[str, int]) -> str:
    return ", ".join(
        f"{name} (stopped)" if code in STOP_CODES else f"{name} (exit {code})"
        for name, code in failures.items()
    )
