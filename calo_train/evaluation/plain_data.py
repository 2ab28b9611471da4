"""Results as plain data for metrics.json: the pieces that many of its blocks share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calo_train.evaluation.floor import Metric
    from calo_train.evaluation.results import ObservableResult

_DIGITS = 10  # significant digits; the last ones of a float64 depend on the thread count


def observable_data(entry: ObservableResult) -> dict[str, Any]:
    """Give an observable's distances and floors."""
    found: dict[str, Any] = {
        "title": entry.title,
        "unit": entry.unit,
        "num_bins": entry.num_bins,
        **metric_data("separation", entry.separation),
        "separation_all_showers": rounded(entry.separation_all),
        "outside_sample": rounded(entry.outside_sample),
        "outside_reference": rounded(entry.outside_reference),
        "significance": rounded(entry.significance),
        "verdict": entry.verdict,
    }
    if entry.wasserstein is not None and entry.wasserstein_all is not None:
        found |= metric_data("wasserstein", entry.wasserstein)
        found["wasserstein_all_showers"] = rounded(entry.wasserstein_all)
    if entry.chi2 is not None:
        found |= metric_data("chi2", entry.chi2)
    return found


def metric_data(name: str, metric: Metric) -> dict[str, float]:
    """Give a metric under names that begin with its own."""
    return {
        name: rounded(metric.value),
        f"{name}_error": rounded(metric.error),
        f"{name}_floor": rounded(metric.floor),
        f"{name}_floor_error": rounded(metric.floor_error),
        f"{name}_significance": rounded(metric.significance),
    }


def rounded(value: float) -> float:
    """Round to the digits that do not depend on the number of threads."""
    return float(f"{value:.{_DIGITS}g}")
