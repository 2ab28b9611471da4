"""The classifiers of an evaluation: each sample against the reference, and among samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calo_train.evaluation.classifiers.catalogue import is_multi
from calo_train.evaluation.classifiers.inputs import Candidates, VoxelScale
from calo_train.evaluation.classifiers.multi import compare_generators
from calo_train.evaluation.classifiers.pairwise import Bench
from calo_train.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.evaluation.classifiers.protocol import Protocol
    from calo_train.evaluation.classifiers.results import ClassifierResult, MultiResult
    from calo_train.evaluation.deposits import Grid
    from calo_train.evaluation.floor import Halves
    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.evaluation.table import ShowerTable


@dataclass(frozen=True, eq=False)
class ClassifierStage:
    """A reference to classify against, by all protocols of the settings."""

    bench: Bench
    protocols: tuple[Protocol, ...]

    @classmethod
    def of(
        cls,
        reference: ShowerSet,
        table: ShowerTable,
        grid: Grid,
        protocols: tuple[Protocol, ...],
        *,
        threshold: float,
        seed: int,
    ) -> ClassifierStage:
        """Prepare the reference."""
        scale = VoxelScale.of(threshold, table)
        return cls(Bench(Candidates(reference, table, grid, scale), seed), protocols)

    def judge(
        self, sample: ShowerSet, table: ShowerTable, splits: Sequence[Halves]
    ) -> tuple[ClassifierResult, ...]:
        """Classify one sample against the reference by every protocol of two classes."""
        found = []
        for protocol in self.protocols:
            if is_multi(protocol):
                continue
            epochs = self.bench.num_epochs(protocol)
            name = f"classifier {protocol.name} of {sample.label}"
            with Progress(name, epochs, unit="epochs") as progress:
                candidates = self._candidates(sample, table)
                found.append(self.bench.classify(candidates, splits, protocol, progress))
        return tuple(found)

    def among(self, samples: Sequence[tuple[ShowerSet, ShowerTable]]) -> tuple[MultiResult, ...]:
        """Compare several samples with each other; nothing for fewer than two."""
        protocols = [protocol for protocol in self.protocols if is_multi(protocol)]
        if len(samples) < 2:
            return ()
        found = []
        for protocol in protocols:
            epochs = 2 * protocol.num_runs * protocol.num_epochs
            with Progress(f"classifier {protocol.name}", epochs, unit="epochs") as progress:
                found.append(
                    compare_generators(
                        [self._candidates(*sample) for sample in samples],
                        self.bench.reference,
                        protocol,
                        seed=self.bench.seed,
                        progress=progress,
                    )
                )
        return tuple(found)

    def _candidates(self, showers: ShowerSet, table: ShowerTable) -> Candidates:
        return Candidates(showers, table, self.bench.reference.grid, self.bench.reference.scale)
