"""E11: metrics.json is a contract."""

from __future__ import annotations

import json
from importlib.resources import files

import judged
import pytest
import structure

from calo_train.evaluation.floor import MAX_SIGNIFICANCE, verdict_of
from calo_train.evaluation.metrics import metrics_of
from calo_train.evaluation.report_folder import as_json
from calo_train.evaluation.terminal import summary

SCHEMA = json.loads(
    files("calo_train.evaluation").joinpath("metrics.schema.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("protocol", [judged.NO_CLASSIFIER, judged.TINY])
def test_metrics_have_the_structure_of_the_schema(protocol):
    evaluation = judged.judge(*judged.independent_pair(100), protocol=protocol)
    metrics = json.loads(as_json(metrics_of(evaluation)))
    structure.require(metrics, SCHEMA, SCHEMA)
    assert (metrics["samples"][0]["classifier"] is None) == (protocol.num_runs == 0)
    assert bool(metrics["samples"][0]["classifiers"]) == (protocol.num_runs > 0)


def test_every_distance_stands_beside_its_floor_and_is_judged_by_it():
    """E1: at one number of showers, and what is compatible with the floor is called so."""
    sample, reference = judged.independent_pair(200)
    scaled = judged.changed(sample, sample.energies * 1.05)
    metrics = metrics_of(judged.judge(scaled, reference))
    assert metrics["settings"]["matched_showers"] == 100
    (found,) = metrics["samples"]
    entries = found["observables"] | found["details"] | found["layers"]
    for name, entry in entries.items():
        for distance in ("separation", "wasserstein", "chi2"):
            if distance not in entry:
                continue
            excess = entry[distance] - entry[f"{distance}_floor"]
            spread = entry[f"{distance}_floor_error"]
            expected = max(-MAX_SIGNIFICANCE, min(excess / spread, MAX_SIGNIFICANCE))
            assert entry[f"{distance}_significance"] == pytest.approx(
                expected,
                rel=1e-6,
                abs=1e-6,  # ten digits of both are kept
            ), name
            assert entry[f"{distance}_error"] > 0
        assert entry["verdict"] == verdict_of(entry["significance"])
    assert found["observables"]["visible_fraction"]["verdict"] == "above 3 sigma"
    assert found["observables"]["centre_of_gravity_x"]["verdict"] != "above 3 sigma"


def test_the_schema_refuses_what_it_does_not_know():
    """The check itself can fail."""
    metrics = metrics_of(judged.judge(*judged.independent_pair(60)))
    for broken in (
        metrics | {"extra": 1},
        {name: value for name, value in metrics.items() if name != "settings"},
        metrics | {"schema_version": 1},
        metrics | {"warnings": [3]},
    ):
        with pytest.raises(AssertionError):
            structure.require(broken, SCHEMA, SCHEMA)


def test_two_runs_are_equal_but_for_their_durations():
    pair = judged.independent_pair(200)
    first, second = (metrics_of(judged.judge(*pair, protocol=judged.TINY)) for _ in range(2))
    first.pop("durations")
    second.pop("durations")
    assert as_json(first) == as_json(second)


def test_another_seed_gives_other_halves():
    pair = judged.independent_pair(200)
    first, second = (
        metrics_of(judged.judge(*pair, seed=seed))["samples"][0]["observables"]["visible_energy"]
        for seed in (0, 1)
    )
    assert first["separation"] != second["separation"]
    assert first["separation_all_showers"] == second["separation_all_showers"]


def test_terminal_summary_carries_the_same_verdicts():
    sample, reference = judged.independent_pair(200)
    sample = judged.changed(sample, sample.energies * 1.1)
    metrics = metrics_of(judged.judge(sample, reference, protocol=judged.TINY))
    text = summary(metrics)
    for entry in metrics["samples"][0]["observables"].values():
        line = next(line for line in text.splitlines() if line.startswith(f"  {entry['title']} "))
        assert line.endswith(entry["verdict"])
    assert "differs most: visible over incident energy (above 3 sigma)" in text
