"""Classifiers: published sizes, chance where there is nothing to see, seeds, what they name."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import detectors
import judged
import numpy as np
import pytest
import test_official
import torch

from calo_train.errors import MachineError, UsageError
from calo_train.evaluation.classifiers import memory
from calo_train.evaluation.classifiers.attribution import integrated_gradients
from calo_train.evaluation.classifiers.catalogue import ClassifierRequest, protocol_of
from calo_train.evaluation.classifiers.inputs import (
    INCIDENT,
    VoxelScale,
    input_columns,
    num_inputs,
    voxel_inputs,
)
from calo_train.evaluation.classifiers.networks import build_network
from calo_train.evaluation.classifiers.pairwise import judge_training
from calo_train.evaluation.classifiers.protocol import Protocol
from calo_train.evaluation.classifiers.scaling import scaling_of
from calo_train.evaluation.classifiers.training import (
    Trained,
    log_odds,
    split_classes,
    train_network,
)
from calo_train.evaluation.comparison import evaluate
from calo_train.evaluation.deposits import Grid
from calo_train.evaluation.figures import classifiers as figures
from calo_train.evaluation.metrics import metrics_of
from calo_train.evaluation.results import Evaluation, Settings
from calo_train.geometry import Geometry, Layer
from calo_train.progress import Progress
from calo_train.showers.showers import Showers

SCALE = VoxelScale(threshold=0.5, mean_hit=2.0)
HIGH = replace(
    judged.TINY, name="high", inputs="high", scaling="whitened", num_outputs=1, hidden=(32,),
    num_epochs=12, batch_size=64, is_calibrated=True, num_runs=1,
)  # fmt: skip


def train(sample: Showers, reference: Showers, seed: int = 0, protocol=judged.TINY) -> Trained:
    inputs = [
        torch.from_numpy(voxel_inputs("voxels", showers, SCALE)) for showers in (sample, reference)
    ]
    with Progress("test", protocol.num_epochs, unit="epochs") as progress:
        return train_network(
            inputs, protocol, Grid.of(sample.geometry), seed=seed, progress=progress
        )


def auc_of(*arguments, **options) -> float:
    return judge_training(train(*arguments, **options), judged.TINY).auc


def with_dead_layer(showers: Showers, layer: int) -> Showers:
    energies = showers.energies.copy()
    energies[:, showers.geometry.layer_slices[layer]] = 0
    return judged.changed(showers, energies)


def weights_of(protocol: Protocol, inputs: int, geometry) -> int:
    return sum(w.numel() for w in build_network(inputs, protocol, geometry).parameters())


def test_number_of_weights_is_that_of_l2lflows():
    """3000 voxels and the incident energy: 1,869,538 weights (2302.11594)."""
    assert weights_of(Protocol(), 3001, detectors.cartesian()) == 1_869_538


@pytest.mark.parametrize(
    ("dataset", "name", "inputs", "weights"),
    [
        ("1-photons", "low", 369, 9_152_513),
        ("1-photons", "low_normed", 374, None),
        ("1-photons", "high", 30, None),
        ("1-pions", "low", 534, 9_490_433),
        ("1-pions", "low_normed", 541, None),
        ("1-pions", "high", 46, None),
        ("2", "low", 6481, 21_669_889),
        ("2", "low_normed", 6526, None),
        ("2", "high", 362, 9_138_177),
        ("2", "resnet", 6481, 2_516_644),
        ("3", "low", 40501, 91_342_849),
        ("3", "low_normed", 40546, None),
        ("3", "high", 362, None),
    ],
)
def test_official_classifiers_have_the_published_size(dataset, name, inputs, weights):
    """Inputs and weights of the CaloChallenge (2410.21611)."""
    geometry = test_official.geometry_of(dataset)
    protocol = protocol_of(name, geometry, is_full=True)
    assert num_inputs(protocol.inputs, Grid.of(geometry)) == inputs
    if weights is not None:
        assert weights_of(protocol, inputs, geometry) == weights


@pytest.mark.parametrize(
    ("dataset", "size", "expected"),
    [
        ("1-photons", 121_000, (80_000, 20_000, 21_000)),
        ("1-pions", 120_800, (80_000, 20_000, 20_800)),
        ("2", 100_000, (60_000, 20_000, 20_000)),
    ],
)
def test_official_classifiers_split_as_published(dataset, size, expected):
    protocol = protocol_of("high", test_official.geometry_of(dataset), is_full=True)
    split = split_classes([size], protocol, torch.Generator().manual_seed(0))
    assert tuple(map(len, (split.train, split.selection, split.test))) == expected


def one_layer_showers(energies, incident) -> Showers:
    geometry = detectors.single_voxel()
    conditions = {"incident_energy": np.array(incident, dtype=np.float32)}
    return Showers(np.array(energies, dtype=np.float32), conditions, geometry)


def test_voxels_are_thresholded_and_stand_before_the_scaled_logarithm_of_the_energy():
    showers = one_layer_showers([[0.4], [0.5], [6.0]], [10_000, 31_622.7766, 100_000])
    expected = [[0, -1], [0.25, 0], [3, 1]]
    np.testing.assert_allclose(
        voxel_inputs("voxels", showers, SCALE), expected, rtol=1e-5, atol=1e-6
    )


def test_low_inputs_are_by_the_official_formulas():
    """The voxels of `low_normed` are not thresholded, the layer's energy is."""
    showers = one_layer_showers([[0.4], [6.0]], [10, 1000])
    np.testing.assert_allclose(
        voxel_inputs("low", showers, SCALE), [[1, 0], [3, 0.006]], rtol=1e-6
    )
    small = float(np.float32(0.4))
    np.testing.assert_allclose(
        voxel_inputs("low_normed", showers, SCALE),
        [[1, small / 1e-16, math.log10(1e-8)], [3, 1, math.log10(6 + 1e-8)]],
        rtol=1e-6,
    )


def test_high_inputs_of_any_detector_are_named_by_observable_and_layer():
    columns = input_columns("high", Grid.of(detectors.ragged()))
    assert columns.observables[0] == INCIDENT
    assert columns.layers[1:5].tolist() == [0, 1, 2, 3]
    assert "layer_centroid_r" not in columns.observables
    assert "layer_centroid_r" in input_columns("high", Grid.of(detectors.polar())).observables


def test_equal_distributions_give_chance():
    """160 test showers a class: the AUC's deviation is 0.032 under equality; 4 of them."""
    assert auc_of(*judged.independent_pair(800)) == pytest.approx(0.5, abs=0.13)


def test_an_obvious_defect_is_seen():
    sample, reference = judged.independent_pair(800)
    assert auc_of(with_dead_layer(sample, 1), reference) > 0.95


def test_auc_rises_with_the_smearing_of_cells():
    sample, reference = judged.independent_pair(800)
    found = []
    for spread in (0.0, 1.0, 2.0, 4.0):
        random = np.random.default_rng(0)
        factors = random.lognormal(0.0, spread, sample.energies.shape)
        found.append(auc_of(judged.changed(sample, sample.energies * factors), reference))
    assert found == sorted(found)
    assert found[-1] > 0.95


def test_seeds_decide_the_result():
    sample, reference = judged.independent_pair(200)
    first = train(sample, reference, seed=3)
    torch.manual_seed(99)
    again, other = train(sample, reference, seed=3), train(sample, reference, seed=4)
    scores = [trained.scores(trained.split.test) for trained in (first, again, other)]
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


def test_the_split_is_the_same_whatever_the_batch():
    """E7"""
    sample, reference = judged.independent_pair(100)
    splits = [
        train(sample, reference, protocol=replace(judged.TINY, batch_size=size)).split
        for size in (7, 64)
    ]
    for name in ("train", "selection", "test"):
        assert torch.equal(getattr(splits[0], name), getattr(splits[1], name))
    rows = torch.cat([splits[0].train, splits[0].selection, splits[0].test])
    assert torch.equal(rows.sort().values, torch.arange(200))


def test_training_leaves_the_global_random_state_alone():
    sample, reference = judged.independent_pair(100)
    before = torch.random.get_rng_state()
    train(sample, reference)
    assert torch.equal(before, torch.random.get_rng_state())


def test_integrated_gradients_sum_to_the_difference_of_log_odds():
    """Completeness, to the error of the midpoint rule on a network of straight pieces."""
    sample, reference = judged.independent_pair(200)
    trained = train(with_dead_layer(sample, 1), reference)
    inputs, baseline = trained.inputs[:50], trained.inputs.mean(dim=0)
    found = integrated_gradients(trained, inputs, baseline).sum(dim=1)
    with torch.no_grad():
        ends = log_odds(trained.network(inputs)) - log_odds(trained.network(baseline[None]))
    torch.testing.assert_close(found, ends.double(), rtol=0.05, atol=0.05)


@functools.cache
def judged_dead_layer(protocol: Protocol) -> Evaluation:
    sample, reference = judged.independent_pair(1000)
    return judged.judge(with_dead_layer(sample, 5), reference, protocol=protocol)


@pytest.mark.parametrize("protocol", [HIGH, judged.TINY], ids=["high", "voxels"])
def test_a_dead_layer_is_named(protocol):
    """E3, E7: by what the classifier used, and the surest showers are shown."""
    evaluation = judged_dead_layer(protocol)
    insight = evaluation.samples[0].classifiers[0].insight
    assert insight.attribution.top_layer == 5
    assert len(insight.sample.energies) == 3
    dead = evaluation.reference.geometry.layer_slices[5]
    assert (insight.sample.energies[:, dead] == 0).all()
    assert (insight.reference.energies[:, dead].sum(axis=1) > 0).all()
    assert insight.sample.scores.max() < 0.5 < insight.reference.scores.min()
    expected = evaluation.samples[0].table.incident_energy[insight.sample.positions]
    np.testing.assert_array_equal(insight.sample.incident_energy, expected)


def test_figures_hold_the_numbers_of_the_classifiers():
    evaluation = judged_dead_layer(HIGH)
    result = evaluation.samples[0].classifiers[0]
    found = {
        figure.name: figure.numbers
        for draw in (
            figures.roc_figures,
            figures.calibration_figures,
            figures.attribution_figures,
            figures.surest_figures,
        )
        for figure in draw(evaluation, "Classifiers")
    }
    roc = found["classifiers_roc"]
    area = np.mean((roc["high"][1:] + roc["high"][:-1]) / 2)  # steps of 1 %
    assert area == pytest.approx(result.auc[0], abs=0.02)
    assert sum(found["classifiers_calibration"]["num_showers"]) == 2 * result.num_test
    saw = found["classifier_high_saw"]
    assert saw["name"][np.argmax(saw["importance"][:12])] == "5"
    surest = found["classifier_high_surest"]
    drawn = np.sum(surest["energy"][~surest["is_reference"]])
    assert drawn == pytest.approx(result.insight.sample.energies.sum(), rel=1e-6)


def test_three_per_cent_more_energy_is_named():
    """E3: energies alone tell; the incident energy is given and never blamed."""
    sample, reference = judged.independent_pair(600, width=0.005)
    scaled = judged.changed(sample, sample.energies * 1.03)
    result = judged.judge(scaled, reference, protocol=HIGH).samples[0].classifiers[0]
    assert result.significance > 3
    assert result.insight.attribution.top_observable in ("layer_energy", "visible_energy")


def three_way(first_scale: float, second_scale: float) -> Evaluation:
    geometry = judged.deep_detector()
    showers = [judged.smooth_showers(geometry, 500, seed=seed) for seed in (1, 2, 3)]
    scales = (first_scale, second_scale, 1.0)
    changed = [judged.changed(s, s.energies * c) for s, c in zip(showers, scales, strict=True)]
    sets = [
        judged.shower_set(s, label)
        for s, label in zip(changed, ("far", "near", "reference"), strict=True)
    ]
    protocol = replace(HIGH, name="multi", num_runs=2)
    settings = Settings(judged.THRESHOLD, repetitions=5, classifiers=(protocol,))
    return evaluate(sets[:2], sets[2], settings)


def test_the_reference_looks_like_the_nearer_generator():
    (found,) = three_way(1.5, 1.0).multi
    assert found.ranking == ("near", "far")
    posteriors = found.posteriors.mean(axis=0)
    assert posteriors[1] > 0.6
    assert posteriors.sum() == pytest.approx(1.0)
    assert found.chance == pytest.approx(-math.log(2))


def test_equal_generators_share_the_posterior():
    (found,) = three_way(1.0, 1.0).multi
    np.testing.assert_allclose(found.posteriors.mean(axis=0), 0.5, atol=0.1)
    assert found.log_posteriors.mean() == pytest.approx(found.floors.mean(), abs=0.1)


def test_classifiers_are_chosen_by_name():
    geometry = detectors.cartesian()

    def names(request: ClassifierRequest, where=geometry) -> list[str]:
        return [protocol.name for protocol in request.protocols(where)]

    assert names(ClassifierRequest()) == ["l2lflows", "high", "multi"]
    assert names(ClassifierRequest(is_full=True)) == [
        "low", "high", "resnet", "multi", "multi_resnet",
    ]  # fmt: skip
    assert names(ClassifierRequest(is_full=True), detectors.ragged()) == ["low", "high", "multi"]
    assert names(ClassifierRequest(("resnet", "low", "resnet"))) == ["resnet", "low"]
    assert names(ClassifierRequest(("none",))) == names(ClassifierRequest(num_runs=0)) == []
    assert all(p.is_reduced for p in ClassifierRequest().protocols(geometry))
    with pytest.raises(UsageError, match="low_normed"):
        ClassifierRequest(("low_norm",))
    with pytest.raises(UsageError, match="one grid"):
        ClassifierRequest(("resnet",)).protocols(detectors.ragged())


def test_resnet_runs_on_small_detectors_and_on_a_batch_of_one_more():
    sample, reference = judged.independent_pair(51)
    protocol = protocol_of("resnet", sample.geometry, is_full=False)
    protocol = replace(protocol, num_runs=1, num_epochs=1, batch_size=10)
    result = judged.judge(sample, reference, protocol=protocol).samples[0].classifiers[0]
    assert 0 <= result.auc[0] <= 1


def test_whitened_inputs_are_uncorrelated_with_unit_deviation_and_constants_are_left_out():
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 4, generator=random)
    inputs[:, 1] = 10 * inputs[:, 0] + 0.1 * inputs[:, 1]
    inputs[:, 3] = 7.0
    scaling = scaling_of(inputs, torch.arange(400), ("a", "b", "c", "d"), HIGH)
    found = scaling(inputs[:400].double())
    assert scaling.num_outputs == 3
    torch.testing.assert_close(found.T @ found / 400, torch.eye(3).double(), rtol=0, atol=1e-6)


def test_inputs_of_one_observable_share_a_scale():
    inputs = torch.tensor([[1.0, 10.0, 0.0, 5.0], [3.0, 10.0, 4.0, 5.0]])
    protocol = replace(HIGH, scaling="blocks")
    scaling = scaling_of(inputs, torch.arange(2), ("a", "b", "b", "c"), protocol)
    expected = torch.tensor([[-1, 0, -math.sqrt(2), 0], [1, 0, math.sqrt(2), 0]]).double()
    torch.testing.assert_close(scaling(inputs.double()), expected)


def test_full_classifiers_of_data_set_3_are_refused_without_the_memory(monkeypatch):
    """Before any work: 2 x 100,000 showers of 40,501 inputs, in float32 and joined once more."""
    axes = (detectors.axis("alpha", 50, -3, 3), detectors.axis("r", 18, 0, 40))
    grid = Grid.of(Geometry("ds3", tuple(Layer(axes, 3.4 * i, 3.4) for i in range(45))))
    protocols = ClassifierRequest(("high", "low"), is_full=True).protocols(grid.geometry)
    needed = 8 * 2 * 100_000 * 40_501
    monkeypatch.setattr(memory, "free_host_memory", lambda: needed)
    memory.require_memory(protocols, grid, 100_000, [100_000])
    monkeypatch.setattr(memory, "free_host_memory", lambda: needed // 4)
    with pytest.raises(MachineError, match=r"classifier low needs 60\.4 GiB") as caught:
        memory.require_memory(protocols, grid, 100_000, [100_000])
    assert "-n 25000" in caught.value.do


def test_the_full_protocol_trains_every_classifier_as_often_as_asked():
    """All of `--full` on two samples: networks and epochs are cut down, nothing else is."""
    asked = ClassifierRequest(is_full=True, num_runs=2).protocols(detectors.polar())
    protocols = tuple(replace(entry, hidden=(8, 8, 8), num_epochs=1) for entry in asked)
    sets = [
        judged.shower_set(detectors.make_showers(detectors.polar(), 24, seed), str(seed))
        for seed in (1, 2, 3)
    ]
    settings = Settings(0.01, repetitions=3, classifiers=protocols)
    evaluation = evaluate(sets[:2], sets[2], settings)
    for sample in evaluation.samples:
        assert [found.name for found in sample.classifiers] == ["low", "high", "resnet"]
        for found in sample.classifiers:
            assert (len(found.sample_runs), len(found.floor_runs)) == (2, 2)
            assert found.num_per_class == 24  # the whole reference
            assert found.num_floor_per_class == 12
            assert not found.protocol.is_reduced
    assert [found.protocol.name for found in evaluation.multi] == ["multi", "multi_resnet"]
    classifiers = metrics_of(evaluation)["samples"][0]["classifiers"]
    assert all(entry["is_reduced"] is False for entry in classifiers.values())
