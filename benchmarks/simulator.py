"""Showers a second of the parametrised simulator, one thread, for the data sets of conf/dataset.

    python benchmarks/simulator.py

Showers are made in memory; nothing is written. Rates are of CPU time, which another process on
the machine disturbs less than wall time; both are kept. Medians over rounds that take turns. The
peak memory of a process is that of the largest request, which shows that blocks bound it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stopwatch import clock, medians

if TYPE_CHECKING:
    from calo_train.showers.simulator.simulated import SimulatedShowers

RESULTS = Path(__file__).parent / "results" / "simulator.json"
ROUND = 256  # showers that are timed at once
CASES = (
    ("ild_photons_core", "photon", None),
    ("ild_photons_core", "pion", None),
    ("ild_photons_core", "photon", "0:0.4rad"),  # every shower has an axis of its own
    ("ild_photons", "photon", None),
    ("calochallenge_ds2", "electron", None),
)


def rows_of(dataset: str, particle: str, angle: str | None, number: int) -> SimulatedShowers:
    """Give showers of a data set's own energies."""
    from calo_train.cli.inputs import named_dataset
    from calo_train.showers.dataset import simulated_showers

    beam = {"simulator.particle": particle} | ({"simulator.polar_angle": angle} if angle else {})
    return simulated_showers(named_dataset(dataset, beam), number)


def measure(rounds: int) -> list[dict[str, Any]]:
    """Time all cases in turns."""
    rows = [rows_of(*case, ROUND) for case in CASES]

    def draw(index: int) -> tuple[float, float]:
        return clock(lambda: rows[index].read(0, ROUND, rows[index].detector))

    for index in range(len(rows)):
        draw(index)
    samples: list[list[tuple[float, float]]] = [[] for _ in rows]
    for _ in range(rounds):
        for index, found in enumerate(samples):
            found.append(draw(index))
    return [
        described(case, entry.num_voxels, found)
        for case, entry, found in zip(CASES, rows, samples, strict=True)
    ]


def described(
    case: tuple[str, str, str | None], num_voxels: int, samples: list[tuple[float, float]]
) -> dict[str, Any]:
    """Give a case with its rates."""
    cpu, wall = medians(samples)
    return {
        "dataset": case[0],
        "particle": case[1],
        "polar_angle": case[2],
        "voxels": num_voxels,
        "showers_per_cpu_second": ROUND / cpu,
        "fastest_showers_per_cpu_second": ROUND / min(sample[0] for sample in samples),
        "showers_per_wall_second": ROUND / wall,
    }


def peak_bytes(number: int) -> int:
    """Peak memory of a fresh process that makes `number` showers of the ILD core."""
    words = [sys.executable, __file__, "--peak", str(number)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return int(done.stdout)


def make_blocks(number: int) -> None:
    """Read showers as a training does, block by block, and print the peak memory."""
    rows = rows_of("ild_photons_core", "photon", None, number)
    for start in range(0, number, ROUND):
        rows.read(start, min(start + ROUND, number), rows.detector)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        make_blocks(arguments.peak)
        return
    # Before numpy is imported: one thread is what is measured.
    os.environ["OMP_NUM_THREADS"] = "1"
    import h5py
    import llvmlite
    import numpy as np
    import scipy

    from calo_train.training.provenance import processor_name

    load = os.getloadavg()[0]
    result = {
        "rows": measure(arguments.rounds),
        "peak_bytes": {number: peak_bytes(number) for number in (256, 2048)},
        "rounds": arguments.rounds,
        "showers_a_round": ROUND,
        "machine": {
            "cpu": processor_name(),
            "cores": os.cpu_count(),
            "threads": 1,
            "load_at_start": load,
        },
        "versions": {
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "llvmlite": llvmlite.__version__,
            "h5py": h5py.__version__,
        },
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["rows"], indent=2))


if __name__ == "__main__":
    main()
