"""A vector function compiled to a kernel over an array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calo_train.kernels.code import Code
from calo_train.kernels.compiler import Library, Machine, compile_library, this_machine
from calo_train.kernels.values import PRECISIONS, Vector

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from llvmlite import ir

_SIGNATURE = (("source", "pointer"), ("target", "pointer"), ("count", "integer"))


def plain_machine() -> Machine:
    """Describe a 64-bit processor of this kind without AVX, FMA or any other extension."""
    known = this_machine()
    is_x86 = known.triple.startswith("x86_64")
    return Machine(known.triple, "x86-64" if is_x86 else "generic", "", 16)


def compiled(
    function: Callable[[Vector], Vector], precision: str, machine: Machine | None = None
) -> Library:
    """Compile y = function(x) over whole vectors."""
    machine = machine or this_machine()
    kind = PRECISIONS[precision]

    def write(module: ir.Module) -> None:
        lanes = machine.vector_bytes // kind.num_bytes
        code = Code(module, "apply", _SIGNATURE, precision=kind, lanes=lanes)
        source, target = code.pointer("source"), code.pointer("target")
        with code.loop(0, code.integer("count"), lanes) as start:
            target.store(function(source.vector(start)), start)
        code.finish()

    return compile_library(
        write,
        {"apply": _SIGNATURE},
        machine,
        purpose="a test's kernel",
        key=f"{function.__qualname__} {precision}",
    )


def applied(library: Library, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Apply a compiled function to values; their number is a multiple of 64."""
    assert len(values) % 64 == 0
    result = np.empty_like(values)
    library.functions["apply"](values.ctypes.data, result.ctypes.data, len(values))
    return result
