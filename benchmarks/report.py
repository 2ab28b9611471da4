"""A plain report of `calo-eval` from files to the page, by steps.

    python benchmarks/report.py                                  (the embedded showers)
    python benchmarks/report.py --ds2 electrons_*.h5 --ild photons_*.h5

Sample and reference are drawn with replacement from Monte Carlo showers. Every voxel is scaled by
a factor of its own, so no two showers are equal and no duplicate is found; the number of voxels
and their spectrum stay those of the simulation. The command runs in a process of its own, with
imports, figures and all. On a machine that others use, read the CPU seconds: wall times are not
ours alone, and two threads take at least half of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "report.json"
SPREAD = 0.1  # of the logarithm of the factors


@dataclass(frozen=True)
class Case:
    """A data set of conf/dataset, files to draw from, showers a side, and seconds allowed."""

    dataset: str
    files: tuple[Path, ...]
    num_showers: int
    limit: float | None = None


def resample(case: Case, path: Path, seed: int) -> None:
    """Write `num_showers` showers of the case's files, each voxel scaled at random."""
    from calo_train.cli.inputs import named_dataset
    from calo_train.showers.layouts import create_showers
    from calo_train.showers.showers import Showers
    from calo_train.showers.source import open_paths

    config, random = named_dataset(case.dataset), np.random.default_rng(seed)
    with (
        open_paths(case.files, geometry=config.detector, crop=config.core) as source,
        create_showers(path, config.layout, config.detector, attributes={}) as writer,
    ):
        whole = source.read(0, source.num_showers)
        for start in range(0, case.num_showers, 1000):
            number = min(1000, case.num_showers - start)
            drawn = whole.rows(random.integers(len(whole), size=number))
            factors = np.exp(SPREAD * random.standard_normal(drawn.energies.shape, np.float32))
            writer.append(Showers(drawn.energies * factors, drawn.conditions, config.detector))


def judge(case: Case, folder: Path, threads: int) -> dict[str, Any]:
    """Run `calo-eval` on two files; seconds and peak memory of the process and its children."""
    sample, reference = folder / "sample.h5", folder / "reference.h5"
    for seed, path in enumerate((sample, reference)):
        resample(case, path, seed)
    words = [sys.executable, "-m", "calo_train.cli.evaluate", str(sample), "--quiet"]
    words += ["--reference", str(reference), "--dataset", case.dataset, "--out", str(folder / "o")]
    started = time.perf_counter()
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": str(threads)}
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if status:
        raise SystemExit(f"calo-eval of {case.dataset} ended with {status}")
    metrics = json.loads((folder / "o" / "metrics.json").read_text())
    return {
        "dataset": case.dataset,
        "showers": f"2 x {case.num_showers}",
        "threads": threads,
        "files": [path.name for path in case.files],
        "wall": round(wall, 1),
        "cpu": round(used.ru_utime + used.ru_stime, 1),
        "limit": case.limit,
        "peak_bytes": used.ru_maxrss * 1024,
        "page_bytes": (folder / "o" / "report.html").stat().st_size,
        "wall_of_steps": metrics["durations"],
    }


def cases(arguments: argparse.Namespace) -> list[Case]:
    """Give the cases whose showers are at hand."""
    from calo_train.showers.paths import embedded_file

    found = [Case("ild_sample", (embedded_file("ild_sample.h5"),), 5000)]
    if arguments.ds2:
        found.append(Case("calochallenge_ds2", tuple(arguments.ds2), 5000, 300.0))
    if arguments.ild:
        found.append(Case("ild_photons", tuple(arguments.ild), 4000, 480.0))
    return found


def write(rows: list[dict[str, Any]]) -> None:
    """Keep what was measured so far."""
    import torch

    from calo_train.machine import processor_name

    result = {
        "load_at_end": round(os.getloadavg()[0], 1),
        "machine": {"cores": os.cpu_count(), "cpu": processor_name()},
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "reports": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ds2", type=Path, nargs="+", help="showers of CaloChallenge data set 2")
    parser.add_argument("--ild", type=Path, nargs="+", help="photons on the 30x30x30 grid")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for case in cases(arguments):
        with tempfile.TemporaryDirectory(prefix="calo-report-") as folder:
            rows.append(judge(case, Path(folder), arguments.threads))
        write(rows)
        print(json.dumps(rows[-1], indent=2))


if __name__ == "__main__":
    main()
