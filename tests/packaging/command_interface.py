"""What the commands accept, as sorted lines: `COMMAND [SUBCOMMAND] WORD`.

Options and arguments come from the Typer applications; those of `calo-train` are the options in
its help, its config groups and the keys of its default configuration and of every model. Run as
a script to print the lines that interface.txt should hold.
"""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
FROZEN = Path(__file__).with_name("interface.txt")
_DETECTOR_KEYS = ("dataset.geometry.", "dataset.crop.")  # axes and edges: data, not words


def command_modules() -> dict[str, str]:
    """Give command -> module, as installed by pyproject.toml."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {name: target.partition(":")[0] for name, target in project["scripts"].items()}


def interface_lines() -> list[str]:
    """List every command, subcommand, option, argument, config group, choice and key."""
    lines: set[str] = set()
    for command, module_name in command_modules().items():
        module = importlib.import_module(module_name)
        lines.add(command)
        if command == "calo-train":
            lines.update(f"{command} {word}" for word in _training_words(module))
        else:
            lines.update(_typer_lines(command, module.app))
    return sorted(lines)


def _typer_lines(command: str, app: Any) -> Iterator[str]:
    from typer.main import get_command

    yield from _click_lines(command, get_command(app))


def _click_lines(prefix: str, command: Any) -> Iterator[str]:
    for parameter in command.params:
        is_option = parameter.param_type_name == "option"
        argument = (parameter.metavar or parameter.name).rstrip(".").upper()
        words = [*parameter.opts, *parameter.secondary_opts] if is_option else [argument]
        yield from (f"{prefix} {word}" for word in words)
    for name, inner in getattr(command, "commands", {}).items():
        yield f"{prefix} {name}"
        yield from _click_lines(f"{prefix} {name}", inner)


def _training_words(module: Any) -> Iterator[str]:
    from calo_train.config_folder import config_groups
    from calo_train.training.compose import compose_config

    yield from re.findall(r"(?<![\w-])--?[a-z][\w-]*", module.USAGE)
    for group, choices in config_groups().items():
        yield from (f"{group}={choice}" for choice in choices)
    yield from (key for key in _keys(compose_config([])) if not key.startswith(_DETECTOR_KEYS))
    for model in config_groups()["model"]:
        yield from _keys({"model": compose_config([f"model={model}"])["model"]})
    yield from (f"logger.{key}" for key in compose_config(["logger=wandb"])["logger"])
    yield from (f"launcher.{key}" for key in compose_config(["launcher=slurm"])["launcher"])


def _keys(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


if __name__ == "__main__":
    sys.stdout.write("\n".join([*interface_lines(), ""]))
