"""Whole L2LFlows showers, from a request to an HDF5 file, and where the time goes.

A generator of the paper's size (30 x 10 x 10 voxels, 31 flows with 45 million weights,
arXiv:2302.11594) with seeded weights: nflows' initial ones plus normal numbers of width 0.03, so
that the splines are curved. Such flows spread a layer's energy evenly over its voxels, so the
threshold is set where about an eighth of them passes it, as in showers of photons: what a file
costs depends on that.

Each request is drawn whole, flows, noise, cut, tiles and file; loading and packing the weights is
given beside it, since it happens once. The pieces are those of one tile on one thread. Peak memory
is that of processes which draw n and 10 n showers (Linux).

    python benchmarks/sampling.py [--number 4000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from stopwatch import clock, medians

from calo_train.config_folder import conf_folder
from calo_train.families.generator import Generator, load_generator, save_generator
from calo_train.families.l2lflows import L2LFlows
from calo_train.families.settings import build_family
from calo_train.geometry import geometry_from_mapping
from calo_train.kernels.noise import normals
from calo_train.machine import processor_name
from calo_train.quantities import Spectrum
from calo_train.sampling.draw import draw_to_file
from calo_train.sampling.request import SampleRequest
from calo_train.sampling.tile_store import Tile, TileStore
from calo_train.showers.layouts import create_showers
from calo_train.showers.paths import embedded_file
from calo_train.showers.showers import Showers
from calo_train.showers.source import open_paths
from calo_train.showers.statistics import gather_statistics

if TYPE_CHECKING:
    from collections.abc import Callable

STIRRED = 0.03
THRESHOLD = 40.0  # MeV
DTYPES = ("float64", "float32")
PIECES = ("noise", "flows", "contexts, cut", "tile stored", "tile loaded", "file written")
LAYOUT = "getting_high"
LAWS = {"incident_energy": Spectrum(10_000.0, 100_000.0)}
RESULTS = Path(__file__).parent / "results" / "sampling.json"

Seconds = tuple[float, float]  # of CPU and of the clock


def build_generator(folder: Path) -> None:
    """Save a generator of the paper's size with seeded weights."""
    family = build_family(_conf("model", "l2lflows"), where="model")
    assert isinstance(family, L2LFlows)
    geometry = geometry_from_mapping(_conf("geometry", "ild_30x10x10"))
    with open_paths([embedded_file("ild_sample.h5")], geometry=geometry) as source:
        known = gather_statistics([source.read(0, source.num_showers)], geometry)
    torch.manual_seed(0)
    parts = {}
    for stage in family.stages(geometry, known, THRESHOLD):
        for index, name in enumerate(stage.part_names):
            part = stage.build_part(index)
            with torch.no_grad():
                for parameter in part.parameters():
                    parameter.add_(STIRRED * torch.randn_like(parameter))
            parts[f"{stage.name}/{name}"] = part.state_dict()
    target = "calo_train.families.l2lflows.L2LFlows"
    conditions = ("incident_energy",)
    save_generator(
        folder,
        Generator(
            family, target, geometry, known, THRESHOLD, "benchmark", "", LAYOUT, conditions, parts
        ),
    )


def whole_requests(generator: Generator, number: int, rounds: int, folder: Path) -> list[Any]:
    """Draw a request in both precisions on one thread and on two, in turns."""
    cases = [(dtype, threads) for dtype in DTYPES for threads in (1, 2)]
    samples: dict[tuple[str, int], list[Seconds]] = {case: [] for case in cases}
    packing: dict[str, list[Seconds]] = {dtype: [] for dtype in DTYPES}
    for _ in range(rounds):
        for dtype, threads in cases:
            packing[dtype].append(clock(lambda d=dtype: build_sampler(generator, d)))
            samples[dtype, threads].append(
                clock(lambda d=dtype, t=threads: draw(generator, number, folder, d, t))
            )
    rows = []
    for (dtype, threads), found in samples.items():
        (cpu, wall), packed = medians(found), medians(packing[dtype])
        rows.append(
            {
                "dtype": dtype,
                "threads": threads,
                "number": number,
                "packing": {"cpu_s": packed[0], "wall_s": packed[1]},
                "a_shower": {
                    "cpu_ms": 1000 * (cpu - packed[0]) / number,
                    "wall_ms": 1000 * (wall - packed[1]) / number,
                },
            }
        )
    return rows


def draw(generator: Generator, number: int, folder: Path, dtype: str, threads: int) -> None:
    """Draw a request to a file."""
    draw_to_file(
        generator,
        SampleRequest(number, LAWS),
        folder / "showers.h5",
        num_threads=threads,
        dtype=getattr(torch, dtype),
        is_forced=True,
    )


def build_sampler(generator: Generator, dtype: str) -> Any:
    """Pack the flows."""
    return generator.sampler(dtype=getattr(torch, dtype), device=torch.device("cpu"))


class Timed:
    """A packed flow that adds up the CPU seconds of its inverse."""

    seconds = 0.0

    def __init__(self, flow: Any) -> None:
        self._flow = flow

    def inverse(self, *arguments: Any) -> Any:
        """Invert, timed."""
        started = time.process_time()
        found = self._flow.inverse(*arguments)
        Timed.seconds += time.process_time() - started
        return found


def pieces(generator: Generator, dtype: str, rounds: int, folder: Path) -> dict[str, float]:
    """Give CPU microseconds a shower of each piece of a tile, on one thread."""
    torch.set_num_threads(1)
    sampler, tile = build_sampler(generator, dtype), generator.family.tile
    sampler._energy_flow = Timed(sampler._energy_flow)
    sampler._causal_flows = [Timed(flow) for flow in sampler._causal_flows]
    request, store = SampleRequest(tile, LAWS), TileStore(folder)
    incident = request.conditions(0, tile)["incident_energy"]
    conditions = {"incident_energy": torch.from_numpy(incident)}
    base = torch.from_numpy(normals(0, 0, tile, sampler.num_normals))
    energies = sampler.draw(base, conditions).energies.numpy()
    flows: list[float] = []

    def draw_tile() -> None:
        Timed.seconds = 0.0
        sampler.draw(base, conditions)
        flows.append(Timed.seconds)

    def write() -> None:
        showers = Showers(
            energies, {"incident_energy": incident.astype(np.float32)}, generator.geometry
        )
        path = folder / "tile.h5"
        with create_showers(path, LAYOUT, generator.geometry, attributes={}) as writer:
            writer.append(showers)

    works: dict[str, Callable[[], Any]] = {
        "noise": lambda: normals(0, 0, tile, sampler.num_normals),
        "draw": draw_tile,
        "tile stored": lambda: store.save(Tile(0, 0, energies, {})),
        "tile loaded": lambda: store.load(0),
        "file written": write,
    }
    samples: dict[str, list[Seconds]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            samples[name].append(clock(work))
    found = {name: 1e6 / tile * medians(times)[0] for name, times in samples.items()}
    found["flows"] = 1e6 / tile * statistics.median(flows)
    found["contexts, cut"] = found.pop("draw") - found["flows"]
    return {name: found[name] for name in PIECES}


def peak_bytes(generator_folder: Path, number: int) -> int:
    """Give the peak memory of a process that draws a request."""
    command = [sys.executable, __file__, "--peak", str(number), str(generator_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def print_peak(number: int, generator_folder: Path) -> None:
    """Draw a request on two threads and print the peak memory in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        draw(load_generator(generator_folder), number, Path(folder), "float32", 2)
    # Unlike getrusage, which tells of the process before it became this one, too.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(1024 * int(status.partition("VmHWM:")[2].split()[0]))


def _conf(group: str, name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((conf_folder() / group / f"{name}.yaml").read_text("utf-8")))


def measure(number: int, rounds: int) -> dict[str, Any]:
    """Measure everything on one generator."""
    with tempfile.TemporaryDirectory() as folder:
        build_generator(Path(folder) / "generator")
        generator = load_generator(Path(folder) / "generator")
        draw(generator, 1, Path(folder), "float64", 1)  # compile, or load what was compiled
        draw(generator, 1, Path(folder), "float32", 1)
        return {
            "requests": whole_requests(generator, number, rounds, Path(folder)),
            "pieces_us": {
                dtype: pieces(generator, dtype, rounds, Path(folder)) for dtype in DTYPES
            },
            "peak_bytes": {
                str(count): peak_bytes(Path(folder) / "generator", count)
                for count in (number, 10 * number)
            },
        }


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--number", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak is not None:
        print_peak(int(arguments.peak[0]), Path(arguments.peak[1]))
        return
    found = measure(arguments.number, arguments.rounds)
    about = {
        "cpu": processor_name(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "h5py", "llvmlite")},
    }
    text = json.dumps({"machine": about, **found}, indent=2)
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()
