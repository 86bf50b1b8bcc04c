"""What OpenAI takes for a tool and for a strict schema; the same for each of its APIs.

The rules are those of https://platform.openai.com/docs/guides/structured-outputs and of the errors that break them.
"""

from __future__ import annotations

import re
from typing import Any, cast

from gossamer.simulator.openai_errors import bad

__all__ = ["check_format", "check_tool"]

_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_NAME_LENGTH = 64
_NOT_STRICT = ("oneOf", "allOf", "not", "default")


def check_tool(name: str, parameters: object, where: str, *, strict: bool) -> None:
    """Refuse a function that OpenAI refuses.

    Args:
        name: of the function.
        parameters: its schema, None where it has none.
        where: its place in the request, for example `tools[0].function`.
        strict: whether the model is to keep to the schema.
    """
    _check_name(name, f"{where}.name")
    if not parameters:
        return
    subject = f"Invalid schema for function '{name}'"
    schema = cast("dict[str, Any]", parameters) if isinstance(parameters, dict) else {}
    kind = schema.get("type")
    if kind != "object":
        raise bad(
            f"{subject}: schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'.",
            f"{where}.parameters",
            "invalid_function_parameters",
        )
    problem = _not_strict(schema, ()) if strict else ""
    if problem:
        raise bad(f"{subject}: {problem}", f"{where}.parameters", "invalid_function_parameters")


def check_format(name: str, schema: object, name_at: str, schema_at: str, *, strict: bool) -> None:
    """Refuse a format of the answer that OpenAI refuses.

    Args:
        name: of the format.
        schema: of the answer.
        name_at: the place of the name in the request.
        schema_at: the place that errors in the schema name.
        strict: whether the model is to keep to the schema.
    """
    _check_name(name, name_at)
    problem = _not_strict(schema, ()) if strict else ""
    if problem:
        raise bad(f"Invalid schema for response_format '{name}': {problem}", schema_at)


def _check_name(name: str, where: str) -> None:
    if not _NAME.fullmatch(name):
        raise bad(
            f"Invalid '{where}': string does not match pattern. Expected a string that matches the pattern "
            "'^[a-zA-Z0-9_-]+$'.",
            where,
            "invalid_value",
        )
    if len(name) > _NAME_LENGTH:
        raise bad(
            f"Invalid '{where}': string too long. Expected a string with maximum length {_NAME_LENGTH}, but got a "
            f"string with length {len(name)} instead.",
            where,
            "string_above_max_length",
        )


def _not_strict(node: object, context: tuple[str, ...]) -> str:
    """Why a schema cannot be kept to; empty where it can."""
    if not isinstance(node, dict):
        return ""
    schema = cast("dict[str, Any]", node)
    if not context and schema.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
    wrong = [name for name in _NOT_STRICT if name in schema]
    if wrong:
        return f"In context={context}, '{wrong[0]}' is not permitted."
    properties = schema.get("properties")
    if schema.get("type") == "object" or properties is not None:
        if schema.get("additionalProperties") is not False:
            return f"In context={context}, 'additionalProperties' is required to be supplied and to be false."
        required = schema.get("required")
        missing = [
            name for name in properties or () if not isinstance(required, list) or name not in required
        ]
        if missing:
            return (
                f"In context={context}, 'required' is required to be supplied and to be an array including every key "
                f"in properties. Missing '{missing[0]}'."
            )
    inner: list[tuple[tuple[str, ...], object]] = [((*context, "items"), schema.get("items"))]
    for name in ("properties", "$defs", "definitions"):
        each = schema.get(name)
        if isinstance(each, dict):
            fields = cast("dict[str, object]", each)
            inner += [((*context, name, key), value) for key, value in fields.items()]
    choices = schema.get("anyOf")
    if isinstance(choices, list):
        inner += [
            ((*context, "anyOf", str(index)), value)
            for index, value in enumerate(cast("list[object]", choices))
        ]
    return next((problem for at, value in inner if (problem := _not_strict(value, at))), "")
