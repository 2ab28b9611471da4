"""Values of a kernel that is being written: vectors of numbers, masks, bits and pointers.

Each operator writes one instruction through the `Code` that a value belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from llvmlite import ir

from calo_train.kernels.integers import INDEX, Condition, Count, Integer

if TYPE_CHECKING:
    from collections.abc import Callable

    from calo_train.kernels.code import Code

Number: TypeAlias = "float | Vector"


@dataclass(frozen=True)
class Precision:
    """A floating-point format: its bits, those of its mantissa and the bias of its exponent."""

    name: str
    bits: int
    mantissa_bits: int
    bias: int

    @property
    def num_bytes(self) -> int:
        return self.bits // 8

    @property
    def scalar(self) -> ir.Type:
        return ir.FloatType() if self.bits == 32 else ir.DoubleType()


FLOAT32 = Precision("float32", 32, 23, 127)
FLOAT64 = Precision("float64", 64, 52, 1023)
PRECISIONS = {precision.name: precision for precision in (FLOAT32, FLOAT64)}


@dataclass(frozen=True, eq=False)
class Pointer:
    """The start of an array; what lies there is said where it is read."""

    code: Code
    value: ir.Value

    def at(self, offset: Count) -> Pointer:
        """Move on by `offset` numbers of the kernel's precision."""
        return self._moved(offset, self.code.precision.scalar)

    def at_word(self, offset: Count) -> Pointer:
        """Move on by `offset` 32-bit words."""
        return self._moved(offset, ir.IntType(32))

    def integer(self, index: Count) -> Integer:
        """Read the 64-bit integer number `index`."""
        place = self._moved(index, INDEX)
        return Integer(self.code, self.code.builder.load(place.value, typ=INDEX))

    def word(self, index: Count) -> Integer:
        """Read the signed 32-bit integer number `index`; of a float32, its bits."""
        code, kind = self.code, ir.IntType(32)
        value = code.builder.load(self._moved(index, kind).value, typ=kind)
        return Integer(code, code.builder.sext(value, INDEX))

    def unsigned_word(self, index: Count) -> Integer:
        """Read the unsigned 32-bit integer number `index`."""
        code, kind = self.code, ir.IntType(32)
        value = code.builder.load(self._moved(index, kind).value, typ=kind)
        return Integer(code, code.builder.zext(value, INDEX))

    def widened(self, index: Count) -> Vector:
        """Read float32 number `index` into every lane of a float64 kernel."""
        code, kind = self.code, ir.FloatType()
        value = code.builder.load(self._moved(index, kind).value, typ=kind)
        return code.spread(code.builder.fpext(value, code.precision.scalar))

    def widened_from(self, index: Count, least: Vector) -> Vector:
        """Read float32 number `index` into every lane; 0 where it is below `least`."""
        code, kind = self.code, ir.FloatType()
        value = code.builder.load(self._moved(index, kind).value, typ=kind)
        # Scalar until the end: a comparison of repeated numbers is compiled to a detour.
        number = code.builder.fpext(value, code.precision.scalar)
        is_kept = code.builder.fcmp_ordered(">=", number, least.lane(0))
        zero = ir.Constant(code.precision.scalar, 0.0)
        return code.spread(code.builder.select(is_kept, number, zero))

    def store_integer(self, index: Count, value: Count) -> None:
        """Write the 64-bit integer number `index`."""
        code = self.code
        code.builder.store(code.index(value).value, self._moved(index, INDEX).value)

    def store_word(self, index: Count, value: Count) -> None:
        """Write the low bits of an integer as the 32-bit integer number `index`."""
        code, kind = self.code, ir.IntType(32)
        word = code.builder.trunc(code.index(value).value, kind)
        code.builder.store(word, self._moved(index, kind).value)

    def store_lane(self, offset: Count, vector: Vector, lane: int = 0) -> None:
        """Write one lane as number `offset`."""
        self.code.builder.store(vector.lane(lane), self.at(offset).value)

    def add_number(self, offset: Count, vector: Vector) -> None:
        """Add the first lane to number `offset`."""
        builder, place = self.code.builder, self.at(offset).value
        number = builder.load(place, typ=self.code.precision.scalar)
        builder.store(builder.fadd(number, vector.lane(0)), place)

    def vector(self, offset: Count = 0) -> Vector:
        """Read a vector that starts at number `offset`."""
        code = self.code
        place, align = self.at(offset).value, code.precision.num_bytes
        return Vector(code, code.builder.load(place, align=align, typ=code.vector_type))

    def spread(self, offset: Count = 0) -> Vector:
        """Read number `offset` into every lane."""
        code = self.code
        place = self.at(offset).value
        return code.spread(code.builder.load(place, typ=code.precision.scalar))

    def gathered(self, places: Vector) -> Vector:
        """Read the numbers at places, one a lane; these are whole numbers from 0 on."""
        code = self.code
        found = ir.Constant(code.vector_type, ir.Undefined)
        indices = places.as_words()
        for lane in range(code.lanes):
            position = ir.Constant(ir.IntType(32), lane)
            word = code.builder.extract_element(indices, position)
            index = Integer(code, code.builder.zext(word, INDEX))
            number = code.builder.load(self.at(index).value, typ=code.precision.scalar)
            found = code.builder.insert_element(found, number, position)
        return Vector(code, found)

    def store_whole(self, vector: Vector, offset: Count = 0) -> None:
        """Write whole numbers as 32-bit integers, from the one number `offset` on."""
        place = self.at_word(offset).value
        self.code.builder.store(vector.as_words(), place, align=ir.IntType(32).width // 8)

    def store(self, vector: Vector, offset: Count = 0) -> None:
        """Write a vector from number `offset` on."""
        code = self.code
        place = self.at(offset).value
        code.builder.store(vector.value, place, align=code.precision.num_bytes)

    def copy_number(self, offset: Count, source: Pointer, source_offset: Count) -> None:
        """Write number `offset`, read from number `source_offset` of another array."""
        code = self.code
        scalar = code.precision.scalar
        number = code.builder.load(source.at(source_offset).value, typ=scalar)
        code.builder.store(number, self.at(offset).value)

    def _moved(self, offset: Count, kind: ir.Type) -> Pointer:
        index = self.code.index(offset).value
        return Pointer(self.code, self.code.builder.gep(self.value, [index], source_etype=kind))


@dataclass(frozen=True, eq=False)
class Vector:
    """One number in each lane."""

    code: Code
    value: ir.Value

    def __add__(self, other: Number) -> Vector:
        return self._with(self.code.builder.fadd, other)

    def __sub__(self, other: Number) -> Vector:
        return self._with(self.code.builder.fsub, other)

    def __mul__(self, other: Number) -> Vector:
        return self._with(self.code.builder.fmul, other)

    def __truediv__(self, other: Number) -> Vector:
        return self._with(self.code.builder.fdiv, other)

    def __radd__(self, other: float) -> Vector:
        return self.code.constant(other) + self

    def __rsub__(self, other: float) -> Vector:
        return self.code.constant(other) - self

    def __rmul__(self, other: float) -> Vector:
        return self.code.constant(other) * self

    def __rtruediv__(self, other: float) -> Vector:
        return self.code.constant(other) / self

    def __neg__(self) -> Vector:
        return Vector(self.code, self.code.builder.fneg(self.value))

    def __lt__(self, other: Number) -> Mask:
        return self._compared("<", other)

    def __le__(self, other: Number) -> Mask:
        return self._compared("<=", other)

    def __gt__(self, other: Number) -> Mask:
        return self._compared(">", other)

    def __ge__(self, other: Number) -> Mask:
        return self._compared(">=", other)

    def times_plus(self, factor: Number, summand: Number) -> Vector:
        """Give self * factor + summand, fused to one rounding where the machine can."""
        factor, summand = self._of(factor), self._of(summand)
        return self.code.intrinsic("fmuladd", self, factor, summand)

    def sqrt(self) -> Vector:
        """Give the square root."""
        return self.code.intrinsic("sqrt", self)

    def absolute(self) -> Vector:
        """Give the magnitude."""
        return self.code.intrinsic("fabs", self)

    def maximum(self, other: Number) -> Vector:
        """Give the larger; `other` where this one is NaN."""
        return (self > other).select(self, other)

    def minimum(self, other: Number) -> Vector:
        """Give the smaller; `other` where this one is NaN."""
        return (self < other).select(self, other)

    def whole(self) -> Vector:
        """Cut off what stands behind the point; of numbers that 32 bits hold."""
        code = self.code
        return Vector(code, code.builder.sitofp(self.as_words(), code.vector_type))

    def as_words(self) -> ir.Value:
        """Cut to signed 32-bit integers."""
        words = ir.VectorType(ir.IntType(32), self.code.lanes)
        return self.code.builder.fptosi(self.value, words)

    def lane(self, index: int) -> ir.Value:
        """Give one lane as a scalar."""
        return self.code.builder.extract_element(self.value, ir.Constant(ir.IntType(32), index))

    def as_bits(self) -> Bits:
        """Give the bit patterns of the numbers."""
        return Bits(self.code, self.code.builder.bitcast(self.value, self.code.bits_type))

    def _with(
        self, instruction: Callable[[ir.Value, ir.Value], ir.Value], other: Number
    ) -> Vector:
        return Vector(self.code, instruction(self.value, self._of(other).value))

    def _compared(self, relation: str, other: Number) -> Mask:
        compare = self.code.builder.fcmp_ordered
        return Mask(self.code, compare(relation, self.value, self._of(other).value))

    def _of(self, other: Number) -> Vector:
        return other if isinstance(other, Vector) else self.code.constant(other)


@dataclass(frozen=True, eq=False)
class Mask:
    """Whether something holds in each lane; comparisons with NaN do not."""

    code: Code
    value: ir.Value

    def select(self, when_true: Number, when_false: Number) -> Vector:
        """Choose lane by lane."""
        code = self.code
        chosen = [
            item if isinstance(item, Vector) else code.constant(item)
            for item in (when_true, when_false)
        ]
        return Vector(code, code.builder.select(self.value, chosen[0].value, chosen[1].value))

    def any(self) -> Condition:
        """Whether it holds in some lane."""
        builder, kind = self.code.builder, ir.IntType(self.code.lanes)
        lanes = builder.bitcast(self.value, kind)
        return Condition(self.code, builder.icmp_unsigned("!=", lanes, ir.Constant(kind, 0)))


@dataclass(frozen=True, eq=False)
class Bits:
    """An unsigned integer in each lane, as wide as the kernel's numbers."""

    code: Code
    value: ir.Value

    def __add__(self, other: Bits) -> Bits:
        return Bits(self.code, self.code.builder.add(self.value, other.value))

    def __sub__(self, other: Bits) -> Bits:
        return Bits(self.code, self.code.builder.sub(self.value, other.value))

    def __mul__(self, other: Bits) -> Bits:
        return Bits(self.code, self.code.builder.mul(self.value, other.value))

    def __and__(self, other: Bits) -> Bits:
        return Bits(self.code, self.code.builder.and_(self.value, other.value))

    def __or__(self, other: Bits) -> Bits:
        return Bits(self.code, self.code.builder.or_(self.value, other.value))

    def __xor__(self, other: Bits) -> Bits:
        return Bits(self.code, self.code.builder.xor(self.value, other.value))

    def shifted_left(self, places: int) -> Bits:
        """Move the bits up, zeros follow."""
        return Bits(self.code, self.code.builder.shl(self.value, self.code.bits(places).value))

    def shifted_right(self, places: int) -> Bits:
        """Move the bits down, zeros follow."""
        return Bits(self.code, self.code.builder.lshr(self.value, self.code.bits(places).value))

    def as_numbers(self) -> Vector:
        """Read the bit patterns as floating-point numbers."""
        return Vector(self.code, self.code.builder.bitcast(self.value, self.code.vector_type))


@dataclass(frozen=True, eq=False)
class Variable:
    """A vector that a loop carries on; the optimiser keeps it in a register."""

    code: Code
    place: ir.Value

    def get(self) -> Vector:
        """Give the present value."""
        value = self.code.builder.load(self.place, typ=self.code.vector_type)
        return Vector(self.code, value)

    def set(self, value: Vector) -> None:
        """Give it a new value."""
        self.code.builder.store(value.value, self.place)
