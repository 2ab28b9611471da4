"""What an evaluation found, as values; metrics.json, figures and the report are views of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calo_train.evaluation.classifiers.protocol import Protocol
from calo_train.evaluation.floor import Metric, verdict_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calo_train.evaluation.classifiers.results import ClassifierResult, MultiResult
    from calo_train.evaluation.coarse_cosine import CoarseCells
    from calo_train.evaluation.deposits import FloatArray, Grid
    from calo_train.evaluation.distances import Binning
    from calo_train.evaluation.further import FurtherDistances
    from calo_train.evaluation.memorisation import Memorisation
    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.evaluation.table import ShowerTable
    from calo_train.evaluation.timing import GenerationTiming


@dataclass(frozen=True)
class Settings:
    """How an evaluation is done; the threshold is in MeV; no protocol, no classifier."""

    threshold: float
    seed: int = 0
    repetitions: int = 50
    classifiers: tuple[Protocol, ...] = (Protocol(),)
    allow_different_energies: bool = False
    coarse: tuple[CoarseCells, ...] = ()  # voxels within which layers are compared


@dataclass(frozen=True, eq=False)
class ObservableResult:
    """Distances of one observable beside their floors.

    `separation` and `wasserstein` are at the matched number of showers; those with `_all` take
    every shower of both sets and have no floor. A group such as all layers holds means.
    """

    name: str
    title: str
    symbol: str
    unit: str
    separation: Metric
    separation_all: float
    wasserstein: Metric | None = None  # in standard deviations of the reference
    wasserstein_all: float | None = None
    chi2: Metric | None = None  # a degree of freedom, of the same histograms
    num_bins: int = 0
    outside_sample: float = 0.0
    outside_reference: float = 0.0
    layer: int | None = None
    group: str | None = None  # the observable that a layer belongs to
    is_group: bool = False

    @property
    def significance(self) -> float:
        """The larger of the two distances' significances."""
        both = [self.separation.significance]
        if self.wasserstein is not None:
            both.append(self.wasserstein.significance)
        return max(both)

    @property
    def verdict(self) -> str:
        return verdict_of(self.significance)


@dataclass(frozen=True, eq=False)
class SampleResult:
    """One judged sample: headline observables, single layers, correlations, classifiers.

    `details` are further observables, for metrics.json rather than for tables.
    """

    showers: ShowerSet
    table: ShowerTable
    observables: tuple[ObservableResult, ...]
    layers: tuple[ObservableResult, ...]
    correlations: Metric
    classifiers: tuple[ClassifierResult, ...]
    warnings: tuple[str, ...]
    further: FurtherDistances
    memorisation: Memorisation
    timings: tuple[GenerationTiming, ...] = ()
    details: tuple[ObservableResult, ...] = ()

    def layers_of(self, name: str) -> tuple[ObservableResult, ...]:
        """Give the single layers of an observable."""
        return tuple(entry for entry in self.layers if entry.group == name)

    @property
    def classifier(self) -> ClassifierResult | None:
        """The classifier that lies farthest above its floor."""
        return max(self.classifiers, key=lambda found: found.significance, default=None)

    @property
    def verdict(self) -> str:
        """The verdict of the headline observable that lies farthest above its floor."""
        return verdict_of(max(entry.significance for entry in self.observables))

    @property
    def ranking(self) -> tuple[ObservableResult, ...]:
        """Single headline observables and layers of them, the one that differs most first."""
        groups = {entry.name for entry in self.observables}
        single = [entry for entry in self.observables if not entry.is_group]
        single += [entry for entry in self.layers if entry.group in groups]
        return tuple(
            sorted(single, key=lambda entry: (-entry.significance, -entry.separation.value))
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Samples judged by one reference."""

    reference: ShowerSet
    reference_table: ShowerTable
    samples: tuple[SampleResult, ...]
    grid: Grid
    settings: Settings
    binnings: Mapping[str, tuple[Binning, ...]]  # one each, or one a layer
    spectrum_edges: FloatArray
    size: int
    warnings: tuple[str, ...]
    durations: Mapping[str, float]
    multi: tuple[MultiResult, ...] = ()  # among the samples
