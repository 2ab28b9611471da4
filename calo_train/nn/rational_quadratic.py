"""The rational-quadratic spline in torch: its map, its inverse and the gradients of both.

Formulas: Durkan et al., arXiv:1906.04032 eqs. 4-8, in the form whose terms are all positive; the
gradients are derived from it and keep that form. Branch-free: no boolean indexing and no shape
that depends on data. Linear tails are the identity outside [-tail_bound, tail_bound]; without
tails the domain is [0, 1], the end slopes are free, and outside it there is NaN.

Legend: values (..., n); parameters (..., P, n) with K widths, K heights, then slopes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from calo_train.errors import UsageError
from calo_train.nn.running_sums import running_sums
from calo_train.nn.spline_code import SplineKind

if TYPE_CHECKING:
    from nflows.transforms import MaskedPiecewiseRationalQuadraticAutoregressiveTransform


@dataclass(frozen=True)
class SplineShape:
    """What stays fixed of a spline: bins, half width of its square, smallest sizes and slope.

    `tail_bound` None means no tails: the square is [0, 1] and the slopes at its ends are free.
    """

    num_bins: int
    tail_bound: float | None
    min_width: float
    min_height: float
    min_derivative: float

    @classmethod
    def of(cls, transform: MaskedPiecewiseRationalQuadraticAutoregressiveTransform) -> SplineShape:
        """Read the shape of an nflows transform."""
        return cls(
            transform.num_bins,
            None if transform.tails is None else float(transform.tail_bound),
            transform.min_bin_width,
            transform.min_bin_height,
            transform.min_derivative,
        )

    @property
    def kind(self) -> SplineKind:
        """What a kernel is compiled for."""
        return SplineKind(self.num_bins, has_linear_tails=self.tail_bound is not None)

    @property
    def num_parameters(self) -> int:
        """Numbers that define one spline: 3K - 1 with linear tails, 3K + 1 without."""
        return self.kind.num_parameters

    @property
    def low(self) -> float:
        """Lower end of the square, on both sides."""
        return 0.0 if self.tail_bound is None else -self.tail_bound

    @property
    def high(self) -> float:
        """Upper end of the square, on both sides."""
        return 1.0 if self.tail_bound is None else self.tail_bound

    @property
    def num_fixed_ends(self) -> int:
        """Slopes at the left end that are no parameters: 1 with linear tails, else 0."""
        return 0 if self.tail_bound is None else 1

    @property
    def settings(self) -> tuple[float, float, float, float, float]:
        """Numbers that kernels read, in the order of `SplineSettings`."""
        return (self.low, self.high, self.min_width, self.min_height, self.min_derivative)

    def require_domain(self, values: Tensor, where: str) -> None:
        """Raise UsageError, naming rows, where values (n, D) have no image: outside [0, 1]."""
        if self.tail_bound is not None:
            return
        is_inside = ((values >= 0) & (values <= 1)).all(dim=1)
        if not bool(is_inside.all()):
            rows = (~is_inside).nonzero().flatten()[:5].tolist()
            raise UsageError(
                "values lie outside [0, 1], the domain of a spline without tails",
                where=f"{where}, rows {', '.join(map(str, rows))}",
                do="scale them to [0, 1], or build the flow with tails='linear'",
            )


@dataclass(frozen=True)
class _Bin:
    """The bin that a value fell into: left knot, width, height and the slopes at its ends."""

    index: Tensor  # (..., 1, n)
    shares: Tensor  # (..., 2, K, n), of all widths and heights
    left_x: Tensor
    left_y: Tensor
    width: Tensor
    height: Tensor
    slope_left: Tensor
    slope_right: Tensor

    @property
    def slope(self) -> Tensor:
        """Mean slope of the bin."""
        return self.height / self.width


@dataclass(frozen=True)
class _Point:
    """A place in a bin, theta in [0, 1], with the terms that all formulas share."""

    bin: _Bin
    theta: Tensor
    slope: Tensor
    mixed: Tensor  # theta (1 - theta)
    denominator: Tensor
    inner: Tensor  # the derivative is (slope / denominator)^2 times this

    @classmethod
    def at(cls, theta: Tensor, chosen: _Bin) -> _Point:
        rest, slope = 1 - theta, chosen.slope
        mixed, own, other = theta * rest, theta.square(), rest.square()
        ends = chosen.slope_left + chosen.slope_right
        denominator = slope * (own + other) + ends * mixed
        inner = chosen.slope_right * own + 2 * slope * mixed + chosen.slope_left * other
        return cls(chosen, theta, slope, mixed, denominator, inner)

    def share(self) -> Tensor:
        """Give how far up in its bin the value lies, in [0, 1]."""
        inner = self.slope * self.theta + self.bin.slope_left * (1 - self.theta)
        return self.theta * inner / self.denominator

    def derivative(self) -> Tensor:
        """Give the derivative; the ratio comes before the square, since s^2 leaves float32."""
        return (self.slope / self.denominator).square() * self.inner

    def bend(self) -> Tensor:
        """Give the derivative of the derivative's logarithm by theta."""
        rest = 1 - self.theta
        turn = rest - self.theta
        left, right = self.bin.slope_left, self.bin.slope_right
        inner = 2 * (right * self.theta - left * rest + self.slope * turn)
        excess = left + right - 2 * self.slope
        return inner / self.inner - 2 * turn * excess / self.denominator


def forward(features: Tensor, parameters: Tensor, shape: SplineShape) -> tuple[Tensor, Tensor]:
    """Map features to base values and give log|d value / d feature|."""
    is_inside, point = _point_of_feature(features, parameters, shape)
    values = point.bin.left_y + point.bin.height * point.share()
    return _joined(is_inside, features, values, torch.log(point.derivative()), shape)


def inverse(values: Tensor, parameters: Tensor, shape: SplineShape) -> tuple[Tensor, Tensor]:
    """Map base values to features and give log|d feature / d value|."""
    is_inside, chosen, theta = _solved(values, parameters, shape)
    features = chosen.left_x + theta * chosen.width
    log_slopes = torch.log(_Point.at(theta, chosen).derivative())
    return _joined(is_inside, values, features, -log_slopes, shape)


def inverse_features(values: Tensor, parameters: Tensor, shape: SplineShape) -> Tensor:
    """Map base values to features."""
    is_inside, chosen, theta = _solved(values, parameters, shape)
    return torch.where(is_inside, chosen.left_x + theta * chosen.width, _outside(values, shape))


def forward_gradients(
    features: Tensor,
    parameters: Tensor,
    upstream: tuple[Tensor, ...],
    shape: SplineShape,
    *,
    wants_parameters: bool,
) -> tuple[Tensor, Tensor | None]:
    """Carry gradients by values and log-slopes back to features and, if wanted, parameters."""
    is_inside, point = _point_of_feature(features, parameters, shape)
    by_value, by_log = (torch.where(is_inside, item, 0.0) for item in upstream)
    by_feature = by_value * point.derivative() + by_log * point.bend() / point.bin.width
    by_feature = torch.where(is_inside, by_feature, _outside(upstream[0], shape))
    if not wants_parameters:
        return by_feature, None
    return by_feature, _parameter_gradients(point, parameters, by_value, by_log, shape)


def inverse_gradients(
    features: Tensor,
    parameters: Tensor,
    upstream: tuple[Tensor, ...],
    shape: SplineShape,
    *,
    wants_parameters: bool,
) -> tuple[Tensor, Tensor | None]:
    """Carry gradients by features and log|d feature / d value| back to values and parameters.

    `features` are what the inverse gave. By the implicit function: with y = f(x), the inverse's
    dx is (dy - f_p dp) / f_x.
    """
    is_inside, point = _point_of_feature(features, parameters, shape)
    by_feature, by_log = (torch.where(is_inside, item, 0.0) for item in upstream)
    by_feature = by_feature - by_log * point.bend() / point.bin.width
    by_value = by_feature / point.derivative()
    outside = _outside(upstream[0], shape)
    if not wants_parameters:
        return torch.where(is_inside, by_value, outside), None
    by_parameters = _parameter_gradients(point, parameters, -by_value, -by_log, shape)
    return torch.where(is_inside, by_value, outside), by_parameters


def _outside(values: Tensor, shape: SplineShape) -> Tensor:
    return torch.full_like(values, torch.nan) if shape.tail_bound is None else values


def _joined(
    is_inside: Tensor, given: Tensor, mapped: Tensor, log_slopes: Tensor, shape: SplineShape
) -> tuple[Tensor, Tensor]:
    """Put the map inside its square and what lies outside together."""
    log_outside = torch.nan if shape.tail_bound is None else 0.0
    return (
        torch.where(is_inside, mapped, _outside(given, shape)),
        torch.where(is_inside, log_slopes, log_outside),
    )


def _within(values: Tensor, shape: SplineShape) -> tuple[Tensor, Tensor]:
    """Tell what lies inside the square, and move all else, NaN too, to its lower end."""
    is_inside = (values >= shape.low) & (values <= shape.high)
    return is_inside, torch.where(is_inside, values, shape.low)


def _point_of_feature(
    features: Tensor, parameters: Tensor, shape: SplineShape
) -> tuple[Tensor, _Point]:
    is_inside, inside = _within(features, shape)
    chosen = _find_bin(inside, parameters, shape, by_height=False)
    theta = ((inside - chosen.left_x) / chosen.width).clamp(0.0, 1.0)
    return is_inside, _Point.at(theta, chosen)


def _solved(values: Tensor, parameters: Tensor, shape: SplineShape) -> tuple[Tensor, _Bin, Tensor]:
    """Solve the quadratic of each value's bin for theta."""
    is_inside, inside = _within(values, shape)
    chosen = _find_bin(inside, parameters, shape, by_height=True)
    slope = chosen.slope
    above = inside - chosen.left_y
    bent = above * (chosen.slope_left + chosen.slope_right - 2 * slope)
    a = bent + chosen.height * (slope - chosen.slope_left)
    b = chosen.height * chosen.slope_left - bent
    c = slope * above
    root = torch.sqrt((b.square() + 4 * a * c).clamp_min(0.0))
    # 2c / (b + sqrt) has no cancellation as a goes to 0; theta leaves [0, 1] by rounding only.
    return is_inside, chosen, (2 * c / (b + root)).clamp(0.0, 1.0)


def _find_bin(value: Tensor, parameters: Tensor, shape: SplineShape, *, by_height: bool) -> _Bin:
    """Choose the bin of each value by comparing it with all inner knots."""
    shares = torch.softmax(_raw_sizes(parameters, shape.num_bins), dim=-2)
    sizes = _bin_sizes(shares, shape)
    ends = running_sums(sizes, -2) + shape.low
    searched = ends[..., 1 if by_height else 0, :-1, :]
    index = (value.unsqueeze(-2) >= searched).sum(dim=-2, keepdim=True)
    pair = index.unsqueeze(-2).expand(*index.shape[:-2], 2, *index.shape[-2:])
    # The left knot of bin k is the right end of bin k - 1.
    lefts = ends.gather(-2, (pair - 1).clamp_min(0)).squeeze(-2)
    lefts = torch.where(index == 0, shape.low, lefts)
    # The last bin ends exactly at the end of the square, whatever rounding the sum collected.
    is_last = index == shape.num_bins - 1
    chosen = torch.where(is_last, shape.high - lefts, sizes.gather(-2, pair).squeeze(-2))
    slopes = _slopes(index, parameters[..., 2 * shape.num_bins :, :], shape)
    return _Bin(index, shares, *lefts.unbind(-2), *chosen.unbind(-2), *slopes.unbind(-2))


def _raw_sizes(parameters: Tensor, num_bins: int) -> Tensor:
    """Give raw widths and heights, (..., 2, K, n)."""
    raw = parameters[..., : 2 * num_bins, :]
    return raw.reshape(*raw.shape[:-2], 2, num_bins, raw.shape[-1])


def _bin_sizes(shares: Tensor, shape: SplineShape) -> Tensor:
    smallest = _smallest_sizes(shares, shape)
    return shares * (shape.high - shape.low - shape.num_bins * smallest) + smallest


def _smallest_sizes(like: Tensor, shape: SplineShape) -> Tensor | float:
    """Give the smallest width and height, (2, 1, 1), or a number where they are equal.

    A tensor of numbers of the host makes a GPU wait.
    """
    extent = shape.high - shape.low
    if shape.min_width == shape.min_height:
        return extent * shape.min_width
    return extent * like.new_tensor([shape.min_width, shape.min_height])[:, None, None]


def _ends_of(index: Tensor, shape: SplineShape) -> Tensor:
    """Give which raw slopes stand at the ends of bins (..., 1, n); no raw one where it is 1."""
    left = index - shape.num_fixed_ends
    return torch.cat([left, left + 1], dim=-2)


def _slopes(index: Tensor, raw: Tensor, shape: SplineShape) -> Tensor:
    """Give the slopes at both ends of the chosen bin, (..., 2, n)."""
    ends, num_raw = _ends_of(index, shape), raw.shape[-2]
    if num_raw == 0:
        return torch.ones_like(ends, dtype=raw.dtype)
    chosen = raw.gather(-2, ends.clamp(0, num_raw - 1))
    # Beyond torch's own threshold of 20, log(1 + e^x) would be taken as x, which is off by 2e-9.
    slopes = shape.min_derivative + functional.softplus(chosen, threshold=40)
    return torch.where((ends < 0) | (ends >= num_raw), 1.0, slopes)


def _parameter_gradients(
    point: _Point, parameters: Tensor, by_value: Tensor, by_log: Tensor, shape: SplineShape
) -> Tensor:
    """Carry gradients by value and log-slope of a fixed feature back to parameters (..., P, n).

    The value is left_y + height q(theta, s, d0, d1), the log-slope that of `_Point.derivative`.
    """
    own, theta, slope, mixed = point.bin, point.theta, point.slope, point.mixed
    rest, share = 1 - theta, point.share()
    part = mixed / point.denominator
    tilt = own.slope_right * theta.square() - own.slope_left * rest.square()
    scaled = by_value * own.height * part
    # q decreases with the slope at its right as much as 1 - q does with that at its left.
    by_left = scaled * (rest * (slope * rest + own.slope_right * theta) / point.denominator)
    by_left = by_left + by_log * (rest.square() / point.inner - 2 * part)
    by_right = by_log * (theta.square() / point.inner - 2 * part) - scaled * share
    steepness = (own.slope_left + own.slope_right) / slope / point.denominator + 1 / point.inner
    by_slope = scaled * tilt / point.denominator + 2 * by_log * mixed * steepness
    by_feature = by_value * point.derivative() + by_log * point.bend() / own.width
    by_width = -by_feature * theta - by_slope * slope / own.width
    by_height = by_value * share + by_slope / own.width
    by_raw_sizes = _size_gradients(
        own,
        torch.stack([-by_feature, by_value], dim=-2),
        torch.stack([by_width, by_height], dim=-2),
        shape,
    )
    by_ends = torch.stack([by_left, by_right], dim=-2)
    by_raw_slopes = _slope_gradients(own.index, parameters, by_ends, shape)
    return torch.cat([by_raw_sizes, by_raw_slopes], dim=-2)


def _size_gradients(chosen: _Bin, by_left: Tensor, by_size: Tensor, shape: SplineShape) -> Tensor:
    """Carry gradients by left knots and sizes, (..., 2, n) each, back to raw sizes (..., 2K, n).

    That the last bin takes what the others leave needs no term: it moves all gradients by one
    number, which the softmax does not see.
    """
    bins = torch.arange(shape.num_bins, device=by_left.device)[:, None]
    index, shares = chosen.index.unsqueeze(-2), chosen.shares
    by_sizes = torch.where(bins < index, by_left.unsqueeze(-2), 0.0)
    by_sizes = torch.where(bins == index, by_size.unsqueeze(-2), by_sizes)
    centred = by_sizes - (by_sizes * shares).sum(dim=-2, keepdim=True)
    smallest = _smallest_sizes(by_left, shape)
    return (shares * centred * (shape.high - shape.low - shape.num_bins * smallest)).flatten(
        -3, -2
    )


def _slope_gradients(
    index: Tensor, parameters: Tensor, by_ends: Tensor, shape: SplineShape
) -> Tensor:
    """Carry gradients by the slopes at both ends, (..., 2, n), back to raw slopes."""
    raw = parameters[..., 2 * shape.num_bins :, :]
    places = torch.arange(raw.shape[-2], device=raw.device)[:, None]
    left, right = (item.unsqueeze(-2) for item in _ends_of(index, shape).unbind(-2))
    by_left, by_right = (item.unsqueeze(-2) for item in by_ends.unbind(-2))
    by_slopes = torch.where(places == left, by_left, 0.0)
    by_slopes = torch.where(places == right, by_right, by_slopes)
    return by_slopes * torch.sigmoid(raw)
