"""Simulated showers into a file, block by block; it has its name when it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calo_train.atomic_files import replacing
from calo_train.errors import UsageError
from calo_train.progress import Progress
from calo_train.showers.layouts import create_showers

if TYPE_CHECKING:
    from pathlib import Path

    from calo_train.showers.simulator.simulated import SimulatedShowers

_WRITTEN_ROWS = 1024


def write_simulated(rows: SimulatedShowers, path: Path, layout: str, *, force: bool) -> str:
    """Write all rows and give the layout, `native` where `layout` cannot hold their conditions."""
    if path.exists() and not force:
        raise UsageError(
            "the output exists",
            where=str(path),
            do="choose another name with -o, or replace it with --force",
        )
    chosen = layout if rows.condition_names == ("incident_energy",) else "native"
    detector = rows.detector
    with (
        replacing(path) as temporary,
        create_showers(
            temporary,
            chosen,
            detector,
            attributes=rows.attributes,
            condition_names=rows.condition_names,
        ) as writer,
        Progress("simulating", rows.num_showers, unit="showers") as progress,
    ):
        for start in range(0, rows.num_showers, _WRITTEN_ROWS):
            showers = rows.read(start, min(start + _WRITTEN_ROWS, rows.num_showers), detector)
            writer.append(showers)
            progress.advance(len(showers))
    return chosen
