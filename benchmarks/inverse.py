"""Drawing from masked autoregressive flows: the walk by degree against nflows and zuko.

For each flow, batch, precision and number of threads: our inverse, our own forward pass, nflows'
inverse with the same weights, zuko's inverse of the same shape. They take turns in one process;
figures are medians and minima of CPU time (of all threads) and wall time. What would take longer
than a second is timed by one of its identical passes and multiplied; every row says so. One such
product is checked by a full run. Whatever does not fit into --minutes is listed as skipped.

results/inverse.json holds, times in seconds for a whole batch:
- program, hardware, settings: versions, processor and its load before, the options of the run;
- cases: shapes, weights, source;
- rows: case, batch, dtype, threads, and under inverse, own_forward, nflows and zuko {cpu, cpu_min,
  wall, wall_min, rounds}; nflows and zuko also have how: full, or what was multiplied;
- equality, per case: largest difference of features and log-determinant to nflows' full inverse in
  float64 (batch 16), and of our float32 features to our float64 ones (batch 1000);
- product_check: a full nflows inverse beside its product;
- growth: features and rows as above, one MADE with as many hidden units as features;
- first_inverse: per precision, a fresh process with an empty and a filled kernel cache;
- skipped: what was left out, and why; is_complete: false where the run was interrupted.

Exits with 1 where float64 differs from nflows by more than 1e-10.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from first_inverse import first_inverses
from flow_cases import CASES, FlowCase, square_case
from inverse_works import (
    Inputs,
    PeerWork,
    fold_masks,
    nflows_inverse,
    own_forward,
    own_inverse,
    zuko_inverse,
    zuko_made,
)
from stopwatch import clock, take_turns

from calo_train.nn import pack
from calo_train.training.provenance import describe_hardware, describe_program

RESULTS = Path(__file__).parent / "results" / "inverse.json"
LARGEST_DIFFERENCE = 1e-10  # float64, features
EQUALITY_BATCH, PRECISION_BATCH = 16, 1000
CHECKED = ("l2lflows-causal", 100)  # product of passes against a full run
GROWTH = (10, 30, 100, 300, 1000)
GROWTH_BATCH = 1000
LISTS = ("rows", "equality", "product_check", "growth", "skipped")
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


@dataclass
class Bench:
    """Limits of a run and what it has found so far, which is written as it comes."""

    rounds: int
    seconds: float
    stop: float  # on time.monotonic
    output: Path
    found: dict[str, Any] = field(default_factory=lambda: {name: [] for name in LISTS})

    def add(self, name: str, entry: dict[str, Any]) -> None:
        """Keep an entry of one of the lists."""
        self.found[name].append(entry)
        self.write(is_complete=False)

    def write(self, *, is_complete: bool) -> None:
        """Write everything; a run that was interrupted can be told."""
        self.found["is_complete"] = is_complete
        text = json.dumps(self.found, indent=1) + "\n"
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.output.write_text(text, encoding="utf-8")

    def has_time(self, what: str) -> bool:
        """Tell whether time is left; else note that `what` was skipped."""
        if time.monotonic() < self.stop:
            return True
        self.add("skipped", {"what": what, "why": "--minutes were over"})
        print(f"skipped: {what}, --minutes were over", flush=True)
        return False


def measure(bench: Bench, inputs: Inputs, zuko: torch.nn.Module | None) -> dict[str, Any]:
    """Time all works of one batch in turns."""
    peers: dict[str, PeerWork] = {"nflows": nflows_inverse(inputs)}
    if zuko is not None:
        peers["zuko"] = zuko_inverse(inputs, zuko)
    works = {"inverse": own_inverse(inputs), "own_forward": own_forward(inputs)}
    works |= {name: peer.work for name, peer in peers.items()}
    seconds = take_turns(works, bench.rounds, bench.seconds)
    row: dict[str, Any] = {name: asdict(found) for name, found in seconds.items()}
    for name, peer in peers.items():
        row[name]["how"] = peer.how
    return row


def measure_case(bench: Bench, case: FlowCase, batches: list[int], threads: int) -> None:
    """Time one flow in both precisions."""
    torch.set_num_threads(threads)
    for dtype_name, dtype in PRECISIONS.items():
        head = {"case": case.name, "dtype": dtype_name, "threads": threads}
        if not bench.has_time(" ".join(map(str, head.values()))):
            continue
        flow = case.build(dtype)
        packed, zuko = pack(flow), zuko_made(case, dtype)
        for batch in batches:
            if bench.has_time(f"{' '.join(map(str, head.values()))} batch {batch}"):
                inputs = Inputs.of(case, flow, packed, batch)
                row = {**head, "batch": batch, **measure(bench, inputs, zuko)}
                bench.add("rows", row)
                print(line(row), flush=True)


def compare(bench: Bench, case: FlowCase) -> None:
    """Compare with nflows' full inverse, and float32 with float64."""
    torch.set_num_threads(1)
    flow = case.build(torch.float64)
    packed = pack(flow)
    noise, context = case.draw(EQUALITY_BATCH, torch.float64)
    ours, log_det = packed.inverse_with_log_det(noise, context)
    noise_many, context_many = case.draw(PRECISION_BATCH, torch.float64)
    exact = packed.inverse(noise_many, context_many)
    rounded = pack(flow, dtype=torch.float32).inverse(noise_many, context_many)
    theirs, their_log_det = fold_masks(flow)._transform.inverse(noise, context)
    differences = (rounded - exact).abs().flatten()
    entry = {
        "case": case.name,
        "features": float((ours - theirs).abs().max()),
        "log_det": float((log_det - their_log_det).abs().max()),
        "float32_quantile_999": float(differences.kthvalue(int(0.999 * len(differences))).values),
        "float32_max": float(differences.max()),
    }
    bench.add("equality", entry)
    print(
        f"{case.name}: float64 against nflows {entry['features']:.1e}, log-det "
        f"{entry['log_det']:.1e}; float32 against float64 {entry['float32_max']:.1e}",
        flush=True,
    )


def check_product(bench: Bench, case: FlowCase, batch: int) -> None:
    """Run nflows' inverse in full where its time is a product, in float32 with one thread."""
    torch.set_num_threads(1)
    flow = case.build(torch.float32)
    inputs = Inputs.of(case, flow, pack(flow), batch)
    peer = nflows_inverse(inputs)
    product = take_turns({"nflows": peer.work}, bench.rounds, bench.seconds)["nflows"]
    cpu, wall = clock(lambda: flow._transform.inverse(inputs.noise, inputs.context))
    entry: dict[str, Any] = {"case": case.name, "batch": batch, "dtype": "float32"}
    entry |= {"how": peer.how, "product": asdict(product), "full": {"cpu": cpu, "wall": wall}}
    bench.add("product_check", entry)
    print(f"nflows in full: {cpu:.2f} s of CPU, by its product {product.cpu:.2f} s", flush=True)


def measure_growth(bench: Bench, sizes: list[int]) -> None:
    """Time one MADE of growing D in float32 with one thread."""
    torch.set_num_threads(1)
    for features in sizes:
        case = square_case(features)
        if bench.has_time(f"growth, {case.name}"):
            flow = case.build(torch.float32)
            inputs = Inputs.of(case, flow, pack(flow), GROWTH_BATCH)
            row = {"features": features, "batch": GROWTH_BATCH, **measure(bench, inputs, None)}
            bench.add("growth", row)
            print(line({"case": case.name, "dtype": "float32", "threads": 1, **row}), flush=True)


def line(row: dict[str, Any]) -> str:
    """Show a row: time of a shower, and ratios.

    One thread: CPU time. Several: least wall time, since CPU time would count torch's threads
    while they spin and wait for work.
    """
    kind = "cpu" if row["threads"] == 1 else "wall_min"
    ours = row["inverse"][kind]
    shown = f"{row['case']:<20}{row['dtype']:>9}{row['batch']:>7}{row['threads']:>4}"
    shown += f"{1e6 * ours / row['batch']:>13.1f}{ours / row['own_forward'][kind]:>9.2f}"
    for name in ("nflows", "zuko"):
        if name in row:
            shown += f"{row[name][kind] / ours:>9.0f}"
    return shown + f"   {row['nflows']['how']}"


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 100, 1000, 10_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--growth", type=int, nargs="*", default=GROWTH, help="values of D")
    parser.add_argument("--rounds", type=int, default=7, help="at most, of each row")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each row, at least a round")
    parser.add_argument("--minutes", type=float, default=15.0, help="later rows are skipped")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def run(bench: Bench, options: argparse.Namespace) -> None:
    """Measure everything that the options ask for, what matters most first."""
    bench.found["first_inverse"] = {name: first_inverses(name) for name in PRECISIONS}
    print(f"first inverse: {bench.found['first_inverse']}")
    print("case                    dtype  batch thr  us/shower  own fwd   nflows     zuko")
    measure_growth(bench, list(options.growth))
    cases = [case for case in CASES if case.name in options.cases]
    for case in CASES:
        if case not in cases:
            bench.add("skipped", {"what": case.name, "why": "not among --cases"})
    first, *others = options.threads
    for case in cases:
        measure_case(bench, case, options.batch, first)
    for case in cases:  # never skipped
        compare(bench, case)
        if case.name == CHECKED[0] and CHECKED[1] in options.batch:
            check_product(bench, case, CHECKED[1])
    for threads in others:
        for case in cases:
            measure_case(bench, case, options.batch, threads)


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """Say what is measured, with what, on what."""
    program = describe_program() | {"llvmlite": version("llvmlite")}
    if find_spec("zuko") is not None:
        program["zuko"] = version("zuko")
    return {
        "program": program,
        "hardware": describe_hardware("cpu") | {"load_at_start": os.getloadavg()[0]},
        "settings": {name: value for name, value in vars(options).items() if name != "output"},
        "cases": [asdict(case) for case in CASES],
    }


@torch.no_grad()
def main() -> None:
    """Measure, print and write."""
    options = parse()
    about = describe(options)
    print(", ".join(f"{k} {v}" for k, v in (about["program"] | about["hardware"]).items()))
    stop = time.monotonic() + 60 * options.minutes
    bench = Bench(options.rounds, options.seconds, stop, options.output)
    bench.found |= about
    if "zuko" not in about["program"]:
        bench.add("skipped", {"what": "zuko", "why": "it is not installed"})
        print("zuko is not installed and left out: pip install -c constraints.txt '.[bench]'")
    run(bench, options)
    bench.write(is_complete=True)
    print(f"written: {options.output}")
    largest = max(entry["features"] for entry in bench.found["equality"])
    if largest > LARGEST_DIFFERENCE:
        raise SystemExit(f"float64 differs from nflows by {largest:.1e}")


if __name__ == "__main__":
    main()
