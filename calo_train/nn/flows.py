"""Masked autoregressive spline flows, as nflows builds them.

One construction serves every flow of the house, so that parameter names, masks and published
parameter counts are those of nflows 0.14 (Durkan et al., arXiv:1906.04032; Papamakarios et al.,
arXiv:1705.07057). Which way is fast: `log_prob` is one network pass; drawing is
`calo_train.nn.incremental_inverse`, never `Flow.sample`, which needs one pass a feature.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows import Flow
from nflows.transforms import (
    CompositeTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
)
from nflows.transforms.made import MaskedLinear
from nflows.transforms.permutations import Permutation
from torch import Tensor, nn

from calo_train.nn.spline import SplineShape, spline_forward

if TYPE_CHECKING:
    from collections.abc import Sequence

WHERE = "masked spline flow"


@dataclass(frozen=True)
class MaskedSplineFlow:
    """Shape of a stack of MADE blocks with rational-quadratic splines.

    Each block holds `num_hidden_layers` + 1 hidden layers of `hidden_features`. Permutations by
    kind: "random" or "reverse", one before each block (L2LFlows); "random_after", one after each
    block (CaloFlow's layer energies); "alternating", a reversal and a random one in turn between
    the blocks (voxels of CaloFlow, iCaloFlow, SuperCalo).
    """

    num_blocks: int
    num_hidden_layers: int
    hidden_features: int
    num_bins: int
    tail_bound: float
    permutation: str
    min_bin: float
    dropout: float

    def build(
        self,
        features: int,
        context_features: int,
        embedding_net: nn.Module | None = None,
        *,
        groups: Sequence[int] | None = None,
    ) -> Flow:
        """Build the flow over (n, features) with base N(0, 1), its weights from torch's RNG.

        `context_features` is what enters the blocks, after `embedding_net` where there is one; 0
        is a flow without context. Features are permuted inside `groups`, sizes of consecutive
        runs; None is one run.
        """
        sizes = [features] if groups is None else list(groups)
        assert sum(sizes) == features
        transforms: list[nn.Module] = []
        for number in range(self.num_blocks):
            if self.permutation in ("random", "reverse"):
                transforms.append(_permuted(self.permutation, sizes))
            transforms.append(self._block(features, context_features or None))
            if self.permutation == "random_after":
                transforms.append(_permuted("random", sizes))
            elif self.permutation == "alternating" and number < self.num_blocks - 1:
                transforms.append(_permuted("random" if number % 2 else "reverse", sizes))
        return Flow(CompositeTransform(transforms), StandardNormal([features]), embedding_net)

    def _block(self, features: int, context_features: int | None) -> nn.Module:
        return MaskedSplineTransform(
            features=features,
            hidden_features=self.hidden_features,
            context_features=context_features,
            num_bins=self.num_bins,
            tails="linear",
            tail_bound=self.tail_bound,
            num_blocks=self.num_hidden_layers,
            use_residual_blocks=False,
            random_mask=False,
            activation=torch.relu,
            dropout_probability=self.dropout,
            use_batch_norm=False,
            min_bin_width=self.min_bin,
            min_bin_height=self.min_bin,
            min_derivative=self.min_bin,
        )


def _permuted(kind: str, sizes: Sequence[int]) -> Permutation:
    """Permute features inside runs of these sizes, "random" or "reverse"."""
    starts = itertools.accumulate(sizes, initial=0)
    orders = [
        start + (torch.randperm(size) if kind == "random" else torch.arange(size).flip(0))
        for start, size in zip(starts, sizes, strict=False)
    ]
    return Permutation(torch.cat(orders))


class MaskedSplineTransform(MaskedPiecewiseRationalQuadraticAutoregressiveTransform):  # type: ignore[misc]
    """nflows' transform with the branch-free spline in the training direction.

    Same parameters, same values; nflows selects by boolean masks there, which costs more than the
    networks.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.autoregressive_net.final_layer.__class__ = _FeatureMajorLinear

    def _elementwise_forward(
        self, inputs: Tensor, autoregressive_params: Tensor
    ) -> tuple[Tensor, Tensor]:
        shape = SplineShape.of(self)
        shape.require_domain(inputs, WHERE)
        rows = autoregressive_params.view(*inputs.shape, shape.num_parameters)
        parameters = rows.permute(1, 2, 0)  # (features, P, n), as they lie in memory
        outputs, log_slopes = spline_forward(inputs.T, parameters, shape)
        return outputs.T, log_slopes.sum(dim=0)


class _FeatureMajorLinear(MaskedLinear):  # type: ignore[misc]
    """nflows' masked layer, its result (n, outputs) in memory as the spline reads it: transposed.

    Turning the parameters of all splines around, and their gradients back, takes longer than the
    splines.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Give x W^T + b."""
        return torch.addmm(self.bias[:, None], self.weight * self.mask, x.T).T


def embedding_network(num_inputs: int, hidden: Sequence[int], num_outputs: int) -> nn.Sequential:
    """Build a fully connected network with ReLU between its layers."""
    widths = [num_inputs, *hidden, num_outputs]
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def count_parameters(module: nn.Module) -> int:
    """Count the trainable numbers of a module, masked ones included, as published tables do."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
