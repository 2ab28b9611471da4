"""Variation: how many distinct coarse showers suffice when super-resolution varies them?

    python scripts/variation_study.py runs/calochallenge_ds2/supercalo/default \\
        --coarse drawn.h5 --reference test.h5 --numbers 1000,2000,5000 --classifier low

takes the first N coarse showers of a file (or fine ones, which are summed), refines them
over and over up to as many showers as the reference has, and judges the result by the reference,
for every N and for as many rows as the reference has. SuperCalo (2308.11700) does this with drawn
showers. Writes variation.json, .md, .png and .pdf, and the refined showers.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calo_train.cli.errors import log_to_stderr, run_command
from calo_train.cli.inputs import generator_folder
from calo_train.errors import UsageError
from calo_train.evaluation.classifiers.catalogue import ClassifierRequest
from calo_train.evaluation.comparison import evaluate
from calo_train.evaluation.figures.style import house_style
from calo_train.evaluation.metrics import metrics_of
from calo_train.evaluation.results import Settings
from calo_train.evaluation.shower_set import ShowerSet
from calo_train.families.generator import Generator, load_generator
from calo_train.machine import available_cores
from calo_train.sampling.coarse_showers import open_coarse
from calo_train.sampling.draw import draw_to_file
from calo_train.sampling.request import SampleRequest
from calo_train.showers.layouts import create_showers
from calo_train.showers.paths import expand_paths
from calo_train.showers.source import open_paths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from calo_train.showers.source import ShowerSource

_SECONDS_PER_HOUR = 3600


def main() -> int:
    """Run the study; give an exit code."""
    options = _parser().parse_args()

    def command() -> None:
        found = study(
            options.run,
            options.coarse,
            options.reference,
            options.out,
            numbers=[int(text) for text in options.numbers.split(",")],
            classifiers=options.classifier or ["none"],
            seed=options.seed,
        )
        print(as_table(found))

    with log_to_stderr():
        return run_command(command)


def study(
    run: Path,
    coarse: Path,
    reference: list[str],
    out: Path,
    *,
    numbers: list[int],
    classifiers: list[str],
    seed: int,
) -> dict[str, Any]:
    """Refine every number of coarse showers, judge all of them, write the result."""
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    generator = load_generator(generator_folder(run))
    paths = expand_paths(reference, where="--reference")
    with open_paths(paths, geometry=generator.geometry) as known:
        num_showers = known.num_showers
    with open_coarse(coarse, generator) as given:
        available = min(len(given), num_showers)  # further rows would not be taken
    numbers = _numbers(numbers, available)
    samples = [
        refine(generator, coarse, number, num_showers, out / f"from_{number}.h5", seed)
        for number in numbers
    ]
    judged = [
        _opened(f"from {n}", [file], generator) for n, file in zip(numbers, samples, strict=True)
    ]
    truth = _opened("reference", paths, generator)
    protocols = ClassifierRequest(tuple(classifiers)).protocols(generator.geometry)
    settings = Settings(
        generator.threshold,
        seed=seed,
        classifiers=protocols,
        allow_different_energies=True,  # few coarse showers have few energies
    )
    metrics = metrics_of(evaluate(judged, truth, settings))
    found = {
        "settings": {
            "run": run.name,
            "coarse": coarse.name,
            "showers": num_showers,
            "seed": seed,
            "hours": (time.monotonic() - started) / _SECONDS_PER_HOUR,
        },
        "rows": [summarise(*pair) for pair in zip(numbers, metrics["samples"], strict=True)],
    }
    _write(out, found)
    return found


def _opened(label: str, paths: list[Path], generator: Generator) -> ShowerSet:
    """Open files as showers of the generator's detector; a CaloChallenge file names none."""
    return ShowerSet(label, open_paths(paths, geometry=generator.geometry))


def _numbers(numbers: list[int], available: int) -> list[int]:
    """Sort the wanted numbers, all rows that can be taken last."""
    if min(numbers) < 1 or max(numbers) > available:
        raise UsageError(
            f"{min(numbers)} to {max(numbers)} coarse showers are asked for",
            where=f"--numbers; --coarse holds {available}",
            do=f"give numbers from 1 to {available}",
        )
    return sorted({*numbers, available})


def refine(
    generator: Generator, coarse: Path, number: int, num_showers: int, path: Path, seed: int
) -> Path:
    """Refine the first `number` showers of a file, over and over, to `num_showers`."""
    first = path.with_name(f"first_{number}.h5")
    with open_coarse(coarse, generator) as given:
        write_first(given.source, number, first)
    with open_coarse(first, generator) as given:
        conditions = given.conditions(num_showers)
        request = SampleRequest(
            num_showers,
            given={name: conditions[name] for name in generator.condition_names},
            seed=seed,
            is_extrapolating=True,
            coarse=given,
        )
        draw_to_file(
            generator, request, path,
            num_threads=available_cores(), layout="native", is_forced=True,
        )  # fmt: skip
    first.unlink()
    return path


def write_first(source: ShowerSource, number: int, path: Path) -> None:
    """Write the first showers of a source in the native layout."""
    path.unlink(missing_ok=True)
    with create_showers(
        path, "native", source.geometry, attributes={}, condition_names=source.condition_names
    ) as writer:
        for start, stop in source.block_ranges():
            if start < number:
                writer.append(source.read(start, min(stop, number)))


def summarise(number: int, sample: dict[str, Any]) -> dict[str, Any]:
    """Give the AUCs, and the mean separation power, of one number of coarse showers."""
    entries = list(sample["observables"].values())

    def mean(name: str) -> float:
        return float(np.mean([entry[name] for entry in entries]))

    def error(name: str) -> float:
        return float(np.sqrt(np.sum([entry[name] ** 2 for entry in entries])) / len(entries))

    measures = {
        "separation": {
            "value": mean("separation"),
            "error": error("separation_error"),
            "floor": mean("separation_floor"),
            "floor_error": error("separation_floor_error"),
        }
    }
    for name, entry in sample.get("classifiers", {}).items():
        measures[f"AUC {name}"] = {
            "value": entry["auc"],
            "error": entry["auc_deviation"],
            "floor": entry["auc_floor"],
            "floor_error": entry["auc_floor_error"],
        }
    return {"coarse_showers": number, "measures": measures}


def as_table(found: dict[str, Any]) -> str:
    """Write the result as a table of Markdown, with what it was measured on."""
    settings, rows = found["settings"], found["rows"]
    names = list(rows[0]["measures"])
    lines = [
        f"{settings['showers']} showers each, refined from coarse showers of "
        f"`{settings['coarse']}`, seed {settings['seed']}, {settings['hours']:.2f} h.",
        "",
        f"| coarse showers | {' | '.join(names)} |",
        f"| --- {'| --- ' * len(names)}|",
    ]
    for row in rows:
        cells = [f"{m['value']:.4f} ± {m['error']:.4f}" for m in row["measures"].values()]
        lines.append(f"| {row['coarse_showers']} | {' | '.join(cells)} |")
    floors = [f"{m['floor']:.4f} ± {m['floor_error']:.4f}" for m in rows[0]["measures"].values()]
    lines.append(f"| floor | {' | '.join(floors)} |")
    return "\n".join(lines)


def draw_figure(found: dict[str, Any]) -> Figure:
    """Draw every measure against the number of coarse showers, above its floor."""
    from matplotlib.figure import Figure

    names = list(found["rows"][0]["measures"])
    figure = Figure(figsize=(4.2 * len(names), 3.6), layout="constrained")
    numbers = [row["coarse_showers"] for row in found["rows"]]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        measured = [row["measures"][name] for row in found["rows"]]
        floor, width = measured[0]["floor"], 2 * measured[0]["floor_error"]
        axes.axhspan(floor - width, floor + width, color="#bdbdbd", label="floor ± 2 sigma")
        axes.errorbar(
            numbers,
            [entry["value"] for entry in measured],
            yerr=[entry["error"] for entry in measured],
            fmt="o-", ms=4, color="#0072b2", label="refined",
        )  # fmt: skip
        title = "mean separation power" if name == "separation" else name
        axes.set(xscale="log", xlabel="distinct coarse showers", ylabel=title)
        axes.legend(fontsize=9)
    return figure


def _write(out: Path, found: dict[str, Any]) -> None:
    text = json.dumps(found, indent=2, allow_nan=False) + "\n"
    (out / "variation.json").write_text(text, encoding="utf-8")
    (out / "variation.md").write_text(as_table(found) + "\n", encoding="utf-8")
    with house_style():
        figure = draw_figure(found)
        for suffix in ("png", "pdf"):
            figure.savefig(out / f"variation.{suffix}", dpi=140, facecolor="white")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a run or generator of model=supercalo")
    parser.add_argument("--coarse", required=True, type=Path, help="coarse or fine showers")
    parser.add_argument(
        "--reference", required=True, action="append", help="independent showers, may be repeated"
    )
    parser.add_argument("--numbers", required=True, help="of coarse showers, such as 1000,5000")
    parser.add_argument("-o", "--out", type=Path, default=Path("variation"))
    parser.add_argument(
        "--classifier", action="append", help="as for calo-eval, may be repeated [default: none]"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
