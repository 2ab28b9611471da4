"""The blocks of metrics.json behind the distances of single observables.

A block that cannot be given is null, or holds null numbers and the `reason`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from calo_train.evaluation.physics_distances import RECOMMENDED_SHOWERS
from calo_train.evaluation.plain_data import metric_data, observable_data, rounded

if TYPE_CHECKING:
    from calo_train.evaluation.energy_dependence import EnergyRange, EnergySlice, Response
    from calo_train.evaluation.further import FurtherDistances
    from calo_train.evaluation.moments import CentralInterval
    from calo_train.evaluation.neighbours import NeighbourResult
    from calo_train.evaluation.official import OfficialResult
    from calo_train.evaluation.physics_distances import PhysicsDistances


def further_data(found: FurtherDistances) -> dict[str, Any]:
    """Give the blocks of a sample."""
    return {
        "official": None if found.official is None else _official(found.official),
        "response": None if found.response is None else _response(found.response),
        "energy_slices": [_slice(entry) for entry in found.slices],
        "physics_distances": _physics(found.physics),
        "neighbours": _neighbours(found.neighbours),
    }


def _official(result: OfficialResult) -> dict[str, Any]:
    return {
        "dataset": result.dataset,
        "reason": result.reason,
        "observables": {entry.name: observable_data(entry) for entry in result.observables},
        "layers": {entry.name: observable_data(entry) for entry in result.layers},
    }


def _response(response: Response) -> dict[str, Any]:
    return {
        **metric_data("linearity", response.linearity),
        **metric_data("resolution", response.resolution),
        "bins": [
            _range(entry.energies)
            | {"reference": _interval(entry.reference), "sample": _interval(entry.sample)}
            for entry in response.bins
        ],
    }


def _interval(found: CentralInterval) -> dict[str, float]:
    return {
        "mu90": rounded(found.mean),
        "mu90_error": rounded(found.mean_error),
        "sigma90": rounded(found.deviation),
        "sigma90_error": rounded(found.deviation_error),
    }


def _slice(entry: EnergySlice) -> dict[str, Any]:
    return _range(entry.energies) | {
        "matched_showers": entry.matched_showers,
        "observables": {
            name: metric_data("separation", metric) for name, metric in entry.separations.items()
        },
    }


def _range(energies: EnergyRange) -> dict[str, Any]:
    return {
        "energy_low": rounded(energies.low),
        "energy_high": rounded(energies.high),
        "energy_mean": rounded(energies.mean),
        "num_reference": energies.num_reference,
        "num_sample": energies.num_sample,
    }


def _physics(result: PhysicsDistances) -> dict[str, Any]:
    found: dict[str, Any] = {
        "reason": result.reason,
        "num_features": result.num_features,
        "recommended_showers": RECOMMENDED_SHOWERS,
        "fpd_protocol": asdict(result.frechet),
        "kpd_protocol": asdict(result.kernel),
    }
    for name, metric, whole in (
        ("fpd", result.fpd, result.fpd_all),
        ("kpd", result.kpd, result.kpd_all),
    ):
        if metric is None or whole is None:
            found[name] = None
            continue
        found |= metric_data(name, metric)
        found[f"{name}_all_showers"], found[f"{name}_all_showers_error"] = map(rounded, whole)
    return found


def _neighbours(result: NeighbourResult) -> dict[str, Any]:
    return {
        "num_showers": result.num_showers,
        "num_neighbours": result.protocol.num_neighbours,
        "max_showers": result.protocol.max_showers,
        "reason": result.reason,
        "shares": None
        if result.shares is None
        else {
            name: {key: rounded(value) for key, value in asdict(share).items()}
            | {"significance": rounded(share.significance)}
            for name, share in result.shares.items()
        },
    }
