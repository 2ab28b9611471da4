"""What can be wrong with a machine or a run before hours are lost: `calo-runs doctor`.

Each check tells what it found and, where it fails, what to do. Nothing is changed.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calo_train.atomic_files import require_writable, write_text
from calo_train.errors import CaloTrainError, MachineError
from calo_train.machine import available_cores, free_host_memory
from calo_train.quantities import format_size
from calo_train.training.lock import describe_owner, owned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from calo_train.training.run_folder import RunFolder

_LOW_SPACE = 2 << 30  # bytes; a default training with its samples and report takes about one GiB
_LOW_FILES = 256  # open files; HDF5 sources of many files and the sampler's tiles need some
# What a batch system says of the processes of a job, and what torch's launcher says.
_RANK_VARIABLES = (("SLURM_PROCID", "SLURM_NTASKS"), ("RANK", "WORLD_SIZE"))


@dataclass(frozen=True)
class Check:
    """One finding; `advice` is empty where all is well."""

    name: str
    found: str
    advice: str = ""

    @property
    def is_good(self) -> bool:
        return not self.advice


def check_machine(folder: Path) -> list[Check]:
    """Look at Python, torch, devices, ranks, limits and the file system of `folder`."""
    return [
        _python(),
        _torch(),
        _devices(),
        *_ranks(os.environ),
        _threads(),
        _memory(),
        _open_files(),
        _space(folder),
        _tried("files", lambda: _try_files(folder)),
    ]


def check_run(run: RunFolder) -> list[Check]:
    """Look at a run's locks, checkpoints, finished parts and generator."""
    return [
        _tried("record", lambda: f"state {run.read_record().get('state', 'not started')}"),
        *_locks(run),
        *_checkpoints(run),
        *_parts(run),
        *_generator(run),
    ]


def require_good(checks: list[Check]) -> None:
    """Raise MachineError that names the checks that failed."""
    bad = [check for check in checks if not check.is_good]
    if bad:
        raise MachineError(
            f"{len(bad)} of {len(checks)} checks failed",
            where=", ".join(check.name for check in bad),
            do=bad[0].advice,
        )


def free_stale_lock(path: Path) -> None:
    """Remove the lock of an owner that gives no sign of life; MachineError while one does."""
    owner = describe_owner(path)
    if owner is not None:
        raise MachineError(
            f"the owner is alive: {owner}",
            where=str(path),
            do="stop that process first",
        )
    path.unlink(missing_ok=True)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    is_old = sys.version_info < (3, 11)
    return Check("python", version, "install Python 3.11 or newer" if is_old else "")


def _torch() -> Check:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Check("torch", f"{torch.__version__}, {build}")


def _devices() -> Check:
    import torch

    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = sorted({torch.cuda.get_device_name(index) for index in range(found)})
    words = f"{found} GPUs ({', '.join(names)})" if found else "no GPU visible"
    if wanted and not found:
        return Check(
            "devices",
            f"{words}, CUDA_VISIBLE_DEVICES={wanted}",
            "check the driver with nvidia-smi, and that torch is a CUDA build",
        )
    return Check("devices", words)


def _ranks(environment: Mapping[str, str]) -> Iterator[Check]:
    """Compare what a batch system and torch's launcher say of this process."""
    told = {
        names: (int(environment[names[0]]), int(environment[names[1]]))
        for names in _RANK_VARIABLES
        if all(environment.get(name, "").isdigit() for name in names)
    }
    words = "; ".join(
        f"{rank}={place} of {size}={count}" for (rank, size), (place, count) in told.items()
    )
    outside = [names for names, (place, count) in told.items() if place >= count]
    advice = ""
    if outside:
        advice = f"{outside[0][0]} must be below {outside[0][1]}; start the job anew"
    elif len(set(told.values())) > 1:
        advice = "two launchers disagree; start one process a GPU by one of them"
    yield Check("ranks", words or "one process", advice)


def _threads() -> Check:
    import torch

    cores, threads = available_cores(), torch.get_num_threads()
    advice = ""
    if threads > cores:
        advice = f"set OMP_NUM_THREADS={cores}: more threads than cores wait for each other"
    return Check("threads", f"{threads} torch threads, {cores} cores", advice)


def _memory() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    limit = "" if soft == resource.RLIM_INFINITY else f", limited to {format_size(soft)}"
    return Check("memory", f"{format_size(free_host_memory())} free{limit}")


def _open_files() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    advice = f"raise it: ulimit -n {4 * _LOW_FILES}" if soft < _LOW_FILES else ""
    return Check("open files", f"at most {soft}", advice)


def _space(folder: Path) -> Check:
    existing = next(
        parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists()
    )
    free = shutil.disk_usage(existing).free
    advice = "" if free >= _LOW_SPACE else "free some space, or set runs_folder=ANOTHER"
    return Check("disk", f"{format_size(free)} free for {folder}", advice)


def _try_files(folder: Path) -> str:
    """Write, rename and lock files as a training does."""
    require_writable(folder)
    existing = next(
        parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists()
    )
    probe = existing / f".doctor-{os.getpid()}"
    try:
        write_text(probe, "probe")
        with owned(probe.with_suffix(".lock")):
            pass
    finally:
        probe.unlink(missing_ok=True)
    return "written, renamed and locked"


def _locks(run: RunFolder) -> Iterator[Check]:
    for path in sorted(run.path.glob("lock*")):
        owner = describe_owner(path)
        if owner is not None:
            yield Check(path.name, f"held by {owner}")
        else:
            yield Check(
                path.name,
                "its owner gives no sign of life",
                "go on with the same calo-train command, which takes it over, or remove it with "
                f"calo-runs doctor {run.path} --free-locks",
            )


def _checkpoints(run: RunFolder) -> Iterator[Check]:
    from calo_train.training.checkpoints import LAST, load_checkpoint

    for last in sorted(run.path.glob(f"stages/*/*/{LAST}")):
        folder = last.parent

        def position(folder: Path = folder) -> str:
            state = load_checkpoint(folder) or {}
            return f"can be read, epoch {state.get('epoch')}, batch {state.get('batch')}"

        yield _tried(f"checkpoint {folder.relative_to(run.path / 'stages')}", position)


def _parts(run: RunFolder) -> Iterator[Check]:
    from safetensors import SafetensorError, safe_open

    unreadable = []
    paths = sorted(run.path.glob("stages/*/parts/*.safetensors"))
    for path in paths:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError):
            unreadable.append(str(path.relative_to(run.path)))
    advice = ""
    if unreadable:
        advice = f"move {', '.join(unreadable)} away; the same command trains them again"
    yield Check("finished parts", f"{len(paths)} stored, {len(unreadable)} unreadable", advice)


def _generator(run: RunFolder) -> Iterator[Check]:
    from calo_train.families.generator import load_generator

    if run.generator.is_dir():
        yield _tried(
            "generator",
            lambda: f"{len(load_generator(run.generator).parts)} parts, checksums agree",
        )


def _tried(name: str, look: Callable[[], str]) -> Check:
    """Make a check of something that raises where it is not well."""
    try:
        return Check(name, look())
    except CaloTrainError as error:
        return Check(name, f"{error.what} ({error.where})", error.do)
