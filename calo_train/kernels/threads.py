"""Kernels on several threads: a range is cut in pieces, each thread takes whole ones.

What a kernel computes does not depend on the cut, so neither do results on the number of threads.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_pools: dict[int, ThreadPoolExecutor] = {}


def run_in_ranges(
    work: Callable[[int, int], object], stop: int, *, grain: int, num_threads: int
) -> None:
    """Call work(first, end) on pieces of 0 .. stop, one a thread, cut at multiples of `grain`."""
    num_grains = -(-stop // grain)
    num_pieces = max(min(num_threads, num_grains), 1)
    if num_pieces == 1:
        work(0, stop)
        return
    cuts = [min(number * num_grains // num_pieces * grain, stop) for number in range(num_pieces)]
    ends = [*cuts[1:], stop]
    pool = _pool(num_pieces - 1)
    others = [pool.submit(work, *piece) for piece in zip(cuts[1:], ends[1:], strict=True)]
    work(0, ends[0])
    for other in others:
        other.result()


def _pool(num_threads: int) -> ThreadPoolExecutor:
    if num_threads not in _pools:
        _pools[num_threads] = ThreadPoolExecutor(num_threads, thread_name_prefix="kernel")
    return _pools[num_threads]


# The threads of a pool do not live on in a forked child.
os.register_at_fork(after_in_child=_pools.clear)
