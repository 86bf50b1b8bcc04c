"""Ollama chat: speech → one JSON answer, or a stream of lines."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from gossamer.simulator.replies import Prompt
from gossamer.simulator.speech import Section, Speech

__all__ = ["OllamaStream", "whole_answer"]

_encode = msgspec.json.encode

# --- speech → answer ----------------------------------------------------------------------------------------


def _head(prompt: Prompt) -> dict[str, Any]:
    return {"model": prompt.model, "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}


def _end(tokens: int, speech: Speech, began: int) -> dict[str, Any]:
    took = time.monotonic_ns() - began
    # Ollama knows two ends; a call, a refusal and a filter are ordinary ones to it.
    return {
        "done": True,
        "done_reason": "length" if speech.finish == "length" else "stop",
        "total_duration": took,
        "load_duration": 0,
        "prompt_eval_count": tokens,
        "prompt_eval_duration": 0,
        "eval_count": speech.tokens,
        "eval_duration": took,
    }


def _call(section: Section, number: int, index: int) -> dict[str, Any] | None:
    """A tool call; None where its arguments are no JSON object, which Ollama cannot tell from text."""
    assert section.call is not None
    try:
        arguments = msgspec.json.decode(section.joined(), type=dict[str, Any])
    except msgspec.DecodeError:
        return None
    function = {"index": index, "name": section.call.name, "arguments": arguments}
    return {"id": f"call_{number:08d}{index:04d}", "function": function}


def _as_text(section: Section) -> str:
    assert section.call is not None
    return f'{{"name": "{section.call.name}", "arguments": {section.joined()}'


def whole_answer(prompt: Prompt, speech: Speech, number: int) -> bytes:
    """The answer as one JSON body. O(length of the speech)."""
    began = time.monotonic_ns()
    said: dict[str, str] = {"text": "", "thinking": ""}
    calls: list[dict[str, Any]] = []
    for section in speech.sections:
        if section.kind == "call":
            call = _call(section, number, len(calls))
            if call is None:
                said["text"] += _as_text(section)
            else:
                calls.append(call)
        else:
            said[section.kind] += section.joined()
    message: dict[str, Any] = {"role": "assistant", "content": said["text"]}
    if said["thinking"]:
        message["thinking"] = said["thinking"]
    if calls:
        message["tool_calls"] = calls
    return _encode({**_head(prompt), "message": message, **_end(prompt.tokens, speech, began)})


# --- speech → lines -----------------------------------------------------------------------------------------


def _in_line(value: object) -> bytes:
    # Ollama escapes the two separators that some readers take for the end of a line.
    return _encode(value).replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")


class OllamaStream:
    """The lines of one streamed answer, made one at a time from a part encoded once a stream; a call is one line."""

    __slots__ = (
        "_base",
        "_began",
        "_call",
        "_calls",
        "_index",
        "_lead",
        "_length",
        "_number",
        "_pieces",
        "_section",
        "_speech",
        "_stamp",
        "_stamped",
        "_tokens",
        "length",
    )

    def __init__(self, prompt: Prompt, speech: Speech, number: int, *, stamp: bool) -> None:
        self._base = _encode(_head(prompt))[:-1] + b',"message":{"role":"assistant",'
        self._began = time.monotonic_ns()
        self._speech = speech
        self._number = number
        self._stamp = stamp
        self._tokens = prompt.tokens
        self._section = self._calls = -1
        self.length = sum(1 if section.call is not None else section.length for section in speech.sections)
        self._enter()

    def _enter(self) -> None:
        self._section += 1
        if self._section == len(self._speech.sections):
            return
        section = self._speech.sections[self._section]
        self._index, self._length, self._pieces = 0, section.length, section.pieces
        self._stamped = self._stamp and section.kind == "text"
        self._call = None if section.call is None else section
        if section.call is not None:
            self._calls += 1
            self._length = 1
        self._lead = self._base + _FIELDS[section.kind]

    def opening(self) -> bytes:
        """Nothing: Ollama begins with the first token."""
        return b""

    def frame(self) -> bytes:
        """The next token as a line. O(1), allocates the line and its encoded token; `length` lines in all.

        A tool call is one line: O(length of its arguments).
        """
        index = self._index
        if self._call is not None:
            line = self._called(self._call)
        else:
            pieces = self._pieces
            piece = pieces[index % len(pieces)]
            if self._stamped:
                piece = f"{time.monotonic_ns()} {piece}"
            encoded = _encode(piece) if piece.isascii() else _in_line(piece)
            line = b"%b%b%b" % (self._lead, encoded, _TRAIL)
        index += 1
        self._index = index
        if index == self._length:
            self._enter()
        return line

    def unknown(self) -> bytes:
        """A line that says nothing, with a field that does not exist: Ollama's lines have no types."""
        return b'%b"content":""},"done":false,"simulator_unknown":{"of":["no","type"]}}\n' % self._base

    def failure(self) -> bytes:
        """The line of an error on the server."""
        return _FAILURE

    def closing(self) -> bytes:
        """The last line: why it ends, and the counts."""
        return b'%b"content":""},%b\n' % (
            self._base,
            _encode(_end(self._tokens, self._speech, self._began))[1:],
        )

    def _called(self, section: Section) -> bytes:
        call = _call(section, self._number, self._calls)
        if call is None:
            return b'%b"content":%b%b' % (self._base, _in_line(_as_text(section)), _TRAIL)
        return b"%b[%b]%b" % (self._lead, _in_line(call), _TRAIL)


_FIELDS = {
    "text": b'"content":',
    "thinking": b'"content":"","thinking":',
    "call": b'"content":"","tool_calls":',
}
_TRAIL = b'},"done":false}\n'
_FAILURE = b'{"error":"an error was encountered while running the model"}\n'
