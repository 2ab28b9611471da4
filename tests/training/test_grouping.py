"""`parts_per_group`: how many parts fit, and that a run keeps what was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import commands
import pytest
from torch import nn

from calo_train.errors import UsageError
from calo_train.families.contracts import require_parts_per_group
from calo_train.training import grouping
from calo_train.training.compose import composed_run
from calo_train.training.data import prepare_data
from calo_train.training.grouping import PartMemory, fitting_parts, group_sizes
from calo_train.training.plan import plan_groups
from calo_train.training.run import train

if TYPE_CHECKING:
    from pathlib import Path


def test_memory_of_a_part_follows_from_its_shapes() -> None:
    """Weights by copies, outputs of linear layers by showers."""
    part = PartMemory.of(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)))
    assert part == PartMemory(num_weights=3 * 5 + 5 + 5 * 2 + 2, num_outputs=7)
    one, two = (part.num_bytes(batch_size=size, copies=5, itemsize=4) for size in (10, 20))
    assert one == 4 * (5 * 32 + grouping._ACTIVATION_COPIES * 10 * 7)
    assert two - one == 4 * grouping._ACTIVATION_COPIES * 10 * 7


@pytest.mark.parametrize(
    ("free", "expected"),
    [(0, 1), (12, 1), (25, 2), (125, 10), (160, 10), (200, 15), (400, 30), (9000, 30)],
)
def test_groups_are_as_large_as_memory_allows_and_nearly_equal(free: int, expected: int) -> None:
    """Parts of 10 bytes, 30 of them, 80 % of the memory: 12 that fit make 3 groups of 10."""
    assert fitting_parts(10, free, 30) == expected


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
