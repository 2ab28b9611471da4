"""Parts in training: what each has reached, and the flows of those that one pass trains.

A part has its own loss, clipped gradient, best epoch and early stop; parts whose flows have equal
shapes share their tensors (`calo_train.nn.stacked_flows`). A step asks nothing of the device for a
single part: sums and norms stay there as (L,) tensors, one number a part.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from calo_train.nn.stacked_flows import JointFlows, StackedFlows, join_flows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calo_train.families.contracts import PartInput, TrainingSettings
    from calo_train.nn.distillation import DistillationInput

_SMALLEST_NORM = 1e-6  # added to the norm that clipping divides by, as torch's clip_grad_norm_


@dataclass
class PartProgress:
    """What a part has reached; plain values, saved in the checkpoint."""

    best_loss: float = math.inf
    best_epoch: int = -1
    num_bad_validations: int = 0  # validation losses that were not finite
    is_stopped: bool = False
    loss_sum: float = 0.0  # of the running epoch, when it was saved
    num_showers: int = 0


@dataclass
class Part:
    """A part of a stage by index and name, its progress and its best weights."""

    index: int
    name: str
    patience: int | None = None
    progress: PartProgress = field(default_factory=PartProgress)
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def judge(self, validation_loss: float, epoch: int) -> bool:
        """Take an epoch's validation loss; give whether it is the best. NaN never is."""
        progress = self.progress
        if not math.isfinite(validation_loss):
            progress.num_bad_validations += 1
        is_best = validation_loss < progress.best_loss
        if is_best:
            progress.best_loss, progress.best_epoch = validation_loss, epoch
        if self.patience is not None and epoch - max(progress.best_epoch, 0) >= self.patience:
            progress.is_stopped = True
        return is_best


class JointParts(nn.Module):
    """Parts that one pass trains: their flows, averages of the weights, sums of the losses."""

    loss_sums: Tensor

    def __init__(
        self, parts: Sequence[Part], flows: JointFlows, average: JointFlows | None
    ) -> None:
        super().__init__()
        self.parts = list(parts)
        self.flows = flows
        self.average = average
        self.num_showers = 0  # that `loss_sums` stands for
        self.register_buffer("loss_sums", torch.zeros(len(self.parts), dtype=torch.float64))

    @classmethod
    def build(
        cls,
        parts: Sequence[Part],
        flows: Sequence[nn.Module],
        settings: TrainingSettings,
        *,
        largest: int | None = None,
    ) -> list[JointParts]:
        """Join the parts whose flows, untrained and in the same order, have equal shapes.

        At most `largest` parts share a pass where that is given.
        """
        built = []
        for members, joined in join_flows(flows, largest=largest):
            average = None
            if settings.ema_decay is not None:
                average = copy.deepcopy(joined).requires_grad_(requires_grad=False)
            built.append(cls([parts[member] for member in members], joined, average))
        return built

    @property
    def is_deterministic(self) -> bool:
        """Whether a pass draws no random numbers; any other density may hold dropout."""
        return isinstance(self.flows, StackedFlows)

    @property
    def judged_flows(self) -> JointFlows:
        """The weights that are validated and kept: the averages where there are some."""
        return self.flows if self.average is None else self.average

    def losses(self, inputs: Sequence[PartInput | DistillationInput]) -> Tensor:
        """Give the loss (L, n) of each part and shower."""
        return _of_showers(self.flows.losses(inputs), inputs)

    def judged_losses(self, inputs: Sequence[PartInput | DistillationInput]) -> Tensor:
        """Give what is judged (L, n), under the weights that would be kept."""
        return _of_showers(self.judged_flows.judged_losses(inputs), inputs)

    def clip_gradients(self, limit: float | None) -> Tensor:
        """Clip the norm of each part's gradient where there is a limit; give it before, (L,)."""
        gradients = [p.grad for p in self.flows.parameters() if p.grad is not None]
        slices = [gradient.view(len(self.parts), -1) for gradient in gradients]
        norms = torch.stack([torch.linalg.vector_norm(part, dim=1) for part in slices])
        norm: Tensor = torch.linalg.vector_norm(norms, dim=0)
        if limit is not None:
            factor = (limit / (norm + _SMALLEST_NORM)).clamp_max(1.0)
            for part in slices:
                part.mul_(factor[:, None])
        return norm

    @torch.no_grad()
    def move_average(self, decay: float) -> None:
        """Draw the averages towards the weights."""
        assert self.average is not None
        pairs = zip(self.average.parameters(), self.flows.parameters(), strict=True)
        for kept, new in pairs:
            kept.lerp_(new, 1 - decay)

    def add_losses(self, sums: Tensor, num_showers: int) -> None:
        """Count a batch: the sums (L,) of the losses of all its showers, over all processes."""
        self.loss_sums += sums
        self.num_showers += num_showers

    def take_mean_losses(self) -> list[float]:
        """Give the mean training loss of each part in the epoch, and start the next."""
        means = (self.loss_sums / self.num_showers).tolist() if self.num_showers else []
        self.loss_sums.zero_()
        self.num_showers = 0
        return means or [math.nan] * len(self.parts)

    def judge(self, validation_losses: Sequence[float], epoch: int) -> list[bool]:
        """Judge every part; the weights of those at their best are kept, on the CPU."""
        pairs = zip(self.parts, validation_losses, strict=True)
        is_best = [part.judge(loss, epoch) for part, loss in pairs]
        if any(is_best):
            for part, best, weights in zip(
                self.parts, is_best, self.judged_flows.states(), strict=True
            ):
                if best:
                    part.best_weights = weights
        return is_best

    def training_parts(self) -> JointParts | None:
        """Leave out stopped parts: itself, a smaller copy, or None when none is left."""
        chosen = [n for n, part in enumerate(self.parts) if not part.progress.is_stopped]
        if len(chosen) == len(self.parts):
            return self
        if not chosen:
            return None
        average = None if self.average is None else self.average.select(chosen)
        rest = JointParts([self.parts[n] for n in chosen], self.flows.select(chosen), average)
        return rest.to(self.loss_sums.device)

    def states(self) -> dict[str, dict[str, Any]]:
        """Give weights, averages and progress by part, as tensors on the CPU and plain values."""
        averages = [None] * len(self.parts) if self.average is None else self.average.states()
        rows = zip(self.parts, self.flows.states(), averages, self.loss_sums.tolist(), strict=True)
        states: dict[str, dict[str, Any]] = {}
        for part, flow, average, loss_sum in rows:
            part.progress.loss_sum, part.progress.num_showers = loss_sum, self.num_showers
            states[part.name] = part_state(part) | {"flow": flow, "average": average}
        return states

    def load_states(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what `states` gave; the progress of the parts is loaded already."""
        own = [states[part.name] for part in self.parts]
        self.flows.load_states([state["flow"] for state in own])
        if self.average is not None:
            self.average.load_states([state["average"] for state in own])
        sums = [part.progress.loss_sum for part in self.parts]
        self.loss_sums.copy_(torch.tensor(sums, dtype=torch.float64))
        self.num_showers = self.parts[0].progress.num_showers


def part_state(part: Part) -> dict[str, Any]:
    """Give progress and best weights, all that a stopped part has."""
    return {"progress": vars(part.progress).copy(), "best_weights": part.best_weights}


def load_part_state(part: Part, state: Mapping[str, Any]) -> None:
    """Take over what `part_state` gave."""
    part.progress = PartProgress(**state["progress"])
    part.best_weights = state["best_weights"]


def _of_showers(losses: Tensor, inputs: Sequence[PartInput | DistillationInput]) -> Tensor:
    """Sum the losses (L, rows) of the rows of each shower, (L, n)."""
    num_rows = inputs[0].rows_per_shower
    return losses if num_rows == 1 else losses.view(len(losses), -1, num_rows).sum(dim=2)
