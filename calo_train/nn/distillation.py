"""A student that learns to draw as its teacher: probability density distillation of CaloFlow II.

The teacher is a masked autoregressive flow, fast in its density, the student an inverse
autoregressive one, fast in drawing; blocks, splines and permutations are equal (2110.11377). Half
of the loss starts from data, half from base noise:

    data    z = teacher(x),  x' = student(z):  L_x = |x' - x|^2 + states + parameters
    base    x = student(z),  z' = teacher(x):  L_z = |z' - z|^2 + states + parameters
    L = (1 - beta) L_z + beta L_x

`states` sums |student - teacher|^2 over all places of the chain, both ends included, so that the
end point counts twice; `parameters` over the raw spline parameters of all blocks. The teacher does
not change and has no dropout, but gradients pass through it in the base half.

Judged by the Kullback-Leibler divergence, the mean of log p_student(x) - log p_teacher(x) over
the student's x, with the base noise of the validation batches, the same in every epoch. The
papers take the noise of the training batches.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from calo_train.nn.inverse_autoregressive import (
    FlowPass,
    InverseAutoregressiveFlow,
    density_pass,
)
from calo_train.nn.stacked_flows import TrainedByLoss

if TYPE_CHECKING:
    from nflows.flows import Flow


class DistillationTerms(Enum):
    """What of the student is drawn to the teacher."""

    FULLY_GUIDED = "fully_guided"  # end points, states and parameters
    END_POINTS = "end_points"


@dataclass(frozen=True)
class DistillationInput:
    """Data (n, D) with context (n, C) or None; base noise (n, D) with the context of its half."""

    features: Tensor
    context: Tensor | None
    base_noise: Tensor
    base_context: Tensor | None
    rows_per_shower: int = 1


class DistilledFlow(TrainedByLoss):
    """A student in training; its teacher comes along but is no part of its state dict."""

    def __init__(
        self,
        student: InverseAutoregressiveFlow,
        teacher: Flow,
        *,
        terms: DistillationTerms = DistillationTerms.FULLY_GUIDED,
        data_weight: float = 0.5,
    ) -> None:
        """Take the teacher's permutations; `data_weight` is beta."""
        super().__init__()
        student.take_permutations(teacher)
        self.student = student
        self._teacher = _Fixed(teacher)
        self._terms = terms
        self._data_weight = data_weight

    def losses(self, given: DistillationInput) -> Tensor:
        """Give L of each row, (n,)."""
        with torch.no_grad():
            of_data = self._teacher(given.features, given.context)
        redrawn = self.student(of_data.base, given.context)
        data_loss = self._distances(redrawn, of_data, end=0)
        drawn = self.student(given.base_noise, given.base_context)
        judged = self._teacher(drawn.features, given.base_context)
        base_loss = self._distances(drawn, judged, end=-1)
        return (1 - self._data_weight) * base_loss + self._data_weight * data_loss

    def judged_losses(self, given: DistillationInput) -> Tensor:
        """Give log p_student(x) - log p_teacher(x) for the x of each row of base noise, (n,)."""
        drawn = self.student(given.base_noise, given.base_context)
        judged = self._teacher(drawn.features, given.base_context)
        return _log_prob(drawn) - _log_prob(judged)

    def _distances(self, student: FlowPass, teacher: FlowPass, *, end: int) -> Tensor:
        """Sum the squared distances of each row; `end` is the place where the half ends."""
        total = _square_distance(student.states[end], teacher.states[end])
        if self._terms is DistillationTerms.END_POINTS:
            return total
        for own, other in zip(student.states, teacher.states, strict=True):
            total = total + _square_distance(own, other)
        for own, other in zip(student.parameters, teacher.parameters, strict=True):
            total = total + (own - other).square().sum(dim=(0, 1))
        return total


def _square_distance(own: Tensor, other: Tensor) -> Tensor:
    return (own - other).square().sum(dim=1)


def _log_prob(chain: FlowPass) -> Tensor:
    """Give log p of the features up to the constant that all base densities share."""
    return chain.log_det - 0.5 * chain.base.square().sum(dim=1)


class _Fixed(nn.Module):
    """A flow that follows its owner to a device and precision, and otherwise never changes.

    Its weights are buffers outside the state dict: no optimiser and no file sees them.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self._flow = copy.deepcopy(flow)
        for module in self._flow.modules():
            for name, value in [
                *module.named_parameters(recurse=False),
                *module.named_buffers(recurse=False),
            ]:
                delattr(module, name)
                module.register_buffer(name, value.detach(), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> _Fixed:  # noqa: ARG002 - torch's
        """Stay in evaluation mode: a teacher has no dropout."""
        return super().train(mode=False)

    def forward(self, features: Tensor, context: Tensor | None) -> FlowPass:
        return density_pass(self._flow, features, context)
