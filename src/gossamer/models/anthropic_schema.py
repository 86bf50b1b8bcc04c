"""What Anthropic takes of JSON schema: the shape, but no bounds, no free keys, nothing that is part of itself.

Limits: https://platform.claude.com/docs/en/build-with-claude/structured-outputs. What is left out as a rule is told in
words, and the answer is checked against the whole type in any case.
"""

from __future__ import annotations

import functools
import graphlib
from typing import Any

from gossamer.schema import OutputSchema, is_array, is_object

__all__ = ["native_schema"]

_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
)
_KEPT = frozenset(("enum", "const", "type", "title", "required"))
_KNOWN = _KEPT | {
    *(
        "$ref",
        "$defs",
        "anyOf",
        "oneOf",
        "allOf",
        "description",
        "properties",
        "additionalProperties",
        "items",
    ),
    *("default", "discriminator"),
}


@functools.lru_cache(maxsize=256)
def native_schema(schema: OutputSchema) -> dict[str, Any] | None:
    """Express a schema in what the API takes; None where it cannot be.

    O(size of the schema) at the first call for each, then one look-up.
    """
    uses: dict[str, set[str]] = {}
    try:
        plain = _plain(schema.schema, uses.setdefault("", set()))
        for name, definition in schema.schema.get("$defs", {}).items():
            plain.setdefault("$defs", {})[name] = _plain(definition, uses.setdefault(name, set()))
        graphlib.TopologicalSorter(uses).prepare()
    except (_NotExpressibleError, graphlib.CycleError):
        return None
    return plain


class _NotExpressibleError(ValueError):
    """The schema says what the API cannot take, and what its meaning hangs on."""


def _plain(schema: Any, uses: set[str]) -> dict[str, Any]:
    """Rewrite a schema, and note the definitions that it uses."""
    if not is_object(schema):
        raise _NotExpressibleError
    if "$ref" in schema:
        uses.add(str(schema["$ref"]).rpartition("/")[2])
        return {"$ref": schema["$ref"]}
    plain: dict[str, Any] = {name: value for name, value in schema.items() if name in _KEPT}
    for name, ours in (("anyOf", "anyOf"), ("oneOf", "anyOf"), ("allOf", "allOf")):
        if name in schema:
            plain[ours] = [_plain(item, uses) for item in schema[name]]
    kind = schema.get("type")
    anything = not plain.keys() & {"type", "enum", "const", "anyOf", "allOf"}
    if anything or is_array(kind) or "prefixItems" in schema:
        raise _NotExpressibleError
    if kind == "object":
        if schema.get("additionalProperties") is not False:
            raise _NotExpressibleError
        properties = schema.get("properties", {}).items()
        plain["properties"] = {name: _plain(item, uses) for name, item in properties}
        plain["additionalProperties"] = False
    elif kind == "array":
        plain["items"] = _plain(schema.get("items"), uses)
    if schema.get("format") in _FORMATS:
        plain["format"] = schema["format"]
    told = [f"{name}: {value}" for name, value in schema.items() if name not in _KNOWN and name not in plain]
    words = [schema["description"]] if "description" in schema else []
    if told:
        words.append(f"{{{', '.join(told)}}}")
    return {**plain, "description": "\n".join(words)} if words else plain
