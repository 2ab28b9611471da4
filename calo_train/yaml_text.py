"""YAML from strangers: plain values only, and refused before it can grow or nest without end.

PyYAML's safe loader builds no objects, but a kilobyte of anchors may stand for gigabytes once it
is walked, and brackets may nest deeper than Python's stack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 16 << 20
MAX_DEPTH = 50
MAX_VALUES = 1_000_000  # with what anchors repeat; geometries of 45 layers have some thousand
# libyaml's parser is ten times faster than Python's, where PyYAML was built with it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(ValueError):
    """Text that is not YAML, or more than is accepted; one line says which."""


def read_yaml(path: Path) -> Any:
    """Read a YAML file of at most 16 MiB; YamlError says why it is refused."""
    if path.stat().st_size > MAX_BYTES:
        raise YamlError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise YamlError(f"not UTF-8 text: {error}") from error
    return parse_yaml(text)


def parse_yaml(text: str) -> Any:
    """Parse YAML to plain values, at most 50 levels deep; YamlError says why it is refused."""
    try:
        _require_shallow(text)
        content = yaml.load(text, Loader=_LOADER)  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as error:
        raise YamlError(str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise YamlError("nested too deeply") from error
    except YamlError:
        raise
    except (ValueError, TypeError, OverflowError) as error:  # dates and keys that are none
        raise YamlError(f"a value cannot be read: {error}") from error
    _require_bounded(content)
    return content


def _require_shallow(text: str) -> None:
    """Count levels event by event: building the values would recurse on every one."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise YamlError(f"nested more than {MAX_DEPTH} levels deep")


def _require_bounded(content: Any) -> None:
    """Walk all values as a reader would, level by level."""
    level, num_values = [content], 0
    for _ in range(MAX_DEPTH):
        containers = [value for value in level if isinstance(value, dict | list | set | tuple)]
        if not containers:
            return
        num_values += sum(len(value) for value in containers)
        if num_values > MAX_VALUES:
            raise YamlError(f"more than {MAX_VALUES} values, counting what anchors repeat")
        level = [
            inner
            for value in containers
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    raise YamlError(f"nested more than {MAX_DEPTH} levels deep")
