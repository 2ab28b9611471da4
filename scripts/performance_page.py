"""Write docs/performance.md from benchmarks/results, so that the page shows what was measured.

`make bench` runs every benchmark and then this. A benchmark without results is left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs" / "performance.md"
_RESULTS = CHECKOUT / "benchmarks" / "results"
_INTRODUCTION = """\
# Performance

Measurements beside their peers, each pair taken in turns in one run of `make bench`. This page is
written from `benchmarks/results` by `scripts/performance_page.py`. CPU seconds are compared where
another process on the machine would disturb wall time.
"""
_INVERSE = """
## Drawing from a masked autoregressive flow

One causal flow of L2LFlows (100 features, 4 blocks of width 128, splines of 8 bins, context of
64): the incremental inverse of `calo_train.nn` against the inverse of nflows, same weights, same
base noise.

| batch | precision | nflows | incremental | ratio | largest difference |
| --- | --- | --- | --- | --- | --- |
"""
_EPOCH = """
## An epoch of training

CPU seconds of an epoch of the quickstart, with its checkpoints, metrics and progress, against a
bare PyTorch loop over the same flows with the same batches.

| stage | calo-train | bare loop | ratio |
| --- | --- | --- | --- |
"""
_STREAMING = """
## Data that do not fit in memory

An epoch of batches of {batch_size}, streamed from an HDF5 file of {num_showers:,} showers
({decoded} decoded, {stored} on disk) with `memory_budget` at {budget}, against the same epoch from
memory. A training step is stood for by matrix products (`{product}`);
none is the bare reading. Memory is the largest resident set, without what Python and torch take
before any data.

| products a batch | from memory | streamed | ratio | memory, from memory | memory, streamed |
| --- | --- | --- | --- | --- | --- |
"""
_OBSERVABLES = """
## Observables of an evaluation

All observables of `calo-eval` and the official CaloChallenge separation powers (with one
repetition of their floor) of {showers} showers of data-set-2 size that lie in memory, against the
official observables and separation powers in plain numpy: layer by layer, float64, whole arrays
({peer_showers}). Medians over rounds of the benchmark ({rounds}). numpy takes one thread: with
free cores the ratio of wall times is that of CPU times, times the threads of calo-train. The wall
times here were taken on a busy machine.

| | CPU time | wall time | ratio, CPU | ratio, wall | memory |
| --- | --- | --- | --- | --- | --- |
"""


def performance_page() -> str:
    """Give the page that the present results make."""
    sections = {"inverse": _inverse, "epoch": _epoch, "streaming": _streaming}
    sections["observables"] = _observables
    page = _INTRODUCTION
    for name, section in sections.items():
        path = _RESULTS / f"{name}.json"
        if path.is_file():
            page += section(json.loads(path.read_text(encoding="utf-8")))
    return page


def _inverse(found: dict[str, Any]) -> str:
    rows = [
        _row(
            entry["batch"],
            entry["dtype"],
            f"{entry['nflows']['cpu_s']:.3g} s",
            f"{entry['incremental']['cpu_s']:.3g} s",
            f"{entry['ratio_cpu']:.1f}",
            f"{entry['largest_difference_to_nflows']:.0e}",
        )
        for entry in found["rows"]
    ]
    machine = found["machine"]
    return _INVERSE + "".join(rows) + _machine(machine["cpu"], machine["threads"], machine)


def _epoch(found: dict[str, Any]) -> str:
    rows = []
    for entry in found["rows"]:
        seconds = entry["cpu_seconds_per_epoch"]
        ours, bare = seconds["calo-train"], seconds["bare loop"]
        rows.append(
            _row(entry["stage"], f"{ours:.3g} s", f"{bare:.3g} s", f"{entry['ratio']:.2f}")
        )
    processor = found["hardware"]["processor"]
    return _EPOCH + "".join(rows) + _machine(processor, found["threads"], found["program"])


def _streaming(found: dict[str, Any]) -> str:
    rows = []
    for entry in found["epochs"]:
        memory, streamed = entry["in_memory"], entry["streamed"]
        rows.append(
            _row(
                entry["products_a_batch"],
                f"{memory['epoch_seconds']:.1f} s",
                f"{streamed['epoch_seconds']:.1f} s",
                f"{entry['ratio']:.2f}",
                _gibibytes(memory["peak_bytes"] - memory["baseline_bytes"]),
                _gibibytes(streamed["peak_bytes"] - streamed["baseline_bytes"]),
            )
        )
    head = _STREAMING.format(
        batch_size=found["batch_size"],
        num_showers=found["num_showers"],
        decoded=_gibibytes(found["decoded_bytes"]),
        stored=_gibibytes(found["file_bytes"]),
        budget=_gibibytes(found["stream_budget_bytes"]),
        product=found["product"],
    )
    machine = _machine(found["machine"]["cpu"], found["torch_threads"], found["versions"])
    return head + "".join(rows) + machine


def _observables(found: dict[str, Any]) -> str:
    rows = []
    for side, name in (("peer", "numpy"), ("ours", "calo-train")):
        seconds, is_ours = found["seconds"][side], side == "ours"
        ratios = [f"{found['ratio'][clock]:.1f}" if is_ours else "" for clock in ("cpu", "wall")]
        peak = max(run["peak_bytes"] for run in found["runs"]["ours"]) if is_ours else None
        times = [f"{seconds[clock]:.3g} s" for clock in ("cpu", "wall")]
        rows.append(_row(name, *times, *ratios, "" if peak is None else _gibibytes(peak)))
    head = _OBSERVABLES.format(
        **{key: found[key] for key in ("showers", "peer_showers", "rounds")}
    )
    machine = found["machine"]
    return head + "".join(rows) + _machine(machine["cpu"], machine["threads"], found["versions"])


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"


def _machine(processor: str, threads: int, versions: dict[str, Any]) -> str:
    shown = [
        f"{name} {versions[name]}" for name in ("torch", "nflows", "h5py") if name in versions
    ]
    return f"\n{processor}, {threads} thread{'s' if threads > 1 else ''}, {', '.join(shown)}.\n"


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


if __name__ == "__main__":
    PAGE.write_text(performance_page(), encoding="utf-8")
