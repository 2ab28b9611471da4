"""Hits of one pair of showers in space: what the interactive display shows, for print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calo_train.evaluation.event_display import event_display, hull_of
from calo_train.evaluation.figures.gallery import shows
from calo_train.evaluation.figures.style import Column, ReportFigure, caption_tail
from calo_train.quantities import format_energy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d import Axes3D  # type: ignore[import-untyped]

    from calo_train.evaluation.event_display import DisplayedShower, EventDisplay
    from calo_train.evaluation.results import Evaluation

DISPLAY_FIGURE = "event_display"
_SMALLEST, _LARGEST = 3.0, 60.0  # area of a marker in points²
_COLUMNS = ("x_mm", "y_mm", "z_mm", "energy_mev")


@shows("Showers", rank=5)
def event_display_figure(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw the middle pair of the event display; nothing where no shower has a hit."""
    display = event_display(evaluation)
    if not any(len(shower.energies) for entry in display.sets for shower in entry.showers):
        return
    index = len(display.sets[0].showers) // 2
    showers = {
        "reference" if place == 0 else entry.label: entry.showers[index]
        for place, entry in enumerate(display.sets)
    }
    yield ReportFigure(
        name=DISPLAY_FIGURE,
        title="Event display",
        section=section,
        caption="Hits at the middle of their cells, in mm; colour and size grow with the energy. "
        "Showers are chosen by incident energy alone, each sample's as close as there is to the "
        f"reference's. {caption_tail(evaluation)}",
        figure=_draw(display, showers),
        numbers=_numbers(showers),
        is_wide=True,
    )


def _draw(display: EventDisplay, showers: dict[str, DisplayedShower]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    low, high = display.energy_range
    norm = LogNorm(low, max(high, low * 1.01))
    figure = Figure(figsize=(5.2 * len(showers) + 1.2, 4.2))
    FigureCanvasAgg(figure)
    for place, (label, shower) in enumerate(showers.items(), start=1):
        axes: Axes3D = figure.add_subplot(1, len(showers), place, projection="3d")
        x, y, z = shower.positions.T
        share = np.asarray(norm(shower.energies))
        points = axes.scatter(
            z, x, y, c=shower.energies, norm=norm, cmap="viridis", depthshade=False, lw=0,
            s=_SMALLEST + (_LARGEST - _SMALLEST) * share**2,
        )  # fmt: skip
        _frame(axes, display)
        energy = format_energy(float(f"{shower.incident_energy:.3g}"))
        axes.text2D(0.5, 0.93, f"{label}, {energy}", transform=axes.transAxes, ha="center")
    width = figure.get_figwidth()
    figure.subplots_adjust(left=0.01, right=1 - 1.35 / width, bottom=0.04, top=1.0, wspace=0.16)
    bar = figure.add_axes((1 - 0.75 / width, 0.22, 0.13 / width, 0.6))
    figure.colorbar(points, cax=bar, label="energy [MeV]")
    return figure


def _frame(axes: Axes3D, display: EventDisplay) -> None:
    """Show the whole detector in true proportions, the shower axis along the page."""
    from matplotlib.ticker import MaxNLocator

    hull = hull_of(display.geometry)
    axes.set_xlim(*hull.z)
    axes.set_ylim(*hull.x)
    axes.set_zlim(*hull.y)
    spans = [end - start for start, end in (hull.z, hull.x, hull.y)]
    axes.set_box_aspect([max(span, max(spans) / 4) for span in spans], zoom=1.0)
    axes.view_init(elev=18, azim=-62)
    first, second = hull.names
    axes.set_xlabel("depth z [mm]", labelpad=7)
    axes.set_ylabel(f"{first} [mm]", labelpad=6)
    axes.set_zlabel(f"{second} [mm]", labelpad=4)
    axes.minorticks_off()
    axes.tick_params(labelsize=8.5, pad=1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    for axis in (axes.yaxis, axes.zaxis):
        axis.set_major_locator(MaxNLocator(4))


def _numbers(showers: dict[str, DisplayedShower]) -> dict[str, Column]:
    lengths = [len(shower.energies) for shower in showers.values()]
    positions = np.concatenate([shower.positions for shower in showers.values()])
    energies = np.concatenate([shower.energies for shower in showers.values()])
    columns: dict[str, Column] = {"shower": np.repeat(list(showers), lengths)}
    return columns | dict(zip(_COLUMNS, (*positions.T, energies), strict=True))
