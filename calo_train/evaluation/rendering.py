"""Figures and tables as files and as parts of a page.

Drawing takes longer than all distances together, and holds Python's lock: figures are dealt out to
processes, as many as torch has threads.
"""

from __future__ import annotations

import base64
import csv
import io
import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from calo_train.evaluation.figures.gallery import ReportTable
from calo_train.evaluation.figures.style import house_style

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from calo_train.evaluation.figures.gallery import Item
    from calo_train.evaluation.figures.style import ReportFigure

_FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 140},
    "pdf": {"metadata": {"CreationDate": None}},  # equal inputs, equal file
}
_PIXELS_PER_INCH = 86  # two figures of 6.2 inches beside each other fill the page
_FIGURES_PER_PROCESS = 8  # a process is up after about as long as two figures take
_NUM_COLOURS = 255  # in the page; the file beside it keeps all


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it."""

    name: str
    title: str
    section: str
    caption: str
    source: str  # data URI
    width: int  # in CSS pixels, so that texts of all figures look alike
    is_wide: bool


def render_items(items: Iterable[Item]) -> tuple[list[Picture | ReportTable], dict[str, bytes]]:
    """Give what a page shows, and all files beside it by name."""
    items = list(items)
    drawn = iter(_render_all([item for item in items if not isinstance(item, ReportTable)]))
    shown: list[Picture | ReportTable] = []
    files: dict[str, bytes] = {}
    for item in items:
        if isinstance(item, ReportTable):
            shown.append(item)
            files[f"{item.name}.csv"] = _as_csv(item.header, item.rows).encode()
        else:
            picture, rendered = next(drawn)
            shown.append(picture)
            files |= rendered
    return shown, files


def _render_all(figures: Sequence[ReportFigure]) -> list[tuple[Picture, dict[str, bytes]]]:
    """Render figures in their order, in several processes where that pays for starting them."""
    import torch

    num_processes = min(torch.get_num_threads(), len(figures) // _FIGURES_PER_PROCESS)
    if num_processes < 2:
        return [_render(figure) for figure in figures]
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as processes:
        return list(processes.map(_render, figures))


def _render(figure: ReportFigure) -> tuple[Picture, dict[str, bytes]]:
    # It warns of the font's own dates when it embeds a subset (fontTools 4).
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    files = render_figure(figure)
    return _picture(figure, files[f"{figure.name}.png"]), files


def render_figure(figure: ReportFigure) -> dict[str, bytes]:
    """Give a figure as PNG and PDF and its numbers as CSV, by file name."""
    files = {}
    with house_style():
        for suffix, options in _FORMATS.items():
            buffer = io.BytesIO()
            figure.figure.savefig(buffer, format=suffix, facecolor="white", **options)
            files[f"{figure.name}.{suffix}"] = buffer.getvalue()
            if figure.figure.get_layout_engine() is not None:
                figure.figure.set_layout_engine("none")  # laid out once for both files
    columns = zip(*figure.numbers.values(), strict=True)
    files[f"{figure.name}.csv"] = _as_csv(list(figure.numbers), columns).encode()
    return files


def _picture(figure: ReportFigure, png: bytes) -> Picture:
    source = "data:image/png;base64," + base64.b64encode(_with_few_colours(png)).decode("ascii")
    width = round(_PIXELS_PER_INCH * figure.figure.get_figwidth())
    return Picture(
        figure.name,
        figure.title,
        figure.section,
        figure.caption,
        source,
        width,
        figure.is_wide,
    )


def _with_few_colours(png: bytes) -> bytes:
    """Reduce a picture to a palette: a third of the size, no difference that an eye sees."""
    from PIL import Image

    reduced = Image.open(io.BytesIO(png)).convert("RGB").quantize(_NUM_COLOURS)
    buffer = io.BytesIO()
    reduced.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(
        [f"{value:.8g}" if isinstance(value, float) else value for value in row] for row in rows
    )
    return text.getvalue()
