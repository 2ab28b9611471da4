"""Numbers as a table shows them, in the report and in the terminal."""

from __future__ import annotations

_FEWEST_DIGITS, _MOST_DIGITS = 4, 7  # after the point


def with_error(value: float, error: float) -> str:
    """Write a value with its error, to two digits of the error where it is small."""
    digits = _FEWEST_DIGITS
    scale = error or abs(value)
    while 0 < scale < 10.0 ** (1 - digits) and digits < _MOST_DIGITS:
        digits += 1
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def significance_words(significance: float) -> str:
    """Write a significance to one decimal, without a minus before zero."""
    return f"{round(significance, 1) + 0.0:.1f}"
