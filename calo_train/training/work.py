"""How much of a whole run is done, for the display: parts weighted by their cost."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.progress import Progress
    from calo_train.training.group_module import GroupModule
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

    @property
    def progress(self) -> dict[str, float]:
        """Share done and seconds left, for those who look from outside."""
        left = self._progress.seconds_left
        told = {"share_done": self._progress.share_done}
        return told if left is None else told | {"seconds_left": left}

    def group_started(self, module: GroupModule) -> None:
        """Count what a resumed group has behind it."""
        behind = module.batch * module.group.stage.training.batch_size
        done = module.epoch * module.work.num_showers + behind
        self._progress.skip(done * module.work.cost_of_shower)
        self._epoch_started = time.monotonic()

    def batch_done(self, module: GroupModule, num_showers: int) -> None:
        """Count a batch of all parts of the group."""
        position = f"epoch {module.epoch + 1}/{module.num_epochs}"
        batch = f"batch {module.batch}/{module.num_batches}"
        label = f"{module.group.stage.name} {module.group.label}"
        self._progress.advance(
            num_showers * module.work.cost_of_shower,
            f"{label}  {position}  {batch}  {self._note}",
        )

    def epoch_done(self, module: GroupModule, rows: Sequence[EpochMetrics]) -> None:
        """Note the mean losses of the epoch and its rate."""
        now = time.monotonic()
        validation = sum(row.validation_loss for row in rows) / max(len(rows), 1)
        train = sum(row.train_loss for row in rows) / max(len(rows), 1)
        rate = module.work.num_showers / max(now - self._epoch_started, 1e-9)
        self._epoch_started = now
        self._note = f"loss {train:.2f}  validation {validation:.2f}  {rate:.3g} showers/s"
        _log.debug("epoch %d of %s: %s", module.epoch, module.group.label, self._note)


@dataclass(frozen=True)
class GroupWork:
    """What the fit of a group takes: its weights, and the showers that pass through them."""

    num_weights: int
    num_parts: int
    batch_size: int
    num_epochs: int
    num_showers: int  # of an epoch
    rows_per_shower: int = 1

    @property
    def cost_of_shower(self) -> float:
        """Cost of one shower: the weights for each row, its share of what a step costs anyhow."""
        rows = self.rows_per_shower * self.num_weights
        return rows + self.num_parts * _STEP_COST / self.batch_size

    @property
    def total(self) -> float:
        """Cost of the whole fit, in the unit of the display."""
        return self.cost_of_shower * self.num_epochs * self.num_showers
