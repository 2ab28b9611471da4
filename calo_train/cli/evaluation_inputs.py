"""From the words after `calo-eval` to showers: runs, generators and files, and their reference.

A run or generator is drawn from at the conditions of the reference, row by row, into a file that
is used again when the same showers are asked for.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from calo_train.cli.inputs import RUN_FILE, generator_folder, named_dataset
from calo_train.cli.training_inputs import given_training, require_other_data, training_of_run
from calo_train.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.families.generator import Generator
    from calo_train.geometry import Geometry
    from calo_train.showers.dataset import DatasetConfig
    from calo_train.showers.source import Crop, ShowerSource

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InputRequest:
    """What was asked to be judged, and by what."""

    targets: Sequence[Path]
    reference: Sequence[str] = ()
    dataset: str | None = None
    threshold: str | None = None
    seed: int = 0
    num_showers: int | None = None
    is_extrapolating: bool = False
    training: Sequence[str] = ()
    is_self_check: bool = False  # judge the reference by itself, too


@dataclass(frozen=True, eq=False)
class Inputs:
    """Opened samples and reference, the threshold in MeV, and where a report goes.

    `training` holds what each sample was trained on, None where it is not known; `generators` the
    folder of each sample's generator, None for a file.
    """

    samples: list[ShowerSet]
    reference: ShowerSet
    threshold: float
    report: Path
    training: tuple[ShowerSet | None, ...]
    generators: tuple[Path | None, ...]


@dataclass(frozen=True, eq=False)
class _Target:
    """A path with its generator, if it has one."""

    path: Path
    generator: Generator | None = None

    @property
    def is_run(self) -> bool:
        return (self.path / RUN_FILE).is_file()

    @property
    def label(self) -> str:
        if self.generator is None:
            return self.path.stem
        path = self.path.resolve()
        # runs/DATASET/MODEL/NAME: the last two tell one training from another
        return f"{path.parent.name}/{path.name}" if self.is_run else path.name


@dataclass(frozen=True, eq=False)
class _Detector:
    """The detector that all files must be of, and the threshold that is known for it."""

    geometry: Geometry | None
    crop: Crop | None = None
    threshold: float | None = None
    names: tuple[str, ...] = field(default=())


def open_inputs(request: InputRequest) -> Inputs:
    """Open everything and draw what has to be drawn; every problem is a three-part error."""
    targets = [target for path in request.targets for target in _targets(path.expanduser())]
    from calo_train.evaluation.known_showers import require_untrained_reference

    detector = _detector(request, targets)
    reference = _reference(request, targets, detector)
    training = tuple(_training(target, request, detector, reference) for target in targets)
    if request.num_showers is not None:
        reference = _first(reference, request.num_showers)
    if detector.threshold is not None:  # before showers are drawn for nothing
        threshold = _threshold(request, detector, [])
        require_untrained_reference(reference, training, threshold)
    samples = [_sample(target, request, detector, reference) for target in targets]
    samples = _told_apart(samples)
    threshold = _threshold(request, detector, [*samples, reference])
    generators = tuple(
        None if target.generator is None else generator_folder(target.path) for target in targets
    )
    if request.is_self_check:
        samples.append(replace(reference, label=f"{reference.label}, self-check"))
        training, generators = (*training, None), (*generators, None)
    return Inputs(
        samples, reference, threshold, _report_folder(targets, reference), training, generators
    )


def _targets(path: Path) -> list[_Target]:
    from calo_train.families.generator import load_generator
    from calo_train.showers.paths import expand_paths

    if path.is_dir():
        return [_Target(path, load_generator(generator_folder(path)))]
    return [_Target(found) for found in expand_paths([str(path)], where="calo-eval")]


def _detector(request: InputRequest, targets: Sequence[_Target]) -> _Detector:
    """Take the detector from --dataset, a run, a generator, or leave it to the files."""
    if request.dataset is not None:
        return _detector_of(named_dataset(request.dataset))
    for target in targets:
        if target.generator is None:
            continue
        generator = target.generator
        crop = _run_dataset(target.path).core if target.is_run else None
        return _Detector(generator.geometry, crop, generator.threshold)
    return _Detector(None)


def _detector_of(config: DatasetConfig) -> _Detector:
    return _Detector(config.detector, config.core, config.threshold_energy)


def _run_dataset(run: Path) -> DatasetConfig:
    from calo_train.families.settings import build_settings
    from calo_train.showers.dataset import DatasetConfig
    from calo_train.training.run_folder import open_run

    return build_settings(DatasetConfig, open_run(run).read_config()["dataset"], where="dataset")


def _reference(
    request: InputRequest, targets: Sequence[_Target], detector: _Detector
) -> ShowerSet:
    """Open the given reference, or the showers that a run has kept from its training."""
    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.showers.paths import expand_paths

    if request.reference:
        paths = expand_paths(request.reference, where="--reference")
        source = _open(paths, detector)
        return ShowerSet(_label(paths), source, notes=_origin_notes(source))
    run = next((target for target in targets if target.is_run), None)
    if run is None:
        raise UsageError(
            "no reference to judge by",
            where=", ".join(str(target.path) for target in targets) or "--self-check",
            do="give independent Monte Carlo showers with --reference FILE; only a run keeps "
            "some of its own",
        )
    return _held_out(run.path)


def _held_out(run: Path) -> ShowerSet:
    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.training.run_folder import held_out_reference

    source, split = held_out_reference(run)
    if not len(split.test):
        raise DataError(
            "this run kept no showers to be judged by",
            where=f"{run}: dataset.train_fraction and dataset.validation_fraction",
            do="give independent showers with --reference FILE",
        )
    label = f"{_label(source.paths)} (held out)"
    return ShowerSet(label, source, split.test, notes=_origin_notes(source))


def _training(
    target: _Target, request: InputRequest, detector: _Detector, reference: ShowerSet
) -> ShowerSet | None:
    """Open what a target was trained on: told by --training, else by a run."""
    if target.generator is not None:
        require_other_data(target.generator, generator_folder(target.path), reference)
    given = given_training(request.training, reference.geometry, detector.crop)
    if given is not None or not target.is_run:
        return given
    return training_of_run(target.path)


def _sample(
    target: _Target, request: InputRequest, detector: _Detector, reference: ShowerSet
) -> ShowerSet:
    from calo_train.evaluation.shower_set import ShowerSet

    if target.generator is not None:
        path = _draw(target, request, reference)
        detector = _Detector(target.generator.geometry)
        return ShowerSet(target.label, _open([path], detector), notes=_generator_notes(target))
    geometry = detector.geometry or reference.geometry
    source = _open([target.path], replace(detector, geometry=geometry))
    sample = ShowerSet(target.label, source, notes=_file_notes(source))
    return sample if request.num_showers is None else _first(sample, request.num_showers)


def _told_apart(samples: Sequence[ShowerSet]) -> list[ShowerSet]:
    """Number samples of one label, such as files of one name in two folders."""
    counts = Counter(sample.label for sample in samples)
    seen: Counter[str] = Counter()
    found = []
    for sample in samples:
        seen[sample.label] += 1
        is_alone = counts[sample.label] == 1
        label = sample.label if is_alone else f"{sample.label} #{seen[sample.label]}"
        found.append(replace(sample, label=label))
    return found


def _draw(target: _Target, request: InputRequest, reference: ShowerSet) -> Path:
    """Draw at the reference's conditions, or find the file where that was done."""
    from calo_train.machine import available_cores
    from calo_train.sampling.draw import draw_to_file
    from calo_train.sampling.request import SampleRequest

    generator = target.generator
    assert generator is not None
    wanted = SampleRequest(
        num_showers=len(reference),
        given=_conditions(reference, generator.condition_names),
        seed=request.seed,
        is_extrapolating=request.is_extrapolating,
    )
    samples = target.path / "samples" if target.is_run else Path.cwd()
    name = f"like-{reference.fingerprint()[:12]}-n{len(reference)}-seed{request.seed}.h5"
    path = samples / (name if target.is_run else f"{target.path.resolve().name}-{name}")
    if _holds(path, generator, wanted):
        _log.info("using %s", path)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_to_file(generator, wanted, path, num_threads=available_cores(), is_forced=True)
    return path


def _holds(path: Path, generator: Generator, wanted: object) -> bool:
    """Tell whether a file already holds a request of this very generator."""
    from calo_train.sampling.request import SampleRequest
    from calo_train.showers.layouts import open_file

    if not path.is_file() or not isinstance(wanted, SampleRequest):
        return False
    file = open_file(path)
    try:
        found = file.attributes
        return (
            found.get("generator_fingerprint") == generator.fingerprint
            and found.get("request") == wanted.as_text()
        )
    finally:
        file.close()


def _conditions(reference: ShowerSet, names: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    import numpy as np

    missing = [name for name in names if name not in reference.source.condition_names]
    if missing:
        raise DataError(
            f"the reference has no condition {', '.join(missing)}",
            where=", ".join(str(path) for path in reference.source.paths),
            do="give a reference with all conditions of the generator",
        )
    pieces = [block.conditions for block in reference.blocks()]
    return {
        name: np.concatenate([piece[name] for piece in pieces]).astype(np.float64)
        for name in names
    }


def _open(paths: Sequence[Path], detector: _Detector) -> ShowerSource:
    from calo_train.showers.source import open_paths

    return open_paths(paths, geometry=detector.geometry, crop=detector.crop)


def _first(showers: ShowerSet, number: int) -> ShowerSet:
    """Keep the first rows of a set."""
    import numpy as np

    rows = np.arange(len(showers)) if showers.rows is None else showers.rows
    return replace(showers, rows=rows[:number]) if number < len(rows) else showers


def _threshold(request: InputRequest, detector: _Detector, showers: Sequence[ShowerSet]) -> float:
    """Take --threshold, else what the data set, the generator or a sampled file says."""
    from calo_train.quantities import parse_quantity

    if request.threshold is not None:
        return parse_quantity(request.threshold, "energy", where="--threshold")
    if detector.threshold is not None:
        return detector.threshold
    stored = [entry.source.attributes.get("threshold_mev") for entry in showers]
    found = next((value for value in stored if value is not None), None)
    if found is None:
        raise UsageError(
            "the readout threshold is not known",
            where=", ".join(entry.label for entry in showers),
            do="give it, such as --threshold 0.1MeV (0MeV for none), or name the --dataset",
        )
    return float(found)


def _report_folder(targets: Sequence[_Target], reference: ShowerSet) -> Path:
    name = "".join(
        letter if letter.isalnum() or letter in "-_." else "_" for letter in reference.label
    ).strip("_")
    if len(targets) == 1 and targets[0].is_run:
        return targets[0].path / "reports" / name
    judged = "_".join(target.label.replace("/", "-") for target in targets) or "self-check"
    return Path.cwd() / "reports" / f"{judged}_by_{name}"


def _label(paths: Sequence[Path]) -> str:
    if len(paths) == 1:
        return paths[0].stem
    return f"{paths[0].stem} and {len(paths) - 1} more"


def _generator_notes(target: _Target) -> tuple[str, ...]:
    return () if target.generator is None else tuple(target.generator.notes)


def _file_notes(source: ShowerSource) -> tuple[str, ...]:
    """Repeat what calo-sample wrote into a file, such as that it extrapolates."""
    written = str(source.attributes.get("notes", ""))
    lines = (*_origin_notes(source), *(line for line in written.splitlines() if line))
    return tuple(dict.fromkeys(lines))


def _origin_notes(source: ShowerSource) -> tuple[str, ...]:
    """Say it when showers ship with the package, or come from a parametrisation."""
    from calo_train.showers.paths import embedded_file
    from calo_train.showers.simulator.origin import simulation_notes

    embedded = embedded_file("")
    if any(path.resolve().parent == embedded.resolve() for path in source.paths):
        return (
            f"embedded sample ({source.description}): for trying things out, not the published "
            "Geant4 set",
        )
    return simulation_notes(source.attributes)
