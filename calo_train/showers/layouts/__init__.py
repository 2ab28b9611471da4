"""Layouts of shower files, one small module each: recognised from the file, read and appended to.

`open_file` gives a `ShowerFile` whatever the layout, `create_showers` a `ShowerWriter`.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calo_train.errors import DataError, UsageError, nearest_names
from calo_train.showers.layouts.calochallenge import CaloChallenge
from calo_train.showers.layouts.calogan import CaloGan
from calo_train.showers.layouts.getting_high import GettingHigh
from calo_train.showers.layouts.hdf5 import contents, damage_told, names, open_hdf5
from calo_train.showers.layouts.layout import Layout, Units
from calo_train.showers.layouts.native import Native
from calo_train.showers.layouts.reader import ShowerFile
from calo_train.showers.layouts.rows import ShowerRows
from calo_train.showers.layouts.showerdata import ShowerData
from calo_train.showers.layouts.writer import ShowerWriter, create_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import h5py

    from calo_train.geometry import Geometry

__all__ = [
    "LAYOUTS",
    "ShowerFile",
    "ShowerRows",
    "ShowerWriter",
    "Units",
    "create_showers",
    "open_file",
]

# In the order in which a file is tried: the most explicit first.
LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (Native(), GettingHigh(), CaloGan(), ShowerData(), CaloChallenge())
}


def open_file(path: Path, *, units: Units | None = None) -> ShowerFile:
    """Open a file in whatever layout it has; DataError when it has none that is known.

    `units` replace those of the layout; without it a file whose arrays declare others is refused.
    """
    file = open_hdf5(path)
    try:
        with damage_told(path):
            layout = recognise(file, path)
            columns = layout.columns(file, path)
            if columns.has_points:
                file.close()
                file = open_hdf5(path, is_ragged=True)
            opened = ShowerFile(path, file, layout, columns.with_units(units or Units()))
            if units is None:
                opened.require_declared_units()
    except BaseException:
        file.close()
        raise
    return opened


def recognise(file: h5py.File, path: Path) -> Layout:
    """Give the layout of an open file, or say what it holds and which layout is closest."""
    for layout in LAYOUTS.values():
        if layout.recognises(file):
            return layout
    closest = max(LAYOUTS.values(), key=lambda layout: _closeness(layout, names(file)))
    known = "; ".join(f"{layout.name} ({layout.summary})" for layout in LAYOUTS.values())
    raise DataError(
        f"no known layout; the file holds {', '.join(contents(file)) or 'nothing'}",
        where=str(path),
        do=f"write it in a known layout: {known}; closest is {closest.name}",
    )


def create_showers(
    path: Path,
    layout: str,
    geometry: Geometry,
    *,
    attributes: Mapping[str, Any],
    condition_names: Sequence[str] = ("incident_energy",),
    num_threads: int = 1,
) -> ShowerWriter:
    """Create an empty file of a layout; only `native` holds any detector and any condition.

    Chunks are compressed on so many threads; the file does not depend on it.
    """
    return create_file(
        path,
        layout_named(layout),
        geometry,
        attributes=attributes,
        condition_names=condition_names,
        num_threads=num_threads,
    )


def layout_named(name: str) -> Layout:
    """Give a layout by its name; an unknown one is a UsageError."""
    if name not in LAYOUTS:
        raise UsageError(
            f"unknown layout '{name}'",
            where="layout",
            do=f"use one of {', '.join(LAYOUTS)}; {nearest_names(name, LAYOUTS)}",
        )
    return LAYOUTS[name]


def _closeness(layout: Layout, found: Sequence[str]) -> float:
    """Sum over a layout's keys how alike the most alike name in the file is."""
    leaves = [Path(name).name for name in found]
    return sum(
        max((SequenceMatcher(None, key, leaf).ratio() for leaf in leaves), default=0.0)
        for key in layout.keys
    ) / len(layout.keys)
