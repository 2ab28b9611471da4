"""The folder of a report: report.html, metrics.json and figures/.

A new one appears when it is whole; in one that is there, each file is replaced as a whole. A
folder that is not a report, or a report of other inputs, is not touched without being asked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calo_train.atomic_files import machine_error, replacing, replacing_folder, write_text
from calo_train.errors import UsageError
from calo_train.evaluation.metrics import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from pathlib import Path

_FIGURE_SUFFIXES = (".png", ".pdf", ".csv")


@dataclass(frozen=True)
class ReportFolder:
    """Where a report lies."""

    path: Path

    @property
    def page(self) -> Path:
        return self.path / "report.html"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def require_replaceable(self, metrics: Mapping[str, Any], *, is_forced: bool) -> None:
        """Raise UsageError unless the folder is new, or holds a report that may be replaced."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        found = self._existing_metrics()
        if found is None:
            raise UsageError(
                "this exists and is not a report",
                where=str(self.path),
                do="choose another folder with --out",
            )
        if not is_forced and inputs_of(found) != inputs_of(metrics):
            raise UsageError(
                f"a report of other inputs is here: {_words(found)}",
                where=str(self.path),
                do=f"choose another folder with --out, or replace it with --force; "
                f"new would be {_words(metrics)}",
            )

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json alone; a page and figures of other inputs would belie it and go."""
        found = self._existing_metrics()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if found is not None and inputs_of(found) != inputs_of(metrics):
                self.page.unlink(missing_ok=True)
                self._remove_figures(kept=())
        except OSError as error:
            raise machine_error(error, self.path) from error
        write_text(self.metrics, as_json(metrics))

    def write(self, page: str, metrics: Mapping[str, Any], figures: Mapping[str, bytes]) -> None:
        """Write all files, figures first; remove figures that only an earlier report had."""
        if self._existing_metrics() is None:
            with replacing_folder(self.path) as temporary:
                ReportFolder(temporary)._write_files(page, metrics, figures)
        else:
            self._write_files(page, metrics, figures)

    def _write_files(
        self, page: str, metrics: Mapping[str, Any], figures: Mapping[str, bytes]
    ) -> None:
        try:
            self.figures.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise machine_error(error, self.figures) from error
        for name, content in figures.items():
            with replacing(self.figures / name) as temporary:
                temporary.write_bytes(content)
        self._remove_figures(kept=figures)
        write_text(self.metrics, as_json(metrics))
        write_text(self.page, page)

    def _remove_figures(self, kept: Container[str]) -> None:
        for old in self.figures.iterdir() if self.figures.is_dir() else ():
            if old.suffix in _FIGURE_SUFFIXES and old.name not in kept:
                old.unlink()

    def _existing_metrics(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.metrics.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("schema") == SCHEMA else None


def as_json(metrics: Mapping[str, Any]) -> str:
    """Write metrics as JSON text; NaN and infinity have no place in it."""
    return json.dumps(metrics, indent=2, allow_nan=False) + "\n"


def inputs_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a report was made of: fingerprints and settings."""
    return {
        "reference": metrics.get("reference", {}).get("fingerprint"),
        "samples": [sample.get("fingerprint") for sample in metrics.get("samples", [])],
        "settings": {
            name: value
            for name, value in metrics.get("settings", {}).items()
            if name != "matched_showers"  # follows from the inputs
        },
    }


def _words(metrics: Mapping[str, Any]) -> str:
    samples = ", ".join(str(sample.get("label")) for sample in metrics.get("samples", []))
    settings = metrics.get("settings", {})
    return (
        f"{samples} against {metrics.get('reference', {}).get('label')} "
        f"(threshold {settings.get('threshold')} MeV, seed {settings.get('seed')})"
    )
