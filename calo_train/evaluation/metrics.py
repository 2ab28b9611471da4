"""metrics.json: all numbers of an evaluation under stable names.

`metrics.schema.json` describes it. Everything but the blocks `durations` and `timing` is a
function of the inputs and settings.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from calo_train import __version__
from calo_train.evaluation.classifiers.plain import classifiers_data, multi_data, protocol_data
from calo_train.evaluation.classifiers.protocol import Protocol
from calo_train.evaluation.floor import verdict_of
from calo_train.evaluation.further_data import further_data
from calo_train.evaluation.memorisation import memorisation_data
from calo_train.evaluation.plain_data import metric_data, observable_data, rounded
from calo_train.evaluation.timing import timing_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.evaluation.results import (
        Evaluation,
        SampleResult,
        Settings,
    )
    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.evaluation.table import ShowerTable

SCHEMA = "calo-train/metrics"
SCHEMA_VERSION = 2
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch")


def metrics_of(evaluation: Evaluation) -> dict[str, Any]:
    """Give plain data for JSON; see `metrics.schema.json`."""
    settings, geometry = evaluation.settings, evaluation.reference.geometry
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "units": {"energy": "MeV", "length": "mm", "depth": "layer index"},
        "geometry": {
            "name": geometry.name,
            "description": geometry.describe(),
            "num_layers": geometry.num_layers,
            "num_voxels": geometry.num_voxels,
        },
        "settings": _settings_of(settings) | {"matched_showers": evaluation.size},
        "reference": _set_of(evaluation.reference, evaluation.reference_table),
        "samples": [_sample_of(sample) for sample in evaluation.samples],
        "multi_classifiers": multi_data(evaluation.multi),
        "warnings": list(evaluation.warnings),
        "versions": _versions(),
        "durations": {name: round(value, 3) for name, value in evaluation.durations.items()},
    }


def planned_inputs(
    samples: Sequence[ShowerSet], reference: ShowerSet, settings: Settings
) -> dict[str, Any]:
    """Give the part of `metrics_of` that is known before any work: inputs and settings."""
    return {
        "settings": _settings_of(settings),
        "reference": _names_of(reference),
        "samples": [_names_of(sample) for sample in samples],
    }


def _settings_of(settings: Settings) -> dict[str, Any]:
    protocols = [protocol_data(protocol) for protocol in settings.classifiers]
    return {
        "threshold": settings.threshold,
        "seed": settings.seed,
        "repetitions": settings.repetitions,
        "allow_different_energies": settings.allow_different_energies,
        "classifier": protocols[0] if protocols else protocol_data(Protocol(num_runs=0)),
        "classifiers": protocols,
        # Absent where nothing was asked for, so that results of older versions stay comparable.
        **({"coarse": [cells.text for cells in settings.coarse]} if settings.coarse else {}),
    }


def _names_of(showers: ShowerSet) -> dict[str, Any]:
    return {
        "label": showers.label,
        "files": list(showers.file_names),
        "fingerprint": showers.fingerprint(),
    }


def _sample_of(result: SampleResult) -> dict[str, Any]:
    return {
        **_set_of(result.showers, result.table),
        "verdict": result.verdict,
        "ranking": [entry.name for entry in result.ranking],
        "observables": {entry.name: observable_data(entry) for entry in result.observables},
        "details": {entry.name: observable_data(entry) for entry in result.details},
        "layers": {entry.name: observable_data(entry) for entry in result.layers},
        "correlations": metric_data("mean_absolute_difference", result.correlations)
        | {"verdict": verdict_of(result.correlations.significance)},
        **classifiers_data(result.classifiers),
        **further_data(result.further),
        "memorisation": memorisation_data(result.memorisation),
        "timing": timing_data(result.timings),
        "warnings": list(result.warnings),
    }


def _set_of(showers: ShowerSet, table: ShowerTable) -> dict[str, Any]:
    return {
        **_names_of(showers),
        "num_showers": table.health.num_read,
        "num_evaluated": len(table),
        "num_non_finite": table.health.num_non_finite,
        "num_negative": table.health.num_negative,
        "num_empty": table.health.num_empty,
        "incident_energy": {
            "min": rounded(float(table.incident_energy.min())),
            "mean": rounded(float(table.incident_energy.mean())),
            "max": rounded(float(table.incident_energy.max())),
        },
        "notes": list(showers.notes),
    }


def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"calo-train": __version__, "python": platform.python_version(), **libraries}
