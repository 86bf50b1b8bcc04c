"""Media of records, kept beside them under the hash of their content: what is said twice is stored once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import msgspec

from gossamer.messages import Audio, File, Image, Message, Part, ToolResult
from gossamer.records import MessageRecord, Record, ToolResultRecord, ViewMovedRecord

__all__ = ["HASH_BYTES", "MediaHash", "lift", "restore"]

# SHA-256 of the bytes.
MediaHash = bytes
HASH_BYTES = 32

_MEDIA = (Image, Audio, File)
_LIFTED = b""


def lift(record: Record) -> tuple[Record, dict[MediaHash, bytes], list[MediaHash]]:
    """Take the bytes of media out of a record.

    Args:
        record: the record; stays as it is.

    Returns:
        The record with empty bytes in their stead, the bytes by hash, and the hashes in the order in which they
        occur, for `restore`.
    """
    if not _may_hold_media(record):
        return record, {}, []
    found: dict[MediaHash, bytes] = {}
    order: list[MediaHash] = []

    def take(data: bytes) -> bytes:
        key = sha256(data).digest()
        found[key] = data
        order.append(key)
        return _LIFTED

    lifted = _with_media(record, take)
    return (lifted, found, order) if order else (record, {}, [])


def restore(record: Record, order: list[MediaHash], media: dict[MediaHash, bytes]) -> Record:
    """Put the bytes of media back into a record.

    Args:
        record: as `lift` gave it.
        order: the hashes, as `lift` gave them.
        media: bytes by hash.
    """
    if not order:
        return record
    hashes: Iterator[MediaHash] = iter(order)
    return _with_media(record, lambda _: media[next(hashes)])


def _may_hold_media(record: Record) -> bool:
    if isinstance(record, MessageRecord):
        return any(isinstance(part, (*_MEDIA, ToolResult)) for part in record.message.parts)
    if isinstance(record, ToolResultRecord):
        return not isinstance(record.result.content, str)
    return isinstance(record, ViewMovedRecord) and bool(record.insert)


def _with_media(record: Record, change: Callable[[bytes], bytes]) -> Record:
    if isinstance(record, MessageRecord):
        return msgspec.structs.replace(record, message=_message(record.message, change))
    if isinstance(record, ToolResultRecord):
        return msgspec.structs.replace(record, result=_part(record.result, change))
    if isinstance(record, ViewMovedRecord):
        insert = tuple(_message(message, change) for message in record.insert)
        return msgspec.structs.replace(record, insert=insert)
    return record


def _message(message: Message, change: Callable[[bytes], bytes]) -> Message:
    return msgspec.structs.replace(message, parts=tuple(_part(part, change) for part in message.parts))


def _part(part: Part, change: Callable[[bytes], bytes]) -> Any:
    if isinstance(part, _MEDIA):
        return part if part.data is None else msgspec.structs.replace(part, data=change(part.data))
    if isinstance(part, ToolResult) and not isinstance(part.content, str):
        return msgspec.structs.replace(part, content=tuple(_part(one, change) for one in part.content))
    return part
