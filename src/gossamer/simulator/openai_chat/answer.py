"""OpenAI Chat Completions: speech → one JSON answer, or a stream of frames."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from gossamer.simulator.hosted import found_in
from gossamer.simulator.replies import Prompt, ToolUse
from gossamer.simulator.speech import Section, Speech

__all__ = ["ChatStream", "whole_answer"]

_FINGERPRINT = "fp_simulator"
_encode = msgspec.json.encode

# --- speech → answer ----------------------------------------------------------------------------------------


def _usage(tokens: int, cached_tokens: int, speech: Speech) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens,
        "completion_tokens": speech.tokens,
        "total_tokens": tokens + speech.tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": speech.thinking_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _call_id(number: int, index: int) -> str:
    return f"call_{number:016d}{index:08d}"


def whole_answer(prompt: Prompt, speech: Speech, number: int) -> bytes:
    """The answer as one JSON body. O(length of the speech)."""
    text: str | None = None
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    calls: list[dict[str, Any]] = []
    for section in speech.sections:
        said = section.joined()
        if section.call is not None:
            function = {"name": section.call.name, "arguments": said}
            calls.append({"id": _call_id(number, len(calls)), "type": "function", "function": function})
        elif section.kind == "thinking":
            message["reasoning_content"] = said
        else:
            text = said
    if speech.finish == "refusal":
        message["refusal"] = text or ""
    else:
        message["content"] = text if calls or text is not None else ""
        message["annotations"] = _annotations(speech)
    if calls:
        message["tool_calls"] = calls
    return _encode(
        {
            "id": _completion_id(number),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": prompt.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(speech)}],
            "usage": _usage(prompt.tokens, prompt.cached_tokens, speech),
            "service_tier": "default",
            "system_fingerprint": _FINGERPRINT,
        }
    )


def _annotations(speech: Speech) -> list[dict[str, Any]]:
    """The pages that the text rests on, all of it."""
    end = sum(len(section.joined()) for section in speech.sections if section.kind == "text")
    return [
        {
            "type": "url_citation",
            "url_citation": {"url": url, "title": title, "start_index": 0, "end_index": end},
        }
        for url, title in found_in(speech.hosted)
    ]


def _finish(speech: Speech) -> str:
    # A refusal is an ordinary end: the message's field tells it.
    return "stop" if speech.finish == "refusal" else speech.finish


def _completion_id(number: int) -> str:
    return f"chatcmpl-{number:024d}"


# --- speech → frames ----------------------------------------------------------------------------------------


class ChatStream:
    """The frames of one streamed answer, made one at a time from parts encoded once a stream.

    What follows a delta is the same for every stream and is shared.
    """

    __slots__ = (
        "_base",
        "_call",
        "_calls",
        "_index",
        "_lead",
        "_length",
        "_number",
        "_pieces",
        "_prompt_tokens",
        "_section",
        "_speech",
        "_stamp",
        "_stamped",
        "_trail",
        "length",
    )

    def __init__(self, prompt: Prompt, speech: Speech, number: int, *, stamp: bool) -> None:
        head = {"id": _completion_id(number), "object": "chat.completion.chunk", "created": int(time.time())}
        head |= {"model": prompt.model, "service_tier": "default", "system_fingerprint": _FINGERPRINT}
        self._base = b"data: " + _encode(head)[:-1]
        # The prompt itself is not kept: ten thousand streams would hold ten thousand questions.
        self._prompt_tokens = (prompt.tokens, prompt.cached_tokens) if prompt.include_usage else None
        self._call: ToolUse | None = None
        self._speech = speech
        self._number = number
        self._stamp = stamp
        self._section = -1
        self._calls = -1
        self.length = speech.tokens
        self._enter()

    def _enter(self) -> None:
        self._section += 1
        if self._section == len(self._speech.sections):
            return
        section: Section = self._speech.sections[self._section]
        self._index, self._length, self._pieces = 0, section.length, section.pieces
        self._call = section.call
        self._stamped = self._stamp and section.kind == "text"
        start = self._base + b',"choices":[{"index":0,"delta":{'
        if section.call is not None:
            self._calls += 1
            self._index = -1
            self._lead = start + b'"tool_calls":[{"index":%d,"function":{"arguments":' % self._calls
            self._trail = _CALL_END if self._prompt_tokens is None else _CALL_END_USAGE
        else:
            field = (
                _FIELDS[section.kind] if self._speech.finish != "refusal" else _REFUSAL_FIELDS[section.kind]
            )
            self._lead = start + field
            self._trail = _TEXT_END if self._prompt_tokens is None else _TEXT_END_USAGE

    def opening(self) -> bytes:
        """The frame that names the role."""
        content = b'""' if self._call is None else b"null"
        return b'%b,"choices":[{"index":0,"delta":{"role":"assistant","content":%b,"refusal":null%b' % (
            self._base,
            content,
            _TEXT_END if self._prompt_tokens is None else _TEXT_END_USAGE,
        )

    def frame(self) -> bytes:
        """The next token as a frame. O(1), allocates the frame and its encoded token; `length` frames in all."""
        index = self._index
        if index < 0:
            frame = self._naming()
        else:
            pieces = self._pieces
            piece = pieces[index % len(pieces)]
            if self._stamped:
                piece = f"{time.monotonic_ns()} {piece}"
            frame = b"%b%b%b" % (self._lead, _encode(piece), self._trail)
        index += 1
        self._index = index
        if index == self._length:
            self._enter()
        return frame

    def _naming(self) -> bytes:
        assert self._call is not None
        function = {"name": self._call.name, "arguments": ""}
        call = {"index": self._calls, "id": _call_id(self._number, self._calls), "type": "function"}
        return b'%b,"choices":[{"index":0,"delta":{"tool_calls":[%b]%b' % (
            self._base,
            _encode(call | {"function": function}),
            _TEXT_END if self._prompt_tokens is None else _TEXT_END_USAGE,
        )

    def unknown(self) -> bytes:
        """A frame whose object is none of the API's; it has no choices."""
        return _UNKNOWN

    def failure(self) -> bytes:
        """The frame of an error on the server."""
        return _FAILURE

    def closing(self) -> bytes:
        """The last frames: the finish reason, the usage where it was asked for, and the end mark."""
        cited = _annotations(self._speech)
        delta = _encode({"annotations": cited} if cited else {})
        finish = b'%b,"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":"%b"}]' % (
            self._base,
            delta,
            _finish(self._speech).encode(),
        )
        if self._prompt_tokens is None:
            return finish + b"}\n\ndata: [DONE]\n\n"
        usage = _encode(_usage(*self._prompt_tokens, self._speech))
        return b'%b,"usage":null}\n\n%b,"choices":[],"usage":%b}\n\ndata: [DONE]\n\n' % (
            finish,
            self._base,
            usage,
        )


_FIELDS = {"text": b'"content":', "thinking": b'"reasoning_content":'}
_REFUSAL_FIELDS = {"text": b'"refusal":', "thinking": b'"reasoning_content":'}
_UNKNOWN = (
    b'event: simulator.unknown\ndata: {"object":"simulator.unknown","choices":[],"of":["no","type"]}\n\n'
)
_FAILURE = (
    b'data: {"error":{"message":"The server had an error while processing your request. Sorry about that!",'
    b'"type":"server_error","param":null,"code":"server_error"}}\n\n'
)
_TEXT_END = b'},"logprobs":null,"finish_reason":null}]}\n\n'
_TEXT_END_USAGE = b'},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
_CALL_END = b"}}]" + _TEXT_END
_CALL_END_USAGE = b"}}]" + _TEXT_END_USAGE
