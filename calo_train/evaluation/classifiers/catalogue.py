"""Classifiers by name: the published protocols, and reduced ones for a plain report.

Official: the CaloChallenge's (2410.21611), float64, 2048 hidden units or a 3-D ResNet, 50 epochs,
10 trainings on all showers. Reduced: scaled inputs, 512 units, fewer epochs that end early, 3
trainings. App. C
of L2LFlows (2302.11594) has no printed widths, rates and epochs; they are the authors' later ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from calo_train.errors import UsageError
from calo_train.evaluation.classifiers.protocol import (
    InputKind,
    NetworkKind,
    Protocol,
    ScalingKind,
)
from calo_train.evaluation.official import official_dataset

if TYPE_CHECKING:
    from calo_train.geometry import Geometry

MULTI = "multi"
NONE = "none"
_OFFICIAL = Protocol(
    hidden=(2048, 2048, 2048), num_outputs=1, learning_rate=2e-4, batch_size=1000, num_epochs=50,
    num_runs=10, max_showers=None, uses_all=True, is_calibrated=True, dtype="float64",
)  # fmt: skip
_REDUCED = replace(
    _OFFICIAL, hidden=(512, 512, 512), learning_rate=1e-3, batch_size=256, num_epochs=20,
    patience=6, num_runs=3, max_showers=5_000, uses_all=False, is_reduced=True, dtype="float32",
)  # fmt: skip
_KINDS: dict[str, tuple[InputKind, NetworkKind]] = {
    "low": ("low", "dense"),
    "low_normed": ("low_normed", "dense"),
    "high": ("high", "dense"),
    "resnet": ("low", "resnet"),
}
# 80,000 showers train, 20,000 select, 21,000 or 20,800 test
_SHARES = {"1-photons": (80 / 121, 20 / 121), "1-pions": (80 / 120.8, 20 / 120.8)}

NAMES = ("l2lflows", *_KINDS, MULTI, NONE)
PLAIN = ("l2lflows", "high", MULTI)
FULL = ("low", "high", "resnet", MULTI)


def protocol_of(name: str, geometry: Geometry, *, is_full: bool) -> Protocol:
    """Give a classifier's protocol; UsageError for a ResNet on layers of different grids."""
    if name == "l2lflows":
        return Protocol() if is_full else _reduced_l2lflows()
    inputs, network = _KINDS[name]
    if network == "resnet" and not geometry.is_regular:
        raise UsageError(
            "the ResNet classifier needs layers of one grid",
            where=f"--classifier {name}: {geometry.describe()}",
            do="leave it out, or use --classifier low",
        )
    base = _OFFICIAL if is_full else _REDUCED
    dataset = official_dataset(geometry)
    shares = _SHARES.get(dataset.name if dataset is not None else "", (0.6, 0.2))
    scaling: ScalingKind = "none"
    if not is_full:
        scaling = "whitened" if inputs == "high" else "blocks"
    return replace(
        base, name=name, inputs=inputs, network=network, scaling=scaling,
        train_share=shares[0], validation_share=shares[1],
    )  # fmt: skip


@dataclass(frozen=True)
class ClassifierRequest:
    """Which classifiers were asked for, by name; without names the default ones.

    `num_runs` replaces the protocols' number of trainings; 0 leaves all classifiers out. Raises
    UsageError for names that are none.
    """

    names: tuple[str, ...] = ()
    is_full: bool = False
    num_runs: int | None = None

    def __post_init__(self) -> None:
        for name in self.names:
            _require_known(name)

    def protocols(self, geometry: Geometry) -> tuple[Protocol, ...]:
        """Give the protocols for a detector.

        Those among generators are called `multi` and, on a regular detector in full,
        `multi_resnet`.
        """
        wanted = dict.fromkeys(self.names or (FULL if self.is_full else PLAIN))
        if NONE in wanted or self.num_runs == 0:
            return ()
        if not self.names and not geometry.is_regular:
            wanted.pop("resnet", None)
        chosen = [
            protocol_of(name, geometry, is_full=self.is_full) for name in wanted if name != MULTI
        ]
        if MULTI in wanted:
            chosen += _multi_protocols(geometry, is_full=self.is_full)
        if self.num_runs is None:
            return tuple(chosen)
        return tuple(replace(protocol, num_runs=self.num_runs) for protocol in chosen)


def is_multi(protocol: Protocol) -> bool:
    """Tell whether a protocol is of the classifier among generators."""
    return protocol.name.startswith(MULTI)


def _multi_protocols(geometry: Geometry, *, is_full: bool) -> list[Protocol]:
    found = [replace(protocol_of("low", geometry, is_full=is_full), name=MULTI)]
    if is_full and geometry.is_regular:
        found.append(
            replace(protocol_of("resnet", geometry, is_full=True), name=f"{MULTI}_resnet")
        )
    return found


def _reduced_l2lflows() -> Protocol:
    return Protocol(batch_size=128, num_epochs=8, patience=3, max_showers=5_000, is_reduced=True)


def _require_known(name: str) -> None:
    if name in NAMES:
        return
    near = get_close_matches(name, NAMES, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(
        f"no classifier is called '{name}'",
        where=f"--classifier {name}",
        do=f"{hint}choose from {', '.join(NAMES)}",
    )
