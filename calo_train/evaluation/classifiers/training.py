"""Train one classifier of any number of classes on inputs of each, and keep its best epoch.

Each class is shuffled once and split into train, selection and test, whatever the batch size. The
epoch with the best accuracy on the selection set is kept, the first of equals; training ends at
an accuracy of 1, and after `patience` epochs without a better one where the protocol says so.
Runs on a GPU where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from calo_train.evaluation.classifiers.inputs import input_columns
from calo_train.evaluation.classifiers.networks import build_network
from calo_train.evaluation.classifiers.scaling import scaling_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.evaluation.classifiers.protocol import Protocol
    from calo_train.evaluation.deposits import Grid
    from calo_train.progress import Progress

_ROWS = 4096  # scored at once


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of the concatenated classes that train, select and test, (rows,) each."""

    train: Tensor
    selection: Tensor
    test: Tensor


@dataclass(frozen=True, eq=False)
class Trained:
    """A network with its best weights and the data that it was trained on.

    `inputs` (classes * n, D) float32 hold the classes one after the other, `labels` their index.
    """

    network: nn.Module
    inputs: Tensor
    labels: Tensor
    split: Split
    best_epoch: int

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def outputs(self, rows: Tensor) -> Tensor:
        """Give outputs (rows, outputs) of rows of `inputs`, in float64 on the CPU."""
        return outputs_of(self.network, self.inputs[rows])

    def scores(self, rows: Tensor) -> Tensor:
        """Give the probability of class 1 of two, (rows,)."""
        return torch.sigmoid(log_odds(self.outputs(rows)))


def train_network(
    classes: Sequence[Tensor],
    protocol: Protocol,
    grid: Grid,
    *,
    seed: int,
    progress: Progress,
    num_outputs: int | None = None,
) -> Trained:
    """Train on inputs (n, D) of each class; labels are their order. `progress` counts epochs."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    random = torch.Generator().manual_seed(seed)
    sizes = [len(inputs) for inputs in classes]
    inputs = torch.cat(list(classes)).to(device)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(device)
    split = split_classes(sizes, protocol, random)
    names = input_columns(protocol.inputs, grid).observables
    scaling = scaling_of(inputs, split.train.to(device), names, protocol)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(
            inputs.shape[1], protocol, grid.geometry, num_outputs=num_outputs, scaling=scaling
        )
    network = network.to(device, getattr(torch, protocol.dtype))
    trained = Trained(network, inputs, labels, split, 0)
    best_epoch = _fit(trained, protocol, random, progress)
    network.eval()
    return Trained(network, inputs, labels, split, best_epoch)


def split_classes(sizes: Sequence[int], protocol: Protocol, random: torch.Generator) -> Split:
    """Split each class by one shuffle of its own."""
    parts: list[list[Tensor]] = []
    start = 0
    for size in sizes:
        order = start + torch.randperm(size, generator=random)
        parts.append(list(torch.tensor_split(order, split_ends(size, protocol))))
        start += size
    return Split(*(torch.cat(pieces) for pieces in zip(*parts, strict=True)))


def split_ends(size: int, protocol: Protocol) -> tuple[int, int]:
    """Give where train and selection showers of a class end."""
    num_train = round(protocol.train_share * size)
    return num_train, num_train + round(protocol.validation_share * size)


def log_odds(outputs: Tensor) -> Tensor:
    """Give the logarithm of the odds of class 1, (n,), of one output or of two."""
    return outputs[:, 0] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0]


def outputs_of(network: nn.Module, inputs: Tensor) -> Tensor:
    """Evaluate inputs (n, D) a few at a time, (n, outputs) in float64 on the CPU."""
    network.eval()
    dtype = next(network.parameters()).dtype
    with torch.no_grad():
        pieces = [network(piece.to(dtype)) for piece in torch.split(inputs, _ROWS)]
    return torch.cat(pieces).double().cpu()


def accuracy_of(outputs: Tensor, labels: Tensor) -> float:
    """Give the share of rows whose likeliest class is theirs."""
    is_single = outputs.shape[1] == 1
    likeliest = (outputs[:, 0] > 0).long() if is_single else outputs.argmax(dim=1)
    return float((likeliest == labels.cpu()).double().mean())


def _fit(trained: Trained, protocol: Protocol, random: torch.Generator, progress: Progress) -> int:
    """Train in place, load the best weights and give their epoch."""
    network = trained.network
    optimiser = torch.optim.Adam(network.parameters(), lr=protocol.learning_rate)
    best, best_epoch, best_weights = -1.0, 0, network.state_dict()
    selection = trained.split.selection
    for epoch in range(protocol.num_epochs):
        _train_epoch(trained, optimiser, protocol.batch_size, random)
        accuracy = accuracy_of(trained.outputs(selection), trained.labels[selection])
        progress.advance(1)
        if accuracy > best:
            best, best_epoch = accuracy, epoch
            best_weights = {name: value.clone() for name, value in network.state_dict().items()}
        waited = epoch - best_epoch
        if best == 1 or (protocol.patience is not None and waited >= protocol.patience):
            progress.advance(protocol.num_epochs - epoch - 1)
            break
    network.load_state_dict(best_weights)
    return best_epoch


def _train_epoch(
    trained: Trained, optimiser: torch.optim.Optimizer, batch_size: int, random: torch.Generator
) -> None:
    network, rows = trained.network, trained.split.train
    network.train()
    order = rows[torch.randperm(len(rows), generator=random)]
    for batch in torch.split(order, batch_size):
        if len(batch) == 1 and len(order) > 1:
            continue  # batch normalisation has no variance of one shower
        optimiser.zero_grad()
        outputs = network(trained.inputs[batch].to(trained.dtype))
        _loss(outputs, trained.labels[batch]).backward()  # type: ignore[no-untyped-call]  # torch's own gap
        optimiser.step()


def _loss(outputs: Tensor, labels: Tensor) -> Tensor:
    if outputs.shape[1] == 1:
        return nn.functional.binary_cross_entropy_with_logits(
            outputs[:, 0], labels.to(outputs.dtype)
        )
    return nn.functional.cross_entropy(outputs, labels)
