"""The incremental inverse against nflows' own, in float64."""

from __future__ import annotations

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

from calo_train.errors import UsageError
from calo_train.nn import incremental_inverse

EXACT = 1e-10  # rounding of float64 through three transforms; seen are 1e-13


def _spline(features: int, hidden: int, context: int | None, **options: object) -> torch.nn.Module:
    settings = {"num_bins": 5, "tails": "linear", "tail_bound": 3.0, "num_blocks": 1,
                "use_residual_blocks": False} | options  # fmt: skip
    return MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        features=features, hidden_features=hidden, context_features=context, **settings
    )


def _stirred(module: torch.nn.Module) -> torch.nn.Module:
    """Move weights away from their initial values, so that splines are curved."""
    module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("features", [1, 2, 5, 17])
@pytest.mark.parametrize("hidden", [1, 4, 40])
@pytest.mark.parametrize("context", [None, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_blocks": 0},
        {"num_blocks": 2, "use_residual_blocks": True},
        {"random_mask": True, "num_blocks": 2},
        {"num_bins": 2, "min_bin_width": 1e-2, "min_bin_height": 1e-3, "min_derivative": 1e-6},
    ],
    ids=["plain", "no blocks", "residual", "random masks", "two bins"],
)
def test_spline_stack_equals_nflows(
    features: int, hidden: int, context: int | None, options: dict[str, object]
) -> None:
    """Every configuration of blocks, masks, widths and context inverts as nflows does."""
    torch.manual_seed(features * 100 + hidden)
    stack = _stirred(
        CompositeTransform(
            [
                RandomPermutation(features),
                _spline(features, hidden, context, **options),
                ReversePermutation(features),
                _spline(features, hidden, context, **options),
            ]
        )
    )
    noise = 2 * torch.randn(9, features, dtype=torch.float64)  # some beyond the tails
    given = None if context is None else torch.randn(9, context, dtype=torch.float64)
    with torch.no_grad():
        expected, expected_log_det = stack.inverse(noise, given)
    found, log_det = incremental_inverse(stack, noise, given)
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)
    torch.testing.assert_close(log_det, expected_log_det, rtol=0, atol=1e-9)


def test_affine_flow_with_embedding_equals_nflows() -> None:
    torch.manual_seed(1)
    affine = MaskedAffineAutoregressiveTransform(6, 12, context_features=4, num_blocks=1)
    flow = _stirred(Flow(affine, StandardNormal([6]), torch.nn.Linear(2, 4)))
    noise, context = torch.randn(5, 6).double(), torch.randn(5, 2).double()
    with torch.no_grad():
        expected, expected_log_det = flow._transform.inverse(noise, flow._embedding_net(context))
    found, log_det = incremental_inverse(flow, noise, context)
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(log_det, expected_log_det, rtol=EXACT, atol=EXACT)


def test_pack_follows_a_changed_parameter() -> None:
    torch.manual_seed(2)
    transform = _stirred(_spline(4, 8, None))
    noise = torch.randn(3, 4, dtype=torch.float64)
    before, _ = incremental_inverse(transform, noise)
    with torch.no_grad():
        next(transform.parameters()).mul_(1.5)
    after, _ = incremental_inverse(transform, noise)
    with torch.no_grad():
        expected, _ = transform.inverse(noise)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, expected, rtol=0, atol=EXACT)


def test_no_showers_give_no_features() -> None:
    features, log_det = incremental_inverse(_stirred(_spline(4, 8, None)), torch.empty(0, 4))
    assert features.shape == (0, 4)
    assert log_det.shape == (0,)


@pytest.mark.parametrize(
    ("transform", "noise", "context", "words"),
    [
        (LULinear(3), torch.zeros(2, 3), None, "LULinear"),
        (_spline(3, 4, None, tails=None), torch.zeros(2, 3), None, "no tails"),
        (_spline(3, 4, None, use_batch_norm=True), torch.zeros(2, 3), None, "batch norm"),
        (_spline(3, 4, None, dropout_probability=0.5).train(), torch.zeros(2, 3), None, "dropout"),
        (_spline(3, 4, 2), torch.zeros(2, 3), None, "none was given"),
        (_spline(3, 4, 2), torch.zeros(2, 3), torch.zeros(2, 5), r"\(2, 5\)"),
        (_spline(3, 4, None), torch.full((2, 3), torch.nan), None, "NaN"),
    ],
)
def test_what_cannot_be_inverted_is_refused(
    transform: torch.nn.Module, noise: torch.Tensor, context: torch.Tensor | None, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        incremental_inverse(transform, noise, context)
