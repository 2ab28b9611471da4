"""Loggers beside metrics.csv: TensorBoard files, or one W&B run a training."""

from __future__ import annotations

import logging
import secrets
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from calo_train.errors import UsageError
from calo_train.training.metrics_file import named_values, read_metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch.loggers import Logger

    from calo_train.training.config import LoggerConfig, RunConfig
    from calo_train.training.plan import Group
    from calo_train.training.run_folder import RunFolder

_FINISH_LIMIT = 60  # seconds that a server may take at the end
_log = logging.getLogger(__name__)


def require_logger(config: LoggerConfig) -> None:
    """Raise UsageError when the chosen logger's package is not installed."""
    package = {"tensorboard": "tensorboard", "wandb": "wandb"}.get(config.kind)
    if package is not None and find_spec(package) is None:
        raise UsageError(
            f"logger={config.kind} needs the package {package}, which is not installed",
            where=f"logger.kind={config.kind}",
            do=f"pip install {package}, or use logger=csv",
        )


def build_logger(config: RunConfig, run: RunFolder) -> Logger | None:
    """Build the chosen logger; None for csv, which is always written."""
    if config.logger.kind == "tensorboard":
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(save_dir=run.path, name="tensorboard", version="")
    if config.logger.kind == "wandb":
        return _wandb_logger(config, run)
    return None


def log_trained(logger: Logger | None, run: RunFolder, groups: Sequence[Group]) -> None:
    """Send the curves of groups that other processes trained, read from their metrics.csv.

    So a training has one logger, in one process, however many processes train its parts.
    """
    if logger is None:
        return
    for group in groups:
        stage = group.stage.name
        for epoch, rows in read_metrics(run.metrics_file(stage, group.label)).items():
            # Steps count finished epochs, as those of a fit in this process do.
            logger.log_metrics(named_values(stage, rows), step=epoch + 1)


def close_logger(logger: Logger | None, *, kind: str) -> None:
    """Finish a W&B run so that the command does not wait for a server at its end."""
    if logger is None or kind != "wandb":
        return
    import wandb

    wandb.finish()


def _wandb_logger(config: RunConfig, run: RunFolder) -> Logger:
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    # A stored id makes a resumed training the same W&B run.
    run_id = run.read_record().get("wandb_id") or secrets.token_hex(4)
    run.update_record(wandb_id=run_id)
    is_offline = config.logger.mode == "offline"
    # Sent are config and metrics; no host, program path, environment, console or code.
    settings = wandb.Settings(
        console="off",
        x_disable_meta=True,
        x_disable_machine_info=True,
        disable_git=True,
        disable_code=True,
        host="anon",
        x_save_requirements=False,
        silent=True,
        init_timeout=_FINISH_LIMIT,
    )
    logger = WandbLogger(
        project=config.logger.project,
        name=f"{config.dataset.name}/{config.name}",
        id=run_id,
        save_dir=run.path,
        offline=is_offline,
        resume="allow",
        settings=settings,
        config=_without_paths(config.resolved),
    )
    _ = logger.experiment
    if is_offline:
        _log.info(
            "W&B is offline; send the run later with: wandb sync %s/wandb/offline-*", run.path
        )
    return logger


def _without_paths(resolved: Any) -> dict[str, Any]:
    sent = {key: value for key, value in resolved.items() if key != "runs_folder"}
    sent["dataset"] = {key: value for key, value in sent["dataset"].items() if key != "path"}
    return sent
