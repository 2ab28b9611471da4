"""The incremental inverse against nflows' own, in float64."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest
import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows import Flow
from nflows.transforms import (
    CompositeTransform,
    LULinear,
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    RandomPermutation,
    ReversePermutation,
)
from torch import Tensor, nn

from calo_train.errors import MachineError, UsageError
from calo_train.nn import incremental_inverse, pack

EXACT = 1e-10  # rounding of float64 through two transforms; 1e-13 is typical
LOG_DET = 1e-9  # a sum over features of logarithms of slopes from 1e-3 to 1e3


def spline(features: int, hidden: int, context: int | None, **options: object) -> nn.Module:
    settings = {"num_bins": 5, "tails": "linear", "tail_bound": 3.0, "num_blocks": 1,
                "use_residual_blocks": False} | options  # fmt: skip
    return MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        features=features, hidden_features=hidden, context_features=context, **settings
    )


def affine(features: int, hidden: int, context: int | None, **options: object) -> nn.Module:
    settings = {"num_blocks": 1, "use_residual_blocks": False} | options
    return MaskedAffineAutoregressiveTransform(
        features, hidden, context_features=context, **settings
    )


def stirred(module: nn.Module, width: float = 0.3) -> nn.Module:
    """Move weights and running statistics from their initial values: splines get curved."""
    module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(width * torch.randn_like(parameter))
        for name, buffer in module.named_buffers():
            if "running" in name:
                buffer.copy_(0.5 + torch.rand_like(buffer))
    return module


def assert_equals_nflows(
    transform: nn.Module, noise: Tensor, context: Tensor | None, backend: str = "auto"
) -> None:
    with torch.no_grad():
        expected, expected_log_det = transform.inverse(noise, context)
    found, log_det = incremental_inverse(transform, noise, context, backend=backend)
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(log_det, expected_log_det, rtol=0, atol=LOG_DET)


OPTIONS = {
    "plain": {},
    "no blocks": {"num_blocks": 0},
    "residual": {"num_blocks": 2, "use_residual_blocks": True},
    "random masks": {"random_mask": True, "num_blocks": 2},
    "tanh": {"activation": torch.tanh, "num_blocks": 2},
    "norms": {"use_batch_norm": True, "num_blocks": 2},
    "residual norms": {"use_batch_norm": True, "num_blocks": 2, "use_residual_blocks": True},
    "dropout": {"dropout_probability": 0.5},
}

NOT_COMPILED = ("tanh", "residual norms")  # auto takes the torch walk for them


@pytest.mark.parametrize("backend", ["compiled", "torch"])
@pytest.mark.parametrize("build", [spline, affine])
@pytest.mark.parametrize(
    ("features", "hidden"), [(1, 4), (2, 1), (2, 40), (5, 4), (17, 4), (17, 40)]
)
@pytest.mark.parametrize("context", [None, 3])
@pytest.mark.parametrize("kind", OPTIONS)
def test_inverse_equals_nflows(
    build: type, features: int, hidden: int, context: int | None, kind: str, backend: str
) -> None:
    """S11: every kind of block, mask, width and context, with permutations between."""
    options = OPTIONS[kind]
    torch.manual_seed(features * 100 + hidden)
    stack = stirred(
        CompositeTransform(
            [
                RandomPermutation(features),
                build(features, hidden, context, **options),
                CompositeTransform([ReversePermutation(features)]),
                build(features, hidden, context, **options),
            ]
        ),
        # An affine stack far from its initial weights is not invertible by anybody.
        width=0.3 if build is spline else 0.05,
    )
    noise = 2 * torch.randn(9, features, dtype=torch.float64)  # some beyond the tails
    given = None if context is None else torch.randn(9, context, dtype=torch.float64)
    if backend == "compiled" and kind in NOT_COMPILED and "activation" in options:
        with pytest.raises(MachineError, match="not ReLU"):
            incremental_inverse(stack, noise, given, backend=backend)
        backend = "auto"
    elif backend == "compiled" and kind in NOT_COMPILED:
        with pytest.raises(MachineError, match="batch normalisation"):
            incremental_inverse(stack, noise, given, backend=backend)
        backend = "auto"
    assert_equals_nflows(stack, noise, given, backend)


@pytest.mark.parametrize(
    "options",
    [
        {"num_bins": 1},
        {"num_bins": 2, "min_bin_width": 1e-2, "min_bin_height": 1e-3, "min_derivative": 1e-6},
        {"num_bins": 16, "tail_bound": 14.0, "min_derivative": 0.1},
    ],
)
def test_spline_settings_are_read_from_the_transform(options: dict[str, object]) -> None:
    torch.manual_seed(4)
    noise = 3 * torch.randn(20, 6, dtype=torch.float64)
    assert_equals_nflows(stirred(spline(6, 12, None, **options)), noise, None)


@pytest.mark.parametrize("backend", ["compiled", "torch", "reference"])
def test_splines_without_tails_are_inverted_on_their_domain(backend: str) -> None:
    torch.manual_seed(8)
    stack = stirred(CompositeTransform([spline(6, 12, 2, tails=None) for _ in range(2)]))
    noise, context = torch.rand(20, 6).double(), torch.randn(20, 2).double()
    noise[0, 0], noise[1] = 1.0, 0.0
    packed = pack(stack, backend=backend)
    found, log_det = packed.inverse_with_log_det(noise, context)
    with torch.no_grad():
        expected, expected_log_det = stack.inverse(noise, context)
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)
    torch.testing.assert_close(log_det, expected_log_det, rtol=0, atol=LOG_DET)
    with pytest.raises(UsageError, match=r"left \[0, 1\]"):
        packed.inverse(noise - 1e-3, context)


def test_net_that_tells_its_width_has_scaled_widths_and_heights() -> None:
    """nflows divides them by sqrt(hidden) where the net has `hidden_features`; MADE has not."""
    torch.manual_seed(5)
    transform = stirred(spline(6, 16, None))
    noise = torch.randn(20, 6, dtype=torch.float64)
    plain, _ = incremental_inverse(transform, noise)
    transform.autoregressive_net.hidden_features = 16
    scaled = pack(transform).inverse(noise)
    with torch.no_grad():
        expected, _ = transform.inverse(noise)
    torch.testing.assert_close(scaled, expected, rtol=0, atol=EXACT)
    assert (scaled - plain).abs().max() > 1e-3


def test_flow_takes_the_context_before_its_embedding() -> None:
    torch.manual_seed(1)
    flow = stirred(Flow(affine(6, 12, 4), StandardNormal([6]), nn.Linear(2, 4)))
    noise, context = torch.randn(5, 6).double(), torch.randn(5, 2).double()
    with torch.no_grad():
        expected, _ = flow._transform.inverse(noise, flow._embedding_net(context))
    found, _ = incremental_inverse(flow, noise, context)
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)


def test_float32_agrees_with_float64() -> None:
    """The bound that the docs give: 1e-3 for nearly all features of a curved flow."""
    torch.manual_seed(6)
    stack = stirred(CompositeTransform([spline(20, 32, None), spline(20, 32, None)]))
    noise = torch.randn(500, 20, dtype=torch.float64)
    precise, _ = incremental_inverse(stack, noise)
    coarse, _ = incremental_inverse(stack, noise, dtype=torch.float32)
    assert coarse.dtype == torch.float32
    assert torch.quantile((coarse - precise).abs().flatten(), 0.999) < 1e-3


def test_pack_follows_every_change_of_the_module() -> None:
    torch.manual_seed(2)
    transform = stirred(spline(4, 8, None, use_batch_norm=True))
    noise = torch.randn(3, 4, dtype=torch.float64)
    incremental_inverse(transform, noise)
    with torch.no_grad():
        transform.autoregressive_net.initial_layer.weight.mul_(1.5)
    assert_equals_nflows(transform, noise, None)
    transform.autoregressive_net.blocks[0].batch_norm.running_mean.add_(0.3)
    assert_equals_nflows(transform, noise, None)
    final = transform.autoregressive_net.final_layer
    final.bias = nn.Parameter(final.bias.detach() + 0.2)
    assert_equals_nflows(transform, noise, None)
    transform.train()
    with pytest.raises(UsageError, match="training mode"):
        incremental_inverse(transform, noise)


def test_weights_are_packed_once_and_let_go_with_the_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transform = stirred(spline(4, 8, None))
    noise = torch.randn(3, 4, dtype=torch.float64)
    first, _ = incremental_inverse(transform, noise)
    # The function of the same name hides the module in its package; calling None would raise.
    monkeypatch.setattr(sys.modules["calo_train.nn.incremental_inverse"], "pack", None)
    again, _ = incremental_inverse(transform, noise)
    assert torch.equal(first, again)
    alive = weakref.ref(transform)
    del transform
    gc.collect()
    assert alive() is None


def test_packed_flow_is_unmoved_by_later_changes() -> None:
    flow = stirred(Flow(spline(4, 8, 2), StandardNormal([4]), nn.Linear(3, 2)))
    noise, context = torch.randn(3, 4).double(), torch.randn(3, 3).double()
    packed = pack(flow)
    before = packed.inverse(noise, context)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(2)
    assert torch.equal(packed.inverse(noise, context), before)


def test_no_showers_give_no_features() -> None:
    features, log_det = incremental_inverse(stirred(spline(4, 8, None)), torch.empty(0, 4))
    assert features.shape == (0, 4)
    assert log_det.shape == (0,)


@pytest.mark.parametrize(
    ("transform", "noise", "context", "words"),
    [
        (LULinear(3), torch.zeros(2, 3), None, "LULinear"),
        (nn.Linear(3, 3), torch.zeros(2, 3), None, "Linear"),
        (spline(3, 4, None, tails=None), torch.tensor([[0.5] * 3, [1.1] * 3]), None, "rows 1"),
        (spline(3, 4, None, use_batch_norm=True), torch.zeros(2, 3), None, "batch norm"),
        (spline(3, 4, None, dropout_probability=0.5), torch.zeros(2, 3), None, "dropout"),
        (spline(3, 4, 2), torch.zeros(2, 3), None, "given was none"),
        (spline(3, 4, 2), torch.zeros(2, 3), torch.zeros(2, 5), r"\(2, 2\), given was \(2, 5\)"),
        (spline(3, 4, 2), torch.zeros(2, 3), torch.zeros(1, 2), r"\(2, 2\), given was \(1, 2\)"),
        (spline(3, 4, None), torch.zeros(2, 3), torch.zeros(2, 5), "takes no context"),
        (spline(3, 4, None), torch.zeros(2, 4), None, r"expected \(n, 3\)"),
        (spline(3, 4, None), torch.full((2, 3), torch.nan), None, "NaN"),
    ],
)
def test_what_cannot_be_inverted_is_refused(
    transform: nn.Module, noise: Tensor, context: Tensor | None, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        incremental_inverse(transform.train(), noise, context)
