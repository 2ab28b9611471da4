"""The branch-free spline against nflows in float64, and by its own properties."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nflows.transforms import MaskedPiecewiseRationalQuadraticAutoregressiveTransform
from nflows.transforms.splines import (
    rational_quadratic_spline,
    unconstrained_rational_quadratic_spline,
)
from torch import Tensor, nn

from calo_train.errors import UsageError
from calo_train.nn import rational_quadratic, spline_kernel
from calo_train.nn.flows import MaskedSplineFlow, MaskedSplineTransform
from calo_train.nn.spline import SplineShape, spline_forward, spline_inverse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

_VALUES = 400
# Both sides round their knots and values, as if a value had moved by this share of the square;
# what that does is allowed for beside the bounds below.
_ROUNDING = 8 * torch.finfo(torch.float64).eps
# nflows takes log(1 + e^x) as x beyond 20: 1e-10 of a slope, seen over a square of 28.
_CLOSE = 1e-8
_LOG_CLOSE = 1e-7
# In nearly degenerate bins nflows takes differences of nearly equal numbers: in its gradients, and
# in the root of its inverse.
_GRADIENT_CLOSE = 1e-6
_INVERSE_LOG_CLOSE = 1e-5


@dataclass(frozen=True)
class Case:
    """Values (..., n) at splines with parameters (..., P, n)."""

    shape: SplineShape
    spread: float
    shift: float
    seed: int
    values: Tensor = field(repr=False)
    parameters: Tensor = field(repr=False)


def _reference(
    values: Tensor, parameters: Tensor, shape: SplineShape, *, inverse: bool
) -> tuple[Tensor, Tensor]:
    bins = shape.num_bins
    rows = parameters.movedim(-2, -1)
    arguments = (values, rows[..., :bins], rows[..., bins : 2 * bins], rows[..., 2 * bins :])
    options = {
        "inverse": inverse,
        "min_bin_width": shape.min_width,
        "min_bin_height": shape.min_height,
        "min_derivative": shape.min_derivative,
    }
    result: tuple[Tensor, Tensor]
    if shape.tail_bound is None:
        result = rational_quadratic_spline(*arguments, **options)
    else:
        result = unconstrained_rational_quadratic_spline(
            *arguments, **options, tails="linear", tail_bound=shape.tail_bound
        )
    return result


def _knots(parameters: Tensor, shape: SplineShape) -> Tensor:
    """Inner knots of each spline on the feature side, (K - 1, n)."""
    shares = torch.softmax(parameters[: shape.num_bins], dim=0)
    widths = shape.min_width + (1 - shape.num_bins * shape.min_width) * shares
    return shape.low + (shape.high - shape.low) * widths.cumsum(dim=0)[:-1]


@st.composite
def splines(draw: st.DrawFn) -> Case:
    """Inside, outside, near the ends and near knots of flat to nearly degenerate splines."""
    bins = draw(st.sampled_from([1, 2, 5, 8, 12]))
    bound = draw(st.sampled_from([1.0, 3.0, 14.0, None]))
    smallest, spread = draw(
        st.sampled_from([(1e-6, 0.1), (1e-6, 3.0), (1e-3, 1.0), (1e-3, 10.0), (1e-3, 30.0)])
        | st.just((1e-3, 100.0))
    )
    shape = SplineShape(bins, bound, smallest, draw(st.sampled_from([smallest, 1e-2])), smallest)
    shift = draw(st.sampled_from([0.0, 1e-13, -1e-13, 1e-7, -1e-7]))
    seed = draw(st.integers(0, 2**31))
    random = torch.Generator().manual_seed(seed)
    parameters = torch.randn(shape.num_parameters, _VALUES, generator=random, dtype=torch.float64)
    parameters *= spread
    uniform = torch.rand(_VALUES, generator=random, dtype=torch.float64)
    uniform[:3] = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
    values = shape.low + (shape.high - shape.low) * uniform
    columns = torch.arange(4, 3 + bins)
    values[columns] = _knots(parameters, shape)[columns - 4, columns] + shift
    if bound is not None:
        values[20:30] *= 3
        values[3] = 10 * bound
    return Case(shape, spread, shift, seed, values.requires_grad_(), parameters.requires_grad_())


def _assert_equal_within_rounding(
    compute: Callable[[Tensor], Sequence[Tensor]],
    argument: Tensor,
    expected: Sequence[Tensor],
    shape: SplineShape,
    bounds: Sequence[float],
) -> None:
    """Compare what `compute` gives with bounds relative to max(1, |expected|).

    Where a little move of the argument changes much, as at a knot, where log-slopes have two
    derivatives, or in nearly degenerate bins, as much is allowed for.
    """
    found = compute(argument)
    allowed = [torch.zeros_like(item) for item in found]
    is_inside = (argument >= shape.low) & (argument <= shape.high)
    for move in (-_ROUNDING, _ROUNDING):
        moved = argument + move * (shape.high - shape.low)
        moved = torch.where(is_inside, moved.clamp(shape.low, shape.high), argument)
        allowed = [
            torch.maximum(most, (item - other).abs())
            for most, item, other in zip(allowed, found, compute(moved), strict=True)
        ]
    for item, other, most, bound in zip(found, expected, allowed, bounds, strict=True):
        # Gradients by the parameters of one spline are differences of numbers as large as any.
        scale = other.abs() if other.ndim == 1 else other.abs().amax(dim=0)
        excess = (item - other).abs() / (10 * most + bound * scale.clamp(min=1.0))
        assert excess.max() < 1


# Both are the same formulas: in torch, and as a compiled kernel.
FORMULAS = pytest.mark.parametrize("formulas", [rational_quadratic, spline_kernel])


@FORMULAS
@settings(max_examples=60, deadline=None)
@given(case=splines())
def test_forward_equals_nflows_with_its_gradients(case: Case, formulas: ModuleType) -> None:
    values, parameters, shape = case.values, case.parameters, case.shape
    random = torch.Generator().manual_seed(case.seed + 1)
    upstream = tuple(torch.randn(2, _VALUES, generator=random, dtype=torch.float64))
    mapped = _reference(values, parameters, shape, inverse=False)
    gradients = torch.autograd.grad(mapped, (values, parameters), upstream)

    def compute(features: Tensor) -> list[Tensor]:
        arguments = (features, parameters.detach())
        options = {"shape": shape, "wants_parameters": True}
        return [
            *formulas.forward(*arguments, shape),
            *formulas.forward_gradients(*arguments, upstream, **options),
        ]

    expected = [item.detach() for item in (*mapped, *gradients)]
    bounds = (_CLOSE, _LOG_CLOSE, _GRADIENT_CLOSE, _GRADIENT_CLOSE)
    _assert_equal_within_rounding(compute, values.detach(), expected, shape, bounds)


@FORMULAS
@settings(max_examples=40, deadline=None)
@given(case=splines())
@torch.no_grad()
def test_inverse_equals_nflows(case: Case, formulas: ModuleType) -> None:
    values, parameters, shape = case.values, case.parameters, case.shape
    try:
        expected = _reference(values, parameters, shape, inverse=True)
    except AssertionError:  # nflows does not clip a discriminant that rounds below zero
        return
    _assert_equal_within_rounding(
        lambda moved: formulas.inverse(moved, parameters, shape),
        values,
        expected,
        shape,
        bounds=(_CLOSE, _INVERSE_LOG_CLOSE),
    )
    features, _ = formulas.inverse(values, parameters, shape)
    assert torch.equal(formulas.inverse_features(values, parameters, shape), features)


@FORMULAS
@settings(max_examples=40, deadline=None)
@given(case=splines())
@torch.no_grad()
def test_inverse_undoes_forward(case: Case, formulas: ModuleType) -> None:
    values, parameters, shape = case.values, case.parameters, case.shape
    outputs, log_slope = formulas.forward(values, parameters, shape)
    _assert_equal_within_rounding(
        lambda moved: formulas.inverse(moved, parameters, shape),
        outputs,
        (values, -log_slope),
        shape,
        bounds=(_CLOSE, _LOG_CLOSE),
    )


def _curved(
    tail_bound: float | None,
    *,
    shape: tuple[int, ...] = (2, 7),
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, SplineShape]:
    """Splines of 4 bins at random places, with unequal smallest sizes."""
    random = torch.Generator().manual_seed(2)
    kind = SplineShape(4, tail_bound, 1e-3, 1e-2, 1e-3)
    *leading, num = shape
    parameters = torch.randn(
        *leading, kind.num_parameters, num, generator=random, dtype=torch.float64
    )
    uniform = torch.rand(*shape, generator=random, dtype=torch.float64)
    values = uniform if tail_bound is None else tail_bound * (2.4 * uniform - 1.2)
    return values.to(dtype).requires_grad_(), parameters.to(dtype).requires_grad_(), kind


TAILS = pytest.mark.parametrize("tail_bound", [3.0, None])
DIRECTIONS = pytest.mark.parametrize("direction", [spline_forward, spline_inverse])


@TAILS
@DIRECTIONS
def test_gradients_of_gradients_are_those_of_differences(direction, tail_bound) -> None:
    arguments = _curved(tail_bound, shape=(5,))
    assert torch.autograd.gradcheck(direction, arguments)
    assert torch.autograd.gradgradcheck(direction, arguments, fast_mode=True)


@TAILS
def test_gradients_of_the_inverse_undo_those_of_forward(tail_bound: float | None) -> None:
    """The way there and back does not depend on parameters and moves with its start."""
    values, parameters, shape = _curved(tail_bound, shape=(_VALUES,))
    outputs, log_slope = spline_forward(values, parameters, shape)
    features, log_abs_det = spline_inverse(outputs, parameters, shape)
    total = features.sum() + (log_abs_det + log_slope).sum()
    by_values, by_parameters = torch.autograd.grad(total, (values, parameters))
    torch.testing.assert_close(by_values, torch.ones_like(by_values), rtol=_CLOSE, atol=0)
    torch.testing.assert_close(by_parameters, torch.zeros_like(parameters), rtol=0, atol=_CLOSE)


@TAILS
@DIRECTIONS
def test_mapped_over_a_batch_it_equals_a_loop(direction, tail_bound) -> None:
    values, parameters, shape = _curved(tail_bound, shape=(3, 5))

    def gradients(value: Tensor, parameter: Tensor) -> tuple[Tensor, ...]:
        def loss(*arguments: Tensor) -> Tensor:
            mapped, log_abs_det = direction(*arguments, shape)
            return (mapped * log_abs_det).sum()

        return torch.func.grad(loss, argnums=(0, 1))(value, parameter)

    mapped = torch.func.vmap(gradients)(values, parameters)
    looped = [gradients(*pair) for pair in zip(values, parameters, strict=True)]
    torch.testing.assert_close(mapped, tuple(map(torch.stack, zip(*looped, strict=True))))


class _ThereAndBack(nn.Module):
    """Maps features with both kinds of tails, and what comes out with the inverse."""

    def __init__(self) -> None:
        super().__init__()
        _, tailed, self.tailed = _curved(3.0)
        _, bounded, self.bounded = _curved(None)
        self.of_tailed, self.of_bounded = nn.Parameter(tailed), nn.Parameter(bounded)

    def forward(self, features: Tensor) -> Tensor:
        values, log_slopes = spline_forward(features, self.of_bounded, self.bounded)
        back, log_abs_det = spline_inverse(values, self.of_tailed, self.tailed)
        return values + log_slopes + 2 * back + 3 * log_abs_det


def test_it_is_traced_whole_and_gives_the_same() -> None:
    """No graph break, so no branch and no shape that depends on data."""
    features, module = _curved(None)[0], _ThereAndBack()
    expected = module(features)
    traced = torch.compile(module, backend="eager", fullgraph=True)(features)
    torch.testing.assert_close(traced, expected)
    arguments = (features, *module.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(traced.sum(), arguments),
        torch.autograd.grad(expected.sum(), arguments),
    )
    exported = torch.export.export(module, (features.detach(),)).module()
    torch.testing.assert_close(exported(features.detach()), expected)


def test_only_the_arguments_are_kept_for_the_backward_pass() -> None:
    values, parameters, shape = _curved(3.0)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.data_ptr()) or tensor, lambda tensor: tensor
    ):
        spline_forward(values, parameters, shape)
    assert set(kept) == {values.data_ptr(), parameters.data_ptr()}


def test_outside_the_square_is_the_identity() -> None:
    parameters = torch.randn(14, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    values = torch.tensor([-7.0, -3.0001, 3.0001, 1e30, torch.nan], requires_grad=True)
    shape = SplineShape(5, 3.0, 1e-3, 1e-3, 1e-3)
    for direction in (spline_forward, spline_inverse):
        mapped, log_det = direction(values, parameters, shape)
        torch.testing.assert_close(mapped, values, rtol=0, atol=0, equal_nan=True)
        assert not log_det.any()
        upstream = (torch.ones(5), torch.ones(5))
        grads = torch.autograd.grad((mapped, log_det), (values, parameters), upstream)
        torch.testing.assert_close(grads, (torch.ones(5), torch.zeros(14, 5)))


def test_a_spline_without_tails_has_no_outside() -> None:
    values = torch.tensor([-0.1, 0.0, 1.0, 1.1, torch.nan])
    shape = SplineShape(4, None, 1e-3, 1e-3, 1e-3)
    for direction in (spline_forward, spline_inverse):
        mapped, log_det = direction(values, torch.zeros(13, 5), shape)
        torch.testing.assert_close(mapped[1:3], torch.tensor([0.0, 1.0]))
        expected = torch.tensor([True, False, False, True, True])
        assert torch.equal(mapped.isnan(), expected)
        assert torch.equal(log_det.isnan(), expected)


def test_features_outside_the_domain_are_refused_with_their_rows() -> None:
    transform = MaskedSplineTransform(features=3, hidden_features=4, num_bins=4, tails=None)
    features = torch.full((4, 3), 0.5)
    features[2, 1] = 1.01
    with pytest.raises(UsageError, match="rows 2") as caught:
        transform(features)
    assert "[0, 1]" in caught.value.what


@FORMULAS
def test_float32_stays_finite_and_in_its_square_for_nearly_degenerate_bins(
    formulas: ModuleType,
) -> None:
    """Slopes from 1e-6 to 1e6: an unguarded inverse leaves its bin or takes a negative root."""
    random = torch.Generator().manual_seed(5)
    shape = SplineShape(8, 6.0, 1e-6, 1e-6, 1e-6)
    parameters = 30 * torch.randn(23, 300_000, generator=random)
    values = 12 * torch.rand(300_000, generator=random) - 6
    features, log_abs_det = formulas.inverse(values, parameters, shape)
    assert torch.isfinite(features).all()
    assert torch.isfinite(log_abs_det).all()
    assert (features.abs() <= 6 * (1 + 1e-6)).all()


@FORMULAS
@pytest.mark.parametrize("spread", [1.0, 10.0, 30.0, 100.0])
def test_float32_near_knots_is_finite_with_its_gradients(
    spread: float, formulas: ModuleType
) -> None:
    """A million splines over all spreads, each at one of its knots or a rounding beside it."""
    random = torch.Generator().manual_seed(7)
    num, shape = 250_000, SplineShape(8, 6.0, 1e-3, 1e-3, 1e-3)
    parameters = spread * torch.randn(23, num, generator=random)
    knots = _knots(parameters, shape)
    features = knots.gather(0, torch.randint(7, (1, num), generator=random))[0]
    beside = torch.randint(-1, 2, (num,), generator=random)
    features = features * (1 + beside * torch.finfo(torch.float32).eps)
    values, log_slopes = formulas.forward(features, parameters, shape)
    upstream = (torch.ones(num), torch.ones(num))
    grads = formulas.forward_gradients(
        features, parameters, upstream, shape, wants_parameters=True
    )
    for tensor in (values, log_slopes, *grads):
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize("tails", ["linear", None])
def test_training_direction_of_a_flow_has_nflows_values_and_gradients(tails: str | None) -> None:
    torch.manual_seed(3)
    flow = MaskedSplineFlow(2, 1, 16, 8, 14.0, "reverse", 1e-6, 0.0).build(6, 2).double()
    features, context = 8 * torch.randn(50, 6).double(), torch.randn(50, 2).double()
    if tails is None:
        features = torch.rand(50, 6).double()
        for index in (1, 3):
            transform = MaskedSplineTransform(
                features=6, hidden_features=16, context_features=2, num_bins=8, tails=None
            )
            flow._transform._transforms[index] = transform.double()
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
