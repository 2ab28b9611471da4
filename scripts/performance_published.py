"""The part of docs/performance.md that stands our flows beside published times."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from performance_cells import machine_line, milliseconds, table_row
from performance_inverse import one_thread_row

_PUBLISHED = Path(__file__).parents[1] / "benchmarks" / "published_timings.csv"
_COMPARED = """
## Published times of the same architectures

Time of a shower in ms, from the tables with which the CaloChallenge published its results
([arXiv:2410.21611](https://arxiv.org/abs/2410.21611), its homepage repository). **That is other
hardware: the tables name neither machine nor threads, and their times are of whole generators.**
"Ours" is a sum of flows of the same shape as measured above (float64, one thread, CPU time,
stirred weights, without preparation, layer energies and files): Flow-3 45 times for iCaloFlow,
Flow-2 and 648 upsamplings for SuperCalo. Teachers are masked autoregressive flows; students are
distilled ones that draw in one pass.

| | | CPU, batch | | | GPU | ours, batch | | |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| data set | submission | 1 | 100 | 10,000 | 10,000 | 1 | 100 | 10,000 |
"""
# What a shower of a submission takes: flows, how often, and whether its rows fill any batch.
_SHOWERS = {
    ("ds2", "iCaloFlow teacher"): [("icaloflow-layer", 45, False)],
    ("ds2", "SuperCalo"): [("supercalo-coarse", 1, False), ("supercalo-upsampler", 648, True)],
}
_PUBLISHED_BATCHES = (1, 100, 10_000)
_LARGE_BATCH = 1000


def published_section(found: dict[str, Any]) -> str:
    """Give published times beside sums of our flows, from what benchmarks/inverse.py wrote."""
    lines = _PUBLISHED.read_text(encoding="utf-8").splitlines()
    rows = []
    for entry in csv.DictReader(line for line in lines if not line.startswith("#")):
        flows = _SHOWERS.get((entry["dataset"], entry["submission"]), [])
        columns = ("cpu_1_ms", "cpu_100_ms", "cpu_10000_ms", "gpu_10000_ms")
        rows.append(
            table_row(
                entry["dataset"],
                entry["submission"],
                *(milliseconds(float(entry[c])) if entry[c] else "-" for c in columns),
                *(_shower(found, flows, batch) for batch in _PUBLISHED_BATCHES),
            )
        )
    machine = machine_line(found["hardware"]["processor"], 1, found["program"])
    return _COMPARED + "".join(rows) + "\nOurs: " + machine.lstrip()


def _shower(found: dict[str, Any], flows: list[tuple[str, int, bool]], batch: int) -> str:
    """Sum the flows of a shower; one whose rows fill any batch counts at a large one."""
    total = 0.0
    for case, times, is_always_large in flows:
        row = one_thread_row(found, case, _LARGE_BATCH if is_always_large else batch, "float64")
        if row is None:
            return "-"
        total += times * row["inverse"]["cpu"] / row["batch"]
    return milliseconds(1e3 * total) if flows else "-"
