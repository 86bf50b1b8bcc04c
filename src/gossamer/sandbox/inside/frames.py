"""How host and worker speak: a frame is two lengths, JSON, and bytes behind it. Used on both sides, so stdlib only."""

from __future__ import annotations

import base64
import json
import math
import os
import struct
from typing import Any

__all__ = [
    "HEAD",
    "Channel",
    "NotPlainError",
    "costs_too_much",
    "pack",
    "plain",
    "receive",
    "restored",
]

# The lengths of the JSON and of the bytes behind it.
HEAD = struct.Struct(">II")

# How many values a frame may have, those in others included and lists and dicts counted twice: `[[],[],…` takes some thirty
# times its bytes once decoded. And what may have long numbers in it, which take long to be read.
_MOST_VALUES = 250_000
_MOST_WITH_LONG_NUMBERS = 100_000
_DIGITS, _LONG_NUMBER = bytes.maketrans(b"123456789", b"000000000"), b"0" * 1000

_BYTES = "\0bytes"
_FLOAT = "\0float"
_MOST_LEVELS = 100


class Channel:
    """A worker's way to speak with the host: two pipes.

    Not a socket: through one a worker could pass files to the host that take long to be closed, as a connection that
    lingers, and the host would close them.

    Args:
        reading: what the host says.
        writing: what it hears.
    """

    __slots__ = ("_reading", "_writing")

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing

    def fileno(self) -> int:
        """Give what can be read when the host has said something."""
        return self._reading

    def read(self, most: int) -> bytes:
        """Wait for some bytes; none at the end."""
        return os.read(self._reading, most)

    def write(self, data: bytes) -> None:
        """Write them all."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._writing, rest) :]

    def close(self) -> None:
        """Close both. Twice is once: a child that was forked closes it, and so do its children."""
        if self._reading >= 0:
            os.close(self._reading)
            os.close(self._writing)
            self._reading = self._writing = -1


class NotPlainError(Exception):
    """A value is no plain data."""


def pack(message: dict[str, Any], *blobs: bytes) -> bytes:
    """Give a frame.

    Args:
        message: JSON data; its key `blobs` will hold the lengths of the blobs.
        blobs: bytes that go along.
    """
    if blobs:
        message["blobs"] = [len(blob) for blob in blobs]
    text = json.dumps(message, separators=(",", ":")).encode()
    return b"".join((HEAD.pack(len(text), sum(map(len, blobs))), text, *blobs))


def receive(channel: Channel) -> tuple[dict[str, Any], list[bytes]] | None:
    """Read a frame of the host's; None at the end."""
    head = _read(channel, HEAD.size)
    if head is None:
        return None
    text_length, blob_length = HEAD.unpack(head)
    text, rest = _read(channel, text_length), _read(channel, blob_length)
    if text is None or rest is None:
        return None
    message: dict[str, Any] = json.loads(text)
    blobs: list[bytes] = []
    place = 0
    for length in message.get("blobs", ()):
        blobs.append(rest[place : place + length])
        place += length
    return message, blobs


def _read(channel: Channel, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        piece = channel.read(min(size - len(data), 1 << 20))
        if not piece:
            return None
        data += piece
    return bytes(data)


def costs_too_much(text: bytes) -> bool:
    """Tell whether JSON would cost out of all proportion to be decoded, before it is; O(its bytes).

    Args:
        text: JSON, or whatever somebody says is some.
    """
    if _may_cost_too_much(text, len(text)):  # commas, brackets and digits in texts are looked at as well
        bare = text.replace(b"\\\\", b"").replace(b'\\"', b"")
        if bare.count(b'"') > 4 * _MOST_VALUES:  # two for each text, and each value may have a key
            return True
        return _may_cost_too_much(b" ".join(bare.split(b'"')[::2]), len(text))
    return False


def _may_cost_too_much(text: bytes, size: int) -> bool:
    return _values_at_most(text) > _MOST_VALUES or (
        size > _MOST_WITH_LONG_NUMBERS and _LONG_NUMBER in text.translate(_DIGITS)
    )


def _values_at_most(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def plain(value: Any, level: int = 0) -> Any:
    """Give plain data as JSON can hold it; tuples become lists.

    Raises:
        NotPlainError: it is something else, or more than 100 levels deep.
    """
    kind = value.__class__
    if value is None or kind is bool:
        return value
    if kind is str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise NotPlainError from None
        return value
    if kind is int:
        if value.bit_length() > 10_000:  # Python itself writes out no longer ones
            raise NotPlainError
        return value
    if kind is float:
        return value if math.isfinite(value) else {_FLOAT: repr(value)}
    if kind is bytes:
        return {_BYTES: base64.b64encode(value).decode()}
    if level >= _MOST_LEVELS:
        raise NotPlainError
    if kind is list or kind is tuple:
        return [plain(one, level + 1) for one in value]
    if kind is dict:
        made: dict[str, Any] = {}
        for key, one in value.items():
            if key.__class__ is not str or key[:1] == "\0":
                raise NotPlainError
            made[plain(key)] = plain(one, level + 1)
        return made
    raise NotPlainError


def restored(data: Any) -> Any:
    """Give back what `plain` was given, out of JSON that anybody may have written.

    Raises:
        ValueError: a mark is there with something else in it.
    """
    if data.__class__ is list:
        return [restored(one) for one in data]
    if data.__class__ is dict:
        if len(data) == 1:
            if _BYTES in data:
                return base64.b64decode(data[_BYTES], validate=True)
            if _FLOAT in data:
                return float(data[_FLOAT])
        return {key: restored(one) for key, one in data.items()}
    return data
