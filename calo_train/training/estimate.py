"""`dry_run=true`: build everything, fit two batches of each stage, say what a full run takes."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, Trainer

from calo_train.machine import peak_memory
from calo_train.quantities import format_duration, format_size
from calo_train.training.data import prepare_data
from calo_train.training.fit import build_trainer, require_devices
from calo_train.training.grouping import group_sizes, num_devices, shares_parts
from calo_train.training.loggers import require_logger
from calo_train.training.plan import plan_groups
from calo_train.training.run import DISK_COPIES, build_module, planned_work

if TYPE_CHECKING:
    from calo_train.training.config import RunConfig
    from calo_train.training.group_module import GroupModule

_NUM_BATCHES = 2


@dataclass(frozen=True)
class StageEstimate:
    """One group of parts: its size and what all its epochs take."""

    name: str
    num_parts: int
    num_weights: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What a full run takes on this machine; memory is what two batches needed at their peak."""

    folder: Path
    stages: tuple[StageEstimate, ...]
    peak_memory: int
    disk: int
    num_devices: int = 1  # that share the groups, one at a time each

    def as_text(self) -> str:
        """Write the estimate for people."""
        rows = [
            f"  {stage.name:<16} {stage.num_parts:>4} parts  {stage.num_weights:>12,} weights  "
            f"{format_duration(stage.seconds)}"
            for stage in self.stages
        ]
        total = format_duration(sum(stage.seconds for stage in self.stages))
        if self.num_devices > 1:
            total += f" on one of {self.num_devices} devices that share it"
        head = f"dry run of {self.folder}: about {total}, {format_size(self.peak_memory)} memory"
        return "\n".join([f"{head}, {format_size(self.disk)} disk", *rows, "nothing was written"])


def estimate(config: RunConfig) -> Estimate:
    """Do what `train` does for two batches of each group, writing nothing that stays."""
    require_logger(config.logger)
    require_devices(config.trainer)
    data = prepare_data(config)
    stages = config.family.stages(data.geometry, data.statistics, data.threshold)
    sizes = group_sizes(config, data, stages, recorded={})
    groups = plan_groups(stages, only=config.only, sizes=sizes)
    measured = [
        _measure(build_module(config, group, planned_work(config, group, data), data), config)
        for group in groups
    ]
    num_weights = sum(stage.num_weights for stage in measured)
    return Estimate(
        config.folder,
        tuple(measured),
        peak_memory(),
        DISK_COPIES * 4 * num_weights,
        num_devices(config.trainer) if shares_parts(config.trainer) else 1,
    )


def _measure(module: GroupModule, config: RunConfig) -> StageEstimate:
    clock = _BatchClock()
    with tempfile.TemporaryDirectory(prefix="calo-train-") as folder:
        trainer = build_trainer(
            config.trainer,
            num_epochs=1,
            callbacks=[clock],
            folder=Path(folder),
            num_batches=_NUM_BATCHES,
        )
        trainer.fit(module)
    group = module.group
    return StageEstimate(
        name=f"{group.stage.name} {group.label}",
        num_parts=len(group.parts),
        num_weights=module.work.num_weights,
        seconds=clock.seconds_per_shower * module.work.num_showers * module.num_epochs,
    )


class _BatchClock(Callback):
    """Time the last training batch; the first pays for set-up."""

    def __init__(self) -> None:
        self._started = 0.0
        self.seconds_per_shower = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note when a batch starts."""
        self._started = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the time of the newest batch."""
        self.seconds_per_shower = (time.monotonic() - self._started) / batch.num_showers
