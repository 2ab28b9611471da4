"""Can a network tell the sample from the reference; the floor is reference against reference.

Each run has halves of its own. Floors belong to the reference: they are trained once for all
samples. The first run of a classifier that separates says what it saw.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from calo_train.evaluation.classifiers.attribution import attribute
from calo_train.evaluation.classifiers.calibration import (
    area_under_roc,
    calibrated,
    calibration_curve,
    jensen_shannon,
    roc_curve,
)
from calo_train.evaluation.classifiers.inputs import Candidates, input_columns
from calo_train.evaluation.classifiers.results import (
    ClassifierResult,
    Insight,
    SureShowers,
    Training,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.evaluation.classifiers.protocol import Protocol
    from calo_train.evaluation.classifiers.training import Trained
    from calo_train.evaluation.deposits import FloatArray, IndexArray
    from calo_train.evaluation.floor import Halves
    from calo_train.progress import Progress

_SEED_OF_FLOOR = 1 << 20  # floor trainings take other seeds than those of the sample
_SEPARATES = 3.0  # sigma above the floor from which on it is asked why
_NUM_SURE = 3


@dataclass(frozen=True, eq=False)
class _Floor:
    runs: tuple[Training, ...]
    num_per_class: int


@dataclass(frozen=True, eq=False)
class Bench:
    """The reference that samples are classified against, with the floors trained so far."""

    reference: Candidates
    seed: int
    _floors: dict[Protocol, _Floor] = field(default_factory=dict)

    def num_epochs(self, protocol: Protocol) -> int:
        """Count the epochs that the next sample takes, for a progress."""
        trainings = 1 if protocol in self._floors else 2
        return trainings * protocol.num_runs * protocol.num_epochs

    def classify(
        self,
        sample: Candidates,
        splits: Sequence[Halves],
        protocol: Protocol,
        progress: Progress,
    ) -> ClassifierResult:
        """Train `num_runs` classifiers of a sample, and of the floor where there is none yet."""
        floor = self._floor(splits, protocol, progress)
        runs: list[Training] = []
        first: tuple[Trained, _Rows] | None = None
        for run in range(protocol.num_runs):
            rows = self._rows(sample, splits[run % len(splits)], protocol, run)
            trained = self._train(rows, protocol, self.seed + run, progress)
            runs.append(judge_training(trained, protocol))
            first = first or (trained, rows)
        assert first is not None
        trained, rows = first
        result = ClassifierResult(
            protocol,
            sum(weights.numel() for weights in trained.network.parameters()),
            tuple(runs),
            floor.runs,
            num_per_class=len(rows.second),
            num_test=num_test(len(rows.second), protocol),
            num_floor_per_class=floor.num_per_class,
            num_floor_test=num_test(floor.num_per_class, protocol),
        )
        if result.significance <= _SEPARATES:
            return result
        return replace(result, insight=self._explain(trained, rows, protocol))

    def _floor(self, splits: Sequence[Halves], protocol: Protocol, progress: Progress) -> _Floor:
        if protocol not in self._floors:
            runs, size = [], 0
            for run in range(protocol.num_runs):
                halves = splits[run % len(splits)]
                size = _capped(len(halves.first), protocol)
                rows = _Rows(
                    self.reference,
                    np.sort(halves.second[:size]),
                    self.reference,
                    np.sort(halves.first[:size]),
                )
                trained = self._train(rows, protocol, self.seed + run + _SEED_OF_FLOOR, progress)
                runs.append(judge_training(trained, protocol))
            self._floors[protocol] = _Floor(tuple(runs), size)
        return self._floors[protocol]

    def _rows(self, sample: Candidates, halves: Halves, protocol: Protocol, run: int) -> _Rows:
        if protocol.uses_all:
            number = min(len(sample.table), len(self.reference.table))
            number = _capped(number, protocol)
            random = np.random.Generator(np.random.Philox(key=[self.seed, run]))
            chosen = [
                np.sort(random.permutation(len(entry.table))[:number])
                for entry in (sample, self.reference)
            ]
        else:
            size = _capped(len(halves.first), protocol)
            chosen = [np.sort(half[:size]) for half in (halves.sample, halves.first)]
        return _Rows(sample, chosen[0], self.reference, chosen[1])

    def _train(self, rows: _Rows, protocol: Protocol, seed: int, progress: Progress) -> Trained:
        from calo_train.evaluation.classifiers.training import train_network

        return train_network(
            [
                rows.sample.inputs(protocol.inputs, rows.first),
                rows.reference.inputs(protocol.inputs, rows.second),
            ],
            protocol,
            self.reference.grid,
            seed=seed,
            progress=progress,
        )

    def _explain(self, trained: Trained, rows: _Rows, protocol: Protocol) -> Insight:
        grid = self.reference.grid
        columns = input_columns(protocol.inputs, grid)
        found = attribute(trained, columns, grid.geometry.num_layers, self.seed)
        tested = trained.split.test
        scores, index = trained.scores(tested).numpy(), tested.numpy()
        is_sample = index < len(rows.first)
        return Insight(
            found,
            _surest(rows.sample, rows.first[index[is_sample]], scores[is_sample], sign=1),
            _surest(
                rows.reference,
                rows.second[index[~is_sample] - len(rows.first)],
                scores[~is_sample],
                sign=-1,
            ),
        )


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rising table rows of the two classes."""

    sample: Candidates
    first: IndexArray
    reference: Candidates
    second: IndexArray


def judge_training(trained: Trained, protocol: Protocol) -> Training:
    """Test a classifier of two classes on its held-out showers."""
    split = trained.split
    scores, selection = trained.scores(split.test).numpy(), trained.scores(split.selection).numpy()
    labels = trained.labels[split.test].cpu().numpy()
    probabilities = calibrated(scores, selection, trained.labels[split.selection].cpu().numpy())
    raw_auc = area_under_roc(scores, labels)
    shown = probabilities if protocol.is_calibrated else scores
    return Training(
        auc=area_under_roc(shown, labels) if protocol.is_calibrated else raw_auc,
        raw_auc=raw_auc,
        accuracy=float(np.mean((scores > 0.5) == (labels == 1))),
        jsd=jensen_shannon(probabilities, labels),
        best_epoch=trained.best_epoch,
        roc=roc_curve(shown, labels),
        calibration=calibration_curve(probabilities, labels),
    )


def num_test(size: int, protocol: Protocol) -> int:
    """Count the test showers of a class of `size`."""
    from calo_train.evaluation.classifiers.training import split_ends

    return size - split_ends(size, protocol)[1]


def _capped(size: int, protocol: Protocol) -> int:
    return size if protocol.max_showers is None else min(size, protocol.max_showers)


def _surest(
    candidates: Candidates, rows: IndexArray, scores: FloatArray,
    *, sign: int
) -> SureShowers:  # fmt: skip
    """Take the showers of lowest (sign 1) or highest (-1) scores."""
    order = np.argsort(sign * scores, kind="stable")[:_NUM_SURE]
    table, chosen = candidates.table, rows[order]
    return SureShowers(
        candidates.energies(chosen),
        table.incident_energy[chosen],
        table.positions[chosen],
        scores[order],
    )
