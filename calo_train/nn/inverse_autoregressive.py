"""Inverse autoregressive spline flows: drawing takes one network pass a block.

The counterpart of a masked autoregressive flow, block by block. There a feature becomes
z_i = RQS(x_i; p(x_<i)); here x_i = RQS^-1(z_i; p(z_<i)): the same splines read backwards, with the
network fed from the base side, so that equal p are equal maps (Kingma et al., arXiv:1606.04934;
CaloFlow II, arXiv:2110.11377). A density costs one pass too where the base noise is known, as it
is for drawn features; that of other features would cost one pass a feature and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from nflows.transforms.permutations import Permutation
from torch import Tensor, nn

from calo_train.nn.masked_product import Panel, panels_of
from calo_train.nn.spline import (
    SplineShape,
    spline_forward,
    spline_inverse,
    spline_inverse_features,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nflows.flows import Flow
    from nflows.transforms import MaskedPiecewiseRationalQuadraticAutoregressiveTransform
    from nflows.transforms.made import MaskedLinear

_PANELS = 16  # of a masked matrix when drawing: leaves out 15/32 of it
_ROWS = 128  # drawn together on a CPU: the splines of a panel stay in its cache
_GPU_BYTES = 1 << 30  # of the spline parameters of a block


@dataclass(frozen=True)
class FlowPass:
    """A batch on its way through a chain, in order from features to base noise.

    `states` (n, D) at every place between the transforms, both ends included; raw `parameters`
    (D, P, n) of the splines of each block; `log_det` (n,) is log|d base / d features|.
    """

    states: tuple[Tensor, ...]
    parameters: tuple[Tensor, ...]
    log_det: Tensor

    @property
    def features(self) -> Tensor:
        return self.states[0]

    @property
    def base(self) -> Tensor:
        return self.states[-1]


def density_pass(flow: Flow, features: Tensor, context: Tensor | None) -> FlowPass:
    """Take features (n, D) through a masked autoregressive flow without embedding network."""
    states, parameters = [features], []
    log_det = features.new_zeros(len(features))
    for transform in flow._transform._transforms:
        values = states[-1]
        if isinstance(transform, Permutation):
            states.append(values.index_select(1, transform._permutation))
            continue
        raw = _spline_parameters(transform, values, context)
        mapped, log_slopes = spline_forward(values.T, raw, SplineShape.of(transform))
        states.append(mapped.T)
        parameters.append(raw)
        log_det = log_det + log_slopes.sum(dim=0)
    return FlowPass(tuple(states), tuple(parameters), log_det)


class InverseAutoregressiveFlow(nn.Module):
    """A chain of inverse autoregressive blocks and permutations, base N(0, 1)."""

    def __init__(self, flow: Flow) -> None:
        """Take over the blocks of a masked autoregressive flow, to be read the other way."""
        super().__init__()
        self.transforms: nn.ModuleList = flow._transform._transforms

    @torch.no_grad()
    def take_permutations(self, teacher: Flow) -> None:
        """Order the features between the blocks as `teacher` does, whose chain is as long."""
        pairs = zip(self.transforms, teacher._transform._transforms, strict=True)
        for own, other in pairs:
            assert type(own) is type(other)
            if isinstance(own, Permutation):
                own._permutation.copy_(other._permutation)

    def forward(self, base_noise: Tensor, context: Tensor | None = None) -> FlowPass:
        """Map base noise (n, D) to features, with all that lies between."""
        states, parameters = [base_noise], []
        log_det = base_noise.new_zeros(len(base_noise))
        for transform in reversed(self.transforms):
            values = states[-1]
            if isinstance(transform, Permutation):
                states.append(values.index_select(1, transform._permutation.argsort()))
                continue
            raw = _spline_parameters(transform, values, context)
            mapped, log_slopes = spline_inverse(values.T, raw, SplineShape.of(transform))
            states.append(mapped.T)
            parameters.append(raw)
            log_det = log_det - log_slopes.sum(dim=0)
        return FlowPass(tuple(states[::-1]), tuple(parameters[::-1]), log_det)


def _spline_parameters(transform: nn.Module, values: Tensor, context: Tensor | None) -> Tensor:
    """Run the network of a block on values (n, D), to (D, P, n)."""
    raw: Tensor = transform.autoregressive_net(values, context)  # type: ignore[operator]
    return raw.view(*values.shape, -1).permute(1, 2, 0)


class PackedInverseFlow:
    """An inverse autoregressive flow packed for drawing; immutable.

    Masks are multiplied into the weights once, hidden units are sorted by degree, and products
    leave out most of what is masked. Rows are taken in blocks of a fixed number, so that memory
    is bounded whatever the number of rows.
    """

    def __init__(
        self, flow: InverseAutoregressiveFlow, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._dtype = dtype
        self._device = device
        self._steps = [
            transform._permutation.argsort().to(device)
            if isinstance(transform, Permutation)
            else _PackedBlock(transform, dtype, device)
            for transform in reversed(flow.transforms)
        ]

    @torch.no_grad()
    def inverse(self, base_noise: Tensor, context: Tensor | None = None) -> Tensor:
        """Map base noise (n, D) and context (n, C) to features (n, D)."""
        values = base_noise.to(self._device, self._dtype)
        features = torch.empty_like(values)
        for rows in self._row_blocks(*values.shape):
            columns = None
            if context is not None:
                columns = context[rows].to(self._device, self._dtype).T.contiguous()
            features[rows] = self._drawn(values[rows].T.contiguous(), columns).T
        return features

    def _drawn(self, values: Tensor, context: Tensor | None) -> Tensor:
        """Map base noise (D, n) to features (D, n)."""
        for step in self._steps:
            if isinstance(step, Tensor):
                values = values.index_select(0, step)
            else:
                values = step.draw(values, context)
        return values

    def _row_blocks(self, num_rows: int, num_features: int) -> Iterator[slice]:
        size = _ROWS
        if self._device.type != "cpu":
            blocks = [step for step in self._steps if isinstance(step, _PackedBlock)]
            num_parameters = num_features * max(block.num_parameters for block in blocks)
            size = max(_GPU_BYTES // (num_parameters * self._dtype.itemsize), 1)
        return (slice(first, first + size) for first in range(0, num_rows, size))


@dataclass(frozen=True)
class _PackedLayer:
    """A masked linear layer by panels of units; a unit may be several rows of the weight."""

    weight: Tensor
    bias: Tensor  # (out, 1)
    panels: tuple[Panel, ...]
    rows_per_unit: int

    @classmethod
    def of(
        cls,
        layer: MaskedLinear,
        rows: Tensor | None,
        columns: Tensor | None,
        *,
        rows_per_unit: int = 1,
    ) -> _PackedLayer:
        """Read a layer, its rows and columns in another order."""
        weight, bias, mask = layer.weight.detach(), layer.bias.detach(), layer.mask
        if rows is not None:
            weight, bias, mask = weight[rows], bias[rows], mask[rows]
        if columns is not None:
            weight, mask = weight[:, columns], mask[:, columns]
        panels = panels_of(mask[::rows_per_unit], _PANELS)
        return cls(weight * mask, bias[:, None], panels, rows_per_unit)

    def to(self, dtype: torch.dtype, device: torch.device) -> _PackedLayer:
        """Give the layer in a precision on a device."""
        weight, bias = self.weight.to(device, dtype), self.bias.to(device, dtype)
        return replace(self, weight=weight, bias=bias)

    def products(self, source: Tensor) -> Iterator[tuple[Panel, Tensor]]:
        """Give the rows (out, n) panel by panel."""
        for panel in self.panels:
            rows = slice(panel.start * self.rows_per_unit, panel.stop * self.rows_per_unit)
            weight = self.weight[rows, : panel.width]
            yield panel, torch.addmm(self.bias[rows], weight, source[: panel.width])

    def apply(self, source: Tensor) -> Tensor:
        """Give all rows (out, n)."""
        return torch.cat([product for _, product in self.products(source)])


class _PackedBlock:
    """The network of a block, ready to draw."""

    def __init__(
        self,
        transform: MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        made = transform.autoregressive_net
        self._shape = SplineShape.of(transform)
        self.num_parameters = self._shape.num_parameters
        hidden = [made.initial_layer, *(block.linear for block in made.blocks)]
        orders = [torch.argsort(layer.degrees, stable=True) for layer in hidden]
        self._hidden = [
            _PackedLayer.of(layer, rows, columns).to(dtype, device)
            for layer, rows, columns in zip(hidden, orders, [None, *orders[:-1]], strict=True)
        ]
        self._output = _PackedLayer.of(
            made.final_layer, None, orders[-1], rows_per_unit=self.num_parameters
        ).to(dtype, device)
        self._context: tuple[Tensor, Tensor] | None = None
        if hasattr(made, "context_layer"):
            reader = made.context_layer
            self._context = (
                reader.weight.detach()[orders[0]].to(device, dtype),
                reader.bias.detach()[orders[0], None].to(device, dtype),
            )

    def draw(self, values: Tensor, context: Tensor | None) -> Tensor:
        """Undo the splines of (D, n)."""
        units = self._hidden[0].apply(values)
        if self._context is not None:
            assert context is not None
            weight, bias = self._context
            # The context is activated on its own before the sum, as in nflows.
            units += torch.addmm(bias, weight, context).relu_()
        for layer in self._hidden[1:]:
            units = layer.apply(units.relu_())
        units.relu_()
        drawn = torch.empty_like(values)
        for panel, raw in self._output.products(units):
            own = values[panel.start : panel.stop]
            parameters = raw.view(len(own), self.num_parameters, -1)
            drawn[panel.start : panel.stop] = spline_inverse_features(own, parameters, self._shape)
        return drawn
