"""The Lightning module of every likelihood stage: parts side by side, each by its own loss.

Optimisation is manual: each part of the group takes its own step on the same batch, so that a part
is trained alike whatever it is grouped with. With several processes the gradients of a part are
averaged over all showers of the batch, part by part.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from calo_train.errors import DivergedError
from calo_train.training.batches import (
    BatchPreparation,
    DeviceBatches,
    StoredBatch,
)
from calo_train.training.parts import Part
from calo_train.training.randomness import keyed_generator, keyed_global_random, keyed_seed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calo_train.families.contracts import PartInput, ShowerBatch
    from calo_train.showers.stream import BatchStream
    from calo_train.training.data import TrainingData
    from calo_train.training.plan import Group


class LikelihoodModule(LightningModule):
    """The parts of one group under training, and where in the fit they are."""

    def __init__(self, group: Group, data: TrainingData, *, seed: int, num_epochs: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.group = group
        self.num_epochs = num_epochs
        self.epoch = 0  # epochs that are finished
        self.batch = 0  # batches of the running epoch that are finished
        self._seed = seed
        self._data = data
        settings = group.stage.training
        self._train_stream = data.stream(data.split.train, settings, is_training=True)
        self._validation_stream = data.stream(data.split.validation, settings, is_training=False)
        num_steps = num_epochs * len(self._train_stream)
        self.parts = [self._build_part(index, num_steps) for index in group.parts]
        self.flows = nn.ModuleList(part.flow for part in self.parts)
        self.averages = nn.ModuleList(
            part.average for part in self.parts if part.average is not None
        )
        self._validation_sums: dict[str, Tensor] = {}
        self._preparation: BatchPreparation | None = None
        self._loaders: dict[str, DeviceBatches] = {}

    def _build_part(self, index: int, num_steps: int) -> Part:
        stage = self.group.stage
        name = stage.part_names[index]
        with keyed_global_random(self._seed, stage.name, name, "initial weights"):
            return Part(name, stage.build_part(index), stage.training, num_steps)

    @property
    def active_parts(self) -> list[tuple[int, Part]]:
        """Parts that still train, with their index in the stage."""
        pairs = zip(self.group.parts, self.parts, strict=True)
        return [(index, part) for index, part in pairs if not part.progress.is_stopped]

    @property
    def is_finished(self) -> bool:
        return self.epoch >= self.num_epochs or not self.active_parts

    @property
    def num_training_showers(self) -> int:
        return len(self._train_stream.rows)

    @property
    def num_batches(self) -> int:
        """Batches of a whole epoch."""
        return len(self._train_stream)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Give every part's optimiser; schedules are stepped by the parts."""
        return [part.optimiser for part in self.parts]

    def train_dataloader(self) -> _EpochLoader:
        """Give the running epoch from where it stands; asked for again before every epoch."""
        batches = self._device_batches("train", self._train_stream)
        return _EpochLoader(batches, epoch=self.epoch, start=self.batch)

    def val_dataloader(self) -> _EpochLoader:
        """Give the validation rows in their order."""
        batches = self._device_batches("validation", self._validation_stream)
        return _EpochLoader(batches, epoch=0, start=0)

    def transfer_batch_to_device(
        self,
        batch: StoredBatch,
        device: torch.device,  # noqa: ARG002 - Lightning's signature
        dataloader_idx: int,  # noqa: ARG002
    ) -> StoredBatch:
        """Leave the batch where it is: the loader put it on the device."""
        return batch

    def training_step(self, stored: StoredBatch, _batch_index: int) -> None:
        """Take one optimiser step of every active part."""
        rank = self.global_rank
        words = (self.group.stage.name, self.epoch, self.batch, rank)
        # Dropout is the one user of torch's global generator.
        torch.manual_seed(keyed_seed(self._seed, "dropout", *words))
        random = keyed_generator(
            self.device, self._seed, f"{self.group.stage.name} train", self.epoch, self.batch, rank
        )
        batch = self._prepare.training(stored, random, self.dtype_of_flows)
        active = self.active_parts
        inputs = self.group.stage.inputs(batch, [index for index, _ in active], random)
        for index, part in active:
            self._step(part, inputs(index), batch, stored.num_total)
        self.batch += 1

    def _step(self, part: Part, part_input: PartInput, batch: ShowerBatch, num_total: int) -> None:
        losses = part.loss(part_input)
        # Divided by all showers of the batch: summed over processes this is the batch mean.
        loss = losses.sum() / num_total
        part.optimiser.zero_grad()
        self.manual_backward(loss)
        self._sum_gradients(part)
        norm = part.clip_gradient()
        if not math.isfinite(norm.item()) or not math.isfinite(loss.item()):
            raise self._diverged(part, part_input, batch, losses)
        part.optimiser.step()
        part.after_step()
        part.progress.loss_sum += float(losses.detach().sum())
        part.progress.num_showers += len(losses)

    def _sum_gradients(self, part: Part) -> None:
        if self.trainer.world_size == 1:
            return
        gradients = [p.grad for p in part.flow.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        offset = 0
        for gradient in gradients:
            gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
            offset += gradient.numel()

    def on_validation_epoch_start(self) -> None:
        """Start the sums of validation losses, (sum, showers) for each active part."""
        self._validation_sums = {
            part.name: torch.zeros(2, dtype=torch.float64, device=self.device)
            for _, part in self.active_parts
        }

    def validation_step(self, stored: StoredBatch, batch_index: int) -> None:
        """Add the losses of a batch; its noise is the same in every epoch."""
        random = keyed_generator(
            self.device,
            self._seed,
            f"{self.group.stage.name} validation",
            0,
            batch_index,
            self.global_rank,
        )
        batch = self._prepare.validation(stored, random, self.dtype_of_flows)
        active = self.active_parts
        inputs = self.group.stage.inputs(batch, [index for index, _ in active], random)
        for index, part in active:
            losses = part.judged_loss(inputs(index)).double()
            self._validation_sums[part.name] += torch.stack(
                [
                    losses.sum(),
                    torch.full_like(losses[0], len(losses)) if len(losses) else losses.sum(),
                ]
            )

    def validation_losses(self) -> dict[str, float]:
        """Give the mean validation loss of each part over all processes."""
        means = {}
        for name, sums in self._validation_sums.items():
            if self.trainer.world_size > 1:
                torch.distributed.all_reduce(sums)
            means[name] = float(sums[0] / sums[1])
        return means

    def checkpoint_state(self) -> dict[str, Any]:
        """Give everything that a resumed fit needs."""
        return {
            "format": 1,
            "epoch": self.epoch,
            "batch": self.batch,
            "num_epochs": self.num_epochs,
            "parts": {part.name: part.state() for part in self.parts},
        }

    def load_checkpoint_state(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of the same group."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        for part in self.parts:
            part.load_state(state["parts"][part.name])

    @property
    def dtype_of_flows(self) -> torch.dtype:
        return next(self.flows.parameters()).dtype

    @property
    def _prepare(self) -> BatchPreparation:
        if self._preparation is None:
            self._preparation = BatchPreparation(
                self._data.geometry, self._data.symmetries, self.device
            )
        return self._preparation

    def _device_batches(self, name: str, stream: BatchStream) -> DeviceBatches:
        if name not in self._loaders:
            self._loaders[name] = DeviceBatches(
                stream, self.device, rank=self.global_rank, world=self.trainer.world_size
            )
        return self._loaders[name]

    def _diverged(
        self, part: Part, part_input: PartInput, batch: ShowerBatch, losses: Tensor
    ) -> DivergedError:
        bad = (~torch.isfinite(losses)).nonzero().flatten()
        rows = batch.rows[bad if len(bad) else slice(None)][:5].tolist()
        largest = float(part_input.features.abs().max())
        return DivergedError(
            f"the loss of part {self.group.stage.name}/{part.name} is not finite "
            f"({len(bad)} of {len(losses)} showers); the step was not applied",
            where=f"epoch {self.epoch + 1}, batch {self.batch + 1} of {self.num_batches}, "
            f"learning rate {part.learning_rate:.3g}, data rows {rows}, "
            f"largest feature {largest:.4g}",
            do=f"the last good checkpoint stays; lower "
            f"model.{self.group.stage.name}_training.learning_rate or set gradient_clip, "
            "under another name=... or with restart=true",
        )


class _EpochLoader:
    """The rest of one epoch, as an iterable of known length for Lightning."""

    def __init__(self, batches: DeviceBatches, *, epoch: int, start: int) -> None:
        self._batches = batches
        self._epoch = epoch
        self._start = start

    def __len__(self) -> int:
        return len(self._batches) - self._start

    def __iter__(self) -> Iterator[StoredBatch]:
        return self._batches.epoch(self._epoch, self._start)
