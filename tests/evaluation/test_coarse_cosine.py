"""Cosines of neighbouring layers inside coarse voxels, by a loop over their definition."""

from __future__ import annotations

import detectors
import judged
import numpy as np
import pytest

from calo_train.errors import UsageError
from calo_train.evaluation.coarse_cosine import EDGES, CoarseCells, CoarseCosine
from calo_train.evaluation.comparison import evaluate
from calo_train.evaluation.metrics import metrics_of
from calo_train.evaluation.results import Settings
from calo_train.geometry import Axis, Geometry, Layer

A, B = "r=1,alpha=2,z=5", "r=3,alpha=4,z=1"  # 2308.11700
FLOAT32_SUM_RTOL = 1e-6


@pytest.fixture
def polar_detector() -> Geometry:
    """Ten layers of 8 angular and 3 radial cells."""
    axes = (
        Axis("alpha", tuple(np.linspace(-np.pi, np.pi, 9)), "rad", is_periodic=True),
        Axis("r", (0.0, 5.0, 10.0, 15.0), "mm"),
    )
    return Geometry("polar", tuple(Layer(axes, 3.4 * index, 3.4) for index in range(10)))


@pytest.fixture
def showers(polar_detector):
    return judged.smooth_showers(polar_detector, 6, seed=0)


def naive_cosines(shower: np.ndarray, sizes: tuple[int, int, int]) -> list[float]:
    """Loop over coarse voxels of `sizes` layers, alpha and r of a shower (layers, alpha, r)."""
    joined, by_alpha, by_r = sizes
    found = []
    for layer in range(len(shower) - 1):
        if joined > 1 and layer // joined != (layer + 1) // joined:
            continue
        for alpha in range(0, shower.shape[1], by_alpha):
            for r in range(0, shower.shape[2], by_r):
                place = slice(alpha, alpha + by_alpha), slice(r, r + by_r)
                first, second = shower[layer][place].ravel(), shower[layer + 1][place].ravel()
                norm = np.linalg.norm(first) * np.linalg.norm(second)
                found.append(first @ second / norm if norm else np.nan)
    return found


@pytest.mark.parametrize(("text", "sizes"), [(A, (5, 2, 1)), (B, (1, 4, 3))])
def test_cosines_equal_a_loop_over_coarse_voxels(text, sizes, polar_detector, showers):
    cosine = CoarseCosine.of(CoarseCells.parse(text), polar_detector)
    energies = showers.energies
    energies[0] = 0  # nothing is defined in an empty shower
    values = cosine.values(energies)
    for shower, row in zip(energies, values, strict=True):
        expected = naive_cosines(shower.astype(np.float64).reshape(10, 8, 3), sizes)
        np.testing.assert_allclose(np.sort(row), np.sort(expected), rtol=FLOAT32_SUM_RTOL)
    for row, counts in zip(values, cosine.counts(energies), strict=True):
        defined = row[~np.isnan(row)]
        np.testing.assert_array_equal(counts[:-1], np.histogram(defined, EDGES)[0])
        assert counts[-1] == len(row) - len(defined)


def test_layers_shuffled_inside_coarse_voxels_are_seen_by_their_cosine(polar_detector):
    """Energies of coarse voxels stay as they are, so only what lies inside can tell."""
    random = np.random.default_rng(5)
    sample, reference = (judged.smooth_showers(polar_detector, 200, seed) for seed in (1, 2))
    shapes = random.gamma(0.3, size=(400, 1, 8, 3))  # the same in all layers of a shower
    for showers, shape in ((sample, shapes[:200]), (reference, shapes[200:])):
        showers.energies.reshape(200, 10, 8, 3)[:] *= shape
    halves = sample.energies.reshape(200, 10, 4, 2, 3)
    swapped = np.where(random.random((200, 10, 4, 1, 3)) < 0.5, halves, halves[:, :, :, ::-1])
    settings = Settings(0.0, repetitions=10, classifiers=(), coarse=(CoarseCells.parse(A),))
    found = evaluate(
        [
            judged.shower_set(judged.changed(sample, swapped.reshape(200, -1))),
            judged.shower_set(sample),
        ],
        judged.shower_set(reference, "reference"),
        settings,
    )
    metrics = metrics_of(found)
    assert metrics["settings"]["coarse"] == [A]
    name = "layer_cosine_in_r1_alpha2_z5"
    shuffled, same = (entry["observables"][name] for entry in metrics["samples"])
    assert shuffled["verdict"] == "above 3 sigma"
    assert same["separation_significance"] < 4  # false alarm below 1e-4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("r=1,alpha", "r=1,alpha=2,z=5"),
        ("r=0", "no choice"),
        ("x=2", "no axis 'x'"),
        ("num_layers=2", "no axis 'num_layers'"),
        ("alpha=3", "groups of 3"),
    ],
)
def test_what_is_no_choice_of_coarse_voxels_is_refused(text, words, polar_detector):
    with pytest.raises(UsageError) as caught:
        CoarseCosine.of(CoarseCells.parse(text), polar_detector)
    assert words in f"{caught.value.what} {caught.value.do}"


def test_ragged_layers_share_no_coarse_voxels():
    ragged = detectors.ragged()
    layers = [ragged.layers[0], ragged.layers[-1]]
    assert layers[0].axes != layers[1].axes
    with pytest.raises(UsageError, match="no two neighbouring layers"):
        CoarseCosine.of(CoarseCells.parse("z=1"), Geometry("two", tuple(layers)))
