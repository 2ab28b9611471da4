"""Classifier results as plain data for metrics.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from calo_train.evaluation.plain_data import rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.evaluation.classifiers.protocol import Protocol
    from calo_train.evaluation.classifiers.results import (
        ClassifierResult,
        Insight,
        MultiResult,
        SureShowers,
    )


def protocol_data(protocol: Protocol) -> dict[str, Any]:
    """Give all settings of a classifier."""
    return asdict(protocol) | {"hidden": list(protocol.hidden)}


def classifiers_data(results: Sequence[ClassifierResult]) -> dict[str, Any]:
    """Give the classifiers of a sample by name; `classifier` is the first, as in version 1."""
    first = None if not results else _result(results[0])
    return {
        "classifier": first,
        "classifiers": {result.name: _result(result) | _more(result) for result in results},
    }


def multi_data(results: Sequence[MultiResult]) -> dict[str, Any]:
    """Give the multi-model classifiers by name."""
    return {
        result.protocol.name: {
            "chance": rounded(result.chance),
            "floor": rounded(result.floor[0]),
            "floor_deviation": rounded(result.floor[1]),
            "showers_per_class": result.num_per_class,
            "reference_showers": result.num_reference,
            "ranking": list(result.ranking),
            "samples": [
                {
                    "label": found.label,
                    "log_posterior": rounded(found.log),
                    "log_posterior_deviation": rounded(found.log_deviation),
                    "posterior": rounded(found.share),
                    "posterior_deviation": rounded(found.share_deviation),
                }
                for found in result.generators
            ],
        }
        for result in results
    }


def _result(result: ClassifierResult) -> dict[str, Any]:
    return {
        "name": "l2lflows_app_c" if result.name == "l2lflows" else result.name,
        "showers_per_class": result.num_per_class,
        "test_showers_per_class": result.num_test,
        "auc": rounded(result.auc[0]),
        "auc_deviation": rounded(result.auc[1]),
        "auc_floor": rounded(result.floor[0]),
        "auc_floor_deviation": rounded(result.floor[1]),
        "auc_floor_error": rounded(result.floor_error),
        "significance": rounded(result.significance),
        "verdict": result.verdict,
        "runs": [rounded(run.auc) for run in result.sample_runs],
        "floor_runs": [rounded(run.auc) for run in result.floor_runs],
    }


def _more(result: ClassifierResult) -> dict[str, Any]:
    first = result.sample_runs[0]
    return {
        "is_reduced": result.protocol.is_reduced,
        "num_weights": result.num_weights,
        "floor_showers_per_class": result.num_floor_per_class,
        "jsd": rounded(result.jsd[0]),
        "jsd_deviation": rounded(result.jsd[1]),
        "jsd_floor": rounded(result.jsd_floor[0]),
        "jsd_floor_deviation": rounded(result.jsd_floor[1]),
        "raw_auc_runs": [rounded(run.raw_auc) for run in result.sample_runs],
        "accuracy_runs": [rounded(run.accuracy) for run in result.sample_runs],
        "best_epochs": [run.best_epoch for run in result.sample_runs],
        "calibration": {
            "mean_score": [rounded(value) for value in first.calibration.mean_score],
            "share": [rounded(value) for value in first.calibration.share],
            "counts": [int(value) for value in first.calibration.counts],
        },
        "insight": None if result.insight is None else _insight(result.insight),
    }


def _insight(insight: Insight) -> dict[str, Any]:
    found = insight.attribution
    return {
        "measure": found.measure,
        "top_layer": found.top_layer,
        "top_observable": found.top_observable,
        "layers": [rounded(float(value)) for value in found.layers],
        "observables": {name: rounded(value) for name, value in found.observables.items()},
        "surest_sample": _surest(insight.sample),
        "surest_reference": _surest(insight.reference),
    }


def _surest(showers: SureShowers) -> list[dict[str, Any]]:
    return [
        {
            "position": int(position),
            "incident_energy": rounded(float(energy)),
            "score": rounded(float(score)),
        }
        for position, energy, score in zip(
            showers.positions, showers.incident_energy, showers.scores, strict=True
        )
    ]
