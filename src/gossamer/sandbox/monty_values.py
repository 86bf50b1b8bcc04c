"""Values that come out of Monty: plain data within a size, and the words for what is shown of any value.

A value may hold the same list a million times over, or go a million levels deep, and still be small in the sandbox. So
both count what they have come to, and stop.
"""

from __future__ import annotations

from typing import Any

__all__ = ["MOST_SHOWN", "NotPlainError", "TooLargeError", "plain", "shown"]

# How deep plain data goes, and how many bits its integers have: beyond, others that read it would fail.
_MOST_LEVELS = 100
_MOST_BITS = 10_000

# Characters of `shown`.
MOST_SHOWN = 100_000

# What lists and dicts count in bytes beside what is in them, and what each entry counts: about what Python takes.
_CONTAINER = 64
_ENTRY = 8

_BIG = 1 << 64

_SCALARS = frozenset((type(None), bool, float))
_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}


class NotPlainError(Exception):
    """A value is no plain data."""


class TooLargeError(Exception):
    """A value has more bytes than it may have."""


def plain(value: Any, room: int) -> tuple[Any, int]:
    """Give plain data: None, bool, int, float, text, bytes, and lists and dicts of them; tuples become lists.

    Args:
        value: any value.
        room: how many bytes it may have, about as Python counts them.

    Returns:
        The data, and how much of the room it leaves.

    Raises:
        NotPlainError: it is something else, or more than 100 levels deep.
        TooLargeError: it has more bytes.
    """
    return _plain(value, room, 0)


def _plain(value: Any, room: int, level: int) -> tuple[Any, int]:
    """Give plain data, and what is left of the room."""
    kind: type = value.__class__
    if kind is list or kind is tuple:
        return _plain_list(value, room, level)
    if kind is dict:
        return _plain_dict(value, room, level)
    room -= _size(value, kind)
    if room < 0:
        raise TooLargeError
    return value, room


def _size(value: Any, kind: type) -> int:
    if kind in _SCALARS:
        return _ENTRY
    if kind is int:
        bits = value.bit_length()
        if bits > _MOST_BITS:
            raise NotPlainError
        return _ENTRY + bits // 8
    if kind is str or kind is bytes:
        return _ENTRY + len(value)
    raise NotPlainError


def _plain_list(value: Any, room: int, level: int) -> tuple[list[Any], int]:
    if level >= _MOST_LEVELS:
        raise NotPlainError
    room -= _CONTAINER + _ENTRY * len(value)
    if room < 0:
        raise TooLargeError
    kinds = set(map(type, value))  # long lists of numbers or texts are looked at in C
    if kinds <= _SCALARS or (kinds == {int} and min(value) > -_BIG and max(value) < _BIG):
        return list(value), room
    if kinds == {str}:
        room -= sum(map(len, value))
        if room < 0:
            raise TooLargeError
        return list(value), room
    made: list[Any] = []
    for one in value:
        item, room = _plain(one, room, level + 1)
        made.append(item)
    return made, room


def _plain_dict(value: dict[Any, Any], room: int, level: int) -> tuple[dict[str, Any], int]:
    if level >= _MOST_LEVELS:
        raise NotPlainError
    room -= _CONTAINER + 2 * _ENTRY * len(value)
    if room < 0:
        raise TooLargeError
    made: dict[str, Any] = {}
    for key, one in value.items():
        if type(key) is not str:
            raise NotPlainError
        room -= len(key)
        made[key], room = _plain(one, room, level + 1)
    return made, room


def shown(value: Any) -> str:
    """Show a value as Python would, `repr`; a long one is cut, a deep one too, and says so.

    Args:
        value: what came out of Monty.

    Returns:
        Empty for None.
    """
    if value is None:
        return ""
    pieces: list[str] = []
    room = _show(value, pieces, MOST_SHOWN, 0)
    text = "".join(pieces)
    return text if room > 0 else f"{text[:MOST_SHOWN]} …"


def _show(value: Any, pieces: list[str], room: int, level: int) -> int:
    """Add the words for a value, and give what is left of the room."""
    kind: type = value.__class__
    if level >= _MOST_LEVELS and (kind in _BRACKETS or issubclass(kind, dict | tuple)):
        return _put("…", pieces, room)
    if kind is dict:
        return _show_dict(value, pieces, room, level)
    if kind in _BRACKETS:
        return _show_items(value, kind, pieces, room, level)
    if tuple in kind.__mro__:  # one with names
        room = _put(kind.__name__[:100], pieces, room)
        return _show_items(value[:], tuple, pieces, room, level + 1)
    return _put(_word(value, kind, room), pieces, room)


def _show_items(value: Any, kind: type, pieces: list[str], room: int, level: int) -> int:
    if not value and kind in (set, frozenset):
        return _put(f"{kind.__name__}()", pieces, room)
    opening, closing = _BRACKETS[kind]
    room = _put(opening, pieces, room)
    first = True
    for one in value:
        if room <= 0:
            return room
        if not first:
            room = _put(", ", pieces, room)
        first = False
        room = _show(one, pieces, room, level + 1)
    return _put(f",{closing}" if kind is tuple and len(value) == 1 else closing, pieces, room)


def _show_dict(value: dict[Any, Any], pieces: list[str], room: int, level: int) -> int:
    room = _put("{", pieces, room)
    first = True
    for key, one in value.items():
        if room <= 0:
            return room
        if not first:
            room = _put(", ", pieces, room)
        first = False
        room = _show(key, pieces, room, level + 1)
        room = _put(": ", pieces, room)
        room = _show(one, pieces, room, level + 1)
    return _put("}", pieces, room)


def _word(value: Any, kind: type, room: int) -> str:
    if kind is str or kind is bytes:
        return repr(value if len(value) <= room else value[:room])
    if kind is int and value.bit_length() > _MOST_BITS:
        return f"<int of {value.bit_length():,} bits>"
    if hasattr(value, "attributes"):  # an instance or a class of the code's own, with whatever in it
        return f"<{str(value.name)[:100]} object>"
    try:
        return repr(value)
    except (RecursionError, ValueError) as error:
        return f"<{kind.__name__}: {type(error).__name__}>"


def _put(text: str, pieces: list[str], room: int) -> int:
    pieces.append(text)
    return room - len(text)
