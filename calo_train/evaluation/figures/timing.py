"""How long the generators of the samples take, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calo_train.evaluation.figures.gallery import ReportTable, shows
from calo_train.quantities import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calo_train.evaluation.results import Evaluation
    from calo_train.evaluation.timing import BatchTiming, GenerationTiming

_HEADER = (
    "generator", "hardware", "batch", "ms a shower, median", "mean ± deviation", "repetitions",
    "start-up", "peak memory", "weights",
)  # fmt: skip


@shows("Timing")
def timing_table(evaluation: Evaluation, section: str) -> Iterator[ReportTable]:
    """Show milliseconds a shower for every batch size and device."""
    rows = [
        _row(result.showers.label, timing, batch)
        for result in evaluation.samples
        for timing in result.timings
        for batch in timing.batches
    ]
    if not rows:
        return
    tiles = sorted({t.tile for result in evaluation.samples for t in result.timings})
    notes = {
        f"Batch {batch.batch_size}: {batch.note}."
        for result in evaluation.samples
        for timing in result.timings
        for batch in timing.batches
        if batch.note
    }
    yield ReportTable(
        "timing",
        "Generation time",
        section,
        "Loading and writing are left out; start-up is the time from a new process to a generator "
        "that is ready. Showers are computed in tiles of "
        f"{', '.join(map(str, tiles))}, so a smaller batch pays for a whole one. Deviations are "
        f"those of the population, as in arXiv:2410.21611. {' '.join(sorted(notes))}".strip(),
        _HEADER,
        rows,
        num_names=2,
    )


def _row(label: str, timing: GenerationTiming, batch: BatchTiming) -> tuple[str, ...]:
    threads = f", {timing.num_threads} thread" if timing.device == "cpu" else ""
    return (
        label,
        f"{timing.hardware}{threads}, {timing.dtype}",
        str(batch.batch_size),
        f"{batch.median:.3g}",
        f"{batch.mean:.3g} ± {batch.deviation:.2g}",
        str(len(batch.milliseconds)),
        format_duration(timing.start_up),
        format_size(timing.peak_bytes),
        f"{timing.num_weights} ({format_size(timing.weight_bytes)})",
    )
