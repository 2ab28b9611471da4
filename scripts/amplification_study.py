"""Statistical amplification: how many training showers a generator's sample is worth.

    python scripts/amplification_study.py RUN -o amplification

draws many showers from a finished run, cuts the showers that the run held out into quantiles of
an observable (several: sequential conditional quantiles), and says how large a true sample would
be as near to them as the generated one (GANplification, 2008.06545; Calomplification, 2202.07352).
The held-out showers should be 20 times the training showers, so train with
`dataset.train_fraction=0.04 dataset.validation_fraction=0.01`. Writes amplification.json, .png and
.pdf. The method is in calo_train/evaluation/amplification.py.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calo_train.cli.errors import log_to_stderr, run_command
from calo_train.cli.training_inputs import training_of_run
from calo_train.errors import DataError, UsageError, nearest_names
from calo_train.evaluation.amplification import Amplification, amplification
from calo_train.evaluation.deposits import FloatArray, Grid
from calo_train.evaluation.figures.style import house_style
from calo_train.evaluation.observables import observables_of
from calo_train.evaluation.shower_set import ShowerSet
from calo_train.evaluation.spectrum import spectrum_edges, voxel_range
from calo_train.evaluation.table import ShowerTable, measure
from calo_train.families.generator import load_generator
from calo_train.machine import available_cores
from calo_train.sampling.draw import draw_to_file
from calo_train.sampling.request import SampleRequest
from calo_train.showers.source import open_paths
from calo_train.training.run_folder import held_out_reference, open_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_OBSERVABLES = ("visible_fraction", "num_hits", "centre_of_gravity_z")
_CURVE_POINTS = 8


def main() -> int:
    """Run the study; give an exit code."""
    options = _parser().parse_args()

    def command() -> None:
        results = study(
            options.run,
            options.out,
            sets=[tuple(words.split(",")) for words in options.observables],
            number=options.number,
            num_quantiles=options.quantiles,
            seed=options.seed,
        )
        print("\n".join(_line(name, found) for name, found in results.items()))

    with log_to_stderr():
        return run_command(command)


def study(
    run: Path,
    out: Path,
    *,
    sets: list[tuple[str, ...]],
    number: int | None,
    num_quantiles: int,
    seed: int,
) -> dict[str, Amplification]:
    """Draw, measure, compare and write; one result for every set of observables."""
    generator = load_generator(open_run(run).generator)
    training = training_of_run(run)
    if training is None:
        raise DataError(
            "the training data cannot be read", where=str(run), do="restore the files of the run"
        )
    source, split = held_out_reference(run)
    reference = ShowerSet("held out", source, split.test)
    out.mkdir(parents=True, exist_ok=True)
    sample = _draw(run, reference, number or 20 * len(training), out / "sample.h5", seed)
    tables = _tables([reference, training, sample], generator.threshold)
    known = observables_of(Grid.of(reference.geometry))
    results = {}
    for names in sets:
        _require_known(names, [name for name in known if not known[name].is_per_layer])
        columns = [np.stack([table.column(name) for name in names], axis=1) for table in tables]
        # Equal numbers of cells for one observable and for many.
        per_axis = max(round(num_quantiles ** (1 / len(names))), 2)
        results[" and ".join(names)] = amplification(
            *columns,
            num_quantiles=per_axis,
            sizes=_sizes(len(columns[1]), len(columns[2])),
            seed=seed,
        )
    settings = {"run": run.name, "reference": len(reference), "seed": seed}
    _write(out, results, settings)
    return results


def _draw(run: Path, reference: ShowerSet, number: int, path: Path, seed: int) -> ShowerSet:
    """Draw showers at conditions that are drawn from the reference's."""
    generator = load_generator(open_run(run).generator)
    random = np.random.Generator(np.random.Philox(seed))
    rows = random.integers(len(reference), size=number)
    names = generator.condition_names
    blocks = [block.conditions for block in reference.blocks()]
    given = {
        name: np.concatenate([block[name] for block in blocks]).astype(np.float64)[rows]
        for name in names
    }
    request = SampleRequest(number, given=given, seed=seed, is_extrapolating=True)
    draw_to_file(generator, request, path, num_threads=available_cores(), is_forced=True)
    return ShowerSet("generated", open_paths([path], geometry=generator.geometry))


def _tables(sets: list[ShowerSet], threshold: float) -> list[ShowerTable]:
    grid = Grid.of(sets[0].geometry)
    edges = spectrum_edges(voxel_range(sets[0], threshold), threshold)
    return [measure(showers, grid, threshold=threshold, spectrum=edges) for showers in sets]


def _sizes(num_training: int, num_generated: int) -> tuple[int, ...]:
    """Give growing sizes from the training sample's to all generated showers."""
    sizes = np.geomspace(min(num_training, num_generated), num_generated, _CURVE_POINTS)
    return tuple(dict.fromkeys(int(size) for size in np.round(sizes)))


def _require_known(names: tuple[str, ...], known: list[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(
                f"no observable of whole showers is called '{name}'",
                where="--observables",
                do=f"use one that exists; {nearest_names(name, known)}",
            )


def _write(out: Path, results: dict[str, Amplification], settings: dict[str, Any]) -> None:
    content = {
        "settings": settings,
        "results": {
            name: {
                **asdict(found),
                "amplification": dict(zip(("value", "error"), found.factor, strict=True)),
                "amplification_jsd": dict(zip(("value", "error"), found.jsd_factor, strict=True)),
            }
            for name, found in results.items()
        },
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    (out / "amplification.json").write_text(text, encoding="utf-8")
    with house_style():
        figure = draw_figure(results)
        for suffix in ("png", "pdf"):
            figure.savefig(out / f"amplification.{suffix}", dpi=140, facecolor="white")


def draw_figure(results: dict[str, Amplification]) -> Figure:
    """Draw the mean square error against the number of showers, a panel an observable."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(results), 4.2), layout="constrained")
    for axes, (name, found) in zip(
        figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True
    ):
        sizes: FloatArray = np.asarray([worth.num_showers for worth in found.generated], float)
        axes.errorbar(
            sizes,
            [worth.mse for worth in found.generated],
            [worth.mse_error for worth in found.generated],
            fmt="o", ms=4, color="#0072b2", label="generated",
        )  # fmt: skip
        size, mse = found.training.num_showers, found.training.mse
        axes.errorbar(
            size, mse, found.training.mse_error, fmt="s", color="#d55e00", label="training"
        )
        one = found.training.mse_showers * mse  # E[MSE] of one true shower
        line = np.geomspace(size / 2, one / found.mse_floor, 50)
        axes.plot(line, one / line, color="#4d4d4d", lw=1, label="true showers, expected")
        axes.axhline(found.mse_floor, color="#bdbdbd", lw=4, label="floor of the reference")
        axes.set(xscale="log", yscale="log", xlabel="number of showers")
        axes.set_ylabel("mean square error of quantile shares")
        axes.set_title(f"{name}, {found.num_cells} cells", fontsize=10, loc="left")
        axes.legend(fontsize=8)
    return figure


def _line(name: str, found: Amplification) -> str:
    value, error = found.factor
    worth = found.generated[-1]
    lines = [
        f"{name} ({found.num_cells} cells): {worth.num_showers} generated showers are worth "
        f"{worth.mse_showers:.0f} ± {worth.mse_showers_error:.0f} true ones, "
        f"{value:.2f} ± {error:.2f} times the {found.training.num_showers} trained on "
        f"(by the divergence {found.jsd_factor[0]:.2f} ± {found.jsd_factor[1]:.2f})"
    ]
    return "\n".join([*lines, *(f"  warning: {words}" for words in found.warnings)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("-o", "--out", type=Path, default=Path("amplification"))
    parser.add_argument(
        "--observables", nargs="+", default=list(DEFAULT_OBSERVABLES),
        help="names of metrics.json; joined by commas they are cut together",
    )  # fmt: skip
    parser.add_argument(
        "-n", "--number", type=int, help="showers to draw [default: 20 times the training showers]"
    )
    parser.add_argument("--quantiles", type=int, default=50, help="cells in all")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
