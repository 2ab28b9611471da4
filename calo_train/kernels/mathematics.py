"""Exponential, logarithm, softplus, sine and cosine of vectors, to the last digits.

Written as polynomials, because a call of a library function would leave the vector registers, and
so that bits do not depend on the library. Largest errors are tested against numpy.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.kernels.values import Precision, Vector

_EXP_DEGREE = {32: 7, 64: 13}  # of the Taylor polynomial on |r| <= ln(2) / 2
_LOG_TERMS = {32: 5, 64: 11}  # of the odd series in (m - 1) / (m + 1), to s^9 and s^21
_EXP_LOWEST = {32: -86.0, 64: -700.0}  # below it e^x is taken as e^lowest: never denormal
_SINE_TERMS = {32: 5, 64: 9}  # on |x| <= pi / 4: of sine to x^9 and x^17,
_COSINE_TERMS = {32: 6, 64: 9}  # of cosine to x^10 and x^16
_LN2_HIGH = {32: 0.693359375, 64: 0.6931471803691238}  # few bits: its product with k is exact
_LN2_LOW = {32: -2.12194440e-4, 64: 1.9082149292705877e-10}


def exp_of_negative(x: Vector) -> Vector:
    """Give e^x for x <= 0 (any x up to the overflow in fact), never denormal."""
    code, kind = x.code, x.code.precision
    x = x.maximum(_EXP_LOWEST[kind.bits])
    # Added to 1.5 * 2^mantissa, a number is rounded to an integer that stands in the low bits.
    magic = 1.5 * 2.0**kind.mantissa_bits
    shifted = x.times_plus(1 / math.log(2), magic)
    power = shifted - magic
    rest = power.times_plus(-_LN2_HIGH[kind.bits], x)
    rest = power.times_plus(-_LN2_LOW[kind.bits], rest)
    degree = _EXP_DEGREE[kind.bits]
    series = _polynomial(rest, [1 / math.factorial(n) for n in range(degree + 1)])
    exponent = shifted.as_bits().shifted_left(kind.mantissa_bits)
    return series * (exponent + code.constant(1.0).as_bits()).as_numbers()


def log(x: Vector) -> Vector:
    """Give ln x for positive, normal x."""
    code, kind = x.code, x.code.precision
    # The mantissa is taken from sqrt(1/2) to sqrt(2), so that the series is short.
    lowest = code.bits(_pattern(math.sqrt(0.5), kind))
    one = code.constant(1.0).as_bits()
    moved = x.as_bits() + (one - lowest)
    mantissa_mask = code.bits((1 << kind.mantissa_bits) - 1)
    mantissa = ((moved & mantissa_mask) + lowest).as_numbers()
    magic = 2.0**kind.mantissa_bits
    biased = moved.shifted_right(kind.mantissa_bits) | code.constant(magic).as_bits()
    power = biased.as_numbers() - (magic + kind.bias)
    f = mantissa - 1.0
    s = f / (f + 2.0)
    square = s * s
    terms = _LOG_TERMS[kind.bits]
    series = _polynomial(square, [2 / (2 * n + 1) for n in range(1, terms)])
    # ln m = 2s + s^3 ...; the small pieces are added first.
    small = power.times_plus(_LN2_LOW[kind.bits], s * square * series)
    return power.times_plus(_LN2_HIGH[kind.bits], s.times_plus(2.0, small))


def softplus(x: Vector) -> Vector:
    """Give ln(1 + e^x)."""
    e = exp_of_negative(-x.absolute())
    u = 1.0 + e
    # What rounding of 1 + e lost comes back to first order.
    return x.maximum(0.0) + (log(u) + (e - (u - 1.0)) / u)


def sigmoid(x: Vector) -> Vector:
    """Give 1 / (1 + e^-x)."""
    e = exp_of_negative(-x.absolute())
    share = 1.0 / (1.0 + e)
    return (x >= 0.0).select(share, e * share)


def cos_and_sin_of_turns(turns: Vector) -> tuple[Vector, Vector]:
    """Give cos 2 pi t and sin 2 pi t for t from 0 to 1."""
    code, kind = turns.code, turns.code.precision
    magic = 1.5 * 2.0**kind.mantissa_bits
    shifted = turns.times_plus(4.0, magic)
    # In units of quarter turns nothing is lost by taking whole ones off.
    angle = (4.0 * turns - (shifted - magic)) * (math.pi / 2)
    square = angle * angle
    odd, even = (
        [(-1) ** n / math.factorial(2 * n + first) for n in range(1, terms[kind.bits])]
        for first, terms in ((1, _SINE_TERMS), (0, _COSINE_TERMS))
    )
    sine = (angle * square).times_plus(_polynomial(square, odd), angle).as_bits()
    cosine = square.times_plus(_polynomial(square, even), 1.0).as_bits()
    quarters, one = shifted.as_bits(), code.bits(1)
    # Odd quarters swap the two; cosine is negative in the second and third, sine after them.
    swapped = (sine ^ cosine) & (code.bits(0) - (quarters & one))
    half_turns = [(quarters + one).shifted_right(1), quarters.shifted_right(1)]
    signs = [(half & one).shifted_left(kind.bits - 1) for half in half_turns]
    return (cosine ^ swapped ^ signs[0]).as_numbers(), (sine ^ swapped ^ signs[1]).as_numbers()


def _polynomial(x: Vector, coefficients: Sequence[float]) -> Vector:
    """Evaluate a polynomial, coefficients from the constant up."""
    result = x.code.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result.times_plus(x, coefficient)
    return result


def _pattern(value: float, kind: Precision) -> int:
    packed = struct.pack("<f" if kind.bits == 32 else "<d", value)
    return int.from_bytes(packed, "little")
