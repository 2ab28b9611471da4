"""The product of masked weights with a batch, for many networks at once, in panels.

With units sorted by degree a masked matrix is block lower triangular: the first rows read only the
first columns. Rows are taken in a few panels, each as wide as its last row needs, in the product
and in both of its gradients. Four panels leave out 3/8 of a triangle; more of them pay for their
overhead only on larger matrices. Legend: L networks, n showers.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Panel(NamedTuple):
    """Rows `start` to `stop` of a matrix, which read its first `width` columns."""

    start: int
    stop: int
    width: int


def panels_of(mask: Tensor, num_panels: int) -> tuple[Panel, ...]:
    """Cut the rows of a mask (out, in) in at most `num_panels` panels of about equal height."""
    num_rows = len(mask)
    edges = [round(num_rows * number / num_panels) for number in range(num_panels + 1)]
    columns = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    last = ((mask != 0) * columns).amax(dim=1).tolist()
    return tuple(
        Panel(start, stop, int(max(last[start:stop])))
        for start, stop in itertools.pairwise(edges)
        if stop > start
    )


def masked_product(
    weight: Tensor, bias: Tensor, source: Tensor, *, mask: Tensor, panels: tuple[Panel, ...]
) -> Tensor:
    """Give (weight * mask) . source + bias, (L, out, n).

    weight (L, out, in), bias (L, out, 1), source (L, in, n), mask (out, in) of zeros and ones; the
    gradient of a masked weight is exactly zero.
    """
    product: Tensor = _MaskedProduct.apply(weight, bias, source, mask, panels)  # type: ignore[no-untyped-call]
    return product


class _MaskedProduct(torch.autograd.Function):
    """Forward and backward in panels; what no panel reads stays zero."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        bias: Tensor,
        source: Tensor,
        mask: Tensor,
        panels: tuple[Panel, ...],
    ) -> Tensor:
        masked = weight * mask
        product = source.new_empty(len(source), weight.shape[1], source.shape[2])
        for start, stop, width in panels:
            torch.baddbmm(
                bias[:, start:stop],
                masked[:, start:stop, :width],
                source[:, :width],
                out=product[:, start:stop],
            )
        ctx.save_for_backward(masked, source, mask)
        ctx.panels = panels
        return product

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,) = gradients
        masked, source, mask = ctx.saved_tensors
        to_weight = torch.zeros_like(masked)
        to_source = torch.zeros_like(source) if ctx.needs_input_grad[2] else None
        for start, stop, width in ctx.panels:
            rows = upstream[:, start:stop]
            read = source[:, :width].transpose(1, 2)
            torch.bmm(rows, read, out=to_weight[:, start:stop, :width])
            if to_source is not None:
                columns = masked[:, start:stop, :width].transpose(1, 2)
                to_source[:, :width].baddbmm_(columns, rows)
        return to_weight.mul_(mask), upstream.sum(dim=2, keepdim=True), to_source, None, None
