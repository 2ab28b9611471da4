"""What killed processes leave: files and folders, of one name or of all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calo_train.atomic_files import remove_leftovers

if TYPE_CHECKING:
    from pathlib import Path

_DEAD, _ALIVE = 99_999_999, 1


def test_leftovers_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    """A report beside the files of a run is a folder."""
    names = [f".run.yaml.part-{_DEAD}", f".report[1].part-{_DEAD}", f".run.yaml.part-{_ALIVE}"]
    (tmp_path / names[0]).touch()
    (tmp_path / names[1]).mkdir()
    (tmp_path / names[1] / "report.html").touch()
    (tmp_path / names[2]).touch()
    assert [path.name for path in remove_leftovers(tmp_path, of="report[1]")] == [names[1]]
    assert [path.name for path in remove_leftovers(tmp_path)] == [names[0]]
    assert [path.name for path in tmp_path.iterdir()] == [names[2]]
