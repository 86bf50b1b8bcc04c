"""The file of a cassette: exchanges as JSON that people read, and answers back as the bytes that models read."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gossamer.errors import CassetteError, ProtocolError, ReadTimeoutError, TooLargeError, WireError
from gossamer.schema import is_array, is_object
from gossamer.testing.meaning import Asked
from gossamer.wire import Headers, SSEDecoder

__all__ = ["Answered", "Exchange", "Failure", "SSEvent", "answered", "dump", "load", "write"]

_VERSION = 1

# What models read of the headers; all others stay out of the file.
_KEPT_HEADERS = ("content-type", "retry-after", "retry-after-ms", "x-request-id", "request-id", "location")

_FAILURES: dict[str, type[WireError]] = {
    kind.__name__: kind for kind in (ProtocolError, ReadTimeoutError, TooLargeError, WireError)
}

_encode = msgspec.json.encode


class SSEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One server-sent event: its data as JSON where it is an object or array, else as text."""

    event: str = ""
    id: str = ""
    data: Any = ""

    def encode(self) -> bytes:
        """The bytes that a decoder takes for it."""
        text = self.data if isinstance(self.data, str) else _encode(self.data).decode()
        lines = [f"event: {self.event}"] if self.event else []
        lines += [f"id: {self.id}"] if self.id else []
        lines += [f"data: {line}" for line in text.split("\n")]
        return ("\n".join(lines) + "\n\n").encode()


class Failure(msgspec.Struct, frozen=True):
    """How an answer broke off: the class of the error, and its words."""

    kind: str
    message: str

    def error(self) -> WireError:
        """The error to raise in its place."""
        return _FAILURES.get(self.kind, WireError)(self.message)


class Answered(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer, its body in the most readable of five forms.

    Attributes:
        status: the HTTP status.
        headers: those that models read.
        json: a body that is one JSON object or array.
        events: a stream of server-sent events.
        lines: a stream of JSON lines.
        text: any other text, or what was left of a stream behind its last whole event or line.
        base64: a body that is no text.
        failure: how it broke off, or None.
    """

    status: int
    headers: dict[str, str] = {}
    json: Any = None
    events: list[SSEvent] | None = None
    lines: list[Any] | None = None
    text: str = ""
    base64: str = ""
    failure: Failure | None = None

    def pieces(self) -> list[bytes]:
        """The body in the pieces in which it is given out: an event or a line each."""
        pieces = [event.encode() for event in self.events or ()]
        pieces += [_encode(line) + b"\n" for line in self.lines or ()]
        if self.json is not None:
            pieces.append(_encode(self.json))
        if self.text:
            pieces.append(self.text.encode())
        if self.base64:
            pieces.append(base64.b64decode(self.base64))
        return pieces


class Exchange(msgspec.Struct, frozen=True):
    """A request and its answer."""

    request: Asked
    response: Answered


class _File(msgspec.Struct, frozen=True):
    gossamer_cassette: int
    exchanges: list[Any] = []


def answered(status: int, headers: Headers, body: bytes, failure: Failure | None) -> Answered:
    """Bring an answer into the form in which it is stored.

    Args:
        status: the HTTP status.
        headers: its headers.
        body: its bytes, as far as they came.
        failure: how it broke off, or None.
    """
    kept = {name: value for name in _KEPT_HEADERS if (value := headers.get(name)) is not None}
    kind = kept.get("content-type", "")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return Answered(status, kept, base64=base64.b64encode(body).decode(), failure=failure)
    if "event-stream" in kind or text.startswith(("data:", "event:")):
        events, rest = _events_of(text)
        return Answered(status, kept, events=events, text=rest, failure=failure)
    if "ndjson" in kind or "jsonl" in kind or "json-seq" in kind:
        lines, rest = _lines_of(text)
        return Answered(status, kept, lines=lines, text=rest, failure=failure)
    data = _structure(text)
    if isinstance(data, str):
        return Answered(status, kept, text=text, failure=failure)
    return Answered(status, kept, json=data, failure=failure)


def _events_of(text: str) -> tuple[list[SSEvent], str]:
    *blocks, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n\n")
    events: list[SSEvent] = []
    for block in blocks:
        for frame in SSEDecoder().feed(f"{block}\n\n".encode()):
            data = _structure(frame.data.decode())
            events.append(SSEvent(frame.event.decode(), frame.id.decode(), data))
    return events, rest if rest.strip() else ""


def _lines_of(text: str) -> tuple[list[Any], str]:
    *whole, rest = text.split("\n")
    lines: list[Any] = []
    for number, line in enumerate(whole):
        if line.strip():
            data = _structure(line)
            if isinstance(data, str):  # no JSON: from here on as it came
                return lines, "\n".join([*whole[number:], rest])
            lines.append(data)
    return lines, rest


def _structure(text: str) -> Any:
    """The JSON object or array that a text is, else the text."""
    try:
        data: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return data if is_object(data) or is_array(data) else text


# --- the file -----------------------------------------------------------------------------------------------


def load(path: Path) -> list[Exchange]:
    """Read a cassette.

    Raises:
        CassetteError: it cannot be read, or is of a newer version.
    """
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        if file.gossamer_cassette == _VERSION:
            return msgspec.convert(file.exchanges, list[Exchange])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CassetteError(
            f"{path} cannot be read as a cassette: {error}; delete it to record it anew"
        ) from error
    raise CassetteError(
        f"{path} is a cassette of version {file.gossamer_cassette}, and this release reads version {_VERSION}; "
        "record it anew, or update gossamer"
    )


def dump(exchanges: Iterable[Any]) -> str:
    """Give the text of a cassette: indented, but every event and line of a stream on one line of its own.

    Args:
        exchanges: as plain data.
    """
    told = [_indented(exchange, 4) for exchange in exchanges]
    body = ",\n    ".join(told)
    listed = f"[\n    {body}\n  ]" if told else "[]"
    return f'{{\n  "gossamer_cassette": {_VERSION},\n  "exchanges": {listed}\n}}\n'


def _indented(value: Any, depth: int, name: str = "") -> str:
    inner, outer = " " * (depth + 2), " " * depth
    if is_object(value) and value:
        fields = [f"{_text(key)}: {_indented(item, depth + 2, key)}" for key, item in value.items()]
        return "{\n" + ",\n".join(f"{inner}{field}" for field in fields) + f"\n{outer}}}"
    if is_array(value) and value:
        flat = name in {"events", "lines"} or not any(is_object(item) or is_array(item) for item in value)
        if flat and name not in {"events", "lines"}:
            return _text(value)
        items = [_text(item) if flat else _indented(item, depth + 2) for item in value]
        return "[\n" + ",\n".join(f"{inner}{item}" for item in items) + f"\n{outer}]"
    return _text(value)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def write(path: Path, exchanges: Sequence[Any]) -> None:
    """Write a cassette in one step: a reader finds the old file or the new one, whole.

    Raises:
        CassetteError: it cannot be written.
    """
    text = dump(exchanges)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise CassetteError(
            f"{path} cannot be written: {error.strerror or error}; what was recorded is lost, and what the file held "
            "before is as it was"
        ) from error
