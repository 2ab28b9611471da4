"""What the files of the checkout promise to those who install it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
CONFIG_FILES = sorted((CHECKOUT / "conf").rglob("*.yaml"))


def test_constraints_pin_public_versions_only() -> None:
    """A build suffix, an address or a local file would break everybody else's installation."""
    lines = (CHECKOUT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin)] == []


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_config_file_says_in_its_first_line_what_it_is(path: Path) -> None:
    """`calo-train --help` shows this line beside the choice."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert re.fullmatch(r"# \S.{10,}", comment)
