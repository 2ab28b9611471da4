"""An nflows transform or flow read into steps: permutations and MADEs with their heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from nflows.flows import Flow
from nflows.transforms import (
    CompositeTransform,
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    Permutation,
)
from nflows.transforms.autoregressive import AutoregressiveTransform
from nflows.transforms.made import MADE
from torch import Tensor, nn

from calo_train.nn.autoregressive_heads import AffineHead, Head, SplineHead, unsupported
from calo_train.nn.made_layers import SortedMade, require_deterministic

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class PermutationStep:
    """A permutation; undoing it, feature j is what stands at inverse[j]."""

    inverse: Tensor  # (features,)

    @property
    def num_features(self) -> int:
        return len(self.inverse)


@dataclass(frozen=True)
class MadeStep:
    """A masked autoregressive transform: its network by degree and its head."""

    made: SortedMade
    head: Head

    @property
    def num_features(self) -> int:
        return self.made.num_features


@dataclass(frozen=True)
class FlowSteps:
    """The steps of a flow in the direction of training, and the network before its context."""

    steps: tuple[PermutationStep | MadeStep, ...]
    embedding: nn.Module | None

    @property
    def num_features(self) -> int:
        return self.steps[0].num_features

    @property
    def num_context(self) -> int | None:
        """Width of the context that the flow takes; None where no network tells it."""
        if self.embedding is not None:
            first = next((m for m in self.embedding.modules() if isinstance(m, nn.Linear)), None)
            return None if first is None else first.in_features
        widths = (step.made.num_context for step in self.steps if isinstance(step, MadeStep))
        return max(widths, default=0)

    @property
    def embedding_layers(self) -> list[tuple[nn.Linear, bool]] | None:
        """Linear layers of the embedding, each with whether a ReLU follows; None for others."""
        found: list[tuple[nn.Linear, bool]] = []
        modules = [] if self.embedding is None else list(self.embedding.children())
        if modules and not isinstance(self.embedding, nn.Sequential):
            return None
        for module in modules or ([self.embedding] if self.embedding is not None else []):
            if isinstance(module, nn.Linear) and module.bias is not None:
                found.append((module, False))
            elif isinstance(module, nn.ReLU) and found:
                found[-1] = (found[-1][0], True)
            else:
                return None
        return found


def read_flow(transform: nn.Module) -> FlowSteps:
    """Read a flow; UsageError names a transform that is not supported."""
    embedding = None
    if isinstance(transform, Flow):
        if not isinstance(transform._embedding_net, nn.Identity):
            embedding = transform._embedding_net
            require_deterministic(embedding)
        transform = transform._transform
    steps = tuple(_step(item) for item in _flatten(transform))
    if not steps:
        raise unsupported(transform, "it holds no transform")
    return FlowSteps(steps, embedding)


def _flatten(transform: nn.Module) -> Iterator[nn.Module]:
    if isinstance(transform, CompositeTransform):
        for inner in transform._transforms:
            yield from _flatten(inner)
    else:
        yield transform


def _step(transform: nn.Module) -> PermutationStep | MadeStep:
    if isinstance(transform, Permutation):
        return PermutationStep(torch.argsort(transform._permutation).cpu())
    if not isinstance(transform, AutoregressiveTransform):
        raise unsupported(transform, "it is not a masked autoregressive transform")
    net = transform.autoregressive_net
    if not isinstance(net, MADE):
        raise unsupported(transform, f"its network is {type(net).__name__}, not MADE")
    return MadeStep(SortedMade.of(net), _head(transform))


def _head(transform: AutoregressiveTransform) -> Head:
    if isinstance(transform, MaskedPiecewiseRationalQuadraticAutoregressiveTransform):
        return SplineHead(transform)
    if isinstance(transform, MaskedAffineAutoregressiveTransform):
        return AffineHead(transform)
    raise unsupported(transform, "its map of a feature is not known here")
