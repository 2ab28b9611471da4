"""How figures look: one style, one header, one ratio panel, colours that survive grey.

Figure functions return a `ReportFigure` and save nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calo_train.quantities import format_energy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from calo_train.evaluation.results import Evaluation, SampleResult

Column = npt.NDArray[Any] | Sequence[Any]
FloatArray = npt.NDArray[np.float64]

REFERENCE_COLOUR = "#4d4d4d"
_FILL = "#d9d9d9"
# Okabe and Ito (2008), in the order in which they differ most in grey
SAMPLE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_RATIO_HALF_RANGES = (0.05, 0.1, 0.2, 0.5, 1.0)
_STYLE: dict[str, Any] = {
    "figure.dpi": 100,
    "font.size": 11,
    "axes.labelsize": 12,
    "axes.titlesize": 11,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "axes.linewidth": 1.0,
    "xtick.major.size": 6,
    "xtick.minor.size": 3,
    "ytick.major.size": 6,
    "ytick.minor.size": 3,
    "lines.linewidth": 1.5,
    "axes.labelpad": 4,
    "xtick.major.pad": 5,
    "ytick.major.pad": 5,
    "savefig.transparent": False,
    "mathtext.default": "it",
    "mathtext.cal": "TeX Gyre Heros",  # mplhep asks for a cursive font that few machines have
    "pdf.fonttype": 42,
}


@dataclass(frozen=True, eq=False)
class ReportFigure:
    """A figure with its file name, section, caption and numbers (columns of equal length)."""

    name: str
    title: str
    section: str
    caption: str
    figure: Figure
    numbers: Mapping[str, Column]
    is_wide: bool = False


@dataclass(frozen=True, eq=False)
class Curve:
    """Values with errors on the bins of a figure, (bins,) each."""

    label: str
    values: FloatArray
    errors: FloatArray
    colour: str


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in mplhep's CMS conventions (ticks inward, on all sides) at report size."""
    import matplotlib.pyplot as plt
    import mplhep

    style: dict[Any, Any] = {**mplhep.style.CMS, **_STYLE}
    with plt.rc_context(style):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def ratio_figure() -> tuple[Figure, Axes, Axes]:
    """Make a figure with a main and a ratio panel; fixed margins line figures up in the page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 5.4))
    FigureCanvasAgg(figure)
    margins = {"left": 0.15, "right": 0.975, "bottom": 0.115, "top": 0.94, "hspace": 0.09}
    main, ratio = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1), **margins}
    )
    return figure, main, ratio


def small_ratio_panels(num_panels: int) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Make up to three main and ratio panels a row, with room for a legend above them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, NullLocator

    num_columns = min(3, num_panels)
    num_rows = -(-num_panels // num_columns)
    width, height = 3.6 * num_columns + 0.4, 3.3 * num_rows + 0.9
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        num_rows, num_columns, left=0.75 / width, right=1 - 0.2 / width, bottom=0.6 / height,
        top=1 - 0.95 / height, hspace=0.32, wspace=0.28,
    )  # fmt: skip
    panels = []
    for index in range(num_panels):
        cell = grid[divmod(index, num_columns)].subgridspec(2, 1, height_ratios=(3, 1), hspace=0.1)
        ratio = figure.add_subplot(cell[1])
        main = figure.add_subplot(cell[0], sharex=ratio)
        main.tick_params(labelbottom=False)
        ratio.xaxis.set_major_locator(MaxNLocator(4))
        for axis in (main.xaxis, main.yaxis, ratio.yaxis):
            # They crowd small panels, and half of the time of drawing goes into ticks.
            axis.set_minor_locator(NullLocator())
        panels.append((main, ratio))
    return figure, panels


def write_header(axes: Axes, evaluation: Evaluation, *, is_short: bool = False) -> None:
    """Name detector and incident particles above a panel."""
    axes.set_title(evaluation.reference.geometry.name, loc="left", fontweight="bold", fontsize=11)
    if not is_short:
        axes.set_title(incident_words(evaluation), loc="right", fontsize=10.5)


def incident_words(evaluation: Evaluation) -> str:
    """Say which showers these are, such as `photon, 10 GeV to 100 GeV`."""
    energies = evaluation.reference_table.incident_energy
    low, high = (format_energy(float(f"{end:.3g}")) for end in (energies.min(), energies.max()))
    particle = str(evaluation.reference.source.attributes.get("particle", "")).strip()
    span = low if low == high else f"{low} to {high}"
    return f"{particle}, {span}" if particle else span


def reference_label(evaluation: Evaluation) -> str:
    return f"reference: {evaluation.reference.label} ({len(evaluation.reference_table)} showers)"


def sample_curves(
    evaluation: Evaluation, make: Callable[[Any], tuple[FloatArray, FloatArray]]
) -> tuple[Curve, list[Curve]]:
    """Give the reference's and the samples' curves from `make(table) -> (values, errors)`."""
    reference = Curve(
        reference_label(evaluation), *make(evaluation.reference_table), REFERENCE_COLOUR
    )
    samples = [
        Curve(
            f"{result.showers.label} ({len(result.table)} showers)",
            *make(result.table),
            SAMPLE_COLOURS[index % len(SAMPLE_COLOURS)],
        )
        for index, result in enumerate(evaluation.samples)
    ]
    return reference, samples


def caption_tail(evaluation: Evaluation) -> str:
    """Name both files, sizes, threshold and seed; every caption ends with it."""
    samples = "; ".join(
        f"{result.showers.label}: {', '.join(result.showers.file_names)}, "
        f"{len(result.table)} showers"
        for result in evaluation.samples
    )
    reference = evaluation.reference
    return (
        f"Reference {reference.label}: {', '.join(reference.file_names)}, "
        f"{len(evaluation.reference_table)} showers. {samples}. "
        f"Cells below {format_energy(evaluation.settings.threshold)} are zero. "
        f"Seed {evaluation.settings.seed}."
    )


def draw_steps(axes: Axes, edges: FloatArray, reference: Curve, samples: Sequence[Curve]) -> None:
    """Draw the reference filled with its statistical band, samples as lines with error bars."""
    axes.stairs(reference.values, edges, fill=True, color=_FILL, lw=0)
    axes.stairs(reference.values, edges, color=reference.colour, lw=1.2, label=reference.label)
    axes.fill_between(
        edges,
        _repeat_last(np.maximum(reference.values - reference.errors, 0)),
        _repeat_last(reference.values + reference.errors),
        step="post",
        color=reference.colour,
        alpha=0.35,
        lw=0,
        label="reference, statistical error",
    )
    centres = _centres(axes, edges)
    for curve in samples:
        axes.stairs(
            curve.values, edges, baseline=None, color=curve.colour, lw=1.6, label=curve.label
        )
        axes.errorbar(centres, curve.values, yerr=curve.errors, fmt="none", ecolor=curve.colour)


def draw_ratio(axes: Axes, edges: FloatArray, reference: Curve, samples: Sequence[Curve]) -> None:
    """Draw sample over reference; points beyond the panel become triangles on its border."""
    with np.errstate(divide="ignore", invalid="ignore"):
        band = np.where(reference.values > 0, reference.errors / reference.values, 0.0)
        ratios = [curve.values / reference.values for curve in samples]
        errors = [curve.errors / reference.values for curve in samples]
    half = _half_range([*ratios, 1 + band])
    axes.fill_between(
        edges, _repeat_last(1 - band), _repeat_last(1 + band), step="post", color=_FILL, lw=0
    )
    axes.axhline(1, color=REFERENCE_COLOUR, lw=1)
    centres = _centres(axes, edges)
    for curve, ratio, error in zip(samples, ratios, errors, strict=True):
        inside = np.isfinite(ratio) & (np.abs(ratio - 1) <= half)
        axes.errorbar(
            centres[inside], ratio[inside], yerr=error[inside], fmt="o", ms=3, color=curve.colour,
            elinewidth=1,
        )  # fmt: skip
        for sign, marker in ((1, "^"), (-1, "v")):
            beyond = np.isfinite(ratio) & (sign * (ratio - 1) > half)
            height = np.full(np.count_nonzero(beyond), 1 + 0.9 * sign * half)
            axes.plot(centres[beyond], height, marker, ms=4, color=curve.colour)
    axes.set_ylim(1 - half, 1 + half)
    axes.set_ylabel("ratio to\nreference")


def suffix_of(evaluation: Evaluation, result: SampleResult) -> str:
    """Tell figures of single samples apart by name; nothing where there is one sample."""
    return f"_{evaluation.samples.index(result) + 1}" if len(evaluation.samples) > 1 else ""


def words_of(evaluation: Evaluation, result: SampleResult) -> str:
    """Tell figures of single samples apart by title."""
    return f", {result.showers.label}" if len(evaluation.samples) > 1 else ""


def axis_label(symbol: str, unit: str) -> str:
    """Write a quantity and its unit for an axis."""
    return f"${symbol}$ [{unit}]" if unit else f"${symbol}$"


def add_legend(axes: Axes, *, headroom: float = 1.38) -> None:
    """Put the legend above the data and make room for it."""
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log":
        axes.set_ylim(low, high * (high / low) ** (headroom - 1))
    else:
        axes.set_ylim(low, low + (high - low) * headroom)
    axes.legend(loc="upper right")


def _half_range(values: Sequence[FloatArray]) -> float:
    pooled = np.concatenate(values)
    distances = np.abs(pooled[np.isfinite(pooled)] - 1)
    wanted = float(np.quantile(distances, 0.9)) * 1.3 if len(distances) else 0.0
    return next((half for half in _RATIO_HALF_RANGES if half >= wanted), _RATIO_HALF_RANGES[-1])


def _centres(axes: Axes, edges: FloatArray) -> FloatArray:
    if axes.get_xscale() == "log":
        return np.asarray(np.sqrt(edges[:-1] * edges[1:]))
    return (edges[:-1] + edges[1:]) / 2


def _repeat_last(values: FloatArray) -> FloatArray:
    return np.append(values, values[-1])
