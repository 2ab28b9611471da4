"""The walk on a GPU: a whole flow in one launch of a kernel, where Triton is there to compile it.

Triton comes with torch's CUDA builds on Linux and is no dependency of its own, so it is looked for
when a flow is packed. The order of sums does not depend on how many showers there are: a program
instance always owns as many, the last one some that nobody asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
import torch

from calo_train.nn.autoregressive_heads import AffineCode
from calo_train.nn.made_walk import kernel_missing
from calo_train.nn.spline_code import SplineKind
from calo_train.nn.walk_program import write_program

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor

    from calo_train.errors import MachineError
    from calo_train.nn.autoregressive_heads import HeadCode
    from calo_train.nn.flow_steps import FlowSteps
    from calo_train.nn.walk_program import WalkProgram

_LARGEST_OFFSET = 2**31 - 1  # places in the table are 32 bits wide on the GPU


@dataclass(frozen=True)
class GpuTile:
    """How the kernel cuts its work; all but `num_warps` are powers of two.

    An operation of more than `few_rows` rows is multiplied in tiles of `rows` x `sources` weights,
    each for `lanes` showers, `unroll` of them loaded together; another in tiles of `few_rows` x
    `few_sources`. A launch takes as many showers as have their rows in `scratch` bytes.
    """

    lanes: int = 8
    rows: int = 32
    sources: int = 2
    unroll: int = 16
    few_rows: int = 2
    few_sources: int = 128
    num_warps: int = 4
    scratch: int = 1 << 30

    @classmethod
    def of(cls, dtype: torch.dtype) -> GpuTile:
        """Give the tile of a precision."""
        return cls() if dtype == torch.float32 else cls(unroll=8, few_sources=64)


class TritonWalk:
    """A flow written for the kernel, on a device; immutable."""

    def __init__(
        self,
        steps: FlowSteps,
        dtype: torch.dtype,
        device: torch.device,
        tile: GpuTile | None = None,
    ) -> None:
        """Raises MachineError where the kernel cannot be compiled or does not know the heads."""
        self._kernel = _kernel_module().walk
        self._tile = tile or GpuTile.of(dtype)
        self._program = program = write_program(steps, dtype, rows_at_once=self._tile.rows)
        _require_small(program)
        self._num_bins, self._has_tails = _head_constants(program.heads)
        line_after = np.zeros((1, program.table.shape[1]), np.int64)  # is loaded, not executed
        table = np.concatenate([program.table, line_after]).astype(np.int32)
        self._table, self._weights, self._biases, self._settings = (
            torch.from_numpy(array).to(device)
            for array in (table, program.weights, program.biases, program.settings)
        )
        self._output_rows = torch.from_numpy(program.output_rows).to(device)
        if device.type == "cuda":
            self._require_launch()

    def invert(
        self, noise: Tensor, context: Tensor | None, *, log_abs_det: Tensor | None
    ) -> Tensor:
        """Map noise (n, D) and context (n, C) to features (n, D); adds to `log_abs_det` (n,).

        All are on the device and in the precision of the walk. Showers beyond what `scratch` holds
        wait for a launch of their own; instances know nothing of each other, so no bit depends
        on it.
        """
        features = noise.new_empty(noise.shape)
        at_once = self._showers_at_once(noise.element_size())
        for first in range(0, len(noise), at_once):
            rows = slice(first, first + at_once)
            features[rows] = self._invert(
                noise[rows],
                None if context is None else context[rows],
                None if log_abs_det is None else log_abs_det[rows],
            )
        return features

    def _showers_at_once(self, bytes_a_number: int) -> int:
        """Give how many showers a launch takes: whole instances, at least one."""
        lanes = self._tile.lanes
        bytes_an_instance = self._program.num_rows * lanes * bytes_a_number
        return lanes * max(self._tile.scratch // bytes_an_instance, 1)

    def _invert(self, noise: Tensor, context: Tensor | None, log_abs_det: Tensor | None) -> Tensor:
        """Invert showers in one launch."""
        program = self._program
        num_instances = -(-len(noise) // self._tile.lanes)
        state = noise.new_empty(num_instances, program.num_rows, self._tile.lanes)
        self._put(state, program.value_row, noise)
        if context is not None and program.num_context:
            self._put(state, program.context_row, context)
        if log_abs_det is not None:
            state[:, program.log_det_row] = 0.0
        self._launch(state, wants_log_det=log_abs_det is not None)
        if log_abs_det is not None:
            log_abs_det += state[:, program.log_det_row].flatten()[: len(noise)]
        drawn = state.index_select(1, self._output_rows).transpose(1, 2)
        return drawn.reshape(-1, program.num_features)[: len(noise)]

    def _require_launch(self) -> None:
        """Compile the kernel by drawing a shower: Triton needs a C compiler and a known GPU."""
        program = self._program
        noise = self._weights.new_zeros(1, program.num_features)
        try:
            self.invert(noise, noise.new_zeros(1, program.num_context), log_abs_det=None)
            torch.cuda.synchronize(noise.device)
        except Exception as error:  # whatever a compiler may raise: torch can serve instead
            reason = str(error).strip().partition("\n")[0]
            raise _cannot_serve(
                f"it does not run here ({type(error).__name__}: {reason})"
            ) from error

    def _put(self, state: Tensor, row: int, values: Tensor) -> None:
        """Turn rows of showers (n, width) into rows of the instances, idle lanes to zero."""
        num_instances, _, lanes = state.shape
        full, width = len(values) // lanes, values.shape[1]
        rows = state[:, row : row + width].transpose(1, 2)  # (instances, lanes, width)
        rows[:full] = values[: full * lanes].view(full, lanes, width)
        if full < num_instances:
            num_left = len(values) - full * lanes
            rows[full, :num_left] = values[full * lanes :]
            rows[full, num_left:] = 0.0

    def _launch(self, state: Tensor, *, wants_log_det: bool) -> None:
        program, tile = self._program, self._tile
        # Triton launches on the current device, which need not be the one that was asked for.
        with torch.cuda.device_of(state):  # type: ignore[no-untyped-call]
            self._kernel[(len(state),)](
                self._table,
                self._weights,
                self._biases,
                self._settings,
                state,
                len(program.table),
                program.num_rows,
                program.log_det_row,
                LANES=tile.lanes,
                ROWS=tile.rows,
                SOURCES=tile.sources,
                UNROLL=tile.unroll,
                FEW_ROWS=tile.few_rows,
                FEW_SOURCES=tile.few_sources,
                NUM_BINS=self._num_bins,
                HAS_TAILS=self._has_tails,
                WANTS_LOG_DET=wants_log_det,
                num_warps=tile.num_warps,
            )


def _kernel_module() -> ModuleType:
    """Import the kernel; MachineError where there is no Triton."""
    try:
        return import_module("calo_train.nn.triton_kernel")
    except ImportError as error:
        raise _cannot_serve(f"Triton is not there ({error})") from error


def _head_constants(heads: tuple[HeadCode, ...]) -> tuple[int, bool]:
    """Give bins, 0 for the affine head, and whether there are tails, of a flow's only head."""
    if len(heads) > 1:
        raise _cannot_serve("its transforms have heads of several kinds")
    for head in heads:
        if isinstance(head, SplineKind):
            return head.num_bins, head.has_linear_tails
        if not isinstance(head, AffineCode):
            raise _cannot_serve(f"{type(head).__name__} is not known there")
    return 0, False


def _require_small(program: WalkProgram) -> None:
    if program.weights.size > _LARGEST_OFFSET:
        raise _cannot_serve(f"the flow holds {program.weights.size} weights, more than 2^31")


def _cannot_serve(reason: str) -> MachineError:
    return kernel_missing(f"the kernel for GPUs cannot serve: {reason}")
