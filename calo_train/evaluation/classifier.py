"""Can a network tell the sample from the reference: L2LFlows' classifier (2302.11594 App. C).

Fully connected, 512, 512, 128 and 32 hidden units with LeakyReLU 0.01, two outputs, cross entropy;
inputs are the thresholded voxels and 2 log10(E_inc / GeV) - 3. The paper does not print widths,
rates, batch and epochs; widths are the authors' later ones, the rest is stated in `Protocol`.
Voxels enter linearly, as there, in units of the reference's mean hit; on 750 showers a class a
logarithm saw less (layers exchanged between showers: AUC 0.57 against 0.95).

The floor is the same training between two halves of the reference, at the same number of showers
a class. Not here: calibration, ROC, attribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.evaluation.deposits import apply_threshold
from calo_train.quantities import MEV_PER_GEV

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor, nn

    from calo_train.evaluation.floor import Halves
    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.progress import Progress
    from calo_train.showers.showers import Showers

_SEED_OF_FLOOR = 1 << 20  # floor trainings take other seeds than those of the sample


@dataclass(frozen=True)
class Protocol:
    """How a classifier is trained; the same for sample and floor."""

    hidden: tuple[int, ...] = (512, 512, 128, 32)
    slope: float = 0.01  # of LeakyReLU
    learning_rate: float = 1e-3  # Adam
    batch_size: int = 512
    num_epochs: int = 30
    train_share: float = 0.6  # of each class; the rest is halved into validation and test
    validation_share: float = 0.2
    num_runs: int = 3
    max_showers: int = 10_000  # a class; bounds memory and time on large files
    dtype: str = "float32"


@dataclass(frozen=True)
class VoxelScale:
    """How voxels become inputs: the readout threshold and the reference's mean hit, both MeV."""

    threshold: float
    mean_hit: float


@dataclass(frozen=True)
class Training:
    """What one trained classifier reached on showers that it has not seen."""

    auc: float
    accuracy: float
    best_epoch: int


@dataclass(frozen=True)
class ClassifierResult:
    """AUC of sample against reference beside reference against reference, all runs."""

    sample_runs: tuple[Training, ...]
    floor_runs: tuple[Training, ...]
    num_per_class: int
    num_test: int  # a class

    @property
    def auc(self) -> tuple[float, float]:
        """Mean and standard deviation over runs."""
        return _mean_and_deviation(self.sample_runs)

    @property
    def floor(self) -> tuple[float, float]:
        """Mean and standard deviation over runs."""
        return _mean_and_deviation(self.floor_runs)

    @property
    def floor_error(self) -> float:
        """Spread of the floor: over runs, but not below that of a rank test on the test showers.

        sqrt((2 m + 1) / 12 m^2) is the deviation of an AUC of m against m equal showers.
        """
        m = self.num_test
        return max(self.floor[1], float(np.sqrt((2 * m + 1) / (12 * m**2))))

    @property
    def significance(self) -> float:
        """How many spreads of the floor the AUC lies above it."""
        return (self.auc[0] - self.floor[0]) / self.floor_error


def classify(
    sample: ShowerSet,
    reference: ShowerSet,
    splits: Sequence[Halves],
    protocol: Protocol,
    *,
    scale: VoxelScale,
    seed: int,
    progress: Progress,
) -> ClassifierResult:
    """Train `num_runs` classifiers of sample and floor, each on halves of its own.

    `splits` hold positions of valid showers in the two sets. `progress` counts epochs.
    """
    size = min(len(splits[0].first), protocol.max_showers)
    sample_runs, floor_runs = [], []
    for run in range(protocol.num_runs):
        halves = splits[run % len(splits)]
        base = _read(reference, halves.first[:size], scale)
        other = _read(sample, halves.sample[:size], scale)
        sample_runs.append(train_classifier(other, base, protocol, seed + run, progress))
        other = _read(reference, halves.second[:size], scale)
        floor_seed = seed + run + _SEED_OF_FLOOR
        floor_runs.append(train_classifier(other, base, protocol, floor_seed, progress))
    num_test = size - sum(_split_sizes(size, protocol))
    return ClassifierResult(tuple(sample_runs), tuple(floor_runs), size, num_test)


def train_classifier(
    sample: Tensor, reference: Tensor, protocol: Protocol, seed: int, progress: Progress
) -> Training:
    """Train one classifier on inputs (n, D) of either class and test it on held-out ones."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, protocol.dtype)
    random = torch.Generator().manual_seed(seed)
    train, validation, test = (
        (inputs.to(device, dtype), labels.to(device))
        for inputs, labels in _split(sample, reference, protocol, random)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(sample.shape[1], protocol).to(device, dtype)
    optimiser = torch.optim.Adam(network.parameters(), lr=protocol.learning_rate)
    best, best_epoch, best_weights = -1.0, 0, network.state_dict()
    for epoch in range(protocol.num_epochs):
        _train_epoch(network, optimiser, train, protocol.batch_size, random)
        accuracy = _accuracy(_scores(network, validation[0]), validation[1])
        if accuracy > best:
            best, best_epoch = accuracy, epoch
            best_weights = {name: value.clone() for name, value in network.state_dict().items()}
        progress.advance(1)
    network.load_state_dict(best_weights)
    scores = _scores(network, test[0])
    return Training(_auc(scores, test[1]), _accuracy(scores, test[1]), best_epoch)


def build_network(num_inputs: int, protocol: Protocol) -> nn.Sequential:
    """Build the classifier; two outputs, the second for the reference."""
    from torch import nn

    layers: list[nn.Module] = []
    for width in protocol.hidden:
        layers += [nn.Linear(num_inputs, width), nn.LeakyReLU(protocol.slope)]
        num_inputs = width
    return nn.Sequential(*layers, nn.Linear(num_inputs, 2))


def classifier_inputs(showers: Showers, scale: VoxelScale) -> Tensor:
    """Give inputs (n, voxels + 1) float32: thresholded voxels over the mean hit, then E_inc."""
    import torch

    inputs = np.empty((len(showers), showers.energies.shape[1] + 1), dtype=np.float32)
    kept = apply_threshold(showers.energies, scale.threshold)
    np.divide(kept, np.float32(scale.mean_hit), out=inputs[:, :-1])
    incident = showers.conditions["incident_energy"].astype(np.float64) / MEV_PER_GEV
    inputs[:, -1] = 2 * np.log10(incident) - 3
    return torch.from_numpy(inputs)


def _read(showers: ShowerSet, positions: npt.NDArray[np.int64], scale: VoxelScale) -> Tensor:
    return classifier_inputs(showers.gather(np.sort(positions)), scale)


def _split_sizes(size: int, protocol: Protocol) -> tuple[int, int]:
    return int(protocol.train_share * size), int(protocol.validation_share * size)


def _split(
    sample: Tensor, reference: Tensor, protocol: Protocol, random: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Split each class by one shuffle; labels are 0 for the sample and 1 for the reference."""
    import torch

    parts: list[list[Tensor]] = []
    for inputs in (sample, reference):
        order = torch.randperm(len(inputs), generator=random)
        num_train, num_validation = _split_sizes(len(inputs), protocol)
        ends = (num_train, num_train + num_validation)
        parts.append([inputs[rows] for rows in torch.tensor_split(order, ends)])
    return [
        (
            torch.cat(pair),
            torch.cat([torch.full((len(inputs),), label) for label, inputs in enumerate(pair)]),
        )
        for pair in zip(*parts, strict=True)
    ]


def _train_epoch(
    network: nn.Sequential,
    optimiser: torch.optim.Optimizer,
    data: tuple[Tensor, Tensor],
    batch_size: int,
    random: torch.Generator,
) -> None:
    import torch

    inputs, labels = data
    network.train()
    order = torch.randperm(len(inputs), generator=random).to(inputs.device)
    for rows in torch.split(order, batch_size):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(inputs[rows]), labels[rows])
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own gap
        optimiser.step()


def _scores(network: nn.Sequential, inputs: Tensor) -> Tensor:
    """Give the probability of the reference for inputs (n, D), (n,)."""
    import torch

    network.eval()
    with torch.no_grad():
        outputs = torch.cat([network(piece) for piece in torch.split(inputs, 4096)])
    return torch.softmax(outputs, dim=1)[:, 1].double().cpu()


def _accuracy(scores: Tensor, labels: Tensor) -> float:
    return float(((scores > 0.5).long() == labels.cpu()).double().mean())


def _auc(scores: Tensor, labels: Tensor) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels.cpu().numpy(), scores.numpy()))


def _mean_and_deviation(runs: Sequence[Training]) -> tuple[float, float]:
    values = np.asarray([run.auc for run in runs])
    return float(values.mean()), float(values.std())
