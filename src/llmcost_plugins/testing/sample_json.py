"""Makes up a JSON value that follows a JSON schema."""

import math
import re
from typing import Any

_MAX_DEPTH = 8
_HINT_CHARACTERS = 80
_FORMATS = {
    "date": "2026-03-17",
    "date-time": "2026-03-17T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "reader@example.com",
    "uri": "https://example.com/",
    "uuid": "3f2b8c1e-5a4d-4e6f-8b7a-9c0d1e2f3a4b",
    "ipv4": "192.0.2.1",
}


def sample(schema: dict[str, Any], hint: str = "") -> Any:
    """Return a value for `schema`: texts repeat the start of `hint`, numbers are its first number if that fits."""
    return _Sampler(schema, hint).value(schema, 0)


class _Sampler:
    def __init__(self, root: dict[str, Any], hint: str) -> None:
        number = re.search(r"-?\d+(?:\.\d+)?", hint)
        self._root = root
        self._text = hint[:_HINT_CHARACTERS] or "sample"
        self._numbers = [float(number[0])] if number else []

    def value(self, schema: Any, depth: int) -> Any:
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        kind = _kind(schema)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind in ("integer", "number"):
            return self._numeric(schema, whole=kind == "integer")
        if kind == "boolean":
            return True
        return None if kind == "null" else self._string(schema)

    def _resolved(self, schema: Any, depth: int) -> dict[str, Any]:
        """Follow references, alternatives and combinations to a schema with a type."""
        found = dict(schema) if isinstance(schema, dict) else {}
        for _ in range(_MAX_DEPTH):
            if "$ref" in found:
                found = {**self._referenced(found.pop("$ref")), **found}
            elif "anyOf" in found or "oneOf" in found:
                options = found.pop("anyOf", None) or found.pop("oneOf", None) or [{}]
                found = {**found, **self._option(options, depth)}
            elif "allOf" in found:
                for part in found.pop("allOf"):
                    found = _merged(found, self._resolved(part, depth))
            else:
                break
        return found

    def _referenced(self, reference: str) -> dict[str, Any]:
        found: Any = self._root
        for name in filter(None, reference.removeprefix("#").split("/")):
            found = found.get(name.replace("~1", "/").replace("~0", "~"), {})
        return dict(found)

    def _option(self, options: list[dict[str, Any]], depth: int) -> dict[str, Any]:
        """Choose the first alternative that is a value; deep down, null ends a recursion."""
        wanted = [option for option in options if (option.get("type") == "null") == (depth >= _MAX_DEPTH)]
        return (wanted or options)[0]

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties: dict[str, Any] = schema.get("properties", {})
        required = schema.get("required", [])
        names = list(properties) if depth < _MAX_DEPTH // 2 else [name for name in properties if name in required]
        if depth >= 2 * _MAX_DEPTH:
            return {}
        return {name: self.value(properties[name], depth + 1) for name in names}

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        if prefix := schema.get("prefixItems"):
            return [self.value(item, depth + 1) for item in prefix]
        least = schema.get("minItems", 0)
        count = max(least, min(1, schema.get("maxItems", 1))) if depth < _MAX_DEPTH // 2 else least
        return [self.value(schema.get("items", {}), depth + 1) for _ in range(count)]

    def _numeric(self, schema: dict[str, Any], *, whole: bool) -> float:
        low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
        high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
        candidates = [*self._numbers, 1.0, low, low + 1, high, high - 1, (low + high) / 2]
        chosen = next((number for number in candidates if _fits(number, schema, whole=whole)), 0.0)
        return int(chosen) if whole else chosen

    def _string(self, schema: dict[str, Any]) -> str:
        text = _FORMATS.get(schema.get("format", ""), self._text)
        return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]


def _fits(number: float, schema: dict[str, Any], *, whole: bool) -> bool:
    if not math.isfinite(number) or (whole and number != int(number)):
        return False
    inside = schema.get("minimum", number) <= number <= schema.get("maximum", number)
    within = schema.get("exclusiveMinimum", -math.inf) < number < schema.get("exclusiveMaximum", math.inf)
    return bool(inside and within and number % schema.get("multipleOf", number or 1) == 0)


def _kind(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((option for option in kind if option != "null"), "null")
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(kind)


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    merged = {**first, **second}
    if "properties" in first and "properties" in second:
        merged["properties"] = {**first["properties"], **second["properties"]}
        merged["required"] = [*first.get("required", []), *second.get("required", [])]
    return merged
