"""OpenAI Responses: speech → one JSON answer, or a stream of events."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from gossamer.simulator.hosted import HostedUse, found_in
from gossamer.simulator.openai_responses.request import Echo, encrypted
from gossamer.simulator.replies import Prompt
from gossamer.simulator.speech import Section, Speech

__all__ = ["ResponseStream", "whole_answer"]

_encode = msgspec.json.encode

# --- speech → answer ----------------------------------------------------------------------------------------

_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}
_PREFIXES = {"thinking": "rs", "text": "msg", "call": "fc"}
_HOSTED_PREFIXES = {"web_search": "ws", "code_execution": "ci"}
# What a stream tells of a hosted call, between its beginning and its end.
_STEPS = {
    "web_search": ("web_search_call", ("in_progress", "searching", "completed")),
    "code_execution": ("code_interpreter_call", ("in_progress", "interpreting", "completed")),
}


def _usage(tokens: int, cached_tokens: int, speech: Speech) -> dict[str, Any]:
    return {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": cached_tokens, "cache_write_tokens": 0},
        "output_tokens": speech.tokens,
        "output_tokens_details": {"reasoning_tokens": speech.thinking_tokens},
        "total_tokens": tokens + speech.tokens,
    }


class _Answer:
    """One answer's items and its response object."""

    __slots__ = ("_created", "_number", "_tokens", "echo", "sections", "speech")

    def __init__(self, prompt: Prompt, speech: Speech, number: int) -> None:
        self.echo: Echo = prompt.wire
        self.speech = speech
        self.sections = [section for section in speech.with_hosted() if section.kind != "found"]
        self._number = number
        self._created = int(time.time())
        # The prompt itself is not kept: ten thousand streams would hold ten thousand questions.
        self._tokens = (prompt.tokens, prompt.cached_tokens)

    def item_id(self, index: int) -> str:
        section = self.sections[index]
        prefix = _PREFIXES[section.kind] if section.hosted is None else _HOSTED_PREFIXES[section.hosted.name]
        return f"{prefix}_{self._number:040d}{index:08d}"

    def started(self, index: int) -> dict[str, Any]:
        """An item before its first token."""
        section = self.sections[index]
        item: dict[str, Any] = {"id": self.item_id(index)}
        if section.hosted is not None:
            return item | {"status": "in_progress"} | self._hosted(section.hosted, done=False)
        if section.call is not None:
            item |= {"type": "function_call", "status": "in_progress", "arguments": ""}
            return item | {"call_id": self._call_id(index), "name": section.call.name}
        if section.kind == "thinking":
            return item | {"type": "reasoning", "summary": []}
        return item | {"type": "message", "status": "in_progress", "content": [], "role": "assistant"}

    def item(self, index: int) -> dict[str, Any]:
        """An item behind its last token. O(length of its text)."""
        section = self.sections[index]
        said = section.joined()
        item = self.started(index)
        if section.hosted is not None:
            return item | {"status": "completed"} | self._hosted(section.hosted, done=True)
        if section.kind == "thinking":
            if self.echo.summary:
                item["summary"] = [{"type": "summary_text", "text": said}]
            if self.echo.encrypted:
                item["encrypted_content"] = encrypted(item["id"], said)
            return item
        cut = self.speech.finish in _REASONS and index == len(self.sections) - 1
        item["status"] = "incomplete" if cut else "completed"
        if section.call is not None:
            item["arguments"] = said
        else:
            item["content"] = [self.part(said)]
        return item

    def part(self, said: str) -> dict[str, Any]:
        """The content of a message."""
        if self.speech.finish == "refusal":
            return {"type": "refusal", "refusal": said}
        return {
            "type": "output_text",
            "annotations": self.annotations(said) if said else [],
            "logprobs": [],
            "text": said,
        }

    def annotations(self, said: str) -> list[dict[str, Any]]:
        """The pages that a text rests on, all of it."""
        place = {"start_index": 0, "end_index": len(said)}
        return [
            {"type": "url_citation", "url": url, "title": title, **place}
            for url, title in found_in(self.speech.hosted)
        ]

    def _hosted(self, use: HostedUse, *, done: bool) -> dict[str, Any]:
        if use.name == "web_search":
            action = {"type": "search", "query": use.asked, "queries": [use.asked]}
            return {"type": "web_search_call", **({"action": action} if done else {})}
        printed = [{"type": "logs", "logs": use.printed}] if done and self.echo.outputs else None
        return {
            "type": "code_interpreter_call",
            "code": use.asked if done else "",
            "container_id": f"cntr_{self._number:048d}",
            "outputs": printed,
        }

    def running(self) -> bytes:
        """The response before its first item."""
        return self._response("in_progress", {"output": [], "usage": None})

    def failed(self) -> bytes:
        """The response where the server failed."""
        return self._response("failed", {"output": [], "usage": None, "error": _ERROR})

    def complete(self) -> tuple[str, bytes]:
        """How the response ended, and the response with everything said. O(length of the speech)."""
        fields: dict[str, Any] = {
            "output": [self.item(index) for index in range(len(self.sections))],
            "usage": _usage(*self._tokens, self.speech),
        }
        reason = _REASONS.get(self.speech.finish)
        if reason is not None:
            return "incomplete", self._response(
                "incomplete", fields | {"incomplete_details": {"reason": reason}}
            )
        return "completed", self._response("completed", fields | {"completed_at": int(time.time())})

    def _response(self, status: str, fields: dict[str, Any]) -> bytes:
        usual = {
            "id": f"resp_{self._number:048d}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
        }
        return b"%b,%b}" % (_encode(usual | fields)[:-1], self.echo.fields)

    def _call_id(self, index: int) -> str:
        return f"call_{self._number:016d}{index:08d}"


def whole_answer(prompt: Prompt, speech: Speech, number: int) -> bytes:
    """The answer as one JSON body. O(length of the speech)."""
    return _Answer(prompt, speech, number).complete()[1]


# --- speech → events ----------------------------------------------------------------------------------------


class ResponseStream:
    """The events of one streamed answer, in the order of https://platform.openai.com/docs/api-reference/responses-streaming.

    A token is one delta; what begins and ends an item goes with the token next to it.
    """

    __slots__ = (
        "_answer",
        "_index",
        "_lead",
        "_length",
        "_number",
        "_pieces",
        "_section",
        "_stamp",
        "_stamped",
        "length",
    )

    def __init__(self, prompt: Prompt, speech: Speech, number: int, *, stamp: bool) -> None:
        self._answer = _Answer(prompt, speech, number)
        self._stamp = stamp
        self._number = 0
        self._section = -1
        self.length = speech.tokens - (0 if self._answer.echo.summary else speech.thinking_tokens)

    def opening(self) -> bytes:
        """The response as it was begun, and the beginning of the first item."""
        response = b'"response":' + self._answer.running()
        created = self._event("response.created", response)
        return created + self._event("response.in_progress", response) + self._enter()

    def frame(self) -> bytes:
        """The next token as an event.

        O(1), allocates the event and its encoded token; the last of an item O(length of the item).
        """
        index = self._index
        if index < 0:
            frame = self._added()
        else:
            pieces = self._pieces
            piece = pieces[index % len(pieces)]
            if self._stamped:
                piece = f"{time.monotonic_ns()} {piece}"
            frame = b'%b%b,"sequence_number":%d}\n\n' % (self._lead, _encode(piece), self._number)
            self._number += 1
        self._index = index = index + 1
        if index == self._length:
            frame += self._leave() + self._enter()
        return frame

    def unknown(self) -> bytes:
        """An event whose type is none of the API's."""
        return self._event("response.simulator_unknown", b'"of":["no","type"]')

    def failure(self) -> bytes:
        """The event of an error on the server, and the response that failed by it."""
        error = self._event(
            "error", b'"code":"server_error","message":%b,"param":null' % _encode(_ERROR["message"])
        )
        return error + self._event("response.failed", b'"response":' + self._answer.failed())

    def closing(self) -> bytes:
        """The response with everything said. O(length of the speech)."""
        ending, response = self._answer.complete()
        return self._event(f"response.{ending}", b'"response":' + response)

    def _event(self, kind: str, fields: bytes) -> bytes:
        name = kind.encode()
        event = b'event: %b\ndata: {"type":"%b",%b,"sequence_number":%d}\n\n' % (
            name,
            name,
            fields,
            self._number,
        )
        self._number += 1
        return event

    def _added(self) -> bytes:
        item = _encode(self._answer.started(self._section))
        return self._event(
            "response.output_item.added", b'"output_index":%d,"item":%b' % (self._section, item)
        )

    def _done(self) -> bytes:
        item = _encode(self._answer.item(self._section))
        return self._event(
            "response.output_item.done", b'"output_index":%d,"item":%b' % (self._section, item)
        )

    def _enter(self) -> bytes:
        """Begin the next item; one that is not shown begins and ends at once."""
        events = b""
        sections = self._answer.sections
        self._section += 1
        while self._section < len(sections):
            section = sections[self._section]
            if section.hosted is not None:
                events += self._hosted(section.hosted)
                self._section += 1
                continue
            if section.kind != "thinking" or self._answer.echo.summary:
                return events + self._show(section)
            events += self._added() + self._done()
            self._section += 1
        return events

    def _hosted(self, use: HostedUse) -> bytes:
        """All that a stream tells of a call of a tool of OpenAI's: nothing of it is said by the model."""
        kind, steps = _STEPS[use.name]
        where = b'"output_index":%d,"item_id":"%b"' % (
            self._section,
            self._answer.item_id(self._section).encode(),
        )
        events = self._added() + self._event(f"response.{kind}.{steps[0]}", where)
        if use.name == "code_execution":
            code = _encode(use.asked)
            events += self._event(
                "response.code_interpreter_call_code.delta", b'%b,"delta":%b' % (where, code)
            )
            events += self._event("response.code_interpreter_call_code.done", b'%b,"code":%b' % (where, code))
        for step in steps[1:]:
            events += self._event(f"response.{kind}.{step}", where)
        return events + self._done()

    def _show(self, section: Section) -> bytes:
        self._index, self._length, self._pieces = 0, section.length, section.pieces
        self._stamped = self._stamp and section.kind == "text"
        kind, where = self._kind(section), self._where(section)
        self._lead = b'event: %b.delta\ndata: {"type":"%b.delta",%b,"delta":' % (kind, kind, where)
        if section.call is not None:
            # Naming the tool is a token of its own.
            self._index = -1
            return b""
        part = {"type": "summary_text", "text": ""} if section.kind == "thinking" else self._answer.part("")
        return self._added() + self._event(
            f"{_PARTS[section.kind]}.added",
            b'%b,"part":%b' % (self._where(section, logprobs=False), _encode(part)),
        )

    def _leave(self) -> bytes:
        section = self._answer.sections[self._section]
        said = section.joined()
        kind = self._kind(section).decode()
        where = self._where(section)
        if section.call is not None:
            arguments = self._event(f"{kind}.done", b'%b,"arguments":%b' % (where, _encode(said)))
            return arguments + self._done()
        cited = b""
        if section.kind == "text" and kind != "response.refusal":
            for place, note in enumerate(self._answer.annotations(said)):
                fields = b'%b,"annotation_index":%d,"annotation":%b' % (
                    self._where(section, logprobs=False),
                    place,
                    _encode(note),
                )
                cited += self._event("response.output_text.annotation.added", fields)
        field = b"refusal" if kind == "response.refusal" else b"text"
        text = self._event(f"{kind}.done", b'%b,"%b":%b' % (where, field, _encode(said)))
        part = (
            {"type": "summary_text", "text": said} if section.kind == "thinking" else self._answer.part(said)
        )
        fields = b'%b,"part":%b' % (self._where(section, logprobs=False), _encode(part))
        return cited + text + self._event(f"{_PARTS[section.kind]}.done", fields) + self._done()

    def _kind(self, section: Section) -> bytes:
        if section.kind == "text" and self._answer.speech.finish == "refusal":
            return b"response.refusal"
        return _KINDS[section.kind]

    def _where(self, section: Section, *, logprobs: bool = True) -> bytes:
        where = b'"item_id":"%b","output_index":%d' % (
            self._answer.item_id(self._section).encode(),
            self._section,
        )
        if section.kind == "thinking":
            return where + b',"summary_index":0'
        if section.kind == "call":
            return where
        with_logprobs = logprobs and self._answer.speech.finish != "refusal"
        return where + (b',"content_index":0,"logprobs":[]' if with_logprobs else b',"content_index":0')


_KINDS = {
    "thinking": b"response.reasoning_summary_text",
    "text": b"response.output_text",
    "call": b"response.function_call_arguments",
}
_PARTS = {"thinking": "response.reasoning_summary_part", "text": "response.content_part"}
_ERROR = {
    "code": "server_error",
    "message": "The server had an error while processing your request. Sorry about that!",
}
