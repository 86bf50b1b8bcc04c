"""The smallest value that fits a JSON schema."""

from __future__ import annotations

import math
from typing import Any, cast

from gossamer.errors import ArgumentError

__all__ = ["SchemaError", "minimal_instance"]

_BUDGET = 10_000
_FORMATS = {
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "date-time": "2000-01-01T00:00:00Z",
    "duration": "PT0S",
    "email": "a@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


class SchemaError(ArgumentError):
    """No instance of the schema can be made; the message says why."""


def minimal_instance(schema: object) -> Any:
    """Make the smallest value that fits a JSON schema: required properties only, shortest lists, first choices.

    Understands type, properties, required, items, prefixItems, enum, const, default, $ref into the same document,
    anyOf, oneOf, allOf, the bounds of numbers, strings and lists, and the common string formats. `pattern` is not
    looked at. Visits 10,000 schema nodes at most.

    Raises:
        SchemaError: the schema is not an object, a `$ref` leads nowhere, or every instance would be infinite.
    """
    try:
        return _Maker(schema).make(schema, ())
    except SchemaError:
        raise
    except RecursionError:
        raise SchemaError("the schema is nested too deeply") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # A stranger's schema may hold anything anywhere; checking each keyword's type would double the maker.
        raise SchemaError(f"a keyword has a value that does not fit it ({error})") from None


class _Maker:
    def __init__(self, root: object) -> None:
        self.root = root
        self.left = _BUDGET

    def make(self, schema: object, open_refs: tuple[str, ...]) -> Any:
        self.left -= 1
        if self.left < 0:
            raise SchemaError(f"the schema needs more than {_BUDGET} nodes to make one instance")
        if schema is True:
            return None
        if not isinstance(schema, dict):
            raise SchemaError(f"a schema must be an object, not {schema!r:.80}")
        node = cast("dict[str, Any]", schema)
        if "$ref" in node:
            ref = node["$ref"]
            if ref in open_refs:
                raise SchemaError(f"every instance of {ref!r} contains another one without end")
            return self.make(self.resolve(ref), (*open_refs, ref))
        if "const" in node:
            return node["const"]
        if node.get("enum"):
            return node["enum"][0]
        if "default" in node:
            return node["default"]
        for key in ("anyOf", "oneOf"):
            if node.get(key):
                return self.first(node, key, open_refs)
        if node.get("allOf"):
            return self.make(self.merge(node), open_refs)
        kind = node.get("type")
        if isinstance(kind, list):
            kinds = cast("list[str]", kind)
            kind = next((each for each in kinds if each != "null"), "null")
        if kind is None:
            kind = "object" if "properties" in node else "array" if "items" in node else "string"
        return self.of_type(str(kind), node, open_refs)

    def resolve(self, ref: object) -> object:
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise SchemaError(f"$ref {ref!r:.80} does not point into the schema; use '#/$defs/NAME'")
        target = self.root
        for raw in ref[1:].split("/")[1:]:
            step = raw.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or step not in target:
                raise SchemaError(f"$ref {ref!r} leads nowhere: {step!r} is missing")
            target = cast("dict[str, object]", target)[step]
        return target

    def first(self, node: dict[str, Any], key: str, open_refs: tuple[str, ...]) -> Any:
        # A choice may be infinite (a tree's children) while a later one ends (null), so each is tried in turn.
        base = {name: value for name, value in node.items() if name != key}
        problem: SchemaError | None = None
        for choice in node[key]:
            try:
                return self.make(_joined(base, choice), open_refs)
            except SchemaError as error:
                problem = error
        raise problem or SchemaError(f"{key} has no choices")

    def merge(self, node: dict[str, Any]) -> dict[str, Any]:
        merged = {name: value for name, value in node.items() if name != "allOf"}
        properties: dict[str, Any] = dict(merged.get("properties", {}))
        required: list[str] = list(merged.get("required", ()))
        for part in node["allOf"]:
            if not isinstance(part, dict):
                raise SchemaError(f"allOf holds {part!r:.80}, which is not a schema")
            piece = cast("dict[str, Any]", part)
            if "$ref" in piece:
                target = self.resolve(piece["$ref"])
                piece = cast("dict[str, Any]", target if isinstance(target, dict) else {})
            merged.update(piece)
            properties.update(piece.get("properties", {}))
            required.extend(piece.get("required", ()))
        if properties:
            merged["properties"] = properties
            merged["required"] = required
        return merged

    def of_type(self, kind: str, node: dict[str, Any], open_refs: tuple[str, ...]) -> Any:
        if kind == "object":
            properties: dict[str, Any] = node.get("properties", {})
            required: list[Any] = node.get("required", ())
            if not all(isinstance(name, str) for name in required):
                raise SchemaError(f"required holds {required!r:.80}, which are not all names")
            return {name: self.make(properties.get(name, True), open_refs) for name in required}
        if kind == "array":
            prefix: list[Any] = node.get("prefixItems", [])
            least = max(
                int(node.get("minItems", 0)), min(len(prefix), int(node.get("maxItems", len(prefix))))
            )
            if least > self.left:
                raise SchemaError(f"minItems {least} is more than is made here")
            items = node.get("items", True)
            return [self.make(prefix[i] if i < len(prefix) else items, open_refs) for i in range(least)]
        if kind == "string":
            return _string(node)
        if kind == "integer":
            return _integer(node)
        if kind == "number":
            return _number(node)
        if kind == "boolean":
            return False
        if kind == "null":
            return None
        raise SchemaError(f"unknown type {kind!r:.80}")


def _joined(base: dict[str, Any], choice: object) -> object:
    """A choice together with what stands beside all of them."""
    if not isinstance(choice, dict):
        return choice
    chosen = cast("dict[str, Any]", choice)
    joined = {**base, **chosen}
    if "properties" in base or "required" in base:
        joined["properties"] = {**base.get("properties", {}), **chosen.get("properties", {})}
        joined["required"] = [*base.get("required", ()), *chosen.get("required", ())]
    return joined


def _string(node: dict[str, Any]) -> str:
    known = _FORMATS.get(node.get("format", ""))
    if known is not None:
        return known
    least, most = int(node.get("minLength", 0)), int(node.get("maxLength", 4))
    if least > _BUDGET:
        raise SchemaError(f"minLength {least} is more than is made here")
    return "text".ljust(least, ".")[: max(most, least)] if least > 4 else "text"[: max(most, least)]


def _integer(node: dict[str, Any]) -> int:
    low, high = node.get("minimum", -math.inf), node.get("maximum", math.inf)
    if (above := node.get("exclusiveMinimum")) is not None:
        low = max(low, math.floor(above) + 1)
    if (below := node.get("exclusiveMaximum")) is not None:
        high = min(high, math.ceil(below) - 1)
    step = node.get("multipleOf", 1)
    if step != int(step):
        # A multiple of 0.5 or of 1.5 that is whole is one of the step's numerator.
        step = float(step).as_integer_ratio()[0]
    return int(_nearest_to_zero(low, high, int(step)))


def _number(node: dict[str, Any]) -> float:
    low, high = node.get("minimum", -math.inf), node.get("maximum", math.inf)
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    step = node.get("multipleOf")
    if step:
        if above is not None:
            low = max(low, (math.floor(above / step) + 1) * step)
        if below is not None:
            high = min(high, (math.ceil(below / step) - 1) * step)
        return _nearest_to_zero(low, high, step)
    # Half way to the other end where it is near, else half a unit inside.
    far_high = high if below is None else min(high, below)
    far_low = low if above is None else max(low, above)
    inside = min(0.5, (far_high - far_low) / 2)
    if above is not None and above >= low:
        low = above + inside
    if below is not None and below <= high:
        high = below - inside
    value = _nearest_to_zero(low, high, 0)
    if inside < 0 or value in {above, below}:
        raise SchemaError(f"no number lies between {far_low} and {far_high}")
    return value


def _nearest_to_zero(low: float, high: float, step: float) -> float:
    """The number from `low` to `high` that is nearest to zero, a multiple of `step` unless that is 0."""
    value: float = 0
    if low > 0:
        value = math.ceil(low / step) * step if step else low
    elif high < 0:
        value = math.floor(high / step) * step if step else high
    if not low <= value <= high:
        raise SchemaError(
            f"no number lies between {low} and {high}" + (f" that is a multiple of {step}" if step else "")
        )
    return value
