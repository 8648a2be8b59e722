"""Whether a value follows a JSON schema, as far as models go wrong: types, required keys, choices, and what they hold.

`jsonschema` knows the whole standard and is no dependency of ours. What this leaves out, it takes to hold.
"""

from collections.abc import Callable, Mapping
from typing import Any

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, Mapping),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0,
}
_DEEPEST = 20


def violation(value: Any, schema: Any) -> str | None:
    """Say where a value goes against a schema, or None.

    Read are `type`, `enum`, `const`, `required`, `properties`, `items`, `anyOf`, `oneOf`, `allOf`, and `$ref` within
    the schema, down to 20 levels.
    """
    return _violation(value, schema, schema, "", _DEEPEST)


def _violation(value: Any, schema: Any, root: Any, path: str, levels: int) -> str | None:
    if not isinstance(schema, Mapping) or levels == 0:
        return None
    if "$ref" in schema:
        return _violation(value, _resolved(str(schema["$ref"]), root), root, path, levels - 1)
    own = _own_violation(value, schema, path)
    return (
        own
        or _choice_violation(value, schema, root, path, levels)
        or _inner_violation(value, schema, root, path, levels)
    )


def _resolved(reference: str, root: Any) -> Any:
    """Return what a reference such as `#/$defs/Item` names, None where it names nothing here."""
    node = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _own_violation(value: Any, schema: Mapping[str, Any], path: str) -> str | None:
    where = f"`{path}`" if path else "the value"
    kinds = _names([schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type"))
    if kinds and not any(_TYPES.get(kind, _anything)(value) for kind in kinds):
        return f"{where} is not of type {' or '.join(kinds)}"
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(allowed, list) and value not in allowed:
        return f"{where} is none of the allowed values"
    return None


def _anything(value: Any) -> bool:
    return True


def _choice_violation(value: Any, schema: Mapping[str, Any], root: Any, path: str, levels: int) -> str | None:
    for key in ("anyOf", "oneOf"):
        faults = [_violation(value, each, root, path, levels - 1) for each in _list(schema.get(key))]
        if faults and all(faults):
            return faults[0]
    faults = [_violation(value, each, root, path, levels - 1) for each in _list(schema.get("allOf"))]
    return next(filter(None, faults), None)


def _inner_violation(value: Any, schema: Mapping[str, Any], root: Any, path: str, levels: int) -> str | None:
    if isinstance(value, Mapping):
        return _missing(value, schema, path) or _part_violation(value, schema, root, path, levels)
    if isinstance(value, list) and "items" in schema:
        faults = (_violation(each, schema["items"], root, f"{path}[{n}]", levels - 1) for n, each in enumerate(value))
        return next(filter(None, faults), None)
    return None


def _missing(value: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> str | None:
    absent = [name for name in _names(schema.get("required")) if name not in value]
    return f"`{_joined(path, absent[0])}` is missing" if absent else None


def _part_violation(
    value: Mapping[str, Any], schema: Mapping[str, Any], root: Any, path: str, levels: int
) -> str | None:
    properties = schema.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    named = ((name, part) for name, part in value.items() if name in known)
    faults = (_violation(part, known[name], root, _joined(path, name), levels - 1) for name, part in named)
    return next(filter(None, faults), None)


def _joined(path: str, name: Any) -> str:
    return f"{path}.{name}" if path else str(name)


def _names(value: Any) -> list[str]:
    return [name for name in _list(value) if isinstance(name, str)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
