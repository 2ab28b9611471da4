"""What `calo-runs` tells of trainings, read from their folders alone."""

from __future__ import annotations

import csv
from statistics import fmean
from typing import TYPE_CHECKING, Any

from calo_train.errors import DataError
from calo_train.quantities import format_duration
from calo_train.training.lock import describe_owner, read_progress
from calo_train.training.run_folder import RunFolder, finished_parts

if TYPE_CHECKING:
    from pathlib import Path


def find_runs(folder: Path) -> list[RunFolder]:
    """Find the runs below a folder, DATASET/MODEL/NAME; DataError when it does not exist."""
    if not folder.is_dir():
        raise DataError("no such folder", where=str(folder), do="give the folder that holds runs")
    found = [RunFolder(path.parent) for path in sorted(folder.glob("*/*/*/config.yaml"))]
    own = RunFolder(folder)
    return [own] if own.exists() else found


def overview(run: RunFolder) -> dict[str, Any]:
    """Summarise a run in one row."""
    record = run.read_record()
    keys = list(record.get("parts", []))
    owner = _owner(run)
    progress = _progress(run)
    state = str(record.get("state", "started"))
    if state == "training" and owner is None:
        state = "interrupted"
    return {
        "run": str(run.path),
        "state": state,
        "parts": f"{len(finished_parts(run, keys))}/{len(keys)}",
        "stages": _stages(run, keys) or "-",
        "done": f"{100 * progress['share_done']:.0f} %" if "share_done" in progress else "-",
        "left": (format_duration(progress["seconds_left"]) if "seconds_left" in progress else "-"),
        "best": _mean_best_losses(run) or "-",
        "process": f"alive: {owner}" if owner else "none",
        "message": record.get("message") or "-",
    }


def details(run: RunFolder) -> dict[str, Any]:
    """Tell all of one run: overview, data, best loss of every part, notes."""
    record = run.read_record()
    data = record.get("data", {})
    return {
        **overview(run),
        "seed": record.get("seed", "-"),
        "data": data,
        "cost": record.get("cost", {}),
        "best": _best_losses(run),
        "notes": "; ".join(record.get("notes", [])) or "-",
    }


def _owner(run: RunFolder) -> str | None:
    owners = (describe_owner(path) for path in sorted(run.path.glob("lock*")))
    return next((owner for owner in owners if owner is not None), None)


def _progress(run: RunFolder) -> dict[str, float]:
    """Give what the process of a run last told: of several, of the first."""
    told = (read_progress(path) for path in sorted(run.path.glob("lock*")))
    return next((progress for progress in told if progress), {})


def _stages(run: RunFolder, keys: list[str]) -> str:
    """Say of every stage that it is done, where it stands, or that it is waiting."""
    finished, epochs = set(finished_parts(run, keys)), _epochs(run)
    words = []
    for stage in dict.fromkeys(key.partition("/")[0] for key in keys):
        own = [key for key in keys if key.partition("/")[0] == stage]
        if finished.issuperset(own):
            words.append(f"{stage} done")
        elif stage in epochs:
            words.append(f"{stage} epoch {epochs[stage]}")
        else:
            words.append(f"{stage} waiting")
    return ", ".join(words)


def _epochs(run: RunFolder) -> dict[str, int]:
    """Give the epochs that the newest group of each stage has finished."""
    reached = {}
    tables = run.path.glob("stages/*/*/metrics.csv")
    for path in sorted(tables, key=lambda path: path.stat().st_mtime_ns):
        rows = path.read_text(encoding="utf-8").splitlines()
        last = rows[-1].partition(",")[0] if len(rows) > 1 else ""
        reached[path.parent.parent.name] = int(last) + 1 if last.isdigit() else 0
    return reached


def _mean_best_losses(run: RunFolder) -> str:
    """Give the mean of the best validation losses of each stage's parts."""
    by_stage: dict[str, list[float]] = {}
    for key, (loss, _) in _best(run).items():
        by_stage.setdefault(key.partition("/")[0], []).append(loss)
    return ", ".join(f"{stage} {fmean(losses):.4g}" for stage, losses in by_stage.items())


def _best_losses(run: RunFolder) -> dict[str, str]:
    return {key: f"{loss:.4f} in epoch {epoch}" for key, (loss, epoch) in _best(run).items()}


def _best(run: RunFolder) -> dict[str, tuple[float, int]]:
    """Give the best validation loss of every part so far, and its epoch from 1."""
    best: dict[str, tuple[float, int]] = {}
    for path in sorted(run.path.glob("stages/*/*/metrics.csv")):
        with path.open(encoding="utf-8", newline="") as table:
            for row in csv.DictReader(table):
                key = f"{path.parent.parent.name}/{row['part']}"
                try:
                    loss, epoch = float(row["validation_loss"]), int(row["epoch"])
                except (TypeError, ValueError):
                    continue  # a row that is being written, or was cut short by a kill
                if key not in best or loss < best[key][0]:
                    best[key] = (loss, epoch + 1)
    return best
