"""Run the kernel for GPUs in Triton's interpreter, on the CPU, and print how far it is off.

The argument is the number of tiles that are loaded together, or `turns`: does a shower keep its
bits where scratch memory lets one instance run after the other?

A script: the interpreter has to be chosen before Triton is imported.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from unittest import mock

os.environ["TRITON_INTERPRET"] = "1"

import torch
from nflows.transforms import (
    CompositeTransform,
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    RandomPermutation,
    ReversePermutation,
)
from torch import nn
from triton.runtime import interpreter

from calo_train.nn import pack
from calo_train.nn.flow_steps import read_flow
from calo_train.nn.flows import MaskedSplineFlow, embedding_network
from calo_train.nn.triton_walk import GpuTile, TritonWalk

FEATURES, CONTEXT, NUMBER = 5, 3, 5
TILE = GpuTile(
    lanes=4, rows=16, sources=4, few_rows=2, few_sources=8, unroll=1
)  # two instances, the last with idle lanes; several tiles of sources


def spline(context: int | None = CONTEXT, **options: object) -> nn.Module:
    settings = {"num_bins": 4, "tails": "linear", "tail_bound": 3.0, "num_blocks": 1,
                "use_residual_blocks": False} | options  # fmt: skip
    return MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        FEATURES, 16, context_features=context, **settings
    )


def affine() -> nn.Module:
    return MaskedAffineAutoregressiveTransform(
        FEATURES, 16, context_features=CONTEXT, use_residual_blocks=False
    )


def embedded() -> nn.Module:
    shape = MaskedSplineFlow(1, 1, 16, 4, 3.0, "reverse", 1e-3, 0.0)
    return shape.build(FEATURES, 7, embedding_network(CONTEXT, [20, 9], 7))


CASES = {
    "permuted": lambda: CompositeTransform([spline(), RandomPermutation(FEATURES), spline()]),
    "embedded": embedded,
    "no context": lambda: spline(None),
    "residual": lambda: spline(num_blocks=2, use_residual_blocks=True),
    "no tails": lambda: spline(tails=None),
    "one bin": lambda: spline(num_bins=1),
    "affine": lambda: CompositeTransform([affine(), ReversePermutation(FEATURES)]),
}


def stirred(name: str) -> nn.Module:
    """Build the flow of a case with curved splines."""
    flow = CASES[name]().double().eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return flow


def differences(name: str, dtype: torch.dtype, tile: GpuTile) -> tuple[float, float]:
    """Give the largest differences from nflows of features and log-determinants."""
    torch.manual_seed(3)
    flow = stirred(name)
    noise = torch.rand(NUMBER, FEATURES, dtype=torch.float64)
    if name != "no tails":
        noise = 8 * noise - 4  # some beyond the tails
    context = None
    if name != "no context":
        context = torch.randn(NUMBER, CONTEXT, dtype=torch.float64)
    expected, expected_log_det = pack(flow, backend="reference").inverse_with_log_det(
        noise, context
    )
    walk = TritonWalk(read_flow(flow), dtype, torch.device("cpu"), tile)
    log_det = torch.zeros(NUMBER, dtype=dtype)
    given = None if context is None else context.to(dtype)
    found = walk.invert(noise.to(dtype), given, log_abs_det=log_det)
    return (
        float((found - expected).abs().max()),
        float((log_det - expected_log_det).abs().max()),
    )


def take_turns(dtype: torch.dtype) -> dict[str, object]:
    """Invert both instances at once, then one by one: launches, and whether bits are equal."""
    torch.manual_seed(3)
    steps = read_flow(stirred("permuted"))
    noise, context = (torch.randn(NUMBER, width).to(dtype) for width in (FEATURES, CONTEXT))
    launches, results = [], []
    for tile in (TILE, replace(TILE, scratch=1)):
        walk = TritonWalk(steps, dtype, torch.device("cpu"), tile)
        log_det = torch.ones(NUMBER, dtype=dtype)
        with mock.patch.object(walk, "_launch", wraps=walk._launch) as launch:
            features = walk.invert(noise, context, log_abs_det=log_det)
        launches.append(launch.call_count)
        results.append(torch.column_stack([features, log_det]))
    return {"launches": launches, "has_equal_bits": torch.equal(*results)}


def mend_interpreter() -> None:
    """Triton 3.6 turns a scalar, an array of one number, to int: NumPy 2.4 has stopped that."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor: object, scope: object) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patched


if __name__ == "__main__":
    mend_interpreter()
    torch.set_num_threads(1)
    dtypes = (torch.float64, torch.float32)
    if sys.argv[1] == "turns":
        found = {str(dtype): take_turns(dtype) for dtype in dtypes}
    else:
        tile = replace(TILE, unroll=int(sys.argv[1]))
        found = {
            f"{name}, {dtype}": differences(name, dtype, tile)
            for name in CASES
            for dtype in dtypes
        }
    json.dump(found, sys.stdout)
