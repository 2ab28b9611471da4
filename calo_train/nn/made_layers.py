"""A MADE of nflows 0.14 as a list of linear layers whose units are sorted by degree.

Degrees are read from the modules' own buffers, since random masks cannot be derived again. After
sorting, "units of degree at most d" is a prefix of a layer and every masked matrix is block lower
triangular. What nflows does between its linear layers is written down once, here:

- the context enters the first layer activated on its own, before the sum; feed-forward blocks
  ignore it; a residual block adds it, not activated, after its first linear layer;
- residual blocks are pre-activation, and the last layer of a residual MADE reads what is not
  activated;
- batch normalisation (in evaluation mode, an affine map) stands before the linear layer of a
  feed-forward block and before each activation of a residual block.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from calo_train.errors import UsageError

if TYPE_CHECKING:
    from nflows.transforms.made import (
        MADE,
        MaskedFeedforwardBlock,
        MaskedLinear,
        MaskedResidualBlock,
    )

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Units:
    """The units of a layer sorted by degree: their order in the module, and where degrees end."""

    order: Tensor
    degrees: Tensor  # (units,), sorted
    ends: tuple[int, ...]  # ends[d]: number of units of degree <= d

    @classmethod
    def of(cls, degrees: Tensor, num_features: int) -> Units:
        """Sort units by their degrees (units,)."""
        ordered, order = torch.sort(degrees, stable=True)
        ends = torch.searchsorted(ordered, torch.arange(num_features + 1), right=True)
        return cls(order, ordered, tuple(ends.tolist()))

    def __len__(self) -> int:
        return len(self.order)

    def has(self, degree: int) -> bool:
        """Tell whether any unit is of this degree; a narrow or random layer leaves some out."""
        return self.ends[degree] > (self.ends[degree - 1] if degree else 0)

    def slice_of(self, degree: int) -> slice:
        """Give the units of one degree."""
        return slice(self.ends[degree - 1] if degree else 0, self.ends[degree])


@dataclass(frozen=True)
class Route:
    """Where a layer reads and writes: numbers of states and of a context projection.

    State 0 holds the features. Units become weight . source + bias + context + residual, stored
    as they are (raw), activated, or both.
    """

    source: int
    context: int | None = None
    residual: int | None = None
    raw_target: int | None = None
    activated_target: int | None = None


@dataclass(frozen=True)
class Scaling:
    """Batch normalisation in evaluation mode: scale * x + shift, each (units, 1)."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, norm: nn.BatchNorm1d, units: Units) -> Scaling:
        """Read the running statistics of a norm and its learned scale and shift."""
        state = norm.state_dict()
        scale = state["weight"] / torch.sqrt(state["running_var"] + norm.eps)
        shift = state["bias"] - state["running_mean"] * scale
        return cls(scale[units.order].reshape(-1, 1), shift[units.order].reshape(-1, 1))


@dataclass(frozen=True)
class Layer:
    """One hidden layer with its units and its source's sorted by degree, masks applied."""

    route: Route
    weight: Tensor  # (units, source units)
    bias: Tensor  # (units, 1)
    units: Units
    source_units: Units
    scaling: Scaling | None  # stands before the activation


@dataclass(frozen=True)
class Projection:
    """What the context adds to a layer; `is_activated` before it is added."""

    weight: Tensor  # (units, C), units sorted
    bias: Tensor  # (units, 1)
    is_activated: bool


@dataclass
class SortedMade:
    """Hidden layers in order, projections of the context, and the last layer by feature."""

    num_features: int
    activation: Activation
    layers: list[Layer] = field(default_factory=list)
    projections: list[Projection] = field(default_factory=list)
    state_units: list[Units] = field(default_factory=list)
    final_source: int = 0
    final_weight: Tensor = field(default_factory=lambda: torch.empty(0))  # (features, M, units)
    final_bias: Tensor = field(default_factory=lambda: torch.empty(0))  # (features, M, 1)

    @classmethod
    @torch.no_grad()
    def of(cls, made: MADE) -> SortedMade:
        """Read a MADE, on the CPU; UsageError for training mode where that makes a difference."""
        if made.initial_layer.weight.device.type != "cpu":
            made = copy.deepcopy(made).cpu()
        _require_finite(made)
        num_features = int(made.initial_layer.in_features)
        inputs = Units.of(torch.arange(1, num_features + 1), num_features)
        result = cls(num_features, made.activation, state_units=[inputs])
        blocks = list(made.blocks)
        for block in blocks:
            require_deterministic(block)
        walk = result._add_residual if made.use_residual_blocks else result._add_feedforward
        result.final_source = walk(made, blocks)
        final = made.final_layer
        order = result.state_units[result.final_source].order
        weight = (final.weight * final.mask)[:, order]
        result.final_weight = weight.reshape(num_features, -1, len(order))
        units = result.state_units[result.final_source]
        _require_masked(result.final_weight, torch.arange(num_features), units)
        result.final_bias = final.bias.reshape(num_features, -1, 1)
        return result

    @property
    def num_context(self) -> int:
        """Width of the context that enters the network, 0 without one."""
        return self.projections[0].weight.shape[1] if self.projections else 0

    @property
    def num_outputs(self) -> int:
        """Parameters of one feature, M."""
        return self.final_weight.shape[1]

    def _add_feedforward(self, made: MADE, blocks: list[MaskedFeedforwardBlock]) -> int:
        context = self._first_projection(made)
        source = self._new_state(made.initial_layer)
        self._add(made.initial_layer, Route(0, context=context, activated_target=source))
        for block in blocks:
            target = self._new_state(block.linear)
            route = Route(source, activated_target=target)
            self._add(block.linear, route, folded_norm=block.batch_norm)
            source = target
        return source

    def _add_residual(self, made: MADE, blocks: list[MaskedResidualBlock]) -> int:
        raw, activated = self._new_state(made.initial_layer), self._new_state(made.initial_layer)
        first_route = Route(0, self._first_projection(made), None, raw, activated)
        self._add(made.initial_layer, first_route, norm=_norm(blocks, 0, 0))
        for number, block in enumerate(blocks):
            first, second = block.linear_layers
            context = self._projection(block, first, is_activated=False)
            inner = self._new_state(first)
            inner_route = Route(activated, context, activated_target=inner)
            self._add(first, inner_route, norm=_norm(blocks, number, 1))
            residual, raw, activated = raw, self._new_state(second), self._new_state(second)
            route = Route(inner, None, residual, raw, activated)
            self._add(second, route, norm=_norm(blocks, number + 1, 0))
        return raw

    def _add(
        self,
        linear: MaskedLinear,
        route: Route,
        *,
        norm: nn.BatchNorm1d | None = None,
        folded_norm: nn.BatchNorm1d | None = None,
    ) -> None:
        """Append a layer; `norm` follows it, `folded_norm` precedes it and vanishes into it."""
        units, source_units = (
            Units.of(linear.degrees, self.num_features),
            self.state_units[route.source],
        )
        weight = (linear.weight * linear.mask)[units.order][:, source_units.order]
        bias = linear.bias[units.order].reshape(-1, 1)
        _require_masked(weight[:, None], units.degrees, source_units)
        if folded_norm is not None:
            before = Scaling.of(folded_norm, source_units)
            bias = bias + weight @ before.shift
            weight = weight * before.scale.T
        scaling = None if norm is None else Scaling.of(norm, units)
        self.layers.append(Layer(route, weight, bias, units, source_units, scaling))

    def _new_state(self, linear: MaskedLinear) -> int:
        self.state_units.append(Units.of(linear.degrees, self.num_features))
        return len(self.state_units) - 1

    def _first_projection(self, made: MADE) -> int | None:
        return self._projection(made, made.initial_layer, is_activated=True)

    def _projection(
        self, owner: MADE | MaskedResidualBlock, target: MaskedLinear, *, is_activated: bool
    ) -> int | None:
        # nflows builds a layer for a context of no columns, and leaves it out without a context.
        if not hasattr(owner, "context_layer") or not owner.context_layer.in_features:
            return None
        layer = owner.context_layer.state_dict()
        order = Units.of(target.degrees, self.num_features).order
        bias = layer["bias"][order].reshape(-1, 1)
        self.projections.append(Projection(layer["weight"][order], bias, is_activated))
        return len(self.projections) - 1


def is_relu(activation: Activation) -> bool:
    """Tell whether an activation is the rectifier, in any of the forms torch gives it."""
    return activation in (torch.relu, functional.relu) or isinstance(activation, nn.ReLU)


def _norm(blocks: list[MaskedResidualBlock], block: int, position: int) -> nn.BatchNorm1d | None:
    if block == len(blocks) or not blocks[block].use_batch_norm:
        return None
    norm: nn.BatchNorm1d = blocks[block].batch_norm_layers[position]
    return norm


def _require_masked(weight: Tensor, degrees: Tensor, source: Units) -> None:
    """Make sure that what the walk leaves out is masked; weight (units, rows, source units)."""
    seen = torch.tensor(source.ends)[degrees]
    is_left_out = torch.arange(len(source)) >= seen[:, None]
    if bool((weight * is_left_out[:, None]).any()):
        raise RuntimeError("the walk would leave out a weight that is not masked")


def _require_finite(made: MADE) -> None:
    for name, parameter in made.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise UsageError(
                "the flow holds weights that are NaN or infinite",
                where=f"incremental inverse, {name}",
                do="load weights from before the training diverged",
            )


def require_deterministic(block: nn.Module) -> None:
    for layer in block.modules():
        is_dropout = isinstance(layer, nn.Dropout) and layer.p > 0
        if layer.training and (is_dropout or isinstance(layer, nn.BatchNorm1d)):
            name = "dropout" if is_dropout else "batch normalisation"
            raise UsageError(
                f"the flow is in training mode with {name}, so its inverse is not defined",
                where=f"incremental inverse, {type(block).__name__}",
                do="call .eval() on the flow first",
            )
