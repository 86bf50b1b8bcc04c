"""Gemini: speech → one JSON answer, or a stream of chunks."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from gossamer.simulator.gemini_chat.content import call_text
from gossamer.simulator.gemini_chat.request import Wire
from gossamer.simulator.hosted import found_in
from gossamer.simulator.replies import Prompt
from gossamer.simulator.signatures import sign
from gossamer.simulator.speech import Section, Speech

__all__ = ["ContentStream", "whole_answer"]

_encode = msgspec.json.encode

# --- speech → answer ----------------------------------------------------------------------------------------


def _said(prompt: Prompt, speech: Speech) -> list[Section]:
    """The sections that are sent: thoughts only where they are wanted, calls only where their arguments are whole."""
    wire = prompt.wire
    assert isinstance(wire, Wire)
    return [
        each
        for each in speech.sections
        if (wire.shows or each.kind != "thinking") and (each.call is None or _arguments(each) is not None)
    ]


def _arguments(section: Section) -> bytes | None:
    arguments = section.joined()
    try:
        msgspec.json.decode(arguments, type=dict)
    except msgspec.MsgspecError:
        return None
    return arguments.encode()


def _reason(speech: Speech, sent: list[Section]) -> str:
    if speech.finish == "length":
        return "MAX_TOKENS"
    if speech.finish == "content_filter":
        return "SAFETY"
    calls = sum(each.call is not None for each in speech.sections)
    return "STOP" if calls == sum(each.call is not None for each in sent) else "MALFORMED_FUNCTION_CALL"


def _prompt_usage(prompt: Prompt) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "promptTokenCount": prompt.tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt.tokens}],
    }
    if prompt.cached_tokens:
        usage["cachedContentTokenCount"] = prompt.cached_tokens
        usage["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": prompt.cached_tokens}]
    return usage


def _usage(prompt: Prompt, speech: Speech) -> dict[str, Any]:
    usage = _prompt_usage(prompt)
    if speech.thinking_tokens:
        usage["thoughtsTokenCount"] = speech.thinking_tokens
    usage["candidatesTokenCount"] = speech.tokens - speech.thinking_tokens
    usage["totalTokenCount"] = prompt.tokens + speech.tokens
    return usage


def _named(prompt: Prompt, number: int) -> dict[str, Any]:
    return {"modelVersion": prompt.model, "responseId": f"response{number:014d}"}


def _blocked(speech: Speech) -> bool:
    """Whether the prompt itself is blocked: nothing is said, for the content's sake."""
    return not speech.sections and speech.finish == "content_filter"


_FEEDBACK: dict[str, Any] = {"promptFeedback": {"blockReason": "SAFETY", "safetyRatings": []}}
_RATINGS: list[dict[str, Any]] = [
    {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}
]


def _called(section: Section, arguments: bytes, number: int, index: int) -> dict[str, Any]:
    assert section.call is not None
    name = section.call.name
    call = {"name": name, "args": msgspec.Raw(arguments), "id": f"{number:06d}{index:02d}"}
    part: dict[str, Any] = {"functionCall": call}
    if not index:
        # Of parallel calls only the first is signed.
        part["thoughtSignature"] = sign(call_text(name, arguments.decode()))
    return part


def _hosted(prompt: Prompt, speech: Speech, number: int) -> list[dict[str, Any]]:
    """What the answer tells of Google's own tools: code always, a search where the request wants to hear of it."""
    parts: list[dict[str, Any]] = []
    for index, use in enumerate(speech.hosted):
        call_id = f"hosted{number:06d}{index:02d}"
        if use.name == "code_execution":
            code = {"language": "PYTHON", "code": use.asked, "id": call_id}
            result = {"outcome": "OUTCOME_OK", "output": use.printed, "id": call_id}
            parts += ({"executableCode": code}, {"codeExecutionResult": result})
        elif prompt.wire.tells:
            named = {"toolType": "GOOGLE_SEARCH_WEB", "id": call_id}
            called = {
                "toolCall": {**named, "args": {"queries": [use.asked]}},
                "thoughtSignature": sign(call_id),
            }
            found = [{"uri": url, "title": title} for url, title in use.pages]
            parts += (called, {"toolResponse": {**named, "response": {"results": found}}})
    return parts


def _grounding(speech: Speech) -> dict[str, Any]:
    """The pages that the text rests on, all of it, as a field of the candidate; none where nothing was searched for."""
    searches = [use.asked for use in speech.hosted if use.name == "web_search"]
    if not searches:
        return {}
    pages = found_in(speech.hosted)
    text = "".join(section.joined() for section in speech.sections if section.kind == "text")
    metadata: dict[str, Any] = {
        "searchEntryPoint": {"renderedContent": "<div>simulated</div>"},
        "webSearchQueries": searches,
        "groundingChunks": [{"web": {"uri": url, "title": title}} for url, title in pages],
    }
    if text and pages:
        segment = {"startIndex": 0, "endIndex": len(text.encode()), "text": text}
        metadata["groundingSupports"] = [
            {"segment": segment, "groundingChunkIndices": list(range(len(pages)))}
        ]
    return {"groundingMetadata": metadata}


def _parts(sent: list[Section], number: int) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    calls = 0
    for section in sent:
        if section.call is not None:
            arguments = _arguments(section)
            assert arguments is not None
            parts.append(_called(section, arguments, number, calls))
            calls += 1
        elif section.kind == "thinking":
            parts.append({"text": section.joined(), "thought": True})
        else:
            parts.append({"text": section.joined()})
    if parts and not calls and "thought" not in parts[-1]:
        parts[-1]["thoughtSignature"] = sign(parts[-1]["text"])
    return parts


def whole_answer(prompt: Prompt, speech: Speech, number: int) -> bytes:
    """The answer as one JSON object. O(length of the speech)."""
    if _blocked(speech):
        return _encode(_FEEDBACK | {"usageMetadata": _usage(prompt, speech)} | _named(prompt, number))
    sent = _said(prompt, speech)
    reason = _reason(speech, sent)
    content: dict[str, Any] = {"role": "model"}
    if reason != "SAFETY":
        content["parts"] = _hosted(prompt, speech, number) + _parts(sent, number)
    candidate: dict[str, Any] = {"content": content, "finishReason": reason, "index": 0, **_grounding(speech)}
    if reason == "SAFETY":
        candidate["safetyRatings"] = _RATINGS
    answer = {"candidates": [candidate], "usageMetadata": _usage(prompt, speech)}
    return _encode(answer | _named(prompt, number))


# --- speech → chunks ----------------------------------------------------------------------------------------


class ContentStream:
    """The chunks of one streamed answer, made one at a time from parts encoded once a section.

    A token becomes a chunk, a call becomes one as a whole, and what is not shown becomes none. Every chunk carries
    the usage up to it; the last one the reason to end, and a text's signature.
    """

    __slots__ = (
        "_before",
        "_calls",
        "_closing",
        "_counted",
        "_field",
        "_fixed",
        "_index",
        "_lead",
        "_length",
        "_name",
        "_number",
        "_opening",
        "_pieces",
        "_section",
        "_sections",
        "_stamp",
        "_stamped",
        "_thoughts",
        "length",
    )

    def __init__(self, prompt: Prompt, speech: Speech, number: int, *, stamp: bool) -> None:
        self._sections = sections = [] if _blocked(speech) else _said(prompt, speech)
        self._number = number
        self._stamp = stamp
        self._stamped = False
        # Everything that does not change is encoded at once: neither the prompt nor the speech is kept.
        self._fixed = _encode(_prompt_usage(prompt))[:-1] + b","
        self._name = b"}," + _encode(_named(prompt, number))[1:] + b"\r\n\r\n"
        self._before = prompt.tokens
        self._thoughts = speech.thinking_tokens
        self._closing = _chunk(self._last(prompt, speech, sections) | _named(prompt, number))
        self._opening = b"".join(
            _chunk(
                {
                    "candidates": [{"content": {"parts": [part], "role": "model"}, "index": 0}],
                    **_named(prompt, number),
                }
            )
            for part in _hosted(prompt, speech, number)
        )
        self.length = sum(1 if each.call is not None else each.length for each in sections)
        self._section = -1
        self._counted = self._calls = self._index = self._length = 0
        self._pieces: tuple[str, ...] = ()
        self._lead = self._field = b""
        self._enter()

    def _last(self, prompt: Prompt, speech: Speech, sections: list[Section]) -> dict[str, Any]:
        usage = {"usageMetadata": _usage(prompt, speech)}
        if _blocked(speech):
            return _FEEDBACK | usage
        reason = _reason(speech, sections)
        if reason == "SAFETY":
            candidate = {"finishReason": reason, "safetyRatings": _RATINGS, "index": 0}
            return {"candidates": [candidate]} | usage
        part: dict[str, Any] = {"text": ""}
        if sections and sections[-1].kind == "text":
            part["thoughtSignature"] = sign(sections[-1].joined())
        content = {"parts": [part], "role": "model"}
        candidate = {"content": content, "finishReason": reason, "index": 0, **_grounding(speech)}
        return {"candidates": [candidate]} | usage

    def _enter(self) -> None:
        self._section += 1
        if self._section == len(self._sections):
            return
        section = self._sections[self._section]
        self._index, self._length, self._pieces = 0, section.length, section.pieces
        self._stamped = self._stamp and section.kind == "text"
        if section.kind == "thinking":
            self._lead, self._field = _THOUGHT, self._fixed + b'"thoughtsTokenCount":'
            return
        if self._thoughts:
            # From here on the thoughts are a part of what came before.
            self._fixed += b'"thoughtsTokenCount":%d,' % self._thoughts
            self._before += self._thoughts
            self._thoughts = self._counted = 0
        self._lead, self._field = _TEXT, self._fixed + b'"candidatesTokenCount":'

    def opening(self) -> bytes:
        """What Google's own tools did; without them Gemini begins with the first token."""
        return self._opening

    def frame(self) -> bytes:
        """The next token as a chunk. O(1), allocates the chunk and its encoded token; `length` chunks in all.

        A call is one chunk: O(length of its arguments).
        """
        section = self._sections[self._section]
        if section.call is not None:
            return self._call(section)
        index = self._index
        pieces = self._pieces
        piece = pieces[index % len(pieces)]
        if self._stamped:
            piece = f"{time.monotonic_ns()} {piece}"
        self._counted = counted = self._counted + 1
        total = self._before + counted
        frame = b"%b%b%b%b%d%b%d%b" % (
            self._lead,
            _encode(piece),
            _TRAIL,
            self._field,
            counted,
            _TOTAL,
            total,
            self._name,
        )
        index += 1
        self._index = index
        if index == self._length:
            self._enter()
        return frame

    def _call(self, section: Section) -> bytes:
        arguments = _arguments(section)
        assert arguments is not None
        part = _encode(_called(section, arguments, self._number, self._calls))
        self._calls += 1
        self._counted += section.length + 1
        total = self._before + self._counted
        frame = b"%b%b%b%b%d%b%d%b" % (
            _PART,
            part,
            _TRAIL[1:],
            self._field,
            self._counted,
            _TOTAL,
            total,
            self._name,
        )
        self._enter()
        return frame

    def unknown(self) -> bytes:
        """A chunk with a field that does not exist, and nothing else."""
        return _UNKNOWN

    def failure(self) -> bytes:
        """The chunk by which the provider tells that it is overloaded."""
        return _FAILURE

    def closing(self) -> bytes:
        """The last chunk: the reason to end and the usage."""
        return self._closing


def _chunk(content: dict[str, Any]) -> bytes:
    return b"data: %b\r\n\r\n" % _encode(content)


_PART = b'data: {"candidates":[{"content":{"parts":['
_TEXT = _PART + b'{"text":'
_THOUGHT = _PART + b'{"thought":true,"text":'
_TRAIL = b'}],"role":"model"},"index":0}],"usageMetadata":'
_TOTAL = b',"totalTokenCount":'
_UNKNOWN = _chunk({"simulatorUnknown": {"of": ["no", "type"]}})
_FAILURE = _chunk(
    {
        "error": {
            "code": 503,
            "message": "The model is overloaded. Please try again later.",
            "status": "UNAVAILABLE",
        }
    }
)
