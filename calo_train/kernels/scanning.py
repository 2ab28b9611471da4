"""Scans of an array of float32 numbers, eight at a time: are they energies, which pass a bound.

Which ones pass cannot be predicted, so there is no branch: the bits of one comparison of eight
choose a row of a table with the numbers of its set bits; the row is written whole, and the next
one begins behind the last of its numbers that counts.
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
_BITS_OF_INFINITY, _BITS_OF_MINUS_ZERO = 0x7F800000, 0x80000000


def set_bits() -> npt.NDArray[np.uint8]:
    """Give the numbers of each byte's set bits, behind them those of the others: (256, 8)."""
    is_set = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return np.argsort(1 - is_set.astype(np.int8), axis=1, kind="stable").astype(np.uint8)


def are_energies(code: Code, numbers: Pointer, count: Integer) -> Integer:
    """Give 1 where all of `count` float32 numbers are finite and not negative, else 0."""
    failed = code.counter()
    # Bits of negative, infinite and NaN floats are larger than those of all others, as are those
    # of -0, which is looked at again.
    is_suspect = _largest(code, numbers, count) >= _BITS_OF_INFINITY
    with code.when(is_suspect), code.loop(0, count) as number:
        bits = numbers.unsigned_word(number)
        is_infinite = (bits.low_bits(31) >= _BITS_OF_INFINITY).as_integer()
        is_negative = (bits >= _BITS_OF_MINUS_ZERO + 1).as_integer()
        failed.set(failed.get() + is_infinite + is_negative)
    return (code.index(0) >= failed.get()).as_integer()


def _largest(code: Code, words: Pointer, count: Integer) -> Integer:
    """Give the largest of unsigned words; 0 of none."""
    builder, kind = code.builder, ir.VectorType(_WORD, WORDS)
    whole, places = count // WORDS * WORDS, [code.room(kind), code.room(_WORD)]
    for place, start in zip(places, (kind, _WORD), strict=True):
        builder.store(ir.Constant(start, None), place)

    def take(word: ir.Value, place: ir.Value) -> None:
        largest = builder.load(place, typ=word.type)
        is_larger = builder.icmp_unsigned(">", word, largest)
        builder.store(builder.select(is_larger, word, largest), place)

    with code.loop(0, whole, WORDS) as first:
        take(builder.load(words.at_word(first).value, align=4, typ=kind), places[0])
    with code.loop(whole, count) as number:
        take(builder.load(words.at_word(number).value, align=4, typ=_WORD), places[1])
    lanes = builder.load(places[0], typ=kind)
    for lane in range(WORDS):
        take(builder.extract_element(lanes, ir.Constant(_WORD, lane)), places[1])
    return Integer(code, builder.zext(builder.load(places[1], typ=_WORD), INDEX))


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


def _repeated(code: Code, number: ir.Value) -> ir.Value:
    kind = ir.VectorType(number.type, WORDS)
    undefined = ir.Constant(kind, ir.Undefined)
    single = code.builder.insert_element(undefined, number, ir.Constant(_WORD, 0))
    places = ir.Constant(ir.VectorType(_WORD, WORDS), [0] * WORDS)
    return code.builder.shuffle_vector(single, undefined, places)
