"""How many parts one fit trains together: `model.parts_per_group`.

A number, null for all parts of a stage, or `auto`: as many as fit the memory that is free. A run
records what auto chose, since the folders of its checkpoints are named by group: a resumed run
goes on with that number, whatever is free then. With `trainer.parallel=parts`, null shares the
parts of a stage evenly among the devices, and that is recorded likewise.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from calo_train.errors import UsageError
from calo_train.machine import free_host_memory
from calo_train.quantities import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calo_train.families.contracts import Stage
    from calo_train.training.config import RunConfig, TrainerConfig
    from calo_train.training.data import TrainingData

# Copies of the weights that a part takes: weights, gradients, two moments of Adam, masked weights;
# on the host also the best ones and, while a checkpoint is written, weights and moments again.
_DEVICE_COPIES, _HOST_COPIES = 5, 9
# A step keeps and recomputes that many numbers for each output of a linear layer and shower; the
# peak of a step of 4 and 8 causal flows at batches of 256 and 512 gave 6.0 to 6.6.
_ACTIVATION_COPIES = 7
# A GPU takes all parts of a group in one pass. A CPU gains nothing beyond a few (4 and 8 causal
# flows cost the same a flow, 10 a little more), and passes in turn keep fewer activations.
_LARGEST_STACK_ON_CPU = 4
_USABLE_SHARE = 0.8  # of the free memory; the rest is for the allocator and for others
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartMemory:
    """What decides how much memory a part takes while it trains."""

    num_weights: int
    num_outputs: int  # of all its linear layers, for one shower

    @classmethod
    def of(cls, flow: nn.Module) -> PartMemory:
        """Count a flow."""
        outputs = sum(m.out_features for m in flow.modules() if isinstance(m, nn.Linear))
        return cls(sum(parameter.numel() for parameter in flow.parameters()), outputs)

    def num_bytes(self, num_parts: int, use: MemoryUse) -> int:
        """Estimate the memory of some such parts in a step."""
        in_one_pass = min(num_parts, use.largest_stack or num_parts)
        activations = _ACTIVATION_COPIES * use.batch_size * self.num_outputs * in_one_pass
        return use.itemsize * (use.copies * self.num_weights * num_parts + activations)


@dataclass(frozen=True)
class MemoryUse:
    """How a training uses memory."""

    batch_size: int
    copies: int  # of the weights
    itemsize: int  # bytes of a number
    largest_stack: int | None  # parts of one pass


def largest_stack(trainer: TrainerConfig) -> int | None:
    """Give how many parts may share a pass on the training's device, None for all."""
    return None if trainer.accelerator == "gpu" else _LARGEST_STACK_ON_CPU


def shares_parts(trainer: TrainerConfig) -> bool:
    """Whether the groups of a training go to several devices of this machine."""
    return trainer.parallel == "parts" and num_devices(trainer) > 1


def num_devices(trainer: TrainerConfig) -> int:
    """Give the number of devices that a training takes on a machine; -1 asks for every GPU."""
    if trainer.num_devices > 0:
        return trainer.num_devices
    return max(torch.cuda.device_count(), 1) if trainer.accelerator == "gpu" else 1


def chosen_sizes(config: RunConfig, sizes: Mapping[str, int]) -> dict[str, int]:
    """Give what of the sizes this machine decided, which the run has to remember."""
    wanted = config.family.parts_per_group
    is_chosen = wanted == "auto" or (wanted is None and shares_parts(config.trainer))
    return dict(sizes) if is_chosen else {}


def group_sizes(
    config: RunConfig,
    data: TrainingData,
    stages: Sequence[Stage],
    recorded: Mapping[str, int],
) -> dict[str, int]:
    """Give the number of parts that a fit of each stage trains together.

    `recorded` holds what was chosen when the run began, by stage: by `auto`, or by sharing all
    parts evenly among devices. Raises UsageError for `auto`
    with several processes, whose memory one of them does not see.
    """
    wanted = config.family.parts_per_group
    if wanted is None:
        num_parts = {stage.name: len(stage.part_names) for stage in stages}
        if not shares_parts(config.trainer):
            return num_parts
        count = num_devices(config.trainer)
        return {name: recorded.get(name, -(-parts // count)) for name, parts in num_parts.items()}
    if isinstance(wanted, int):
        return {stage.name: wanted for stage in stages}
    if config.trainer.num_devices != 1 or config.trainer.num_nodes != 1:
        raise UsageError(
            "parts_per_group=auto counts the memory of one process, and several are asked for",
            where="model.parts_per_group, trainer.num_devices, trainer.num_nodes",
            do="give a number, or null for all parts together",
        )
    return {stage.name: _fitting(config, data, stage, recorded) for stage in stages}


def _fitting(
    config: RunConfig, data: TrainingData, stage: Stage, recorded: Mapping[str, int]
) -> int:
    num_parts = len(stage.part_names)
    if num_parts == 1:
        return 1
    if stage.name in recorded:
        size = int(recorded[stage.name])
        _log.info("stage %s: %d parts a group, as this run began", stage.name, size)
        return size
    is_gpu = config.trainer.accelerator == "gpu"
    copies = _DEVICE_COPIES if is_gpu else _HOST_COPIES
    use = MemoryUse(
        batch_size=stage.training.batch_size,
        copies=copies + (stage.training.ema_decay is not None),
        itemsize=8 if config.trainer.precision == "64-true" else 4,
        largest_stack=largest_stack(config.trainer),
    )
    parts = _untrained_parts(stage)
    largest = max(parts, key=lambda part: part.num_bytes(1, use))
    # The untrained weights of all parts wait on the host from the beginning.
    waiting = use.itemsize * sum(part.num_weights for part in parts)
    free = _free_device_memory(data) if is_gpu else free_host_memory() - waiting
    size = fitting_parts(largest, use, free=free, num_parts=num_parts)
    _log.info(
        "stage %s: %d of %d parts a group (parts_per_group=auto): they take about %s, %s are "
        "free", stage.name, size, num_parts, format_size(largest.num_bytes(size, use)),
        format_size(max(free, 0)),
    )  # fmt: skip
    return size


def fitting_parts(part: PartMemory, use: MemoryUse, *, free: int, num_parts: int) -> int:
    """Share `num_parts` over as few groups as the memory allows, of nearly equal size."""
    fits = [n for n in range(1, num_parts + 1) if part.num_bytes(n, use) <= _USABLE_SHARE * free]
    num_groups = -(-num_parts // max(fits, default=1))
    return -(-num_parts // num_groups)


def _untrained_parts(stage: Stage) -> list[PartMemory]:
    """Count every part; they are built and forgotten one by one."""
    with torch.random.fork_rng(devices=[]):
        return [PartMemory.of(stage.build_part(index)) for index in range(len(stage.part_names))]


def _free_device_memory(data: TrainingData) -> int:
    free, _ = torch.cuda.mem_get_info()
    energies = data.source.num_showers * data.geometry.num_voxels * 4
    # A data set that fits moves to the GPU before the first step.
    return int(free) - min(energies, int(free) // 2)
