"""Seconds until the first inverse in a fresh process, with and without a compiled kernel on disk.

`first_inverses()` starts a process twice with the same empty CALO_TRAIN_CACHE folder: the first
compiles, the second loads. Run with a precision as argument, this file is that process: it times
packing and the first inverse of one L2LFlows causal flow, without the imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def first_inverses(dtype: str) -> dict[str, dict[str, float]]:
    """Time a first inverse with an empty cache and with a filled one, in one precision."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"CALO_TRAIN_CACHE": folder}
        return {name: _in_fresh_process(dtype, environment) for name in ("compiled", "from_disk")}


def _in_fresh_process(dtype: str, environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__)), dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _time_here(dtype_name: str) -> dict[str, float]:
    import torch
    from flow_cases import CASES
    from stopwatch import clock

    from calo_train.nn import pack

    torch.set_num_threads(1)
    dtype = getattr(torch, dtype_name)
    case = next(case for case in CASES if case.name == "l2lflows-causal")
    flow = case.build(dtype)
    noise, context = case.draw(1, dtype)
    packed = []
    pack_cpu, pack_wall = clock(lambda: packed.append(pack(flow)))
    cpu, wall = clock(lambda: packed[0].inverse(noise, context))
    return {"cpu": pack_cpu + cpu, "wall": pack_wall + wall}


if __name__ == "__main__":
    print(json.dumps(_time_here(sys.argv[1])))
