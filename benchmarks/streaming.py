"""One epoch of batches streamed from a file against the same epoch from memory.

Makes a file of N showers (those of the embedded sample, repeated and scaled) and times, each in a
process of its own, an epoch of batches of 1024: held in memory, and streamed with a budget of
1 GiB. Each batch is followed by matrix products in torch that stand for a training step; their
number is adjustable, and 0 shows the bare reading. The time to load the data into memory is not
part of the in-memory epoch; it is reported beside it. Peak memory is the largest resident set.
On a machine that others use, compare the CPU seconds: the wall times are not ours alone.

    python benchmarks/streaming.py --showers 350000     (4 GB decoded, about 900 MB on disk)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH_SIZE = 1024
STREAM_BUDGET = 1 << 30
RESULTS = Path(__file__).parent / "results" / "streaming.json"


def make_file(path: Path, num_showers: int) -> None:
    """Repeat the embedded showers, each time scaled by another factor: no two are equal."""
    import numpy as np
    import yaml

    from calo_train.config_folder import conf_folder
    from calo_train.geometry import geometry_from_mapping
    from calo_train.showers.layouts import create_showers
    from calo_train.showers.paths import embedded_file
    from calo_train.showers.showers import Showers
    from calo_train.showers.source import open_paths

    mapping = yaml.safe_load((conf_folder() / "geometry" / "ild_30x10x10.yaml").read_text())
    geometry = geometry_from_mapping(mapping)
    with (
        open_paths([embedded_file("ild_sample.h5")], geometry=geometry) as sample,
        create_showers(path, "getting_high", geometry, attributes={}) as writer,
    ):
        whole = sample.read(0, sample.num_showers)
        while writer.num_showers < num_showers:
            piece = whole.rows(slice(0, num_showers - writer.num_showers))
            factor = np.float32(1 + writer.num_showers / (10 * num_showers))
            writer.append(Showers(piece.energies * factor, piece.conditions, geometry))


def run_epoch(path: Path, budget: int, products: int, threads: int) -> dict[str, Any]:
    """Time one epoch; run in a process of its own."""
    import numpy as np
    import torch
    import yaml

    from calo_train.config_folder import conf_folder
    from calo_train.geometry import geometry_from_mapping
    from calo_train.showers.source import open_paths
    from calo_train.showers.stream import BatchStream

    torch.set_num_threads(threads)
    mapping = yaml.safe_load((conf_folder() / "geometry" / "ild_30x10x10.yaml").read_text())
    source = open_paths([path], geometry=geometry_from_mapping(mapping))
    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    stream = BatchStream(
        source,
        np.arange(source.num_showers),
        batch_size=BATCH_SIZE,
        seed=0,
        memory_budget=budget,
        shuffle=True,
    )
    started = time.perf_counter()
    if stream.is_in_memory:
        _ = stream.showers
    loaded, used = time.perf_counter(), time.process_time()
    weights = torch.randn(3000, 512)
    checksum = 0.0
    for batch in stream.batches(0):
        energies = torch.from_numpy(batch.showers.energies)
        for _ in range(products):
            checksum += float((energies @ weights)[0, 0])
    return {
        "is_in_memory": stream.is_in_memory,
        "load_seconds": round(loaded - started, 2),
        "epoch_seconds": round(time.perf_counter() - loaded, 2),
        "epoch_cpu_seconds": round(time.process_time() - used, 2),
        "baseline_bytes": baseline,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def measure(path: Path, budget: int, products: int, threads: int) -> dict[str, Any]:
    """Run an epoch in a fresh process, so that its peak memory is its own."""
    words = [sys.executable, __file__, "--epoch", str(path), str(budget)]
    words += ["--products", str(products), "--threads", str(threads)]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def compare(num_showers: int, products: list[int], threads: int) -> dict[str, Any]:
    """Make the file and run all epochs."""
    import h5py
    import numpy as np
    import torch

    with tempfile.TemporaryDirectory(prefix="calo-streaming-") as folder:
        path = Path(folder) / "showers.h5"
        make_file(path, num_showers)
        decoded = num_showers * 3001 * 4
        rows = []
        for count in products:
            held = measure(path, 4 * decoded, count, threads)
            streamed = measure(path, STREAM_BUDGET, count, threads)
            rows.append(
                {
                    "products_a_batch": count,
                    "in_memory": held,
                    "streamed": streamed,
                    "ratio": round(streamed["epoch_seconds"] / held["epoch_seconds"], 3),
                }
            )
            print(json.dumps(rows[-1]), file=sys.stderr)
        return {
            "num_showers": num_showers,
            "decoded_bytes": decoded,
            "file_bytes": path.stat().st_size,
            "stream_budget_bytes": STREAM_BUDGET,
            "batch_size": BATCH_SIZE,
            "product": "1024x3000 @ 3000x512 float32",
            "torch_threads": threads,
            "epochs": rows,
            "machine": {
                "cores": os.cpu_count(),
                "cpu": platform.machine(),
                "os": platform.system(),
            },
            "versions": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "h5py": h5py.__version__,
                "hdf5": h5py.version.hdf5_version,
                "torch": torch.__version__,
            },
        }


def main() -> None:
    """Compare, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--showers", type=int, default=350_000)
    parser.add_argument("--products", type=int, nargs="+", default=[0, 4, 16])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--epoch", nargs=2, metavar=("FILE", "BUDGET"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.epoch:
        file, budget = arguments.epoch
        print(
            json.dumps(
                run_epoch(Path(file), int(budget), arguments.products[0], arguments.threads)
            )
        )
        return
    result = compare(arguments.showers, arguments.products, arguments.threads)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
