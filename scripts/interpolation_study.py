"""Interpolation: train without a range of incident energies and judge inside it.

    python scripts/interpolation_study.py --without 40:60GeV --reference test.h5 \\
        experiment=quickstart dataset=ild_photons_core dataset.path=train.h5

trains two runs with the words of calo-train that follow: one without the showers in the range, and
a control with as many showers of all energies. Both are drawn at the energies of the reference
inside the range and judged by it; a model that interpolates is as good there as its control. The
CaloChallenge asks for this test (2410.21611). Writes interpolation.json, .png and .pdf, the
training files, and the two runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calo_train.cli.errors import log_to_stderr, run_command
from calo_train.cli.evaluation_inputs import InputRequest, open_inputs
from calo_train.errors import DataError, UsageError
from calo_train.evaluation.classifiers.catalogue import ClassifierRequest
from calo_train.evaluation.comparison import evaluate
from calo_train.evaluation.figures.style import house_style
from calo_train.evaluation.metrics import metrics_of
from calo_train.evaluation.results import Settings
from calo_train.families.settings import build_settings
from calo_train.quantities import Spectrum, parse_spectrum
from calo_train.showers.dataset import DatasetConfig, open_dataset
from calo_train.showers.layouts import create_showers
from calo_train.showers.paths import expand_paths
from calo_train.showers.source import open_paths
from calo_train.training.compose import compose_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from calo_train.showers.source import ShowerSource

    IndexArray = np.ndarray[Any, np.dtype[np.int64]]

RUNS = ("interpolating", "control")
MIN_INSIDE = 20  # reference showers


def main() -> int:
    """Run the study; give an exit code."""
    options = _parser().parse_args()
    band = parse_spectrum(options.without, "energy", where="--without")

    def command() -> None:
        found = study(
            options.words,
            band,
            options.reference,
            options.out,
            options.classifier or [],
            options.seed,
        )
        print(_text(found))

    with log_to_stderr():
        return run_command(command)


def study(
    words: list[str],
    band: Spectrum,
    reference: list[str],
    out: Path,
    classifiers: list[str],
    seed: int,
) -> dict[str, Any]:
    """Split the data, train both runs, judge them inside the band, write the result."""
    out.mkdir(parents=True, exist_ok=True)
    config = build_settings(DatasetConfig, compose_config(words)["dataset"], where="dataset")
    number = write_training_files(config, band, out, seed)
    inside = write_reference(config, band, reference, out / "reference.h5")
    runs = [_train(words, config, out, name) for name in RUNS]
    inputs = open_inputs(InputRequest(runs, (str(inside),), seed=seed, is_extrapolating=True))
    protocols = ClassifierRequest(tuple(classifiers or ["none"])).protocols(
        inputs.reference.geometry
    )
    settings = Settings(inputs.threshold, seed=seed, classifiers=protocols)
    metrics = metrics_of(evaluate(inputs.samples, inputs.reference, settings, inputs.training))
    found = summarise(metrics) | {
        "settings": {
            "without_mev": [band.low, band.high],
            "training_showers": number,
            "reference_showers": len(inputs.reference),
            "compared": metrics["settings"]["matched_showers"],
            "words": [word for word in words if not word.startswith("dataset.path")],
            "seed": seed,
        }
    }
    _write(out, found)
    return found


def write_training_files(config: DatasetConfig, band: Spectrum, out: Path, seed: int) -> int:
    """Write all showers outside the band, and as many of all energies; give how many."""
    source = open_dataset(config)
    energies = _energies(source)
    outside = np.flatnonzero(~_in_band(energies, band))
    if not 0 < len(outside) < source.num_showers:
        raise UsageError(
            f"{len(outside)} of {source.num_showers} showers lie outside of it",
            where=f"--without; the data hold {energies.min():.0f} to {energies.max():.0f} MeV",
            do="give a range inside the data's",
        )
    random = np.random.Generator(np.random.Philox(seed))
    control = np.sort(random.permutation(source.num_showers)[: len(outside)])
    for name, rows in zip(RUNS, (outside, control), strict=True):
        _write_rows(source, rows, out / f"{name}.h5")
    return len(outside)


def write_reference(
    config: DatasetConfig, band: Spectrum, patterns: list[str], path: Path
) -> Path:
    """Write the reference's showers inside the band."""
    paths = expand_paths(patterns, where="--reference")
    source = open_paths(paths, geometry=config.detector, crop=config.core)
    rows = np.flatnonzero(_in_band(_energies(source), band))
    if len(rows) < MIN_INSIDE:
        raise DataError(
            f"{len(rows)} reference showers lie in the range",
            where=", ".join(map(str, paths)),
            do=f"give a reference with at least {MIN_INSIDE} there",
        )
    _write_rows(source, rows, path)
    return path


def _energies(source: ShowerSource) -> np.ndarray[Any, np.dtype[np.float64]]:
    blocks = [block.conditions["incident_energy"] for block in source.blocks()]
    return np.concatenate(blocks).astype(np.float64)


def _in_band(
    energies: np.ndarray[Any, np.dtype[np.float64]], band: Spectrum
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return (energies >= band.low) & (energies <= band.high)


def _write_rows(source: ShowerSource, rows: IndexArray, path: Path) -> None:
    """Write rows, which rise, in the native layout; what undoes rounding is kept."""
    bits = source.mantissa_bits[rows]
    attributes = {"mantissa_bits": int(bits.min())} if bits.min() > 0 else {}
    path.unlink(missing_ok=True)
    with create_showers(
        path, "native", source.geometry, attributes=attributes,
        condition_names=source.condition_names,
    ) as writer:  # fmt: skip
        for start, stop in source.block_ranges():
            chosen = rows[(rows >= start) & (rows < stop)] - start
            if len(chosen):
                writer.append(source.read(start, stop).rows(chosen))


def training_words(words: list[str], config: DatasetConfig, out: Path, name: str) -> list[str]:
    """Give the words of calo-train for one of the written files; all others stay as given."""
    kept = [word for word in words if not word.startswith(("dataset=", "dataset.path="))]
    return [
        *kept,
        "dataset=native",
        f"dataset.path='{out.resolve() / name}.h5'",
        f"dataset.threshold={config.threshold}",
        f"dataset.symmetries=[{','.join(config.symmetries)}]",
        f"runs_folder='{out.resolve() / 'runs'}'",
        f"name={name}",
    ]


def _train(words: list[str], config: DatasetConfig, out: Path, name: str) -> Path:
    """Train, or go on with, one of the two runs; give its folder."""
    command = [sys.executable, "-m", "calo_train.cli.train"]
    subprocess.run(  # noqa: S603 - our own command
        [*command, *training_words(words, config, out, name)], check=True
    )
    (run,) = (out / "runs").glob(f"native/*/{name}")
    return run


def summarise(metrics: dict[str, Any]) -> dict[str, Any]:
    """Give separation powers and AUCs of both runs beside their floors.

    `significance` counts how many standard deviations of both together the interpolating run lies
    above its control.
    """
    first, second = metrics["samples"]
    observables = {
        name: _pair(entry, second["observables"][name], "separation", "error")
        | {"title": entry["title"]}
        for name, entry in first["observables"].items()
    }
    classifiers = {
        name: _pair(entry, second["classifiers"][name], "auc", "deviation")
        for name, entry in first["classifiers"].items()
    }
    return {"observables": observables, "classifiers": classifiers}


def _pair(first: dict[str, Any], second: dict[str, Any], name: str, error: str) -> dict[str, Any]:
    values = [entry[name] for entry in (first, second)]
    errors = [
        max(entry[f"{name}_{error}"], entry[f"{name}_floor_error"]) for entry in (first, second)
    ]
    deviation = float(np.hypot(*errors))
    return {
        "floor": first[f"{name}_floor"],
        "floor_error": first[f"{name}_floor_error"],
        **{run: values[index] for index, run in enumerate(RUNS)},
        **{f"{run}_error": errors[index] for index, run in enumerate(RUNS)},
        "significance": (values[0] - values[1]) / deviation if deviation else 0.0,
    }


def _write(out: Path, found: dict[str, Any]) -> None:
    text = json.dumps(found, indent=2, allow_nan=False) + "\n"
    (out / "interpolation.json").write_text(text, encoding="utf-8")
    with house_style():
        figure = draw_figure(found)
        for suffix in ("png", "pdf"):
            figure.savefig(out / f"interpolation.{suffix}", dpi=140, facecolor="white")


def draw_figure(found: dict[str, Any]) -> Figure:
    """Draw the separation powers of both runs beside the floor."""
    from matplotlib.figure import Figure

    entries = list(found["observables"].values())
    figure = Figure(figsize=(8.0, 0.3 * len(entries) + 1.4), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(entries))[::-1]
    floor = np.asarray([entry["floor"] for entry in entries])
    width = np.asarray([2 * entry["floor_error"] for entry in entries])
    left = np.maximum(floor - width, floor / 20)
    axes.barh(
        rows, floor + width - left, left=left, height=0.6, color="#bdbdbd", label="floor ± 2 sigma"
    )
    for name, colour, shift in zip(RUNS, ("#d55e00", "#0072b2"), (0.12, -0.12), strict=True):
        axes.errorbar(
            [entry[name] for entry in entries], rows + shift,
            xerr=[entry[f"{name}_error"] for entry in entries],
            fmt="o", ms=4, color=colour, label=name,
        )  # fmt: skip
    axes.set_yticks(rows, [entry["title"] for entry in entries], fontsize=9)
    low, high = (value / 1000 for value in found["settings"]["without_mev"])
    axes.set(xscale="log", xlabel=f"separation power, {low:g} to {high:g} GeV")
    axes.legend(fontsize=9, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    return figure


def _text(found: dict[str, Any]) -> str:
    lines = [f"{'':42} {'floor':>9} {'control':>9} {'interpolating':>14} {'sigma':>6}"]
    named = {entry["title"]: entry for entry in found["observables"].values()}
    named |= {f"classifier AUC, {name}": entry for name, entry in found["classifiers"].items()}
    lines += [
        f"{title[:42]:42} {entry['floor']:9.4f} {entry['control']:9.4f} "
        f"{entry['interpolating']:14.4f} {entry['significance']:6.1f}"
        for title, entry in named.items()
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", help="words of calo-train: model, data set, trainer")
    parser.add_argument("--without", required=True, help="energies to leave out, 40:60GeV")
    parser.add_argument(
        "--reference", required=True, action="append", help="independent showers, may be repeated"
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("interpolation"))
    parser.add_argument(
        "--classifier", action="append", help="as for calo-eval, may be repeated [default: none]"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
