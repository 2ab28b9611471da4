"""Trainings as jobs of SLURM, through submitit: a job a training, or an array a stage.

A job that is preempted or near its limit saves, and asks SLURM to start it again; the same job
then goes on from its checkpoint. The one who submits waits for nothing.
"""

from __future__ import annotations

import getpass
import logging
import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calo_train.cli.job import run_job
from calo_train.cli.tables import table
from calo_train.errors import MachineError, UsageError
from calo_train.quantities import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.training.config import RunConfig
    from calo_train.training.ledger import Point, SweepFolder

_STOPPED = 75  # exit code of a training that was asked to stop
_TIMEOUT = 60  # seconds that a command of SLURM may take
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusterJob:
    """What a process of a job calls: train the point in `file`, or `only` some of its parts."""

    file: str
    max_restarts: int
    only: str | None = None

    def __call__(self) -> None:
        """Train; a stopped job asks to come back, and every other leaves with its exit code."""
        from calo_train.training.provenance import is_main_process

        code = run_job(Path(self.file), only=self.only, job=own_job())
        if not is_main_process() and code == _STOPPED:
            return  # the first process of the job asks for all of them
        if code == _STOPPED:
            self._come_back()
        # Not an exception, whose traceback would follow the message of the training.
        raise SystemExit(code)

    def checkpoint(self) -> Any:
        """Give what submitit starts again when its signal comes before the training listens."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _come_back(self) -> None:
        count = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if count >= self.max_restarts:
            _log.warning("started %d times; launcher.max_restarts is reached", count + 1)
            return
        _slurm("scontrol", "requeue", own_job())


def launch(ledger: SweepFolder, points: Sequence[tuple[Point, RunConfig]]) -> None:
    """Submit every point that is not done, running or waiting; a dry run only shows them."""
    from calo_train.training.ledger import WANTED

    _require_cluster()
    first = points[0][1]
    if first.restart:
        raise UsageError(
            "restart=true would move the run aside whenever a job comes back",
            where="restart=true",
            do="train under another name=..., or move the old runs by hand",
        )
    jobs = living_jobs()
    wanted = [pair for pair in points if ledger.status(pair[0], jobs).state in WANTED]
    if first.dry_run:
        _show(wanted)
        return
    for point, _ in wanted:
        ledger.add(point)
    if first.launcher.kind == "slurm_array":
        for point, config in wanted:
            _submit_parts(ledger, point, config)
    else:
        _submit_whole(ledger, wanted)


def living_jobs() -> set[str] | None:
    """Give the jobs of this user that wait or run, arrays by element; None when nobody knows."""
    if shutil.which("squeue") is None:
        return None
    try:
        listed = _slurm(
            "squeue", "--noheader", "--array", "--format=%i", "--user", getpass.getuser()
        )
    except MachineError as error:
        _log.warning("%s: %s", error.what, error.where)
        return None
    return set(listed.split())


def own_job() -> str:
    """Give the id of the job that this process belongs to, an element of an array as JOB_INDEX."""
    array, index = (os.environ.get(f"SLURM_ARRAY_{name}") for name in ("JOB_ID", "TASK_ID"))
    return os.environ["SLURM_JOB_ID"] if array is None else f"{array}_{index}"


def resources(config: RunConfig) -> dict[str, Any]:
    """Give what a job of this training asks for, in submitit's words.

    A data-parallel training has a process for each device; all others have one.
    """
    launcher, trainer = config.launcher, config.trainer
    gpus = _gpus(config)
    devices = gpus if trainer.accelerator == "gpu" else max(trainer.num_devices, 1)
    is_data_parallel = trainer.parallel == "data"
    options: dict[str, Any] = {"requeue": True, **launcher.options}
    asked: dict[str, Any] = {
        "slurm_partition": launcher.partition,
        "slurm_account": launcher.account,
        "timeout_min": max(int(parse_quantity(launcher.time, "duration", where="") / 60), 1),
        "slurm_signal_delay_s": int(parse_quantity(launcher.warning, "duration", where="")),
        "nodes": trainer.num_nodes,
        "tasks_per_node": devices if is_data_parallel else 1,
        "gpus_per_node": gpus or None,
        "cpus_per_task": launcher.cpus,
        "slurm_mem": f"{int(parse_quantity(launcher.memory, 'size', where='') / 2**20)}MB",
        "slurm_array_parallelism": launcher.at_once,
        # A process that died would leave the others of its job waiting for it.
        "slurm_srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={launcher.cpus}"],
        "slurm_setup": [f"export OMP_NUM_THREADS={_threads(config)}", *launcher.setup],
        "slurm_additional_parameters": options,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _gpus(config: RunConfig) -> int:
    trainer, launcher = config.trainer, config.launcher
    if trainer.accelerator != "gpu":
        return launcher.gpus or 0
    if launcher.gpus is None and trainer.num_devices < 0:
        raise UsageError(
            "trainer.num_devices=-1 takes every GPU of a node, and the job does not say how many",
            where="launcher.gpus",
            do="give launcher.gpus=4, or trainer.num_devices=4",
        )
    return launcher.gpus if launcher.gpus is not None else trainer.num_devices


def _threads(config: RunConfig) -> int:
    return config.trainer.num_threads or config.launcher.cpus


def _submit_whole(ledger: SweepFolder, points: Sequence[tuple[Point, RunConfig]]) -> None:
    """Submit one array for all points that ask for the same."""
    alike: dict[str, list[tuple[Point, RunConfig]]] = {}
    for point, config in points:
        alike.setdefault(repr(resources(config)), []).append((point, config))
    for members in alike.values():
        config = members[0][1]
        jobs = [_job(ledger, point, config) for point, _ in members]
        ids = _submit(ledger, jobs, resources(config))
        for (point, _), job in zip(members, ids, strict=True):
            ledger.submitted(point.key, job)


def _submit_parts(ledger: SweepFolder, point: Point, config: RunConfig) -> None:
    """Submit an array for each stage, one after the other, and a last job for the generator."""
    from calo_train.training.run import remaining_groups

    asked = resources(config)
    before = None
    stages: dict[str, list[str]] = {}
    for group in remaining_groups(config):
        stages.setdefault(group.stage.name, []).append(group.selection)
    for selections in stages.values():
        jobs = [_job(ledger, point, config, only=selection) for selection in selections]
        ids = _submit(ledger, jobs, _after(asked, before))
        before = ids[0].partition("_")[0]
    (last,) = _submit(ledger, [_job(ledger, point, config)], _after(asked, before))
    ledger.submitted(point.key, last)


def _job(
    ledger: SweepFolder, point: Point, config: RunConfig, *, only: str | None = None
) -> ClusterJob:
    return ClusterJob(str(ledger.point_file(point.key)), config.launcher.max_restarts, only)


def _after(asked: dict[str, Any], before: str | None) -> dict[str, Any]:
    """Have a job wait for another to succeed, and vanish when that cannot be any more."""
    if before is None:
        return asked
    options = asked["slurm_additional_parameters"]
    waiting = {"dependency": f"afterok:{before}", "kill_on_invalid_dep": "yes"}
    return asked | {"slurm_additional_parameters": {**options, **waiting}}


def _submit(ledger: SweepFolder, jobs: Sequence[ClusterJob], asked: dict[str, Any]) -> list[str]:
    import submitit

    executor = submitit.AutoExecutor(
        folder=ledger.jobs, cluster="slurm", slurm_max_num_timeout=jobs[0].max_restarts
    )
    executor.update_parameters(slurm_job_name=f"calo-{ledger.path.name}", **asked)
    try:
        with executor.batch():  # more than one are an array
            submitted = [executor.submit(job) for job in jobs]
    except submitit.core.utils.FailedJobError as error:
        raise MachineError(
            f"SLURM did not take the job: {str(error).strip().splitlines()[-1]}",
            where="sbatch; launcher=slurm",
            do="see `sinfo` for partitions, and launcher.partition, account, time and memory",
        ) from error
    return [job.job_id for job in submitted]


def _show(points: Sequence[tuple[Point, RunConfig]]) -> None:
    if not points:
        print("nothing to submit: every point is done, running or waiting")
        return
    rows = []
    hours = 0.0
    for point, config in points:
        gpus = _gpus(config) * config.trainer.num_nodes
        limit = parse_quantity(config.launcher.time, "duration", where="") / 3600
        hours += gpus * limit
        rows.append(
            {"point": point.title, "nodes": config.trainer.num_nodes, "GPUs": gpus,
             "time": config.launcher.time, "memory": config.launcher.memory,
             "partition": config.launcher.partition or "default", "run": str(point.folder)}
        )  # fmt: skip
    print(table(rows))
    print(f"at most {hours:.3g} GPU hours before jobs come back; nothing was submitted")


def _require_cluster() -> None:
    if find_spec("submitit") is None:
        raise UsageError(
            "launcher=slurm needs the package submitit, which is not installed",
            where="launcher.kind",
            do="pip install 'calo-train[slurm]', or use the scripts in scripts/slurm",
        )
    if shutil.which("sbatch") is None:
        raise MachineError(
            "there is no SLURM here: the command sbatch is missing",
            where="launcher.kind",
            do="submit from a login node of the cluster, or train here with launcher=local",
        )


def _slurm(*command: str) -> str:
    """Run a command of SLURM and give what it printed."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise MachineError(
            f"{command[0]} failed: {said.strip()}",
            where=" ".join(command),
            do="see whether SLURM answers: sinfo",
        ) from error
    return done.stdout
