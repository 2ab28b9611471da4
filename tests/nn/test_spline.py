"""The branch-free spline against nflows in float64, and by its own properties."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nflows.transforms import MaskedPiecewiseRationalQuadraticAutoregressiveTransform
from nflows.transforms.splines import unconstrained_rational_quadratic_spline
from torch import Tensor

from calo_train.nn.flows import MaskedSplineFlow
from calo_train.nn.spline import SplineShape, spline_forward, spline_inverse

_VALUES = 400
# Rounding moves the inverse by eps / slope, so differences count in units of 1 / slope: seen are
# 3e-12 for values and 1e-9 for logarithms, for slopes down to 1e-6.
_CLOSE = 1e-10
_LOG_CLOSE = 1e-7


def _reference(
    values: Tensor, parameters: Tensor, shape: SplineShape, *, inverse: bool
) -> tuple[Tensor, Tensor]:
    per_value = parameters.movedim(0, -1)
    bins = shape.num_bins
    result: tuple[Tensor, Tensor] = unconstrained_rational_quadratic_spline(
        values,
        per_value[..., :bins],
        per_value[..., bins : 2 * bins],
        per_value[..., 2 * bins :],
        inverse=inverse,
        tails="linear",
        tail_bound=shape.tail_bound,
        min_bin_width=shape.min_width,
        min_bin_height=shape.min_height,
        min_derivative=shape.min_derivative,
    )
    return result


def _knots(parameters: Tensor, shape: SplineShape) -> Tensor:
    """Inner knots of each spline on the feature side, (K - 1, n)."""
    shares = torch.softmax(parameters[: shape.num_bins], dim=0)
    widths = shape.min_width + (1 - shape.num_bins * shape.min_width) * shares
    return shape.tail_bound * (2 * widths.cumsum(dim=0)[:-1] - 1)


@st.composite
def splines(draw: st.DrawFn) -> tuple[Tensor, Tensor, SplineShape]:
    """Values inside, outside, near the ends and near knots of flat to strongly curved splines."""
    bins = draw(st.integers(2, 12))
    bound = draw(st.sampled_from([1.0, 3.0, 14.0]))
    smallest = draw(st.sampled_from([1e-6, 1e-3]))
    shape = SplineShape(bins, bound, smallest, smallest, smallest)
    spread = draw(st.sampled_from([0.1, 1.0, 3.0]))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    parameters = spread * torch.randn(3 * bins - 1, _VALUES, generator=random, dtype=torch.float64)
    values = bound * (2.4 * torch.rand(_VALUES, generator=random, dtype=torch.float64) - 1.2)
    values[:4] = torch.tensor([-bound, bound, 0.0, 10 * bound], dtype=torch.float64)
    columns = torch.arange(4, 3 + bins)
    shift = draw(st.sampled_from([0.0, 1e-13, -1e-13, 1e-7, -1e-7]))
    values[columns] = _knots(parameters, shape)[columns - 4, columns] + shift
    return values, parameters, shape


@settings(max_examples=60, deadline=None)
@given(splines())
def test_both_directions_equal_nflows(case: tuple[Tensor, Tensor, SplineShape]) -> None:
    values, parameters, shape = case
    outputs, log_slope = spline_forward(values, parameters, shape)
    expected, expected_log_slope = _reference(values, parameters, shape, inverse=False)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=_CLOSE)
    torch.testing.assert_close(log_slope, expected_log_slope, rtol=0, atol=_LOG_CLOSE)
    solved = spline_inverse(values, parameters, shape)
    expected, expected_log_det = _reference(values, parameters, shape, inverse=True)
    slope = torch.exp(-expected_log_det).clamp(max=1.0)
    assert ((solved.features - expected) * slope).abs().max() < _CLOSE
    assert ((solved.log_abs_det() - expected_log_det) * slope).abs().max() < _LOG_CLOSE


@settings(max_examples=60, deadline=None)
@given(splines())
def test_inverse_undoes_forward(case: tuple[Tensor, Tensor, SplineShape]) -> None:
    values, parameters, shape = case
    outputs, log_slope = spline_forward(values, parameters, shape)
    solved = spline_inverse(outputs, parameters, shape)
    slope = torch.exp(log_slope).clamp(max=1.0)
    assert ((solved.features - values) * slope).abs().max() < _CLOSE
    assert ((solved.log_abs_det() + log_slope) * slope).abs().max() < _LOG_CLOSE


def test_outside_the_square_is_the_identity() -> None:
    parameters = torch.randn(14, 5, generator=torch.Generator().manual_seed(1))
    values = torch.tensor([-7.0, -3.0001, 3.0001, 1e30, torch.nan])
    shape = SplineShape(5, 3.0, 1e-3, 1e-3, 1e-3)
    solved = spline_inverse(values, parameters, shape)
    outputs, log_slope = spline_forward(values, parameters, shape)
    for mapped, log_det in ((solved.features, solved.log_abs_det()), (outputs, log_slope)):
        torch.testing.assert_close(mapped, values, rtol=0, atol=0, equal_nan=True)
        assert not log_det.any()


def test_float32_stays_finite_and_in_its_square_for_nearly_degenerate_bins() -> None:
    """Slopes from 1e-6 to 1e6: an unguarded inverse leaves its bin or takes a negative root."""
    random = torch.Generator().manual_seed(5)
    shape = SplineShape(8, 6.0, 1e-6, 1e-6, 1e-6)
    parameters = 30 * torch.randn(23, 300_000, generator=random)
    values = 12 * torch.rand(300_000, generator=random) - 6
    solved = spline_inverse(values, parameters, shape)
    assert not solved.is_clamped().any()  # in this form the root stays real even here
    assert torch.isfinite(solved.features).all()
    assert torch.isfinite(solved.log_abs_det()).all()
    assert (solved.features.abs() <= 6 * (1 + 1e-6)).all()


def test_training_direction_of_a_flow_has_nflows_values_and_gradients() -> None:
    torch.manual_seed(3)
    flow = MaskedSplineFlow(2, 1, 16, 8, 14.0, "reverse", 1e-6, 0.0).build(6, 2).double()
    features, context = 8 * torch.randn(50, 6).double(), torch.randn(50, 2).double()
    loss = -flow.log_prob(features, context=context).mean()
    loss.backward()
    ours = [parameter.grad.clone() for parameter in flow.parameters()]
    flow.zero_grad()
    for transform in flow._transform._transforms[1::2]:
        transform.__class__ = MaskedPiecewiseRationalQuadraticAutoregressiveTransform
    theirs = -flow.log_prob(features, context=context).mean()
    theirs.backward()
    torch.testing.assert_close(loss, theirs, rtol=1e-10, atol=0)
    for mine, parameter in zip(ours, flow.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-7, atol=1e-9)
