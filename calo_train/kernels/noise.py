"""Random numbers of shower k as a pure function of (seed, k): Philox4x32-10 and Box-Muller.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC11). The key is the 64-bit seed,
the counter (block, purpose, shower low, shower high). No stream is advanced, so a shower draws the
same whatever the batch, shard or thread. Written here because no library promises its normal
numbers across versions. A shower of a calorimeter takes thousands of numbers, so these come from
compiled kernels, a vector of blocks at once.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.errors import MachineError
from calo_train.kernels.code import Code
from calo_train.kernels.compiler import Library, compile_library, this_machine
from calo_train.kernels.mathematics import cos_and_sin_of_turns, log
from calo_train.kernels.values import FLOAT64, Bits, Vector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llvmlite import ir

    PairWriter = Callable[[Vector, Vector], Sequence[Vector]]

WordArray = npt.NDArray[np.uint32]
FloatArray = npt.NDArray[np.float64]

# Purposes: the numbers of one never meet those of another.
BASE_NOISE = 0
CONDITIONS = 1
SIMULATED_SHOWERS = 2  # of the parametrised simulator: a whole shower, its layers, its voxels
SIMULATED_LAYERS = 3
SIMULATED_SPOTS = 4
SIMULATED_DEPOSITS = 5

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_WORD = 32
_LOW = 0xFFFFFFFF
_BLOCK_STEP = 16  # blocks of a shower come in whole vectors, on every machine
_log = logging.getLogger(__name__)
_SIGNATURE = (
    ("numbers", "pointer"),
    ("num_blocks", "integer"),
    ("purpose", "integer"),
    ("first", "integer"),
    ("count", "integer"),
    ("key_low", "integer"),
    ("key_high", "integer"),
)


def philox(key: int, counter: WordArray) -> WordArray:
    """Encrypt counters (..., 4) under a 64-bit key to random words (..., 4)."""
    words = [counter[..., index].astype(np.uint64) for index in range(4)]
    multipliers, low, half = np.array(_MULTIPLIERS, np.uint64), np.uint64(_LOW), np.uint64(_WORD)
    keys = [key & _LOW, key >> _WORD & _LOW]
    for _ in range(_ROUNDS):
        first, second = multipliers[0] * words[0], multipliers[1] * words[2]
        words = [
            (second >> half) ^ words[1] ^ np.uint64(keys[0]),
            second & low,
            (first >> half) ^ words[3] ^ np.uint64(keys[1]),
            first & low,
        ]
        keys = [(key_word + step) & _LOW for key_word, step in zip(keys, _WEYL, strict=True)]
    return np.stack(words, axis=-1).astype(np.uint32)


def uniforms(seed: int, first: int, count: int, num: int, *, purpose: int) -> FloatArray:
    """Give `num` numbers in (0, 1) for each of `count` showers from `first` on, (count, num)."""
    num_blocks = -(-num // 4)
    showers = np.arange(first, first + count, dtype=np.uint64)[:, None]
    counter = np.empty((count, num_blocks, 4), dtype=np.uint32)
    counter[..., 0] = np.arange(num_blocks, dtype=np.uint32)
    counter[..., 1] = purpose
    counter[..., 2] = showers & np.uint64(_LOW)
    counter[..., 3] = showers >> np.uint64(_WORD)
    words = philox(seed, counter).reshape(count, -1)[:, :num]
    return (words.astype(np.float64) + 0.5) * 2.0**-32


def normals(
    seed: int, first: int, count: int, num: int, *, purpose: int = BASE_NOISE
) -> FloatArray:
    """Give `num` standard normal numbers for each shower, (count, num), by Box-Muller.

    The four words of block b of a shower give the radius and angle of numbers b and B + b, and of
    2B + b and 3B + b, with B the number of blocks.
    """
    num_blocks = _num_blocks(num)
    if _library() is None:
        return normals_by_numpy(seed, first, count, num_blocks, purpose=purpose)[:, :num]
    return _compiled("normals", seed, first, count, num_blocks, purpose)[:, :num]


def many_uniforms(seed: int, first: int, count: int, num: int, *, purpose: int) -> FloatArray:
    """Give `num` numbers in (0, 1) for each shower, (count, num), for thousands of them.

    Word w of block b gives number w B + b, an order in which whole vectors are stored; `uniforms`
    has another one.
    """
    num_blocks = _num_blocks(num)
    if _library() is None:
        words = uniforms(seed, first, count, 4 * num_blocks, purpose=purpose)
        ordered = words.reshape(count, num_blocks, 4).transpose(0, 2, 1)
        return ordered.reshape(count, 4 * num_blocks)[:, :num]
    return _compiled("uniforms", seed, first, count, num_blocks, purpose)[:, :num]


def normals_by_numpy(
    seed: int, first: int, count: int, num_blocks: int, *, purpose: int = BASE_NOISE
) -> FloatArray:
    """Give all numbers of so many blocks, (count, 4 blocks), to the rounding of numpy's functions.

    For machines that cannot run compiled code, at twenty times the price.
    """
    words = uniforms(seed, first, count, 4 * num_blocks, purpose=purpose)
    radius, angle = words.reshape(count, num_blocks, 2, 2).transpose(3, 0, 2, 1)
    radius, angle = np.sqrt(-2 * np.log(radius)), 2 * np.pi * angle
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)
    return both.reshape(count, 4 * num_blocks)


def _num_blocks(num: int) -> int:
    return -(-num // (4 * _BLOCK_STEP)) * _BLOCK_STEP


def _compiled(
    name: str, seed: int, first: int, count: int, num_blocks: int, purpose: int
) -> FloatArray:
    library = _library()
    assert library is not None
    numbers = np.empty((count, 4 * num_blocks))
    place, keys = numbers.ctypes.data, (seed & _LOW, seed >> _WORD)
    library.functions[name](place, num_blocks, purpose, first, count, *keys)
    return numbers


@cache
def _library() -> Library | None:
    machine = this_machine()
    lanes = machine.vector_bytes // FLOAT64.num_bytes

    def write(module: ir.Module) -> None:
        for name, write_pair in _PAIRS.items():
            code = Code(module, name, _SIGNATURE, precision=FLOAT64, lanes=lanes)
            _write_numbers(code, write_pair)
            code.finish()

    try:
        return compile_library(
            write,
            dict.fromkeys(_PAIRS, _SIGNATURE),
            machine,
            purpose="the noise kernel",
            key="noise",
        )
    except MachineError as error:
        _log.warning("random numbers are drawn by numpy: %s", error.what)
        return None


def _write_numbers(code: Code, write_pair: PairWriter) -> None:
    num_blocks = code.integer("num_blocks")
    keys = [code.integer(name).as_bits() for name in ("key_low", "key_high")]
    with code.loop(0, code.integer("count")) as row:
        shower = (code.integer("first") + row).as_bits()
        numbers = code.pointer("numbers").at(row * num_blocks * 4)
        with code.loop(0, num_blocks, code.lanes) as block:
            counter = [
                block.as_bits() + code.lane_numbers(),
                code.integer("purpose").as_bits(),
                shower & code.bits(_LOW),
                shower.shifted_right(_WORD),
            ]
            shares = [_share(word) for word in _encrypted(code, keys, counter)]
            for pair in (0, 2):
                for number, value in enumerate(write_pair(*shares[pair : pair + 2]), pair):
                    numbers.store(value, num_blocks * number + block)


def _write_normals(radius_share: Vector, angle_share: Vector) -> Sequence[Vector]:
    radius = (-2.0 * log(radius_share)).sqrt()
    return [radius * part for part in cos_and_sin_of_turns(angle_share)]


def _write_uniforms(first: Vector, second: Vector) -> Sequence[Vector]:
    return [first, second]


_PAIRS: dict[str, PairWriter] = {"normals": _write_normals, "uniforms": _write_uniforms}


def _encrypted(code: Code, keys: Sequence[Bits], words: Sequence[Bits]) -> Sequence[Bits]:
    """Write `philox`: words and keys lie in the lower half of their lanes."""
    low = code.bits(_LOW)
    for _ in range(_ROUNDS):
        first, second = (
            code.bits(_MULTIPLIERS[0]) * words[0],
            code.bits(_MULTIPLIERS[1]) * words[2],
        )
        words = [
            second.shifted_right(_WORD) ^ words[1] ^ keys[0],
            second & low,
            first.shifted_right(_WORD) ^ words[3] ^ keys[1],
            first & low,
        ]
        keys = [(key + code.bits(step)) & low for key, step in zip(keys, _WEYL, strict=True)]
    return words


def _share(word: Bits) -> Vector:
    """Give (word + 1/2) / 2^32, exactly."""
    power = word.code.constant(2.0**52)
    return ((word | power.as_bits()).as_numbers() - power + 0.5) * 2.0**-32
