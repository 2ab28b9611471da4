"""The integers of a kernel that is being written: places, counts and conditions.

Kept apart from vectors: an integer is one number for all lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from llvmlite import ir

if TYPE_CHECKING:
    from calo_train.kernels.code import Code
    from calo_train.kernels.values import Bits, Vector

INDEX = ir.IntType(64)

Count: TypeAlias = "int | Integer"


@dataclass(frozen=True, eq=False)
class Integer:
    """A 64-bit integer of the running kernel."""

    code: Code
    value: ir.Value

    def __add__(self, other: Count) -> Integer:
        return Integer(self.code, self.code.builder.add(self.value, self._of(other)))

    def __sub__(self, other: Count) -> Integer:
        return Integer(self.code, self.code.builder.sub(self.value, self._of(other)))

    def __mul__(self, other: Count) -> Integer:
        return Integer(self.code, self.code.builder.mul(self.value, self._of(other)))

    def __floordiv__(self, other: Count) -> Integer:
        return Integer(self.code, self.code.builder.sdiv(self.value, self._of(other)))

    def __lt__(self, other: Count) -> Condition:
        return self._compared("<", other)

    def __ge__(self, other: Count) -> Condition:
        return self._compared(">=", other)

    def shifted_right(self, places: int) -> Integer:
        """Move the bits down; the sign follows."""
        return Integer(self.code, self.code.builder.ashr(self.value, self._of(places)))

    def low_bits(self, number: int) -> Integer:
        """Keep the lowest bits alone."""
        mask = self._of((1 << number) - 1)
        return Integer(self.code, self.code.builder.and_(self.value, mask))

    def as_bits(self) -> Bits:
        """Give the low bits, as many as a number of the kernel has, in every lane."""
        from calo_train.kernels.values import Bits

        code, value = self.code, self.value
        if code.precision.bits < INDEX.width:
            value = code.builder.trunc(value, code.bits_type.element)
        return Bits(code, code.in_lanes(value, code.bits_type))

    def as_vector(self) -> Vector:
        """Give the number in every lane."""
        code = self.code
        return code.spread(code.builder.sitofp(self.value, code.precision.scalar))

    def minimum(self, other: Count) -> Integer:
        """Give the smaller of two."""
        is_less = self._compared("<", other).value
        return Integer(self.code, self.code.builder.select(is_less, self.value, self._of(other)))

    def _compared(self, relation: str, other: Count) -> Condition:
        compared = self.code.builder.icmp_signed(relation, self.value, self._of(other))
        return Condition(self.code, compared)

    def _of(self, other: Count) -> ir.Value:
        return self.code.index(other).value


@dataclass(frozen=True, eq=False)
class Condition:
    """Whether something holds, for `Code.when`."""

    code: Code
    value: ir.Value

    def as_integer(self) -> Integer:
        """Give 1 where it holds, else 0."""
        return Integer(self.code, self.code.builder.zext(self.value, INDEX))


@dataclass(frozen=True, eq=False)
class Counter:
    """An integer that a loop carries on."""

    code: Code
    place: ir.Value

    def get(self) -> Integer:
        """Give the present value."""
        return Integer(self.code, self.code.builder.load(self.place, typ=INDEX))

    def set(self, value: Count) -> None:
        """Give it a new value."""
        self.code.builder.store(self.code.index(value).value, self.place)
