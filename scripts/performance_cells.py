"""Rows and numbers of the tables in docs/performance.md."""

from __future__ import annotations

from typing import Any

_SHOWN_VERSIONS = ("torch", "nflows", "zuko", "llvmlite", "h5py")


def table_row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"


def machine_line(processor: str, threads: int | None, versions: dict[str, Any]) -> str:
    shown = [f"{name} {versions[name]}" for name in _SHOWN_VERSIONS if name in versions]
    if threads is not None:
        shown.insert(0, f"{threads} thread{'s' if threads > 1 else ''}")
    return f"\n{processor}, {', '.join(shown)}.\n"


def microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:,.0f}" if seconds >= 1e-4 else f"{1e6 * seconds:.3g}"


def milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def gibibytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
