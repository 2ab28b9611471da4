"""The rational-quadratic spline, differentiable in both directions.

Values are (..., n), parameters (..., P, n), as feature-major networks give them: K widths, K
heights, then the slopes at the inner knots or, without tails, at all knots. The backward pass is
analytic and computes again what it needs, so that nothing but the arguments is kept between the
passes; it is itself differentiable, maps under `torch.func.vmap`, compiles and exports. On a CPU
both passes are compiled kernels where torch is neither transforming nor recording.

    values, log_slopes = spline_forward(features, parameters, shape)
    features, log_abs_det = spline_inverse(values, parameters, shape)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function

from calo_train.errors import UsageError
from calo_train.nn import rational_quadratic, spline_kernel
from calo_train.nn.rational_quadratic import SplineShape

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["SplineShape", "spline_forward", "spline_inverse", "spline_inverse_features"]

Pair: TypeAlias = tuple[Tensor, Tensor]
_Arguments: TypeAlias = tuple[Tensor, Tensor, SplineShape]
_Gradients: TypeAlias = tuple[Tensor, Tensor | None, None]


def spline_forward(features: Tensor, parameters: Tensor, shape: SplineShape) -> Pair:
    """Map features to base values and give log|d value / d feature|."""
    return _apply(_Forward, features, parameters, shape)


def spline_inverse(values: Tensor, parameters: Tensor, shape: SplineShape) -> Pair:
    """Map base values to features and give log|d feature / d value|."""
    return _apply(_Inverse, values, parameters, shape)


def spline_inverse_features(values: Tensor, parameters: Tensor, shape: SplineShape) -> Tensor:
    """Map base values to features, without a gradient: for drawing."""
    with torch.no_grad():
        parameters = _checked(values, parameters, shape)
        features: Tensor = _formulas(values, parameters).inverse_features(
            values, parameters, shape
        )
        return features


def _apply(
    direction: type[Function], given: Tensor, parameters: Tensor, shape: SplineShape
) -> Pair:
    parameters = _checked(given, parameters, shape)
    # torch gives `apply` no types.
    mapped: Pair = direction.apply(given, parameters, shape)  # type: ignore[no-untyped-call]
    return mapped


def _checked(given: Tensor, parameters: Tensor, shape: SplineShape) -> Tensor:
    """Give the parameters in the precision of the values; UsageError for another shape."""
    expected = (*given.shape[:-1], shape.num_parameters, given.shape[-1])
    if parameters.shape != expected:
        raise UsageError(
            f"parameters of splines have the shape {tuple(parameters.shape)}, "
            f"expected {tuple(expected)}",
            where=f"splines of {shape.num_bins} bins, values {tuple(given.shape)}",
            do="put the axis of parameters second to last",
        )
    return parameters.to(given.dtype)


def _formulas(*tensors: Tensor) -> ModuleType:
    """Choose who computes: two modules with the same functions."""
    return spline_kernel if spline_kernel.can_serve(*tensors) else rational_quadratic


def _gradient_formulas(*tensors: Tensor) -> ModuleType:
    """Choose likewise for a backward pass; one that is differentiated again is torch's."""
    return rational_quadratic if torch.is_grad_enabled() else _formulas(*tensors)


class _Forward(Function):
    """Features to values and log-slopes; keeps its arguments only."""

    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, parameters: Tensor, shape: SplineShape) -> Pair:
        mapped: Pair = _formulas(features, parameters).forward(features, parameters, shape)
        return mapped

    @staticmethod
    def setup_context(ctx: Any, inputs: _Arguments, output: Pair) -> None:  # noqa: ARG004
        features, parameters, ctx.shape = inputs
        ctx.save_for_backward(features, parameters)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> _Gradients:
        features, parameters = ctx.saved_tensors
        formulas = _gradient_formulas(features, parameters, *upstream)
        return *formulas.forward_gradients(
            features, parameters, upstream, ctx.shape, wants_parameters=ctx.needs_input_grad[1]
        ), None


class _Inverse(Function):
    """Values to features and log|det|; keeps the features and the parameters."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, parameters: Tensor, shape: SplineShape) -> Pair:
        mapped: Pair = _formulas(values, parameters).inverse(values, parameters, shape)
        return mapped

    @staticmethod
    def setup_context(ctx: Any, inputs: _Arguments, output: Pair) -> None:
        _, parameters, ctx.shape = inputs
        ctx.save_for_backward(output[0], parameters)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> _Gradients:
        features, parameters = ctx.saved_tensors
        formulas = _gradient_formulas(features, parameters, *upstream)
        return *formulas.inverse_gradients(
            features, parameters, upstream, ctx.shape, wants_parameters=ctx.needs_input_grad[1]
        ), None
