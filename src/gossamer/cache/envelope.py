"""How values lie in Redis: plain data in msgpack, behind a header that says that they are ours."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gossamer.errors import ArgumentError, CacheValueError

__all__ = [
    "FOREIGN",
    "MAGIC",
    "MISSING",
    "PLAIN",
    "encode_name",
    "encode_value",
    "open_envelope",
    "plain_copy",
]

# Marks a value as ours; the number is raised when the form changes, and older values are then overwritten.
MAGIC: Final = b"GSM\x01"

# A value that depends on nothing: the mark, and the length of what follows, which is the versions of the namespace
# and the tags that it was stored under.
PLAIN: Final = MAGIC + b"\x00\x00"

# Longer names are replaced by their hash: Redis compares and sends a key with every command.
_MAX_NAME_BYTES = 512


class _Mark:
    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


MISSING: Final = _Mark("MISSING")
FOREIGN: Final = _Mark("FOREIGN")

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def encode_name(name: str) -> bytes:
    """Give a key's or a tag's form in Redis: its bytes, or a hash of them where they are many.

    Raises:
        ArgumentError: it is not text.
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users' arguments
        raise ArgumentError(f"keys and tags are text, not {type(name).__name__}: {name!r:.100}")
    data = name.encode("utf-8", "surrogatepass")
    if len(data) <= _MAX_NAME_BYTES:
        return b"=" + data
    from hashlib import sha256

    return b"#" + sha256(data).hexdigest().encode()


def encode_value(value: Any) -> bytes:
    """Encode a value.

    Raises:
        CacheValueError: it has no form in msgpack.
    """
    try:
        return _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CacheValueError(
            f"a {type(value).__name__} cannot be cached: {error}; give plain data, a msgspec.Struct or a dataclass"
        ) from error


def plain_copy(value: Any, encoded: bytes) -> Any:
    """Give a value as it comes out of Redis, so that it is the same wherever it is found."""
    return value if type(value) in _SCALARS else _decode(encoded)


def open_envelope(raw: Any) -> Any:
    """Give the value in an envelope; `FOREIGN` where it is not one of ours, or damaged."""
    if type(raw) is not bytes or raw[:4] != MAGIC or len(raw) < 6:
        return FOREIGN
    try:
        return _decode(memoryview(raw)[6 + int.from_bytes(raw[4:6], "big") :])
    except (msgspec.DecodeError, RecursionError):
        return FOREIGN
