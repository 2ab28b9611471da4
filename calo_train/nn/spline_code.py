"""The rational-quadratic spline as vector code: which bin, and the solution of its quadratic.

The same formulas as `calo_train.nn.spline`, written once for every kernel that holds a spline:
drawing, and both directions of training. All lanes do the same work: bins are chosen by comparing
with every knot, never by jumping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calo_train.kernels.mathematics import exp_of_negative, log, softplus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from calo_train.kernels.code import Code
    from calo_train.kernels.values import Mask, Vector


@dataclass(frozen=True)
class SplineKind:
    """What a kernel is compiled for: number of bins, and whether slopes at the ends are 1.

    With linear tails the end slopes are 1 and the map is the identity outside; without, they are
    parameters and there is no outside.
    """

    num_bins: int
    has_linear_tails: bool

    @property
    def num_parameters(self) -> int:
        """Widths, heights and slopes: 3K - 1 with linear tails, 3K + 1 without."""
        return 3 * self.num_bins + (-1 if self.has_linear_tails else 1)

    def invert(
        self, value: Vector, parameter: Callable[[int], Vector], setting: Callable[[int], Vector]
    ) -> InvertedCode:
        """Write the inverse with the settings of `SplineSettings` in their order."""
        return invert_spline(value, parameter, self, SplineSettings.read(setting))


@dataclass(frozen=True, eq=False)
class SplineSettings:
    """Ends of the spline's square and smallest sizes, in every lane."""

    low: Vector
    high: Vector
    min_width: Vector
    min_height: Vector
    min_derivative: Vector

    NUM = 5

    @classmethod
    def read(cls, number: Callable[[int], Vector]) -> SplineSettings:
        """Read them in their order through `number(index)`."""
        return cls(*(number(index) for index in range(cls.NUM)))


@dataclass(frozen=True, eq=False)
class SidesCode:
    """Bin sizes along one side of the square, and the knots at their left ends."""

    shares: Sequence[Vector]  # softmax of the raw sizes
    sizes: Sequence[Vector]
    knots: Sequence[Vector]


@dataclass(frozen=True, eq=False)
class BinCode:
    """The bin of a value: left knot, width, height and raw slopes at its ends.

    `is_beyond[k]`: the value lies at or beyond knot k + 1, so in a bin after k.
    """

    left_x: Vector
    left_y: Vector
    width: Vector
    height: Vector
    slope_left: Vector
    slope_right: Vector
    raw_left: Vector
    raw_right: Vector
    is_beyond: Sequence[Mask]
    horizontal: SidesCode
    vertical: SidesCode


def find_bin(
    value: Vector,
    parameter: Callable[[int], Vector],
    kind: SplineKind,
    settings: SplineSettings,
    *,
    by_height: bool,
) -> BinCode:
    """Choose the bin of `value`, which lies inside the square, by its height or its width."""
    num_bins = kind.num_bins
    horizontal = _sides([parameter(k) for k in range(num_bins)], settings, settings.min_width)
    vertical = _sides(
        [parameter(num_bins + k) for k in range(num_bins)], settings, settings.min_height
    )
    searched = (vertical if by_height else horizontal).knots
    is_beyond = [value >= searched[k] for k in range(1, num_bins)]

    def chosen(items: Sequence[Vector]) -> Vector:
        result = items[0]
        for is_past, item in zip(is_beyond, items[1:], strict=True):
            result = is_past.select(item, result)
        return result

    left_x, left_y = chosen(horizontal.knots), chosen(vertical.knots)
    # The last bin ends exactly at the end of the square, whatever rounding the sum collected.
    widths = [*horizontal.sizes[:-1], settings.high - horizontal.knots[-1]]
    heights = [*vertical.sizes[:-1], settings.high - vertical.knots[-1]]
    raw_left, raw_right = (chosen(raw) for raw in _raw_slopes(value.code, parameter, kind))
    slopes = [softplus(raw) + settings.min_derivative for raw in (raw_left, raw_right)]
    if kind.has_linear_tails:
        slopes = _with_end_slopes(slopes, is_beyond, value.code)
    return BinCode(
        left_x, left_y, chosen(widths), chosen(heights), slopes[0], slopes[1],
        raw_left, raw_right, is_beyond, horizontal, vertical,
    )  # fmt: skip


def slope_logarithm(bin_: BinCode, theta: Vector) -> Vector:
    """Give the logarithm of the spline's derivative at theta in [0, 1] of its bin."""
    slope = bin_.height / bin_.width
    ratio = slope / denominator(bin_, slope, theta)
    rest = 1.0 - theta
    # s / den before the square: s^2 alone leaves the range of float32.
    inner = (theta * theta) * bin_.slope_right
    inner = (theta * rest).times_plus(2.0 * slope, inner)
    inner = (rest * rest).times_plus(bin_.slope_left, inner)
    return log(ratio * ratio * inner)


def denominator(bin_: BinCode, slope: Vector, theta: Vector) -> Vector:
    """Give the denominator of the rational function, a sum of positive terms."""
    rest = 1.0 - theta
    own = (theta * theta) + rest * rest
    return (theta * rest).times_plus(bin_.slope_left + bin_.slope_right, slope * own)


@dataclass(frozen=True, eq=False)
class InvertedCode:
    """A feature, and on demand the logarithm of its derivative by the value."""

    features: Vector
    _bin: BinCode
    _theta: Vector
    _is_inside: Mask
    _kind: SplineKind

    def log_abs_det(self) -> Vector:
        """Write the code of log|d feature / d value|; 0 on the linear tails, else NaN outside."""
        outside = 0.0 if self._kind.has_linear_tails else float("nan")
        return self._is_inside.select(-slope_logarithm(self._bin, self._theta), outside)


def invert_spline(
    value: Vector,
    parameter: Callable[[int], Vector],
    kind: SplineKind,
    settings: SplineSettings,
) -> InvertedCode:
    """Solve the quadratic of the value's bin; outside, the identity or, without tails, NaN."""
    inside = value.maximum(settings.low).minimum(settings.high)
    bin_ = find_bin(inside, parameter, kind, settings, by_height=True)
    slope = bin_.height / bin_.width
    excess = (bin_.slope_left + bin_.slope_right) - 2.0 * slope
    above = inside - bin_.left_y
    bent = above * excess
    a = bin_.height.times_plus(slope - bin_.slope_left, bent)
    b = bin_.height * bin_.slope_left - bent
    c = slope * above
    discriminant = (4.0 * a).times_plus(c, b * b)
    # 2c / (b + root) does not cancel as a goes to 0; theta leaves [0, 1] by rounding only.
    root = discriminant.maximum(0.0).sqrt()
    theta = (2.0 * c / (b + root)).maximum(0.0).minimum(1.0)
    is_inside = (value - inside).absolute() <= 0.0
    outside = value if kind.has_linear_tails else value.code.constant(float("nan"))
    features = is_inside.select(theta.times_plus(bin_.width, bin_.left_x), outside)
    return InvertedCode(features, bin_, theta, is_inside, kind)


def _sides(raw: Sequence[Vector], settings: SplineSettings, smallest: Vector) -> SidesCode:
    """Share the side of the square among the bins: softmax, none below the smallest size."""
    largest = raw[0]
    for item in raw[1:]:
        largest = largest.maximum(item)
    powers = [exp_of_negative(item - largest) for item in raw]
    total = powers[0]
    for power in powers[1:]:
        total = total + power
    inverse = 1.0 / total
    extent = settings.high - settings.low
    free = extent * (1.0 - float(len(raw)) * smallest)
    shares = [power * inverse for power in powers]
    sizes = [share.times_plus(free, extent * smallest) for share in shares]
    knots = [settings.low]
    for size in sizes[:-1]:
        knots.append(knots[-1] + size)
    return SidesCode(shares, sizes, knots)


def _raw_slopes(
    code: Code, parameter: Callable[[int], Vector], kind: SplineKind
) -> tuple[list[Vector], list[Vector]]:
    """Give the raw slope at the left and at the right end of every bin."""
    first = 2 * kind.num_bins
    raw = [parameter(index) for index in range(first, kind.num_parameters)]
    if kind.has_linear_tails:
        raw = [code.constant(0.0), *raw, code.constant(0.0)]  # the ends are set to 1 later
    return raw[:-1], raw[1:]


def _with_end_slopes(slopes: list[Vector], is_beyond: Sequence[Mask], code: Code) -> list[Vector]:
    one = code.constant(1.0)
    left, right = slopes
    if not is_beyond:
        return [one, one]
    return [is_beyond[0].select(left, one), is_beyond[-1].select(one, right)]
