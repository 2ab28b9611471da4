"""What a training is configured by, as typed values; checked before anything heavy is imported.

The composed Hydra config becomes a `RunConfig`; unknown keys, ill-typed values and foreign targets
are refused here, in under a second.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calo_train.errors import UsageError, nearest_names
from calo_train.families.settings import build_family, build_settings
from calo_train.families.targets import family_name
from calo_train.quantities import parse_quantity
from calo_train.showers.dataset import DatasetConfig

if TYPE_CHECKING:
    from calo_train.families.contracts import Family

_TOP_KEYS = ("dataset", "model", "trainer", "logger", "launcher", "name", "runs_folder", "seed",
             "only", "restart", "dry_run")  # fmt: skip
# Runs from before there were launchers have recorded none.
_NEEDED_KEYS = tuple(key for key in _TOP_KEYS if key != "launcher")
# Keys that may change when a run goes on: they do not enter what is trained.
FREE_KEYS = ("trainer", "logger", "launcher", "only", "restart", "dry_run", "runs_folder",
             "dataset.path", "dataset.memory_budget", "dataset.doi", "dataset.published_files",
             "dataset.papers", "model.parts_per_group")  # fmt: skip


@dataclass
class TrainerConfig:
    """Hardware and endurance of a training; `conf/trainer` explains each value."""

    accelerator: str = "cpu"
    num_devices: int = 1
    num_nodes: int = 1
    parallel: str = "data"
    precision: str = "32-true"
    num_threads: int | None = None
    checkpoint_interval: str = "1min"
    max_epochs: int | None = None
    max_time: str | None = None
    deterministic: bool = False

    @property
    def num_gpus(self) -> int:
        """GPUs on all nodes."""
        return self.num_devices * self.num_nodes if self.accelerator == "gpu" else 0

    def __post_init__(self) -> None:
        _require_choice("trainer.accelerator", self.accelerator, ("cpu", "gpu"))
        _require_choice("trainer.precision", self.precision, ("32-true", "64-true"))
        _require_choice("trainer.parallel", self.parallel, ("data", "parts"))
        if self.parallel == "parts" and self.num_nodes != 1:
            raise UsageError(
                "part groups share the devices of one machine, and several are asked for",
                where=f"trainer.parallel=parts, trainer.num_nodes={self.num_nodes}",
                do="use launcher=slurm_array, which spreads the groups over machines",
            )
        parse_quantity(self.checkpoint_interval, "duration", where="trainer.checkpoint_interval")
        _ = self.max_seconds

    @property
    def max_seconds(self) -> float | None:
        """Give `max_time` in seconds."""
        if self.max_time is None:
            return None
        return parse_quantity(self.max_time, "duration", where="trainer.max_time")


@dataclass
class LoggerConfig:
    """Where loss curves go beside metrics.csv."""

    kind: str = "csv"
    project: str = "calo-train"
    mode: str = "offline"
    finish_limit: str = "1min"

    def __post_init__(self) -> None:
        _require_choice("logger.kind", self.kind, ("csv", "tensorboard", "wandb"))
        _require_choice("logger.mode", self.mode, ("offline", "online"))
        parse_quantity(self.finish_limit, "duration", where="logger.finish_limit")


@dataclass
class LauncherConfig:
    """Who runs a training or a sweep; `conf/launcher` explains each value."""

    kind: str = "local"
    at_once: int = 1
    partition: str | None = None
    account: str | None = None
    time: str = "8h"
    warning: str = "3min"
    gpus: int | None = None
    cpus: int = 4
    memory: str = "16GiB"
    max_restarts: int = 50
    setup: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_choice("launcher.kind", self.kind, ("local", "slurm", "slurm_array"))
        if self.at_once < 1:
            raise UsageError(
                f"launcher.at_once={self.at_once} runs nothing",
                where="launcher.at_once",
                do="give a number from 1",
            )
        limit = parse_quantity(self.time, "duration", where="launcher.time")
        parse_quantity(self.memory, "size", where="launcher.memory")
        if parse_quantity(self.warning, "duration", where="launcher.warning") >= limit:
            raise UsageError(
                f"a warning {self.warning} before the end leaves no time of a job of {self.time}",
                where="launcher.warning, launcher.time",
                do="give the job more time or warn it later",
            )

    @property
    def is_cluster(self) -> bool:
        """Whether jobs are submitted; the command then returns at once."""
        return self.kind != "local"


@dataclass(frozen=True)
class RunConfig:
    """A checked configuration: what is trained, on what, how, and where the run lies."""

    dataset: DatasetConfig
    family: Family
    trainer: TrainerConfig
    logger: LoggerConfig
    launcher: LauncherConfig
    name: str
    runs_folder: Path
    seed: int
    only: str | None
    restart: bool
    dry_run: bool
    resolved: Mapping[str, Any] = field(repr=False)  # plain data, as config.yaml holds it

    @property
    def folder(self) -> Path:
        """The run folder, RUNS_FOLDER/DATASET/MODEL/NAME."""
        return self.runs_folder / self.dataset.name / family_name(self.family) / self.name

    @property
    def family_target(self) -> str:
        return str(self.resolved["model"]["_target_"])


def check_config(resolved: Mapping[str, Any]) -> RunConfig:
    """Turn a resolved config into a RunConfig; every wrong key or value is a UsageError."""
    for key in resolved:
        if key not in _TOP_KEYS:
            raise UsageError(
                f"unknown key '{key}'",
                where="the composed configuration",
                do=f"use a key that exists; {nearest_names(str(key), _TOP_KEYS)}",
            )
    for key in _NEEDED_KEYS:
        if key not in resolved:
            raise UsageError(
                f"'{key}' is missing",
                where="the composed configuration",
                do=f"give it a value, or take it from {key}.yaml under calo_train/conf",
            )
    for key in ("dataset", "model", "trainer", "logger", "launcher"):
        if not isinstance(group := resolved.get(key, {}), Mapping):
            raise UsageError(
                f"'{key}' is {group!r}, not a group of keys",
                where="the composed configuration",
                do=f"choose one with {key}=NAME",
            )
    name = str(resolved["name"])
    if not name or name in (".", "..") or any(mark in name for mark in "/\\\0"):
        raise UsageError(
            f"name '{name}' cannot name a folder", where="name", do="use a plain word, name=trial"
        )
    seed = resolved["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise UsageError(f"seed '{seed}' is not a whole number from 0", where="seed", do="seed=0")
    return RunConfig(
        dataset=build_settings(DatasetConfig, resolved["dataset"], where="dataset"),
        family=build_family(resolved["model"], where="model"),
        trainer=build_settings(TrainerConfig, resolved["trainer"], where="trainer"),
        logger=build_settings(LoggerConfig, resolved["logger"], where="logger"),
        launcher=build_settings(LauncherConfig, resolved.get("launcher", {}), where="launcher"),
        name=name,
        runs_folder=Path(str(resolved["runs_folder"])).expanduser(),
        seed=seed,
        only=None if resolved["only"] is None else str(resolved["only"]),
        restart=_flag(resolved, "restart"),
        dry_run=_flag(resolved, "dry_run"),
        resolved=resolved,
    )


def fingerprint(resolved: Mapping[str, Any]) -> str:
    """Hash what decides which training this is: all but keys that may change, with `only`."""
    deciding = {key: value for key, value in _flatten(resolved).items() if not _is_free(key)}
    text = json.dumps(deciding | {"only": resolved["only"]}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differing_keys(recorded: Mapping[str, Any], requested: Mapping[str, Any]) -> dict[str, str]:
    """Give `key -> "old -> new"` for keys that decide what is trained and differ."""
    old, new = _flatten(recorded), _flatten(requested)
    return {
        key: f"{old.get(key, 'absent')} -> {new.get(key, 'absent')}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and not _is_free(key)
    }


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _flag(resolved: Mapping[str, Any], key: str) -> bool:
    value = resolved[key]
    if not isinstance(value, bool):
        raise UsageError(f"{key}={value} is not true or false", where=key, do=f"{key}=true")
    return value


def _require_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(
            f"{key}={value} is not one of {', '.join(choices)}",
            where=key,
            do=f"use one of them; {nearest_names(value, choices)}",
        )
