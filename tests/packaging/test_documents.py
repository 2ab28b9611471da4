"""README and docs name only what exists: files, commands, options, keys."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from typing import TYPE_CHECKING

import pytest
from command_interface import CHECKOUT, FROZEN, command_modules

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTS = sorted([CHECKOUT / "README.md", *(CHECKOUT / "docs").rglob("*.md")])
GROUPS = ("dataset", "model", "trainer", "logger", "launcher", "experiment")
by_name = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)


@by_name
def test_links_lead_to_files_that_exist(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (document.parent / target).exists()] == []


@by_name
def test_shown_commands_use_words_that_exist(document: Path) -> None:
    """A command that is pasted from a page must not fail on its options or keys."""
    known = set(FROZEN.read_text(encoding="utf-8").splitlines())
    unknown = [
        f"{line}: {word}"
        for line in shown_commands(document.read_text(encoding="utf-8"))
        for word in words_of(line)
        if word not in known
    ]
    assert unknown == []


@by_name
def test_named_tests_exist(document: Path) -> None:
    """A promise that points to a test must not outlive it."""
    text = document.read_text(encoding="utf-8")
    sources = [path.read_text(encoding="utf-8") for path in (CHECKOUT / "tests").rglob("*.py")]
    names = set(re.findall(r"`(test_\w+)`", text))
    assert [name for name in sorted(names) if not any(f"def {name}(" in s for s in sources)] == []
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", text))
    assert [name for name in sorted(files) if not (CHECKOUT / name).is_file()] == []


def shown_commands(text: str) -> list[str]:
    """List command lines of fenced blocks; continued lines are joined, comments cut off.

    Commands that are shown with their error are left out.
    """
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    followed = zip(lines, [*lines, ""][1:], strict=True)
    good = [line for line, following in followed if not following.startswith("error:")]
    plain = [re.sub(r"\s#\s.*", "", line.removeprefix("$ ")).strip() for line in good]
    return [line for line in plain if line.partition(" ")[0] in command_modules()]


def words_of(line: str) -> list[str]:
    """List what interface.txt should hold of a command line: options, keys, choices of groups."""
    command, *arguments = shlex.split(line)
    has_own_groups = "--config-dir" in arguments  # choices are the reader's then
    has_subcommand = command in ("calo-data", "calo-runs") and bool(arguments)
    page = f"{command} {arguments[0]}" if has_subcommand else command
    found = [page]
    for argument in arguments:
        option = re.match(r"--?[a-z][\w-]*", argument)
        key, has_value, _ = argument.partition("=")
        if option:
            found.append(f"{page} {option.group()}")
        elif command == "calo-train" and has_value and key not in GROUPS:
            found.append(f"{command} {key}")
        elif command == "calo-train" and has_value and not has_own_groups:
            found.append(f"{command} {argument}")
    return found


@pytest.mark.parametrize("index", [0, 1], ids=["own flow", "by hand"])
def test_python_of_the_fast_sampling_page_runs(index: int, tmp_path: Path) -> None:
    """The page's assertions hold: its flow equals nflows', its worked example nflows' masks."""
    text = (CHECKOUT / "docs" / "fast-sampling.md").read_text(encoding="utf-8")
    script = tmp_path / "shown.py"
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    script.write_text(blocks[index], encoding="utf-8")
    runpy.run_path(str(script))


def test_figures_of_a_gpu_in_the_text_are_the_stored_ones() -> None:
    """Pages that quote the benchmark of a GPU follow it."""
    stored = (CHECKOUT / "benchmarks" / "results" / "gpu.json").read_text(encoding="utf-8")
    found = json.loads(stored)
    times = {
        row["tile"]: f"{row['ms_a_shower']:.3f} ms"
        for row in found["sampling"]
        if (row["backend"], row["dtype"], row["batch"]) == ("triton", "float32", 10_000)
    }
    differences = [
        f"{row[name]:.0e}".replace("e-0", "e-")
        for row in found["check"]
        for name in ("features", "log_det")
        if row["number"] == 1_000
    ]
    quoted = {
        "README.md": [times[1_000]],
        "docs/families/l2lflows.md": times.values(),
        "docs/fast-sampling.md": differences,
    }
    for name, figures in quoted.items():
        text = (CHECKOUT / name).read_text(encoding="utf-8")
        assert [figure for figure in figures if figure not in text] == [], name


def test_performance_page_shows_the_stored_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is written by a script; numbers in it are not typed."""
    monkeypatch.syspath_prepend(str(CHECKOUT / "scripts"))
    script = runpy.run_path(str(CHECKOUT / "scripts" / "performance_page.py"))
    shown = (CHECKOUT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert shown == script["performance_page"](), "python scripts/performance_page.py"
