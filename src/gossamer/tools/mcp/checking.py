"""Arguments and answers against the JSON schemas of an MCP server, before anything is sent."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import referencing
from jsonschema import exceptions, validators
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator
from referencing.exceptions import Unresolvable

from gossamer.schema import is_object

__all__ = ["MAX_SCHEMA_BYTES", "SchemaError", "checker", "decoder"]

# A schema larger than this is not shown to a model: it would be in every request.
MAX_SCHEMA_BYTES = 256 * 1024

_MOST_WORDS = 500

# Neither has types.
_extend: Any = getattr(validators, "extend")  # noqa: B009
_best_match: Any = getattr(exceptions, "best_match")  # noqa: B009
_NOTHING_ELSE: Any = getattr(referencing, "Registry")()  # noqa: B009


class SchemaError(ValueError):
    """A schema is none, or is too large."""


def checker(schema: Mapping[str, Any]) -> Callable[[Any], str | None]:
    """Make a function that tells what is wrong with a value, or None where it fits.

    References stay within the schema: nothing is fetched. Patterns are left to the server, for a regular expression
    of its making could hold up the event loop.

    Raises:
        SchemaError: the schema is not valid, or larger than 256 KiB.
    """
    try:
        size = len(msgspec.json.encode(schema))
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"it is not JSON: {error}") from error
    if size > MAX_SCHEMA_BYTES:
        raise SchemaError(f"it has {size} bytes; {MAX_SCHEMA_BYTES} are the most")
    kind: Any = validators.validator_for(schema, default=Draft202012Validator)  # pyright: ignore[reportUnknownMemberType]
    try:
        kind.check_schema(schema)
    except (exceptions.SchemaError, Unresolvable, RecursionError) as error:
        raise SchemaError(str(getattr(error, "message", error))[:_MOST_WORDS]) from error
    validator: Validator = _without_patterns(kind)(schema, registry=_NOTHING_ELSE)

    def check(value: Any) -> str | None:
        try:
            if validator.is_valid(value):
                return None
            error: Any = _best_match(validator.iter_errors(value))
        except (Unresolvable, RecursionError):
            return None  # the schema refers to what is not there: the server has to say what it takes
        if error is None:
            return None
        where: str = error.json_path
        words: str = error.message
        if len(words) > _MOST_WORDS:
            words = f"{words[:_MOST_WORDS]}…"
        return words if where == "$" else f"{words} - at `{where}`"

    return check


def decoder(check: Callable[[Any], str | None]) -> Callable[[str], dict[str, Any]]:
    """Make the `decode` of a tool: JSON text to arguments that fit its schema."""

    def decode(text: str) -> dict[str, Any]:
        arguments: Any = msgspec.json.decode(text) if text else {}
        if not is_object(arguments):
            raise msgspec.ValidationError(f"Expected `object`, got `{type(arguments).__name__}`")
        problem = check(arguments)
        if problem is not None:
            raise msgspec.ValidationError(problem)
        return arguments

    return decode


@functools.cache
def _without_patterns(kind: Any) -> Any:
    """Make a validator that matches nothing against regular expressions."""
    closed = kind.VALIDATORS.get("additionalProperties", _nothing)

    def additional(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        return () if "patternProperties" in schema else closed(validator, value, instance, schema)

    return _extend(
        kind,
        {
            "pattern": _nothing,
            "patternProperties": _nothing,
            "additionalProperties": additional,
            "unevaluatedProperties": _nothing,
        },
    )


def _nothing(*_: Any) -> tuple[()]:
    """Find nothing wrong."""
    return ()
