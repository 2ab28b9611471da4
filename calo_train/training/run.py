"""A training from configuration to generator: folder, lock, data, stages, resume."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from calo_train.atomic_files import remove_leftovers, require_free_space, require_writable
from calo_train.errors import CaloTrainError, MachineError, Stopped, UsageError
from calo_train.families.generator import Generator, save_generator
from calo_train.nn.flows import count_parameters
from calo_train.progress import Progress
from calo_train.quantities import format_duration
from calo_train.training.checkpoints import discard_checkpoints
from calo_train.training.cost import recorded_cost
from calo_train.training.data import TrainingData, describe_data, prepare_data, require_fingerprint
from calo_train.training.fit import FitContext, fit_group, require_devices
from calo_train.training.group_module import GroupModule
from calo_train.training.grouping import (
    chosen_sizes,
    group_sizes,
    largest_stack,
    shares_parts,
)
from calo_train.training.lock import describe_owner, is_held_by_parent, owned
from calo_train.training.loggers import (
    STOPPING_LIMIT,
    build_logger,
    log_trained,
    require_logger,
)
from calo_train.training.part_groups import GroupsContext, train_groups
from calo_train.training.plan import Group, keys_of, plan_groups, unfinished
from calo_train.training.provenance import describe_hardware, describe_program, is_main_process
from calo_train.training.run_folder import RunFolder, finished_parts
from calo_train.training.stopping import StopRequest
from calo_train.training.work import GroupWork, WorkDisplay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from calo_train.families.contracts import Stage
    from calo_train.training.config import RunConfig
    from calo_train.training.loggers import MetricsLogger

RECORD_FORMAT = 1
DISK_COPIES = (
    9  # of the weights on disk at worst: two checkpoints with Adam and best, parts, generator
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """How a training command ended: what was written and what is still missing."""

    run: RunFolder
    missing: tuple[str, ...]
    seconds: float
    was_finished: bool

    def as_text(self) -> str:
        """Say what was written."""
        if self.was_finished:
            return f"{self.run.path}: finished, nothing to do"
        took = format_duration(self.seconds)
        if self.missing:
            return f"{self.run.path}: {len(self.missing)} parts are still missing ({took})"
        return f"generator: {self.run.generator} ({took})"

    def as_mapping(self) -> dict[str, Any]:
        """Give the result as plain data."""
        return {
            "run": str(self.run.path),
            "generator": str(self.run.generator),
            "finished": not self.missing,
            "missing": list(self.missing),
            "seconds": self.seconds,
        }


def train(config: RunConfig) -> TrainingResult:
    """Train what the configuration asks for; the same call resumes an interrupted training."""
    started = time.monotonic()
    run = RunFolder(config.folder)
    is_main = is_main_process()
    require_logger(config.logger)
    require_devices(config.trainer)
    if run.exists() and not config.restart:
        run.require_same_config(config.resolved)
        if is_finished(run):
            if is_main:
                _tidy(run)
            return TrainingResult(run, (), 0.0, was_finished=True)
    require_writable(config.folder)
    if not is_main:
        # A further process of one training: it computes, the first one keeps the records.
        _train_stages(config, run, run.path, logger=None)
        return TrainingResult(run, (), time.monotonic() - started, was_finished=False)
    if run.exists() and config.restart:
        with owned(_lock_file(run, None)):
            require_no_other(run, None)  # nobody alive works on what is moved aside
        _log.info("the old run is kept as %s", run.move_aside())
    is_new = not run.exists()
    run.path.mkdir(parents=True, exist_ok=True)
    with owned(_lock_file(run, config.only)) as lock, _logged(run):
        require_no_other(run, config.only)
        if is_new:
            run.create(config.resolved)
        try:
            # What processes of one command cost is counted by the one that started them.
            is_part = is_held_by_parent(run.path / "lock")
            num_gpus = config.trainer.num_gpus
            with nullcontext() if is_part else recorded_cost(run, num_gpus=num_gpus):
                missing = _train_as_owner(config, run, lock)
        except CaloTrainError as error:
            _record_end(run, error)
            raise
    return TrainingResult(run, tuple(missing), time.monotonic() - started, was_finished=False)


def is_finished(run: RunFolder) -> bool:
    """Whether all parts are trained and the generator is written."""
    return run.read_record().get("state") == "finished"


def _train_as_owner(config: RunConfig, run: RunFolder, lock: Path) -> list[str]:
    if config.only is None:
        _remove_leftovers(run)
    logger = build_logger(config, run)
    try:
        data, stages = _train_stages(config, run, lock, logger=logger)
    except Stopped:
        _close(logger, STOPPING_LIMIT)
        raise
    except BaseException:
        _close(logger)
        raise
    _close(logger)
    keys = _part_keys(stages)
    missing = [key for key in keys if key not in finished_parts(run, keys)]
    if not missing:
        _write_generator(config, run, data, keys)
    return missing


def _close(logger: MetricsLogger | None, limit: float | None = None) -> None:
    if logger is not None:
        logger.close(limit)


def _tidy(run: RunFolder) -> None:
    """Remove what a process that was killed at its very end left of a finished run."""
    lock = _lock_file(run, None)
    if not lock.exists():
        return
    with suppress(MachineError), owned(lock):  # unless it is about to end
        require_no_other(run, None)
        _remove_leftovers(run)


def _remove_leftovers(run: RunFolder) -> None:
    """Remove what a killed process left half written outside the folders of single fits.

    Nobody else works on the run.
    """
    run.turn_file.unlink(missing_ok=True)
    for folder in (run.path, run.generator, *run.path.glob("stages/*/parts")):
        for leftover in remove_leftovers(folder):
            _log.info("removed %s, which a killed process left half written", leftover.name)


def _train_stages(
    config: RunConfig, run: RunFolder, lock: Path, *, logger: MetricsLogger | None
) -> tuple[TrainingData, tuple[Stage, ...]]:
    data = prepare_data(config)
    stages = config.family.stages(data.geometry, data.statistics, data.threshold)
    recorded = run.read_record().get("parts_per_group", {})
    sizes = group_sizes(config, data, stages, recorded)
    groups = plan_groups(stages, only=config.only, sizes=sizes)
    if is_main_process():
        _record_start(config, run, data, stages, recorded | chosen_sizes(config, sizes))
    left = unfinished(run, groups)
    trained = [group for group in groups if not keys_of([group]) & keys_of(left)]
    if is_main_process():
        for group in trained:  # killed between storing the parts and this
            discard_checkpoints(run.group_folder(group.stage.name, group.label))
    if config.launcher.kind == "slurm_array":  # the jobs before this one had no logger
        log_trained(logger, run, trained)
    if shares_parts(config.trainer):
        train_groups(config, left, GroupsContext(run, lock, logger))
        return data, stages
    works = [planned_work(config, group, data) for group in left]
    num_weights = sum(work.num_weights for work in works)
    require_free_space(
        run.path, DISK_COPIES * 4 * num_weights, purpose="checkpoints and generator"
    )
    _log.info("%d parts to train, %.3g weights", sum(len(g.parts) for g in left), num_weights)
    stop = StopRequest(config.trainer.max_seconds)
    with Progress("training", sum(work.total for work in works)) as progress:
        display = WorkDisplay(progress)
        context = FitContext(run, lock, config.trainer, logger, stop, display)
        for group, work in zip(left, works, strict=True):
            fit_group(build_module(config, _given_needs(run, group), work, data), context)
    return data, stages


def remaining_groups(config: RunConfig) -> list[Group]:
    """Plan what a training has left, in groups that may go to different machines.

    Raises UsageError unless the number of parts of a group is given: what fits the memory here
    says nothing of another machine.
    """
    if not isinstance(config.family.parts_per_group, int):
        raise UsageError(
            f"parts_per_group={config.family.parts_per_group} does not say how to share the parts",
            where="model.parts_per_group, launcher=slurm_array",
            do="give a number of parts for a job, model.parts_per_group=5, or use launcher=slurm",
        )
    data = prepare_data(config)
    stages = config.family.stages(data.geometry, data.statistics, data.threshold)
    sizes = group_sizes(config, data, stages, recorded={})
    groups = plan_groups(stages, only=config.only, sizes=sizes)
    return unfinished(RunFolder(config.folder), groups)


def planned_work(config: RunConfig, group: Group, data: TrainingData) -> GroupWork:
    """Say what the fit of a group takes; its parts are built and forgotten one by one."""
    num_epochs = group.stage.training.num_epochs
    if config.trainer.max_epochs is not None:
        num_epochs = min(num_epochs, config.trainer.max_epochs)
    with torch.random.fork_rng(devices=[]):
        num_weights = sum(count_parameters(group.stage.build_part(index)) for index in group.parts)
    return GroupWork(
        num_weights=num_weights,
        num_parts=len(group.parts),
        batch_size=group.stage.training.batch_size,
        num_epochs=num_epochs,
        num_showers=len(data.split.train),
        rows_per_shower=group.stage.rows_per_shower,
    )


def build_module(
    config: RunConfig, group: Group, work: GroupWork, data: TrainingData
) -> GroupModule:
    """Build the untrained parts of a group, equal for equal seeds."""
    return GroupModule(
        group, data, work, seed=config.seed, largest_stack=largest_stack(config.trainer)
    )


def _given_needs(run: RunFolder, group: Group) -> Group:
    """Give the group with the trained parts of the stages that its own needs."""
    from safetensors.torch import load_file

    stage = group.stage
    if not stage.needs:
        return group
    keys = [key for key in run.read_record()["parts"] if key.partition("/")[0] in stage.needs]
    missing = [key for key in keys if key not in finished_parts(run, keys)]
    if missing:
        raise UsageError(
            f"stage {stage.name} needs {', '.join(missing)}, which is not trained yet",
            where=f"{run.path}: only={stage.name}",
            do=f"train it first with only={missing[0]}, or leave only= out",
        )
    parts = {key: load_file(run.part_file(key)) for key in keys}
    return replace(group, stage=stage.given(parts))


def _part_keys(stages: tuple[Stage, ...]) -> list[str]:
    return [f"{stage.name}/{part}" for stage in stages for part in stage.part_names]


def _record_start(
    config: RunConfig,
    run: RunFolder,
    data: TrainingData,
    stages: tuple[Stage, ...],
    parts_per_group: dict[str, int],
) -> None:
    record = run.read_record()
    if record:
        require_fingerprint(data.source, record)
    run.change_record(
        lambda _record: {
            "format": RECORD_FORMAT,
            "state": "training",
            "message": "",
            "seed": config.seed,
            "program": describe_program(),
            "hardware": describe_hardware(config.trainer.accelerator),
            "data": describe_data(data),
            "notes": list(data.notes),
            "statistics": data.statistics.to_mapping(),
            "parts": _part_keys(stages),
            "parts_per_group": parts_per_group,  # as chosen by auto
        }
    )


def _record_end(run: RunFolder, error: CaloTrainError) -> None:
    if not run.record_file.is_file():
        return
    state = "stopped" if isinstance(error, Stopped) else "failed"
    (_log.info if state == "stopped" else _log.error)("%s: %s", error.what, error.where)
    try:
        run.update_record(state=state, message=error.what)
    except MachineError as unwritten:  # a full disk: the reason for the end comes first
        _log.warning("the end is not recorded: %s: %s", unwritten.what, unwritten.where)


def _write_generator(
    config: RunConfig, run: RunFolder, data: TrainingData, keys: list[str]
) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    reached: dict[str, dict[str, str]] = {}
    for key in keys:
        with safe_open(run.part_file(key), framework="pt") as stored:
            reached[key] = dict(stored.metadata() or {})
    record = run.read_record()
    generator = Generator(
        family=config.family,
        family_target=config.family_target,
        geometry=data.geometry,
        statistics=data.statistics,
        threshold=data.threshold,
        dataset_name=config.dataset.name,
        dataset_description=config.dataset.contents,
        layout=config.dataset.layout,
        condition_names=data.source.condition_names,
        parts={key: load_file(run.part_file(key)) for key in keys},
        training={
            "seed": config.seed,
            "program": record["program"],
            "hardware": record["hardware"],
            "data": record["data"],
            "reached": reached,
        },
        notes=data.notes,
        papers=tuple(config.dataset.papers),
    )
    written = save_generator(run.generator, generator)
    run.update_record(state="finished", reached=reached, generator=written.fingerprint)


def _lock_file(run: RunFolder, only: str | None) -> Path:
    """One lock a run; processes that each train a selection of parts have one each."""
    if only is None:
        return run.path / "lock"
    return run.path / f"lock-{only.replace('/', '-').replace(',', '+')}"


def require_no_other(run: RunFolder, only: str | None) -> None:
    """Raise MachineError when a whole training and one of a selection would share this run.

    A training that hands its groups to processes of its own is no other for those.
    """
    others = sorted(run.path.glob("lock-*")) if only is None else [run.path / "lock"]
    for path in others:
        owner = describe_owner(path)
        if owner is not None and not is_held_by_parent(path):
            raise MachineError(
                f"another process is working on parts of this run: {owner}",
                where=str(path),
                do="wait for it, stop it, or train under another name=...",
            )


@contextmanager
def _logged(run: RunFolder) -> Iterator[None]:
    """Copy the log into train.log for the time of a with-block."""
    handler = _RunLog(run.log_file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("calo_train")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with suppress(OSError):
            handler.close()


class _RunLog(logging.FileHandler):
    """A log that a full disk leaves short: the command's own message says what happened."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Drop the line, where logging would print a traceback for each."""
