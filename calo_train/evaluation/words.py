"""Numbers as a table shows them, in the report and in the terminal."""

from __future__ import annotations

import math

_FEWEST_DIGITS, _MOST_DIGITS = 4, 7  # after the point
_SMALLEST_SHARE = 1e-5


def with_error(value: float, error: float) -> str:
    """Write a value with its error, to two digits of the error where it is small."""
    digits = _FEWEST_DIGITS
    scale = error or abs(value)
    while 0 < scale < 10.0 ** (1 - digits) and digits < _MOST_DIGITS:
        digits += 1
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def three_digits(value: float) -> str:
    """Write three significant digits, never as a power of ten: `0.500`, `10.0`, `0.0000137`."""
    if not value:
        return "0"
    places = max(2 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{places}f}"


def share_words(share: float) -> str:
    """Write a share in per cent, to two digits; below 0.001 % it only matters that it is not 0."""
    if not share:
        return "0"
    return f"{100 * share:.2g} %" if share >= _SMALLEST_SHARE else "< 0.001 %"


def significance_words(significance: float) -> str:
    """Write a significance to one decimal, without a minus before zero."""
    return f"{round(significance, 1) + 0.0:.1f}"
