"""What this machine is: its processor, and the cores and memory that this process may use."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path


def available_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """Give the processor's model name, or the architecture where none is told."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def peak_memory() -> int:
    """Give the largest resident memory of this process so far, in bytes."""
    # ru_maxrss is in KiB on Linux and in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_host_memory() -> int:
    """Give the bytes that this process may still take: of the machine, and of its cgroup."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    values = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = 1024 * int(values["MemAvailable"].split()[0])
    limited = [_free_in_cgroup(folder) for folder in _cgroups()]
    return min([free, *(value for value in limited if value is not None)])


def _cgroups() -> list[Path]:
    """Give the folders of this process's control group and of those around it (version 2)."""
    listing = Path("/proc/self/cgroup")
    lines = listing.read_text().splitlines() if listing.exists() else []
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    root = Path("/sys/fs/cgroup")
    folder = root / own.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]


def _free_in_cgroup(folder: Path) -> int | None:
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(int(limit) - used, 0)
