"""What does it cost to add a message to a session whose window of 1,000 is full?"""

from __future__ import annotations

import itertools
import time
from collections import deque
from typing import Any

import msgspec

from benchmarks.measure import Row, cpu_of_statements, publish, rival_row
from gossamer import Message, Session

WINDOW = 1_000


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A record of the floor's journal."""

    message: Message
    at: float


class FloorSession:
    """A journal that only grows, and the last messages of it."""

    def __init__(self) -> None:
        self.journal: list[Entry] = []
        self.view: deque[Message] = deque(maxlen=WINDOW)

    def add(self, message: Message) -> None:
        """Keep a message."""
        self.journal.append(Entry(message, time.time()))
        self.view.append(message)


def main() -> None:
    session, floor = Session(window=WINDOW), FloorSession()
    # As in a conversation: a question, then an answer.
    spoken = itertools.cycle([Message.user("How far is it?"), Message.assistant("Not far.")]).__next__
    for _ in range(WINDOW):
        session.add(spoken())
        floor.add(spoken())
    assert len(session.messages) == WINDOW
    names: dict[str, Any] = {"session": session, "floor": floor, "spoken": spoken, "message": Message.user}
    cpu = cpu_of_statements({"ours": "session.add(spoken())", "floor": "floor.add(spoken())"}, names)
    assert WINDOW * 3 / 4 <= len(session.messages) <= WINDOW
    assert len(session.journal) > 2 * WINDOW
    assert session.messages[-1] is session.journal[-1].message or len(session.messages) == WINDOW * 3 / 4
    publish(
        "journal",
        [
            Row(
                "add a message to a full session of 1,000",
                "µs",
                cpu["ours"],
                cpu["floor"],
                rival_row("memory"),
            )
        ],
    )


if __name__ == "__main__":
    main()
