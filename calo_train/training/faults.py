"""What a machine does to a running fit, as errors with a way out: memory of a GPU, lost processes.

torch raises both as RuntimeErrors of many lines; here they become MachineErrors that say how large
a batch was and which would fit, or that another process of the training is gone.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from calo_train.errors import MachineError
from calo_train.quantities import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calo_train.training.group_module import GroupModule

# As gloo, NCCL and torch's store word the end of a peer; there is no class of its own for gloo.
_PEER_IS_GONE = re.compile(
    r"connection (closed|reset|refused)|broken pipe|peer|NCCL|gloo|socket", re.IGNORECASE
)
# What the libraries below torch say of a full GPU, which is no OutOfMemoryError.
_IS_FULL = re.compile(r"CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED")


@contextmanager
def machine_faults(module: GroupModule, where: str) -> Iterator[None]:
    """Turn what the machine does to the fit in a with-block into MachineErrors."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError) or _IS_FULL.search(str(error)):
            raise out_of_memory(module, where) from error
        if module.trainer.world_size == 1 or not _PEER_IS_GONE.search(str(error)):
            raise
        raise MachineError(
            f"another process of this training is gone: {str(error).splitlines()[0]}",
            where=f"process {module.global_rank} of {module.trainer.world_size}, {where}",
            do="see the log of the others for the cause; the same command goes on from the last "
            "checkpoint",
        ) from error


def out_of_memory(module: GroupModule, where: str) -> MachineError:
    """Say what did not fit on the GPU, and which batch should; the last checkpoint stays."""
    stage, size = module.group.stage, module.group.stage.training.batch_size
    free, total, peak, fixed = _device_memory(module)
    fits = fitting_batch(size, room=max(total - fixed, 0), used=max(peak - fixed, 0))
    return MachineError(
        f"the GPU's memory is full: {len(module.active_parts)} parts with a batch of {size} took "
        f"{format_size(peak)} at their peak, {format_size(free)} of {format_size(total)} are free",
        where=f"stage {stage.name}, parts {module.group.label}, epoch {module.epoch + 1}, batch "
        f"{module.batch + 1}; {where}",
        do=f"model.{stage.name}_training.batch_size={fits} should fit, under another name=...; or "
        "train fewer parts at once with model.parts_per_group, which changes nothing else",
    )


def fitting_batch(size: int, *, room: int, used: int) -> int:
    """Give a power of two below a batch `size` that took over `used` of the `room` for batches.

    The peak is that before the allocation that failed, so `size` needs more than `used`; half of
    it is the most that is promised, and a fifth of the room is left to fragmentation.
    """
    largest = min(size / 2, 0.8 * size * room / used / 2) if used else size / 2
    return 1 << max(int(largest).bit_length() - 1, 0)


def _device_memory(module: GroupModule) -> tuple[int, int, int, int]:
    """Give free and total memory, the peak, and what stays from batch to batch, in bytes."""
    # Weights, gradients and the two moments of Adam.
    fixed = sum(4 * p.numel() * p.element_size() for p in module.parameters())
    if not torch.cuda.is_available():
        return 0, 0, 0, fixed
    free, total = torch.cuda.mem_get_info(module.device)
    return free, total, torch.cuda.max_memory_allocated(module.device), fixed
