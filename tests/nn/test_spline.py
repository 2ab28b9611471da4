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
_AGREEMENT = 1e-9  # float64, splines with slopes between 1e-3 and 1e3


def _reference(values: Tensor, parameters: Tensor, shape: SplineShape, *, inverse: bool) -> tuple[Tensor, Tensor]:
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


@st.composite
def splines(draw: st.DrawFn) -> tuple[Tensor, Tensor, SplineShape]:
    """Values inside, outside and near the ends of random splines, from flat to strongly curved."""
    bins = draw(st.integers(2, 12))
    bound = draw(st.sampled_from([1.0, 3.0, 14.0]))
    smallest = draw(st.sampled_from([1e-6, 1e-3]))
    spread = draw(st.sampled_from([0.1, 1.0, 3.0]))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    parameters = spread * torch.randn(3 * bins - 1, _VALUES, generator=random, dtype=torch.float64)
    values = bound * (2.4 * torch.rand(_VALUES, generator=random, dtype=torch.float64) - 1.2)
    values[:4] = torch.tensor([-bound, bound, 0.0, 10 * bound], dtype=torch.float64)
    return values, parameters, SplineShape(bins, bound, smallest, smallest, smallest)


@settings(max_examples=60, deadline=None)
@given(splines())
def test_both_directions_equal_nflows(case: tuple[Tensor, Tensor, SplineShape]) -> None:
    values, parameters, shape = case
    outputs, log_slope = spline_forward(values, parameters, shape)
    expected, expected_log_slope = _reference(values, parameters, shape, inverse=False)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=_AGREEMENT)
    torch.testing.assert_close(log_slope, expected_log_slope, rtol=0, atol=1e-7)
    features, log_slope, _ = spline_inverse(values, parameters, shape)
    expected, expected_log_slope = _reference(values, parameters, shape, inverse=True)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(log_slope, expected_log_slope, rtol=0, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(splines())
def test_inverse_undoes_forward(case: tuple[Tensor, Tensor, SplineShape]) -> None:
    values, parameters, shape = case
    outputs, log_slope = spline_forward(values, parameters, shape)
    again, _, _ = spline_inverse(outputs, parameters, shape)
    # Where the spline is flat a last-bit change of the value moves the feature by 1 / slope.
    allowed = 1e-9 * (1 + torch.exp(-log_slope))
    assert ((again - values).abs() <= allowed).all()


def test_float32_is_finite_and_inside_for_nearly_degenerate_bins() -> None:
    """Slopes from 1e-6 to 1e6: an unguarded inverse leaves its bin or takes a negative root."""
    random = torch.Generator().manual_seed(5)
    shape = SplineShape(8, 6.0, 1e-6, 1e-6, 1e-6)
    parameters = 30 * torch.randn(23, 100_000, generator=random)
    values = 12 * torch.rand(100_000, generator=random) - 6
    features, log_slope, _ = spline_inverse(values, parameters, shape)
    assert torch.isfinite(features).all()
    assert torch.isfinite(log_slope).all()
    assert (features.abs() <= 6.0001).all()


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
