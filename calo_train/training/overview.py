"""What `calo-runs` tells of trainings, read from their folders alone."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from calo_train.errors import DataError
from calo_train.training.lock import describe_owner
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
    state = str(record.get("state", "started"))
    if state == "training" and owner is None:
        state = "interrupted"
    return {
        "run": str(run.path),
        "state": state,
        "parts": f"{len(finished_parts(run, keys))}/{len(keys)}",
        "epochs": _epochs(run),
        "process": owner or "-",
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


def _epochs(run: RunFolder) -> str:
    reached = []
    for path in sorted(run.path.glob("stages/*/*/metrics.csv")):
        rows = path.read_text(encoding="utf-8").splitlines()
        last = int(rows[-1].partition(",")[0]) + 1 if len(rows) > 1 else 0
        reached.append(f"{path.parent.parent.name} {last}")
    return ", ".join(reached) or "-"


def _best_losses(run: RunFolder) -> dict[str, str]:
    best: dict[str, tuple[float, int]] = {}
    for path in sorted(run.path.glob("stages/*/*/metrics.csv")):
        with path.open(encoding="utf-8", newline="") as table:
            for row in csv.DictReader(table):
                key = f"{path.parent.parent.name}/{row['part']}"
                loss = float(row["validation_loss"])
                if key not in best or loss < best[key][0]:
                    best[key] = (loss, int(row["epoch"]) + 1)
    return {key: f"{loss:.4f} in epoch {epoch}" for key, (loss, epoch) in best.items()}
