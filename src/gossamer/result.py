"""What a run gives back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias

import msgspec

from gossamer.errors import LimitError, RunPausedError
from gossamer.messages import Message
from gossamer.models.base import FinishReason
from gossamer.records import PendingCall
from gossamer.session import Session
from gossamer.usage import Usage
from gossamer.view import MessageView

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    OutputT = TypeVar("OutputT", default=str)
else:
    from typing import TypeVar

    OutputT = TypeVar("OutputT")

__all__ = ["Result", "RunFinishReason"]

# A model's reasons, and those of a run: stopped by a limit, paused, ended by a tool.
RunFinishReason: TypeAlias = FinishReason | Literal["limit", "paused", "ended_by_tool"]


class Result(msgspec.Struct, Generic[OutputT], frozen=True, eq=False):
    """The end of a run. It points at what was said, never at the agent.

    Attributes:
        value: the output where there is one; read `output`, which checks.
        messages: what the model would see next: the session's view, or all messages of the run.
        run_id: the run's id.
        usage: what the run used, runs inside its tools included.
        finish_reason: why it ended.
        model: the model that answered last, as its provider names it.
        duration: seconds from start to end.
        session: the run's session; one was made for it where tools may pause and none was given.
        pending: the calls that wait for a decision.
        stopped: the limit that stopped the run, or None.
        agent: the name of the agent that answered last.
        new: the messages of this run, as a list that is not to be changed.
    """

    value: Any
    messages: MessageView
    run_id: str
    usage: Usage
    finish_reason: RunFinishReason
    model: str
    duration: float
    session: Session[Any] | None
    new: list[Message]
    pending: tuple[PendingCall, ...] = ()
    stopped: LimitError | None = None
    agent: str = ""

    def __repr__(self) -> str:
        value = f"{self.value!r:.200}"
        return f"Result({self.finish_reason}: {value}, {len(self.new)} new messages, run_id={self.run_id!r})"

    @property
    def output(self) -> OutputT:
        """The answer: text, or a value of the output type.

        Raises:
            LimitError: a limit stopped the run.
            RunPausedError: the run waits for decisions.
        """
        if self.stopped is not None:
            raise self.stopped
        if self.pending:
            names = ", ".join(f"{pending.call.name} ({pending.call_id})" for pending in self.pending)
            raise RunPausedError(
                f"the run is paused and waits for {names}; go on with agent.resume(result.session, {{…}})",
                pending=self.pending,
            )
        return self.value

    @property
    def new_messages(self) -> MessageView:
        """What this run added: the prompt, answers and tool results."""
        return MessageView(self.new, 0, len(self.new))
