"""The walk as one GPU kernel: interprets the table of a flow for a few showers a program instance.

An instance owns the rows of its showers, (rows, LANES) in a scratch array that stays in the
cache of its multiprocessor, and takes the operations one after the other; a barrier between them
lets every thread see what the others stored. An affine operation multiplies a tile (ROWS, SOURCES)
of weights with a tile (SOURCES, LANES) of rows, all products kept apart until the end, so that
sums are taken across threads once. UNROLL such tiles and the next line of the table are on their
way at once: latency decides here, not arithmetic. A head is straight code of one lane, no matter
how many threads do the same.

Formulas of the spline: `calo_train.nn.spline_code`. Imported only where Triton is there.
"""

from __future__ import annotations

import triton
import triton.language as tl


# Flows of any size share what was compiled once.
@triton.jit(do_not_specialize=["num_operations", "num_rows", "log_det_row"])
def walk(
    table,
    weights,
    biases,
    settings,
    state,
    num_operations,
    num_rows,
    log_det_row,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    SOURCES: tl.constexpr,
    UNROLL: tl.constexpr,
    FEW_ROWS: tl.constexpr,
    FEW_SOURCES: tl.constexpr,
    NUM_BINS: tl.constexpr,
    HAS_TAILS: tl.constexpr,
    WANTS_LOG_DET: tl.constexpr,
):
    """Walk through `num_operations` lines of the table, which has one more, on `state`.

    NUM_BINS 0 is the affine head. Operations of up to FEW_ROWS rows take tiles of their own.
    """
    own = state + tl.program_id(0).to(tl.int64) * num_rows * LANES
    kind, field1, field2, field3, field4, field5, field6, field7 = _line(table)
    for number in range(num_operations):
        now, a, b, c, d, e, f, g = kind, field1, field2, field3, field4, field5, field6, field7
        kind, field1, field2, field3, field4, field5, field6, field7 = _line(
            table + (number + 1) * 8
        )
        if now > ROWS:
            _head(
                own, settings + d, a, b, c, log_det_row,
                LANES=LANES, NUM_BINS=NUM_BINS, HAS_TAILS=HAS_TAILS, WANTS_LOG_DET=WANTS_LOG_DET,
            )  # fmt: skip
        elif now > FEW_ROWS:
            _affine(
                own, weights + c, biases + d, now, a, b, e, f, g,
                LANES=LANES, ROWS=ROWS, SOURCES=SOURCES, UNROLL=UNROLL,
            )  # fmt: skip
        else:
            _affine(
                own, weights + c, biases + d, now, a, b, e, f, g,
                LANES=LANES, ROWS=FEW_ROWS, SOURCES=FEW_SOURCES, UNROLL=1,
            )  # fmt: skip
        tl.debug_barrier()


@triton.jit
def _line(place):
    """Load the eight fields of an operation."""
    return (
        tl.load(place),
        tl.load(place + 1),
        tl.load(place + 2),
        tl.load(place + 3),
        tl.load(place + 4),
        tl.load(place + 5),
        tl.load(place + 6),
        tl.load(place + 7),
    )


@triton.jit
def _affine(
    own,
    weights,
    biases,
    num_rows,
    num_sources,
    source,
    added,
    raw,
    activated,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    SOURCES: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Write rows = bias + added + weights . sources, as they are and activated."""
    rows = tl.arange(0, ROWS)
    lanes = tl.arange(0, LANES)
    places = tl.arange(0, SOURCES)
    is_row = rows < num_rows
    read = own + source * LANES
    sums = tl.zeros([ROWS, SOURCES, LANES], dtype=own.dtype.element_ty)
    for first in range(0, num_sources, SOURCES * UNROLL):
        for step in tl.static_range(UNROLL):
            numbers = first + step * SOURCES + places
            weight = _weights(weights, numbers, rows, num_rows, num_sources)
            given = _rows(read, numbers, lanes, num_sources, LANES)
            sums += weight[:, :, None] * given[None, :, :]
    result = tl.sum(sums, axis=1)
    result += tl.load(biases + rows, mask=is_row, other=0.0)[:, None]
    targets = rows[:, None] * LANES + lanes[None, :]
    result += tl.load(
        own + added * LANES + targets, mask=(is_row & (added >= 0))[:, None], other=0.0
    )
    tl.store(own + raw * LANES + targets, result, mask=(is_row & (raw >= 0))[:, None])
    # NaN is not below zero and stays NaN, as in torch.
    result = tl.where(result < 0.0, 0.0, result)
    tl.store(own + activated * LANES + targets, result, mask=(is_row & (activated >= 0))[:, None])


@triton.jit
def _rows(read, numbers, lanes, num_sources, LANES: tl.constexpr):
    """Load a tile (sources, LANES) of rows."""
    return tl.load(
        read + numbers[:, None] * LANES + lanes[None, :],
        mask=(numbers < num_sources)[:, None],
        other=0.0,
    )


@triton.jit
def _weights(weights, numbers, rows, num_rows, num_sources):
    """Load a tile (rows, sources) of weights that lie source by source; each is read once."""
    return tl.load(
        weights + numbers[None, :] * num_rows + rows[:, None],
        mask=(rows < num_rows)[:, None] & (numbers < num_sources)[None, :],
        other=0.0,
        eviction_policy="evict_first",
    )


@triton.jit
def _head(
    own,
    settings,
    parameters,
    value,
    target,
    log_det_row,
    LANES: tl.constexpr,
    NUM_BINS: tl.constexpr,
    HAS_TAILS: tl.constexpr,
    WANTS_LOG_DET: tl.constexpr,
):
    """Write the feature of a base value whose parameters are known."""
    lanes = tl.arange(0, LANES)
    given = tl.load(own + value * LANES + lanes)
    first = own + parameters * LANES + lanes
    if NUM_BINS == 0:
        feature, log_slope = _undo_scale(given, first, settings, LANES)
    else:
        feature, log_slope = _undo_spline(given, first, settings, LANES, NUM_BINS, HAS_TAILS)
    tl.store(own + target * LANES + lanes, feature)
    if WANTS_LOG_DET:
        total = own + log_det_row * LANES + lanes
        tl.store(total, tl.load(total) + log_slope)


@triton.jit
def _undo_scale(given, first, settings, LANES: tl.constexpr):
    """Undo x * scale + shift; gives the feature and log|d feature / d value|."""
    scale = _softplus(tl.load(first)) + tl.load(settings)
    return (given - tl.load(first + LANES)) / scale, -tl.log(scale)


@triton.jit
def _undo_spline(
    given, first, settings, LANES: tl.constexpr, NUM_BINS: tl.constexpr, HAS_TAILS: tl.constexpr
):
    """Solve the quadratic of the value's bin; gives the feature and log|d feature / d value|."""
    low, high = tl.load(settings), tl.load(settings + 1)
    inside = tl.minimum(tl.maximum(given, low), high)
    left_x, width, left_y, height, slope_left, slope_right = _bin(
        inside, first, settings, LANES, NUM_BINS, HAS_TAILS
    )
    slope = height / width
    excess = (slope_left + slope_right) - 2.0 * slope
    above = inside - left_y
    bent = above * excess
    a = height * (slope - slope_left) + bent
    b = height * slope_left - bent
    c = slope * above
    root = tl.sqrt(tl.maximum(b * b + 4.0 * a * c, 0.0))
    theta = tl.minimum(tl.maximum(2.0 * c / (b + root), 0.0), 1.0)
    rest = 1.0 - theta
    feature = theta * width + left_x
    # s / den before the square: s^2 alone leaves the range of float32.
    ratio = slope / (
        theta * rest * (slope_left + slope_right) + slope * (theta * theta + rest * rest)
    )
    numerator = (
        rest * rest * slope_left + theta * rest * (2.0 * slope) + theta * theta * slope_right
    )
    log_slope = -tl.log(ratio * ratio * numerator)
    is_inside = given == inside
    if HAS_TAILS:
        outside, flat = given, 0.0
    else:
        outside, flat = float("nan"), float("nan")
    return tl.where(is_inside, feature, outside), tl.where(is_inside, log_slope, flat)


@triton.jit
def _bin(
    inside, first, settings, LANES: tl.constexpr, NUM_BINS: tl.constexpr, HAS_TAILS: tl.constexpr
):
    """Choose the bin of a value by comparing with every knot, and share the sides by softmax."""
    low, high = tl.load(settings), tl.load(settings + 1)
    extent = high - low
    scale_x, largest_x = _softmax(first, LANES, NUM_BINS)
    scale_y, largest_y = _softmax(first + NUM_BINS * LANES, LANES, NUM_BINS)
    min_x, min_y = extent * tl.load(settings + 2), extent * tl.load(settings + 3)
    scale_x = scale_x * (extent - NUM_BINS * min_x)
    scale_y = scale_y * (extent - NUM_BINS * min_y)
    slopes = first + 2 * NUM_BINS * LANES
    x = low + 0.0 * inside
    y = x
    left_x, left_y, width, height, raw_left, raw_right = x, x, x, x, x, x
    is_first = inside >= low
    is_last = is_first
    for k in tl.static_range(NUM_BINS):
        if k == NUM_BINS - 1:
            # The last bin ends exactly at the end of the square, whatever the sum collected.
            size_x, size_y = high - x, high - y
        else:
            size_x = tl.exp(tl.load(first + k * LANES) - largest_x) * scale_x + min_x
            size_y = tl.exp(tl.load(first + (NUM_BINS + k) * LANES) - largest_y) * scale_y + min_y
        raw_before, raw_after = _raw_slopes(slopes, k, LANES, NUM_BINS, HAS_TAILS)
        is_here = inside >= y
        left_x = tl.where(is_here, x, left_x)
        left_y = tl.where(is_here, y, left_y)
        width = tl.where(is_here, size_x, width)
        height = tl.where(is_here, size_y, height)
        raw_left = tl.where(is_here, raw_before, raw_left)
        raw_right = tl.where(is_here, raw_after, raw_right)
        if k == 1:
            is_first = inside < y
        if k == NUM_BINS - 1:
            is_last = is_here
        x += size_x
        y += size_y
    smallest = tl.load(settings + 4)
    slope_left, slope_right = _softplus(raw_left) + smallest, _softplus(raw_right) + smallest
    if HAS_TAILS:
        slope_left = tl.where(is_first, 1.0, slope_left)
        slope_right = tl.where(is_last, 1.0, slope_right)
    return left_x, width, left_y, height, slope_left, slope_right


@triton.jit
def _softmax(first, LANES: tl.constexpr, NUM_BINS: tl.constexpr):
    """Give 1 / sum of exp(raw - largest), and the largest."""
    largest = tl.load(first)
    for k in tl.static_range(1, NUM_BINS):
        largest = tl.maximum(largest, tl.load(first + k * LANES))
    total = tl.exp(tl.load(first) - largest)
    for k in tl.static_range(1, NUM_BINS):
        total += tl.exp(tl.load(first + k * LANES) - largest)
    return 1.0 / total, largest


@triton.jit
def _raw_slopes(
    slopes, k: tl.constexpr, LANES: tl.constexpr, NUM_BINS: tl.constexpr, HAS_TAILS: tl.constexpr
):
    """Load the raw slopes at both ends of bin k; any number where the slope is fixed."""
    if not HAS_TAILS:
        before, after = tl.load(slopes + k * LANES), tl.load(slopes + (k + 1) * LANES)
    elif NUM_BINS == 1:
        before = tl.load(slopes - LANES) * 0.0
        after = before
    elif k == 0:
        after = tl.load(slopes)
        before = after
    elif k == NUM_BINS - 1:
        before = tl.load(slopes + (k - 1) * LANES)
        after = before
    else:
        before, after = tl.load(slopes + (k - 1) * LANES), tl.load(slopes + k * LANES)
    return before, after


@triton.jit
def _softplus(raw):
    """Give log(1 + exp(raw)) without losing what is small beside 1."""
    power = tl.exp(-tl.abs(raw))
    above_one = 1.0 + power
    # The rounding of 1 + power cancels in the quotient (Kahan's log1p).
    is_lost = above_one == 1.0
    small = tl.where(is_lost, 1.0, above_one - 1.0)
    logarithm = tl.where(is_lost, power, tl.log(above_one) * (power / small))
    return tl.maximum(raw, 0.0) + logarithm
