"""The Lightning module of a group: parts of a stage side by side, each by its own loss.

Optimisation is manual. All parts of the group see the same batch; those of equal shape are
computed together, and the gradient of a part is its own, so that a part is trained alike whatever
it is grouped with, up to the order of sums. With several processes gradients are averaged over
all showers of the batch, whose noise is that of one process. A step waits for the device once,
for the check that all losses and gradients are finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from calo_train.errors import DataError, DivergedError
from calo_train.training.batches import (
    BatchPreparation,
    DeviceBatches,
    StoredBatch,
    share_of,
)
from calo_train.training.metrics_file import EpochMetrics
from calo_train.training.optimiser import GroupOptimiser, StepPlan
from calo_train.training.parts import JointParts, Part, load_part_state, part_state
from calo_train.training.randomness import keyed_generator, keyed_global_random, keyed_seed
from calo_train.training.side_by_side import SideBySide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from calo_train.families.contracts import PartInput, ShowerBatch
    from calo_train.nn.distillation import DistillationInput
    from calo_train.showers.stream import BatchStream
    from calo_train.training.data import TrainingData
    from calo_train.training.plan import Group
    from calo_train.training.work import GroupWork

CHECKPOINT_FORMAT = 2  # 1 held a whole optimiser for each part


class GroupModule(LightningModule):
    """The parts of one group under training, and where in the fit they are."""

    def __init__(
        self,
        group: Group,
        data: TrainingData,
        work: GroupWork,
        *,
        seed: int,
        largest_stack: int | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.group = group
        self.work = work
        self.epoch = 0  # epochs that are finished
        self.batch = 0  # batches of the running epoch that are finished
        self.processes_before: int | None = None  # that wrote the checkpoint it goes on from
        self._seed = seed
        self._data = data
        settings = group.stage.training
        self._train_stream = data.stream(data.split.train, settings, is_training=True)
        self._validation_stream = data.stream(data.split.validation, settings, is_training=False)
        stage = group.stage
        self.parts = [
            Part(index, stage.part_names[index], settings.patience) for index in group.parts
        ]
        flows = [self._build_flow(part) for part in self.parts]
        stacks = JointParts.build(self.parts, flows, settings, largest=largest_stack)
        self._stacks = nn.ModuleList(stacks)
        self._steps = StepPlan(work.num_epochs, len(self._train_stream), settings.batches_per_step)
        self._optimiser = GroupOptimiser(self.stacks, settings, self._steps)
        self._validation_sums: list[Tensor] = []
        self._side_by_side = SideBySide(1)
        self._preparation: BatchPreparation | None = None
        self._loaders: dict[str, DeviceBatches] = {}

    def _build_flow(self, part: Part) -> nn.Module:
        stage = self.group.stage
        with keyed_global_random(self._seed, stage.name, part.name, "initial weights"):
            return stage.build_part(part.index)

    @property
    def stacks(self) -> list[JointParts]:
        """Parts that still train, by what is computed together."""
        return list(self._stacks)  # type: ignore[arg-type]

    @property
    def active_parts(self) -> list[Part]:
        """Parts that still train, in the order of the stage."""
        return [part for part in self.parts if not part.progress.is_stopped]

    @property
    def num_epochs(self) -> int:
        return self.work.num_epochs

    @property
    def learning_rate(self) -> float:
        return self._optimiser.learning_rate

    @property
    def is_finished(self) -> bool:
        return self.epoch >= self.num_epochs or not self.active_parts

    @property
    def num_batches(self) -> int:
        """Batches of a whole epoch."""
        return len(self._train_stream)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Give the one optimiser of the group."""
        return [self._optimiser.adam]

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
        words = (self.group.stage.name, self.epoch, self.batch, self.global_rank)
        random = keyed_generator(
            self.device, self._seed, f"{self.group.stage.name} train", self.epoch, self.batch, 0
        )
        batch = self._prepare.training(stored, random, self.dtype_of_flows)
        inputs = self._inputs(batch, random)
        if self._steps.is_start(self.epoch, self.batch):
            self._optimiser.zero_grad()

        def carry_back(stack: JointParts) -> Tensor:
            if not stack.is_deterministic:
                # Dropout is the one user of torch's global generator.
                torch.manual_seed(keyed_seed(self._seed, "dropout", stack.parts[0].name, *words))
            losses = stack.losses([inputs(part.index) for part in stack.parts])
            # Divided by all showers of the batch: summed over processes this is the batch mean.
            self.manual_backward(losses.sum() / stored.num_showers)
            return losses.detach()

        losses = self._side_by_side.map(carry_back, self.stacks)
        sums = self._over_processes([of_stack.sum(dim=1) for of_stack in losses])
        for stack, of_stack in zip(self.stacks, sums, strict=True):
            stack.add_losses(of_stack, stored.num_showers)
        if self._steps.is_step(self.epoch, self.batch):
            self._sum_gradients()
            self._require_finite(losses, self._clip_gradients(), batch, inputs)
            self._optimiser.step()
            self._move_averages()
        self.batch += 1

    @property
    def is_between_steps(self) -> bool:
        """Whether gradients wait for further batches; a checkpoint does not hold them."""
        return not self._steps.is_start(self.epoch, self.batch)

    def _inputs(
        self, batch: ShowerBatch, random: torch.Generator
    ) -> Callable[[int], PartInput | DistillationInput]:
        """Prepare the whole batch, and give of each part what this process computes."""
        indices = [part.index for part in self.active_parts]
        whole = self.group.stage.inputs(batch, indices, random)
        return lambda index: share_of(whole(index), self.global_rank, self.trainer.world_size)

    def _clip_gradients(self) -> list[Tensor]:
        limit = self.group.stage.training.gradient_clip
        return [stack.clip_gradients(limit) for stack in self.stacks]

    def _sum_gradients(self) -> None:
        parameters = (p for stack in self.stacks for p in stack.flows.parameters())
        gradients = [p.grad for p in parameters if p.grad is not None]
        for gradient, summed in zip(gradients, self._over_processes(gradients), strict=True):
            if summed is not gradient:
                gradient.copy_(summed)

    def _over_processes(self, shares: list[Tensor]) -> list[Tensor]:
        """Give the sums of tensors over the processes of the training, in one message."""
        if self.trainer.world_size == 1:
            return shares
        flat = torch.cat([share.flatten() for share in shares])
        torch.distributed.all_reduce(flat)
        pieces = torch.split(flat, [share.numel() for share in shares])
        return [piece.view_as(share) for piece, share in zip(pieces, shares, strict=True)]

    def _require_finite(
        self,
        losses: Sequence[Tensor],
        norms: Sequence[Tensor],
        batch: ShowerBatch,
        inputs: Callable[[int], PartInput | DistillationInput],
    ) -> None:
        """Raise DivergedError, before the step, where a loss or a gradient is not finite."""
        sums = torch.cat([of_stack.sum(dim=1) for of_stack in losses])
        is_finite = torch.isfinite(sums) & torch.isfinite(torch.cat(list(norms)))
        if bool(is_finite.all()):
            return
        parts = [part for stack in self.stacks for part in stack.parts]
        rows = [row for of_stack in losses for row in of_stack]
        triples = zip(parts, rows, is_finite.tolist(), strict=True)
        bad = {part.index: (part, row) for part, row, good in triples if not good}
        part, part_losses = bad[min(bad)]
        raise self._diverged(part, inputs(part.index), batch, part_losses)

    def _move_averages(self) -> None:
        decay = self.group.stage.training.ema_decay
        if decay is not None:
            for stack in self.stacks:
                stack.move_average(decay)

    def on_fit_start(self) -> None:
        """Take stacks side by side on a CPU's threads, where one process has several."""
        can_share = (
            self.device.type == "cpu"
            and self.trainer.world_size == 1
            and all(stack.is_deterministic for stack in self.stacks)
        )
        num_threads = min(torch.get_num_threads(), len(self.stacks)) if can_share else 1
        self._side_by_side = SideBySide(num_threads)

    def on_train_start(self) -> None:
        """Complete what Lightning moved to the device of a resumed training."""
        self._optimiser.bring_counts()

    def on_fit_end(self) -> None:
        """Give torch its threads back."""
        self._side_by_side.close()

    def on_validation_epoch_start(self) -> None:
        """Start the sums of validation losses, and their number in the last place."""
        self._validation_sums = [
            torch.zeros(len(stack.parts) + 1, dtype=torch.float64, device=self.device)
            for stack in self.stacks
        ]

    def validation_step(self, stored: StoredBatch, batch_index: int) -> None:
        """Add the losses of a batch; its noise is the same in every epoch."""
        random = keyed_generator(
            self.device,
            self._seed,
            f"{self.group.stage.name} validation",
            0,
            batch_index,
            0,
        )
        batch = self._prepare.validation(stored, random, self.dtype_of_flows)
        inputs = self._inputs(batch, random)

        def judged(stack: JointParts) -> Tensor:
            return stack.judged_losses([inputs(part.index) for part in stack.parts])

        all_losses = self._side_by_side.map(judged, self.stacks)
        for losses, sums in zip(all_losses, self._validation_sums, strict=True):
            sums[:-1] += losses.double().sum(dim=1)
            sums[-1] += losses.shape[1]

    def end_epoch(self) -> list[EpochMetrics]:
        """Judge every part by its mean validation loss; parts that have stopped leave."""
        rows = []
        for stack, sums in zip(self.stacks, self._validation_sums, strict=True):
            if self.trainer.world_size > 1:
                torch.distributed.all_reduce(sums)
            validation = (sums[:-1] / sums[-1]).tolist()
            training = stack.take_mean_losses()
            is_best = stack.judge(validation, self.epoch)
            columns = zip(stack.parts, training, validation, is_best, strict=True)
            rows += [
                EpochMetrics(self.epoch, part.name, train_loss, nll, self.learning_rate, best)
                for part, train_loss, nll, best in columns
            ]
        self._leave_stopped()
        self.epoch += 1
        self.batch = 0
        order = [part.name for part in self.parts]
        return sorted(rows, key=lambda row: order.index(row.part))

    def _leave_stopped(self) -> None:
        """Go on with the tensors of the parts that still train."""
        if sum(len(stack.parts) for stack in self.stacks) == len(self.active_parts):
            return
        moments = self._optimiser.moments(self.stacks)
        rest = [stack.training_parts() for stack in self.stacks]
        self._stacks = nn.ModuleList(stack for stack in rest if stack is not None)
        self._optimiser.follow(self.stacks, moments)

    def checkpoint_state(self) -> dict[str, Any]:
        """Give everything that a resumed fit needs, by part whatever is computed together."""
        parts = {part.name: part_state(part) for part in self.parts}
        moments = self._optimiser.moments(self.stacks)
        for stack in self.stacks:
            for name, state in stack.states().items():
                parts[name] = state | {"moments": moments.get(name)}
        return {
            "format": CHECKPOINT_FORMAT,
            "epoch": self.epoch,
            "batch": self.batch,
            "num_epochs": self.num_epochs,
            "num_processes": self.trainer.world_size,
            "optimiser": self._optimiser.state(),
            "parts": parts,
        }

    def load_checkpoint_state(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of the same group; DataError for one of another format."""
        if state.get("format") != CHECKPOINT_FORMAT:
            raise DataError(
                f"a checkpoint of format {state.get('format')}; this program reads "
                f"{CHECKPOINT_FORMAT}",
                where=f"stage {self.group.stage.name}, parts {self.group.label}",
                do="go on with the version of calo-train that run.yaml names, or train anew with "
                "restart=true, which deletes nothing",
            )
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.processes_before = state.get("num_processes")
        for part in self.parts:
            load_part_state(part, state["parts"][part.name])
        self._leave_stopped()
        for stack in self.stacks:
            stack.load_states(state["parts"])
        self._optimiser.load_state(state["optimiser"])
        moments = {part.name: state["parts"][part.name]["moments"] for part in self.active_parts}
        self._optimiser.follow(self.stacks, {} if None in moments.values() else moments)

    @property
    def dtype_of_flows(self) -> torch.dtype:
        return next(self._stacks.parameters()).dtype

    @property
    def _prepare(self) -> BatchPreparation:
        if self._preparation is None:
            self._preparation = BatchPreparation(
                self._data.geometry, self._data.symmetries, self.device
            )
        return self._preparation

    def _device_batches(self, name: str, stream: BatchStream) -> DeviceBatches:
        if name not in self._loaders:
            self._loaders[name] = DeviceBatches(stream, self.device)
        return self._loaders[name]

    def _diverged(
        self,
        part: Part,
        part_input: PartInput | DistillationInput,
        batch: ShowerBatch,
        losses: Tensor,
    ) -> DivergedError:
        bad = (~torch.isfinite(losses)).nonzero().flatten()
        own = batch.rows[self.global_rank :: self.trainer.world_size]
        rows = own[bad if len(bad) else slice(None)][:5].tolist()
        largest = float(part_input.features.abs().max())
        return DivergedError(
            f"the loss of part {self.group.stage.name}/{part.name} is not finite "
            f"({len(bad)} of {len(losses)} showers); the step was not applied",
            where=f"epoch {self.epoch + 1}, batch {self.batch + 1} of {self.num_batches}, "
            f"learning rate {self.learning_rate:.3g}, data rows {rows}, "
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
