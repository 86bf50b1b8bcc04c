"""Arguments and answers against the JSON schemas of an MCP server, before anything is sent."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from time import perf_counter
from typing import Any

import msgspec
import referencing
from jsonschema import exceptions, validators
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator
from referencing.exceptions import Unresolvable

from gossamer.schema import is_object

__all__ = ["MAX_SCHEMA_BYTES", "SchemaError", "checker", "decoder"]

# How much a check by a schema with references, or by a large one, may do: keywords looked at, and seconds. What is more
# is left to the server: references to references double, and would hold up the event loop.
_MOST_STEPS, _MOST_SECONDS = 10_000, 0.25

# A schema of so many bytes needs no such bound, if nothing in it refers to anything.
_SMALL = 4_096

# A schema larger than this is not shown to a model: it would be in every request.
MAX_SCHEMA_BYTES = 256 * 1024

_MOST_WORDS = 500

# Neither has types.
_extend: Any = getattr(validators, "extend")  # noqa: B009
_best_match: Any = getattr(exceptions, "best_match")  # noqa: B009
_NOTHING_ELSE: Any = getattr(referencing, "Registry")()  # noqa: B009


class SchemaError(ValueError):
    """A schema is none, or is too large."""


class _TooMuchError(Exception):
    """A check has done as much as it may."""


class _Effort:
    """What the check under way may still do."""

    __slots__ = ("_steps", "_until")

    def __init__(self) -> None:
        self._steps = _MOST_STEPS
        self._until = perf_counter() + _MOST_SECONDS

    def spend(self) -> None:
        self._steps -= 1
        if self._steps < 0 or perf_counter() > self._until:
            raise _TooMuchError


_effort: ContextVar[_Effort] = ContextVar("gossamer_mcp_effort")


def checker(schema: Mapping[str, Any]) -> Callable[[Any], str | None]:
    """Make a function that tells what is wrong with a value, or None where it fits.

    References stay within the schema: nothing is fetched. Patterns are left to the server, for a regular expression
    of its making could hold up the event loop.

    Raises:
        SchemaError: the schema is not valid, or larger than 256 KiB.
    """
    try:
        encoded = msgspec.json.encode(schema)
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"it is not JSON: {error}") from error
    if len(encoded) > MAX_SCHEMA_BYTES:
        raise SchemaError(f"it has {len(encoded)} bytes; {MAX_SCHEMA_BYTES} are the most")
    kind: Any = validators.validator_for(schema, default=Draft202012Validator)  # pyright: ignore[reportUnknownMemberType]
    try:
        kind.check_schema(schema)
    except (exceptions.SchemaError, Unresolvable, RecursionError) as error:
        raise SchemaError(str(getattr(error, "message", error))[:_MOST_WORDS]) from error
    bounded = len(encoded) > _SMALL or b'"$ref":' in encoded or b'Ref":' in encoded
    validator: Validator = _without_patterns(kind, bounded)(schema, registry=_NOTHING_ELSE)

    def check(value: Any) -> str | None:
        if bounded:
            _effort.set(_Effort())
        try:
            if validator.is_valid(value):
                return None
            error: Any = _best_match(validator.iter_errors(value))
        except (Unresolvable, RecursionError, ValueError, ArithmeticError, _TooMuchError):
            return None  # it refers to what is not there, or is too much to reckon: the server says what it takes
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
def _without_patterns(kind: Any, bounded: bool) -> Any:
    """Make a validator that matches nothing against regular expressions, and where it is bounded spends its effort."""
    closed: Any = kind.VALIDATORS.get("additionalProperties", _nothing)

    def additional(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        return () if "patternProperties" in schema else closed(validator, value, instance, schema)

    changed = {
        "pattern": _nothing,
        "patternProperties": _nothing,
        "additionalProperties": additional,
        "unevaluatedProperties": _nothing,
        "unevaluatedItems": _nothing,
    }
    if bounded:
        changed = {name: _bounded(one) for name, one in {**kind.VALIDATORS, **changed}.items()}
    return _extend(kind, changed)


def _bounded(look_at: Callable[..., Any]) -> Callable[..., Any]:
    """Let a keyword be looked at as long as the check under way may."""

    def bounded(*inside: Any) -> Any:
        _effort.get().spend()
        return look_at(*inside)

    return bounded


def _nothing(*_: Any) -> tuple[()]:
    """Find nothing wrong."""
    return ()
