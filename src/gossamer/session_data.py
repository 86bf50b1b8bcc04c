"""What of a session is plain data: the form in which it is exported, and its state with patches merged in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec

from gossamer.errors import ArgumentError, DecodeError
from gossamer.holding import WhenBusy
from gossamer.limits import Limits
from gossamer.records import SCHEMA_VERSION, Record
from gossamer.schema import is_object

__all__ = ["ExportedSession", "as_patch", "merge_state"]


class ExportedSession(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A session as JSON; see `Session` for the fields.

    Raises:
        DecodeError: written with a newer schema.
    """

    schema: int
    id: str
    window: int
    when_busy: WhenBusy
    max_waiting: int
    journal: list[Record]
    limits: Limits | None = None
    state: Any = None
    children: dict[str, ExportedSession] = {}
    offload: dict[str, str] = {}

    def initial_state(self, example: Any) -> Any:
        """Give the state that the session began with, in the type of an example where it is not a dict."""
        if self.schema > SCHEMA_VERSION:
            raise DecodeError(
                f"this session has schema version {self.schema}, newer than {SCHEMA_VERSION}; upgrade Gossamer"
            )
        return self.state if example is None else msgspec.convert(self.state, example.__class__)


def as_patch(fields: dict[str, Any]) -> dict[str, Any]:
    """Give a patch of a state as the JSON data as which it is kept, so that it is the same before and after.

    Raises:
        ArgumentError: a value has no JSON form; the message names its field.
    """
    try:
        return msgspec.json.decode(msgspec.json.encode(fields))
    except (TypeError, ValueError, OverflowError, RecursionError):
        for name, value in fields.items():
            try:
                msgspec.json.encode(value)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise ArgumentError(
                    f"the state keeps JSON data, and {name!r} has no such form: {error}"
                ) from error
        raise


def merge_state(state: Any, patch: dict[str, Any], merge: Callable[[Any, dict[str, Any]], Any] | None) -> Any:
    """Give the state with a patch merged in.

    Args:
        state: the state; stays as it is.
        patch: fields and their new values, as JSON data.
        merge: makes the new state; by default the patch's fields replace the state's.

    Raises:
        ArgumentError: a state of a type that needs a merge rule.
    """
    if merge is not None:
        return merge(state, patch)
    if state is None or is_object(state):
        return {**(state or {}), **patch}
    if isinstance(state, msgspec.Struct) or dataclasses.is_dataclass(state):
        return msgspec.convert({**msgspec.to_builtins(state), **patch}, type(state))
    raise ArgumentError(f"a state of type {type(state).__name__} needs a merge rule: Session(merge=…)")
