"""Observables and separation powers of data-set-2 showers, against the official script's way.

    python benchmarks/observables.py --showers 100000 --peer-showers 5000

Both sides get showers that lie in memory, so neither pays for HDF5. The peer (`official_way.py`)
is plain numpy, layer by layer, whole arrays in float64; it runs on a smaller copy and is scaled.
Ours streams the full number, computes every observable of `calo-eval` besides the official ones,
and takes separation powers with one repetition of the floor. Each runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calo_train.geometry import Geometry
    from calo_train.showers.showers import Showers

RESULTS = Path(__file__).parent / "results" / "observables.json"
THRESHOLD = 0.5e-3 / 0.033
DISTINCT = 2000  # showers; more are these again
BLOCK = 1000
OCCUPANCY = 0.23  # about 1,480 of 6,480 voxels, as electrons of 1 GeV to 1 TeV have


@dataclass(frozen=True, eq=False)
class Cycled:
    """A source of showers in memory that are given again and again."""

    showers: Showers
    num_showers: int
    paths: tuple[Path, ...] = (Path("memory.h5"),)

    @property
    def geometry(self) -> Geometry:
        return self.showers.geometry

    def blocks(self) -> Iterator[Showers]:
        """Yield blocks of consecutive showers."""
        for start in range(0, self.num_showers, BLOCK):
            first = start % len(self.showers)
            yield self.showers.rows(slice(first, first + min(BLOCK, self.num_showers - start)))


def make_showers(number: int, seed: int) -> Showers:
    """Make showers that fill as many voxels as data set 2's."""
    import numpy as np
    import yaml

    from calo_train.config_folder import conf_folder
    from calo_train.geometry import geometry_from_mapping
    from calo_train.showers.showers import Showers

    mapping = yaml.safe_load((conf_folder() / "geometry" / "calochallenge_ds2.yaml").read_text())
    geometry = geometry_from_mapping(mapping)
    random = np.random.default_rng(seed)
    shape = (number, geometry.num_voxels)
    incident = np.exp(random.uniform(np.log(1e3), np.log(1e6), number)).astype(np.float32)
    energies = random.exponential(1, shape).astype(np.float32)
    energies *= random.random(shape, dtype=np.float32) < OCCUPANCY
    energies *= (0.9 * incident / energies.sum(axis=1))[:, None]
    return Showers(energies, {"incident_energy": incident}, geometry)


def run_ours(number: int) -> dict[str, Any]:
    """Measure and compare two sets of `number` showers."""
    import torch

    from calo_train.evaluation.deposits import Grid
    from calo_train.evaluation.floor import half_splits
    from calo_train.evaluation.observable_distances import TablePair
    from calo_train.evaluation.official import compare_officially
    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.evaluation.spectrum import spectrum_edges, voxel_range
    from calo_train.evaluation.table import measure

    sets = [
        ShowerSet(label, Cycled(make_showers(min(number, DISTINCT), seed), number))  # type: ignore[arg-type]
        for seed, label in enumerate(("reference", "sample"))
    ]
    grid = Grid.of(sets[0].geometry)
    few = ShowerSet("few", Cycled(sets[0].source.showers, 200))  # type: ignore[arg-type,attr-defined]
    edges = spectrum_edges(voxel_range(few, THRESHOLD), THRESHOLD)
    measure(few, grid, threshold=THRESHOLD, spectrum=edges)  # compiles, once on a machine
    clocks = _Clocks()
    edges = spectrum_edges(voxel_range(sets[0], THRESHOLD), THRESHOLD)
    tables = [measure(entry, grid, threshold=THRESHOLD, spectrum=edges) for entry in sets]
    observables = clocks.lap()
    splits = half_splits(number, number, size=number // 2, repetitions=1, seed=0)
    found = compare_officially(TablePair(*tables, grid, list(splits)), THRESHOLD)
    assert found is not None
    separations = clocks.lap()
    return {
        "observables": observables,
        "separations": separations,
        "threads": torch.get_num_threads(),
        "table_bytes": sum(
            column.nbytes for table in tables for column in table.observables.values()
        ),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "values": {entry.name: entry.separation_all for entry in found.observables},
    }


def run_peer(number: int) -> dict[str, Any]:
    """Do the same for two sets of `number` showers in the official script's way."""
    import numpy as np
    import official_way

    sets = [make_showers(number, seed) for seed in (0, 1)]
    showers = [entry.energies.astype(np.float64) for entry in sets]
    incident = [entry.conditions["incident_energy"].astype(np.float64) for entry in sets]
    edges = tuple(4.65 * edge for edge in range(10))
    layers = [official_way.PolarLayer(index, 16, edges) for index in range(45)]
    clocks = _Clocks()
    features = [official_way.features(rows, layers, THRESHOLD) for rows in showers]
    observables = clocks.lap()
    found = official_way.separations("2", *features, (incident[0], incident[1]), THRESHOLD)
    return {
        "observables": observables,
        "separations": clocks.lap(),
        "values": {name: float(np.mean(list(by.values()))) for name, by in found.items()},
    }


class _Clocks:
    """Wall and processor seconds since the last lap."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def lap(self) -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        taken = {"wall": wall - self._wall, "cpu": cpu - self._cpu}
        self._wall, self._cpu = wall, cpu
        return taken


def measure_side(side: str, number: int) -> dict[str, Any]:
    """Run a side in a fresh process, so that its peak memory is its own."""
    words = [sys.executable, __file__, "--side", side, str(number)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    print(side, json.dumps({k: v for k, v in result.items() if k != "values"}), file=sys.stderr)
    return result


def compare(number: int, peer_number: int, rounds: int) -> dict[str, Any]:
    """Take both sides in turns; medians, the peer's seconds scaled to `number` showers."""
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    for _ in range(rounds):
        runs["peer"].append(measure_side("peer", peer_number))
        runs["ours"].append(measure_side("ours", number))
    seconds = {
        side: {
            clock: statistics.median(
                run["observables"][clock] + run["separations"][clock] for run in found
            )
            * (number / peer_number if side == "peer" else 1)
            for clock in ("wall", "cpu")
        }
        for side, found in runs.items()
    }
    import numpy as np
    import torch

    return {
        "showers": f"2 x {number}",
        "peer_showers": f"2 x {peer_number}, seconds scaled",
        "rounds": rounds,
        "seconds": seconds,
        "ratio": {
            clock: seconds["peer"][clock] / seconds["ours"][clock] for clock in seconds["ours"]
        },
        "runs": runs,
        "machine": {
            "cores": os.cpu_count(),
            "cpu": platform.machine(),
            "threads": runs["ours"][0]["threads"],
        },
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }


def check_values(number: int) -> None:
    """Require that both sides give the same numbers on the same showers."""
    ours, peer = (measure_side(side, number)["values"] for side in ("ours", "peer"))
    for name, value in peer.items():
        assert abs(ours[name] - value) < 1e-6, (name, ours[name], value)


def main() -> None:
    """Compare, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--showers", type=int, default=100_000)
    parser.add_argument("--peer-showers", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "NUMBER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, number = arguments.side
        print(json.dumps({"ours": run_ours, "peer": run_peer}[side](int(number))))
        return
    check_values(DISTINCT)
    result = compare(arguments.showers, arguments.peer_showers, arguments.rounds)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("seconds", "ratio")}, indent=2))


if __name__ == "__main__":
    main()
