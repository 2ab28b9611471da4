"""A run folder: config.yaml, run.yaml, train.log, stages/, generator/, samples/, reports/.

Nothing in it is absolute but the recorded data path, so it can be moved and copied. What is done
is read from the files themselves: a part is finished when its weights lie under its final name.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from calo_train.atomic_files import machine_error, write_text
from calo_train.errors import DataError, UsageError
from calo_train.training.config import differing_keys
from calo_train.training.lock import turn
from calo_train.yaml_text import YamlError, read_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from calo_train.showers.source import ShowerSource
    from calo_train.showers.split import Split

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """Paths and records of one training."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def record_file(self) -> Path:
        return self.path / "run.yaml"

    @property
    def turn_file(self) -> Path:
        """What processes that change run.yaml take turns by."""
        return self.path / ".run.yaml.turn"

    @property
    def generator(self) -> Path:
        return self.path / "generator"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def reports(self) -> Path:
        return self.path / "reports"

    @property
    def log_file(self) -> Path:
        return self.path / "train.log"

    def group_folder(self, stage: str, label: str) -> Path:
        """Folder of one fit: checkpoints and metrics.csv."""
        return self.path / "stages" / stage / label

    def metrics_file(self, stage: str, label: str) -> Path:
        """Loss curves of one fit."""
        return self.group_folder(stage, label) / "metrics.csv"

    def part_file(self, key: str) -> Path:
        """Best weights of a finished part, `stage/part`."""
        stage, _, part = key.partition("/")
        return self.path / "stages" / stage / "parts" / f"{part}.safetensors"

    def exists(self) -> bool:
        return self.config_file.is_file()

    def read_config(self) -> dict[str, Any]:
        """Read the resolved config that the run was started with."""
        return _read_yaml(self.config_file)

    def read_record(self) -> dict[str, Any]:
        """Read run.yaml: provenance and the state of the run."""
        return _read_yaml(self.record_file) if self.record_file.is_file() else {}

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Replace run.yaml."""
        write_text(self.record_file, _dump(record))

    def update_record(self, **changes: Any) -> None:
        """Change entries of run.yaml."""
        self.change_record(lambda _record: changes)

    def change_record(self, changes_of: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Change entries of run.yaml by what it holds.

        Processes that train different parts of a run take turns, so that no change is lost.
        """
        with turn(self.turn_file):
            record = self.read_record()
            self.write_record({**record, **changes_of(record)})

    def create(self, resolved: Mapping[str, Any]) -> None:
        """Create the folder with its config."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise machine_error(error, self.path) from error
        write_text(self.config_file, _dump(resolved))

    def require_same_config(self, resolved: Mapping[str, Any]) -> None:
        """Raise UsageError with the differing keys unless the run may go on under this config."""
        recorded = self.read_config()
        differing = differing_keys(recorded, resolved)
        if differing:
            shown = "; ".join(f"{key}: {change}" for key, change in list(differing.items())[:8])
            more = f"; and {len(differing) - 8} more" if len(differing) > 8 else ""
            raise UsageError(
                f"this run was started with another configuration: {shown}{more}",
                where=str(self.path),
                do="train under another name=..., or add restart=true, which moves the old run "
                "aside and deletes nothing",
            )
        free = {
            key
            for key in ("trainer", "logger")
            if recorded.get(key) != resolved.get(key) and recorded.get(key) is not None
        }
        if free:
            _log.info("going on with another %s than before", " and ".join(sorted(free)))

    def move_aside(self) -> Path:
        """Rename the run to NAME.old-1, NAME.old-2, ... and give the new path."""
        number = 1
        while (target := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        self.path.rename(target)
        return target


def open_run(path: Path) -> RunFolder:
    """Give the run in `path`; DataError when there is none."""
    run = RunFolder(path)
    if not run.exists():
        raise DataError(
            "no run here",
            where=str(run.config_file),
            do="give the folder that calo-train printed, RUNS_FOLDER/DATASET/MODEL/NAME",
        )
    return run


def missing_parts(path: Path) -> list[str]:
    """Name the parts that a run still has to train, `stage/part`; empty when it is finished."""
    run = open_run(path)
    return [key for key in run.read_record().get("parts", []) if not run.part_file(key).is_file()]


def held_out_reference(path: Path) -> tuple[ShowerSource, Split]:
    """Open the data of a run and give it with the recorded split; `.test` was never trained on.

    Raises DataError when the file has changed since the training.
    """
    from calo_train.families.settings import build_settings
    from calo_train.showers.checks import valid_rows
    from calo_train.showers.dataset import DatasetConfig, open_dataset
    from calo_train.training.data import require_fingerprint, split_of

    run = open_run(path)
    config, record = run.read_config(), run.read_record()
    dataset = build_settings(DatasetConfig, config["dataset"], where="dataset")
    source = open_dataset(dataset)
    require_fingerprint(source, record)
    split = split_of(dataset, source.num_showers, seed=int(config["seed"]))
    return source, split.restricted_to(valid_rows(source, dataset))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(path)
    except (OSError, YamlError) as error:
        raise _damaged(path, str(error).splitlines()[0]) from error
    if not isinstance(content, dict):
        raise _damaged(path, "it holds no keys")
    return content


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"a record of this run cannot be read: {reason}",
        where=str(path),
        do="restore the file from a copy, or train under another name=...",
    )


def _dump(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)


def finished_parts(run: RunFolder, keys: Sequence[str]) -> list[str]:
    """Give those of `keys` whose weights lie under their final name."""
    return [key for key in keys if run.part_file(key).is_file()]
