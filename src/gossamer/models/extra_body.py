"""What a user adds to requests, `ModelSettings.extra_body`: fields laid over ours, tools put behind ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gossamer.errors import ArgumentError
from gossamer.schema import is_array, is_object

__all__ = ["lay_over", "with_tools"]

_encode = msgspec.json.Encoder().encode


def lay_over(fields: dict[str, Any], extra: Mapping[str, Any] | None) -> list[Any]:
    """Lay fields of the user over those of a request; what both hold as objects or arrays is put together.

    Args:
        fields: the request's, without its tools; they are changed.
        extra: the user's, or None.

    Returns:
        The user's own tools, to go behind the request's.

    Raises:
        ArgumentError: the user's tools are no list.
    """
    tools: Any = None
    for name, theirs in (extra or {}).items():
        ours = fields.get(name)
        if name == "tools":
            tools = theirs
        elif is_object(ours) and is_object(theirs):
            fields[name] = {**ours, **theirs}
        elif is_array(ours) and is_array(theirs):
            fields[name] = [*ours, *theirs]
        else:
            fields[name] = theirs
    if tools is not None and not is_array(tools):
        raise ArgumentError(f"tools in extra_body must be a list, not {type(tools).__name__}")
    return tools or []


def with_tools(encoded: bytes, more: list[Any]) -> bytes:
    """Put the user's own tools behind those of a request, an encoded list. O(1) where there are none."""
    if not more:
        return encoded
    if encoded == b"[]":
        return _encode(more)
    return encoded[:-1] + b"," + _encode(more)[1:]
