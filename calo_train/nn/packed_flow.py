"""A flow packed once to be inverted many times, by the backend that suits the machine.

    packed = pack(flow)
    features = packed.inverse(base_noise, context)

`compiled` walks through the whole flow, embedding network included, in one call of a kernel for
this processor, `triton` in one launch of a kernel on a GPU; `torch` takes the same walk in torch
operations on any device; `reference` calls the flow's own inverse, one network pass a feature.
"""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
from nflows.flows import Flow
from nflows.transforms.base import InputOutsideDomain

from calo_train.errors import MachineError, UsageError
from calo_train.nn.flow_steps import FlowSteps, MadeStep, PermutationStep, read_flow
from calo_train.nn.made_layers import is_relu
from calo_train.nn.made_walk import (
    WHERE,
    MadeWalk,
    kernel_missing,
    require_context,
    require_finite_rows,
)
from calo_train.nn.triton_walk import TritonWalk
from calo_train.nn.walk_kernel import CompiledWalk
from calo_train.nn.walk_program import write_program

if TYPE_CHECKING:
    from torch import Tensor, nn

BACKENDS = ("auto", "compiled", "triton", "torch", "reference")
_log = logging.getLogger(__name__)


class PackedFlow:
    """A flow packed for sampling; immutable: it does not follow later changes of the module."""

    def __init__(
        self,
        transform: nn.Module,
        *,
        dtype: torch.dtype,
        device: torch.device,
        backend: str = "auto",
    ) -> None:
        self._dtype = dtype
        self._device = device
        steps = read_flow(transform)
        self._num_features = steps.num_features
        self._has_domain = any(
            isinstance(step, MadeStep) and step.head.has_domain for step in steps.steps
        )
        self._backend = _choose(backend, transform, steps, dtype, device)

    @property
    def backend(self) -> str:
        """Name the backend that serves."""
        return self._backend.name

    @torch.no_grad()
    def inverse(self, base_noise: Tensor, context: Tensor | None = None) -> Tensor:
        """Map base noise (n, D) and context (n, C) to features (n, D).

        The context is what the flow itself takes, before its embedding network.
        """
        return self._invert(base_noise, context, None)

    @torch.no_grad()
    def inverse_with_log_det(
        self, base_noise: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Give features (n, D) and log|d features / d noise|, (n,)."""
        log_abs_det = torch.zeros(len(base_noise), dtype=self._dtype, device=self._device)
        return self._invert(base_noise, context, log_abs_det), log_abs_det

    def _invert(
        self, base_noise: Tensor, context: Tensor | None, log_abs_det: Tensor | None
    ) -> Tensor:
        values = base_noise.to(self._device, self._dtype)
        self._require_noise(values)
        if context is not None:
            context = context.to(self._device, self._dtype)
        features = self._backend.invert(values, context, log_abs_det)
        if self._has_domain:
            _require_image(features)
        return features

    def _require_noise(self, noise: Tensor) -> None:
        if noise.ndim != 2 or noise.shape[1] != self._num_features:
            raise UsageError(
                f"base noise has the shape {tuple(noise.shape)}, "
                f"expected (n, {self._num_features})",
                where=WHERE,
                do="give one row a shower and one column a feature",
            )
        require_finite_rows(noise, "base noise holds", do="draw it from a normal distribution")


def pack(
    transform: nn.Module,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    backend: str = "auto",
) -> PackedFlow:
    """Pack a transform or flow once, to invert it many times; its own dtype and device by default.

    Raises UsageError for transforms that are not supported, and for training mode where dropout
    or batch normalisation makes it differ; MachineError for a backend that is asked for by name
    and cannot serve. `auto` takes the kernel of the device where it can, else torch.
    """
    first = next(transform.parameters(), torch.empty(0))
    return PackedFlow(
        transform, dtype=dtype or first.dtype, device=device or first.device, backend=backend
    )


class _Backend(ABC):
    name: str

    @abstractmethod
    def invert(self, noise: Tensor, context: Tensor | None, log_abs_det: Tensor | None) -> Tensor:
        """Map noise (n, D) to features (n, D); add their log|det| where it is wanted."""


class _Compiled(_Backend):
    name = "compiled"

    def __init__(self, steps: FlowSteps, dtype: torch.dtype) -> None:
        self._num_context = steps.num_context
        self._walk = CompiledWalk(write_program(steps, dtype))

    def invert(self, noise: Tensor, context: Tensor | None, log_abs_det: Tensor | None) -> Tensor:
        require_context(context, len(noise), self._num_context)
        given = noise.new_empty(0) if context is None else context
        features = self._walk.invert(
            noise.contiguous().numpy(),
            given.contiguous().numpy(),
            log_det=None if log_abs_det is None else log_abs_det.numpy(),
            num_threads=torch.get_num_threads(),
        )
        return torch.from_numpy(features)


class _Triton(_Backend):
    name = "triton"

    def __init__(self, steps: FlowSteps, dtype: torch.dtype, device: torch.device) -> None:
        self._num_context = steps.num_context
        self._walk = TritonWalk(steps, dtype, device)

    def invert(self, noise: Tensor, context: Tensor | None, log_abs_det: Tensor | None) -> Tensor:
        require_context(context, len(noise), self._num_context)
        return self._walk.invert(noise, context, log_abs_det=log_abs_det)


class _Torch(_Backend):
    name = "torch"

    def __init__(self, steps: FlowSteps, dtype: torch.dtype, device: torch.device) -> None:
        self._embedding: nn.Module | None = None
        if steps.embedding is not None:
            self._embedding = copy.deepcopy(steps.embedding).to(device, dtype).eval()
        self._num_context = steps.num_context
        self._undo: list[_Undo] = [
            _undo_made(step, dtype, device)
            if isinstance(step, MadeStep)
            else _undo_permutation(step, device)
            for step in reversed(steps.steps)
        ]

    def invert(self, noise: Tensor, context: Tensor | None, log_abs_det: Tensor | None) -> Tensor:
        require_context(context, len(noise), self._num_context)
        if self._embedding is not None:
            context = self._embedding(context)
        values = noise.T.contiguous()
        for undo in self._undo:
            values = undo(values, context, log_abs_det)
        return values.T.contiguous()


class _Reference(_Backend):
    name = "reference"

    def __init__(
        self, transform: nn.Module, steps: FlowSteps, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._embedding: nn.Module | None = None
        transform = copy.deepcopy(transform).to(device, dtype).eval()
        if isinstance(transform, Flow):
            self._embedding, transform = transform._embedding_net, transform._transform
        self._transform = transform
        self._num_context = steps.num_context

    def invert(self, noise: Tensor, context: Tensor | None, log_abs_det: Tensor | None) -> Tensor:
        require_context(context, len(noise), self._num_context)
        if self._embedding is not None:
            context = self._embedding(context)
        if not len(noise):
            return torch.empty_like(noise)  # nflows divides by the number of rows
        features: Tensor
        try:
            features, log_det = self._transform.inverse(noise, context)  # type: ignore[operator]
        except InputOutsideDomain as error:
            raise _left_domain("which rows, nflows does not tell") from error
        if log_abs_det is not None:
            log_abs_det += log_det
        return features


def _require_image(features: Tensor) -> None:
    """Raise UsageError, naming rows, where a spline without tails was left."""
    has_image = torch.isfinite(features).all(dim=1)
    if bool(has_image.all()):
        return
    rows = (~has_image).nonzero().flatten()[:5].tolist()
    raise _left_domain(f"rows {', '.join(map(str, rows))}")


def _left_domain(rows: str) -> UsageError:
    return UsageError(
        "values left [0, 1], the domain of a spline without tails",
        where=f"{WHERE}, {rows}",
        do="draw base noise from the uniform distribution on [0, 1]",
    )


_Undo = Callable[["Tensor", "Tensor | None", "Tensor | None"], "Tensor"]


def _undo_made(step: MadeStep, dtype: torch.dtype, device: torch.device) -> _Undo:
    head = step.head
    walk = MadeWalk(step.made, dtype=dtype, device=device, output_scale=head.output_scale)

    def undo(values: Tensor, context: Tensor | None, log_abs_det: Tensor | None) -> Tensor:
        def take_feature(index: int, parameters: Tensor) -> Tensor:
            return head.invert(values[index], parameters, log_abs_det)

        return walk.run(values.shape[1], context, take_feature)

    return undo


def _undo_permutation(step: PermutationStep, device: torch.device) -> _Undo:
    inverse = step.inverse.to(device)
    return lambda values, _context, _log_abs_det: values.index_select(0, inverse)


def _choose(
    backend: str,
    transform: nn.Module,
    steps: FlowSteps,
    dtype: torch.dtype,
    device: torch.device,
) -> _Backend:
    if backend not in BACKENDS:
        raise UsageError(
            f"backend '{backend}' is unknown", where=WHERE, do=f"use one of {', '.join(BACKENDS)}"
        )
    if backend == "reference":
        return _Reference(transform, steps, dtype, device)
    if backend == "torch":
        return _Torch(steps, dtype, device)
    name = backend
    if backend == "auto":
        name = "triton" if device.type == "cuda" else "compiled"
    try:
        _require_walkable(steps, dtype)
        _require_device(name, device)
        if name == "triton":
            return _Triton(steps, dtype, device)
        return _Compiled(steps, dtype)
    except MachineError as error:
        if backend != "auto":
            raise
        _tell_once(error.what)
        return _Torch(steps, dtype, device)


@cache
def _tell_once(reason: str) -> None:
    """Log why torch serves; a generator has many flows with the same reason."""
    _log.info("flows are inverted in torch: %s", reason)


def _require_device(backend: str, device: torch.device) -> None:
    """Raise MachineError where a kernel is wanted on a device that it was not made for."""
    needed = {"triton": "cuda", "compiled": "cpu"}[backend]
    if device.type != needed:
        raise _cannot_serve(f"{backend} is for {needed}, they are wanted on {device.type}")


def _require_walkable(steps: FlowSteps, dtype: torch.dtype) -> None:
    """Raise MachineError, naming the reason, where no kernel can serve."""
    mades = [step.made for step in steps.steps if isinstance(step, MadeStep)]
    reasons = {
        f"they are wanted in {dtype}": dtype not in (torch.float32, torch.float64),
        "an activation is not ReLU": any(not is_relu(made.activation) for made in mades),
        "batch normalisation stands before an activation": any(
            layer.scaling is not None for made in mades for layer in made.layers
        ),
        "the embedding is not made of linear layers and ReLU": steps.embedding_layers is None,
    }
    for reason, holds in reasons.items():
        if holds:
            raise _cannot_serve(reason)


def _cannot_serve(reason: str) -> MachineError:
    return kernel_missing(f"no kernel can serve: {reason}")
