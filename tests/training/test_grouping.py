"""`parts_per_group`: how many parts fit, and that a run keeps what was chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import commands
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from calo_train.errors import UsageError
from calo_train.families.contracts import require_parts_per_group
from calo_train.training import grouping
from calo_train.training.compose import composed_run
from calo_train.training.data import prepare_data
from calo_train.training.grouping import MemoryUse, PartMemory, fitting_parts, group_sizes
from calo_train.training.plan import plan_groups
from calo_train.training.run import train

if TYPE_CHECKING:
    from pathlib import Path


def test_memory_of_parts_follows_from_their_shapes() -> None:
    """Weights by copies, outputs of linear layers by the showers and parts of one pass."""
    part = PartMemory.of(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)))
    assert part == PartMemory(num_weights=3 * 5 + 5 + 5 * 2 + 2, num_outputs=7)
    activations = grouping._ACTIVATION_COPIES * 10 * 7
    use = MemoryUse(batch_size=10, copies=5, itemsize=4, largest_stack=2)
    assert part.num_bytes(1, use) == 4 * (5 * 32 + activations)
    assert part.num_bytes(3, use) == 4 * (3 * 5 * 32 + 2 * activations)
    assert part.num_bytes(3, replace(use, largest_stack=None)) == 3 * part.num_bytes(1, use)


@pytest.mark.parametrize(
    ("free", "expected"),
    [(0, 1), (12, 1), (25, 2), (125, 10), (160, 10), (200, 15), (400, 30), (9000, 30)],
)
def test_groups_are_as_large_as_memory_allows_and_nearly_equal(free: int, expected: int) -> None:
    """Parts of 10 bytes, 30 of them, 80 % of the memory: 12 that fit make 3 groups of 10."""
    part = PartMemory(num_weights=10, num_outputs=0)
    use = MemoryUse(batch_size=1, copies=1, itemsize=1, largest_stack=None)
    assert fitting_parts(part, use, free=free, num_parts=30) == expected


@pytest.mark.parametrize("wrong", [0, -1, "all"])
def test_other_values_are_refused(wrong: int | str) -> None:
    with pytest.raises(UsageError, match="auto"):
        require_parts_per_group(wrong)


def test_auto_counts_one_process_only(tiny_data: Path) -> None:
    arguments = commands.tiny_training(
        tiny_data, "model.parts_per_group=auto", "trainer.num_devices=2"
    )
    config = composed_run(arguments)
    data = prepare_data(config)
    stages = config.family.stages(data.geometry, data.statistics, data.threshold)
    with pytest.raises(UsageError, match="one process"):
        group_sizes(config, data, stages, {})


def test_a_run_keeps_the_groups_that_auto_chose(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process with more free memory finds the same folders."""
    arguments = commands.tiny_training(
        tiny_data, f"runs_folder={tmp_path}", "model.parts_per_group=auto"
    )
    monkeypatch.setattr(grouping, "free_host_memory", lambda: 0)
    train(composed_run([*arguments, "only=energy"]))
    monkeypatch.setattr(grouping, "free_host_memory", lambda: 1 << 40)
    train(composed_run(arguments))
    folders = (tmp_path / "native/l2lflows/default/stages/causal").iterdir()
    assert sorted(folder.name for folder in folders) == ["0", "1", "2", "parts"]


def test_groups_cut_the_wanted_parts(tiny_data: Path) -> None:
    config = composed_run(commands.tiny_training(tiny_data))
    data = prepare_data(config)
    stages = config.family.stages(data.geometry, data.statistics, data.threshold)
    groups = plan_groups(stages, only="causal/0-2", sizes={"energy": 1, "causal": 2})
    assert [group.label for group in groups] == ["0-1", "2"]


# Rounding of 1e-15 in a gradient moves a weight by at most 1e-15 / 1e-8 (Adam's epsilon) of the
# learning rate, 5e-9 in a step and less than 1e-6 in the 49 steps, if all add up.
FLOAT64_TRAINING = 1e-6


def _trained(folder: Path, arguments: list[str]) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Train in this process; give all weights, and the rows of metrics.csv by part."""
    train(composed_run([*arguments, f"runs_folder={folder}"]))
    stage = folder / "native/l2lflows/default/stages/causal"
    rows: dict[str, list[str]] = {}
    for table in stage.glob("*/metrics.csv"):
        for line in table.read_text(encoding="utf-8").splitlines()[1:]:
            rows.setdefault(line.split(",")[1], []).append(line)
    weights = {
        f"{path.stem}/{name}": value
        for path in stage.glob("parts/*.safetensors")
        for name, value in load_file(path).items()
    }
    return weights, rows


def test_parts_are_trained_alike_in_every_group(tmp_path: Path, tiny_data: Path) -> None:
    """Float64, with clipping, averages, and a part that leaves its stack early."""
    arguments = commands.tiny_training(
        tiny_data, "only=causal", "trainer.precision=64-true", "model.causal_training.patience=1",
        "model.causal_training.gradient_clip=5", "model.causal_training.ema_decay=0.5",
        "model.causal_training.learning_rate=0.05", "model.causal_training.num_epochs=7",
        "model.causal_training.schedule=constant", "model.causal_flow.hidden_features=64",
    )  # fmt: skip
    together, rows = _trained(tmp_path / "together", arguments)
    alone, rows_alone = _trained(tmp_path / "alone", [*arguments, "model.parts_per_group=1"])
    assert together.keys() == alone.keys()
    for name, value in together.items():
        torch.testing.assert_close(
            value, alone[name], rtol=FLOAT64_TRAINING, atol=FLOAT64_TRAINING
        )
    epochs = {part: len(lines) for part, lines in rows.items()}
    assert epochs == {part: len(lines) for part, lines in rows_alone.items()}
    assert epochs["1"] < epochs["2"], "one part of the stack stops before the other"


def test_dropout_of_a_part_does_not_depend_on_its_group(tmp_path: Path, tiny_data: Path) -> None:
    """Such flows are never stacked, and draw what is theirs."""
    arguments = commands.tiny_training(
        tiny_data, "only=causal", "model.causal_flow.dropout=0.5",
        "model.causal_training.num_epochs=1",
    )  # fmt: skip
    together, _ = _trained(tmp_path / "together", arguments)
    alone, _ = _trained(tmp_path / "alone", [*arguments, "model.parts_per_group=1"])
    assert together.keys() == alone.keys()
    assert all(torch.equal(together[name], alone[name]) for name in together)
