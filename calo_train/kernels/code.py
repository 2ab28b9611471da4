"""A small language of vectors, integers, pointers and loops that writes LLVM IR.

Compilers vectorise plain loops over a spline badly or not at all (too many arrays to prove apart),
so lanes are explicit here: a `Vector` holds one number of each of several showers, and its
operators emit one instruction each. No fast-math flag is set: arithmetic is done as it is written,
and where a product and a sum may be fused this is said by `times_plus`. So a lane's result depends
on its own numbers alone.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from llvmlite import ir

from calo_train.kernels.integers import INDEX, Condition, Count, Counter, Integer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_POINTER = ir.PointerType()

__all__ = [
    "FLOAT32", "FLOAT64", "PRECISIONS", "Bits", "Code", "Condition", "Counter", "Integer", "Mask",
    "Pointer", "Precision", "Variable", "Vector",
]  # fmt: skip

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


class Code:
    """A kernel that is being written: a C function without result.

    `arguments` are names of kind "pointer", "integer" (64 bits) or "double"; `lanes` is how many
    numbers a vector holds.
    """

    def __init__(
        self,
        module: ir.Module,
        name: str,
        arguments: Sequence[tuple[str, str]],
        *,
        precision: Precision,
        lanes: int,
    ) -> None:
        kinds = {"pointer": _POINTER, "integer": INDEX, "double": ir.DoubleType()}
        signature = ir.FunctionType(ir.VoidType(), [kinds[kind] for _, kind in arguments])
        function = ir.Function(module, signature, name)
        self._module = module
        self._function = function
        for argument in function.args:
            if argument.type == _POINTER:
                argument.add_attribute("noalias")  # no two arrays of a call overlap
        self._arguments = dict(zip([name for name, _ in arguments], function.args, strict=True))
        self._entry = ir.IRBuilder(function.append_basic_block("entry"))
        self.builder = ir.IRBuilder(function.append_basic_block("body"))
        self._first_block = self.builder.block
        self.precision = precision
        self.lanes = lanes

    @property
    def vector_type(self) -> ir.Type:
        return ir.VectorType(self.precision.scalar, self.lanes)

    @property
    def bits_type(self) -> ir.Type:
        return ir.VectorType(ir.IntType(self.precision.bits), self.lanes)

    def finish(self) -> None:
        """Close the function."""
        self.builder.ret_void()
        self._entry.branch(self._first_block)

    def integer(self, name: str) -> Integer:
        """Give an integer argument."""
        return Integer(self, self._arguments[name])

    def pointer(self, name: str) -> Pointer:
        """Give a pointer argument."""
        return Pointer(self, self._arguments[name])

    def number(self, name: str) -> Vector:
        """Give a double argument, rounded to the kernel's precision, in every lane."""
        value = self._arguments[name]
        if self.precision.bits == 32:
            value = self.builder.fptrunc(value, ir.FloatType())
        return self.spread(value)

    def constant(self, value: float) -> Vector:
        """Give one number in every lane."""
        return Vector(self, ir.Constant(self.vector_type, [value] * self.lanes))

    def bits(self, value: int) -> Bits:
        """Give one bit pattern in every lane."""
        return Bits(self, ir.Constant(self.bits_type, [value] * self.lanes))

    def index(self, value: Count) -> Integer:
        """Give an integer."""
        return value if isinstance(value, Integer) else Integer(self, ir.Constant(INDEX, value))

    def spread(self, scalar: ir.Value) -> Vector:
        """Put one scalar into every lane."""
        undefined = ir.Constant(self.vector_type, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return Vector(self, self.builder.shuffle_vector(first, undefined, lanes))

    def variable(self, initial: Vector) -> Variable:
        """Give a vector that can be set again, for what a loop carries on."""
        place = self._entry.alloca(self.vector_type)
        variable = Variable(self, place)
        variable.set(initial)
        return variable

    def counter(self, initial: Count = 0) -> Counter:
        """Give an integer that can be set again."""
        counter = Counter(self, self._entry.alloca(INDEX))
        counter.set(initial)
        return counter

    def intrinsic(self, name: str, *arguments: Vector) -> Vector:
        """Call an LLVM intrinsic on vectors, such as `sqrt` or `fmuladd`."""
        full = f"llvm.{name}.v{self.lanes}f{self.precision.bits}"
        kinds = [self.vector_type] * len(arguments)
        function = self._module.globals.get(full) or ir.Function(
            self._module, ir.FunctionType(self.vector_type, kinds), full
        )
        return Vector(self, self.builder.call(function, [item.value for item in arguments]))

    @contextmanager
    def loop(self, start: Count, stop: Count, step: Count = 1) -> Iterator[Integer]:
        """Repeat the body of a with-block for start, start + step, ... below stop."""
        counter = self._entry.alloca(INDEX)
        self.builder.store(self.index(start).value, counter)
        head, body, end = (self._function.append_basic_block(name) for name in _LOOP_BLOCKS)
        self.builder.branch(head)
        self.builder.position_at_end(head)
        now = self.builder.load(counter, typ=INDEX)
        is_inside = self.builder.icmp_signed("<", now, self.index(stop).value)
        self.builder.cbranch(is_inside, body, end)
        self.builder.position_at_end(body)
        yield Integer(self, now)
        self.builder.store(self.builder.add(now, self.index(step).value), counter)
        self.builder.branch(head)
        self.builder.position_at_end(end)

    @contextmanager
    def when(self, condition: Condition) -> Iterator[None]:
        """Run the body of a with-block only where a condition holds."""
        with self.builder.if_then(condition.value):
            yield

    def choose(self, kind: Integer, cases: Sequence[tuple[int, Callable[[], None]]]) -> None:
        """Run the case that has the number `kind`; none where no case has it."""
        end = self._function.append_basic_block("chosen")
        switch = self.builder.switch(kind.value, end)
        for number, write in cases:
            block = self._function.append_basic_block("case")
            switch.add_case(ir.Constant(INDEX, number), block)
            self.builder.position_at_end(block)
            write()
            self.builder.branch(end)
        self.builder.position_at_end(end)


_LOOP_BLOCKS = ("head", "inside", "behind")


@dataclass(frozen=True, eq=False)
class Pointer:
    """The start of an array; what lies there is said where it is read."""

    code: Code
    value: ir.Value

    def at(self, offset: Count) -> Pointer:
        """Move on by `offset` numbers of the kernel's precision."""
        return self._moved(offset, self.code.precision.scalar)

    def integer(self, index: Count) -> Integer:
        """Read the 64-bit integer number `index`."""
        place = self._moved(index, INDEX)
        return Integer(self.code, self.code.builder.load(place.value, typ=INDEX))

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

    def word(self, index: Count) -> Integer:
        """Read the signed 32-bit integer number `index`; of a float32, its bits."""
        code, kind = self.code, ir.IntType(32)
        value = code.builder.load(self._moved(index, kind).value, typ=kind)
        return Integer(code, code.builder.sext(value, INDEX))

    def widened(self, index: Count) -> Vector:
        """Read float32 number `index` into every lane of a float64 kernel."""
        code, kind = self.code, ir.FloatType()
        value = code.builder.load(self._moved(index, kind).value, typ=kind)
        return code.spread(code.builder.fpext(value, code.precision.scalar))

    def store_integer(self, index: Count, value: Count) -> None:
        """Write the 64-bit integer number `index`."""
        code = self.code
        code.builder.store(code.index(value).value, self._moved(index, INDEX).value)

    def store_lane(self, offset: Count, vector: Vector, lane: int = 0) -> None:
        """Write one lane as number `offset`."""
        self.code.builder.store(vector.lane(lane), self.at(offset).value)

    def add_number(self, offset: Count, vector: Vector) -> None:
        """Add the first lane to number `offset`."""
        builder, place = self.code.builder, self.at(offset).value
        number = builder.load(place, typ=self.code.precision.scalar)
        builder.store(builder.fadd(number, vector.lane(0)), place)

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

    def lane(self, index: int) -> ir.Value:
        """Give one lane as a scalar."""
        return self.code.builder.extract_element(self.value, ir.Constant(ir.IntType(32), index))

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


@dataclass(frozen=True, eq=False)
class Bits:
    """An unsigned integer in each lane, as wide as the kernel's numbers."""

    code: Code
    value: ir.Value

    def __add__(self, other: Bits) -> Bits:
        return Bits(self.code, self.code.builder.add(self.value, other.value))

    def __sub__(self, other: Bits) -> Bits:
        return Bits(self.code, self.code.builder.sub(self.value, other.value))

    def __and__(self, other: Bits) -> Bits:
        return Bits(self.code, self.code.builder.and_(self.value, other.value))

    def __or__(self, other: Bits) -> Bits:
        return Bits(self.code, self.code.builder.or_(self.value, other.value))

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
