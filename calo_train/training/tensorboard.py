"""TensorBoard event files, written record by record.

TensorBoard's own writer names its files by time and host; these are counted and name nothing. A
resumed training adds a file, and TensorBoard joins all files of a folder.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FORMAT = "brain.Event:2"  # of event files, as TensorBoard expects it in the first record
_RGBA = 4  # TensorBoard's number for a picture's channels


class TensorBoardFiles:
    """One more event file in a folder."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("events.out.tfevents.*"))) + 1
        path = folder / f"events.out.tfevents.{number:010d}.calo-train"
        self._records = RecordWriter(path.open("wb"))
        self._write(file_version=_FORMAT)

    def log(self, values: Mapping[str, float], *, stage: str) -> None:
        """Add the metrics of one epoch of a stage."""
        epoch = int(values[f"{stage}/epoch"])
        shown = [
            {"tag": name, "simple_value": value}
            for name, value in values.items()
            if name != f"{stage}/epoch"
        ]
        self._write(step=epoch, summary={"value": shown})

    def add_figures(self, figures: Mapping[str, Path]) -> None:
        """Add PNG files under their names."""
        for name, path in figures.items():
            png = path.read_bytes()
            width, height = struct.unpack(">II", png[16:24])  # the header chunk of a PNG
            image = {
                "height": height, "width": width, "colorspace": _RGBA, "encoded_image_string": png,
            }  # fmt: skip
            self._write(step=0, summary={"value": [{"tag": name, "image": image}]})

    def close(self, limit: float | None = None) -> None:  # noqa: ARG002 - no server to wait for
        """Close the file."""
        self._records.close()

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), **fields)
        self._records.write(event.SerializeToString())
        self._records.flush()
