"""The lines of an exported session: what each may say, and how it is read."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from gossamer.errors import DecodeError
from gossamer.records import SCHEMA_VERSION, Record, decode_as

__all__ = [
    "FORMAT",
    "EndLine",
    "InnerLine",
    "Line",
    "MediaLine",
    "RecordLine",
    "SessionLine",
    "decode_first",
    "decode_line",
]

FORMAT = "gossamer session"


class _Line(
    msgspec.Struct,
    frozen=True,
    tag_field="line",
    omit_defaults=True,
    forbid_unknown_fields=True,
    kw_only=True,
):
    """What all lines share: a field `line` with the kind of the line."""


class SessionLine(_Line, frozen=True, tag="session"):
    """The first line.

    Attributes:
        format: the name of this format.
        schema: the version of what follows.
        id: the session's id.
        state: the state that it began with.
    """

    format: str
    schema: int
    id: str
    state: Any = None


class InnerLine(_Line, frozen=True, tag="inner"):
    """A session inside a call begins; the records that follow are its own.

    Attributes:
        parent: the session around it, by its number in the file; the first one is 0.
        inside: that run and call, as `run/call`.
        state: the state that it began with.
    """

    parent: int
    inside: str
    state: Any = None


class MediaLine(_Line, frozen=True, tag="media"):
    """The bytes of media, once, before the first record that holds them.

    Attributes:
        hash: SHA-256 of the bytes, in hex.
        data: the bytes.
    """

    hash: str
    data: bytes


class RecordLine(_Line, frozen=True, tag="record"):
    """A record.

    Attributes:
        record: the record, the bytes of media left out.
        media: the hashes of these, in the order in which they occur.
    """

    record: Record
    media: tuple[str, ...] = ()


class EndLine(_Line, frozen=True, tag="end"):
    """The last line.

    Attributes:
        sessions: how many sessions there were.
        records: how many records, of all of them.
        media: how many lines with media.
        sha256: of all lines before this one, each with a newline behind it, in hex.
    """

    sessions: int
    records: int
    media: int
    sha256: str


Line: TypeAlias = SessionLine | InnerLine | MediaLine | RecordLine | EndLine


class _First(msgspec.Struct):
    """As much of a first line as every version has."""

    format: str
    schema: int


def decode_first(line: bytes) -> SessionLine:
    """Read the first line.

    Raises:
        DecodeError: it is not the first line of an exported session, or is one of a newer version.
    """
    try:
        first = msgspec.json.decode(line, type=_First)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"this is not the beginning of an exported session: {error}") from error
    if first.format != FORMAT:
        raise DecodeError(f"this is of format {first.format!r}, not of {FORMAT!r}")
    if first.schema > SCHEMA_VERSION:
        raise DecodeError(
            f"this session has schema version {first.schema}, newer than {SCHEMA_VERSION}; upgrade Gossamer"
        )
    decoded = decode_line(line)
    if not isinstance(decoded, SessionLine):
        raise DecodeError("an exported session begins with a line of kind 'session'")
    return decoded


def decode_line(line: bytes) -> Line:
    """Read a line behind the first.

    Raises:
        DecodeError: it is damaged, or is of a newer version.
    """
    return decode_as(line, Line)
