"""Exact inverse of masked autoregressive flows at the price of about one forward pass.

For any nflows 0.14 transform built on MADE: rational-quadratic with linear tails or affine,
feed-forward or residual blocks, with or without context, sequential or random masks, permutations
between, a `CompositeTransform` or a whole `Flow`. The result is nflows' own inverse up to
rounding; that is tested. Not here: inverse autoregressive flows, which are one pass already.

    from calo_train.nn import incremental_inverse
    features, log_abs_det = incremental_inverse(flow, base_noise, context)

As in nflows, the first feature of a transform depends on neither the others nor the context.
"""

from __future__ import annotations

import copy
import weakref
from abc import ABC, abstractmethod
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

from calo_train.errors import UsageError
from calo_train.nn.autoregressive_heads import AffineHead, Head, SplineHead, unsupported
from calo_train.nn.made_walk import WHERE, MadeWalk

if TYPE_CHECKING:
    from collections.abc import Iterator


class PackedFlow:
    """A flow packed for sampling; immutable: it does not follow later changes of the module."""

    def __init__(self, transform: nn.Module, *, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype = dtype
        self._device = device
        self._embedding: nn.Module | None = None
        if isinstance(transform, Flow):
            embedding = copy.deepcopy(transform._embedding_net)
            self._embedding = embedding.to(device, dtype).eval()
            transform = transform._transform
        self._steps = [_packed_step(item, dtype, device) for item in _flatten(transform)]

    @torch.no_grad()
    def inverse(self, base_noise: Tensor, context: Tensor | None = None) -> Tensor:
        """Map base noise (n, D) and context (n, C) to features (n, D).

        The context is what the flow itself takes, before its embedding network.
        """
        return self._invert(base_noise, context, None)

    @torch.no_grad()
    def inverse_with_log_det(
        self, base_noise: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Give features (n, D) and log|d features / d noise|, (n,)."""
        log_abs_det = torch.zeros(len(base_noise), dtype=self._dtype, device=self._device)
        return self._invert(base_noise, context, log_abs_det), log_abs_det

    def _invert(
        self, base_noise: Tensor, context: Tensor | None, log_abs_det: Tensor | None
    ) -> Tensor:
        values = base_noise.to(self._device, self._dtype)
        self._require_noise(values)
        if context is not None:
            context = context.to(self._device, self._dtype)
            if self._embedding is not None:
                context = self._embedding(context)
        values = values.T.contiguous()
        for step in reversed(self._steps):
            values = step.invert(values, context, log_abs_det)
        return values.T.contiguous()

    def _require_noise(self, noise: Tensor) -> None:
        expected = next((step.num_features for step in self._steps), None)
        if noise.ndim != 2 or noise.shape[1] != (expected or noise.shape[1]):
            raise UsageError(
                f"base noise has the shape {tuple(noise.shape)}, expected (n, {expected})",
                where=WHERE,
                do="give one row a shower and one column a feature",
            )
        is_finite = torch.isfinite(noise).all(dim=1)
        if not bool(is_finite.all()):
            rows = (~is_finite).nonzero().flatten()[:5].tolist()
            raise UsageError(
                "base noise holds NaN or infinite numbers",
                where=f"{WHERE}, rows {', '.join(map(str, rows))}",
                do="draw it from a normal distribution",
            )


def pack(
    transform: nn.Module, *, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> PackedFlow:
    """Pack a transform or flow once, to invert it many times; its own dtype and device by default.

    Raises UsageError for transforms that are not supported, and for training mode where dropout
    or batch normalisation makes it differ.
    """
    first = next(transform.parameters(), torch.empty(0))
    return PackedFlow(transform, dtype=dtype or first.dtype, device=device or first.device)


def incremental_inverse(
    transform: nn.Module,
    noise: Tensor,
    context: Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Give what nflows' own inverse gives: features (n, D) and log|det|, (n,).

    `context` is (n, C), before the embedding network where `transform` is a Flow. The packed
    weights are kept until a parameter or buffer changes; a change through `.data`, which torch
    does not count, goes unseen.
    """
    chosen = dtype or next(transform.parameters(), noise).dtype
    cached = _packs.get(transform)
    if cached is None or not cached.is_current(transform, chosen):
        cached = _Cached.of(transform, chosen)
        _packs[transform] = cached
    return cached.packed.inverse_with_log_det(noise, context)


class _Step(ABC):
    """One packed transform, inverted on feature-major values (features, n)."""

    num_features: int

    @abstractmethod
    def invert(self, values: Tensor, context: Tensor | None, log_abs_det: Tensor | None) -> Tensor:
        """Give features (features, n); add their log|det| to `log_abs_det` where it is wanted."""


class _PermutationStep(_Step):
    def __init__(self, transform: Permutation, device: torch.device) -> None:
        self._inverse = torch.argsort(transform._permutation).to(device)
        self.num_features = len(self._inverse)

    def invert(self, values: Tensor, context: Tensor | None, log_abs_det: Tensor | None) -> Tensor:
        del context, log_abs_det
        return values.index_select(0, self._inverse)


class _AutoregressiveStep(_Step):
    def __init__(self, walk: MadeWalk, head: Head) -> None:
        self._walk = walk
        self._head = head
        self.num_features = walk.num_features

    def invert(self, values: Tensor, context: Tensor | None, log_abs_det: Tensor | None) -> Tensor:
        def take_feature(index: int, parameters: Tensor) -> Tensor:
            return self._head.invert(values[index], parameters, log_abs_det)

        return self._walk.run(values.shape[1], context, take_feature)


def _flatten(transform: nn.Module) -> Iterator[nn.Module]:
    if isinstance(transform, CompositeTransform):
        for inner in transform._transforms:
            yield from _flatten(inner)
    else:
        yield transform


def _packed_step(transform: nn.Module, dtype: torch.dtype, device: torch.device) -> _Step:
    if isinstance(transform, Permutation):
        return _PermutationStep(transform, device)
    if not isinstance(transform, AutoregressiveTransform):
        raise unsupported(transform, "it is not a masked autoregressive transform")
    net = transform.autoregressive_net
    if not isinstance(net, MADE):
        raise unsupported(transform, f"its network is {type(net).__name__}, not MADE")
    head = _head(transform)
    walk = MadeWalk(net, dtype=dtype, device=device, output_scale=head.output_scale)
    return _AutoregressiveStep(walk, head)


def _head(transform: AutoregressiveTransform) -> Head:
    if isinstance(transform, MaskedPiecewiseRationalQuadraticAutoregressiveTransform):
        return SplineHead(transform)
    if isinstance(transform, MaskedAffineAutoregressiveTransform):
        return AffineHead(transform)
    raise unsupported(transform, "its map of a feature is not known here")


@dataclass(frozen=True)
class _Cached:
    """A pack with the state of the module that it was made from."""

    packed: PackedFlow
    dtype: torch.dtype
    training: tuple[bool, ...]
    weights: tuple[Tensor, ...]  # aliases, so that no other tensor can take over their memory
    versions: tuple[int | None, ...]

    @classmethod
    def of(cls, transform: nn.Module, dtype: torch.dtype) -> _Cached:
        weights = tuple(weight.detach() for weight in _weights(transform))
        versions = tuple(_version(weight) for weight in _weights(transform))
        return cls(pack(transform, dtype=dtype), dtype, _modes(transform), weights, versions)

    def is_current(self, transform: nn.Module, dtype: torch.dtype) -> bool:
        weights = tuple(_weights(transform))
        return (
            dtype == self.dtype
            and _modes(transform) == self.training
            and len(weights) == len(self.weights)
            and all(map(_is_same, weights, self.weights, self.versions))
        )


_packs: weakref.WeakKeyDictionary[nn.Module, _Cached] = weakref.WeakKeyDictionary()


def _weights(transform: nn.Module) -> Iterator[Tensor]:
    yield from transform.parameters()
    yield from transform.buffers()


def _modes(transform: nn.Module) -> tuple[bool, ...]:
    return tuple(module.training for module in transform.modules())


def _is_same(weight: Tensor, alias: Tensor, version: int | None) -> bool:
    is_alias = weight.data_ptr() == alias.data_ptr() and weight.dtype == alias.dtype
    return is_alias and version is not None and _version(weight) == version


def _version(weight: Tensor) -> int | None:
    """Count of in-place changes; None where torch does not count (inference mode)."""
    return None if weight.is_inference() else weight._version
