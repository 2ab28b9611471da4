"""The rational-quadratic spline with linear tails, branch-free.

Parameters lie along the first axis: K widths, K heights, K - 1 inner derivatives, as one MADE of
nflows gives them for a feature; every further axis is a batch. There is no boolean indexing and no
data-dependent shape. Formulas: Durkan et al., arXiv:1906.04032 eqs. 4-8, in the form whose terms
are all positive. Outside [-tail_bound, tail_bound] the map is the identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class SplineShape:
    """What stays fixed of a spline: bins, half width of its square, smallest sizes and slope."""

    num_bins: int
    tail_bound: float
    min_width: float
    min_height: float
    min_derivative: float

    @property
    def num_parameters(self) -> int:
        """Numbers that define one spline: 3K - 1."""
        return 3 * self.num_bins - 1


@dataclass(frozen=True)
class _Bin:
    """The bin that a value fell into: left knot, width, height and the slopes at its ends."""

    left_x: Tensor
    left_y: Tensor
    width: Tensor
    height: Tensor
    slope_left: Tensor
    slope_right: Tensor


@dataclass(frozen=True)
class InvertedSpline:
    """Features of one inversion, and what else follows from it where it is asked for."""

    features: Tensor
    _theta: Tensor
    _bin: _Bin
    _slope: Tensor
    _discriminant: Tensor
    _is_inside: Tensor

    def log_abs_det(self) -> Tensor:
        """Give log|d feature / d value|, shaped like the values."""
        log_slope = _log_slope(self._theta, self._bin, self._slope)
        return torch.where(self._is_inside, -log_slope, 0.0)

    def is_clamped(self) -> Tensor:
        """Tell where the discriminant was negative and taken as zero; only rounding causes it."""
        return (self._discriminant < 0) & self._is_inside


def spline_inverse(values: Tensor, parameters: Tensor, shape: SplineShape) -> InvertedSpline:
    """Map base values (...) to features (...); parameters (3K - 1, ...)."""
    inside = values.clamp(-shape.tail_bound, shape.tail_bound)
    chosen = _find_bin(inside, parameters, shape, by_height=True)
    slope = chosen.height / chosen.width
    excess = chosen.slope_left + chosen.slope_right - 2 * slope
    above = inside - chosen.left_y
    bent = above * excess
    a = bent + chosen.height * (slope - chosen.slope_left)
    b = chosen.height * chosen.slope_left - bent
    c = slope * above
    discriminant = b.square() + 4 * a * c
    # 2c / (b + sqrt) has no cancellation as a goes to 0; theta leaves [0, 1] by rounding only.
    root = torch.sqrt(discriminant.clamp_min(0.0))
    theta = (2 * c / (b + root)).clamp(0.0, 1.0)
    is_inside = values.abs() <= shape.tail_bound
    features = torch.where(is_inside, chosen.left_x + theta * chosen.width, values)
    return InvertedSpline(features, theta, chosen, slope, discriminant, is_inside)


def spline_forward(
    features: Tensor, parameters: Tensor, shape: SplineShape
) -> tuple[Tensor, Tensor]:
    """Map features (...) to base values and give log|d value / d feature|."""
    inside = features.clamp(-shape.tail_bound, shape.tail_bound)
    chosen = _find_bin(inside, parameters, shape, by_height=False)
    slope = chosen.height / chosen.width
    theta = ((inside - chosen.left_x) / chosen.width).clamp(0.0, 1.0)
    mixed = theta * (1 - theta)
    numerator = slope * theta.square() + chosen.slope_left * mixed
    values = chosen.left_y + chosen.height * numerator / _denominator(theta, chosen, slope)
    is_inside = features.abs() <= shape.tail_bound
    return (
        torch.where(is_inside, values, features),
        torch.where(is_inside, _log_slope(theta, chosen, slope), 0.0),
    )


def _denominator(theta: Tensor, chosen: _Bin, slope: Tensor) -> Tensor:
    rest = 1 - theta
    return (
        slope * (theta.square() + rest.square())
        + (chosen.slope_left + chosen.slope_right) * theta * rest
    )


def _log_slope(theta: Tensor, chosen: _Bin, slope: Tensor) -> Tensor:
    """Logarithm of the spline's derivative at theta; s/den first, since s^2 leaves float32."""
    rest = 1 - theta
    inner = (
        chosen.slope_right * theta.square()
        + 2 * slope * theta * rest
        + chosen.slope_left * rest.square()
    )
    return torch.log((slope / _denominator(theta, chosen, slope)).square() * inner)


def _find_bin(value: Tensor, parameters: Tensor, shape: SplineShape, *, by_height: bool) -> _Bin:
    """Choose the bin of each value by comparing it with all inner knots."""
    num_bins, bound = shape.num_bins, shape.tail_bound
    sizes = _bin_sizes(parameters, shape)  # (2, K, ...): widths, heights
    ends = sizes.cumsum(dim=1) - bound
    searched = ends[1 if by_height else 0, :-1]
    index = (value >= searched).sum(dim=0, keepdim=True)
    pair = index.expand(2, *index.shape)
    chosen_sizes = sizes.gather(1, pair).squeeze(1)
    # The left knot of bin k is the right end of bin k - 1.
    lefts = ends.gather(1, (pair - 1).clamp_min(0)).squeeze(1)
    is_first = index.squeeze(0) == 0
    lefts = torch.where(is_first, -bound, lefts)
    # The last bin ends exactly at the bound, whatever rounding the sum collected.
    is_last = index.squeeze(0) == num_bins - 1
    chosen_sizes = torch.where(is_last, bound - lefts, chosen_sizes)
    slopes = _slopes(index, parameters[2 * num_bins :], shape)
    return _Bin(lefts[0], lefts[1], chosen_sizes[0], chosen_sizes[1], slopes[0], slopes[1])


def _bin_sizes(parameters: Tensor, shape: SplineShape) -> Tensor:
    num_bins = shape.num_bins
    raw = parameters[: 2 * num_bins].reshape(2, num_bins, *parameters.shape[1:])
    shares = torch.softmax(raw, dim=1)
    if shape.min_width == shape.min_height:
        smallest, extent = shape.min_width, 2 * shape.tail_bound
        return shares * (extent * (1 - num_bins * smallest)) + extent * smallest
    smallest_pair = shares.new_tensor([shape.min_width, shape.min_height])
    smallest_pair = smallest_pair.reshape(2, *([1] * (shares.ndim - 1)))
    return 2 * shape.tail_bound * (smallest_pair + (1 - num_bins * smallest_pair) * shares)


def _slopes(index: Tensor, raw: Tensor, shape: SplineShape) -> Tensor:
    """Give the slopes at both ends of the chosen bin, (2, ...); 1 at the ends of the spline."""
    num_inner = shape.num_bins - 1
    if num_inner == 0:
        return torch.ones((2, *index.shape[1:]), dtype=raw.dtype, device=raw.device)
    both = torch.cat([index - 1, index])
    chosen = raw.gather(0, both.clamp(0, num_inner - 1))
    slopes = shape.min_derivative + functional.softplus(chosen)
    return torch.where((both < 0) | (both >= num_inner), 1.0, slopes)
