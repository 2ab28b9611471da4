"""Running sums whose bits can be repeated: torch's own on a GPU have no deterministic form."""

from __future__ import annotations

import torch
from torch import Tensor


def running_sums(values: Tensor, dim: int) -> Tensor:
    """Sum values (..., n, ...) along `dim`, up to and with each; for short dimensions."""
    if not (values.is_cuda and torch.are_deterministic_algorithms_enabled()):
        return values.cumsum(dim)
    return _by_product(values, dim)


def _by_product(values: Tensor, dim: int) -> Tensor:
    number = values.shape[dim]
    before = torch.ones(number, number, dtype=values.dtype, device=values.device).triu()
    return (values.movedim(dim, -1) @ before).movedim(-1, dim)
