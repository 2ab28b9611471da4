"""Drawing and training on a GPU, and the tuning of the kernel that inverts flows there.

- check: the kernel against the float64 walk on the CPU, on the published causal flow of L2LFlows.
- sweep: the kernel's tile, on that flow, milliseconds an inverse of 1,000 and of 10,000 showers.
- sampling: whole showers of a generator of the published L2LFlows size (`sampling.py`: 31 flows,
  45 million weights) by the CaloChallenge's protocol, noise included, file left out. A batch
  smaller than a tile is filled up, and so costs a tile. `flows_ms` is the same tile with its noise
  already on the device. nflows' own inverse is one causal flow at 1,000 showers, times 30.
- training: a step of 30 causal flows, stacked and one after the other (`training_step.py`).

A section that fails prints its traceback and is left out. Results are written after every section.

    python benchmarks/gpu.py [--sections check sweep sampling training]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
import training_step
from flow_cases import CASES
from sampling import build_generator

from calo_train.evaluation.timing import TimingProtocol, time_batch
from calo_train.families import place
from calo_train.families.generator import Generator, load_generator
from calo_train.kernels.noise import normals
from calo_train.machine import available_cores, processor_name
from calo_train.nn import pack
from calo_train.nn.flow_steps import read_flow
from calo_train.nn.triton_walk import GpuTile, TritonWalk
from calo_train.sampling.request import SampleRequest, trained_laws

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parent / "results" / "gpu.json"
CAUSAL = next(case for case in CASES if case.name == "l2lflows-causal")
NUM_CAUSAL = 30
GPU = torch.device("cuda")
REPETITIONS = 5
TILES = (
    GpuTile(),
    GpuTile(lanes=4),
    GpuTile(lanes=16),
    GpuTile(lanes=16, num_warps=2),
    GpuTile(num_warps=2),
    GpuTile(num_warps=8),
    GpuTile(sources=4, num_warps=8),
    GpuTile(sources=4, unroll=8),
    GpuTile(unroll=32),
    GpuTile(unroll=8),
    GpuTile(few_sources=64),
    GpuTile(few_rows=4, few_sources=64),
    GpuTile(rows=16),
)


@dataclass(frozen=True)
class Case:
    """A way of drawing whole showers: with which backend, and batches by tile."""

    backend: str
    dtype: str
    device: str
    batches: dict[int, tuple[int, ...]]  # tile -> sizes of batches
    repetitions: int = REPETITIONS

    @property
    def threads(self) -> int:
        return available_cores() if self.device == "cpu" else 1


SAMPLING = (
    Case("triton", "float32", "cuda", {
        1_000: (1, 100, 1_000, 10_000), 10_000: (10_000,), 1: (1,), 100: (100,)
    }),
    Case("triton", "float64", "cuda", {1_000: (1_000, 10_000), 10_000: (10_000,)}),
    Case("compiled", "float32", "cpu", {1_000: (1, 100, 1_000, 10_000)}, 2),
    Case("torch", "float32", "cuda", {1_000: (1_000,), 10_000: (10_000,)}, 1),
)  # fmt: skip


def check() -> list[dict[str, Any]]:
    """Compare with the walk on the CPU in float64: largest differences."""
    rows = []
    for dtype in (torch.float64, torch.float32):
        flow = CAUSAL.build(dtype)
        packed = pack(flow, device=GPU, backend="triton")
        for number in (1, 37, 1_000):
            noise, context = CAUSAL.draw(number, dtype)
            expected = pack(flow, dtype=torch.float64).inverse_with_log_det(noise, context)
            found = packed.inverse_with_log_det(noise, context)
            features, log_det = (
                float((ours.cpu().double() - theirs).abs().max())
                for ours, theirs in zip(found, expected, strict=True)
            )
            rows.append({
                "dtype": str(dtype), "number": number, "features": features, "log_det": log_det,
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def sweep() -> list[dict[str, Any]]:
    """Time one causal flow in float32 for several tiles of the kernel."""
    started = time.perf_counter()
    with ProcessPoolExecutor(
        min(8, available_cores()), mp_context=get_context("spawn")
    ) as processes:
        list(processes.map(compile_tile, TILES))  # into Triton's cache on disk
    print(f"compiled {len(TILES)} tiles in {time.perf_counter() - started:.0f} s", flush=True)
    flow = CAUSAL.build(torch.float32)
    rows = []
    for tile in TILES:
        try:
            rows.append({**asdict(tile), **time_tile(flow, tile)})
            print(rows[-1], flush=True)
        except Exception:  # noqa: BLE001  # a tile too large for this GPU is a result too
            print(tile, traceback.format_exc(limit=1), flush=True)
    return rows


def compile_tile(tile: GpuTile) -> None:
    """Compile the kernel for a tile; time_tile tells what went wrong."""
    try:
        time_tile(CAUSAL.build(torch.float32), tile, numbers=(1,), repetitions=1)
    except Exception:  # noqa: BLE001
        return


def time_tile(
    flow: Any,
    tile: GpuTile,
    *,
    numbers: tuple[int, ...] = (1_000, 10_000),
    repetitions: int = REPETITIONS,
) -> dict[str, float]:
    """Give milliseconds of one inverse by number of showers."""
    walk = TritonWalk(read_flow(flow), torch.float32, GPU, tile)
    found = {}
    for number in numbers:
        noise, context = (values.to(GPU) for values in CAUSAL.draw(number, torch.float32))
        seconds = timed(lambda: walk.invert(noise, context, log_abs_det=None), repetitions)  # noqa: B023
        found[f"ms_{number}"] = 1000 * seconds
    return found


def timed(work: Callable[[], object], repetitions: int) -> float:
    """Give the median of seconds, until the GPU is done; a first call is not counted."""
    work()
    found = []
    for _ in range(repetitions):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def sampling() -> list[dict[str, Any]]:
    """Time whole showers, and nflows' own inverse of their causal flows."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        build_generator(Path(folder))
        generator = load_generator(Path(folder))
        for case in SAMPLING:
            try:
                rows += draw_case(generator, case)
            except Exception:  # noqa: BLE001
                traceback.print_exc()
    try:
        rows.append(nflows_inverse())
        print(rows[-1], flush=True)
    except Exception:  # noqa: BLE001
        traceback.print_exc()
    return rows


def draw_case(generator: Generator, case: Case) -> list[dict[str, Any]]:
    """Time one way of drawing."""
    started = time.perf_counter()
    with mock.patch.object(place, "pack", partial(pack, backend=case.backend)):
        sampler = generator.sampler(
            dtype=getattr(torch, case.dtype), device=torch.device(case.device)
        )
    packing = time.perf_counter() - started
    rows = []
    before = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    for tile, sizes in case.batches.items():
        sampler.tile = tile
        flows = None
        if case.backend == "triton":
            noise, columns = inputs(generator, sampler, 0)
            on_device = noise.to(GPU, getattr(torch, case.dtype))
            flows = 1000 * timed(lambda: sampler.draw(on_device, columns), case.repetitions)  # noqa: B023
        for size in sizes:
            protocol = TimingProtocol((size,), case.repetitions, limit=40.0)
            found = time_batch(partial(draw_tile, generator, sampler), size, tile, protocol)
            rows.append({
                "backend": case.backend, "dtype": case.dtype, "device": case.device,
                "threads": case.threads, "tile": tile, "batch": size, "ms_a_shower": found.median,
                "all_ms_a_shower": found.milliseconds, "note": found.note,
                "flows_ms": flows, "packing_s": packing,
            })  # fmt: skip
            print(rows[-1], flush=True)
    torch.set_num_threads(before)
    return rows


def inputs(generator: Generator, sampler: Any, number: int) -> tuple[torch.Tensor, Any]:
    """Give base noise and conditions of a tile."""
    request = SampleRequest(1, trained_laws(generator), seed=0)
    first = number * sampler.tile
    conditions = request.conditions(first, sampler.tile)
    noise = torch.from_numpy(normals(0, first, sampler.tile, sampler.num_normals))
    return noise, {name: torch.from_numpy(values) for name, values in conditions.items()}


def draw_tile(generator: Generator, sampler: Any, number: int) -> None:
    """Draw a tile and bring it to the host."""
    noise, columns = inputs(generator, sampler, number)
    sampler.draw(noise, columns).energies.cpu()


def nflows_inverse() -> dict[str, Any]:
    """Time nflows' own inverse of one causal flow on the GPU."""
    number = 1_000
    for dtype in (torch.float32, torch.float64):
        packed = pack(CAUSAL.build(dtype), device=GPU, backend="reference")
        noise, context = (values.to(GPU) for values in CAUSAL.draw(number, dtype))
        try:
            seconds = timed(lambda: packed.inverse(noise, context), 1)  # noqa: B023
        except AssertionError:  # rounding made a discriminant negative
            continue
        return {
            "backend": "nflows", "dtype": str(dtype), "device": "cuda", "batch": number,
            "ms_a_shower": 1000 * seconds * NUM_CAUSAL / number,
            "note": f"one causal flow, times {NUM_CAUSAL}; energy flow, noise and cut left out",
        }  # fmt: skip
    raise SystemExit("nflows stopped in both precisions")


def training() -> list[dict[str, Any]]:
    """Time a step of 30 causal flows."""
    rows = []
    for batch in (256, 1024):
        rows.append(training_step.measure(NUM_CAUSAL, batch, REPETITIONS, device=GPU))
        print(rows[-1], flush=True)
    return rows


def machine() -> dict[str, Any]:
    """Say what the figures were measured on."""
    about: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "cpu": processor_name(),
        "cores": available_cores(),
        "python": platform.python_version(),
    }
    return {**about, **{name: version(name) for name in ("torch", "triton", "nflows", "numpy")}}


def main() -> None:
    """Measure, print and write the results."""
    sections = {"check": check, "sweep": sweep, "sampling": sampling, "training": training}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sections", nargs="+", choices=list(sections), default=list(sections))
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no GPU of CUDA here: nothing is measured, the results stay")
        return
    logging.basicConfig(level=logging.INFO)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, Any] = {"machine": machine()}
    print(found["machine"], flush=True)
    arguments.output.parent.mkdir(exist_ok=True)
    for name in arguments.sections:
        started = time.perf_counter()
        try:
            found[name] = sections[name]()
        except Exception:  # noqa: BLE001  # the others are still worth having
            traceback.print_exc()
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        arguments.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
