"""Published results of the CaloChallenge 2022 (2410.21611) as context for our own numbers.

`calochallenge_results.csv` is the organisers' final table; its first line says where it is from.
Own numbers stand beside it where they are taken by the same definition, and nowhere else.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from calo_train.evaluation.results import SampleResult

FLOOR_ROW = "GEANT4"  # reference against reference
_FILE = "calochallenge_results.csv"
_DATASETS = {"1-photons": "ds1_photons", "1-pions": "ds1_pions", "2": "ds2", "3": "ds3"}
_ERROR = " std"  # of a column of the same name


@dataclass(frozen=True)
class Measured:
    """A published or own number; the error is NaN where none is given."""

    value: float
    error: float = math.nan


@dataclass(frozen=True)
class LeagueColumn:
    """A number of the published table: its name there, here, and how we take it."""

    published: str
    title: str
    own: Callable[[SampleResult], Measured | None] | None = None
    scale: float = 1.0  # shown is a number times this
    has_error: bool = True


def published_results(dataset: str) -> dict[str, dict[str, Measured]]:
    """Give published numbers by submission and column; empty for an unknown data set."""
    wanted = _DATASETS.get(dataset)
    return {
        row["submission"]: {
            name: Measured(float(text), float(row.get(name + _ERROR) or "nan"))
            for name, text in row.items()
            if name not in ("dataset", "submission") and text and text != "nan"
        }
        for row in _rows()
        if row["dataset"] == wanted
    }


@cache
def _rows() -> tuple[Mapping[str, str], ...]:
    text = files("calo_train.evaluation").joinpath(_FILE).read_text(encoding="utf-8")
    return tuple(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def _separation(name: str) -> Callable[[SampleResult], Measured | None]:
    def own(result: SampleResult) -> Measured | None:
        official = result.further.official
        found = () if official is None else official.observables
        values = [entry.separation_all for entry in found if entry.name == name]
        return Measured(values[0]) if values else None

    return own


def _auc(name: str) -> Callable[[SampleResult], Measured | None]:
    """Take a classifier that was trained by the published protocol, not a reduced one."""

    def own(result: SampleResult) -> Measured | None:
        full = (found for found in result.classifiers if not found.protocol.is_reduced)
        return next((Measured(*found.auc) for found in full if found.name == name), None)

    return own


def _fpd(result: SampleResult) -> Measured | None:
    return _thousandfold(result.further.physics.fpd_all)


def _kpd(result: SampleResult) -> Measured | None:
    return _thousandfold(result.further.physics.kpd_all)


def _thousandfold(found: tuple[float, float] | None) -> Measured | None:
    return None if found is None else Measured(1e3 * found[0], 1e3 * found[1])


SEPARATIONS = (
    LeagueColumn("sep E layer (mean)", "E layer", _separation("layer_energy"), 1e3),
    LeagueColumn("sep E total (mean)", "E total", _separation("visible_fraction"), 1e3),
    LeagueColumn("sep cell (mean)", "cells", _separation("cell_energy_spectrum"), 1e3),
    LeagueColumn("sep EC eta (mean)", "EC η", _separation("layer_centroid_x"), 1e3),
    LeagueColumn("sep EC phi (mean)", "EC φ", _separation("layer_centroid_y"), 1e3),
    LeagueColumn("sep EC r (mean)", "EC r", _separation("layer_centroid_r"), 1e3),
    LeagueColumn("sep EC eta std (mean)", "width η", _separation("layer_width_x"), 1e3),
    LeagueColumn("sep EC phi std (mean)", "width φ", _separation("layer_width_y"), 1e3),
    LeagueColumn("sep EC r std (mean)", "width r", _separation("layer_width_r"), 1e3),
    LeagueColumn("sep sparsity (mean)", "sparsity", _separation("layer_sparsity"), 1e3),
)  # fmt: skip
JOINT = (
    LeagueColumn("binary cls low", "AUC low", _auc("low")),
    LeagueColumn("binary cls high", "AUC high", _auc("high")),
    LeagueColumn("binary cls cnn", "AUC ResNet", _auc("resnet")),
    # The file holds 1000 times these two.
    LeagueColumn("FPD * 1e3", "1000 FPD", _fpd),
    LeagueColumn("KPD * 1e3", "1000 KPD", _kpd),
    LeagueColumn("time GPU 1", "ms, batch 1", has_error=False),
    LeagueColumn("time GPU 100", "ms, 100", has_error=False),
    LeagueColumn("time GPU 10000", "ms, 10,000", has_error=False),
    LeagueColumn("Parameters generation", "10⁶ weights", scale=1e-6),
)
