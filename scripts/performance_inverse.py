"""The part of docs/performance.md about drawing, from what benchmarks/inverse.py wrote."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from performance_cells import machine_line, microseconds, table_row

if TYPE_CHECKING:
    from collections.abc import Iterable

_INVERSE = """
## Drawing from a masked autoregressive flow

The inverse of `calo_train.nn` ([the method](fast-sampling.md)) against the inverses of nflows
(same weights, same base noise) and zuko (same shape, weights of its own). Shapes are those of the
released codes, without embedding networks; weights are nflows' initial ones, stirred. One thread,
CPU time, medians. "Forward" is our own pass in the direction of training.

nflows and zuko take one network pass for each feature of each MADE. ≈ marks a ratio whose peer was
timed by one of these passes, multiplied; the others are from full runs.{check}

| flow | D | batch | precision | µs a shower | inverse / forward | nflows / ours | zuko / ours |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
_CHECK = """
For {case}, batch {batch}, {dtype}, a full run of nflows took {full:.2f} s and its product gave
{product:.2f} s."""
_THREADS = """
With {threads} threads, least wall time of the rounds, since torch's threads wait for each other
where another process takes a core; the speed-up is over the least wall time of one thread.

| flow | batch | precision | µs a shower | speed-up | nflows / ours | zuko / ours |
| --- | --- | --- | --- | --- | --- | --- |
"""
_EQUALITY = """
Largest differences: to nflows' full inverse in float64, batch 16; of our float32 to our float64,
features of 1,000 showers.

| flow | features | log-determinant | float32, 99.9 % | float32, largest |
| --- | --- | --- | --- | --- |
"""
_GROWTH = """
### Growth with the number of features

One MADE with H = D hidden units in each of two layers, a context of 16, float32, batch {batch:,},
one thread, CPU time. The exponent is that of D from the row before.

| D | ours, µs a shower | exponent | nflows, µs a shower | exponent | nflows / ours |
| --- | --- | --- | --- | --- | --- |
"""
_FIRST = """
### The first inverse of a process

Packing and the first inverse of a causal flow of L2LFlows in a fresh process, without imports:
with an empty kernel cache, and with the kernel that the process before left there. Wall time.

| precision | compiled | from disk |
| --- | --- | --- |
"""


def inverse_section(found: dict[str, Any]) -> str:
    """Give tables by flow, of differences, growth and start-up."""
    titles = {case["name"]: case for case in found["cases"]}
    machine = machine_line(found["hardware"]["processor"], None, found["program"])
    page = _INVERSE.format(check="".join(map(_product_check, found["product_check"])))
    page += "".join(_one_thread(row, titles) for row in _rows(found, 1)) + machine
    several = sorted({row["threads"] for row in found["rows"]} - {1})
    for threads in several:
        page += _THREADS.format(threads=threads)
        page += "".join(_several_threads(row, found, titles) for row in _rows(found, threads))
    page += _equality(found["equality"], titles) + _skipped(found["skipped"])
    if not found["is_complete"]:
        page += "\nThe run was interrupted; what came after is not in these tables.\n"
    page += _growth(found["growth"]) + _first_inverse(found["first_inverse"])
    load, cores = (found["hardware"][name] for name in ("load_at_start", "cores"))
    page += f"\nBefore the run {load:.1f} processes were running or waiting for {cores} cores.\n"
    return page + machine


def _one_thread(row: dict[str, Any], titles: dict[str, Any]) -> str:
    ours, case = row["inverse"]["cpu"], titles[row["case"]]
    return table_row(
        case["title"],
        case["features"],
        f"{row['batch']:,}",
        row["dtype"],
        microseconds(ours / row["batch"]),
        f"{ours / row['own_forward']['cpu']:.2f}",
        *(_ratio(row, name, "cpu") for name in ("nflows", "zuko")),
    )


def _several_threads(row: dict[str, Any], found: dict[str, Any], titles: dict[str, Any]) -> str:
    ours = row["inverse"]["wall_min"]
    alone = one_thread_row(found, row["case"], row["batch"], row["dtype"])
    return table_row(
        titles[row["case"]]["title"],
        f"{row['batch']:,}",
        row["dtype"],
        microseconds(ours / row["batch"]),
        "-" if alone is None else f"{alone['inverse']['wall_min'] / ours:.2f}",
        *(_ratio(row, name, "wall_min") for name in ("nflows", "zuko")),
    )


def _ratio(row: dict[str, Any], peer: str, kind: str) -> str:
    if peer not in row:
        return "-"
    ratio = row[peer][kind] / row["inverse"][kind]
    return ("" if row[peer]["how"] == "full" else "≈ ") + f"{ratio:,.0f}"


def _product_check(entry: dict[str, Any]) -> str:
    return _CHECK.format(
        **{name: entry[name] for name in ("case", "batch", "dtype")},
        full=entry["full"]["cpu"],
        product=entry["product"]["cpu"],
    )


def _equality(entries: list[dict[str, Any]], titles: dict[str, Any]) -> str:
    numbers = ("features", "log_det", "float32_quantile_999", "float32_max")
    rows = [
        table_row(titles[entry["case"]]["title"], *(f"{entry[name]:.0e}" for name in numbers))
        for entry in entries
    ]
    return _EQUALITY + "".join(rows)


def _skipped(entries: list[dict[str, Any]]) -> str:
    if not entries:
        return ""
    return "\nNot measured:\n\n" + "".join(f"- {e['what']}: {e['why']}\n" for e in entries)


def _growth(entries: list[dict[str, Any]]) -> str:
    if not entries:
        return ""
    rows = []
    for before, entry in zip([None, *entries], entries, strict=False):
        cells = [entry["features"]]
        for name in ("inverse", "nflows"):
            cells += [microseconds(entry[name]["cpu"] / entry["batch"])]
            cells += [_exponent(before, entry, name)]
        rows.append(table_row(*cells, _ratio(entry, "nflows", "cpu")))
    return _GROWTH.format(batch=entries[0]["batch"]) + "".join(rows)


def _exponent(before: dict[str, Any] | None, entry: dict[str, Any], name: str) -> str:
    if before is None:
        return ""
    times = math.log(entry[name]["cpu"] / before[name]["cpu"])
    return f"{times / math.log(entry['features'] / before['features']):.1f}"


def _first_inverse(found: dict[str, Any]) -> str:
    rows = [
        table_row(dtype, *(f"{entry[name]['wall']:.2f} s" for name in ("compiled", "from_disk")))
        for dtype, entry in found.items()
    ]
    return _FIRST + "".join(rows)


def _rows(found: dict[str, Any], threads: int) -> Iterable[dict[str, Any]]:
    return (row for row in found["rows"] if row["threads"] == threads)


def one_thread_row(
    found: dict[str, Any], case: str, batch: int, dtype: str
) -> dict[str, Any] | None:
    """Give the row of one thread."""
    wanted = (case, batch, dtype)
    rows = (r for r in _rows(found, 1) if (r["case"], r["batch"], r["dtype"]) == wanted)
    return next(rows, None)
