"""The optimiser of a group: one AdamW and one learning-rate schedule over all its parts.

The parts of a stage share their settings, so one schedule serves all; Adam works on each number by
itself, so parts in one tensor are trained as they would be alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from calo_train.families.contracts import TrainingSettings
    from calo_train.training.parts import JointParts

_MOMENTS = ("exp_avg", "exp_avg_sq")  # torch's names of Adam's moments

PartMoments = dict[str, dict[str, "Tensor"]]  # moment -> parameter -> tensor


@dataclass(frozen=True)
class StepPlan:
    """Which batches of a training end with an optimiser step; the last of an epoch always does."""

    num_epochs: int
    num_batches: int  # of an epoch
    batches_per_step: Mapping[int, int]  # by the epoch from which it holds

    def is_step(self, epoch: int, batch: int) -> bool:
        """Whether the weights move after this batch."""
        return (batch + 1) % self._window(epoch) == 0 or batch + 1 == self.num_batches

    def is_start(self, epoch: int, batch: int) -> bool:
        """Whether gradients are summed anew from this batch on."""
        return batch % self._window(epoch) == 0

    def steps_before(self, epoch: int) -> int:
        """Count the optimiser steps of all epochs before this one."""
        return sum(-(-self.num_batches // self._window(past)) for past in range(epoch))

    @property
    def num_steps(self) -> int:
        """Count the optimiser steps of the training."""
        return self.steps_before(self.num_epochs)

    def _window(self, epoch: int) -> int:
        begun = [first for first in self.batches_per_step if first <= epoch]
        return self.batches_per_step[max(begun)] if begun else 1


class GroupOptimiser:
    """AdamW with its schedule; moments are kept by part and name outside."""

    def __init__(
        self, stacks: Sequence[JointParts], settings: TrainingSettings, steps: StepPlan
    ) -> None:
        self.adam = torch.optim.AdamW(
            _parameters(stacks),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._schedule = _schedule(self.adam, settings, steps)

    @property
    def learning_rate(self) -> float:
        return float(self.adam.param_groups[0]["lr"])

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.adam.zero_grad()

    def step(self) -> None:
        """Update all weights, then the learning rate."""
        self.adam.step()
        self._schedule.step()

    def moments(self, stacks: Iterable[JointParts]) -> dict[str, PartMoments]:
        """Give Adam's moments by part, empty before the first step."""
        if not self.adam.state:
            return {}
        moments: dict[str, PartMoments] = {}
        for stack in stacks:
            for name in _MOMENTS:
                # A parameter that never had a gradient has no moments; zeros are their start.
                values = [
                    self.adam.state[p].get(name, torch.zeros_like(p))
                    for p in stack.flows.parameters()
                ]
                for part, own in zip(stack.parts, stack.flows.split(values), strict=True):
                    moments.setdefault(part.name, {})[name] = own
        return moments

    def follow(self, stacks: Sequence[JointParts], moments: Mapping[str, PartMoments]) -> None:
        """Go on with other tensors of the same parts, from moments by part."""
        num_steps = float(self._schedule.last_epoch)
        self.adam.state.clear()
        self.adam.param_groups[0]["params"] = _parameters(stacks)
        if not moments:
            return
        for stack in stacks:
            joined = [
                stack.flows.join([moments[part.name][name] for part in stack.parts])
                for name in _MOMENTS
            ]
            for parameter, *values in zip(stack.flows.parameters(), *joined, strict=True):
                own = [value.to(parameter.device) for value in values]
                state = dict(zip(_MOMENTS, own, strict=True))
                # The fused update counts steps in float32, on the device.
                state["step"] = torch.tensor(num_steps, dtype=torch.float32, device=own[0].device)
                self.adam.state[parameter] = state

    def bring_counts(self) -> None:
        """Put the counts of steps where the weights are; Lightning moves all but them to a GPU."""
        for parameter, state in self.adam.state.items():
            if state:  # empty where there never was a gradient
                state["step"] = state["step"].to(parameter.device)

    def state(self) -> dict[str, Any]:
        """Give the schedule and where it is, as plain values."""
        group = self.adam.param_groups[0]
        return {
            "group": {name: value for name, value in group.items() if name != "params"},
            "schedule": _plain(self._schedule.state_dict()),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; `follow` brings the moments."""
        self.adam.param_groups[0].update(state["group"])
        self._schedule.load_state_dict(dict(state["schedule"]))


def _parameters(stacks: Iterable[JointParts]) -> list[torch.nn.Parameter]:
    return [parameter for stack in stacks for parameter in stack.flows.parameters()]


def _schedule(
    optimiser: torch.optim.Optimizer, settings: TrainingSettings, steps: StepPlan
) -> LRScheduler:
    peak, final = settings.learning_rate, settings.final_learning_rate
    match settings.schedule:
        case "exponential":
            return ExponentialLR(optimiser, (final / peak) ** (1 / steps.num_steps))
        case "cosine":
            return CosineAnnealingLR(optimiser, steps.num_steps, eta_min=final)
        case "multistep":
            milestones = [steps.steps_before(epoch) for epoch in settings.milestones]
            return MultiStepLR(optimiser, milestones, gamma=settings.milestone_factor)
        case "cyclic":
            return CyclicLR(
                optimiser,
                base_lr=settings.lowest_learning_rate,
                max_lr=peak,
                step_size_up=max(round(settings.half_cycle * steps.steps_before(1)), 1),
                mode="triangular2",
                cycle_momentum=False,  # Adam has none of the kind
            )
        case "onecycle" | "onecycle_three_phase":
            return OneCycleLR(
                optimiser,
                max_lr=peak,
                # One step more than taken: torch refuses a step after the last of the cycle.
                total_steps=steps.num_steps + 1,
                pct_start=settings.warmup_share,
                base_momentum=settings.lowest_momentum,
                div_factor=settings.start_divisor,
                final_div_factor=peak / settings.start_divisor / final,
                three_phase=settings.schedule == "onecycle_three_phase",
            )
        case _:
            return ConstantLR(optimiser, factor=1.0, total_iters=0)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Drop what is code, such as OneCycle's annealing function; the constructor sets it again."""
    return {name: value for name, value in state.items() if not callable(value)}
