"""Agents in one conversation: what one answers, the others have heard."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Self

from gossamer.context import RunContext, current_hubs, open_hubs
from gossamer.delegation import Runnable
from gossamer.errors import ArgumentError
from gossamer.flow.members import members_of
from gossamer.flow.reply import reply_message
from gossamer.holding import running_loop
from gossamer.messages import Message
from gossamer.opening import Prompt, as_messages
from gossamer.records import MessageRecord, Record, RunFinishedRecord
from gossamer.session import Session

__all__ = ["MessageHub"]


class MessageHub:
    """Agents in one conversation: each answer of one is heard by the others.

        async with MessageHub([writer, critic], "Let us name a boat.") as hub:
            await writer()
            await critic()  # has heard what the writer said

    The hub has a session for each participant. Inside the block, calling a participant without a session takes that one:
    `run`, `run_sync` and `stream`, in tasks and threads started there too. When such a run has come to its answer, every
    other participant observes it, as a user's message with the speaker's name as its author: the words of the answer, a
    structured one as JSON, and its media. Thinking and tool calls are not broadcast, nor is anything of a run that failed,
    paused or was stopped by a limit; one that is resumed is heard when it ends.

    A participant that is running, or paused, observes when that run has ended; no more than its session's window holds
    wait for it, 1,000 messages, and the oldest are dropped, as they are from the window. Of hubs within one another, the
    innermost with the participant counts. A hub belongs to the event loop on which its block was entered. Entered
    again, it goes on with the same sessions.

    Args:
        participants: agents with names of their own.
        announcement: what all observe when the block is entered: text, a message, or a list as for `Agent.run`.
        enable_auto_broadcast: whether answers are broadcast; may be set at any time.

    Attributes:
        enable_auto_broadcast: the same.
        loop: the event loop on which the block was entered, or None.

    Raises:
        ArgumentError: an argument is of the wrong type, or two participants share a name.
    """

    __slots__ = ("_announcement", "_open", "_participants", "enable_auto_broadcast", "loop")

    def __init__(
        self,
        participants: Sequence[Runnable],
        announcement: Prompt = None,
        enable_auto_broadcast: bool = True,
    ) -> None:
        self._participants: dict[str, _Participant] = {}
        self._announcement = _observable(announcement)
        self._open = False
        self.enable_auto_broadcast = enable_auto_broadcast
        self.loop: asyncio.AbstractEventLoop | None = None
        for agent in members_of(participants, "hub"):
            self.add(agent)

    @property
    def participants(self) -> tuple[Runnable, ...]:
        """Who takes part, in the order of their coming."""
        return tuple(one.agent for one in self._participants.values())

    @property
    def sessions(self) -> Mapping[str, Session[Any]]:
        """The participants' sessions by name; they stay when the block is left."""
        return MappingProxyType({name: one.session for name, one in self._participants.items()})

    def add(self, agent: Runnable) -> None:
        """Let an agent take part; it observes what is said from now on.

        Raises:
            ArgumentError: it is no agent, or its name is taken.
        """
        members_of([agent], "hub")
        if agent.name in self._participants:
            raise ArgumentError(
                f"two participants of the hub are named {agent.name!r}; give each a name of its own: Agent(…, name=…)"
            )
        participant = self._participants[agent.name] = _Participant(agent)
        if self._open:
            self._listen(participant)

    def remove(self, agent: Runnable | str) -> None:
        """Let an agent take part no longer: what it says is not heard, and it observes nothing more.

        Args:
            agent: the agent, or its name.

        Raises:
            ArgumentError: it takes no part.
        """
        name = agent if isinstance(agent, str) else agent.name
        participant = self._participants.get(name)
        if participant is None or not (isinstance(agent, str) or participant.agent is agent):
            known = ", ".join(self._participants) or "nobody"
            raise ArgumentError(f"{name!r} takes no part in the hub; there are {known}")
        del self._participants[name]
        participant.session.holding.at_end = None

    async def broadcast(self, message: Prompt) -> None:
        """Let every participant observe something.

        Args:
            message: text, a message, or a list as for `Agent.run`; a model's message is observed as a user's.

        Raises:
            ArgumentError: it is empty, or holds tool calls or results.
        """
        messages = _observable(message)
        if not messages:
            raise ArgumentError("there is nothing to broadcast: message is None")
        for participant in self._participants.values():
            for one in messages:
                participant.observe(one)

    async def __aenter__(self) -> Self:
        if self._open:
            raise ArgumentError("the hub is open already; a hub has one block at a time")
        self._open = True
        self.loop = asyncio.get_running_loop()
        open_hubs.add(self)
        current_hubs.set((self, *(hub for hub in current_hubs.get() if hub is not self)))
        for participant in self._participants.values():
            self._listen(participant)
            for message in self._announcement:
                participant.observe(message)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        self.loop = None
        open_hubs.discard(self)
        current_hubs.set(tuple(hub for hub in current_hubs.get() if hub is not self))
        for participant in self._participants.values():
            participant.session.holding.at_end = None
        for participant in tuple(self._participants.values()):
            await participant.session.aclose()

    # --- what agents ask --------------------------------------------------------------------------------------

    def has(self, agent: Runnable) -> bool:
        """Tell whether the hub is open and an agent takes part in it."""
        participant = self._participants.get(agent.name) if self._open else None
        return participant is not None and participant.agent is agent

    def session_for(self, agent: Runnable) -> Session[Any]:
        """Give the session of a participant to a run of it.

        Raises:
            ArgumentError: the run is on another event loop.
        """
        if running_loop() is not self.loop:
            raise ArgumentError(
                f"{agent.name!r} takes part in a hub of another event loop; call it there, use run_sync in threads, or "
                "give it a session"
            )
        return self._participants[agent.name].session

    # --- what sessions tell -----------------------------------------------------------------------------------

    def _listen(self, participant: _Participant) -> None:
        participant.session.holding.at_end = partial(self._heard, participant)

    def _heard(self, speaker: _Participant, context: RunContext[Any], record: Record) -> None:
        """Take notice of a run that lets go of its session: broadcast its answer, and let its agent hear the others."""
        if (
            self.enable_auto_broadcast
            and isinstance(record, RunFinishedRecord)
            and record.run == context.run_id
            and record.finish_reason != "limit"
        ):
            said = speaker.session.messages
            reply = reply_message(record.output, said[-1] if said else None, context.agent)
            if reply is not None:
                for other in self._participants.values():
                    if other is not speaker:
                        other.observe(reply)
        speaker.catch_up()


class _Participant:
    """An agent in a hub, its session, and what it has yet to observe."""

    __slots__ = ("agent", "session", "waiting")

    def __init__(self, agent: Runnable) -> None:
        self.agent = agent
        self.session: Session[Any] = Session()
        self.waiting: deque[Message] = deque(maxlen=self.session.window)

    def observe(self, message: Message) -> None:
        """Put a message into the session, now or when it is free."""
        if self.session.holding.holder is not None or self.session.turn is not None or self.waiting:
            self.waiting.append(message)
        else:
            self.session.add(message)

    def catch_up(self) -> None:
        """Put what waits into the session, whose run is about to let go of it, unless that has paused."""
        session = self.session
        if self.waiting and session.turn is None:
            while self.waiting:
                session.record(MessageRecord(run="", message=self.waiting.popleft()))
            session.trim()


def _observable(prompt: Prompt) -> list[Message]:
    """Turn what somebody says into messages for all to observe.

    Raises:
        ArgumentError: there are tool calls or results among them.
    """
    messages: list[Message] = []
    for message in as_messages(prompt):
        if message.role == "tool" or message.tool_calls:
            raise ArgumentError(
                "tool calls and their results are no matter for a hub; broadcast words and media"
            )
        if message.role == "assistant":
            heard = reply_message(message.text, message, message.author or "assistant")
            messages += [] if heard is None else [heard]
        else:
            messages.append(message)
    return messages
