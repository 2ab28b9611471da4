"""Train a finished run again from its record, and compare what came out.

Same configuration, seed and data (by fingerprint) under another name. On one CPU with the same
versions all weights are equal bit for bit; elsewhere the largest difference says how near it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calo_train.errors import DataError, UsageError
from calo_train.training.config import check_config
from calo_train.training.provenance import describe_program
from calo_train.training.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from calo_train.training.config import RunConfig


@dataclass(frozen=True)
class PartComparison:
    """One part in both runs: its judged loss, and how far its weights are from each other."""

    part: str
    recorded_loss: float
    new_loss: float
    largest_difference: float  # of a weight; 0 where all bits are equal


@dataclass(frozen=True)
class Reproduction:
    """A run trained again; `changed_versions` maps a library to "then -> now"."""

    run: Path
    parts: tuple[PartComparison, ...]
    changed_versions: Mapping[str, str]

    @property
    def is_identical(self) -> bool:
        """Whether every weight of every part has the same bits."""
        return all(part.largest_difference == 0 for part in self.parts)

    def as_mapping(self) -> dict[str, Any]:
        """Give the result as plain data."""
        return {
            "run": str(self.run),
            "identical": self.is_identical,
            "parts": [vars(part) for part in self.parts],
            "changed_versions": dict(self.changed_versions),
        }


def reproduce(run: RunFolder, name: str | None = None) -> Reproduction:
    """Train what the run's config.yaml says as `name` beside it, and compare all parts.

    Raises UsageError for a run that has not finished, DataError when its data changed.
    """
    from calo_train.training.run import train

    record = run.read_record()
    if record.get("state") != "finished":
        raise UsageError(
            "this run has not finished, so there is nothing to compare with",
            where=f"{run.path}: state {record.get('state', 'unknown')}",
            do="finish it with the same calo-train command",
        )
    config = _config_beside(run, name or f"{run.path.name}-reproduced")
    _require_same_data(config, record)
    train(config)
    again = RunFolder(config.folder)
    return Reproduction(again.path, _compare(run, again), _changed_versions(record))


def _config_beside(run: RunFolder, name: str) -> RunConfig:
    """Give the run's configuration under another name in its own folder of runs."""
    resolved = run.read_config()
    resolved |= {
        "name": name,
        "runs_folder": str(run.path.absolute().parents[2]),
        "only": None,
        "restart": False,
        "dry_run": False,
        "logger": {**resolved["logger"], "kind": "csv"},
    }
    config = check_config(resolved)
    if config.folder.absolute() == run.path.absolute():
        raise UsageError(f"'{name}' is the run itself", where="--name", do="give another name")
    return config


def _require_same_data(config: RunConfig, record: Mapping[str, Any]) -> None:
    from calo_train.showers.dataset import open_dataset
    from calo_train.training.data import require_fingerprint

    require_fingerprint(open_dataset(config.dataset), record)


def _compare(run: RunFolder, again: RunFolder) -> tuple[PartComparison, ...]:
    first, second = run.read_record(), again.read_record()
    keys = first["parts"]
    if keys != second["parts"]:
        raise DataError(
            "the run that was trained again has other parts",
            where=f"{run.path}: {len(keys)} parts; {again.path}: {len(second['parts'])}",
            do="reproduce it with the version of calo-train that run.yaml names",
        )
    return tuple(
        PartComparison(
            key,
            float(first["reached"][key]["validation_loss"]),
            float(second["reached"][key]["validation_loss"]),
            _largest_difference(_weights(run, key), _weights(again, key)),
        )
        for key in keys
    )


def _weights(run: RunFolder, key: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(run.part_file(key))


def _largest_difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    import torch

    if {name: value.shape for name, value in first.items()} != {
        name: value.shape for name, value in second.items()
    }:
        return float("inf")
    pairs = [(value.double(), second[name].double()) for name, value in first.items()]
    if all(torch.equal(old, new) for old, new in pairs):
        return 0.0
    return max(float((old - new).abs().max()) for old, new in pairs if old.numel())


def _changed_versions(record: Mapping[str, Any]) -> dict[str, str]:
    then, now = record.get("program", {}), describe_program()
    return {
        name: f"{then.get(name, 'unknown')} -> {now.get(name, 'absent')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    }
