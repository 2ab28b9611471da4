"""The rational-quadratic spline in the direction of training, and its gradients, as vector code.

The formulas of `calo_train.nn.rational_quadratic`, term by term. A gradient reads nothing of the
forward pass: finding the bin again costs less than keeping it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calo_train.kernels.mathematics import sigmoid
from calo_train.nn.spline_code import denominator, find_bin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from calo_train.kernels.values import Mask, Vector
    from calo_train.nn.spline_code import BinCode, SidesCode, SplineKind, SplineSettings


@dataclass(frozen=True, eq=False)
class PointCode:
    """A feature's place in its bin, with the terms that all formulas share."""

    bin: BinCode
    is_inside: Mask
    theta: Vector
    slope: Vector
    per_denominator: Vector
    inner: Vector
    derivative: Vector  # of the value by the feature

    @classmethod
    def of(
        cls,
        feature: Vector,
        parameter: Callable[[int], Vector],
        kind: SplineKind,
        settings: SplineSettings,
    ) -> PointCode:
        """Find the place; what is outside the square, or NaN, is moved to its end."""
        inside = feature.maximum(settings.low).minimum(settings.high)
        is_inside = (feature - inside).absolute() <= 0.0
        own = find_bin(inside, parameter, kind, settings, by_height=False)
        theta = ((inside - own.left_x) / own.width).maximum(0.0).minimum(1.0)
        rest, slope = 1.0 - theta, own.height / own.width
        per_denominator = 1.0 / denominator(own, slope, theta)
        inner = (theta * theta) * own.slope_right
        inner = (theta * rest).times_plus(2.0 * slope, inner)
        inner = (rest * rest).times_plus(own.slope_left, inner)
        ratio = slope * per_denominator
        derivative = ratio * ratio * inner
        return cls(own, is_inside, theta, slope, per_denominator, inner, derivative)

    @property
    def rest(self) -> Vector:
        """One minus theta."""
        return 1.0 - self.theta

    def share(self) -> Vector:
        """Give how far up in its bin the value lies, in [0, 1]."""
        inner = self.theta.times_plus(self.slope, self.rest * self.bin.slope_left)
        return self.theta * inner * self.per_denominator

    def bend(self) -> Vector:
        """Give the derivative of the derivative's logarithm by theta."""
        turn = self.rest - self.theta
        left, right = self.bin.slope_left, self.bin.slope_right
        inner = self.theta * right - self.rest * left
        inner = 2.0 * turn.times_plus(self.slope, inner)
        excess = (left + right) - 2.0 * self.slope
        return inner / self.inner - 2.0 * turn * excess * self.per_denominator


def write_parameter_gradients(
    point: PointCode,
    upstream: tuple[Vector, Vector],
    kind: SplineKind,
    settings: SplineSettings,
    store: Callable[[int, Vector], None],
) -> None:
    """Write what gradients by value and log-slope of a fixed feature give for each parameter."""
    by_value, by_log = upstream
    own, theta, rest, slope = point.bin, point.theta, point.rest, point.slope
    per_width, per_inner, share = 1.0 / own.width, 1.0 / point.inner, point.share()
    part = theta * rest * point.per_denominator
    scaled = by_value * own.height * part
    other_share = rest * theta.times_plus(own.slope_right, slope * rest) * point.per_denominator
    by_left = scaled.times_plus(other_share, by_log * (rest * rest * per_inner - 2.0 * part))
    by_right = by_log * (theta * theta * per_inner - 2.0 * part) - scaled * share
    tilt = (theta * theta) * own.slope_right - (rest * rest) * own.slope_left
    ends = (own.slope_left + own.slope_right) / slope
    steepness = ends.times_plus(point.per_denominator, per_inner)
    by_slope = scaled * tilt * point.per_denominator + 2.0 * by_log * (theta * rest) * steepness
    by_feature = by_value.times_plus(point.derivative, by_log * point.bend() * per_width)
    by_width = -(by_feature * theta) - by_slope * slope * per_width
    by_height = by_value.times_plus(share, by_slope * per_width)
    widths = _size_gradients(point, own.horizontal, -by_feature, by_width)
    heights = _size_gradients(point, own.vertical, by_value, by_height)
    extent, num_bins = settings.high - settings.low, float(kind.num_bins)
    for k, gradient in enumerate(widths):
        store(k, extent * (1.0 - num_bins * settings.min_width) * gradient)
    for k, gradient in enumerate(heights):
        store(kind.num_bins + k, extent * (1.0 - num_bins * settings.min_height) * gradient)
    ends_of_bin = (by_left * sigmoid(own.raw_left), by_right * sigmoid(own.raw_right))
    for k, gradient in enumerate(_slope_gradients(point, ends_of_bin, kind)):
        store(2 * kind.num_bins + k, gradient)


def _size_gradients(
    point: PointCode, side: SidesCode, by_left: Vector, by_size: Vector
) -> list[Vector]:
    """Carry gradients by left knot and size of the bin back through the softmax.

    That the last bin takes what the others leave needs no term: it moves all gradients by one
    number, which the softmax does not see.
    """
    past = point.bin.is_beyond
    by_sizes = [by_size, *(is_past.select(by_size, 0.0) for is_past in past)]
    for k, is_past in enumerate(past):
        by_sizes[k] = is_past.select(by_left, by_sizes[k])
    mean = by_left.code.constant(0.0)
    for share, gradient in zip(side.shares, by_sizes, strict=True):
        mean = share.times_plus(gradient, mean)
    return [
        share * (gradient - mean) for share, gradient in zip(side.shares, by_sizes, strict=True)
    ]


def _slope_gradients(
    point: PointCode, by_ends: tuple[Vector, Vector], kind: SplineKind
) -> Sequence[Vector]:
    """Put the gradients by the raw slopes at both ends of the bin to their knots."""
    past, (by_left, by_right) = point.bin.is_beyond, by_ends
    zero = by_left.code.constant(0.0)
    num_bins = kind.num_bins
    # At knot k meet bins k - 1, whose right end it is, and k.
    by_knots = [zero] * (num_bins + 1)
    for k in range(num_bins + 1):
        as_left = zero if k == num_bins else by_left
        as_left = past[k].select(zero, as_left) if k < num_bins - 1 else as_left
        as_right = zero if k == 0 else by_right
        as_right = past[k - 2].select(as_right, zero) if k >= 2 else as_right
        if 1 <= k <= num_bins - 1:
            by_knots[k] = past[k - 1].select(as_left, as_right)
        else:
            by_knots[k] = as_left if k == 0 else as_right
    return by_knots[1:-1] if kind.has_linear_tails else by_knots
