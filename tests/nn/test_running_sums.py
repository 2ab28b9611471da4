"""Running sums by a product, which a GPU takes where bits must be repeated."""

from __future__ import annotations

import pytest
import torch

from calo_train.nn.running_sums import _by_product, running_sums


@pytest.mark.parametrize("dim", [0, 1, -2, -1])
def test_product_gives_the_running_sums(dim: int) -> None:
    values = torch.randn(3, 5, 2, 7, dtype=torch.float64)
    torch.testing.assert_close(
        _by_product(values, dim), values.cumsum(dim), rtol=1e-14, atol=1e-14
    )
    assert torch.equal(running_sums(values, dim), values.cumsum(dim))
