"""Lists of the places in an array that pass a bound, eight at a time and without a branch.

Which places pass cannot be predicted. The bits of one comparison of eight words choose a row of a
table with the numbers of its set bits; the row is written whole, and the next one begins behind
the last of its numbers that counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from llvmlite import ir

from calo_train.kernels.integers import INDEX, Integer

if TYPE_CHECKING:
    import numpy.typing as npt

    from calo_train.kernels.code import Code
    from calo_train.kernels.values import Pointer

WORDS = 8  # that are compared at once; a list needs room for as many more
_WORD, _BYTE = ir.IntType(32), ir.IntType(8)


def set_bits() -> npt.NDArray[np.uint8]:
    """Give the numbers of the set bits of each byte in front, then those of the others, (256, 8)."""
    is_set = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return np.argsort(1 - is_set.astype(np.int8), axis=1, kind="stable").astype(np.uint8)


def list_from(
    code: Code, words: Pointer, count: Integer, least: Integer, numbers: Pointer, table: Pointer
) -> Integer:
    """List which of `count` signed 32-bit words are at least `least`; give how many are.

    `numbers` are 32-bit words and `table` is that of `set_bits`. Nothing behind the last word is
    read.
    """
    found = code.counter()
    whole = count // WORDS * WORDS
    bound = _repeated(code, code.builder.trunc((least - 1).value, _WORD))
    with code.loop(0, whole, WORDS) as first:
        place = words.at_word(first).value
        values = code.builder.load(place, align=4, typ=ir.VectorType(_WORD, WORDS))
        is_listed = code.builder.icmp_signed(">", values, bound)
        mask = code.builder.bitcast(is_listed, _BYTE)
        _write_row(code, numbers.at_word(found.get()), table, first, mask)
        added = code.builder.ctpop(mask)
        found.set(found.get() + Integer(code, code.builder.zext(added, INDEX)))
    with code.loop(whole, count) as number:
        # Written for every word; the next one takes the place of one that does not count.
        numbers.store_word(found.get(), number)
        found.set(found.get() + (words.word(number) >= least).as_integer())
    return found.get()


def _write_row(
    code: Code, target: Pointer, table: Pointer, first: Integer, mask: ir.Value
) -> None:
    """Write `first` plus the numbers of the bits that are set in a mask."""
    builder = code.builder
    row = builder.shl(builder.zext(mask, INDEX), ir.Constant(INDEX, 3))
    place = builder.gep(table.value, [row], source_etype=_BYTE)
    bits = builder.load(place, align=WORDS, typ=ir.VectorType(_BYTE, WORDS))
    numbers = builder.zext(bits, ir.VectorType(_WORD, WORDS))
    start = _repeated(code, builder.trunc(first.value, _WORD))
    builder.store(builder.add(numbers, start), target.value, align=4)


def _repeated(code: Code, word: ir.Value) -> ir.Value:
    kind = ir.VectorType(_WORD, WORDS)
    undefined = ir.Constant(kind, ir.Undefined)
    single = code.builder.insert_element(undefined, word, ir.Constant(_WORD, 0))
    places = ir.Constant(ir.VectorType(_WORD, WORDS), [0] * WORDS)
    return code.builder.shuffle_vector(single, undefined, places)
