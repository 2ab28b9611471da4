"""The table of a walk: what it holds is what drawing costs."""

from __future__ import annotations

import pytest
import torch
from nflows.transforms import MaskedPiecewiseRationalQuadraticAutoregressiveTransform
from nflows.transforms.made import MaskedLinear

from calo_train.nn.flow_steps import read_flow
from calo_train.nn.walk_program import write_program


@pytest.mark.parametrize(("features", "hidden"), [(1, 4), (3, 4), (17, 5), (17, 40)])
def test_every_unmasked_weight_is_used_once_and_no_other(features: int, hidden: int) -> None:
    """The page on fast sampling derives its cost from this count."""
    transform = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        features, hidden, context_features=2, num_bins=8, tails="linear", num_blocks=1,
        use_residual_blocks=False,
    )  # fmt: skip
    layers = [m for m in transform.modules() if isinstance(m, MaskedLinear)]
    unmasked = torch.cat([layer.weight[layer.mask > 0] for layer in layers])
    context = transform.autoregressive_net.context_layer.weight.flatten()
    stored = torch.from_numpy(write_program(read_flow(transform), torch.float32).weights)
    expected = torch.cat([unmasked, context]).detach()
    assert torch.equal(stored.sort().values, expected.sort().values)
