"""What an autoregressive transform does to one feature once its parameters are known.

A head is independent of the walk that computes the parameters. It maps in torch, for any device,
and writes itself as vector code for the compiled walk.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from calo_train.errors import UsageError
from calo_train.kernels.mathematics import log, softplus
from calo_train.nn.spline import SplineShape, spline_inverse, spline_inverse_features

if TYPE_CHECKING:
    from collections.abc import Callable

    from nflows.transforms import (
        MaskedAffineAutoregressiveTransform,
        MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    )

    from calo_train.kernels.values import Vector

SUPPORTED = (
    "masked affine and rational-quadratic autoregressive transforms, permutations, and "
    "compositions or flows of them"
)


class InvertedFeature(Protocol):
    """Vector code of one inverted feature."""

    @property
    def features(self) -> Vector:
        """The feature, in every lane."""

    def log_abs_det(self) -> Vector:
        """Write the code of log|d feature / d value|."""


class HeadCode(Protocol):
    """The inverse of a head as vector code; a value, equal for equal code."""

    def __hash__(self) -> int: ...

    def invert(
        self, value: Vector, parameter: Callable[[int], Vector], setting: Callable[[int], Vector]
    ) -> InvertedFeature:
        """Write the map of a base value with `parameter(i)` and numbers of its transform."""


class Head(ABC):
    """The inverse of the map of one feature."""

    code: HeadCode
    settings: tuple[float, ...]  # numbers of the transform that its code reads
    output_scale: Tensor | None = None  # (outputs,) factors on the parameters of every feature
    has_domain: bool = False  # whether values that lie elsewhere have no feature and give NaN

    @abstractmethod
    def invert(self, value: Tensor, parameters: Tensor, log_abs_det: Tensor | None) -> Tensor:
        """Map base values (n,) to features (n,) with parameters (outputs, n).

        Adds log|d feature / d value| to `log_abs_det` (n,) where it is wanted.
        """


class SplineHead(Head):
    """Rational-quadratic splines, with linear tails or on [0, 1]."""

    def __init__(self, transform: MaskedPiecewiseRationalQuadraticAutoregressiveTransform) -> None:
        self._shape = shape = SplineShape.of(transform)
        self.code = shape.kind
        self.settings = shape.settings
        self.has_domain = shape.tail_bound is None
        net = transform.autoregressive_net
        # nflows scales widths and heights down where the net tells its width; its own MADE does
        # not, but one that was patched to tell it was also trained so.
        if hasattr(net, "hidden_features"):
            self.output_scale = torch.ones(shape.num_parameters, dtype=torch.float64)
            self.output_scale[: 2 * transform.num_bins] /= math.sqrt(net.hidden_features)

    def invert(self, value: Tensor, parameters: Tensor, log_abs_det: Tensor | None) -> Tensor:
        """Solve the quadratic of the bin that each value fell into."""
        if log_abs_det is None:
            return spline_inverse_features(value, parameters, self._shape)
        features, log_slopes = spline_inverse(value, parameters, self._shape)
        log_abs_det += log_slopes
        return features


class AffineHead(Head):
    """x = (z - shift) / scale with scale = softplus(raw) + epsilon."""

    def __init__(self, transform: MaskedAffineAutoregressiveTransform) -> None:
        self._epsilon = float(transform._epsilon)
        self.code = AffineCode()
        self.settings = (self._epsilon,)

    def invert(self, value: Tensor, parameters: Tensor, log_abs_det: Tensor | None) -> Tensor:
        """Undo scale and shift."""
        scale = functional.softplus(parameters[0]) + self._epsilon
        if log_abs_det is not None:
            log_abs_det -= torch.log(scale)
        return (value - parameters[1]) / scale


@dataclass(frozen=True)
class AffineCode:
    """The affine head as vector code."""

    def invert(
        self, value: Vector, parameter: Callable[[int], Vector], setting: Callable[[int], Vector]
    ) -> InvertedFeature:
        """Undo scale and shift."""
        scale = softplus(parameter(0)) + setting(0)
        return _InvertedAffine((value - parameter(1)) / scale, scale)


@dataclass(frozen=True, eq=False)
class _InvertedAffine:
    features: Vector
    _scale: Vector

    def log_abs_det(self) -> Vector:
        return -log(self._scale)


def unsupported(transform: object, reason: str) -> UsageError:
    """Describe a transform that cannot be walked through."""
    return UsageError(
        f"{type(transform).__name__} cannot be inverted incrementally: {reason}",
        where="incremental inverse",
        do=f"supported are {SUPPORTED}",
    )
