"""Loggers beside metrics.csv: TensorBoard files, or one W&B run a training.

Only the process that keeps a run's records logs. What is sent to W&B is the configuration without
paths, the loss curves and, by `calo-eval`, figures and one table.
"""

from __future__ import annotations

import secrets
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from calo_train.errors import UsageError
from calo_train.families.targets import family_name
from calo_train.quantities import parse_quantity
from calo_train.tracking import TrackedRun, Tracker
from calo_train.training.metrics_file import named_values, read_metrics
from calo_train.training.tensorboard import TensorBoardFiles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from calo_train.training.config import LoggerConfig, RunConfig
    from calo_train.training.metrics_file import EpochMetrics
    from calo_train.training.plan import Group
    from calo_train.training.run_folder import RunFolder

STOPPING_LIMIT = 10.0  # seconds for a server when a batch system wants the node back
TENSORBOARD = "tensorboard"
_LOGGED = "epochs_logged"  # how many epochs of a fit the logger has been given


class MetricsLogger(Protocol):
    """Where a fit's metrics go beside metrics.csv; names are `stage/part/metric`."""

    def log(self, values: Mapping[str, float], *, stage: str) -> None:
        """Add the metrics of one epoch of a stage."""

    def close(self, limit: float | None = None) -> None:
        """Finish, waiting for a server for at most `limit` seconds."""


def require_logger(config: LoggerConfig) -> None:
    """Raise UsageError when the chosen logger's package is not installed."""
    package = {"tensorboard": "tensorboard", "wandb": "wandb"}.get(config.kind)
    if package is not None and find_spec(package) is None:
        raise UsageError(
            f"logger={config.kind} needs the package {package}, which is not installed",
            where=f"logger.kind={config.kind}",
            do=f"pip install {package}, or use logger=csv",
        )


def build_logger(config: RunConfig, run: RunFolder) -> MetricsLogger | None:
    """Build the chosen logger; None for csv, which is always written."""
    if config.logger.kind == "tensorboard":
        return TensorBoardFiles(run.path / TENSORBOARD)
    if config.logger.kind == "wandb":
        return tracker(config, run)
    return None


def log_epoch(
    logger: MetricsLogger | None,
    folder: Path,
    stage: str,
    num_epochs: int,
    rows: Sequence[EpochMetrics],
) -> None:
    """Give the logger the epoch that finished `num_epochs` of the fit in `folder`, once.

    A resumed training repeats the epochs since its checkpoint, a second launch a whole fit.
    """
    logged = folder / _LOGGED
    if logger is None or num_epochs <= _read_number(logged):
        return
    values = {f"{stage}/epoch": float(num_epochs)} | named_values(stage, rows)
    logger.log(values, stage=stage)
    logged.write_text(str(num_epochs), encoding="utf-8")


def log_trained(logger: MetricsLogger | None, run: RunFolder, groups: Sequence[Group]) -> None:
    """Send the curves of groups that other processes trained, read from their metrics.csv.

    So a training has one logger, in one process, however many processes train its parts.
    """
    if logger is None:
        return
    for group in groups:
        stage, folder = group.stage.name, run.group_folder(group.stage.name, group.label)
        for epoch, rows in read_metrics(run.metrics_file(stage, group.label)).items():
            # Counted are finished epochs, as those of a fit in this process are.
            log_epoch(logger, folder, stage, epoch + 1, rows)


def _read_number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0


def tracker(config: RunConfig, run: RunFolder) -> Tracker:
    """Start writing the one W&B run of a training; its id is kept in run.yaml."""
    # A stored id makes a resumed training, and its evaluation, the same W&B run.
    run_id = run.read_record().get("wandb_id") or secrets.token_hex(4)
    run.update_record(wandb_id=run_id)
    logger = config.logger
    limit = parse_quantity(logger.finish_limit, "duration", where="logger.finish_limit")
    model = family_name(config.family)
    tracked = TrackedRun(
        run_id=str(run_id),
        project=logger.project,
        name=f"{config.dataset.name}/{model}/{config.name}",
        folder=str(run.path.absolute()),
        is_online=logger.mode == "online",
        finish_limit=limit,
        config=_without_paths(config.resolved),
    )
    return Tracker(tracked, where=run.path)


def _without_paths(resolved: Mapping[str, Any]) -> dict[str, Any]:
    kept_back = ("runs_folder", "launcher")
    sent = {key: value for key, value in resolved.items() if key not in kept_back}
    sent["dataset"] = {key: value for key, value in sent["dataset"].items() if key != "path"}
    return sent
