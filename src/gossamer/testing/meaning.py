"""What a request means: the same for two that differ in key order, generated ids, secrets or the port of this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec

from gossamer.schema import is_array, is_object
from gossamer.testing.secrets import Secrets
from gossamer.wire.url import encode_target, parse_url

__all__ = ["Asked", "asked", "differences"]

# Ids that Gossamer makes, wherever they stand; see `gossamer.ids`.
_OUR_ID = re.compile(r"\b[0-9a-f]{11}-[0-9a-f]{10}-\d{10,}\b")
# Names that hold the id of a call in every dialect that has them.
_CALL_ID_NAMES = frozenset({"call_id", "tool_call_id", "tool_use_id"})
# Where an object's plain `id` is that of a call: what it is of, or where it stands.
_CALL_TYPES = frozenset({"tool_use", "server_tool_use", "function_call", "custom_tool_call"})
_CALL_PLACES = frozenset(
    {"tool_calls", "functionCall", "functionResponse", "function_call", "function_response"}
)
# What a tool is called with is the model's and the user's: an id in there is part of the meaning.
_ARGUMENTS = frozenset({"args", "arguments"})

# Base64 of this length and more is media.
_MEDIA = re.compile(r"(?:data:[^,;]*(?:;[^,;]*)*;base64,)?[A-Za-z0-9+/_-]{512,}={0,2}")

_LOOPBACK = re.compile(r"localhost|::1|127(\.\d+){3}")
_SHOWN_CHARS = 120

_encode = msgspec.json.Encoder(order="sorted").encode


class Asked(msgspec.Struct, frozen=True):
    """A request as it is stored and compared.

    Attributes:
        method: the HTTP method.
        url: without secrets, and without the port of a server on this machine.
        body: as JSON data, with ids numbered and media as their hash; text where it is no JSON.
    """

    method: str
    url: str
    body: Any

    @property
    def key(self) -> bytes:
        """Equal for requests that mean the same."""
        return _encode((self.method, self.url, self.body))

    def without(self, secrets: Secrets) -> Asked:
        """The same without what is a secret here, and was none where it was recorded."""
        return Asked(self.method, secrets.remove(self.url), secrets.remove(self.body))


def asked(url: str, path: str | None, body: bytes, secrets: Secrets) -> Asked:
    """Take what a request means.

    Args:
        url: of the model.
        path: put behind the path of the URL, or None.
        body: the bytes sent.
        secrets: what is taken out; learns of those in the body.
    """
    parsed = parse_url(url)
    origin = parsed.origin
    if _LOOPBACK.fullmatch(parsed.host):
        origin = f"{parsed.scheme}://{parsed.host}"
    target, _, query = encode_target(parsed, path).partition("?")
    query = secrets.remove_from_query(query)
    shown = f"{origin}{secrets.remove(target)}" + (f"?{query}" if query else "")
    try:
        data: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        data = body.decode("utf-8", "replace")
    secrets.learn_fields(data)
    return Asked("POST", shown, _plain(secrets.remove(_without_media(data)), {}))


def _without_media(value: Any) -> Any:
    if isinstance(value, str):
        if len(value) >= 512 and _MEDIA.fullmatch(value):
            return f"sha256:{sha256(value.encode()).hexdigest()} ({len(value)} characters of media)"
        return value
    if is_array(value):
        return [_without_media(item) for item in value]
    if is_object(value):
        return {name: _without_media(item) for name, item in value.items()}
    return value


def _plain(value: Any, numbers: dict[str, int], place: str = "") -> Any:
    """Number generated ids by their first appearance, in the order of sorted names."""
    if isinstance(value, str):
        return _OUR_ID.sub(lambda match: _number(match[0], numbers), value)
    if is_array(value):
        return [_plain(item, numbers, place) for item in value]
    if not is_object(value):
        return value
    is_call = place in _CALL_PLACES or str(value.get("type")) in _CALL_TYPES  # a schema's may be a list
    told: dict[str, Any] = {}
    for name in sorted(value):
        item: Any = value[name]
        if isinstance(item, str) and (name in _CALL_ID_NAMES or (is_call and name == "id")):
            told[name] = _number(item, numbers)
        elif is_object(item) and (name in _ARGUMENTS or (is_call and name == "input")):
            told[name] = _texts_plain(item, numbers)
        else:
            told[name] = _plain(item, numbers, name)
    return {name: told[name] for name in value}


def _texts_plain(value: Any, numbers: dict[str, int]) -> Any:
    """Number the ids that are certainly ours, and nothing else."""
    if isinstance(value, str):
        return _OUR_ID.sub(lambda match: _number(match[0], numbers), value)
    if is_array(value):
        return [_texts_plain(item, numbers) for item in value]
    if is_object(value):
        return {name: _texts_plain(item, numbers) for name, item in value.items()}
    return value


def _number(generated: str, numbers: dict[str, int]) -> str:
    return f"id#{numbers.setdefault(generated, len(numbers) + 1)}"


def differences(recorded: Any, wanted: Any, place: str = "body") -> Iterator[str]:
    """Tell where two requests differ, place by place."""
    if is_object(recorded) and is_object(wanted):
        for name in [*recorded, *(name for name in wanted if name not in recorded)]:
            if name not in wanted:
                yield f"{place}.{name}: recorded {_shown(recorded[name])}, not asked"
            elif name not in recorded:
                yield f"{place}.{name}: asked {_shown(wanted[name])}, not recorded"
            else:
                yield from differences(recorded[name], wanted[name], f"{place}.{name}")
    elif is_array(recorded) and is_array(wanted):
        for number, (one, other) in enumerate(zip(recorded, wanted, strict=False)):
            yield from differences(one, other, f"{place}[{number}]")
        for number in range(len(wanted), len(recorded)):
            yield f"{place}[{number}]: recorded {_shown(recorded[number])}, not asked"
        for number in range(len(recorded), len(wanted)):
            yield f"{place}[{number}]: asked {_shown(wanted[number])}, not recorded"
    elif _encode(recorded) != _encode(wanted):
        yield f"{place}: recorded {_shown(recorded)}, asked {_shown(wanted)}"


def _shown(value: Any) -> str:
    text = _encode(value).decode()
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(text)} characters)"
