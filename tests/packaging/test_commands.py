"""Every command answers --help at once, and its words change only on purpose."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from command_interface import FROZEN, command_modules, interface_lines

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("torch", "lightning", "scipy", "matplotlib", "sklearn", "h5py", "wandb")
PLAIN_TERMINAL = {**os.environ, "COLUMNS": "400", "NO_COLOR": "1", "TERM": "dumb"}


def frozen_lines() -> list[str]:
    return FROZEN.read_text(encoding="utf-8").splitlines()


def help_pages() -> list[str]:
    """Give every command, and every command with a subcommand."""
    subcommands = (line for line in frozen_lines() if " " in line)
    words = (line.split(" ") for line in subcommands if not line.startswith("calo-train "))
    found = {" ".join(word[:2]) for word in words if word[1].islower() and word[1][0].isalpha()}
    return sorted({*command_modules(), *found})


@pytest.mark.parametrize("page", help_pages())
def test_help_names_every_word_and_imports_nothing_heavy(page: str, tmp_path: Path) -> None:
    """U1: --help is instant because torch, Lightning and the like stay unimported."""
    command, *subcommand = page.split(" ")
    module = command_modules()[command]
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, *subcommand, "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=PLAIN_TERMINAL,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "calo_train" in imported
    assert imported.isdisjoint(HEAVY)
    assert missing_words(page, shown.stdout) == []


def missing_words(page: str, text: str) -> list[str]:
    """List options, arguments and subcommands of a page that its help does not name."""
    own = [line.removeprefix(f"{page} ") for line in frozen_lines() if line.startswith(f"{page} ")]
    words = [word for word in own if " " not in word and "=" not in word and "." not in word]
    if page == "calo-train":
        words = [word for word in words if word.startswith("-")]
    return [word for word in words if word.lower() not in text.lower()]


def test_words_of_the_commands_change_only_on_purpose() -> None:
    """People's scripts hold these words; a lost or renamed one breaks them."""
    change = list(difflib.unified_diff(frozen_lines(), interface_lines(), "frozen", "now", n=0))
    assert not change, "\n".join(
        [
            *(line.rstrip() for line in change),
            "commands, options or keys changed; if that is meant, freeze them anew:",
            "python tests/packaging/command_interface.py > tests/packaging/interface.txt",
        ]
    )
