"""What a training costs: hours of cores and GPUs, and energy where the machine tells it.

Energy is read from counters: of processors through Linux's powercap (RAPL, often readable by root
alone), of GPUs through NVIDIA's management library where `pynvml` is installed. It is that of
whole devices, with whatever else ran on them.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calo_train.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from calo_train.training.run_folder import RunFolder

_POWERCAP = Path("/sys/class/powercap")
_JOULES_PER_KWH = 3.6e6
_SECONDS_PER_HOUR = 3600.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """Clocks and counters at one moment; joules by counter, with where each wraps around."""

    wall: float
    processor: float
    joules: Mapping[str, float]
    wraps: Mapping[str, float]

    @classmethod
    def now(cls, *, has_gpu: bool) -> Reading:
        """Read what this machine tells."""
        joules, wraps = _processor_energy()
        if has_gpu:
            joules |= _gpu_energy()
        times = os.times()
        # The last two are of processes that this one has started and waited for.
        return cls(time.monotonic(), sum(times[:4]), joules, wraps)


@contextmanager
def recorded_cost(run: RunFolder, *, num_gpus: int) -> Iterator[None]:
    """Add what a with-block costs to run.yaml, however it ends but by a kill."""
    start = Reading.now(has_gpu=num_gpus > 0)
    try:
        yield
    finally:
        if run.record_file.is_file():
            new = cost_since(start, num_gpus=num_gpus)
            try:
                run.change_record(lambda record: {"cost": added(record.get("cost", {}), new)})
            except MachineError as error:  # a full disk must not hide why the block ended
                _log.warning("the cost is not recorded: %s: %s", error.what, error.where)


def cost_since(start: Reading, *, num_gpus: int) -> dict[str, float]:
    """Give what passed since a reading: wall_hours, core_hours, gpu_hours, energy_kwh if told."""
    end = Reading.now(has_gpu=num_gpus > 0)
    wall = (end.wall - start.wall) / _SECONDS_PER_HOUR
    cost = {
        "wall_hours": wall,
        "core_hours": (end.processor - start.processor) / _SECONDS_PER_HOUR,
        "gpu_hours": num_gpus * wall,
    }
    spent = [_difference(start, end, name) for name in start.joules if name in end.joules]
    if spent:
        cost["energy_kwh"] = sum(spent) / _JOULES_PER_KWH
    return cost


def added(before: Mapping[str, Any], new: Mapping[str, float]) -> dict[str, float]:
    """Add the cost of one session to that of those before it."""
    return {
        name: round(float(before.get(name, 0.0)) + new.get(name, 0.0), 6)
        for name in {**before, **new}
    }


def _difference(start: Reading, end: Reading, name: str) -> float:
    spent = end.joules[name] - start.joules[name]
    return spent if spent >= 0 else spent + start.wraps.get(name, 0.0)


def _processor_energy() -> tuple[dict[str, float], dict[str, float]]:
    """Read RAPL's package counters, in joules, and where they wrap around."""
    joules, wraps = {}, {}
    for counter in sorted(_POWERCAP.glob("intel-rapl:[0-9]*/energy_uj")):
        if counter.parent.name.count(":") > 1:
            continue  # a part of a package, counted there
        try:
            joules[counter.parent.name] = int(counter.read_text()) / 1e6
            wraps[counter.parent.name] = (
                int((counter.parent / "max_energy_range_uj").read_text()) / 1e6
            )
        except (OSError, ValueError):
            joules.pop(counter.parent.name, None)
    return joules, wraps


def _gpu_energy() -> dict[str, float]:
    try:
        import pynvml  # type: ignore[import-not-found]
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())
        ]
        return {
            f"gpu:{number}": pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
            for number, handle in enumerate(handles)
        }
    except pynvml.NVMLError:
        return {}
