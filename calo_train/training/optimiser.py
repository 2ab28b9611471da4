"""The optimiser of a group: one AdamW and one learning-rate schedule over all its parts.

The parts of a stage share their settings, so one schedule serves all; Adam works on each number by
itself, so parts in one tensor are trained as they would be alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LRScheduler,
    OneCycleLR,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from calo_train.families.contracts import TrainingSettings
    from calo_train.training.parts import JointParts

_ONECYCLE_START = 25.0  # the cycle starts at the peak over this; torch's default, as in the papers
_MOMENTS = ("exp_avg", "exp_avg_sq")  # torch's names of Adam's moments

PartMoments = dict[str, dict[str, "Tensor"]]  # moment -> parameter -> tensor


class GroupOptimiser:
    """AdamW with its schedule; moments are kept by part and name outside."""

    def __init__(
        self, stacks: Sequence[JointParts], settings: TrainingSettings, num_steps: int
    ) -> None:
        self.adam = torch.optim.AdamW(
            _parameters(stacks),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._schedule = _schedule(self.adam, settings, num_steps)

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
