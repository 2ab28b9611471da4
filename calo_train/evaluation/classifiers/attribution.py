"""What a classifier saw: which layers and observables tell sample from reference.

High-level inputs: the loss of AUC when the inputs of one observable, or of one layer, are permuted
together among the test showers. Voxels: integrated gradients from the mean shower; they sum to the
difference of log-odds exactly, so each layer has a share of the mean distance of the two classes'
log-odds. Both say what this network used, not what alone would suffice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from calo_train.evaluation.classifiers.calibration import area_under_roc
from calo_train.evaluation.classifiers.inputs import INCIDENT, NO_LAYER, VOXELS
from calo_train.evaluation.classifiers.training import log_odds, outputs_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calo_train.evaluation.classifiers.inputs import InputColumns
    from calo_train.evaluation.classifiers.training import Trained
    from calo_train.evaluation.deposits import FloatArray, IndexArray

_NUM_STEPS = 16  # of the path integral
_MAX_SHOWERS = 400  # attributed
_ROWS = 128  # whose gradients are held at once


@dataclass(frozen=True, eq=False)
class Attribution:
    """Importance of layers (layers,) and observables, in the words of `measure`.

    For voxels `observables` is empty: a voxel belongs to a layer and to nothing else.
    """

    measure: str
    layers: FloatArray
    observables: Mapping[str, float]

    @property
    def top_layer(self) -> int:
        return int(np.argmax(self.layers))

    @property
    def top_observable(self) -> str | None:
        """The observable that matters most; the incident energy is given, not simulated."""
        found = {name: value for name, value in self.observables.items() if name != INCIDENT}
        return max(found, key=lambda name: found[name]) if found else None


def attribute(trained: Trained, columns: InputColumns, num_layers: int, seed: int) -> Attribution:
    """Attribute what a classifier of two classes tells apart."""
    if VOXELS in columns.observables:
        return _by_gradients(trained, columns, num_layers)
    return _by_permutation(trained, columns, num_layers, seed)


def _by_permutation(
    trained: Trained, columns: InputColumns, num_layers: int, seed: int
) -> Attribution:
    rows = trained.split.test
    inputs, labels = trained.inputs[rows], trained.labels[rows].cpu().numpy()
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rows), generator=random).to(inputs.device)
    base = _auc(trained, inputs, labels)

    def loss_of(chosen: npt.NDArray[np.bool_]) -> float:
        permuted, moved = inputs.clone(), torch.from_numpy(np.flatnonzero(chosen))
        permuted[:, moved] = inputs[order][:, moved]
        return base - _auc(trained, permuted, labels)

    names = np.asarray(columns.observables)
    return Attribution(
        "loss of AUC when permuted",
        np.asarray([loss_of(columns.layers == layer) for layer in range(num_layers)]),
        {name: loss_of(names == name) for name in dict.fromkeys(columns.observables)},
    )


def _auc(trained: Trained, inputs: Tensor, labels: IndexArray) -> float:
    scores = log_odds(outputs_of(trained.network, inputs))
    return area_under_roc(scores.numpy(), labels)


def _by_gradients(trained: Trained, columns: InputColumns, num_layers: int) -> Attribution:
    rows = _some_of_each(trained)
    baseline = _mean_row(trained)
    labels = trained.labels[rows].cpu().numpy()
    by_layer = np.zeros((2, num_layers + 1))  # the last column is of no layer
    target = torch.from_numpy(np.where(columns.layers == NO_LAYER, num_layers, columns.layers))
    for start in range(0, len(rows), _ROWS):
        part, part_labels = rows[start : start + _ROWS], labels[start : start + _ROWS]
        found = integrated_gradients(trained, trained.inputs[part], baseline)
        sums = torch.zeros(len(part), num_layers + 1, dtype=found.dtype)
        sums.index_add_(1, target, found)
        for label in (0, 1):
            by_layer[label] += sums.numpy()[part_labels == label].sum(axis=0)
    means = by_layer / np.bincount(labels, minlength=2)[:, None]
    distance = means[1] - means[0]
    total = distance.sum() or 1.0
    return Attribution(
        "share of the distance in log-odds",
        distance[:num_layers] / total,
        {},
    )


def integrated_gradients(trained: Trained, inputs: Tensor, baseline: Tensor) -> Tensor:
    """Give attributions (n, D) of the log-odds along the line from `baseline` (D,), midpoint rule.

    A row sums to the difference of log-odds at the two ends, up to the error of the rule
    (Sundararajan et al., arXiv:1703.01365).
    """
    network, dtype = trained.network, trained.dtype
    network.eval()
    step = (inputs - baseline).to(dtype)
    total = torch.zeros_like(step)
    for index in range(_NUM_STEPS):
        point = baseline.to(dtype) + step * ((index + 0.5) / _NUM_STEPS)
        point.requires_grad_(True)  # torch's signature
        (gradient,) = torch.autograd.grad(log_odds(network(point)).sum(), point)
        total += gradient
    return (total * step / _NUM_STEPS).double().cpu()


def _some_of_each(trained: Trained) -> Tensor:
    """Give up to `_MAX_SHOWERS` test rows, both classes equally often."""
    rows = trained.split.test
    labels = trained.labels[rows].cpu()
    return torch.cat([rows[labels == label][: _MAX_SHOWERS // 2] for label in (0, 1)])


def _mean_row(trained: Trained) -> Tensor:
    total = torch.zeros(trained.inputs.shape[1], dtype=torch.float64, device=trained.inputs.device)
    for rows in torch.split(trained.split.train, 4096):
        total += trained.inputs[rows].sum(dim=0, dtype=torch.float64)
    return (total / len(trained.split.train)).to(trained.inputs.dtype)
