"""Random numbers of the laws that a shower needs, each from one number in (0, 1) or one normal.

A quantile function makes a draw a pure function of a keyed number, so that it does not depend on
what else is drawn. Large means take expansions that are good to far below a fluctuation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv, ndtri

FloatArray = npt.NDArray[np.float64]

_MANY = 16.0  # mean from which a Poisson count comes from its normal expansion
_SMOOTH = 30.0  # shape from which a gamma number comes from Wilson and Hilferty's cube


def poisson_counts(uniform: FloatArray, mean: FloatArray) -> FloatArray:
    """Give Poisson counts of means (...), the quantiles of numbers in (0, 1), as float64.

    Exact below a mean of 16; above from the Cornish-Fisher expansion to the first order, whose
    mean, variance and skewness are right to 1 %.
    """
    uniform, mean = uniform.ravel(), mean.ravel()
    counts = np.zeros(len(mean))
    # Most cells are far from the axis: 1 - mean < exp(-mean) tells their zeros without the latter.
    few = np.flatnonzero((uniform > 1 - mean) & (mean < _MANY))
    rate = mean[few]
    term = np.exp(-rate)
    left = uniform[few] - term
    few, left, rate, term = _rows(left > 0, few, left, rate, term)
    number = 0
    while len(few):
        number += 1
        term = term * (rate / number)
        counts[few] = number
        # The tail beyond the last term that float64 tells from zero belongs to it.
        is_above = (left > term) & ((number < rate) | (term > 1e-17))
        few, left, rate, term = _rows(is_above, few, left - term, rate, term)
    many = np.flatnonzero(mean >= _MANY)
    z, large = ndtri(uniform[many]), mean[many]
    counts[many] = np.maximum(np.rint(large + np.sqrt(large) * z + (z * z - 1) / 6), 0)
    return counts


def gamma_numbers(uniform: FloatArray, shape: FloatArray) -> FloatArray:
    """Give gamma numbers of shapes (...) with the mean 1, the quantiles of numbers in (0, 1).

    Exact below a shape of 30, above by `gamma_from_normals`: 2 % of a width at four sigma.
    """
    flat, place = shape.ravel(), uniform.ravel()
    values = np.zeros(len(flat))
    small = np.flatnonzero((flat > 0) & (flat < _SMOOTH))
    values[small] = gammaincinv(flat[small], place[small]) / flat[small]
    large = np.flatnonzero(flat >= _SMOOTH)
    values[large] = gamma_from_normals(ndtri(place[large]), flat[large])
    return values.reshape(shape.shape)


def gamma_from_normals(normal: FloatArray, shape: FloatArray) -> FloatArray:
    """Give gamma numbers with the mean 1 from standard normal ones (Wilson & Hilferty, 1931).

    Good to 1 % of the width for shapes above 1, and never negative.
    """
    ninth = 1 / (9 * shape)
    numbers: FloatArray = np.maximum(1 - ninth + normal * np.sqrt(ninth), 0.0) ** 3
    return numbers


def _rows(
    is_kept: npt.NDArray[np.bool_],
    few: npt.NDArray[np.int64],
    left: FloatArray,
    rate: FloatArray,
    term: FloatArray,
) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray, FloatArray]:
    kept = np.flatnonzero(is_kept)
    return few[kept], left[kept], rate[kept], term[kept]
