"""How one classifier is trained, as a value; `catalogue` holds those with a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

InputKind = Literal["voxels", "low", "low_normed", "high"]
NetworkKind = Literal["dense", "resnet"]
ScalingKind = Literal["none", "blocks", "whitened"]


@dataclass(frozen=True)
class Protocol:
    """How one classifier is trained; the same for sample and floor.

    With `uses_all` the sample is trained against all reference showers, and the floor, whose
    expectation is chance at any size, between halves. `patience` is epochs without a better
    selection accuracy after which training ends. `hidden` and `slope` are those of dense networks.
    """

    name: str = "l2lflows"
    inputs: InputKind = "voxels"
    network: NetworkKind = "dense"
    scaling: ScalingKind = "none"
    hidden: tuple[int, ...] = (512, 512, 128, 32)
    num_outputs: int = 2
    slope: float = 0.01  # of LeakyReLU
    learning_rate: float = 1e-3  # Adam
    batch_size: int = 512
    num_epochs: int = 30
    patience: int | None = None
    train_share: float = 0.6  # of each class; then selection, then test
    validation_share: float = 0.2
    num_runs: int = 3
    max_showers: int | None = 10_000  # a class; bounds memory and time on large files
    uses_all: bool = False
    is_calibrated: bool = False  # AUC of calibrated scores, as the CaloChallenge prints
    is_reduced: bool = False
    dtype: Literal["float32", "float64"] = "float32"
