"""How much of a whole run is done, for the display: parts weighted by their cost."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.progress import Progress
    from calo_train.training.likelihood import LikelihoodModule
    from calo_train.training.metrics_file import EpochMetrics

_STEP_COST = 5e8  # of a step of one part, in weights times showers; measured on two CPU cores
_log = logging.getLogger(__name__)


class WorkDisplay:
    """One display for all fits of a run: stage, parts, epoch, loss, showers/s, time left.

    Work is counted in weights times showers, with a fixed cost for every step of a part.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._epoch_started = time.monotonic()
        self._note = ""

    def group_started(self, module: LikelihoodModule) -> None:
        """Count what a resumed group has behind it."""
        behind = module.batch * module.group.stage.training.batch_size
        done = module.epoch * module.num_training_showers + behind
        self._progress.skip(done * weight_of(module))
        self._epoch_started = time.monotonic()

    def batch_done(self, module: LikelihoodModule, num_showers: int) -> None:
        """Count a batch of all parts of the group."""
        position = f"epoch {module.epoch + 1}/{module.num_epochs}"
        batch = f"batch {module.batch}/{module.num_batches}"
        label = f"{module.group.stage.name} {module.group.label}"
        self._progress.advance(
            num_showers * weight_of(module), f"{label}  {position}  {batch}  {self._note}"
        )

    def epoch_done(self, module: LikelihoodModule, rows: Sequence[EpochMetrics]) -> None:
        """Note the mean losses of the epoch and its rate."""
        now = time.monotonic()
        validation = sum(row.validation_nll for row in rows) / max(len(rows), 1)
        train = sum(row.train_nll for row in rows) / max(len(rows), 1)
        rate = module.num_training_showers / max(now - self._epoch_started, 1e-9)
        self._epoch_started = now
        self._note = f"loss {train:.2f}  validation {validation:.2f}  {rate:.3g} showers/s"
        _log.debug("epoch %d of %s: %s", module.epoch, module.group.label, self._note)


def weight_of(module: LikelihoodModule) -> float:
    """Cost of one shower in a group: its weights, and its share of what a step costs anyhow."""
    batch_size = module.group.stage.training.batch_size
    return module.num_weights + len(module.parts) * _STEP_COST / batch_size


def total_work(modules: Sequence[LikelihoodModule]) -> float:
    """Give the work of whole fits, in the unit of the display."""
    return sum(
        weight_of(module) * module.num_epochs * module.num_training_showers for module in modules
    )
