"""Flows trained together: equal ones stacked into batched products, any other one by itself.

The parameters of L flows of equal shape become tensors with a leading axis L, activations are
feature-major (L, units, n), so that a layer of all flows is one `baddbmm` and the splines read
their parameters without a transpose. Flows stay independent: the sum of their losses gives each
flow its own gradient. Outside, every flow has its nflows names, so that files and other code
need not know how it was trained.

Legend: L flows, n showers, D features, M parameters of a spline, C columns of context.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from calo_train.nn.flow_layout import (
    FlowLayout,
    Linear,
    PermutationStep,
    SplineStep,
    context_width,
    stack_key,
)
from calo_train.nn.masked_product import Panel, masked_product, panels_of
from calo_train.nn.spline import spline_forward

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from nflows.flows import Flow

_OUTPUT_PANELS = 4  # of the last layer of a MADE, nine tenths of its weights


class FlowInput(Protocol):
    """What one flow sees of a batch: features (n, D) and context (n, C) or None."""

    @property
    def features(self) -> Tensor: ...

    @property
    def context(self) -> Tensor | None: ...


class TrainedByLoss(nn.Module, ABC):
    """A module that is trained by another loss than its negative log-likelihood."""

    @abstractmethod
    def losses(self, given: Any) -> Tensor:
        """Give the loss of each row, (n,), whose sum is minimised."""

    def judged_losses(self, given: Any) -> Tensor:
        """Give the loss of each row, (n,), that decides which weights are kept."""
        return self.losses(given)


class JointFlows(nn.Module, ABC):
    """L flows whose losses come from one pass.

    Every trainable tensor, its gradient and its moments have L slices of equal size along the
    first axis, one a flow; `split` and `join` translate between them and tensors by flow and name.
    """

    num_flows: int

    @abstractmethod
    def log_prob(self, features: Sequence[Tensor], contexts: Sequence[Tensor | None]) -> Tensor:
        """Give log p (L, n) from the features (n, D) and the context (n, C) of each flow."""

    def losses(self, inputs: Sequence[FlowInput]) -> Tensor:
        """Give the loss (L, n) that training minimises, the negative log-likelihood."""
        return -self.log_prob([one.features for one in inputs], [one.context for one in inputs])

    def judged_losses(self, inputs: Sequence[FlowInput]) -> Tensor:
        """Give the loss (L, n) that decides which weights are kept."""
        return self.losses(inputs)

    @abstractmethod
    def split(self, values: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Give tensors that lie as `parameters()` do by flow and name."""

    @abstractmethod
    def join(self, flows: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
        """Undo `split`; names that are no parameters are left out."""

    @abstractmethod
    def states(self) -> list[dict[str, Tensor]]:
        """Give the state dict of each flow, as a module of its own would."""

    @abstractmethod
    def load_states(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Take over the state dict of each flow."""

    @abstractmethod
    def select(self, chosen: Sequence[int]) -> JointFlows:
        """Copy some of the flows, at least one, into a smaller module."""


def join_flows(
    flows: Sequence[nn.Module], *, largest: int | None = None
) -> list[tuple[list[int], JointFlows]]:
    """Stack flows of equal shape; give each stack with the positions of its flows, in order.

    No stack holds more than `largest` flows where that is given.
    """
    positions: dict[Hashable, list[int]] = {}
    counts: Counter[Hashable] = Counter()
    for number, flow in enumerate(flows):
        key = stack_key(flow)
        key = ("alone", number) if key is None else key
        part = counts[key] // largest if largest else 0
        counts[key] += 1
        positions.setdefault((key, part), []).append(number)
    return [
        (
            members,
            SingleFlow(flows[members[0]])
            if stack_key(flows[members[0]]) is None
            else StackedFlows.of([flows[member] for member in members]),
        )
        for members in positions.values()
    ]


class SingleFlow(JointFlows):
    """A density of any kind by itself, by its `log_prob(features, context=...)`; L is 1."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.num_flows = 1
        self.flow = flow

    def log_prob(self, features: Sequence[Tensor], contexts: Sequence[Tensor | None]) -> Tensor:
        """Give log p (1, n)."""
        log_prob: Tensor = self.flow.log_prob(features[0], context=contexts[0])  # type: ignore[operator]
        return log_prob[None]

    def losses(self, inputs: Sequence[FlowInput]) -> Tensor:
        """Give the module's own loss (1, n) where it has one."""
        if isinstance(self.flow, TrainedByLoss):
            return self.flow.losses(inputs[0])[None]
        return super().losses(inputs)

    def judged_losses(self, inputs: Sequence[FlowInput]) -> Tensor:
        """Give the module's own judgement (1, n) where it has one."""
        if isinstance(self.flow, TrainedByLoss):
            return self.flow.judged_losses(inputs[0])[None]
        return self.losses(inputs)

    def split(self, values: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Name the tensors."""
        names = [name for name, _ in self.flow.named_parameters()]
        return [{name: value.clone() for name, value in zip(names, values, strict=True)}]

    def join(self, flows: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
        """Give the tensors in the order of the parameters."""
        return [flows[0][name] for name, _ in self.flow.named_parameters()]

    def states(self) -> list[dict[str, Tensor]]:
        """Copy the state dict."""
        return [{name: value.detach().clone() for name, value in self.flow.state_dict().items()}]

    def load_states(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Load the state dict."""
        self.flow.load_state_dict(dict(states[0]))

    def select(self, chosen: Sequence[int]) -> SingleFlow:  # noqa: ARG002 - there is one
        """Give the module itself."""
        return self


class StackedFlows(JointFlows):
    """Flows of equal `stack_key` as batched products; equal to nflows up to rounding."""

    def __init__(
        self,
        layout: FlowLayout,
        members: Sequence[_Member],
        weights: Sequence[Mapping[str, Tensor]],
    ) -> None:
        super().__init__()
        self.num_flows = len(members)
        self._layout = layout
        self._members = tuple(members)
        self.weights = nn.ParameterList(nn.Parameter(value) for value in self.join(weights))
        self._number = {slot.name: number for number, slot in enumerate(layout.slots)}
        self._panels: dict[str, tuple[Panel, ...]] = {}
        self._add_buffers(self.weights[0].device)

    @classmethod
    @torch.no_grad()
    def of(cls, flows: Sequence[Flow]) -> StackedFlows:
        """Copy the weights of flows of equal `stack_key`, which must not be None."""
        keys = {stack_key(flow) for flow in flows}
        assert len(keys) == 1
        assert None not in keys
        members = [_Member.of(flow) for flow in flows]
        return cls(FlowLayout.of(flows[0]), members, [dict(f.named_parameters()) for f in flows])

    def _add_buffers(self, device: torch.device) -> None:
        for step in self._layout.steps:
            if isinstance(step, PermutationStep):
                order = torch.stack([member.constants[step.buffer] for member in self._members])
                self._add_buffer(step.buffer, torch.stack([order, order.argsort(dim=1)]), device)
                continue
            for layer in step.layers:
                assert layer.mask is not None
                num_panels = _OUTPUT_PANELS if layer is step.layers[-1] else 1
                self._panels[layer.weight] = panels_of(layer.mask, num_panels)
                mask = layer.mask.to(self.weights[0].dtype)
                self._add_buffer(layer.weight, mask, device)

    def _add_buffer(self, name: str, value: Tensor, device: torch.device) -> None:
        self.register_buffer(_plain_name(name), value.to(device), persistent=False)

    def log_prob(self, features: Sequence[Tensor], contexts: Sequence[Tensor | None]) -> Tensor:
        """Give log p (L, n)."""
        values = torch.stack([flow.T for flow in features])
        context = self._embedded(self._stacked_context(contexts))
        log_det = values.new_zeros(self.num_flows, values.shape[2])
        for step in self._layout.steps:
            if isinstance(step, PermutationStep):
                values = _reordered(values, self._buffer(step.buffer))
            else:
                parameters = self._parameters_of_splines(step, values, context)
                values, log_slopes = spline_forward(values, parameters, step.shape)
                log_det = log_det + log_slopes.sum(dim=1)
        log_norm = 0.5 * self._layout.num_features * math.log(2 * math.pi)
        return log_det - 0.5 * values.square().sum(dim=1) - log_norm

    def _stacked_context(self, contexts: Sequence[Tensor | None]) -> Tensor | None:
        """Give (L, C, n) of the widest context, zeros below narrower ones."""
        if self._members[0].context_width is None:
            return None
        given = [context.T for context in contexts if context is not None]
        width = max(len(columns) for columns in given)
        if all(len(columns) == width for columns in given):
            return torch.stack(given)
        padded = given[0].new_zeros(self.num_flows, width, given[0].shape[1])
        for flow, columns in zip(padded, given, strict=True):
            flow[: len(columns)] = columns
        return padded

    def _embedded(self, context: Tensor | None) -> Tensor | None:
        for layer in self._layout.embedding:
            assert context is not None
            context = torch.relu(context) if layer is None else self._linear(layer, context)
        return context

    def _parameters_of_splines(
        self, step: SplineStep, values: Tensor, context: Tensor | None
    ) -> Tensor:
        """Run a MADE, (L, D, n) to (L, D, M, n)."""
        units = self._masked(step.layers[0], values)
        if step.context is not None:
            assert context is not None
            # The context is activated on its own before the sum, as in nflows.
            units = units + torch.relu(self._linear(step.context, context))
        for layer in step.layers[1:]:
            units = self._masked(layer, torch.relu(units))
        num_features, num_showers = values.shape[1:]
        return units.view(self.num_flows, num_features, -1, num_showers)

    def _linear(self, layer: Linear, source: Tensor) -> Tensor:
        return torch.baddbmm(self._weight(layer.bias), self._weight(layer.weight), source)

    def _masked(self, layer: Linear, source: Tensor) -> Tensor:
        return masked_product(
            self._weight(layer.weight),
            self._weight(layer.bias),
            source,
            mask=self._buffer(layer.weight),
            panels=self._panels[layer.weight],
        )

    def _weight(self, name: str) -> Tensor:
        weight: Tensor = self.weights[self._number[name]]
        return weight

    def _buffer(self, name: str) -> Tensor:
        return self.get_buffer(_plain_name(name))

    def split(self, values: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Give tensors (L, out, in) by flow and name, in nflows' order and shape."""
        return [
            {
                slot.name: slot.unpack(value[number], member.shapes[slot.name])
                for slot, value in zip(self._layout.slots, values, strict=True)
            }
            for number, member in enumerate(self._members)
        ]

    def join(self, flows: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
        """Stack the tensors of all flows by name, (L, out, in)."""
        widest = max(member.context_width or 0 for member in self._members)
        return [
            torch.stack([slot.pack(flow[slot.name], widest) for flow in flows])
            for slot in self._layout.slots
        ]

    def states(self) -> list[dict[str, Tensor]]:
        """Give the state dict of each flow, on the CPU."""
        weights = self.split([weight.detach().cpu() for weight in self.weights])
        dtype = self.weights[0].dtype
        return [
            own | {name: _cast(value, dtype) for name, value in member.constants.items()}
            for own, member in zip(weights, self._members, strict=True)
        ]

    @torch.no_grad()
    def load_states(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Take over the weights of each flow; masks and permutations are those of the stack."""
        for weight, value in zip(self.weights, self.join(states), strict=True):
            weight.copy_(value)

    @torch.no_grad()
    def select(self, chosen: Sequence[int]) -> StackedFlows:
        """Copy some of the flows into a smaller stack, on the same device."""
        weights = self.split(list(self.weights))
        smaller = StackedFlows(
            self._layout,
            [self._members[number] for number in chosen],
            [weights[number] for number in chosen],
        )
        return smaller.requires_grad_(self.weights[0].requires_grad)


@dataclass(frozen=True)
class _Member:
    """What stays fixed of one flow of a stack, and may differ between flows of a stack."""

    context_width: int | None
    shapes: Mapping[str, torch.Size]  # of the parameters, by name
    constants: Mapping[str, Tensor]  # masks, degrees and permutations, on the CPU

    @classmethod
    def of(cls, flow: Flow) -> _Member:
        parameters = dict(flow.named_parameters())
        return cls(
            context_width(flow),
            {name: parameter.shape for name, parameter in parameters.items()},
            {
                name: value.detach().cpu()
                for name, value in flow.state_dict().items()
                if name not in parameters
            },
        )


def _reordered(values: Tensor, orders: Tensor) -> Tensor:
    """Take features (L, D, n) in another order; orders (2, L, D) are it and its inverse."""
    reordered: Tensor = _Reorder.apply(values, *orders)  # type: ignore[no-untyped-call]
    return reordered


class _Reorder(torch.autograd.Function):
    """Gather, and gather again in the gradient: no scatter, the same bits every time."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return values.gather(1, order[:, :, None].expand_as(values))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,), (inverse,) = gradients, ctx.saved_tensors
        return upstream.gather(1, inverse[:, :, None].expand_as(upstream)), None, None


def _plain_name(name: str) -> str:
    return name.replace(".", "/")


def _cast(constant: Tensor, dtype: torch.dtype) -> Tensor:
    return constant.to(dtype) if constant.is_floating_point() else constant.clone()
