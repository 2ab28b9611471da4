"""Random numbers of shower k as a pure function of (seed, k): Philox4x32-10 and Box-Muller.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC11). The key is the 64-bit seed,
the counter (block, purpose, shower low, shower high). No stream is advanced, so a shower draws the
same whatever the batch, shard or thread. Written here because no library promises its normal
numbers across versions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

WordArray = npt.NDArray[np.uint32]
FloatArray = npt.NDArray[np.float64]

BASE_NOISE = 0  # purposes: the numbers of one never meet those of another
CONDITIONS = 1

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def philox(key: int, counter: WordArray) -> WordArray:
    """Encrypt counters (..., 4) under a 64-bit key to random words (..., 4)."""
    words = [counter[..., index].astype(np.uint64) for index in range(4)]
    keys = [key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF]
    for _ in range(_ROUNDS):
        first, second = _MULTIPLIERS[0] * words[0], _MULTIPLIERS[1] * words[2]
        words = [
            (second >> _WORD) ^ words[1] ^ np.uint64(keys[0]),
            second & _LOW,
            (first >> _WORD) ^ words[3] ^ np.uint64(keys[1]),
            first & _LOW,
        ]
        keys = [(key_word + step) & 0xFFFFFFFF for key_word, step in zip(keys, _WEYL, strict=True)]
    return np.stack(words, axis=-1).astype(np.uint32)


def uniforms(seed: int, first: int, count: int, num: int, *, purpose: int) -> FloatArray:
    """Give `num` numbers in (0, 1) for each of `count` showers from `first` on, (count, num)."""
    num_blocks = -(-num // 4)
    showers = np.arange(first, first + count, dtype=np.uint64)[:, None]
    counter = np.empty((count, num_blocks, 4), dtype=np.uint32)
    counter[..., 0] = np.arange(num_blocks, dtype=np.uint32)
    counter[..., 1] = purpose
    counter[..., 2] = showers & _LOW
    counter[..., 3] = showers >> _WORD
    words = philox(seed, counter).reshape(count, -1)[:, :num]
    return (words.astype(np.float64) + 0.5) * 2.0**-32


def normals(seed: int, first: int, count: int, num: int) -> FloatArray:
    """Give `num` standard normal numbers for each shower, (count, num), by Box-Muller."""
    pairs = -(-num // 2)
    flat = uniforms(seed, first, count, 2 * pairs, purpose=BASE_NOISE)
    radius = np.sqrt(-2 * np.log(flat[:, :pairs]))
    angle = 2 * np.pi * flat[:, pairs:]
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return both[:, :num]
