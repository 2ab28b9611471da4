"""How the parameters of an nflows flow lie in a stack of equal flows.

Hidden units are sorted by degree, so that masked matrices are block triangular (see
`masked_product`); matrices that read the context are padded with zero columns to the widest
context. Both are undone exactly, name by name, so that outside a stack a flow is as nflows knows
it. What is read here is what `calo_train.nn.flows` builds: permutations, feed-forward MADEs with
ReLU and splines with linear tails, a base N(0, 1), and an embedding network of linear layers and
ReLU or none. `stack_key` gives None for all else: dropout, batch normalisation, residual blocks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows import Flow
from nflows.transforms import (
    CompositeTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
)
from nflows.transforms.made import MADE, MaskedFeedforwardBlock
from nflows.transforms.permutations import Permutation
from torch import Tensor, nn
from torch.nn import functional

from calo_train.nn.spline import SplineShape

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from nflows.transforms.base import Transform

_RELUS = (torch.relu, functional.relu)


@dataclass(frozen=True)
class Slot:
    """One parameter: its name in the flow, and the order of its rows and columns in the stack."""

    name: str
    rows: Tensor | None = None
    columns: Tensor | None = None
    reads_context: bool = False  # columns padded to the widest context of the stack

    def pack(self, value: Tensor, widest_context: int) -> Tensor:
        """Give (out, in), or (out, 1) of a bias, in the order of the stack."""
        matrix = value.reshape(len(value), -1)
        matrix = matrix if self.rows is None else matrix[self.rows]
        matrix = matrix if self.columns is None else matrix[:, self.columns]
        if not self.reads_context:
            return matrix
        return functional.pad(matrix, (0, widest_context - matrix.shape[1]))

    def unpack(self, matrix: Tensor, shape: torch.Size) -> Tensor:
        """Undo `pack`; `shape` is the parameter's own."""
        if self.reads_context:
            matrix = matrix[:, : shape[1]]
        matrix = matrix if self.rows is None else matrix[torch.argsort(self.rows)]
        matrix = matrix if self.columns is None else matrix[:, torch.argsort(self.columns)]
        return matrix.reshape(shape).clone()


@dataclass(frozen=True)
class Linear:
    """A linear layer by the names of its weight and bias; masked where a mask is given."""

    weight: str
    bias: str
    mask: Tensor | None = None  # (out, in), units sorted


@dataclass(frozen=True)
class PermutationStep:
    """A permutation of the features, by the name of its buffer."""

    buffer: str


@dataclass(frozen=True)
class SplineStep:
    """A MADE and its splines: masked layers from the features to the parameters."""

    layers: tuple[Linear, ...]
    context: Linear | None
    shape: SplineShape


@dataclass(frozen=True)
class FlowLayout:
    """A flow as steps over named parameters."""

    num_features: int
    steps: tuple[PermutationStep | SplineStep, ...]
    embedding: tuple[Linear | None, ...]  # None is a ReLU
    slots: tuple[Slot, ...]

    @classmethod
    def of(cls, flow: Flow) -> FlowLayout:
        """Read a flow that has a `stack_key`."""
        slots: list[Slot] = []
        embedding = tuple(_embedding_layers(flow, slots))
        steps = tuple(
            PermutationStep(f"{name}._permutation")
            if isinstance(transform, Permutation)
            else _spline_step(name, transform, slots, reads_context=not embedding)
            for name, transform in _named_transforms(flow)
        )
        return cls(int(flow._distribution._shape[0]), steps, embedding, tuple(slots))


def stack_key(flow: nn.Module) -> Hashable | None:
    """Give what flows of one stack have in common; None for a flow that cannot be stacked.

    Widths of the context before the embedding and the order of permutations may differ.
    """
    if not isinstance(flow, Flow) or not _is_stackable(flow):
        return None
    parts: list[Hashable] = [tuple(flow._distribution._shape)]
    for _, transform in _named_transforms(flow):
        if isinstance(transform, Permutation):
            parts.append("permutation")
        else:
            made = transform.autoregressive_net
            has_context = hasattr(made, "context_layer")
            parts += [SplineShape.of(transform), has_context, _digest_of_masks(made)]
    for layer in _embedding_modules(flow):
        parts.append(layer.out_features if isinstance(layer, nn.Linear) else "relu")
    weight = next(flow.parameters())
    return (*parts, weight.dtype, weight.device)


def context_width(flow: Flow) -> int | None:
    """Give the number of context columns that a stackable flow reads, None for no context."""
    readers = [
        *_embedding_modules(flow),
        *(module.context_layer for module in flow.modules() if hasattr(module, "context_layer")),
    ]
    return int(readers[0].in_features) if readers else None


def _is_stackable(flow: Flow) -> bool:
    return (
        type(flow._transform) is CompositeTransform
        and type(flow._distribution) is StandardNormal
        and len(flow._distribution._shape) == 1
        and all(_is_known(transform) for transform in flow._transform._transforms)
        and _is_plain(flow._embedding_net)
        and _has_one_context(flow)
    )


def _has_one_context(flow: Flow) -> bool:
    """Tell whether all MADEs or none read the context, and all where it is embedded."""
    reads = {hasattr(made, "context_layer") for made in flow.modules() if isinstance(made, MADE)}
    return reads == {True} or (reads == {False} and not _embedding_modules(flow))


def _is_known(transform: Transform) -> bool:
    if isinstance(transform, Permutation):
        return bool(transform._dim == 1)
    if not isinstance(transform, MaskedPiecewiseRationalQuadraticAutoregressiveTransform):
        return False
    made = transform.autoregressive_net
    return (
        type(made) is MADE
        and transform.tails == "linear"
        and not made.use_residual_blocks
        and not hasattr(made, "hidden_features")  # nflows would scale widths and heights by it
        and made.activation in _RELUS
        and all(_is_relu_block(block) for block in made.blocks)
    )


def _is_relu_block(block: MaskedFeedforwardBlock) -> bool:
    return (
        type(block) is MaskedFeedforwardBlock
        and block.batch_norm is None
        and block.dropout.p == 0
        and block.activation in _RELUS
    )


def _is_plain(embedding: nn.Module) -> bool:
    if type(embedding) is nn.Identity:
        return True
    return (
        type(embedding) is nn.Sequential
        and len(embedding) > 0
        and type(embedding[0]) is nn.Linear
        and all(
            type(layer) is nn.ReLU or (type(layer) is nn.Linear and layer.bias is not None)
            for layer in embedding
        )
    )


def _named_transforms(flow: Flow) -> Iterator[tuple[str, Transform]]:
    for number, transform in enumerate(flow._transform._transforms):
        yield f"_transform._transforms.{number}", transform


def _embedding_modules(flow: Flow) -> list[nn.Module]:
    network = flow._embedding_net
    return list(network) if isinstance(network, nn.Sequential) else []


def _embedding_layers(flow: Flow, slots: list[Slot]) -> Iterator[Linear | None]:
    for number, layer in enumerate(_embedding_modules(flow)):
        if isinstance(layer, nn.Linear):
            linear = Linear(f"_embedding_net.{number}.weight", f"_embedding_net.{number}.bias")
            slots += [Slot(linear.weight, reads_context=number == 0), Slot(linear.bias)]
            yield linear
        else:
            yield None


def _spline_step(
    prefix: str, transform: Transform, slots: list[Slot], *, reads_context: bool
) -> SplineStep:
    """Read a MADE in the order of its layers; `slots` take its parameters."""
    made = transform.autoregressive_net
    inner = f"{prefix}.autoregressive_net"
    named = [("initial_layer", made.initial_layer)]
    named += [(f"blocks.{number}.linear", b.linear) for number, b in enumerate(made.blocks)]
    layers: list[Linear] = []
    columns: Tensor | None = None
    for name, masked in named:
        rows = torch.argsort(masked.degrees, stable=True).cpu()
        layers.append(_masked_layer(f"{inner}.{name}", masked.mask, rows, columns, slots))
        columns = rows
    first_units = torch.argsort(made.initial_layer.degrees, stable=True).cpu()
    layers.append(
        _masked_layer(f"{inner}.final_layer", made.final_layer.mask, None, columns, slots)
    )
    context = None
    if hasattr(made, "context_layer"):
        context = Linear(f"{inner}.context_layer.weight", f"{inner}.context_layer.bias")
        slots += [
            Slot(context.weight, rows=first_units, reads_context=reads_context),
            Slot(context.bias, rows=first_units),
        ]
    return SplineStep(tuple(layers), context, SplineShape.of(transform))


def _masked_layer(
    prefix: str, mask: Tensor, rows: Tensor | None, columns: Tensor | None, slots: list[Slot]
) -> Linear:
    weight = Slot(f"{prefix}.weight", rows, columns)
    bias = Slot(f"{prefix}.bias", rows)
    slots += [weight, bias]
    return Linear(weight.name, bias.name, weight.pack(mask.cpu(), 0))


def _digest_of_masks(made: MADE) -> str:
    digest = hashlib.sha256()
    for name, buffer in made.named_buffers():
        digest.update(f"{name} {tuple(buffer.shape)}".encode())
        digest.update(buffer.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
