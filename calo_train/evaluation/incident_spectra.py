"""Incident energies of sample and reference: equal in law, or nothing else can be compared.

Every observable follows the incident energy, so another spectrum shifts all of them at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calo_train.errors import DataError
from calo_train.quantities import format_energy

if TYPE_CHECKING:
    from calo_train.evaluation.deposits import FloatArray

_PROBABILITY = 1e-6  # of two equal incident spectra being called different
_NUM_BINS = 12
_BAR = 24  # characters of the longest bar
_DECADES_OF_LOG = 1.5  # wider spectra get logarithmic bins


def spectrum_warning(
    label: str,
    found: FloatArray,
    reference_label: str,
    expected: FloatArray,
    *,
    is_allowed: bool = False,
) -> str | None:
    """Say how two incident spectra differ (Kolmogorov-Smirnov, p < 1e-6); None where they agree.

    Raises DataError with both histograms unless a difference is allowed.
    """
    from scipy.stats import ks_2samp

    probability = float(ks_2samp(found, expected, method="asymp").pvalue)
    if probability >= _PROBABILITY:
        return None
    words = (
        f"incident energies differ: {_words(found)} in the sample, {_words(expected)} in the "
        f"reference (Kolmogorov-Smirnov p = {probability:.0e})"
    )
    histograms = spectrum_histograms(found, expected)
    if is_allowed:
        return f"{label}: {words}; every number below is distorted by it\n{histograms}"
    raise DataError(
        f"{words}\n{histograms}",
        where=f"{label} against {reference_label}",
        do="draw the sample at the reference's conditions: calo-sample GENERATOR --like "
        "REFERENCE; --allow-different-energies goes on, with every metric distorted",
    )


def spectrum_histograms(found: FloatArray, expected: FloatArray) -> str:
    """Draw both spectra as text: a row a bin, the sample's share and the reference's."""
    edges = _edges(np.concatenate([found, expected]))
    shares = [np.histogram(values, edges)[0] / len(values) for values in (found, expected)]
    scale = _BAR / max(share.max() for share in shares)
    names = [f"{format_energy(float(f'{low:.3g}'))}" for low in edges[:-1]]
    width = max(map(len, names))
    rows = [f"  {'from':>{width}}  {'sample':<{_BAR + 6}}  reference"]
    for name, *both in zip(names, *shares, strict=True):
        bars = [f"{share:5.3f} {'#' * round(scale * share)}" for share in both]
        rows.append(f"  {name:>{width}}  {bars[0]:<{_BAR + 6}}  {bars[1]}".rstrip())
    return "\n".join(rows)


def _edges(energies: FloatArray) -> FloatArray:
    low, high = float(energies.min()), float(energies.max())
    if low > 0 and np.log10(high / low) > _DECADES_OF_LOG:
        edges = np.geomspace(low, high, _NUM_BINS + 1)
        edges[[0, -1]] = low, high  # exactly, else rounding drops the ends
        return edges
    return np.linspace(low, high if high > low else low + 1.0, _NUM_BINS + 1)


def _words(energies: FloatArray) -> str:
    low, mean, high = energies.min(), energies.mean(), energies.max()
    return (
        f"{len(energies)} showers of {format_energy(float(low))} to {format_energy(float(high))}, "
        f"mean {format_energy(float(mean))}"
    )
