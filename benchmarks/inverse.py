"""Incremental inverse of L2LFlows' causal flow against nflows' own inverse.

The flow has the published shape: 100 features, 4 MADEs with 2 hidden layers of 128, splines of 8
bins, a context of 64 (arXiv:2302.11594). Weights are nflows' initial ones plus normal numbers of
width 0.03, so that the splines are curved. Both sides hold the same weights, run in one process
and take turns; figures are medians.

nflows inverts by D identical passes for each MADE. One full inverse is run for each batch size and
its features are compared; the timing takes a few of these passes and multiplies them, and the
full run is printed beside it as a check. Which one a shared machine disturbs shows in the
difference between CPU and wall time.

    python benchmarks/inverse.py [--threads 1] [--rounds 5] [--batch 1 100 1000]
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from calo_train.nn import pack
from calo_train.nn.flows import MaskedSplineFlow

if TYPE_CHECKING:
    from collections.abc import Callable

    from nflows.flows import Flow

FEATURES, CONTEXT, NUM_MADES = 100, 64, 4
STIRRED = 0.03
NUM_PASSES = 2  # of each MADE in one round
RESULTS = Path(__file__).parent / "results" / "inverse.json"
LARGEST_DIFFERENCE = 1e-9  # float64


def causal_flow() -> Flow:
    """Build the flow in float64 with seeded weights."""
    torch.manual_seed(0)
    shape = MaskedSplineFlow(NUM_MADES, 1, 128, 8, 14.0, "reverse", 1e-6, 0.0)
    flow = shape.build(FEATURES, CONTEXT).double().eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(STIRRED * torch.randn_like(parameter))
    return flow


def nflows_passes(flow: Flow, base_noise: Tensor, context: Tensor) -> None:
    """Run NUM_PASSES of the D passes of nflows' inverse in each MADE."""
    for transform in flow._transform._transforms[1::2]:
        outputs = torch.zeros_like(base_noise)
        for _ in range(NUM_PASSES):
            parameters = transform.autoregressive_net(outputs, context)
            outputs, _ = transform._elementwise_inverse(base_noise, parameters)


def clock(work: Callable[[], object]) -> tuple[float, float]:
    """Give CPU and wall seconds of some work."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def medians(samples: list[tuple[float, float]], factor: float) -> dict[str, float]:
    """Give the medians of CPU and wall seconds, multiplied."""
    cpu, wall = zip(*samples, strict=True)
    return {
        "cpu_s": factor * statistics.median(cpu),
        "wall_s": factor * statistics.median(wall),
    }


@torch.no_grad()
def measure(flow: Flow, batch: int, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """Compare the two inverses of one batch in one precision."""
    random = torch.Generator().manual_seed(batch)
    base_noise = torch.randn(batch, FEATURES, generator=random, dtype=torch.float64)
    context = torch.randn(batch, CONTEXT, generator=random, dtype=torch.float64)
    exact = pack(flow).inverse(base_noise, context)
    flow = copy.deepcopy(flow).to(dtype)
    base_noise, context = base_noise.to(dtype), context.to(dtype)
    packed = pack(flow)
    ours = packed.inverse(base_noise, context)
    found: list[Tensor] = []
    full = clock(lambda: found.append(flow._transform.inverse(base_noise, context)[0]))
    theirs: list[tuple[float, float]] = []
    mine: list[tuple[float, float]] = []
    for _ in range(rounds):
        theirs.append(clock(lambda: nflows_passes(flow, base_noise, context)))
        mine.append(clock(lambda: packed.inverse(base_noise, context)))
    nflows, incremental = medians(theirs, FEATURES / NUM_PASSES), medians(mine, 1.0)
    return {
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        "nflows": nflows,
        "nflows_one_full_run": {"cpu_s": full[0], "wall_s": full[1]},
        "incremental": incremental,
        "ratio_cpu": nflows["cpu_s"] / incremental["cpu_s"],
        "ratio_wall": nflows["wall_s"] / incremental["wall_s"],
        "largest_difference_to_nflows": float((ours - found[0]).abs().max()),
        "largest_difference_to_float64": float((ours - exact).abs().max()),
    }


def machine(threads: int) -> dict[str, Any]:
    """Say what the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "threads": threads,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "nflows", "numpy")},
    }


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 100, 1000])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    about = machine(arguments.threads)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"nflows: {NUM_PASSES} of its {FEATURES} passes, multiplied; one full run in brackets")
    flow, rows = causal_flow(), []
    for batch in arguments.batch:
        for dtype in (torch.float64, torch.float32):
            row = measure(flow, batch, dtype, arguments.rounds)
            rows.append(row)
            print(
                f"batch {batch:>5} {row['dtype']}: nflows {row['nflows']['cpu_s']:8.2f} s "
                f"({row['nflows_one_full_run']['cpu_s']:.2f}), incremental "
                f"{row['incremental']['cpu_s']:.4f} s, ratio {row['ratio_cpu']:.0f} (CPU) "
                f"{row['ratio_wall']:.0f} (wall), largest difference "
                f"{row['largest_difference_to_nflows']:.1e}",
                flush=True,
            )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": about, "rows": rows}, indent=2) + "\n")
    print(f"written: {RESULTS}")
    differing = [row for row in rows if row["dtype"] == "float64"]
    if any(row["largest_difference_to_nflows"] > LARGEST_DIFFERENCE for row in differing):
        raise SystemExit(f"the inverses differ by more than {LARGEST_DIFFERENCE}")


if __name__ == "__main__":
    main()
