"""Showers in memory as a source, and small evaluations of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import detectors
import numpy as np

from calo_train.evaluation.classifiers.protocol import Protocol
from calo_train.evaluation.comparison import evaluate
from calo_train.evaluation.results import Evaluation, Settings
from calo_train.evaluation.shower_set import ShowerSet
from calo_train.geometry import Geometry, Layer
from calo_train.showers.showers import Showers

if TYPE_CHECKING:
    from collections.abc import Iterator


THRESHOLD = 0.5  # MeV
TINY = Protocol(hidden=(32, 16), num_epochs=8, batch_size=64, num_runs=2)
NO_CLASSIFIER = Protocol(num_runs=0)


@dataclass(frozen=True, eq=False)
class Memory:
    """A ShowerSource of showers that lie in memory, read in blocks of 37."""

    showers: Showers
    attributes: dict[str, Any] = field(default_factory=lambda: {"particle": "photon"})
    paths: tuple[Path, ...] = (Path("memory.h5"),)

    @property
    def geometry(self) -> Geometry:
        return self.showers.geometry

    @property
    def num_showers(self) -> int:
        return len(self.showers)

    @property
    def condition_names(self) -> tuple[str, ...]:
        return tuple(self.showers.conditions)

    def read(self, start: int, stop: int) -> Showers:
        return self.showers.rows(slice(start, stop))

    def blocks(self) -> Iterator[Showers]:
        for start in range(0, len(self.showers), 37):
            yield self.showers.rows(slice(start, start + 37))

    def fingerprint(self) -> str:
        return hashlib.sha256(self.showers.energies.tobytes()).hexdigest()


def shower_set(showers: Showers, label: str = "sample") -> ShowerSet:
    return ShowerSet(label, Memory(showers))  # type: ignore[arg-type]


def smooth_showers(geometry: Geometry, number: int, seed: int, *, width: float = 0.02) -> Showers:
    """Showers with a response of 2 % that fluctuates by `width`, spread over a share of voxels."""
    random = np.random.Generator(np.random.Philox(seed))
    incident = random.uniform(10_000, 100_000, number).astype(np.float32)
    shares = random.gamma(3.0, size=(number, geometry.num_voxels))
    # How many voxels are hit varies from shower to shower, as it does with the incident energy.
    shares *= random.random(shares.shape) < random.uniform(0.4, 1.0, (number, 1))
    shares /= shares.sum(axis=1, keepdims=True)
    response = 0.02 * random.normal(1, width, number).clip(0.1)
    energies = (incident * response)[:, None] * shares
    return Showers(energies.astype(np.float32), {"incident_energy": incident}, geometry)


def changed(showers: Showers, energies: np.ndarray) -> Showers:
    return Showers(energies.astype(np.float32), showers.conditions, showers.geometry)


def judge(
    sample: Showers, reference: Showers, *, protocol: Protocol = NO_CLASSIFIER, seed: int = 0
) -> Evaluation:
    return evaluate(
        [shower_set(sample)],
        shower_set(reference, "reference"),
        Settings(
            THRESHOLD,
            seed=seed,
            repetitions=30,
            classifiers=(protocol,) if protocol.num_runs else (),
        ),
    )


def deep_detector() -> Geometry:
    """Twelve equal layers of 4 x 4 cells."""
    axes = detectors.cartesian().layers[0].axes
    return Geometry("deep", tuple(Layer(axes, 5.0 * index, 5.0) for index in range(12)))


def independent_pair(number: int = 400, *, width: float = 0.02) -> tuple[Showers, Showers]:
    """Two samples of one law."""
    geometry = deep_detector()
    return (
        smooth_showers(geometry, number, seed=1, width=width),
        smooth_showers(geometry, number, seed=2, width=width),
    )
