"""Where a run comes from: program, libraries, machine, data. Never user names, hosts or tokens."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from calo_train import __version__
from calo_train.machine import available_cores, processor_name

_LIBRARIES = ("torch", "lightning", "nflows", "numpy", "h5py", "hydra-core")


def describe_program() -> dict[str, Any]:
    """Give the versions of the program and of what its numbers depend on."""
    found: dict[str, Any] = {"calo-train": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    revision = _git_revision()
    return found | ({"git": revision} if revision else {})


def describe_hardware(accelerator: str) -> dict[str, Any]:
    """Name processor, cores and, where one is used, the GPU."""
    hardware: dict[str, Any] = {
        "processor": processor_name(),
        "cores": available_cores(),
    }
    if accelerator == "gpu":
        import torch

        hardware["gpus"] = [
            torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
        ]
    return hardware


def is_main_process() -> bool:
    """Whether this is the one process of a training that keeps its records."""
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def _git_revision() -> str | None:
    """Give the commit of a checkout that this program runs from, with + when it is modified."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        return done.stdout.strip()

    try:
        revision = git("rev-parse", "--short=12", "HEAD")
        return revision + ("+" if git("status", "--porcelain", "-uno") else "") or None
    except (OSError, subprocess.TimeoutExpired):
        return None
