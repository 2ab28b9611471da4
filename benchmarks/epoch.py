"""Epoch time of a stage against a bare PyTorch loop over the same modules.

Both train the energy flow and some causal flows of a small L2LFlows on the embedded sample, with
the same features, batches, optimiser and number of steps, in turns in one process. The bare loop
holds all showers as one tensor, undoes their stored rounding, prepares features, steps and
validates, and nothing else. Setting up a fit is paid once, so an epoch is the difference of a long
and a short fit over the difference of their epochs.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from calo_train.progress import Progress
from calo_train.training.compose import composed_run
from calo_train.training.data import TrainingData, prepare_data
from calo_train.training.fit import FitContext, fit_group
from calo_train.training.plan import Group, plan_groups
from calo_train.training.provenance import describe_hardware, describe_program
from calo_train.training.run import build_module, planned_work
from calo_train.training.run_folder import RunFolder
from calo_train.training.stopping import StopRequest
from calo_train.training.work import WorkDisplay

if TYPE_CHECKING:
    from calo_train.training.config import RunConfig

RESULT = Path(__file__).parent / "results" / "epoch.json"
SHORT, LONG = 1, 4  # epochs of the two fits


def main() -> None:
    """Time both in turns and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    config = composed_run(
        ["experiment=quickstart", f"trainer.max_epochs={LONG}", "dataset.symmetries=[]"]
    )
    data = prepare_data(config)
    stages = config.family.stages(data.geometry, data.statistics, data.threshold)
    rows = []
    for only in ("energy", "causal/8-11"):
        (group,) = plan_groups(
            stages, only=only, sizes={stage.name: len(stage.part_names) for stage in stages}
        )
        seconds: dict[str, list[float]] = {"calo-train": [], "bare loop": []}
        for _ in range(arguments.repeats):
            seconds["calo-train"].append(_ours(config, group, data))
            seconds["bare loop"].append(_bare(group, data))
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        ratio = medians["calo-train"] / medians["bare loop"]
        rows.append({"stage": only, "cpu_seconds_per_epoch": medians, "ratio": ratio})
        print(f"{only:<12} {medians}  ratio {ratio:.3f}")
    result = {
        "what": __doc__,
        "epochs": [SHORT, LONG],
        "repeats": arguments.repeats,
        "threads": arguments.threads,
        "program": describe_program(),
        "hardware": describe_hardware("cpu"),
        "rows": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _ours(config: RunConfig, group: Group, data: TrainingData) -> float:
    """CPU seconds of one epoch as `calo-train` fits it, with its checkpoints and metrics."""
    return (_fit(config, group, data, LONG) - _fit(config, group, data, SHORT)) / (LONG - SHORT)


def _fit(config: RunConfig, group: Group, data: TrainingData, num_epochs: int) -> float:
    work = replace(planned_work(config, group, data), num_epochs=num_epochs)
    module = build_module(config, group, work, data)
    with tempfile.TemporaryDirectory() as folder, Progress("", work.total) as progress:
        lock = Path(folder) / "lock"
        lock.touch()
        context = FitContext(
            RunFolder(Path(folder)),
            lock,
            config.trainer,
            None,
            StopRequest(),
            WorkDisplay(progress),
        )
        started = time.process_time()
        fit_group(module, context)
        return time.process_time() - started


def _bare(group: Group, data: TrainingData) -> float:
    """CPU seconds of one epoch of a plain loop over equal flows."""
    from calo_train.families.contracts import ShowerBatch
    from calo_train.showers.rounding import undo_rounding

    stage, settings = group.stage, group.stage.training
    flows = [stage.build_part(index) for index in group.parts]
    optimisers = [torch.optim.AdamW(f.parameters(), lr=1e-3, fused=True) for f in flows]
    splits = {}
    for name in ("train", "validation"):
        stream = data.stream(getattr(data.split, name), settings, is_training=False)
        energies = torch.from_numpy(stream.showers.energies)
        incident = torch.from_numpy(stream.showers.conditions["incident_energy"])
        splits[name] = (energies, incident, torch.from_numpy(stream.mantissa_bits))
    random = torch.Generator().manual_seed(0)

    def losses(name: str, index: torch.Tensor) -> list[torch.Tensor]:
        energies, incident, bits = splits[name]
        chosen = energies[index]
        exact = undo_rounding(chosen, bits[index], torch.rand(chosen.shape, generator=random))
        batch = ShowerBatch(exact, {"incident_energy": incident[index]}, index)
        inputs = stage.inputs(batch, group.parts, random)
        return [
            -flow.log_prob(part.features, context=part.context).mean()
            for flow, part in ((f, inputs(i)) for f, i in zip(flows, group.parts, strict=True))
        ]

    started = time.process_time()
    for _ in range(LONG):
        for index in torch.randperm(len(splits["train"][0])).split(settings.batch_size):
            for loss, optimiser in zip(losses("train", index), optimisers, strict=True):
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        with torch.no_grad():
            for index in torch.arange(len(splits["validation"][0])).split(settings.batch_size):
                losses("validation", index)
    return (time.process_time() - started) / LONG


if __name__ == "__main__":
    main()
