"""Anthropic Messages: speech → one JSON answer, or a stream of events."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from gossamer.simulator.anthropic_chat.request import Wire
from gossamer.simulator.hosted import HostedUse, found_in, hosted_use
from gossamer.simulator.replies import Prompt
from gossamer.simulator.signatures import sign
from gossamer.simulator.speech import Section, Speech

__all__ = ["MessageStream", "whole_answer"]

_encode = msgspec.json.encode

# --- speech → answer ----------------------------------------------------------------------------------------


def _wire(prompt: Prompt) -> Wire:
    wire = prompt.wire
    assert isinstance(wire, Wire)
    return wire


def _input_usage(prompt: Prompt, wire: Wire) -> dict[str, Any]:
    short, long = wire.written
    return {
        "input_tokens": prompt.tokens - prompt.cached_tokens - short - long,
        "cache_creation_input_tokens": short + long,
        "cache_read_input_tokens": prompt.cached_tokens,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
    }


def _output_usage(speech: Speech) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "output_tokens": speech.tokens,
        "output_tokens_details": {"thinking_tokens": speech.thinking_tokens},
    }
    searches = sum(use.name == "web_search" for use in speech.hosted)
    if searches:
        usage["server_tool_use"] = {"web_search_requests": searches, "web_fetch_requests": 0}
    return usage


def _said(speech: Speech, wire: Wire) -> list[Section]:
    """The sections that become blocks, a thinking block before them where one has to be there."""
    sections = speech.with_hosted()
    if wire.goes_on is not None:
        sections.insert(
            0, Section("found", (), 0, None, hosted_use(wire.goes_on[1].removeprefix("bash_"), {}))
        )
    if wire.must_think and wire.goes_on is None and not (sections and sections[0].kind == "thinking"):
        sections.insert(0, Section("thinking", (), 0))
    return sections


def _ending(speech: Speech) -> dict[str, Any]:
    stopped = None
    details = None
    if speech.finish == "length":
        reason = "max_tokens"
    elif speech.finish in {"content_filter", "refusal"}:
        reason = "refusal"
        details = {"type": "refusal", "category": None, "explanation": None}
    elif speech.finish == "pause":
        reason = "pause_turn"
    elif speech.sections and speech.sections[-1].call is not None:
        reason = "tool_use"
    elif speech.stopped:
        reason, stopped = "stop_sequence", speech.stopped
    else:
        reason = "end_turn"
    ending = {"stop_reason": reason, "stop_sequence": stopped, "stop_details": details}
    if any(use.name == "code_execution" for use in speech.hosted):
        expires = datetime.now(UTC) + timedelta(hours=1)
        ending["container"] = {"id": "container_simulated", "expires_at": expires.isoformat()}
    return ending


def _message(prompt: Prompt, number: int) -> dict[str, Any]:
    return {
        "model": prompt.model,
        "id": f"msg_{number:024d}",
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
    }


def _call_id(number: int, index: int) -> str:
    return f"toolu_{number:016d}{index:08d}"


# As the version of the tool has it that most ask for: the code goes to a shell.
_SERVER_NAMES = {"web_search": "web_search", "code_execution": "bash_code_execution"}


def _server_call(use: HostedUse, number: int, index: int) -> dict[str, Any]:
    asked = {"query": use.asked} if use.name == "web_search" else {"command": use.asked}
    call = {"type": "server_tool_use", "id": _server_id(number, index), "name": _SERVER_NAMES[use.name]}
    return call | {"input": asked}


def _server_id(number: int, index: int) -> str:
    return f"srvtoolu_{number:016d}{index:08d}"


def _server_result(use: HostedUse, call_id: str) -> dict[str, Any]:
    content: Any
    if use.name == "web_search":
        content = [
            {
                "type": "web_search_result",
                "url": url,
                "title": title,
                "encrypted_content": sign(url),
                "page_age": None,
            }
            for url, title in use.pages
        ]
    else:
        content = {
            "type": "bash_code_execution_result",
            "stdout": use.printed,
            "stderr": "",
            "return_code": 0,
        }
        content["content"] = []
    return {"type": f"{_SERVER_NAMES[use.name]}_tool_result", "tool_use_id": call_id, "content": content}


def _citations(speech: Speech) -> list[dict[str, Any]]:
    """The pages that the text rests on, as its last thing."""
    return [
        {
            "type": "web_search_result_location",
            "url": url,
            "title": title,
            "cited_text": title,
            "encrypted_index": sign(f"{url} index"),
        }
        for url, title in found_in(speech.hosted)
    ]


def _block(
    section: Section, number: int, index: int, wire: Wire, cited: list[dict[str, Any]]
) -> dict[str, Any]:
    if section.hosted is not None and section.kind == "hosted":
        return _server_call(section.hosted, number, index)
    if section.hosted is not None:
        goes_on = wire.goes_on[0] if wire.goes_on is not None and not index else ""
        return _server_result(section.hosted, goes_on or _server_id(number, index - 1))
    said = section.joined()
    if section.call is not None:
        return {
            "type": "tool_use",
            "id": _call_id(number, index),
            "name": section.call.name,
            "input": _input(said),
        }
    if section.kind == "thinking":
        thinking = said if wire.shows else ""
        return {"type": "thinking", "thinking": thinking, "signature": sign(thinking)}
    return {"type": "text", "text": said, **({"citations": cited} if cited else {})}


def _input(arguments: str) -> msgspec.Raw:
    # Arguments that were cut or are broken on purpose have no form in a whole answer.
    try:
        msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return msgspec.Raw(b"{}")
    return msgspec.Raw(arguments.encode())


def whole_answer(prompt: Prompt, speech: Speech, number: int) -> bytes:
    """The answer as one JSON object. O(length of the speech)."""
    wire = _wire(prompt)
    cited = _citations(speech)
    content = [_block(each, number, index, wire, cited) for index, each in enumerate(_said(speech, wire))]
    usage = _input_usage(prompt, wire) | _output_usage(speech) | {"service_tier": "standard"}
    return _encode(_message(prompt, number) | {"content": content, "usage": usage} | _ending(speech))


# --- speech → events ----------------------------------------------------------------------------------------


class MessageStream:
    """The events of one streamed answer, made one at a time from parts encoded once a block.

    A token becomes a `content_block_delta`; the start of a block goes with its first token, its end with its last.
    Where the request wants thinking omitted, its block has no deltas but the signature's.
    """

    __slots__ = (
        "_block",
        "_cited",
        "_ending",
        "_index",
        "_lead",
        "_length",
        "_number",
        "_opened",
        "_opening",
        "_pieces",
        "_sections",
        "_shows",
        "_stamp",
        "_stamped",
        "_wire",
        "length",
    )

    def __init__(self, prompt: Prompt, speech: Speech, number: int, *, stamp: bool) -> None:
        self._wire = wire = _wire(prompt)
        self._cited = _citations(speech)
        sections = _said(speech, wire)
        self.length = speech.tokens if wire.shows else speech.tokens - speech.thinking_tokens
        usage = _input_usage(prompt, wire)
        started = usage | {"output_tokens": min(speech.tokens, 1), "service_tier": "standard"}
        message = _message(prompt, number) | {"usage": started}
        del usage["cache_creation"]
        delta = {"type": "message_delta", "delta": _ending(speech)}
        # Everything but the blocks is encoded at once: neither the prompt nor the speech is kept.
        self._ending = _event(b"message_delta", delta | {"usage": usage | _output_usage(speech)}) + _STOP
        self._number = number
        self._shows = wire.shows
        self._stamp = stamp
        self._stamped = False
        self._sections = sections
        self._block = -1
        self._pieces: tuple[str, ...] = ()
        self._lead = self._opened = b""
        self._index = self._length = 0
        self._enter()
        self._opening = _event(b"message_start", {"type": "message_start", "message": message}) + (
            self._opened + _PING
        )
        self._opened = b""

    def _enter(self) -> None:
        """Go to the next block that has tokens to send; those that have none are begun and ended at once."""
        while True:
            self._block = block = self._block + 1
            if block == len(self._sections):
                return
            section = self._sections[block]
            if section.hosted is not None:
                self._opened += self._hosted(section)
                continue
            if section.kind == "thinking":
                start = _THINKING
            elif section.call is None:
                start = _TEXT
            else:
                named = {"type": "tool_use", "id": _call_id(self._number, block), "name": section.call.name}
                start = b'"content_block":' + _encode(named | {"input": {}}) + b"}\n\n"
            self._opened += _START % block + start
            if section.kind != "thinking" or (self._shows and section.length):
                break
            self._opened += self._end(section)
        self._index, self._length, self._pieces = 0, section.length, section.pieces
        self._stamped = self._stamp and section.kind == "text"
        self._lead = _DELTA % block + _DELTAS[section.kind]
        if section.call is not None:
            self._index = -1

    def _hosted(self, section: Section) -> bytes:
        """A block of a tool of the provider's: nothing of it is said by the model, so it comes at once."""
        block = self._block
        whole = _block(section, self._number, block, self._wire, [])
        asked = b""
        if section.kind == "hosted":
            # Its input comes in pieces, as that of any call.
            text = _encode(whole["input"]).decode()
            whole["input"] = {}
            for piece in ("", text[:7], text[7:]):
                asked += b"%b%b%b}}\n\n" % (_DELTA % block, _DELTAS["call"], _encode(piece))
        start = b'"content_block":%b}\n\n' % _encode(whole)
        return _START % block + start + asked + _BLOCK_STOP % block

    def _end(self, section: Section) -> bytes:
        block = self._block
        stop = _BLOCK_STOP % block
        if section.kind == "text":
            for citation in reversed(self._cited):
                stop = b'%b"citations_delta","citation":%b}}\n\n%b' % (
                    _DELTA % block,
                    _encode(citation),
                    stop,
                )
        if section.kind != "thinking":
            return stop
        signature = sign(section.joined() if self._shows else "")
        return b'%b"signature_delta","signature":"%b"}}\n\n%b' % (_DELTA % block, signature.encode(), stop)

    def opening(self) -> bytes:
        """The start of the message and of its first block."""
        return self._opening

    def frame(self) -> bytes:
        """The next token as an event. O(1), allocates the event and its encoded token; `length` events in all."""
        index = self._index
        if index < 0:
            frame = b'%b""}}\n\n' % self._lead
        else:
            pieces = self._pieces
            piece = pieces[index % len(pieces)]
            if self._stamped:
                piece = f"{time.monotonic_ns()} {piece}"
            frame = b"%b%b}}\n\n" % (self._lead, _encode(piece))
        if self._opened:
            frame = self._opened + frame
            self._opened = b""
        index += 1
        self._index = index
        if index == self._length:
            frame += self._end(self._sections[self._block])
            self._enter()
        return frame

    def unknown(self) -> bytes:
        """An event of a type that does not exist."""
        return _UNKNOWN

    def failure(self) -> bytes:
        """The event by which the provider tells that it is overloaded."""
        return _FAILURE

    def closing(self) -> bytes:
        """The last events: the stop reason with the usage, and the end of the message."""
        return self._opened + self._ending


def _event(name: bytes, content: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, _encode(content))


_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_START = b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,'
_TEXT = b'"content_block":{"type":"text","text":""}}\n\n'
_THINKING = b'"content_block":{"type":"thinking","thinking":"","signature":""}}\n\n'
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":'
_DELTAS = {
    "text": b'"text_delta","text":',
    "thinking": b'"thinking_delta","thinking":',
    "call": b'"input_json_delta","partial_json":',
}
_BLOCK_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_UNKNOWN = b'event: simulator_unknown\ndata: {"type":"simulator_unknown","of":["no","type"]}\n\n'
_FAILURE = (
    b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
)
