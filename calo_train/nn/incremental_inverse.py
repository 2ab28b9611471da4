"""Exact inverse of masked autoregressive flows at the price of about one forward pass.

For any nflows 0.14 transform built on MADE: rational-quadratic with linear tails or affine,
feed-forward or residual blocks, with or without context, sequential or random masks, permutations
between, a `CompositeTransform` or a whole `Flow`. The result is nflows' own inverse up to
rounding; that is tested. Not here: inverse autoregressive flows, which are one pass already.

    from calo_train.nn import incremental_inverse
    features, log_abs_det = incremental_inverse(flow, base_noise, context)
"""

from __future__ import annotations

import copy
import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from nflows.flows import Flow
from nflows.transforms import (
    CompositeTransform,
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    Permutation,
)
from nflows.transforms.base import Transform
from torch import Tensor, nn
from torch.nn import functional

from calo_train.errors import UsageError
from calo_train.nn.made_walk import MadeWalk
from calo_train.nn.spline import SplineShape, spline_inverse

_SUPPORTED = (
    "masked affine and rational-quadratic (linear tails) autoregressive transforms, permutations "
    "and compositions of them"
)


class _Step(ABC):
    """One packed transform, inverted on feature-major values (features, n)."""

    @abstractmethod
    def invert(self, values: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Give features and their log|det|, (n,), or None where it is zero."""


class _PermutationStep(_Step):
    def __init__(self, transform: Permutation, device: torch.device) -> None:
        self._inverse = torch.argsort(transform._permutation).to(device)  # noqa: SLF001

    def invert(
        self, values: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        del context
        return values.index_select(0, self._inverse), None


class _SplineStep(_Step):
    """A MADE with rational-quadratic splines."""

    def __init__(
        self,
        transform: MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        if transform.tails != "linear":
            raise _unsupported(transform, "its splines have no tails")
        self._shape = SplineShape(
            transform.num_bins,
            float(transform.tail_bound),
            transform.min_bin_width,
            transform.min_bin_height,
            transform.min_derivative,
        )
        net = transform.autoregressive_net
        self._walk = MadeWalk(net, dtype=dtype, device=device)
        # nflows divides widths and heights so where the net tells its width; its own MADE does not.
        if hasattr(net, "hidden_features"):
            rows = slice(0, 2 * transform.num_bins)
            self._walk.scale_outputs(rows, 1 / math.sqrt(net.hidden_features))

    def invert(
        self, values: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        log_abs_det = torch.zeros_like(values[0])

        def take_feature(index: int, parameters: Tensor) -> Tensor:
            feature, log_slope, _ = spline_inverse(values[index], parameters, self._shape)
            log_abs_det.add_(log_slope)
            return feature

        return self._walk.run(values.shape[1], context, take_feature), log_abs_det


class _AffineStep(_Step):
    """A MADE with x = (z - shift) / scale, scale = softplus(raw) + epsilon."""

    def __init__(
        self, transform: MaskedAffineAutoregressiveTransform, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._epsilon = float(transform._epsilon)  # noqa: SLF001
        self._walk = MadeWalk(transform.autoregressive_net, dtype=dtype, device=device)

    def invert(
        self, values: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        log_abs_det = torch.zeros_like(values[0])

        def take_feature(index: int, parameters: Tensor) -> Tensor:
            scale = functional.softplus(parameters[0]) + self._epsilon
            log_abs_det.sub_(torch.log(scale))
            return (values[index] - parameters[1]) / scale

        return self._walk.run(values.shape[1], context, take_feature), log_abs_det


class PackedFlow:
    """A flow packed for sampling; immutable: it does not follow later changes of the module."""

    def __init__(self, transform: nn.Module, *, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype = dtype
        self._device = device
        self._embedding: nn.Module | None = None
        if isinstance(transform, Flow):
            embedding = copy.deepcopy(transform._embedding_net)  # noqa: SLF001
            self._embedding = embedding.to(device, dtype).eval()
            transform = transform._transform  # noqa: SLF001
        self._steps = [_packed_step(item, dtype, device) for item in _flatten(transform)]

    @torch.no_grad()
    def inverse(self, base_noise: Tensor, context: Tensor | None = None) -> Tensor:
        """Map base noise (n, D) and context (n, C) to features (n, D)."""
        return self.inverse_with_log_det(base_noise, context)[0]

    @torch.no_grad()
    def inverse_with_log_det(
        self, base_noise: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map base noise (n, D) to features (n, D) and give log|d features / d noise|, (n,)."""
        noise = base_noise.to(self._device, self._dtype)
        _require_numbers(noise)
        if context is not None:
            context = context.to(self._device, self._dtype)
            if self._embedding is not None:
                context = self._embedding(context)
        values = noise.T.contiguous()
        total = torch.zeros_like(values[0])
        for step in reversed(self._steps):
            values, log_abs_det = step.invert(values, context)
            if log_abs_det is not None:
                total += log_abs_det
        return values.T.contiguous(), total


def pack(
    transform: nn.Module, *, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> PackedFlow:
    """Pack a transform or flow once, to invert it many times; its own dtype and device if not given.

    Raises UsageError for transforms that are not supported, and for training mode with dropout.
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
    weights are kept until a parameter changes.
    """
    chosen = dtype or next(transform.parameters(), noise).dtype
    version = (chosen, *((p.data_ptr(), p._version) for p in transform.parameters()))  # noqa: SLF001
    cached = _packs.get(transform)
    if cached is None or cached[0] != version:
        cached = (version, pack(transform, dtype=chosen))
        _packs[transform] = cached
    return cached[1].inverse_with_log_det(noise, context)


_packs: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[object, ...], PackedFlow]] = (
    weakref.WeakKeyDictionary()
)


def _flatten(transform: nn.Module) -> Iterator[nn.Module]:
    if isinstance(transform, CompositeTransform):
        for inner in transform._transforms:  # noqa: SLF001
            yield from _flatten(inner)
    else:
        yield transform


def _packed_step(transform: nn.Module, dtype: torch.dtype, device: torch.device) -> _Step:
    if isinstance(transform, MaskedPiecewiseRationalQuadraticAutoregressiveTransform):
        return _SplineStep(transform, dtype, device)
    if isinstance(transform, MaskedAffineAutoregressiveTransform):
        return _AffineStep(transform, dtype, device)
    if isinstance(transform, Permutation):
        return _PermutationStep(transform, device)
    raise _unsupported(transform, "it is not built on MADE" if isinstance(transform, Transform) else "it is no transform")


def _unsupported(transform: nn.Module, reason: str) -> UsageError:
    return UsageError(
        f"{type(transform).__name__} cannot be inverted incrementally: {reason}",
        where="incremental inverse",
        do=f"supported are {_SUPPORTED}",
    )


def _require_numbers(noise: Tensor) -> None:
    if noise.ndim != 2:
        raise UsageError(
            f"base noise has the shape {tuple(noise.shape)}, expected (n, features)",
            where="incremental inverse",
            do="give one row a shower",
        )
    if not bool(torch.isfinite(noise).all()):
        rows = (~torch.isfinite(noise).all(dim=1)).nonzero().flatten()[:5].tolist()
        raise UsageError(
            "base noise holds NaN or infinite numbers",
            where=f"incremental inverse, rows {rows}",
            do="draw it from a normal distribution",
        )
