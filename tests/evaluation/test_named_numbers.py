"""Numbers by name, conditions on them, and what changed between two results."""

from __future__ import annotations

import copy
import json

import judged
import pytest

from calo_train.errors import ConditionMet, DataError, UsageError
from calo_train.evaluation.changes import as_text, compare_metrics
from calo_train.evaluation.conditions import parse_condition, require_none_holds
from calo_train.evaluation.metrics import metrics_of
from calo_train.evaluation.named_numbers import read_metrics, values_of


@pytest.fixture(scope="module")
def metrics():
    return metrics_of(judged.judge(*judged.independent_pair(200)))


@pytest.fixture(scope="module")
def worse():
    """The same reference, and a sample with two per cent more energy."""
    sample, reference = judged.independent_pair(200)
    return metrics_of(judged.judge(judged.changed(sample, sample.energies * 1.02), reference))


@pytest.mark.parametrize(
    "name", ["observables.num_hits.separation", "num_hits.separation", "num_hits.num_bins"]
)
def test_a_number_is_found_by_its_path_and_by_any_unique_end(metrics, name):
    expected = metrics["samples"][0]["observables"]["num_hits"][name.rpartition(".")[2]]
    assert values_of(metrics, name) == {"sample": expected}


def test_the_auc_of_a_classifier_has_a_short_name(metrics):
    found = copy.deepcopy(metrics)
    found["samples"][0]["classifiers"] = {"low": {"auc": 0.7}, "high": {"auc": 0.6}}
    assert values_of(found, "auc_low") == {"sample": 0.7}
    with pytest.raises(UsageError) as caught:
        values_of(found, "auc_lo")
    assert "nearest: auc_low" in caught.value.do


def test_numbers_beside_the_samples_have_no_label(metrics):
    assert values_of(metrics, "settings.threshold") == {"": judged.THRESHOLD}


def test_ambiguous_and_unknown_names_list_what_they_could_be(metrics):
    with pytest.raises(UsageError, match="may mean") as caught:
        values_of(metrics, "separation")
    assert "say which: observables." in caught.value.do
    with pytest.raises(UsageError, match="no number") as caught:
        values_of(metrics, "num_hit.separation")
    assert "num_hits.separation" in caught.value.do


def test_a_number_that_could_not_be_given_is_not_passed_over(metrics):
    broken = copy.deepcopy(metrics)
    broken["samples"][0]["observables"]["num_hits"]["separation"] = None
    with pytest.raises(DataError, match="could not be given"):
        values_of(broken, "num_hits.separation")


@pytest.mark.parametrize(
    ("sign", "shift", "is_met"),
    [("<", 1, True), ("<", 0, False), ("<=", 0, True), (">", 0, False), (">", -1, True),
     (">=", 0, True), (">=", 1, False)],
)  # fmt: skip
def test_conditions_hold_as_written(metrics, tmp_path, sign, shift, is_met):
    value = metrics["settings"]["repetitions"]
    condition = parse_condition(f" settings.repetitions {sign} {value + shift} ")
    if is_met:
        with pytest.raises(ConditionMet, match=f"settings.repetitions{sign}") as caught:
            require_none_holds([condition], metrics, tmp_path)
        assert caught.value.exit_code == 6
    else:
        require_none_holds([condition], metrics, tmp_path)


@pytest.mark.parametrize("text", ["auc", "auc=1", "auc>", ">1", "auc>nan", "auc>high", "a>1>2"])
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(UsageError, match="not a condition"):
        parse_condition(text)


def test_a_result_against_itself_is_unchanged(metrics):
    (sample,) = compare_metrics(metrics, metrics)
    assert len(sample.changes) > len(metrics["samples"][0]["observables"])
    assert {change.verdict for change in sample.changes} == {"unchanged"}
    assert not sample.only_old
    assert not sample.only_new


def test_two_per_cent_more_energy_is_worse_and_the_way_back_is_better(metrics, worse):
    (there,), (back,) = compare_metrics(metrics, worse), compare_metrics(worse, metrics)
    assert there.changes[0].name.startswith("observables.visible_fraction")
    assert there.changes[0].verdict == "worse"
    assert back.changes[0].verdict == "better"
    assert there.changes[0].significance == -back.changes[0].significance
    assert "worse   observables.visible_fraction.wasserstein" in as_text((there,))


def test_the_deviation_is_that_of_both_values(metrics, worse):
    (sample,) = compare_metrics(metrics, worse)
    change = next(c for c in sample.changes if c.name == "observables.visible_fraction.separation")
    entries = [m["samples"][0]["observables"]["visible_fraction"] for m in (metrics, worse)]
    excess = [abs(entry["separation"] - entry["separation_floor"]) for entry in entries]
    deviations = [
        max(entry["separation_error"], entry["separation_floor_error"]) for entry in entries
    ]
    expected = (excess[1] - excess[0]) / (deviations[0] ** 2 + deviations[1] ** 2) ** 0.5
    assert change.significance == pytest.approx(expected)


@pytest.mark.parametrize(
    ("block", "name", "value", "words"),
    [
        ("settings", "seed", 7, "settings.seed: 0 and 7"),
        ("settings", "matched_showers", 5, "settings.matched_showers: 100 and 5"),
        ("reference", "fingerprint", "0", "other references"),
        ("geometry", "num_layers", 1, "other detectors"),
    ],
)
def test_results_by_other_references_or_settings_are_refused(metrics, block, name, value, words):
    other = copy.deepcopy(metrics)
    other[block][name] = value
    with pytest.raises(DataError) as caught:
        compare_metrics(metrics, other)
    assert words in caught.value.what


def test_samples_are_paired_by_label(metrics):
    several = copy.deepcopy(metrics)
    several["samples"] = [
        {**copy.deepcopy(metrics["samples"][0]), "label": label} for label in ("a", "sample")
    ]
    (pair,) = compare_metrics(several, metrics | {"samples": metrics["samples"] * 1})
    assert (pair.old_label, pair.new_label) == ("sample", "sample")
    several["samples"].pop()
    several["samples"] *= 2
    with pytest.raises(DataError, match="no sample of one is in the other"):
        compare_metrics(several, metrics)


def test_another_schema_is_refused(metrics, tmp_path):
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(metrics))
    assert read_metrics(tmp_path) == read_metrics(file)
    for change, words in (({"schema": "x"}, "no metrics"), ({"schema_version": 1}, "is 1")):
        file.write_text(json.dumps(metrics | change))
        with pytest.raises(DataError, match=words):
            read_metrics(file)
    file.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_metrics(file)
