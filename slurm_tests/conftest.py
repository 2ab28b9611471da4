"""A SLURM cluster of this machine for the time of the tests; `make slurm-test`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT / "tests"))

import detectors

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCRIPT = CHECKOUT / "scripts" / "slurm" / "one_node_cluster.sh"
_DAEMONS = ("munged", "slurmctld", "slurmd")


def _reason_to_skip() -> str | None:
    missing = [name for name in _DAEMONS if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (packages slurm-wlm and munge)"
    return None if os.geteuid() == 0 else "the daemons of SLURM are started as root"


@pytest.fixture(scope="session", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start the cluster on a free port; SLURM_CONF and PATH lead commands to it and to ours."""
    reason = _reason_to_skip()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([_SCRIPT, "up", folder, str(_free_ports())], check=True, timeout=120)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    yield
    subprocess.run([_SCRIPT, "down", folder], check=True, timeout=120)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native file of 300 showers on the small cartesian detector."""
    folder = tmp_path_factory.mktemp("data of ω")
    return detectors.write_showers(folder / "showers.h5", detectors.cartesian(), 300)


def _free_ports() -> int:
    """Find a port that is free, and the next one, too."""
    for port in range(16817, 17817, 2):
        try:
            for own in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", own))
        except OSError:
            continue
        return port
    raise RuntimeError("no two free ports")
