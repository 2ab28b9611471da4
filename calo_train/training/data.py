"""The data of a training: opened, checked and measured in one pass, split by index and seed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calo_train.errors import DataError
from calo_train.quantities import format_energy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    import numpy.typing as npt

    from calo_train.families.contracts import TrainingSettings
    from calo_train.geometry import Geometry
    from calo_train.showers.checks import CheckedPass
    from calo_train.showers.dataset import DatasetConfig
    from calo_train.showers.showers import Showers
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
    """Open and check the data set of a run; every problem is a DataError before any model.

    One pass over the files checks every row and gathers the statistics of the training rows.
    """
    from calo_train.showers.checks import CheckedPass
    from calo_train.showers.dataset import open_dataset
    from calo_train.showers.simulator.origin import simulation_notes
    from calo_train.showers.statistics import gather_statistics

    dataset = config.dataset
    if dataset.detector is not None:
        config.family.require_describable(dataset.detector, dataset.conditions)
    source = open_dataset(dataset)
    _require_conditions(source, dataset)
    config.family.require_describable(source.geometry, source.condition_names)
    split = split_of(dataset, source.num_showers, seed=config.seed)
    checked = CheckedPass(source, dataset)
    statistics = gather_statistics(
        _training_blocks(checked, split),
        source.geometry,
        config.family.voxel_groups(source.geometry),
    )
    split = split.restricted_to(checked.valid_rows)
    config.family.require_statistics(source.geometry, statistics)
    data = TrainingData(
        source=source,
        split=split,
        statistics=statistics,
        threshold=dataset.threshold_energy,
        symmetries=list(dataset.symmetries),
        memory_budget=dataset.memory_bytes,
        seed=config.seed,
        notes=(*_origin_notes(config), *simulation_notes(source.attributes), *checked.notes),
    )
    _log_data(data)
    return data


def split_of(dataset: DatasetConfig, num_showers: int, *, seed: int) -> Split:
    """Split all rows of a data set; rows that are not valid are taken out afterwards."""
    import numpy as np

    from calo_train.showers.split import split_rows

    return split_rows(
        np.arange(num_showers),
        seed=seed,
        train_fraction=dataset.train_fraction,
        validation_fraction=dataset.validation_fraction,
    )


def describe_data(data: TrainingData) -> dict[str, Any]:
    """Give what run.yaml and the generator say of the data; file names without folders."""
    source, split = data.source, data.split
    return {
        "fingerprint": source.fingerprint(),
        "files": [path.name for path in source.paths],
        "layouts": list(source.layouts),
        "origin": source.description,
        **({"recipe": source.recipe} if source.recipe else {}),
        "num_showers": source.num_showers,
        "train": len(split.train),
        "validation": len(split.validation),
        "test": len(split.test),
        "empty_showers": data.statistics.num_empty,
        "symmetries": data.symmetries,
        "undone_rounding_bits": sorted({int(bits) for bits in set(source.mantissa_bits) if bits}),
    }


def require_fingerprint(source: ShowerSource, record: Mapping[str, Any]) -> None:
    """Raise DataError when the files are not those that the run was started with."""
    recorded = record.get("data", {})
    if not recorded or recorded.get("fingerprint") == source.fingerprint():
        return
    raise DataError(
        f"the data changed since this run was started: {recorded.get('num_showers')} showers in "
        f"{', '.join(recorded.get('files', []))} then, {source.num_showers} in "
        f"{', '.join(path.name for path in source.paths)} now, with other content",
        where=", ".join(str(path) for path in source.paths),
        do="restore the files, point dataset.path at a copy, or train under another name=...",
    )


def _training_blocks(checked: CheckedPass, split: Split) -> Iterator[Showers]:
    import numpy as np

    for rows, showers in checked.blocks():
        chosen = np.flatnonzero(np.isin(rows, split.train, assume_unique=True))
        if len(chosen):
            yield showers.rows(chosen)


def _require_conditions(source: ShowerSource, dataset: DatasetConfig) -> None:
    if set(dataset.conditions) == set(source.condition_names):
        return
    raise DataError(
        f"conditions in the file: {', '.join(source.condition_names)}; in the data set: "
        f"{', '.join(dataset.conditions)}",
        where=f"{source.paths[0]}; dataset.conditions",
        do=f"set dataset.conditions=[{','.join(source.condition_names)}]",
    )


def _origin_notes(config: RunConfig) -> tuple[str, ...]:
    if any(pattern.startswith("embedded:") for pattern in _as_list(config.dataset.path)):
        return (f"trained on the embedded sample: {config.dataset.description}",)
    return ()


def _as_list(path: Any) -> list[str]:
    return [path] if isinstance(path, str) else list(path or [])


def _log_data(data: TrainingData) -> None:
    source, split = data.source, data.split
    _log.info("data: %s", ", ".join(path.name for path in source.paths))
    _log.info("      %s", source.geometry.describe())
    low, high = data.statistics.condition_range["incident_energy"]
    _log.info(
        "      %d showers (%d train, %d validation, %d test), %s to %s, visible fraction %.4f",
        source.num_showers, len(split.train), len(split.validation), len(split.test),
        format_energy(low), format_energy(high), data.statistics.visible_fraction,
    )  # fmt: skip
    if (source.mantissa_bits > 0).any():
        _log.info("      stored rounding is undone by noise of one unit in the last place")
    if data.symmetries:
        _log.info(
            "      every shower is trained on in all images under %s", ", ".join(data.symmetries)
        )
    for note in data.notes:
        _log.info("note: %s", note)
