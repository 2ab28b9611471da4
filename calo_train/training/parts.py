"""One part in training: its flow, optimiser, schedule, best weights and early stop."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LRScheduler,
    OneCycleLR,
)

if TYPE_CHECKING:
    from calo_train.families.contracts import PartInput, TrainingSettings

_ONECYCLE_START = 25.0  # the cycle starts at the peak over this; torch's default, as in the papers


@dataclass
class PartProgress:
    """What a part has reached; plain values, saved in the checkpoint."""

    best_loss: float = math.inf
    best_epoch: int = -1
    num_bad_validations: int = 0  # validation losses that were not finite
    is_stopped: bool = False
    loss_sum: float = 0.0  # of the running epoch
    num_showers: int = 0

    def take_epoch_loss(self) -> float:
        """Give the mean loss of the epoch and start the next."""
        mean = self.loss_sum / self.num_showers if self.num_showers else math.nan
        self.loss_sum, self.num_showers = 0.0, 0
        return mean


@dataclass
class Part:
    """A flow under training with its own optimiser; `name` is its name in the stage."""

    name: str
    flow: nn.Module
    settings: TrainingSettings
    num_steps: int
    optimiser: torch.optim.Optimizer = field(init=False)
    schedule: LRScheduler = field(init=False)
    progress: PartProgress = field(default_factory=PartProgress)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    average: nn.Module | None = None

    def __post_init__(self) -> None:
        self.optimiser = _optimiser(self.flow, self.settings)
        self.schedule = _schedule(self.optimiser, self.settings, self.num_steps)
        if self.settings.ema_decay is not None:
            self.average = copy.deepcopy(self.flow).requires_grad_(requires_grad=False)

    @property
    def judged_flow(self) -> nn.Module:
        """The weights that are validated and kept: the average where there is one."""
        return self.average if self.average is not None else self.flow

    @property
    def learning_rate(self) -> float:
        return float(self.optimiser.param_groups[0]["lr"])

    def loss(self, part_input: PartInput) -> Tensor:
        """Give the negative log-likelihood of each shower, (n,)."""
        return _negative_log_prob(self.flow, part_input)

    def judged_loss(self, part_input: PartInput) -> Tensor:
        """Give the negative log-likelihood (n,) under the weights that would be kept."""
        return _negative_log_prob(self.judged_flow, part_input)

    def clip_gradient(self) -> Tensor:
        """Clip the gradient's norm where the settings say so, and give the norm before it."""
        limit = self.settings.gradient_clip
        if limit is not None:
            return nn.utils.clip_grad_norm_(self.flow.parameters(), limit)
        gradients = [p.grad for p in self.flow.parameters() if p.grad is not None]
        return nn.utils.get_total_norm(gradients)

    def after_step(self) -> None:
        """Advance the schedule and the average of the weights."""
        self.schedule.step()
        if self.average is None or self.settings.ema_decay is None:
            return
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.flow.parameters(), strict=True):
                kept.lerp_(new, 1 - self.settings.ema_decay)

    def judge(self, validation_loss: float, epoch: int) -> bool:
        """Take an epoch's validation loss; give whether it is the best. NaN never is."""
        progress = self.progress
        if not math.isfinite(validation_loss):
            progress.num_bad_validations += 1
        is_best = validation_loss < progress.best_loss
        if is_best:
            progress.best_loss, progress.best_epoch = validation_loss, epoch
            weights = self.judged_flow.state_dict()
            self.best_weights = {
                name: value.detach().cpu().clone() for name, value in weights.items()
            }
        patience = self.settings.patience
        if patience is not None and epoch - max(progress.best_epoch, 0) >= patience:
            progress.is_stopped = True
        return is_best

    def state(self) -> dict[str, Any]:
        """Give everything that a resumed fit needs, as tensors and plain values."""
        return {
            "flow": self.flow.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": _plain(self.schedule.state_dict()),
            "progress": vars(self.progress).copy(),
            "best_weights": self.best_weights,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.flow.load_state_dict(state["flow"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.progress = PartProgress(**state["progress"])
        self.best_weights = state["best_weights"]


def _negative_log_prob(flow: nn.Module, part_input: PartInput) -> Tensor:
    log_prob: Tensor = flow.log_prob(part_input.features, context=part_input.context)  # type: ignore[operator]
    return -log_prob


def _optimiser(flow: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        flow.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def _schedule(
    optimiser: torch.optim.Optimizer, settings: TrainingSettings, num_steps: int
) -> LRScheduler:
    peak, final = settings.learning_rate, settings.final_learning_rate
    match settings.schedule:
        case "exponential":
            return ExponentialLR(optimiser, (final / peak) ** (1 / num_steps))
        case "cosine":
            return CosineAnnealingLR(optimiser, num_steps, eta_min=final)
        case "onecycle":
            # One step more than taken: torch refuses a step after the last of the cycle.
            return OneCycleLR(
                optimiser,
                max_lr=peak,
                total_steps=num_steps + 1,
                div_factor=_ONECYCLE_START,
                final_div_factor=peak / _ONECYCLE_START / final,
            )
        case _:
            return ConstantLR(optimiser, factor=1.0, total_iters=0)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Drop what is code, such as OneCycle's annealing function; the constructor sets it again."""
    return {name: value for name, value in state.items() if not callable(value)}
