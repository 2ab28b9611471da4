"""Exact inverse of masked autoregressive flows at the price of about one forward pass.

For any nflows 0.14 transform built on MADE: rational-quadratic or affine, feed-forward or residual
blocks, with or without context, sequential or random masks, permutations between, a
`CompositeTransform` or a whole `Flow`. The result is nflows' own inverse up to rounding; that is
tested. Not here: inverse autoregressive flows, which are one pass already.

    from calo_train.nn import incremental_inverse
    features, log_abs_det = incremental_inverse(flow, base_noise, context)

As in nflows, the first feature of a transform depends on neither the others nor the context.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calo_train.nn.packed_flow import PackedFlow, pack

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor, nn


def incremental_inverse(
    transform: nn.Module,
    noise: Tensor,
    context: Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Give what nflows' own inverse gives: features (n, D) and log|det|, (n,).

    `context` is (n, C), before the embedding network where `transform` is a Flow. `dtype` is the
    precision of the computation, by default the transform's; `backend` is one of
    `calo_train.nn.packed_flow.BACKENDS`. The packed weights are kept until a parameter or buffer
    changes; a change through `.data`, which torch does not count, goes unseen.
    """
    settings = (dtype or next(transform.parameters(), noise).dtype, backend)
    cached = _packs.get(transform)
    if cached is None or not cached.is_current(transform, settings):
        cached = _Cached.of(transform, settings)
        _packs[transform] = cached
    return cached.packed.inverse_with_log_det(noise, context)


@dataclass(frozen=True)
class _Cached:
    """A pack with the state of the module that it was made from."""

    packed: PackedFlow
    settings: tuple[torch.dtype, str]
    training: tuple[bool, ...]
    weights: tuple[Tensor, ...]  # aliases, so that no other tensor can take over their memory
    versions: tuple[int | None, ...]

    @classmethod
    def of(cls, transform: nn.Module, settings: tuple[torch.dtype, str]) -> _Cached:
        weights = tuple(weight.detach() for weight in _weights(transform))
        versions = tuple(_version(weight) for weight in _weights(transform))
        dtype, backend = settings
        packed = pack(transform, dtype=dtype, backend=backend)
        return cls(packed, settings, _modes(transform), weights, versions)

    def is_current(self, transform: nn.Module, settings: tuple[torch.dtype, str]) -> bool:
        weights = tuple(_weights(transform))
        return (
            settings == self.settings
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
