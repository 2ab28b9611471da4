"""Random numbers of training as pure functions of what they are for.

A generator is keyed by the seed and by words such as ("causal", "train", epoch, batch), never
advanced from batch to batch. So a resumed run draws what the uninterrupted one would have drawn,
and a part draws the same in every grouping.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def keyed_seed(seed: int, *words: str | int) -> int:
    """Hash a seed and words to 63 bits."""
    text = "\x1f".join(str(word) for word in (seed, *words))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def keyed_generator(device: torch.device, seed: int, *words: str | int) -> torch.Generator:
    """Give a generator on `device` for one purpose."""
    return torch.Generator(device=device).manual_seed(keyed_seed(seed, *words))


@contextmanager
def keyed_global_random(seed: int, *words: str | int) -> Iterator[None]:
    """Set torch's global generator for one purpose (initial weights, dropout), then restore it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_seed(seed, *words))
        yield
