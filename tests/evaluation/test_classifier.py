"""The classifier: the published size, chance where there is nothing to see, and seeds."""

from __future__ import annotations

import detectors
import judged
import numpy as np
import pytest
import torch

from calo_train.evaluation.classifier import (
    Protocol,
    VoxelScale,
    build_network,
    classifier_inputs,
    train_classifier,
)
from calo_train.progress import Progress
from calo_train.showers.showers import Showers

SCALE = VoxelScale(threshold=0.5, mean_hit=2.0)


def train(sample: Showers, reference: Showers, seed: int = 0):
    inputs = [classifier_inputs(showers, SCALE) for showers in (sample, reference)]
    with Progress("test", judged.TINY.num_epochs, unit="epochs") as progress:
        return train_classifier(inputs[0], inputs[1], judged.TINY, seed, progress)


def test_number_of_weights_is_that_of_the_paper():
    """3000 voxels and the incident energy: 1,869,538 weights."""
    network = build_network(3001, Protocol())
    assert sum(weights.numel() for weights in network.parameters()) == 1_869_538


def test_inputs_are_thresholded_voxels_and_the_scaled_logarithm_of_the_energy():
    geometry = detectors.single_voxel()
    energies = np.array([[0.4], [0.5], [6.0]], dtype=np.float32)
    incident = np.array([10_000, 31_622.7766, 100_000], dtype=np.float32)
    inputs = classifier_inputs(Showers(energies, {"incident_energy": incident}, geometry), SCALE)
    expected = [[0, -1], [0.25, 0], [3, 1]]
    torch.testing.assert_close(inputs, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_equal_distributions_give_chance():
    """160 test showers a class: the AUC's deviation is 0.032 under equality; 4 of them."""
    sample, reference = judged.independent_pair(800)
    assert train(sample, reference).auc == pytest.approx(0.5, abs=0.13)


def test_an_obvious_defect_is_seen():
    sample, reference = judged.independent_pair(800)
    dead = sample.energies.copy()
    dead[:, sample.geometry.layer_slices[1]] = 0
    assert train(judged.changed(sample, dead), reference).auc > 0.95


def test_seeds_decide_the_result():
    sample, reference = judged.independent_pair(200)
    first = train(sample, reference, seed=3)
    torch.manual_seed(99)
    assert train(sample, reference, seed=3) == first
    assert train(sample, reference, seed=4) != first


def test_training_leaves_the_global_random_state_alone():
    sample, reference = judged.independent_pair(100)
    before = torch.random.get_rng_state()
    train(sample, reference)
    assert torch.equal(before, torch.random.get_rng_state())
