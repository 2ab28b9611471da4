"""What a family of generators answers, and nothing else is asked of it.

Can it describe a detector; what are its training stages; how does it draw showers from trained
parts. Training, sampling and export know families only through the types here. torch is imported
for annotations only, so that a configuration is checked without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from calo_train.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from torch import Tensor, nn

    from calo_train.geometry import Geometry, Regrouping
    from calo_train.nn.distillation import DistillationInput
    from calo_train.showers.statistics import ShowerStatistics

SCHEDULES = (
    "constant",
    "exponential",
    "cosine",
    "multistep",
    "onecycle",
    "onecycle_three_phase",
    "cyclic",
)
_POSITIVE = (
    "batch_size",
    "num_epochs",
    "learning_rate",
    "final_learning_rate",
    "start_divisor",
    "half_cycle",
)


@dataclass
class TrainingSettings:
    """How the parts of a stage are fitted; every part has its own loss and best epoch.

    The learning rate moves with every optimiser step. `onecycle` rises to the peak and falls to
    the final rate; with three phases it falls to the start as it rose, then to the final rate.
    `cyclic` halves its peaks from cycle to cycle (torch's triangular2).
    """

    batch_size: int = 1024  # showers
    num_epochs: int = 200
    learning_rate: float = 1e-3  # peak of the schedule
    schedule: str = "constant"  # one of SCHEDULES
    final_learning_rate: float = 1e-6  # at the last step of exponential, cosine and onecycle
    warmup_share: float = 0.3  # onecycle: of all steps, up to the peak
    start_divisor: float = 25.0  # onecycle: starts at the peak over this
    lowest_momentum: float = 0.85  # onecycle: Adam's beta1 at the peak; 0.95 at the ends
    lowest_learning_rate: float = 5e-5  # cyclic: between the peaks
    half_cycle: float = 2.0  # cyclic: epochs from the lowest rate to a peak
    milestones: list[int] = field(default_factory=list)  # multistep: epochs, from 0
    milestone_factor: float = 0.5  # multistep: on the rate at each milestone
    batches_per_step: dict[int, int] = field(default_factory=dict)  # from epoch on; empty: 1
    weight_decay: float = 0.0  # decoupled (AdamW); 0 is Adam
    gradient_clip: float | None = None  # largest norm of the gradient of one part
    patience: int | None = None  # epochs without a better validation loss before a part stops
    ema_decay: float | None = None  # validate and keep an exponential average of the weights

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise UsageError(
                f"schedule '{self.schedule}' is unknown",
                where="model.<stage>.training.schedule",
                do=f"use one of {', '.join(SCHEDULES)}",
            )
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise UsageError(
                    f"{name}={getattr(self, name)} is not positive",
                    where=f"model.<stage>.training.{name}",
                    do="give a value above zero",
                )
        if min(self.batches_per_step.values(), default=1) < 1:
            raise UsageError(
                f"batches_per_step={self.batches_per_step} holds a number below 1",
                where="model.<stage>.training.batches_per_step",
                do="give numbers of batches by the epoch from which they hold, such as {0: 2}",
            )


@dataclass(frozen=True)
class ShowerBatch:
    """A batch on the training device: energies (n, voxels) MeV, conditions name -> (n,)."""

    energies: Tensor
    conditions: Mapping[str, Tensor]
    rows: Tensor  # (n,) int64 row numbers in the data set, for messages

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class PartInput:
    """What one part sees of a batch: features (n, D) and context (n, C) or None.

    A shower may give several rows, `rows_per_shower` one after the other; its loss is their sum.
    """

    features: Tensor
    context: Tensor | None
    rows_per_shower: int = 1


class Stage(ABC):
    """Parts that are fitted together, each by its own loss.

    A part is a density, trained by its negative log-likelihood, or a
    `calo_train.nn.stacked_flows.TrainedByLoss`. Stages named in `needs` are trained before.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    rows_per_shower: int = 1  # that a part sees of each shower; the work to be done grows with it
    training: TrainingSettings
    part_names: tuple[str, ...]

    @abstractmethod
    def build_part(self, index: int) -> nn.Module:
        """Build the untrained part `index`; its `log_prob(features, context)` gives (n,).

        Before `given`, what a part needs of earlier stages stands in untrained: enough to count
        weights and time steps.
        """

    def given(self, parts: Mapping[str, Mapping[str, Tensor]]) -> Stage:  # noqa: ARG002
        """Give this stage with the trained parts of those it needs, `stage/part` -> weights."""
        return self

    @abstractmethod
    def inputs(
        self, batch: ShowerBatch, parts: Sequence[int], random: torch.Generator
    ) -> Callable[[int], PartInput | DistillationInput]:
        """Prepare a batch once for all `parts` and give a function part index -> its input.

        What is drawn from `random` must not depend on `parts`, so that a part is trained alike in
        every grouping.
        """


def require_parts_per_group(value: int | str | None) -> None:
    """Raise UsageError unless this is a number of parts, None or "auto"."""
    if value is None or value == "auto" or (isinstance(value, int) and value >= 1):
        return
    raise UsageError(
        f"parts_per_group={value} is not a number of parts",
        where="model.parts_per_group",
        do="give a number from 1, null for all parts of a stage, or auto for as many as fit",
    )


def require_incident_energy(family: str, geometry: Geometry, conditions: Sequence[str]) -> None:
    """Raise UsageError unless the incident energy is among the conditions."""
    if "incident_energy" in conditions:
        return
    raise UsageError(
        f"{family} is conditioned on incident_energy, which {geometry.name} does not give",
        where=f"dataset.conditions: {', '.join(conditions) or 'none'}",
        do="add incident_energy to the data set",
    )


@dataclass(frozen=True)
class DrawnTile:
    """Energies (tile, voxels) in MeV and, by name, the repaired values of each shower (tile,)."""

    energies: Tensor
    repairs: Mapping[str, Tensor] = field(default_factory=dict)


class Sampler(ABC):
    """Trained parts ready to draw; maps base noise and conditions of a tile to energies."""

    tile: int  # showers computed together; results depend on it, so it belongs to the generator
    num_normals: int  # standard normal numbers that one shower takes

    @abstractmethod
    def draw(self, normals: Tensor, conditions: Mapping[str, Tensor]) -> DrawnTile:
        """Draw a full tile from normals (tile, num_normals) and conditions (tile,).

        Several threads draw at once, so nothing of the sampler may change.
        """


@dataclass(frozen=True)
class CoarseTile:
    """Coarse showers of a tile, given from elsewhere: energies (tile, coarse voxels) in MeV.

    `layer_energies` (tile, layers) are the energies of the fine layers where they are known.
    """

    energies: Tensor
    layer_energies: Tensor | None


class Refiner(ABC):
    """Trained parts ready to refine given coarse showers; otherwise as a `Sampler`."""

    tile: int
    num_normals: int

    @abstractmethod
    def refine(
        self, normals: Tensor, conditions: Mapping[str, Tensor], coarse: CoarseTile
    ) -> DrawnTile:
        """Draw the fine showers of a full tile of coarse ones, from normals as a sampler."""


class Family(ABC):
    """Hyperparameters of a family, as dataclass fields, and the answers that follow from them.

    `parts_per_group` says how many parts of a stage one fit trains together, None for all, "auto"
    for as many as fit the free memory; `tile` how many showers the sampler computes together.
    """

    parts_per_group: int | str | None
    tile: int
    papers: ClassVar[tuple[str, ...]] = ()  # short names in calo_train/references/papers.bib

    @abstractmethod
    def require_describable(self, geometry: Geometry, conditions: Sequence[str]) -> None:
        """Raise UsageError, naming a family that can, unless this detector can be described."""

    def voxel_groups(self, geometry: Geometry) -> Mapping[str, Regrouping]:  # noqa: ARG002
        """Name kinds of groups of voxels whose largest sum the preprocessing needs."""
        return {}

    @abstractmethod
    def require_statistics(self, geometry: Geometry, statistics: ShowerStatistics) -> None:
        """Raise DataError when the training data leave what the preprocessing can represent."""

    @abstractmethod
    def stages(
        self, geometry: Geometry, statistics: ShowerStatistics, threshold: float
    ) -> tuple[Stage, ...]:
        """Give the training stages in order."""

    @abstractmethod
    def build_sampler(
        self,
        geometry: Geometry,
        statistics: ShowerStatistics,
        threshold: float,
        parts: Mapping[str, Mapping[str, Tensor]],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Sampler:
        """Build the sampler from the weights of all parts, `stage/part` -> state dict."""

    def coarse_geometry(self, geometry: Geometry) -> tuple[Geometry, Regrouping]:  # noqa: ARG002
        """Give the detector of the coarse showers that this family refines, and how it sums
        voxels; UsageError where it refines none.
        """
        raise self._refines_nothing()

    def build_refiner(
        self,
        geometry: Geometry,  # noqa: ARG002
        statistics: ShowerStatistics,  # noqa: ARG002
        threshold: float,  # noqa: ARG002
        parts: Mapping[str, Mapping[str, Tensor]],  # noqa: ARG002
        *,
        dtype: torch.dtype,  # noqa: ARG002
        device: torch.device,  # noqa: ARG002
    ) -> Refiner:
        """Build what refines showers on `coarse_geometry`; UsageError where nothing does."""
        raise self._refines_nothing()

    def _refines_nothing(self) -> UsageError:
        return UsageError(
            f"{type(self).__name__} does not refine coarse showers",
            where="--coarse",
            do="leave the option out, or give a generator of model=supercalo",
        )

    def drawn_by(self, sampler: str) -> Family:
        """Give this family with another of its samplers; UsageError where it has no such one."""
        raise UsageError(
            f"{type(self).__name__} has one sampler, and '{sampler}' is asked for",
            where="--sampler",
            do="leave the option out",
        )
