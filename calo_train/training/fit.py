"""One fit: a group of parts trained by Lightning, with checkpoints, stops and loss curves."""

from __future__ import annotations

import logging
import math
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, Trainer

from calo_train.atomic_files import replacing
from calo_train.errors import MachineError
from calo_train.quantities import parse_quantity
from calo_train.training.checkpoints import (
    discard_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from calo_train.training.faults import machine_faults
from calo_train.training.lock import beat
from calo_train.training.loggers import log_epoch
from calo_train.training.metrics_file import append_metrics, keep_epochs

if TYPE_CHECKING:
    from pathlib import Path

    from calo_train.training.config import TrainerConfig
    from calo_train.training.group_module import GroupModule
    from calo_train.training.loggers import MetricsLogger
    from calo_train.training.metrics_file import EpochMetrics
    from calo_train.training.run_folder import RunFolder
    from calo_train.training.stopping import StopRequest
    from calo_train.training.work import WorkDisplay

METRICS = "metrics.csv"
_HEARTBEAT = 60.0  # seconds
# Of the time of a training; large models on slow disks are saved less often than asked for.
_LARGEST_SAVING_SHARE = 0.03
_STATES_A_WEIGHT = 4  # itself, two moments of Adam, and the best one so far
_EXPECTED_RATE = 200e6  # bytes a second, until a checkpoint was written
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitContext:
    """What all fits of a run share."""

    run: RunFolder
    lock: Path
    trainer: TrainerConfig
    logger: MetricsLogger | None
    stop: StopRequest
    display: WorkDisplay


def fit_group(module: GroupModule, context: FitContext) -> None:
    """Train a group from its last checkpoint, or from the start, and store its parts.

    Raises Stopped when a signal asked for it, after a checkpoint; DivergedError when a loss left
    the finite numbers, with the last checkpoint as it was.
    """
    group = module.group
    folder = context.run.group_folder(group.stage.name, group.label)
    folder.mkdir(parents=True, exist_ok=True)
    state = load_checkpoint(folder)
    if state is not None:
        module.load_checkpoint_state(state)
        _log.info(
            "stage %s, parts %s: going on at epoch %d, batch %d",
            group.stage.name, group.label, module.epoch + 1, module.batch + 1,
        )  # fmt: skip
    keep_epochs(folder / METRICS, module.epoch)
    if not module.is_finished:
        trainer = build_trainer(
            context.trainer,
            num_epochs=module.num_epochs - module.epoch,
            callbacks=[_FitCallback(folder, context)],
            folder=folder,
        )
        with machine_faults(module, str(context.run.path)):
            trainer.fit(module)
    if module.global_rank == 0:
        _store_parts(module, context.run)
        discard_checkpoints(folder)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # a later stage may read what the first process wrote


def build_trainer(
    config: TrainerConfig,
    *,
    num_epochs: int,
    callbacks: list[Callback],
    folder: Path,
    num_batches: int | None = None,
) -> Trainer:
    """Build Lightning's trainer; our checkpoints, progress and signals replace its own."""
    _quieten_lightning()
    num_devices = config.num_devices if config.parallel == "data" else 1
    is_parallel = num_devices != 1 or config.num_nodes != 1
    # Under SLURM Lightning would requeue by itself; a command's exit code decides that here.
    plugins: list[Any] = (
        [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
    )
    return Trainer(
        accelerator=config.accelerator,
        devices=num_devices,
        num_nodes=config.num_nodes,
        strategy="ddp" if is_parallel else "auto",
        precision=config.precision,  # type: ignore[arg-type]
        max_epochs=num_epochs,
        limit_train_batches=num_batches,
        limit_val_batches=num_batches,
        callbacks=callbacks,
        logger=False,
        plugins=plugins,
        default_root_dir=folder,
        deterministic=config.deterministic,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )


def require_devices(config: TrainerConfig) -> None:
    """Raise MachineError when a GPU is asked for that torch does not see."""
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    if config.accelerator != "gpu":
        return
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = max(config.num_devices, 1)
    if found >= wanted:
        return
    build = (
        f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
        if torch.version.cuda
        else f"torch {torch.__version__} is a CPU build"
    )
    raise MachineError(
        f"{wanted} GPU(s) asked for, {found} visible",
        where=f"trainer.accelerator=gpu; {build}",
        do="train with trainer=cpu, or check the driver (nvidia-smi), CUDA_VISIBLE_DEVICES and "
        "the torch build",
    )


class _FitCallback(Callback):
    """Follow a fit: count work, save, stop, judge the parts, write the loss curves."""

    def __init__(self, folder: Path, context: FitContext) -> None:
        self._folder = folder
        self._context = context
        self._interval = parse_quantity(
            context.trainer.checkpoint_interval, "duration", where="trainer.checkpoint_interval"
        )
        self._saved = time.monotonic()
        self._beaten = -math.inf
        self._save_seconds = 0.0  # that a checkpoint takes: expected, then measured

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Take over the signals from Lightning."""
        module: GroupModule = pl_module
        self._context.stop.listen()
        self._context.display.group_started(module)
        size = sum(weights.nbytes for weights in module.parameters())
        self._save_seconds = _STATES_A_WEIGHT * size / _EXPECTED_RATE
        before = module.processes_before
        if before not in (None, trainer.world_size):
            _log.warning(
                "going on with %d processes where %d trained before: the batch and its noise are "
                "the same, but sums are rounded differently, so the bits of the weights differ",
                trainer.world_size, before,
            )  # fmt: skip

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Leave the sum of gradients over processes to the module."""
        if trainer.world_size > 1:
            # Lightning sets this after every batch; torch would wait for the unused parts.
            trainer.strategy.model.require_backward_grad_sync = False  # type: ignore[union-attr]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the batch; save when it is time or when a stop is asked for."""
        module: GroupModule = pl_module
        self._context.display.batch_done(module, batch.num_showers)
        self._beat()
        if module.batch >= module.num_batches:
            return  # the end of the epoch saves
        if module.is_between_steps:
            return  # a checkpoint waits for the step, a few batches
        is_stopping = self._is_stopping(trainer)
        if is_stopping or self._is_due():
            self._save(module)
        if is_stopping:
            raise self._context.stop.error(str(self._context.run.path))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Judge every part by its validation loss, record the epoch, save."""
        module: GroupModule = pl_module
        rows = module.end_epoch()
        self._warn_of_bad_validations(module, rows)
        if module.global_rank == 0:
            append_metrics(self._folder / METRICS, rows)
            stage = module.group.stage.name
            log_epoch(self._context.logger, self._folder, stage, module.epoch, rows)
        self._context.display.epoch_done(module, rows)
        is_stopping = self._is_stopping(trainer)
        if is_stopping or self._is_due():
            self._save(module)
        if is_stopping and not module.is_finished:
            raise self._context.stop.error(str(self._context.run.path))
        if not module.active_parts:
            trainer.should_stop = True

    def _warn_of_bad_validations(self, module: GroupModule, rows: list[EpochMetrics]) -> None:
        bad = {row.part for row in rows if not math.isfinite(row.validation_loss)}
        for part in module.parts:
            if part.name in bad and part.progress.num_bad_validations == 1:
                _log.warning(
                    "part %s: the validation loss of epoch %d is not finite; that epoch cannot "
                    "be chosen (counted in run.yaml)", part.name, module.epoch,
                )  # fmt: skip

    def _is_stopping(self, trainer: Trainer) -> bool:
        raised = self._context.stop.is_raised
        if trainer.world_size == 1:
            return raised
        return bool(trainer.strategy.reduce_boolean_decision(raised, all=False))

    def _is_due(self) -> bool:
        """Whether it is time to save: at the interval, or later where saving takes long."""
        elapsed = time.monotonic() - self._saved
        return elapsed >= max(self._interval, self._save_seconds / _LARGEST_SAVING_SHARE)

    def _save(self, module: GroupModule) -> None:
        started = time.monotonic()
        if module.global_rank == 0:
            save_checkpoint(self._folder, module.checkpoint_state())
        self._saved = time.monotonic()
        self._save_seconds = self._saved - started

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._beaten >= _HEARTBEAT:
            beat(self._context.lock, **self._context.display.progress)
            self._beaten = now


def _store_parts(module: GroupModule, run: RunFolder) -> None:
    """Write the best weights of every part under its final name."""
    from safetensors.torch import save_file

    for key, part in zip(module.group.keys, module.parts, strict=True):
        path = run.part_file(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        progress = part.progress
        if not part.best_weights:
            raise MachineError(
                f"part {key} has no epoch with a finite validation loss",
                where=str(path),
                do="lower the learning rate, or look at the validation rows of the data set",
            )
        metadata = {
            "best_epoch": str(progress.best_epoch + 1),
            "validation_loss": repr(progress.best_loss),
            "bad_validations": str(progress.num_bad_validations),
        }
        with replacing(path) as temporary:
            save_file(part.best_weights, temporary, metadata)


def _quieten_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Our loader is no DataLoader: workers are of no use to arrays in memory, and streaming has
    # its own thread. Lightning's advice about both is noise to a user.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
    # One process on a node of a cluster is no mistake; `launcher=slurm` starts several by srun.
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
    # A student's teacher stays in evaluation mode on purpose.
    warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode.*")
    # Lightning 2.6 with torch 2.13 asks torch's pytrees in a way that torch is leaving.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
