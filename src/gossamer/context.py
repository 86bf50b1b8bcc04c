"""The context of a run: what tools, instructions and middleware may know, and the model never sees."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias

import msgspec

from gossamer.errors import ArgumentError, LimitError, SteeringError
from gossamer.ids import new_id
from gossamer.messages import Message, ToolCall
from gossamer.records import PendingCall
from gossamer.usage import Usage
from gossamer.view import EncodedMessages, MessageView

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Deps = TypeVar("Deps", default=Any)
else:
    from typing import TypeVar

    Deps = TypeVar("Deps")

__all__ = [
    "AgentLike",
    "CallPaused",
    "CurrentCall",
    "RunContext",
    "current_call",
    "current_hubs",
    "hub_of",
    "open_hubs",
    "session_in_hub",
]


NOTHING = MessageView([])


class RunContext(msgspec.Struct, Generic[Deps], eq=False, weakref=True):
    """One run, as tools, instructions, middleware and hooks may see it.

    Attributes:
        agent: the agent's name.
        deps: what the caller passed as `deps`: connections, settings, the user's record.
        user: on whose behalf the run is made.
        session: the run's session, or None.
        parent: the context of the run in whose tool this run was started, or None.
        run_id: unique, sortable.
        usage: what the run has used so far, runs started inside its tools included.
        messages: what the model sees at the moment.
        new: the messages that the run has added so far; not to be changed.
        budget: what is left of limits on tokens, money and calls, shared by the whole tree of runs.
        retries: how often in a row each tool was handed back to the model.
        offload: where results too large for the view go in a run without a session.
        bodies: encoded messages of a run without a session, by dialect.
        switches: the toolkits that were switched in a run without a session, by name; read `switched`.
        judged: what guardrails' judges and memories' summaries have used since the last answer.
        tell: takes events of runs inside its tools, and waits while the reader is behind; None where nobody listens.
        inbox: messages put into the run that the model has not seen yet; see `steer`.
        stopped: the time limit, once it has stopped the run.
        stopping: whether the run is being cancelled by its stream or its time limit.
        kit: the tools as they were when the model was asked last, for the middleware around it; None where nothing lies
            around the model.
        ended: whether the run is over; runs inside its tools make no further calls.
    """

    agent: str
    deps: Deps
    user: str | None = None
    session: Any = None
    parent: RunContext[Any] | None = None
    run_id: str = msgspec.field(default_factory=new_id)
    usage: Usage = Usage()
    messages: MessageView = NOTHING
    new: list[Message] = NOTHING.items
    budget: Any = None
    retries: dict[str, int] | None = None
    offload: Any = None
    bodies: dict[str, EncodedMessages] = {}
    switches: dict[str, bool] | None = None
    judged: Usage | None = None
    tell: Callable[[Any], Awaitable[None]] | None = None
    inbox: deque[Message] | None = None
    stopped: LimitError | None = None
    stopping: bool = False
    kit: Any = None
    ended: bool = False

    @property
    def call(self) -> ToolCall | None:
        """The tool call that is being executed; None outside a tool."""
        current = current_call.get()
        return current[1] if current is not None and current[0] is self else None

    @property
    def state(self) -> Any:
        """The session's state; None where the run has no session."""
        return None if self.session is None else self.session.state

    @property
    def switched(self) -> Mapping[str, bool]:
        """The toolkits that somebody has switched on or off, by name."""
        return (self.switches or _NONE_SWITCHED) if self.session is None else self.session.switches

    def steer(self, message: str | Message) -> None:
        """Put a message into the run: the model sees it at its next turn, and answers it before the run ends.

        May be called from any thread. A message that the run did not come to, because it failed, was stopped or
        paused, is lost: put it into the next one.

        Args:
            message: text, or a user's message.

        Raises:
            SteeringError: the run is over, or 100 messages wait already.
            ArgumentError: it is empty, or not a user's.
        """
        if isinstance(message, str):
            if not message:
                raise ArgumentError('message is ""; a run is steered with words')
            message = Message.user(message)
        elif not isinstance(message, Message) or message.role != "user":  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"message must be text or a user's message, not {message!r:.100}")
        if self.ended:
            raise SteeringError(f"run {self.run_id} is over; put the message into the next one")
        if self.inbox is None:
            self.inbox = deque()
        if len(self.inbox) >= _MOST_STEERING:
            raise SteeringError(
                f"{_MOST_STEERING} messages wait for the next turn of run {self.run_id} already"
            )
        self.inbox.append(message)

    def switch(self, toolkit: str, *, on: bool) -> None:
        """Switch a toolkit on or off, from the next model call on: for the session, or for the run where it has none."""
        if self.session is not None:
            self.session.switch(toolkit, on=on)
        else:
            self.switches = {**(self.switches or {}), toolkit: on}


_MOST_STEERING = 100
_NONE_SWITCHED: Mapping[str, bool] = {}


# The run, the tool call under way, and the turn that it belongs to: a `ToolTurn`, or None in a step of a workflow.
CurrentCall: TypeAlias = tuple[RunContext[Any], ToolCall, Any]

# Set while a tool runs, and copied into the threads and tasks that it starts: a run started in there finds its
# parent here. Never held across an event.
current_call: ContextVar[CurrentCall | None] = ContextVar("gossamer_current_call", default=None)


# The hubs that are open in this process. While there are none, a run looks no further than whether this is empty.
open_hubs: set[Any] = set()

# The hubs in whose blocks the code runs, the innermost first; set by `MessageHub`, seen by tasks and threads started there.
current_hubs: ContextVar[tuple[Any, ...]] = ContextVar("gossamer_current_hubs", default=())


def hub_of(agent: Any) -> Any:
    """Give the innermost open hub around the running code in which an agent takes part, or None."""
    for hub in current_hubs.get():
        if hub.has(agent):
            return hub
    return None


def session_in_hub(agent: Any) -> Any:
    """Give the session of an agent in the hub around the call, or None where it takes part in none."""
    hub = hub_of(agent)
    return None if hub is None else hub.session_for(agent)


class CallPaused(Exception):  # noqa: N818 - a signal between a tool and the loop, never seen by users
    """Raised inside a tool whose own run has paused: the call waits with it.

    Attributes:
        pending: the calls that wait for a decision.
    """

    def __init__(self, pending: tuple[PendingCall, ...]) -> None:
        super().__init__("the run inside this tool has paused")
        self.pending = pending


class AgentLike(Protocol):
    """What the loop reads of an agent; `gossamer.Agent` is one."""

    @property
    def name(self) -> str:
        """The agent's name."""
        ...

    @property
    def model(self) -> Any:
        """A model, or a model string."""
        ...

    @property
    def instructions(self) -> Any:
        """Text, or a function of the context."""
        ...

    @property
    def tools(self) -> Any:
        """A tuple of tools, or a function of the context."""
        ...

    @property
    def output(self) -> Any:
        """The output type."""
        ...

    @property
    def middleware(self) -> Sequence[Any]:
        """Middleware, outermost first."""
        ...

    @property
    def guardrails(self) -> Sequence[Any]:
        """Guardrails."""
        ...

    @property
    def memory(self) -> Any:
        """Memories, or None."""
        ...

    @property
    def limits(self) -> Any:
        """Limits, or None."""
        ...

    @property
    def settings(self) -> Any:
        """Model settings, or None."""
        ...
