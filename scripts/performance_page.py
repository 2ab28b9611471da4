"""Write docs/performance.md from benchmarks/results, so that the page shows what was measured.

`make bench` runs every benchmark and then this. A benchmark without results is left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from performance_cells import gibibytes, machine_line, milliseconds, table_row
from performance_gpu import gpu_section
from performance_inverse import inverse_section
from performance_published import published_section

CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs" / "performance.md"
_RESULTS = CHECKOUT / "benchmarks" / "results"
_INTRODUCTION = """\
# Performance

Measurements beside their peers, each pair taken in turns in one run of `make bench`. This page is
written from `benchmarks/results` by `scripts/performance_page.py`. CPU seconds are compared where
another process on the machine would disturb wall time.
"""
_SAMPLING = """
## Whole showers, from a request to a file

L2LFlows at the paper's size (30 x 10 x 10 voxels, 31 flows, 45 million weights, which are seeded
and untrained): flows, base noise, cut, stored tiles and the HDF5 file, for {number:,} showers in
tiles of 1,000. Loading and packing the flows takes {packing} of CPU time, once, and is not part of
it. Published for the same detector size: Geant4 4,081 ms and BIB-AE 418 ms a shower on a CPU, at
other machines (arXiv:2005.05334).

| precision | threads | CPU time a shower | wall time a shower |
| --- | --- | --- | --- |
"""
_PIECES = """
CPU time of the pieces a shower, on one thread:

| piece | float64 | float32 |
| --- | --- | --- |
"""
_PEAK = """
Peak memory of a process with two threads in float32: {peaks}.
"""
_TRAINING_STEP = """
## A training step of causal flows

Forward, backward and fused AdamW of L2LFlows causal flows (100 features, 4 blocks of width 128,
context of 64) at batch {batch}, float32: all flows as batched products against one nflows flow
after the other. CPU time, medians. The share of splines is what a step without them saves.

| flows | nflows | ours | ratio | share of splines in ours | largest difference of a loss |
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
({peer_showers}). Medians over rounds of the benchmark ({rounds}). numpy takes one thread; those of
calo-train overlap in a part of its work only.

| | CPU time | wall time | ratio, CPU | ratio, wall | memory |
| --- | --- | --- | --- | --- | --- |
"""
_SIMULATOR = """
## Showers of the parametrised simulator

`calo-data simulate` and `dataset.source=simulated`, made in memory on one thread; medians of
{rounds} rounds of {number} showers, and the fastest round, as other processes shared the machine
(load {load:.1f} on {cores} cores at the start).

| data set | particle | polar angle | voxels | showers a CPU second | fastest | showers a second |
| --- | --- | --- | --- | --- | --- | --- |
"""
_FAMILIES = """
## Drawing by every family at its published size

A batch drawn from given base noise on one thread, seeded untrained weights, packing left out;
medians. A student takes one network pass a block, its teacher the exact incremental inverse. The
published times on other machines, in the same unit: iCaloFlow 8,179 ms (teacher) and 77.6 ms
(student), SuperCalo 7,609 ms a shower on a CPU at batch 10,000 (arXiv:2410.21611).

| family, data set | sampler | batch | precision | CPU time a shower | student over teacher |
| --- | --- | --- | --- | --- | --- |
"""
_REPORT = """
## A plain report

`calo-eval` as a user calls it, reduced classifiers and all figures in, on a machine that other
work shared. Showers are resampled from Monte Carlo files.

| data set | showers | threads | CPU time | wall time | memory |
| --- | --- | --- | --- | --- | --- |
"""


def performance_page() -> str:
    """Give the page that the present results make."""
    sections = (
        ("inverse", inverse_section),
        ("sampling", _sampling),
        ("families", _families),
        ("inverse", published_section),
        ("training_step", _training_step),
        ("gpu", gpu_section),
        ("epoch", _epoch),
        ("streaming", _streaming),
        ("observables", _observables),
        ("report", _report),
        ("simulator", _simulator),
    )
    page = _INTRODUCTION
    for name, section in sections:
        path = _RESULTS / f"{name}.json"
        if path.is_file():
            page += section(json.loads(path.read_text(encoding="utf-8")))
    return page


def _sampling(found: dict[str, Any]) -> str:
    requests, pieces = found["requests"], found["pieces_us"]
    packing = max(entry["packing"]["cpu_s"] for entry in requests)
    page = _SAMPLING.format(number=requests[0]["number"], packing=f"{packing:.1f} s")
    for entry in requests:
        times = (f"{entry['a_shower'][name]:.2f} ms" for name in ("cpu_ms", "wall_ms"))
        page += table_row(entry["dtype"], entry["threads"], *times)
    page += _PIECES
    for name in pieces["float64"]:
        page += table_row(name, *(f"{pieces[dtype][name]:.0f} µs" for dtype in pieces))
    peaks = ", ".join(
        f"{gibibytes(size)} for {int(number):,} showers"
        for number, size in found["peak_bytes"].items()
    )
    page += _PEAK.format(peaks=peaks)
    return page + machine_line(found["machine"]["cpu"], None, found["machine"])


def _families(found: dict[str, Any]) -> str:
    page = _FAMILIES
    for case in found["cases"]:
        times = {(row["sampler"], row["dtype"]): row["cpu_ms"] for row in case["rows"]}
        for (sampler, dtype), value in times.items():
            teacher = times.get(("teacher", dtype))
            ratio = f"{value / teacher:.2f}" if teacher and sampler == "student" else ""
            page += table_row(
                case["case"], sampler, case["batch"], dtype, f"{milliseconds(value)} ms", ratio
            )
    machine = found["machine"]
    return page + machine_line(machine["processor"], machine["threads"], machine)


def _report(found: dict[str, Any]) -> str:
    rows = [
        table_row(
            f"`{entry['dataset']}`",
            entry["showers"],
            entry["threads"],
            *(f"{entry[clock]:.0f} s" for clock in ("cpu", "wall")),
            gibibytes(entry["peak_bytes"]),
        )
        for entry in found["reports"]
    ]
    machine = found["machine"]
    line = machine_line(machine["cpu"], None, found["versions"])
    return _REPORT + "".join(rows) + line


def _training_step(found: dict[str, Any]) -> str:
    rows = [
        table_row(
            entry["flows"],
            *(f"{entry[name]['cpu_s']:.3g} s" for name in ("nflows", "stacked")),
            f"{entry['ratio_cpu']:.1f}",
            f"{100 * entry['share_of_splines']:.0f} %",
            f"{entry['largest_difference_of_losses']:.0e}",
        )
        for entry in found["rows"]
    ]
    machine = found["machine"]
    head = _TRAINING_STEP.format(batch=found["rows"][0]["batch"])
    return head + "".join(rows) + machine_line(machine["cpu"], machine["threads"], machine)


def _epoch(found: dict[str, Any]) -> str:
    rows = []
    for entry in found["rows"]:
        seconds = entry["cpu_seconds_per_epoch"]
        ours, bare = seconds["calo-train"], seconds["bare loop"]
        rows.append(
            table_row(entry["stage"], f"{ours:.3g} s", f"{bare:.3g} s", f"{entry['ratio']:.2f}")
        )
    processor = found["hardware"]["processor"]
    return _EPOCH + "".join(rows) + machine_line(processor, found["threads"], found["program"])


def _streaming(found: dict[str, Any]) -> str:
    rows = []
    for entry in found["epochs"]:
        memory, streamed = entry["in_memory"], entry["streamed"]
        rows.append(
            table_row(
                entry["products_a_batch"],
                f"{memory['epoch_seconds']:.1f} s",
                f"{streamed['epoch_seconds']:.1f} s",
                f"{entry['ratio']:.2f}",
                gibibytes(memory["peak_bytes"] - memory["baseline_bytes"]),
                gibibytes(streamed["peak_bytes"] - streamed["baseline_bytes"]),
            )
        )
    head = _STREAMING.format(
        batch_size=found["batch_size"],
        num_showers=found["num_showers"],
        decoded=gibibytes(found["decoded_bytes"]),
        stored=gibibytes(found["file_bytes"]),
        budget=gibibytes(found["stream_budget_bytes"]),
        product=found["product"],
    )
    machine = machine_line(found["machine"]["cpu"], found["torch_threads"], found["versions"])
    return head + "".join(rows) + machine


def _observables(found: dict[str, Any]) -> str:
    rows = []
    for side, name in (("peer", "numpy"), ("ours", "calo-train")):
        seconds, is_ours = found["seconds"][side], side == "ours"
        ratios = [f"{found['ratio'][clock]:.1f}" if is_ours else "" for clock in ("cpu", "wall")]
        peak = max(run["peak_bytes"] for run in found["runs"]["ours"]) if is_ours else None
        times = [f"{seconds[clock]:.3g} s" for clock in ("cpu", "wall")]
        rows.append(table_row(name, *times, *ratios, "" if peak is None else gibibytes(peak)))
    head = _OBSERVABLES.format(
        **{key: found[key] for key in ("showers", "peer_showers", "rounds")}
    )
    machine = found["machine"]
    return (
        head + "".join(rows) + machine_line(machine["cpu"], machine["threads"], found["versions"])
    )


def _simulator(found: dict[str, Any]) -> str:
    names = (
        "showers_per_cpu_second", "fastest_showers_per_cpu_second", "showers_per_wall_second",
    )  # fmt: skip
    rows = [
        table_row(
            f"`{entry['dataset']}`",
            entry["particle"],
            entry["polar_angle"] or "0",
            f"{entry['voxels']:,}",
            *(f"{entry[name]:,.0f}" for name in names),
        )
        for entry in found["rows"]
    ]
    machine = found["machine"]
    head = _SIMULATOR.format(
        rounds=found["rounds"],
        number=found["showers_a_round"],
        load=machine["load_at_start"],
        cores=machine["cores"],
    )
    peaks = ", ".join(
        f"{gibibytes(size)} for {int(number):,} showers"
        for number, size in found["peak_bytes"].items()
    )
    line = machine_line(machine["cpu"], machine["threads"], found["versions"])
    return head + "".join(rows) + f"\nPeak memory of a process: {peaks}.\n" + line


if __name__ == "__main__":
    PAGE.write_text(performance_page(), encoding="utf-8")
