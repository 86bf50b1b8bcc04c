"""What a worker tells the host: read with bounds, decoded as plain data, and believed of its own session alone."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec

from gossamer.sandbox.inside.frames import HEAD, costs_too_much

__all__ = ["LARGE", "Frame", "Heard", "NonsenseError", "TooLargeError", "hear"]

# From so many bytes on a thread does what takes long with a frame.
LARGE = 256 * 1024


class Frame(msgspec.Struct, frozen=True):
    """What a worker tells; whatever is in it, nobody has checked.

    Attributes:
        kind: `ready`, `calls` or `done`.
        calls: calls of host functions.
        value: the last expression as `frames.plain` writes it.
        shown: as Python would show it.
        error: kind, message, traceback and limit of an error.
        images: how many of the blobs are images.
        listed: files with their sizes.
        blobs: the lengths of the bytes behind it.
    """

    kind: str = msgspec.field(name="is")
    calls: list[dict[str, Any]] = []
    value: Any = None
    shown: str = ""
    error: dict[str, str] | None = None
    images: int = 0
    listed: list[tuple[str, int]] = []
    blobs: list[int] = []


class Heard(NamedTuple):
    """A frame, the bytes behind it, and how many bytes it had."""

    frame: Frame
    blobs: list[bytes]
    size: int


class NonsenseError(Exception):
    """What came is no frame."""


class TooLargeError(Exception):
    """What comes is larger than it may be."""


_decode = msgspec.json.Decoder(Frame).decode


async def hear(reader: asyncio.StreamReader, most: int) -> Heard:
    """Wait for a frame.

    What it costs to decode one is bounded by its bytes and by how many values are in it.

    Args:
        reader: where it comes from.
        most: how many bytes it may have.

    Raises:
        NonsenseError: it is none.
        TooLargeError: it is announced as larger.
        IncompleteReadError: none comes any more.
        OSError: the same.
    """
    text_length, blob_length = HEAD.unpack(await reader.readexactly(HEAD.size))
    size = HEAD.size + text_length + blob_length
    if size > most:
        raise TooLargeError(f"{size:,} bytes in one frame")
    text = await reader.readexactly(text_length)
    rest = await reader.readexactly(blob_length)
    frame = _read(text) if len(text) <= LARGE else await asyncio.to_thread(_read, text)
    if min(frame.blobs, default=0) < 0 or sum(frame.blobs) != blob_length:
        raise NonsenseError("lengths that do not add up")
    blobs: list[bytes] = []
    place = 0
    for length in frame.blobs:
        blobs.append(rest[place : place + length])
        place += length
    return Heard(frame, blobs, size)


def _read(text: bytes) -> Frame:
    if costs_too_much(text):
        raise NonsenseError("very many values in one frame, or long numbers")
    try:
        return _decode(text)
    except (ValueError, RecursionError) as error:
        raise NonsenseError(str(error)[:200]) from error
