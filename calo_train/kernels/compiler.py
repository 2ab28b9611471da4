"""From written kernels to functions that run: compile for this machine, keep on disk, load.

The compiled object lies in the user's cache folder under the hash of its code, of the processor
and of the compiler, so that no other machine or version takes it for its own. Calls release the
interpreter, so several threads may run kernels at once.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from calo_train.atomic_files import replacing
from calo_train.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llvmlite import ir
    from llvmlite.binding import ResourceTracker, TargetMachine

CACHE_VARIABLE = "CALO_TRAIN_CACHE"
_KINDS = {
    "pointer": ctypes.c_void_p,
    "integer": ctypes.c_int64,
    "double": ctypes.c_double,
}
_DIGEST_BYTES = 32
_log = logging.getLogger(__name__)
_lock = threading.RLock()


@dataclass(frozen=True)
class Machine:
    """What code is compiled for: LLVM's names, and the bytes of a vector register."""

    triple: str
    processor: str
    features: str
    vector_bytes: int


@dataclass(frozen=True, eq=False)
class Library:
    """Compiled functions by name; as long as it lives they can be called."""

    functions: Mapping[str, Callable[..., None]]
    tracker: ResourceTracker


@cache
def this_machine() -> Machine:
    """Describe the processor that this process runs on."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        vector_bytes = 64
    elif features.get("avx"):
        vector_bytes = 32
    else:
        vector_bytes = 16  # SSE2 and NEON, which every 64-bit processor has
    names = features.flatten()
    return Machine(llvm.get_default_triple(), llvm.get_host_cpu_name(), names, vector_bytes)


def compile_library(
    write: Callable[[ir.Module], None],
    signatures: Mapping[str, Sequence[tuple[str, str]]],
    machine: Machine,
    *,
    purpose: str,
    key: str,
) -> Library:
    """Compile what `write` puts into a module and load it, or load what was compiled before.

    `signatures` names each function's arguments as `Code` takes them. `key` tells one kernel of
    the calling module from another; the sources of its package and of this one count as well, so
    that changed code is never served from the cache. Raises MachineError where the machine cannot
    compile or load code.
    """
    path = _cache_path(f"{write.__module__} {key}", machine)
    with _lock:
        compiled = _read(path) if path is not None else None
        if compiled is None:
            compiled = _compiled(write, machine, purpose)
            if path is not None:
                _write(path, compiled)
        return _loaded(compiled, signatures, machine)


def cache_folder() -> Path | None:
    """Give the folder of compiled kernels; None where it cannot be written to.

    CALO_TRAIN_CACHE moves it; set to nothing, it turns keeping off.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen == "":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = Path(chosen) if chosen else Path(base) / "calo-train"
    try:
        folder = folder / "kernels"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def _compiled(write: Callable[[ir.Module], None], machine: Machine, purpose: str) -> bytes:
    import llvmlite.binding as llvm
    from llvmlite import ir

    _log.info("compiling %s, once on this machine", purpose)
    started = time.monotonic()
    written = ir.Module(purpose)
    write(written)
    target = _target_machine(machine)
    module = llvm.parse_assembly(str(written))
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    # Lanes are explicit; the vectorisers would only spend time and reorder what is written.
    options.loop_vectorization = options.slp_vectorization = False
    passes = llvm.create_pass_builder(target, options)
    passes.getModulePassManager().run(module, passes)
    compiled: bytes = target.emit_object(module)
    _log.debug("compiled %s in %.2f s", purpose, time.monotonic() - started)
    return compiled


def _loaded(
    compiled: bytes, signatures: Mapping[str, Sequence[tuple[str, str]]], machine: Machine
) -> Library:
    import llvmlite.binding as llvm

    builder = llvm.JITLibraryBuilder().add_object_img(compiled).add_current_process()
    for name in signatures:
        builder.export_symbol(name)
    # A library's name may be used once only in a process.
    name = f"kernels-{_numbers.take()}"
    try:
        tracker = builder.link(_linker(machine), name)
    except RuntimeError as error:
        raise _unavailable(str(error)) from error
    functions = {
        name: ctypes.CFUNCTYPE(None, *(_KINDS[kind] for _, kind in arguments))(tracker[name])
        for name, arguments in signatures.items()
    }
    return Library(functions, tracker)


def _target_machine(machine: Machine) -> TargetMachine:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    try:
        target = llvm.Target.from_triple(machine.triple)
        return target.create_target_machine(
            cpu=machine.processor, features=machine.features, opt=3, jit=True
        )
    except RuntimeError as error:
        raise _unavailable(str(error)) from error


@cache
def _linker(machine: Machine) -> object:
    import llvmlite.binding as llvm

    return llvm.create_lljit_compiler(_target_machine(machine))


class _Numbers:
    def __init__(self) -> None:
        self._next = 0

    def take(self) -> int:
        self._next += 1
        return self._next


_numbers = _Numbers()


def _cache_path(key: str, machine: Machine) -> Path | None:
    import llvmlite
    import llvmlite.binding as llvm

    folder = cache_folder()
    sources = _digest_of_sources(key.partition(" ")[0])
    if folder is None or sources is None:
        return None
    compiler = f"{llvmlite.__version__} {llvm.llvm_version_info}"
    pieces = (key, sources, repr(machine), compiler)
    return folder / f"{hashlib.sha256(chr(0).join(pieces).encode()).hexdigest()}.o"


@cache
def _digest_of_sources(module: str) -> str | None:
    """Hash the sources beside a module and beside this one; None where there are none."""
    digest = hashlib.sha256()
    for origin in (__file__, getattr(sys.modules[module], "__file__", None)):
        if origin is None or not Path(origin).is_file():
            return None
        for path in sorted(Path(origin).parent.glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> bytes | None:
    """Read a kept object; one that was cut or altered counts as not there."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, compiled = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return compiled if hashlib.sha256(compiled).digest() == digest else None


def _write(path: Path, compiled: bytes) -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(hashlib.sha256(compiled).digest() + compiled)
    except MachineError as error:
        _log.debug("the compiled kernel is not kept: %s", error.what)


def _unavailable(reason: str) -> MachineError:
    return MachineError(
        f"this machine cannot run compiled kernels: {reason.strip() or 'no reason was given'}",
        where=f"llvmlite, {tempfile.gettempdir()}",
        do="install a current llvmlite; torch and numpy do the same work, only slower",
    )
