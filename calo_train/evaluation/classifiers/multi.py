"""Which generator does the reference look like: a classifier among generators alone.

Trained on the generators' showers and never on the reference, it is then shown reference showers;
the generator with the largest mean posterior is the nearest (arXiv:2211.11765; log
posteriors as in 2410.21611). Equal generators have ln(1/n). The floor is the same training
with shuffled labels: what overfitting alone would make of equal generators.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calo_train.evaluation.classifiers.results import MultiResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from calo_train.evaluation.classifiers.inputs import Candidates
    from calo_train.evaluation.classifiers.protocol import Protocol
    from calo_train.evaluation.deposits import FloatArray
    from calo_train.progress import Progress

_SEED_OF_SHUFFLE = 1 << 21


def compare_generators(
    samples: Sequence[Candidates],
    reference: Candidates,
    protocol: Protocol,
    *,
    seed: int,
    progress: Progress,
) -> MultiResult:
    """Train among two or more samples, `num_runs` times, and as often with shuffled labels."""
    size = min(len(sample.table) for sample in samples)
    if protocol.max_showers is not None:
        size = min(size, protocol.max_showers)
    shown = np.arange(min(len(reference.table), protocol.max_showers or len(reference.table)))
    judged = reference.inputs(protocol.inputs, shown)
    logs, shares, floors = [], [], []
    for run in range(protocol.num_runs):
        random = np.random.Generator(np.random.Philox(key=[seed, run]))
        classes = [
            sample.inputs(protocol.inputs, np.sort(random.permutation(len(sample.table))[:size]))
            for sample in samples
        ]
        posterior = _posteriors(classes, judged, reference, protocol, seed + run, progress)
        logs.append(np.log(np.maximum(posterior, np.finfo(float).tiny)).mean(axis=0))
        shares.append(posterior.mean(axis=0))
        shuffled = _shuffled(classes, seed + run + _SEED_OF_SHUFFLE)
        posterior = _posteriors(
            shuffled, judged, reference, protocol, seed + run + _SEED_OF_SHUFFLE, progress
        )
        floors.append(float(np.log(np.maximum(posterior, np.finfo(float).tiny)).mean()))
    return MultiResult(
        protocol,
        tuple(sample.showers.label for sample in samples),
        np.asarray(logs),
        np.asarray(shares),
        np.asarray(floors),
        size,
        len(shown),
    )


def _posteriors(
    classes: Sequence[Tensor],
    judged: Tensor,
    reference: Candidates,
    protocol: Protocol,
    seed: int,
    progress: Progress,
) -> FloatArray:
    """Train and give the posterior of each class for the reference showers, (n, classes)."""
    import torch

    from calo_train.evaluation.classifiers.training import outputs_of, train_network

    trained = train_network(
        classes, protocol, reference.grid, seed=seed, progress=progress,
        num_outputs=len(classes),
    )  # fmt: skip
    outputs = outputs_of(trained.network, judged.to(trained.inputs.device))
    return torch.softmax(outputs, dim=1).numpy()


def _shuffled(classes: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Deal all showers out anew."""
    import torch

    pooled = torch.cat(list(classes))
    order = torch.randperm(len(pooled), generator=torch.Generator().manual_seed(seed))
    return list(torch.split(pooled[order], len(classes[0])))
