"""The part of docs/performance.md about a GPU, from what benchmarks/gpu.py wrote."""

from __future__ import annotations

from typing import Any

from performance_cells import milliseconds, table_row

_HARDWARE = """
## On a GPU

{gpu}, CUDA {cuda}, in a machine with {cores} cores of an {cpu};
torch {torch}, triton {triton}, nflows {nflows}. Wall time until the GPU is done, medians; one run
on one machine (`python benchmarks/gpu.py`). Where the host starts many small operations one after
the other it is not precise: an earlier launch took 23 ms for the step of stacked flows at batch
256, and 9.0 ms a shower for the torch walk in tiles of 1,000, by the same code.
"""
_SAMPLING = """
### Whole showers

L2LFlows at the paper's size (31 flows, 45 million weights, seeded and untrained): base noise,
which the host makes in one thread, flows, cut, and the way back to the host; the file is left out.
`triton` is the [kernel for GPUs](fast-sampling.md#backends), `torch` the same walk in torch
operations. A batch smaller than the tile is filled up, so **a batch of 1 costs a tile**; the rows
with a smaller tile are those of a generator made with that `model.tile`.

On the CPU all {threads} cores share the blocks of one tile. That is not the way of `calo-sample`,
which gives each thread a tile of its own and was not timed here. The row of nflows is its own
inverse, one network pass a feature ({note}).
The ratio is the time over that of `triton` in float32 at the same tile and batch.

| backend | on | precision | tile | batch | runs | ms a shower | ratio |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
_PIECES = """
With base noise already on the GPU, `triton` in float32 takes {tiles}.
The rest is noise and copies. Packing takes {packing:.1f} s, once.
"""
_SWEEP = """
How the kernel cuts its work was chosen on one causal flow in float32: an inverse of 1,000 and
10,000 showers takes {chosen[0]} and {chosen[1]} ms; {number} other ways take {ranges[0]} and
{ranges[1]} ms.
"""
_CHECK = """
### Differences from the CPU

The kernel on one causal flow with stirred weights against the walk on the CPU in float64, which
[equals nflows](#drawing-from-a-masked-autoregressive-flow); largest differences.

| precision | showers | features | log-determinant |
| --- | --- | --- | --- |
"""
_TRAINING = """
### A training step on a GPU

The step of [causal flows](#a-training-step-of-causal-flows) as above, {flows} flows in float32:
ours stacked, nflows' one after the other.

| batch | nflows | ours | ratio | share of splines in ours | largest difference of a loss |
| --- | --- | --- | --- | --- | --- |
"""
_TIMES = ("ms_1000", "ms_10000")


def gpu_section(found: dict[str, Any]) -> str:
    """Give tables of whole showers, differences and training steps."""
    return (
        _HARDWARE.format(**found["machine"])
        + _sampling(found["sampling"])
        + _sweep(found["sweep"])
        + _check(found["check"])
        + _training(found["training"])
    )


def _sampling(rows: list[dict[str, Any]]) -> str:
    threads = max(row.get("threads", 1) for row in rows)
    note = next(row["note"] for row in rows if row["backend"] == "nflows")
    kernel = [row for row in rows if (row["backend"], row["dtype"]) == ("triton", "float32")]
    times = {_tile_and_batch(row): row["ms_a_shower"] for row in kernel}
    page = _SAMPLING.format(threads=threads, note=note)
    for row in rows:
        ratio = row["ms_a_shower"] / times[_tile_and_batch(row)]
        page += table_row(
            row["backend"],
            "GPU" if row["device"] == "cuda" else f"{row['threads']} cores",
            row["dtype"].removeprefix("torch."),
            f"{row['tile']:,}" if "tile" in row else "-",
            f"{row['batch']:,}",
            len(row["all_ms_a_shower"]) if "all_ms_a_shower" in row else 1,
            milliseconds(row["ms_a_shower"]),
            "" if row in kernel else f"{ratio:.3g}",
        )
    on_gpu = {row["tile"]: row["flows_ms"] for row in kernel}
    shown = " and ".join(f"{on_gpu[n]:.0f} ms for a tile of {n:,}" for n in (1_000, 10_000))
    return page + _PIECES.format(tiles=shown, packing=kernel[0]["packing_s"])


def _tile_and_batch(row: dict[str, Any]) -> tuple[int, int]:
    """Give the size of a row; nflows inverts its batch at once."""
    return row.get("tile", row["batch"]), row["batch"]


def _sweep(rows: list[dict[str, Any]]) -> str:
    chosen, *others = rows
    limits = [[pick(row[name] for row in others) for pick in (min, max)] for name in _TIMES]
    return _SWEEP.format(
        chosen=[milliseconds(chosen[name]) for name in _TIMES],
        number=len(others),
        ranges=[f"{milliseconds(low)} to {milliseconds(high)}" for low, high in limits],
    )


def _check(rows: list[dict[str, Any]]) -> str:
    return _CHECK + "".join(
        table_row(
            row["dtype"].removeprefix("torch."),
            f"{row['number']:,}",
            f"{row['features']:.0e}",
            f"{row['log_det']:.0e}",
        )
        for row in rows
    )


def _training(rows: list[dict[str, Any]]) -> str:
    return _TRAINING.format(flows=rows[0]["flows"]) + "".join(
        table_row(
            f"{row['batch']:,}",
            *(f"{milliseconds(1e3 * row[name]['wall_s'])} ms" for name in ("nflows", "stacked")),
            f"{row['ratio_wall']:.0f}",
            f"{100 * row['share_of_splines']:.0f} %",
            f"{row['largest_difference_of_losses']:.0e}",
        )
        for row in rows
    )
