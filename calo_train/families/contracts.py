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

    from calo_train.geometry import Geometry
    from calo_train.showers.statistics import ShowerStatistics

SCHEDULES = ("constant", "exponential", "onecycle", "cosine")


@dataclass
class TrainingSettings:
    """How the parts of a stage are fitted; every part has its own optimiser and best epoch."""

    batch_size: int = 1024
    num_epochs: int = 200
    learning_rate: float = 1e-3  # peak of the schedule
    schedule: str = "constant"  # constant | exponential | onecycle | cosine, one step a batch
    final_learning_rate: float = 1e-6  # reached at the last step by exponential and cosine
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
        for name in ("batch_size", "num_epochs", "learning_rate"):
            if getattr(self, name) <= 0:
                raise UsageError(
                    f"{name}={getattr(self, name)} is not positive",
                    where=f"model.<stage>.training.{name}",
                    do="give a value above zero",
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
    """What one part sees of a batch: features (n, D) and context (n, C) or None."""

    features: Tensor
    context: Tensor | None


class LikelihoodStage(ABC):
    """Parts that are fitted together by maximum likelihood, each by its own loss."""

    name: ClassVar[str]
    training: TrainingSettings
    part_names: tuple[str, ...]

    @abstractmethod
    def build_part(self, index: int) -> nn.Module:
        """Build the untrained part `index`; its `log_prob(features, context)` gives (n,)."""

    @abstractmethod
    def inputs(
        self, batch: ShowerBatch, parts: Sequence[int], random: torch.Generator
    ) -> Callable[[int], PartInput]:
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


class Family(ABC):
    """Hyperparameters of a family, as dataclass fields, and the answers that follow from them.

    `parts_per_group` says how many parts of a stage one fit trains together, None for all, "auto"
    for as many as fit the free memory; `tile` how many showers the sampler computes together.
    """

    parts_per_group: int | str | None
    tile: int

    @abstractmethod
    def require_describable(self, geometry: Geometry, conditions: Sequence[str]) -> None:
        """Raise UsageError, naming a family that can, unless this detector can be described."""

    @abstractmethod
    def require_statistics(self, geometry: Geometry, statistics: ShowerStatistics) -> None:
        """Raise DataError when the training data leave what the preprocessing can represent."""

    @abstractmethod
    def stages(
        self, geometry: Geometry, statistics: ShowerStatistics, threshold: float
    ) -> tuple[LikelihoodStage, ...]:
        """Give the training stages in order."""

    @abstractmethod
    def sampler(
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
