"""A small language of vectors, integers, pointers and loops that writes LLVM IR.

Compilers vectorise plain loops over a spline badly or not at all (too many arrays to prove apart),
so lanes are explicit here: a `Vector` holds one number of each of several showers, and its
operators emit one instruction each. No fast-math flag is set: arithmetic is done as it is written,
and where a product and a sum may be fused this is said by `times_plus`. So a lane's result depends
on its own numbers alone.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from llvmlite import ir

from calo_train.kernels.integers import INDEX, Condition, Count, Counter, Integer
from calo_train.kernels.values import Bits, Pointer, Precision, Variable, Vector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_POINTER = ir.PointerType()


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
        self._constants: dict[str, ir.Constant] = {}  # writing one down is most of the work

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
        name = repr(float(value))  # tells -0.0 from 0.0, which as keys would be one
        if name not in self._constants:
            self._constants[name] = ir.Constant(self.vector_type, [value] * self.lanes)
        return Vector(self, self._constants[name])

    def bits(self, value: int) -> Bits:
        """Give one bit pattern in every lane."""
        return Bits(self, ir.Constant(self.bits_type, [value] * self.lanes))

    def lane_numbers(self) -> Bits:
        """Give each lane its number, from 0."""
        return Bits(self, ir.Constant(self.bits_type, list(range(self.lanes))))

    def index(self, value: Count) -> Integer:
        """Give an integer."""
        return value if isinstance(value, Integer) else Integer(self, ir.Constant(INDEX, value))

    def spread(self, scalar: ir.Value) -> Vector:
        """Put one scalar into every lane."""
        return Vector(self, self.in_lanes(scalar, self.vector_type))

    def in_lanes(self, scalar: ir.Value, kind: ir.Type) -> ir.Value:
        """Repeat a scalar to a vector of some type."""
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def variable(self, initial: Vector) -> Variable:
        """Give a vector that can be set again, for what a loop carries on."""
        variable = Variable(self, self.room(self.vector_type))
        variable.set(initial)
        return variable

    def counter(self, initial: Count = 0) -> Counter:
        """Give an integer that can be set again."""
        counter = Counter(self, self.room(INDEX))
        counter.set(initial)
        return counter

    def room(self, kind: ir.Type) -> ir.Value:
        """Give a place for a value that a loop carries on; the optimiser makes it a register."""
        return self._entry.alloca(kind)

    def intrinsic(self, name: str, *arguments: Vector) -> Vector:
        """Call an LLVM intrinsic on vectors, such as `sqrt` or `fmuladd`."""
        full = f"llvm.{name}.v{self.lanes}f{self.precision.bits}"
        kinds = [self.vector_type] * len(arguments)
        function = self._module.globals.get(full) or ir.Function(
            self._module, ir.FunctionType(self.vector_type, kinds), full
        )
        return Vector(self, self.builder.call(function, [item.value for item in arguments]))

    def prefetch(self, place: Pointer, *, to_write: bool) -> None:
        """Ask for the cache line of a place, which may lie outside of its array."""
        name, flag = "llvm.prefetch.p0", ir.IntType(32)
        function = self._module.globals.get(name) or ir.Function(
            self._module, ir.FunctionType(ir.VoidType(), [_POINTER, flag, flag, flag]), name
        )
        keep, data = 3, 1  # in all levels of the cache; not code
        flags = [ir.Constant(flag, value) for value in (int(to_write), keep, data)]
        self.builder.call(function, [place.value, *flags])

    @contextmanager
    def loop(self, start: Count, stop: Count, step: Count = 1) -> Iterator[Integer]:
        """Repeat the body of a with-block for start, start + step, ... below stop."""
        counter = self.room(INDEX)
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
