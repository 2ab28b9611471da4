"""Stacked flows against the separate nflows flows that they were made of, in float64."""

from __future__ import annotations

import pytest
import torch
from nflows.flows import Flow
from nflows.transforms import (
    CompositeTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    RandomPermutation,
)
from torch import Tensor, nn

from calo_train.nn.flows import MaskedSplineFlow, embedding_network
from calo_train.nn.masked_product import masked_product, panels_of
from calo_train.nn.stacked_flows import SingleFlow, StackedFlows, join_flows, stack_key

EXACT = 1e-10  # float64 sums of a few hundred terms through two MADEs; 1e-13 is typical
NUM_SHOWERS = 7

# features, hidden, num_hidden_layers, context widths before the embedding, embedding
SHAPES = {
    "contexts of different width": (6, 9, 1, (5, 3, 8), True),
    "contexts without embedding": (5, 16, 2, (4, 2), False),
    "no context": (7, 5, 0, (None, None), False),
    "one feature": (1, 4, 1, (3, 3), True),
    "fewer units than features": (9, 2, 1, (2, 4), True),
    "one flow": (4, 8, 1, (3,), True),
    "four panels": (12, 30, 1, (2, 2), False),
}


def _flow(features: int, hidden: int, layers: int, context: int | None, *, embed: bool) -> Flow:
    shape = MaskedSplineFlow(2, layers, hidden, 5, 3.0, "random", 1e-3, 0.0)
    if embed:
        assert context is not None
        return shape.build(features, 4, embedding_network(context, (6,), 4))
    return shape.build(features, context)  # type: ignore[arg-type]


def _stirred(flow: nn.Module) -> nn.Module:
    """Curve the splines."""
    with torch.no_grad():
        for parameter in flow.double().parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return flow


def _flows(name: str) -> tuple[list[Flow], list[Tensor], list[Tensor | None]]:
    torch.manual_seed(7)
    features, hidden, layers, widths, embed = SHAPES[name]
    flows = [_stirred(_flow(features, hidden, layers, c, embed=embed)) for c in widths]
    # Some features lie in the tails.
    inputs = [2 * torch.randn(NUM_SHOWERS, features, dtype=torch.float64) for _ in widths]
    contexts = [
        None if c is None else torch.randn(NUM_SHOWERS, c, dtype=torch.float64) for c in widths
    ]
    return flows, inputs, contexts


@pytest.mark.parametrize("name", SHAPES)
def test_stack_equals_separate_flows(name: str) -> None:
    """Log-densities and the gradient of every parameter."""
    flows, features, contexts = _flows(name)
    assert len({stack_key(flow) for flow in flows}) == 1
    stack = StackedFlows.of(flows)
    found = stack.log_prob(features, contexts)
    found.mean(dim=1).sum().backward()
    gradients = stack.split([weight.grad for weight in stack.parameters()])
    triples = zip(flows, features, contexts, strict=True)
    expected = torch.stack([flow.log_prob(x, context=c) for flow, x, c in triples])
    expected.mean(dim=1).sum().backward()
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)
    for flow, own in zip(flows, gradients, strict=True):
        assert own.keys() == dict(flow.named_parameters()).keys()
        for key, parameter in flow.named_parameters():
            torch.testing.assert_close(own[key], parameter.grad, rtol=EXACT, atol=EXACT)


def test_masked_weights_and_padded_columns_have_no_gradient() -> None:
    """Exactly none, else an optimiser would move them."""
    flows, features, contexts = _flows("contexts of different width")
    stack = StackedFlows.of(flows)
    stack.log_prob(features, contexts).sum().backward()
    widest = [weight.grad for weight in stack.parameters() if weight.shape[2] == 8]
    assert any(bool((grad[1, :, 3:] == 0).all() & (grad[1, :, :3] != 0).any()) for grad in widest)
    for flow, own in zip(flows, stack.split([w.grad for w in stack.parameters()]), strict=True):
        for key, mask in flow.named_buffers():
            if key.endswith("mask"):
                gradient = own[key.replace("mask", "weight")]
                assert (gradient[mask == 0] == 0).all()


@pytest.mark.parametrize("name", SHAPES)
def test_states_are_those_of_the_flows(name: str) -> None:
    """Names, shapes and bits, after a stack, a smaller stack, and loading into another."""
    flows, _, _ = _flows(name)
    stack = StackedFlows.of(flows)
    other = StackedFlows.of([_stirred(flow) for flow in _flows(name)[0]])
    other.load_states(stack.states())
    chosen = list(range(len(flows)))[-2:]
    for states, kept in ((stack.states(), flows), (other.states(), flows),
                         (stack.select(chosen).states(), flows[-2:])):  # fmt: skip
        for state, flow in zip(states, kept, strict=True):
            expected = flow.state_dict()
            assert state.keys() == expected.keys()
            assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_selected_flows_compute_as_before() -> None:
    flows, features, contexts = _flows("contexts of different width")
    stack = StackedFlows.of(flows)
    whole = stack.log_prob(features, contexts)
    rest = stack.select([0, 1]).log_prob(features[:2], contexts[:2])
    torch.testing.assert_close(rest, whole[:2], rtol=EXACT, atol=EXACT)


def _spline_flow(**options: object) -> Flow:
    settings = {"num_bins": 5, "tails": "linear", "tail_bound": 3.0, "num_blocks": 1,
                "use_residual_blocks": False} | options  # fmt: skip
    transform = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(6, 8, **settings)
    return Flow(CompositeTransform([RandomPermutation(6), transform]), _normal())


def _normal() -> nn.Module:
    from nflows.distributions.normal import StandardNormal

    return StandardNormal([6])


@pytest.mark.parametrize(
    "options",
    [
        {"dropout_probability": 0.1},
        {"use_batch_norm": True},
        {"use_residual_blocks": True},
        {"activation": torch.tanh},
        {"tails": None},
    ],
)
def test_other_flows_are_not_stacked(options: dict[str, object]) -> None:
    assert stack_key(_spline_flow(**options)) is None


def test_random_masks_make_a_stack_of_their_own() -> None:
    torch.manual_seed(3)
    first, second = _spline_flow(random_mask=True), _spline_flow(random_mask=True)
    assert stack_key(first) is not None
    assert stack_key(first) != stack_key(second)
    stack = StackedFlows.of([_stirred(first)])
    features = torch.randn(NUM_SHOWERS, 6, dtype=torch.float64)
    torch.testing.assert_close(
        stack.log_prob([features], [None])[0], first.log_prob(features), rtol=EXACT, atol=EXACT
    )


def test_flows_are_joined_by_shape() -> None:
    """Ragged detectors: equal layers share a stack, whatever lies between them."""
    small = [_flow(3, 8, 1, 2, embed=True) for _ in range(2)]
    large = _flow(4, 8, 1, 2, embed=True)
    lone = _spline_flow(dropout_probability=0.1)
    joined = join_flows([small[0], large, lone, small[1]])
    assert [members for members, _ in joined] == [[0, 3], [1], [2]]
    assert [type(flows) for _, flows in joined] == [StackedFlows, StackedFlows, SingleFlow]
    in_pairs = join_flows([small[0]] * 5, largest=2)
    assert [members for members, _ in in_pairs] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("num_panels", [1, 2, 5, 40])
def test_masked_product_is_the_product_of_masked_weights(num_panels: int) -> None:
    """Rows that read nothing give their bias; gradients follow by finite differences."""
    torch.manual_seed(0)
    mask = torch.tril(torch.ones(9, 6), diagonal=-1).double()
    weight, bias, source = (
        torch.randn(2, *shape, dtype=torch.float64, requires_grad=True)
        for shape in ((9, 6), (9, 1), (6, 3))
    )
    panels = panels_of(mask, num_panels)

    def product(*tensors: Tensor) -> Tensor:
        return masked_product(*tensors, mask=mask, panels=panels)

    torch.testing.assert_close(product(weight, bias, source), (weight * mask) @ source + bias)
    assert torch.autograd.gradcheck(product, (weight, bias, source))
