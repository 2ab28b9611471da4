"""The walk through a MADE by degree: every hidden unit is computed once.

A unit of degree m depends on the first m features only. Once these are known all units of degree
up to m have their final values, so drawing feature m + 1 needs just the units of degree m on top
of what is there: the whole inverse costs about one forward pass instead of one a feature. Keeping
finished activations is known from PixelCNN and WaveNet samplers (arXiv:1704.06001).

Units of a layer are sorted by degree, so that "degree at most d" is a prefix and "degree d" a
slice, and each step is a dense product. Activations are feature-major, (units, n). What happens to
a feature once its parameters are known belongs to the head, not to the walk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from nflows.transforms.made import MADE, MaskedFeedforwardBlock, MaskedLinear, MaskedResidualBlock
from torch import Tensor, nn

from calo_train.errors import UsageError

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Units:
    """The sorted units of one layer: their order in the module and, by degree, where they end."""

    order: Tensor
    ends: tuple[int, ...]  # ends[d]: number of units of degree <= d

    @classmethod
    def of(cls, degrees: Tensor, num_features: int) -> _Units:
        order = torch.argsort(degrees, stable=True)
        ordered = degrees[order].contiguous()
        bounds = torch.arange(num_features + 1)
        return cls(order, tuple(torch.searchsorted(ordered, bounds, right=True).tolist()))

    def slice_of(self, degree: int) -> slice:
        return slice(self.ends[degree - 1] if degree else 0, self.ends[degree])


@dataclass(frozen=True)
class _Step:
    """One masked linear layer of the walk.

    Rows of a degree become bias + W . (source units up to that degree) + what is added; they are
    stored as they are, activated, or both, as states of the given numbers.
    """

    weight: Tensor  # (units, source units), both sorted by degree
    bias: Tensor  # (units, 1)
    units: _Units
    source: int
    source_units: _Units
    context_layer: int | None  # number of the context projection that is added
    residual: int | None  # number of the state that is added
    raw_target: int | None
    activated_target: int | None


class MadeWalk:
    """A MADE packed for walking; immutable, so it does not follow later changes of the module."""

    def __init__(self, made: MADE, *, dtype: torch.dtype, device: torch.device) -> None:
        self.num_features = int(made.initial_layer.in_features)
        self._dtype = dtype
        self._device = device
        self._activation: Activation = made.activation
        self._context_layers: list[tuple[Tensor, Tensor, bool]] = []
        self._steps: list[_Step] = []
        self._state_units = [_Units.of(torch.arange(1, self.num_features + 1), self.num_features)]
        final_source = self._pack_hidden(made)
        final = made.final_layer
        self.num_outputs = int(final.out_features) // self.num_features
        weight = (final.weight * final.mask)[:, self._state_units[final_source].order]
        self._final_source = final_source
        self._final_weight = self._tensor(weight).reshape(self.num_features, self.num_outputs, -1)
        self._final_bias = self._tensor(final.bias).reshape(self.num_features, self.num_outputs, 1)
        self._require_masked()

    def scale_outputs(self, rows: slice, factor: float) -> None:
        """Multiply some of the parameters of every feature; used while packing only."""
        self._final_weight[:, rows] *= factor
        self._final_bias[:, rows] *= factor

    def run(
        self,
        num_rows: int,
        context: Tensor | None,
        take_feature: Callable[[int, Tensor], Tensor],
    ) -> Tensor:
        """Walk through all features in order and give them, (features, n).

        `take_feature(i, parameters (outputs, n))` gives feature i, (n,). `context` is (n, C).
        """
        projections = self._project(context)
        states = [
            torch.empty((len(units.order), num_rows), dtype=self._dtype, device=self._device)
            for units in self._state_units
        ]
        final_units = self._state_units[self._final_source]
        for degree in range(self.num_features + 1):
            for step in self._steps:
                self._advance(step, degree, states, projections)
            if degree == self.num_features:
                break
            seen = final_units.ends[degree]
            parameters = torch.addmm(
                self._final_bias[degree].expand(-1, num_rows),
                self._final_weight[degree, :, :seen],
                states[self._final_source][:seen],
            )
            states[0][degree] = take_feature(degree, parameters)
        return states[0]

    def _advance(
        self, step: _Step, degree: int, states: list[Tensor], projections: list[Tensor]
    ) -> None:
        rows = step.units.slice_of(degree)
        if rows.start == rows.stop:
            return
        seen = step.source_units.ends[degree]
        added = step.bias[rows]
        if step.context_layer is not None:
            added = projections[step.context_layer][rows]
        raw = torch.addmm(added, step.weight[rows, :seen], states[step.source][:seen])
        if step.residual is not None:
            raw += states[step.residual][rows]
        if step.raw_target is not None:
            states[step.raw_target][rows] = raw
        if step.activated_target is not None:
            states[step.activated_target][rows] = self._activation(raw)

    def _project(self, context: Tensor | None) -> list[Tensor]:
        """Compute what the context adds to each step that takes it, bias included, (units, n)."""
        if not self._context_layers:
            return []
        if context is None:
            raise UsageError(
                "this flow takes a context and none was given",
                where="incremental inverse",
                do=f"give a context of {self._context_layers[0][0].shape[1]} columns",
            )
        expected = self._context_layers[0][0].shape[1]
        if context.ndim != 2 or context.shape[1] != expected:
            raise UsageError(
                f"the context has the shape {tuple(context.shape)}, expected (n, {expected})",
                where="incremental inverse",
                do="give one row a shower, after any embedding network",
            )
        projections = []
        for number, (weight, bias, is_activated) in enumerate(self._context_layers):
            projected = torch.addmm(bias, weight, context.T)
            if is_activated:
                projected = self._activation(projected)
            step = next(step for step in self._steps if step.context_layer == number)
            projections.append(projected + step.bias)
        return projections

    def _pack_hidden(self, made: MADE) -> int:
        """Pack all layers before the last and give the number of the state that it reads."""
        context = None
        if hasattr(made, "context_layer"):
            # nflows activates the first layer's context projection on its own, before the sum.
            context = self._context_layer(made.context_layer, made.initial_layer, is_activated=True)
        is_residual = bool(made.use_residual_blocks)
        raw, activated = self._add_step(
            made.initial_layer, source=0, context=context, keeps_raw=is_residual
        )
        if not is_residual:
            return self._pack_feedforward(made, activated)
        assert raw is not None
        return self._pack_residual(made, raw, activated)

    def _pack_feedforward(self, made: MADE, source: int) -> int:
        for block in made.blocks:
            assert isinstance(block, MaskedFeedforwardBlock)
            _require_plain(block, has_batch_norm=block.batch_norm is not None)
            _, source = self._add_step(block.linear, source=source, context=None, keeps_raw=False)
        return source

    def _pack_residual(self, made: MADE, raw: int, activated: int) -> int:
        for block in made.blocks:
            assert isinstance(block, MaskedResidualBlock)
            _require_plain(block, has_batch_norm=block.use_batch_norm)
            first, second = block.linear_layers
            context = None
            if hasattr(block, "context_layer"):
                context = self._context_layer(block.context_layer, first, is_activated=False)
            _, inner = self._add_step(first, source=activated, context=context, keeps_raw=False)
            next_raw, activated = self._add_step(
                second, source=inner, context=None, keeps_raw=True, residual=raw
            )
            assert next_raw is not None
            raw = next_raw
        return raw  # the last layer of a residual MADE reads what is not activated

    def _add_step(
        self,
        linear: MaskedLinear,
        *,
        source: int,
        context: int | None,
        keeps_raw: bool,
        residual: int | None = None,
    ) -> tuple[int | None, int]:
        units = _Units.of(linear.degrees, self.num_features)
        source_units = self._state_units[source]
        weight = (linear.weight * linear.mask)[units.order][:, source_units.order]
        raw_target = self._add_state(units) if keeps_raw else None
        activated_target = self._add_state(units)
        bias = self._tensor(linear.bias[units.order]).reshape(-1, 1)
        self._steps.append(
            _Step(
                self._tensor(weight),
                bias,
                units,
                source,
                source_units,
                context,
                residual,
                raw_target,
                activated_target,
            )
        )
        return raw_target, activated_target

    def _add_state(self, units: _Units) -> int:
        self._state_units.append(units)
        return len(self._state_units) - 1

    def _context_layer(
        self, layer: nn.Linear, target: MaskedLinear, *, is_activated: bool
    ) -> int:
        order = _Units.of(target.degrees, self.num_features).order
        weight = self._tensor(layer.weight[order])
        bias = self._tensor(layer.bias[order]).reshape(-1, 1)
        self._context_layers.append((weight, bias, is_activated))
        return len(self._context_layers) - 1

    def _tensor(self, values: Tensor) -> Tensor:
        return values.detach().to(self._device, self._dtype, copy=True).contiguous()

    def _require_masked(self) -> None:
        """Every weight that the walk leaves out must be masked; anything else is our mistake."""
        for step in self._steps:
            for degree in range(self.num_features + 1):
                rows, seen = step.units.slice_of(degree), step.source_units.ends[degree]
                assert not step.weight[rows, seen:].any()
        for degree in range(self.num_features):
            seen = self._state_units[self._final_source].ends[degree]
            assert not self._final_weight[degree, :, seen:].any()


def _require_plain(block: nn.Module, *, has_batch_norm: bool) -> None:
    if has_batch_norm:
        raise UsageError(
            "batch normalisation inside a MADE block cannot be walked through by degree",
            where=type(block).__name__,
            do="build the flow with use_batch_norm=False",
        )
    dropout = getattr(block, "dropout", None)
    if block.training and isinstance(dropout, nn.Dropout) and dropout.p > 0:
        raise UsageError(
            "the flow is in training mode with dropout, so its inverse is random",
            where=type(block).__name__,
            do="call .eval() on the flow first",
        )


