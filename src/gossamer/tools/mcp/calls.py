"""A call of an MCP server's tool under way: it belongs to the connection, and outlives the pause of a run."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from mcp_types import ElicitRequestParams, ElicitResult

from gossamer.messages import ToolCall
from gossamer.records import Decision, PendingCall
from gossamer.telemetry.logging import logger
from gossamer.tools.mcp.questions import Question

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Ongoing", "current"]

# Interim values of a call that nobody has taken yet; beyond this the oldest are dropped.
_MAX_UNTOLD = 100

# The call on whose behalf something is sent: where the transport keeps contexts, a server's question finds its call here.
current: ContextVar[Ongoing | None] = ContextVar("gossamer_mcp_call", default=None)


class Ongoing:
    """A call under way, in a task of its own.

    Args:
        call: the model's call, or None for one made by code.
        run_id: the run that made it.
        answer_timeout: seconds after which a question that nobody answers is given up.

    Attributes:
        run_id: the run that made it.
        progress: interim values that nobody has taken yet.
        task: what runs it; its result is the server's.
        let_go: gives back its place among the calls at once; None once it has.
    """

    __slots__ = (
        "_answer_timeout",
        "_call",
        "_questions",
        "_woken",
        "let_go",
        "progress",
        "run_id",
        "task",
    )

    def __init__(self, call: ToolCall | None, run_id: str, answer_timeout: float) -> None:
        self.run_id = run_id
        self.progress: deque[Any] = deque(maxlen=_MAX_UNTOLD)
        self.let_go: Callable[[], None] | None = None
        self._call = call
        self._answer_timeout = answer_timeout
        self._questions: list[Question] = []
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
        return tuple([one.pending for one in self._questions if not one.answer.done()])

    def decide(self, decisions: Mapping[str, Decision]) -> None:
        """Take a person's decisions about its questions."""
        for question in list(self._questions):
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
        self._wake()

    async def ask(self, params: ElicitRequestParams, server: str) -> ElicitResult:
        """Put a server's question to the person behind the run, and wait for the answer.

        Returns:
            What the person decided; `cancel` where there is nobody to ask, or nobody answers in time.
        """
        if self._call is None:
            logger.warning("MCP server %s asks for a person's answer in a call that no run made", server)
            return ElicitResult(action="cancel")
        try:
            question = Question(params, self._call, self.run_id)
        except ValueError as error:
            logger.warning("MCP server %s: a question is not put to anybody: %s", server, error)
            return ElicitResult(action="cancel")
        self._questions.append(question)
        if self.let_go is not None:  # others need not wait for a person
            self.let_go()
            self.let_go = None
        self._wake()
        timer = asyncio.get_running_loop().call_later(self._answer_timeout, question.give_up)
        try:
            return await question.answer
        finally:
            timer.cancel()
            self._questions.remove(question)

    def _done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # marks it as seen: whoever waits gets it, and perhaps nobody does any more
        self._wake()

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
