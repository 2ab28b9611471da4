"""As much of JSON schema as metrics.schema.json uses."""

from __future__ import annotations

from typing import Any

_TYPES = {
    "object": dict, "array": list, "string": str, "null": type(None), "number": (int, float),
    "integer": int, "boolean": bool,
}  # fmt: skip


def require(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str = "$") -> None:
    """Assert that a value has the structure of a schema."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        chosen = next(
            option for option in schema["anyOf"] if isinstance(value, _TYPES[option["type"]])
        )
        return require(value, chosen, root, path)
    if "const" in schema:
        assert value == schema["const"], path
    if "enum" in schema:
        assert value in schema["enum"], path
    if "type" in schema:
        assert isinstance(value, _TYPES[schema["type"]]), (path, value)
        assert isinstance(value, bool) == (schema["type"] == "boolean"), path
    if "minimum" in schema:
        assert value >= schema["minimum"], path
    if isinstance(value, dict):
        _require_members(value, schema, root, path)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            require(item, schema["items"], root, f"{path}[{index}]")
    return None


def _require_members(
    value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], path: str
) -> None:
    properties = schema.get("properties", {})
    missing = set(schema.get("required", ())) - set(value)
    assert not missing, (path, missing)
    others = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in properties:
            require(item, properties[name], root, f"{path}.{name}")
        elif isinstance(others, dict):
            require(item, others, root, f"{path}.{name}")
        else:
            assert others, f"{path}.{name} is not in the schema"
