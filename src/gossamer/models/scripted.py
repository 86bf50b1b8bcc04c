"""A model that answers from a script, for tests."""

from __future__ import annotations

import inspect
import re
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from threading import Lock
from typing import Any, TypeAlias, TypeGuard

import msgspec

from gossamer.errors import ArgumentError, ScriptExhaustedError
from gossamer.events import Delta, Event, TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.ids import new_id
from gossamer.messages import Message, Part, Refusal, Text, Thinking, ToolCall
from gossamer.models.base import Capabilities, ModelRequest, ModelResponse, Price
from gossamer.usage import Usage

__all__ = ["Reply", "ScriptedModel", "as_deltas"]

Reply: TypeAlias = str | ToolCall | Sequence[ToolCall] | Sequence[Delta] | ModelResponse | Exception

_ONE_CALL = Usage(model_calls=1)
_WORDS = re.compile(r"\S+\s*|\s+")
_KEPT_REQUESTS = 1000


class ScriptedModel:
    """A model whose answers you write down; no network, no tokens.

    Args:
        reply: a list of replies, given out one by one by a cursor that all runs share, or a function of the
            `ModelRequest`, sync or async. A reply is a text, a `ToolCall`, a list of `ToolCall`, a list of
            deltas, a whole `ModelResponse`, or an exception to raise.
        capabilities: what the model claims to be able to do.
        price: what it claims to cost.

    Attributes:
        requests: what the model was asked, the last 1,000.
    """

    __slots__ = ("_cursor", "_lock", "_replies", "_reply", "capabilities", "price", "requests")

    name = "scripted"
    dialect = "scripted"

    def __init__(
        self,
        reply: Sequence[Reply] | Callable[[ModelRequest], Reply | Awaitable[Reply]],
        *,
        capabilities: Capabilities = Capabilities(),
        price: Price | None = None,
    ) -> None:
        if callable(reply):
            self._reply, self._replies = reply, None
        elif isinstance(reply, str | ModelResponse | ToolCall):
            raise ArgumentError(
                "reply must be a list of replies or a function; put the one reply into a list"
            )
        else:
            self._reply, self._replies = None, tuple(reply)
        self._cursor = 0
        self._lock = Lock()
        self.capabilities = capabilities
        self.price = price
        self.requests: deque[ModelRequest] = deque(maxlen=_KEPT_REQUESTS)

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Give the next reply.

        Raises:
            ScriptExhaustedError: the list is used up.
        """
        return _as_response(await self._next(request))

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | ModelResponse, None]:
        """Give the next reply piece by piece: text word by word, a list of deltas as it is.

        Raises:
            ScriptExhaustedError: the list is used up.
        """
        reply = await self._next(request)
        response = _as_response(reply)
        if _is_deltas(reply):
            for delta in reply:
                yield delta
        else:
            for delta in as_deltas(response.message):
                yield delta
        yield response

    async def _next(self, request: ModelRequest) -> Any:
        self.requests.append(request)
        if self._reply is not None:
            reply = self._reply(request)
            if inspect.isawaitable(reply):
                reply = await reply
        else:
            reply = self._take()
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def _take(self) -> Any:
        assert self._replies is not None
        with self._lock:
            cursor = self._cursor
            self._cursor += 1
        if cursor >= len(self._replies):
            raise ScriptExhaustedError(
                f"the script has {len(self._replies)} replies and was asked for number {cursor + 1}; "
                "add replies, or give a function of the request"
            )
        return self._replies[cursor]


def _is_list(reply: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(reply, list | tuple)


def _is_deltas(reply: Any) -> TypeGuard[Sequence[Any]]:
    return _is_list(reply) and len(reply) > 0 and isinstance(reply[0], Event)


def _as_response(reply: Any) -> ModelResponse:
    if type(reply) is str:
        return ModelResponse(Message("assistant", (Text(reply),)), _ONE_CALL, "stop", "scripted")
    if type(reply) is ModelResponse:
        if any(isinstance(part, ToolCall) and not part.id for part in reply.message.parts):
            parts = tuple(_with_id(part) for part in reply.message.parts)
            return msgspec.structs.replace(reply, message=msgspec.structs.replace(reply.message, parts=parts))
        return reply
    if isinstance(reply, ToolCall):
        reply = (reply,)
    if not _is_list(reply):
        raise ArgumentError(
            f"a reply is a str, ToolCall, list of ToolCall or deltas, ModelResponse or exception, "
            f"not {type(reply).__name__}"
        )
    parts = _assemble(reply) if _is_deltas(reply) else tuple(_with_id(item) for item in reply)
    called = any(isinstance(part, ToolCall) for part in parts)
    message = Message("assistant", parts)
    return ModelResponse(message, _ONE_CALL, "tool_calls" if called else "stop", "scripted")


def _with_id(part: Any) -> Part:
    if isinstance(part, str):
        return Text(part)
    if isinstance(part, ToolCall) and not part.id:
        return msgspec.structs.replace(part, id=new_id())
    return part


def _assemble(deltas: Sequence[Any]) -> tuple[Part, ...]:
    """Join deltas into parts: thinking, then text, then calls."""
    thinking = "".join(delta.text for delta in deltas if isinstance(delta, ThinkingDelta))
    text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    names: dict[str, str] = {}
    arguments: dict[str, list[str]] = {}
    for delta in deltas:
        if isinstance(delta, ToolCallStarted):
            names[delta.call_id], arguments[delta.call_id] = delta.name, []
        elif isinstance(delta, ToolArgumentsDelta):
            arguments[delta.call_id].append(delta.text)
    parts: list[Part] = []
    if thinking:
        parts.append(Thinking(thinking))
    if text:
        parts.append(Text(text))
    parts += [ToolCall(name, "".join(arguments[call_id]) or "{}", call_id) for call_id, name in names.items()]
    return tuple(parts)


def as_deltas(message: Message) -> list[Delta]:
    """Cut a whole message into deltas, text word by word."""
    deltas: list[Delta] = []
    for part in message.parts:
        if isinstance(part, Text | Refusal):
            deltas += [TextDelta(word) for word in _WORDS.findall(part.text)]
        elif isinstance(part, Thinking):
            deltas += [ThinkingDelta(word) for word in _WORDS.findall(part.text)]
        elif isinstance(part, ToolCall):
            deltas.append(ToolCallStarted(part.id, part.name))
            deltas.append(ToolArgumentsDelta(part.id, part.arguments))
    return deltas
