"""The data of a training: opened, checked and measured in one pass, split by index and seed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calo_train.errors import DataError
from calo_train.quantities import parse_quantity

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from calo_train.families.contracts import TrainingSettings
    from calo_train.geometry import Geometry
    from calo_train.showers.dataset import DatasetConfig
    from calo_train.showers.source import ShowerSource
    from calo_train.showers.split import Split
    from calo_train.showers.statistics import ShowerStatistics
    from calo_train.showers.stream import BatchStream
    from calo_train.training.config import RunConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """A checked source with its split; `notes` change how results must be read."""

    source: ShowerSource
    split: Split
    statistics: ShowerStatistics
    threshold: float
    symmetries: list[str]
    memory_budget: int
    seed: int
    notes: tuple[str, ...]

    @property
    def geometry(self) -> Geometry:
        return self.source.geometry

    def stream(
        self, rows: npt.NDArray[np.int64], settings: TrainingSettings, *, is_training: bool
    ) -> BatchStream:
        """Give batches of some rows, shuffled for training and in order for validation."""
        from calo_train.showers.stream import BatchStream

        return BatchStream(
            self.source,
            rows,
            batch_size=settings.batch_size,
            seed=self.seed,
            memory_budget=self.memory_budget,
            shuffle=is_training,
        )


def prepare_data(config: RunConfig) -> TrainingData:
    """Open and check the data set of a run; every problem is a DataError before any model."""
    raise NotImplementedError
