"""Time a generator in a process of its own, on every device that is here.

A fresh process tells what start-up costs, and its memory is that of drawing alone. One thread
computes a tile, as calo-sample does, which runs as many tiles at once as there are cores.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

from calo_train.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from calo_train.evaluation.timing import GenerationTiming, TimingProtocol
    from calo_train.families.contracts import Sampler
    from calo_train.families.generator import Generator

_SEED = 0
_log = logging.getLogger(__name__)


def require_generators(folders: Sequence[Path | None]) -> None:
    """Raise UsageError when no sample has a generator to time."""
    if not any(folders):
        raise UsageError(
            "there is no generator to time",
            where="--timing; files of showers do not say how long they took",
            do="give a run folder or a generator folder",
        )


def timing_repetitions(*, is_full: bool) -> int:
    """Give how often each batch size is timed: 10 times as published, else 3."""
    return 10 if is_full else 3


def time_all(
    folders: Sequence[Path | None], repetitions: int
) -> list[tuple[GenerationTiming, ...]]:
    """Time the generator of each sample; nothing for files."""
    from calo_train.evaluation.timing import TimingProtocol

    protocol = TimingProtocol(repetitions=repetitions)
    found = []
    for folder in folders:
        if folder is not None:
            _log.info("timing %s", folder)
        found.append(() if folder is None else time_generator(folder, protocol))
    return found


def time_generator(folder: Path, protocol: TimingProtocol) -> tuple[GenerationTiming, ...]:
    """Time the generator in a folder on the CPU and, where there is one, on the GPU."""
    import torch

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return tuple(_in_new_process(folder, device, protocol) for device in devices)


def _in_new_process(folder: Path, device: str, protocol: TimingProtocol) -> GenerationTiming:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_measure, folder, device, protocol, time.time()).result()


def _measure(
    folder: Path, device: str, protocol: TimingProtocol, started: float
) -> GenerationTiming:
    import torch

    from calo_train.evaluation.timing import GenerationTiming, time_batch
    from calo_train.families.generator import load_generator
    from calo_train.machine import peak_memory, processor_name

    torch.set_num_threads(1)
    generator = load_generator(folder)
    sampler = generator.sampler(dtype=torch.float64, device=torch.device(device))
    start_up = time.time() - started
    draw = _tile_drawer(generator, sampler)
    batches = tuple(
        time_batch(draw, size, sampler.tile, protocol) for size in protocol.batch_sizes
    )
    is_gpu = device == "cuda"
    peak_bytes = torch.cuda.max_memory_allocated() if is_gpu else peak_memory()
    stored = [value for part in generator.parts.values() for value in part.values()]
    return GenerationTiming(
        device,
        torch.cuda.get_device_name() if is_gpu else processor_name(),
        torch.get_num_threads(),
        "float64",
        sampler.tile,
        start_up,
        _num_weights(generator),
        sum(value.numel() * value.element_size() for value in stored),
        peak_bytes,
        batches,
    )


def _num_weights(generator: Generator) -> int:
    """Count what was trained; the stored parts also hold masks and permutations."""
    stages = generator.family.stages(generator.geometry, generator.statistics, generator.threshold)
    return sum(
        weight.numel()
        for stage in stages
        for index in range(len(stage.part_names))
        for weight in stage.build_part(index).parameters()
    )


def _tile_drawer(generator: Generator, sampler: Sampler) -> Callable[[int], None]:
    """Give a function that draws a tile over the trained domain and brings it to the CPU."""
    import torch

    from calo_train.kernels.noise import normals
    from calo_train.sampling.request import SampleRequest, trained_laws

    request = SampleRequest(1, trained_laws(generator), seed=_SEED)

    def draw(number: int) -> None:
        first = number * sampler.tile
        base_noise = normals(_SEED, first, sampler.tile, sampler.num_normals)
        conditions = request.conditions(first, sampler.tile)
        columns = {name: torch.from_numpy(values) for name, values in conditions.items()}
        sampler.draw(torch.from_numpy(base_noise), columns).energies.cpu()  # waits for a GPU

    return draw
