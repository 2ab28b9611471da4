"""What is timed against each other: our inverse, our forward, and the inverses of two libraries.

nflows and zuko invert a MADE of D features by D identical passes of its whole network. Where all
passes take too long, one pass of one MADE is timed and multiplied, and a large batch is cut into
chunks, since a pass at once would take tens of times the memory of its spline parameters.
zuko fixes degrees by another rule than nflows, so its weights are its own; its shape is the same,
with the context entering the first layer beside the features.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from nflows.transforms.made import MaskedLinear
from stopwatch import Work, clock
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from flow_cases import FlowCase
    from nflows.flows import Flow

    from calo_train.nn import PackedFlow

FULL_BELOW = 1.0  # seconds; a peer that would take longer is timed by one pass
_CHUNK_NUMBERS = 2**24  # spline parameters of a pass, 64 MiB in float32


@dataclass(frozen=True)
class Inputs:
    """A flow, what it is drawn from, and what was drawn."""

    case: FlowCase
    flow: Flow
    packed: PackedFlow
    noise: Tensor
    context: Tensor
    features: Tensor

    @classmethod
    def of(cls, case: FlowCase, flow: Flow, packed: PackedFlow, batch: int) -> Inputs:
        """Draw a batch in the precision of the flow."""
        noise, context = case.draw(batch, next(flow.parameters()).dtype)
        return cls(case, flow, packed, noise, context, packed.inverse(noise, context))

    def chunk(self) -> Inputs:
        """Give the first showers, as many as the peers take at once."""
        limit = max(1, _CHUNK_NUMBERS // (self.case.features * self.case.num_parameters))
        size = -(-len(self.noise) // -(-len(self.noise) // limit))
        parts = (values[:size] for values in (self.noise, self.context, self.features))
        return Inputs(self.case, self.flow, self.packed, *parts)


@dataclass(frozen=True)
class PeerWork:
    """An inverse of another library: the work, and how much of the whole it is."""

    work: Work
    passes: int
    of_passes: int
    showers: int  # in one chunk

    @property
    def how(self) -> str:
        """Say `full`, or what was multiplied."""
        if self.work.factor == 1:
            return "full"
        return f"{self.passes} of {self.of_passes} passes, {self.showers} showers at once"


def own_inverse(inputs: Inputs) -> Work:
    """Time our inverse without log-determinants, as drawing uses it."""
    return Work(lambda: inputs.packed.inverse(inputs.noise, inputs.context))


def own_forward(inputs: Inputs) -> Work:
    """Time our best pass in the direction of training: base values and log-determinants."""
    chunk = inputs.chunk()
    factor = len(inputs.noise) / len(chunk.noise)
    transform = chunk.flow._transform
    return Work(lambda: transform(chunk.features, chunk.context), factor)


def nflows_inverse(inputs: Inputs) -> PeerWork:
    """Time nflows' own inverse on the same weights."""
    chunk = inputs.chunk()
    mades = itertools.cycle(chunk.flow._transform._transforms[1::2])

    def one_pass() -> None:
        made = next(mades)
        parameters = made.autoregressive_net(chunk.features, chunk.context)
        made._elementwise_inverse(chunk.noise, parameters)

    def full() -> None:
        chunk.flow._transform.inverse(chunk.noise, chunk.context)

    return _peer(inputs, chunk, one_pass, full)


def zuko_inverse(inputs: Inputs, made: nn.Module) -> PeerWork:
    """Time zuko's inverse of the same shape, with one MADE in the place of all."""
    chunk, case = inputs.chunk(), inputs.case

    def one_pass() -> None:
        made.meta(chunk.context, chunk.features).inv(chunk.noise)

    def full() -> None:
        for _ in range(case.num_mades):
            made(chunk.context).inv(chunk.noise)

    return _peer(inputs, chunk, one_pass, full)


def zuko_made(case: FlowCase, dtype: torch.dtype) -> nn.Module | None:
    """Build one MADE of the case in zuko; None where zuko is not installed."""
    if find_spec("zuko") is None:
        return None
    from flow_cases import NUM_BINS
    from zuko.flows.autoregressive import MaskedAutoregressiveTransform
    from zuko.transforms import MonotonicRQSTransform

    torch.manual_seed(0)
    made: nn.Module = MaskedAutoregressiveTransform(
        case.features,
        case.context,
        univariate=partial(MonotonicRQSTransform, bound=case.tail_bound),
        shapes=[(NUM_BINS,), (NUM_BINS,), (NUM_BINS - 1,)],
        hidden_features=[case.width] * (case.num_hidden_layers + 1),
    )
    return made.to(dtype).eval()


def fold_masks(flow: Flow) -> Flow:
    """Multiply masks into nflows' weights for good; its inverse gives the same bits, sooner."""
    for module in list(flow.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, MaskedLinear):
                plain = nn.Linear(child.in_features, child.out_features, device="meta")
                plain.weight = nn.Parameter(child.weight * child.mask)
                plain.bias = child.bias
                setattr(module, name, plain)
    return flow


def _peer(
    inputs: Inputs, chunk: Inputs, one_pass: Callable[[], None], full: Callable[[], None]
) -> PeerWork:
    """Choose the full inverse where it is short."""
    num_passes, showers = inputs.case.num_passes, len(chunk.noise)
    _, seconds = clock(one_pass)
    if seconds * num_passes > FULL_BELOW:  # the first call may be slow for reasons of its own
        _, seconds = clock(one_pass)
    num_chunks = len(inputs.noise) / showers
    if num_chunks == 1 and seconds * num_passes < FULL_BELOW:
        return PeerWork(Work(full), num_passes, num_passes, showers)
    return PeerWork(Work(one_pass, num_passes * num_chunks), 1, num_passes, showers)
