"""What float32 changes: the same request drawn in both precisions, shower by shower.

Both draw from the same base noise at the same conditions, so a difference is rounding alone: a
voxel near the threshold that is kept in one and cut in the other, or a spline that is nearly flat.
For each observable of calo-eval the separation power between the two samples stands beside that
between two float64 samples of different noise (the floor, chance alone), with the mean and largest
change of a shower in units of the observable's width.

    python scripts/precision_study.py RUN [-n 10000] [--threads 2]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from calo_train.cli.inputs import generator_folder
from calo_train.evaluation.deposits import Deposits, Grid
from calo_train.evaluation.distances import automatic_binning, separation_power
from calo_train.evaluation.observables import OBSERVABLES
from calo_train.families.generator import Generator, load_generator
from calo_train.sampling.draw import draw_to_file
from calo_train.sampling.request import SampleRequest, trained_laws
from calo_train.showers.source import open_paths

if TYPE_CHECKING:
    import numpy.typing as npt

    from calo_train.evaluation.observables import Observable
    from calo_train.showers.showers import Showers

    FloatArray = npt.NDArray[np.float64]


def drawn(
    generator: Generator, request: SampleRequest, dtype: torch.dtype, num_threads: int
) -> Showers:
    """Draw a request and read it back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "showers.h5"
        draw_to_file(generator, request, path, num_threads=num_threads, dtype=dtype)
        with open_paths([path], geometry=generator.geometry) as source:
            return source.read(0, source.num_showers)


def observables(showers: Showers, grid: Grid) -> dict[str, FloatArray]:
    """Measure all showers; what the generator gave is above the threshold already."""
    incident = showers.conditions["incident_energy"].astype(np.float64)
    deposits = Deposits(showers.energies, incident, grid)
    return {name: observable.measure(deposits) for name, observable in OBSERVABLES.items()}


def separation(observable: Observable, exact: FloatArray, other: FloatArray) -> float:
    """Give the separation power, of observables that are one for each layer the largest."""
    if exact.ndim == 2:
        columns = zip(exact.T, other.T, strict=True)
        return max(separation(observable, *pair) for pair in columns)
    binning = automatic_binning(exact, observable.scale, is_count=observable.is_count)
    return separation_power(binning.counts(exact), binning.counts(other))


def main() -> None:
    """Draw three samples and print a line for each observable."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("-n", "--number", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    generator = load_generator(generator_folder(arguments.run.expanduser()))
    laws, grid = trained_laws(generator), Grid.of(generator.geometry)
    request = SampleRequest(arguments.number, laws, seed=0)
    other = SampleRequest(arguments.number, laws, seed=1)
    double, single, floor = (
        drawn(generator, wanted, dtype, arguments.threads)
        for wanted, dtype in (
            (request, torch.float64),
            (request, torch.float32),
            (other, torch.float64),
        )
    )
    is_switched = (double.energies > 0) != (single.energies > 0)
    print(
        f"{len(double)} showers; {is_switched.mean():.2e} of their voxels are hit in one "
        f"precision only, in {is_switched.any(axis=1).mean():.2%} of the showers"
    )
    print(f"{'':28} {'separation':>12} {'floor':>10} {'mean change':>12} {'largest':>10}")
    exact, rounded, independent = (observables(sample, grid) for sample in (double, single, floor))
    for name, observable in OBSERVABLES.items():
        width = exact[name].std(axis=0)
        change = np.abs(rounded[name] - exact[name]) / np.where(width > 0, width, 1.0)
        print(
            f"{name:28} {separation(observable, exact[name], rounded[name]):12.2e} "
            f"{separation(observable, exact[name], independent[name]):10.2e} "
            f"{change.mean():12.2e} {change.max():10.2e}"
        )


if __name__ == "__main__":
    main()
