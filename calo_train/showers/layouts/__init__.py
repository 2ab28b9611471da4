"""Layouts of shower files: recognise, open, read slices, append. One module a layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py

from calo_train.errors import DataError, UsageError, nearest_names
from calo_train.geometry import Geometry
from calo_train.showers.layouts.calochallenge import CaloChallengeFile, CaloChallengeWriter
from calo_train.showers.layouts.getting_high import GettingHighFile, GettingHighWriter
from calo_train.showers.layouts.layout import ShowerFile, ShowerWriter, h5_open
from calo_train.showers.layouts.native import NativeFile, NativeWriter

FILES: tuple[type[ShowerFile], ...] = (NativeFile, GettingHighFile, CaloChallengeFile)
WRITERS: Mapping[str, type[ShowerWriter]] = {
    writer.layout: writer for writer in (NativeWriter, GettingHighWriter, CaloChallengeWriter)
}

__all__ = ["FILES", "WRITERS", "ShowerFile", "ShowerWriter", "create_showers", "open_file"]


def open_file(path: Path) -> ShowerFile:
    """Open a file in whatever layout it has; DataError when it has none that is known."""
    file = h5_open(path)
    try:
        for kind in FILES:
            if kind.recognises(file):
                return kind(path, file)
        raise DataError(
            f"no known layout: the file holds {_contents(file)}",
            where=str(path),
            do="known are " + "; ".join((kind.__module__.rpartition(".")[2]) for kind in FILES)
            + ". Convert the file to one of them, see docs/file_layouts.md",
        )
    except BaseException:
        file.close()
        raise


def create_showers(
    path: Path,
    layout: str,
    geometry: Geometry,
    *,
    attributes: Mapping[str, Any],
    condition_names: Sequence[str] = ("incident_energy",),
) -> ShowerWriter:
    """Create a file in a layout; only `native` holds conditions beyond the incident energy."""
    if layout not in WRITERS:
        raise UsageError(
            f"unknown layout '{layout}'",
            where=str(path),
            do=f"use one of {', '.join(WRITERS)}; {nearest_names(layout, WRITERS)}",
        )
    if layout == NativeWriter.layout:
        return NativeWriter(path, geometry, attributes, condition_names)
    others = [name for name in condition_names if name != "incident_energy"]
    if others:
        raise UsageError(
            f"the layout {layout} has no place for {', '.join(others)}",
            where=str(path),
            do="write the native layout",
        )
    return WRITERS[layout](path, geometry, attributes)


def _contents(file: h5py.File) -> str:
    names: list[str] = []
    file.visititems(
        lambda name, item: names.append(f"{name} {item.shape}")
        if isinstance(item, h5py.Dataset)
        else None
    )
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return shown or "no data sets"
