"""Passes of one fit side by side, each on a thread of its own.

torch shares out single products among threads; those of a stack of small flows are too small to
gain by it. Stacks have nothing in common, so a CPU takes several at once. What a pass computes
does not depend on its thread, nor do bits.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


class SideBySide:
    """Maps over items on a number of threads, with one torch thread in each; 1 does without."""

    def __init__(self, num_threads: int) -> None:
        self._before = torch.get_num_threads()
        self._threads: ThreadPoolExecutor | None = None
        if num_threads > 1:
            self._threads = ThreadPoolExecutor(
                num_threads, "stack", initializer=torch.set_num_threads, initargs=(1,)
            )
            # What this thread does between the passes must not wake threads of torch either:
            # they would spin for work beside the passes.
            torch.set_num_threads(1)

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Give work(item) for each item, in order; modes of autograd are those of the caller."""
        if self._threads is None:
            return [work(item) for item in items]
        has_gradients, infers = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

        def in_mode(item: Item) -> Result:
            with torch.inference_mode(infers), torch.set_grad_enabled(has_gradients):
                return work(item)

        return list(self._threads.map(in_mode, items))

    def close(self) -> None:
        """End the threads and give torch its own back."""
        if self._threads is not None:
            self._threads.shutdown()
            torch.set_num_threads(self._before)
