"""What a server asks a person in the middle of a call, and what the person's decision means to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import time
from typing import Any

import msgspec
from mcp_types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult

from gossamer.ids import new_id
from gossamer.messages import ToolCall
from gossamer.records import Answer, Decision, Deny, PendingCall
from gossamer.schema import is_object
from gossamer.tools.mcp.checking import SchemaError, checker

__all__ = ["MAX_QUESTION_BYTES", "Question"]

# A question larger than this is not put to anybody: it would be kept in the session.
MAX_QUESTION_BYTES = 64 * 1024

# How often a person is asked again whose answer does not fit.
_MOST_TRIES = 5


class Question:
    """A question that waits for a person.

    Args:
        params: what the server asks.
        name: the tool in the middle of whose call it asks; the server where that is not known.
        run_id: the run that made the call.
        seconds: after which it is too late to answer.
        askers: how many calls it may be that ask.

    Attributes:
        pending: what the run waits for.
        answer: what the server is told.
        shared: whether it is not known which of several calls asks.

    Raises:
        ValueError: it is too large, or its schema is not valid.
    """

    __slots__ = (
        "_askers",
        "_check",
        "_expires",
        "_name",
        "_params",
        "_run_id",
        "_tries",
        "answer",
        "pending",
        "shared",
    )

    def __init__(
        self, params: ElicitRequestParams, name: str, run_id: str, seconds: float, askers: int = 1
    ) -> None:
        self.shared = askers > 1
        self._askers = askers
        self._params = params
        self._name = name
        self._expires = time() + seconds
        self._run_id = run_id
        self._tries = 0
        self._check = (
            checker(params.requested_schema) if isinstance(params, ElicitRequestFormParams) else None
        )
        self.answer: asyncio.Future[ElicitResult] = asyncio.get_running_loop().create_future()
        self.pending = self._ask("")
        if len(self.pending.call.arguments) > MAX_QUESTION_BYTES:
            raise SchemaError(f"the question has more than {MAX_QUESTION_BYTES} characters")

    def decide(self, decisions: Mapping[str, Decision]) -> None:
        """Take the decision about it, if there is one; where the answer does not fit, ask again."""
        decision = decisions.get(self.pending.call_id)
        if decision is None or self.answer.done():
            return
        if isinstance(decision, Deny):
            self.answer.set_result(ElicitResult(action="decline"))
        elif isinstance(decision, Answer):
            self._take(decision.value)

    def leave(self) -> None:
        """Take note that one of the calls that may ask is over; after the last, nobody wants to know any more."""
        self._askers -= 1
        if self._askers == 0:
            self.give_up()

    def give_up(self) -> None:
        """Tell the server that nobody answered."""
        if not self.answer.done():
            self.answer.set_result(ElicitResult(action="cancel"))

    def _take(self, value: Any) -> None:
        if self._check is None:  # the person has been to the address, and agrees
            self.answer.set_result(ElicitResult(action="accept"))
            return
        content = self._content(value)
        problem = self._check(content)
        if problem is None:
            try:
                self.answer.set_result(ElicitResult(action="accept", content=content))
            except ValueError:
                problem = "only text, numbers, booleans and lists of texts can be sent"
        if problem is not None:
            self._tries += 1
            if self._tries >= _MOST_TRIES:
                self.answer.set_result(ElicitResult(action="decline"))
            else:
                self.pending = self._ask(problem)

    def _content(self, value: Any) -> Any:
        """Let the answer to a question with one blank be the plain value."""
        if is_object(value) or not isinstance(self._params, ElicitRequestFormParams):
            return value
        blanks: Any = self._params.requested_schema.get("properties", {})
        return {next(iter(blanks)): value} if len(blanks) == 1 else value

    def _ask(self, problem: str) -> PendingCall:
        params = self._params
        asked: dict[str, Any] = {"message": params.message}
        if isinstance(params, ElicitRequestFormParams):
            asked["schema"] = params.requested_schema
        else:
            asked["url"] = params.url
        if problem:
            asked["problem"] = f"The last answer does not fit: {problem}"
        arguments = msgspec.json.encode(asked).decode()
        call = ToolCall(self._name, arguments, new_id())
        return PendingCall(call, "question", self._run_id, expires=self._expires)
