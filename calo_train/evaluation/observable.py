"""What an observable is, and the register that `@observable` enters functions into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from calo_train.evaluation.deposits import Deposits, FloatArray, Grid

Scale = Literal["linear", "log", "auto"]
Section = Literal["Energy", "Cells", "Depth", "Width"]  # of the report
Measure = Callable[[Deposits], FloatArray]


@dataclass(frozen=True)
class Observable:
    """A measurement with what figures and tables say of it.

    `measure` gives (n,), or (n, layers) where `is_per_layer` ((n, layers - 1) for neighbours); NaN
    where a shower leaves it undefined. `scale` is the axis of histograms; "auto" is logarithmic
    where the reference spans more than two decades. Those not `is_headline` stand in metrics.json
    alone. `needs` names the coordinate without which there is nothing to measure. Layers are kept
    in float32, in float64 where `is_exact`: official bin edges tell the last digits.
    """

    name: str
    title: str
    symbol: str  # LaTeX, without $
    unit: str  # empty for pure numbers
    measure: Measure
    section: Section
    scale: Scale = "linear"
    is_count: bool = False
    is_per_layer: bool = False
    is_between_layers: bool = False
    is_headline: bool = True
    needs: str = "x"
    is_exact: bool = False

    def in_words_of(self, grid: Grid, text: str) -> str:
        """Put the detector's axis names into a title or symbol."""
        first, second = grid.transverse_names
        return text.replace("<x>", _tex(first, text)).replace("<y>", _tex(second, text))

    def title_of(self, grid: Grid, layer: int | None = None) -> str:
        """Give the title in the detector's words, of one layer where it says "layers"."""
        title = self.in_words_of(grid, self.title)
        return title if layer is None else title.replace("layers", f"layer {layer}")

    def num_columns(self, grid: Grid) -> int:
        """Columns on a detector: layers, neighbours, 1, or 0 where it does not apply."""
        if self.needs not in grid.plan.names:
            return 0
        if not self.is_per_layer:
            return 1
        return grid.geometry.num_layers - int(self.is_between_layers)


REGISTERED: dict[str, Observable] = {}


def observable(
    title: str,
    *,
    symbol: str,
    section: Section,
    unit: str = "",
    scale: Scale = "linear",
    is_count: bool = False,
    is_per_layer: bool = False,
    is_between_layers: bool = False,
    is_headline: bool = True,
    needs: str = "x",
    is_exact: bool = False,
) -> Callable[[Measure], Measure]:
    """Register a function as an observable under its own name."""

    def register(measure: Measure) -> Measure:
        REGISTERED[measure.__name__] = Observable(
            measure.__name__, title, symbol, unit, measure, section, scale, is_count,
            is_per_layer or is_between_layers, is_between_layers, is_headline, needs,
            is_exact,
        )  # fmt: skip
        return measure

    return register


def _tex(name: str, text: str) -> str:
    is_symbol = "_{" in text
    return f"\\{name}" if is_symbol and name in ("alpha", "eta", "phi") else name
