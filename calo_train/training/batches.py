"""Batches of showers on the training device, in an order that a resumed run repeats.

Wraps a `BatchStream` for one epoch from a given batch on. When all rows fit, they live on the
device and a batch is an index; otherwise each block is sent over. Several processes of a training
all prepare the whole batch, with the same noise, and each computes its share of the showers
(`share_of`): so the loss does not depend on their number, and no shower is lost or used twice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from calo_train.families.contracts import PartInput, ShowerBatch
from calo_train.nn.distillation import DistillationInput
from calo_train.showers.rounding import undo_rounding
from calo_train.showers.symmetries import symmetry_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calo_train.geometry import Geometry
    from calo_train.showers.showers import Showers
    from calo_train.showers.stream import BatchStream

Input = TypeVar("Input", bound=PartInput | DistillationInput)

_DEVICE_SHARE = 0.4  # of the free GPU memory may hold the data set


class StoredBatch(NamedTuple):
    """A batch as stored: energies (n, voxels) MeV, rounding not undone, and its rows.

    A tuple, since Lightning's double precision refuses a batch that is a frozen dataclass (2.6).
    """

    energies: Tensor
    conditions: dict[str, Tensor]
    rows: Tensor
    mantissa_bits: Tensor  # (n,), 0 where the file was not rounded
    is_rounded: bool  # some of the split's rows (in memory) or of the batch's (streamed) were

    @property
    def num_showers(self) -> int:
        return len(self.rows)


class DeviceBatches:
    """Batches of one split for one epoch at a time."""

    def __init__(self, stream: BatchStream, device: torch.device) -> None:
        self._stream = stream
        self._device = device
        self._resident = self._put_on_device() if self._fits_device() else None

    def __len__(self) -> int:
        return len(self._stream)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[StoredBatch]:
        """Yield the batches of an epoch from number `start` on."""
        if self._resident is not None:
            yield from self._resident_epoch(self._resident, epoch, start)
            return
        for host in self._stream.batches(epoch, start):
            yield _stored(host.showers, host.rows, host.mantissa_bits, device=self._device)

    def _resident_epoch(
        self, resident: StoredBatch, epoch: int, start: int
    ) -> Iterator[StoredBatch]:
        order = self._stream.order(epoch)
        positions = np.searchsorted(resident.rows.cpu().numpy(), order)
        size = self._stream.batch_size
        for number in range(start, len(self)):
            whole = positions[number * size : (number + 1) * size]
            index = torch.from_numpy(whole).to(self._device)
            yield StoredBatch(
                resident.energies[index],
                {name: values[index] for name, values in resident.conditions.items()},
                resident.rows[index],
                resident.mantissa_bits[index],
                resident.is_rounded,
            )

    def _fits_device(self) -> bool:
        if not self._stream.is_in_memory:
            return False
        if self._device.type != "cuda":
            return True
        free, _ = torch.cuda.mem_get_info(self._device)
        return self._stream.showers.energies.nbytes < _DEVICE_SHARE * free

    def _put_on_device(self) -> StoredBatch:
        stream = self._stream
        return _stored(stream.showers, stream.rows, stream.mantissa_bits, device=self._device)


def share_of(whole: Input, rank: int, world: int) -> Input:
    """Give what process `rank` of `world` computes: every shower of the batch in one of them.

    The rows of a shower, one after the other in every tensor of an input, stay together.
    """
    if world == 1:
        return whole

    def cut(values: Tensor) -> Tensor:
        by_shower = values.reshape(-1, whole.rows_per_shower, *values.shape[1:])
        return by_shower[rank::world].reshape(-1, *values.shape[1:])

    tensors = {name: value for name, value in vars(whole).items() if isinstance(value, Tensor)}
    shares: dict[str, Any] = {name: cut(value) for name, value in tensors.items()}
    return replace(whole, **shares)


class BatchPreparation:
    """Undo stored rounding and take a random symmetry image; training only for the latter."""

    def __init__(self, geometry: Geometry, symmetries: list[str], device: torch.device) -> None:
        images = symmetry_images(geometry, symmetries)
        self._images = torch.from_numpy(images).to(device)

    def training(
        self, stored: StoredBatch, random: torch.Generator, dtype: torch.dtype
    ) -> ShowerBatch:
        """Prepare a training batch with fresh noise and a fresh image of every shower."""
        batch = self.validation(stored, random, dtype)
        if len(self._images) == 1:
            return batch
        device = batch.energies.device
        choice = torch.randint(len(self._images), (len(batch),), generator=random, device=device)
        return ShowerBatch(
            batch.energies.gather(1, self._images[choice]), batch.conditions, batch.rows
        )

    def validation(
        self, stored: StoredBatch, random: torch.Generator, dtype: torch.dtype
    ) -> ShowerBatch:
        """Prepare a validation batch: judged without the comb of stored rounding."""
        energies = stored.energies
        # A set that was never rounded takes no noise, so that its random numbers are not spent.
        if stored.is_rounded:
            uniform = torch.rand(energies.shape, generator=random, device=energies.device)
            energies = undo_rounding(energies, stored.mantissa_bits, uniform)
        conditions = {name: values.to(dtype) for name, values in stored.conditions.items()}
        return ShowerBatch(energies.to(dtype), conditions, stored.rows)


def _stored(
    showers: Showers,
    rows: npt.NDArray[np.int64],
    mantissa_bits: npt.NDArray[np.int64],
    *,
    device: torch.device,
) -> StoredBatch:
    def tensor(values: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    return StoredBatch(
        tensor(showers.energies),
        {name: tensor(values) for name, values in showers.conditions.items()},
        tensor(rows),
        tensor(mantissa_bits),
        bool((mantissa_bits > 0).any()),
    )
