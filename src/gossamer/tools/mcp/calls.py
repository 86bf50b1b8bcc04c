"""A call of an MCP server's tool under way: it belongs to the connection, and outlives the pause of a run."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from mcp_types import ElicitRequestParams, ElicitResult

from gossamer.messages import ToolCall
from gossamer.records import Decision, PendingCall
from gossamer.telemetry.logging import logger
from gossamer.tools.mcp.questions import Question

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Ongoing", "ask", "current"]

# Interim values of a call that nobody has taken yet; beyond this the oldest are dropped.
_MAX_UNTOLD = 100

# Most questions of one call that wait for a person at once; a further one is taken back.
_MOST_QUESTIONS = 16

# The call on whose behalf something is sent: where the transport keeps contexts, a server's question finds its call here.
current: ContextVar[Ongoing | None] = ContextVar("gossamer_mcp_call", default=None)


class Ongoing:
    """A call under way, in a task of its own.

    Args:
        call: the model's call, or None for one made by code.
        run_id: the run that made it.
        answer_timeout: seconds after which a question that nobody answers is given up.

    Attributes:
        call: the model's call, or None.
        run_id: the run that made it.
        answer_timeout: seconds after which a question is given up.
        questions: what the server wants to know before it goes on, answered and not.
        progress: interim values that nobody has taken yet.
        task: what runs it; its result is the server's.
        let_go: gives back its place among the calls at once; None once it has.
        is_sent: whether the server may have it.
    """

    __slots__ = (
        "_woken",
        "answer_timeout",
        "call",
        "is_sent",
        "let_go",
        "progress",
        "questions",
        "run_id",
        "task",
    )

    def __init__(self, call: ToolCall | None, run_id: str, answer_timeout: float) -> None:
        self.run_id = run_id
        self.progress: deque[Any] = deque(maxlen=_MAX_UNTOLD)
        self.let_go: Callable[[], None] | None = None
        self.is_sent = False
        self.call = call
        self.answer_timeout = answer_timeout
        self.questions: list[Question] = []
        self._woken: asyncio.Future[None] | None = None
        self.task: asyncio.Task[Any]

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Begin."""
        self.task = asyncio.get_running_loop().create_task(work, name=name)
        self.task.add_done_callback(self._done)

    def cancel(self) -> None:
        """Give it up; the server is told."""
        self.task.cancel()

    @property
    def pending(self) -> tuple[PendingCall, ...]:
        """What a person is asked, as far as it is not answered."""
        return tuple([one.pending for one in self.questions if not one.answer.done()])

    @property
    def waits_for_answer(self) -> bool:
        """Whether it is known to wait for an answer, so that further questions are not taken for its own."""
        return any(not one.shared and not one.answer.done() for one in self.questions)

    def decide(self, decisions: Mapping[str, Decision]) -> None:
        """Take a person's decisions about its questions."""
        for question in list(self.questions):
            question.decide(decisions)

    async def news(self) -> None:
        """Wait until it is over, has an interim value, or asks something."""
        if not self.task.done():
            self._woken = asyncio.get_running_loop().create_future()
            await self._woken

    async def note(self, progress: float, total: float | None, message: str | None) -> None:
        """Take an interim value; called by the package."""
        value = {"progress": progress, "total": total, "message": message}
        self.progress.append({key: one for key, one in value.items() if one is not None})
        self.wake()

    def _done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # marks it as seen: whoever waits gets it, and perhaps nobody does any more
        for question in list(self.questions):
            question.leave()
        self.wake()

    def wake(self) -> None:
        """Have whoever waits for news look."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


async def ask(calls: Sequence[Ongoing], params: ElicitRequestParams, server: str) -> ElicitResult:
    """Put a server's question to the person behind a run, and wait for the answer.

    Args:
        calls: the call that asks; or those of a run of which one asks, where the server does not say which. All of
            them wait then, and the answer finds the call by the id that the server gave its question.
        params: what it asks.
        server: whose question it is.

    Returns:
        What the person decided; `cancel` where there is nobody to ask, nobody answers in time, or too many wait.
    """
    first = calls[0]
    made = [one.call for one in calls if one.call is not None]
    if not made:
        logger.warning("MCP server %s asks for a person's answer in a call that no run made", server)
        return ElicitResult(action="cancel")
    if any(len(one.questions) >= _MOST_QUESTIONS for one in calls):
        words = "MCP server %s asks more than %d questions at once; the rest is not put to anybody"
        logger.warning(words, server, _MOST_QUESTIONS)
        return ElicitResult(action="cancel")
    name = made[0].name if len({one.name for one in made}) == 1 else server
    try:
        question = Question(params, name, first.run_id, first.answer_timeout, len(calls))
    except ValueError as error:
        logger.warning("MCP server %s: a question is not put to anybody: %s", server, error)
        return ElicitResult(action="cancel")
    for one in calls:
        one.questions.append(question)
        if one.let_go is not None:  # others need not wait for a person
            one.let_go()
            one.let_go = None
        one.wake()
    timer = asyncio.get_running_loop().call_later(first.answer_timeout, question.give_up)
    try:
        return await question.answer
    finally:
        timer.cancel()
        for one in calls:
            one.questions.remove(question)
