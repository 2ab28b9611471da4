"""An evaluation in the logger of its run: figures and one table, to W&B or TensorBoard.

A run that was trained with a logger is evaluated into the same one; `--wandb` sends any run's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from calo_train.cli.inputs import RUN_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from calo_train.training.run_folder import RunFolder

_HEADER = ["sample", "observable", "separation", "floor", "significance", "verdict"]
_log = logging.getLogger(__name__)


def log_report(
    targets: Sequence[Path], page: Path, metrics: Mapping[str, Any], *, is_wandb: bool
) -> None:
    """Add the report to the logger of every run among the targets."""
    for run in _runs(targets):
        kind = "wandb" if is_wandb else run.read_config().get("logger", {}).get("kind")
        if kind == "wandb":
            _to_wandb(run, page, metrics)
        elif kind == "tensorboard":
            _to_tensorboard(run, page)


def _runs(targets: Sequence[Path]) -> Iterator[RunFolder]:
    from calo_train.training.run_folder import RunFolder

    for target in targets:
        if (target.expanduser() / RUN_FILE).is_file():
            yield RunFolder(target.expanduser())


def _to_wandb(run: RunFolder, page: Path, metrics: Mapping[str, Any]) -> None:
    from dataclasses import replace

    from calo_train.training.config import check_config
    from calo_train.training.loggers import require_logger, tracker

    config = check_config(run.read_config())
    logger = replace(config.logger, kind="wandb")
    require_logger(logger)
    tracking = tracker(replace(config, logger=logger), run)
    figures = {path.stem: str(path) for path in sorted((page.parent / "figures").glob("*.png"))}
    tracking.add_report(page.parent.name, figures, [_HEADER, *_rows(metrics)])
    tracking.close()
    _log.info("W&B run %s: %d figures and the table", tracking.run_id, len(figures))


def _to_tensorboard(run: RunFolder, page: Path) -> None:
    from calo_train.training.loggers import TENSORBOARD
    from calo_train.training.tensorboard import TensorBoardFiles

    files = TensorBoardFiles(run.path / TENSORBOARD)
    figures = sorted((page.parent / "figures").glob("*.png"))
    files.add_figures({f"{page.parent.name}/{path.stem}": path for path in figures})
    files.close()


def _rows(metrics: Mapping[str, Any]) -> list[list[Any]]:
    """Give the numbers of every observable of every sample, as metrics.json has them."""
    return [
        [
            sample["label"], entry["title"], entry["separation"], entry["separation_floor"],
            entry["significance"], entry["verdict"],
        ]
        for sample in metrics["samples"]
        for entry in sample["observables"].values()
    ]  # fmt: skip
