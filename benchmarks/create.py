"""What does it cost to build an agent, and to begin a session?"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec

from benchmarks.measure import Row, cpu_of_statements, publish, rival_row
from benchmarks.prebuilt import PrebuiltModel
from gossamer import Agent, Session, tool

COUNT = 10_000


def search(query: str, limit: int = 10) -> str:
    """Search the catalogue.

    Args:
        query: what to look for.
        limit: the most results to return.
    """
    return f"{query} {limit}"


def convert(amount: float, rate: float) -> float:
    """Convert an amount of money.

    Args:
        amount: in the source currency.
        rate: target units for one source unit.
    """
    return amount * rate


def weather(city: str, days: int = 1) -> str:
    """Tell the weather.

    Args:
        city: where.
        days: how many days ahead.
    """
    return f"{city} {days}"


def note(title: str, text: str, pinned: bool = False) -> str:
    """Keep a note.

    Args:
        title: its title.
        text: its text.
        pinned: whether it stays on top.
    """
    return f"{title} {text} {pinned}"


class FloorAgent(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """An agent's fields and nothing else: no check of any argument."""

    model: Any
    instructions: Any = ""
    name: str = "agent"
    tools: Any = ()
    output: Any = str
    middleware: Any = ()
    guardrails: Any = ()
    limits: Any = None
    settings: Any = None
    memory: Any = None


def retained(build: Callable[[], Any]) -> float:
    """Bytes that each keeps while many of them are alive."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [build() for _ in range(COUNT)]
    gc.collect()
    # The list of them is not theirs.
    size = (tracemalloc.get_traced_memory()[0] - before - kept.__sizeof__()) / COUNT
    tracemalloc.stop()
    assert len({id(one) for one in kept}) == COUNT
    return size


def main() -> None:
    model = PrebuiltModel()
    functions = [search, convert, weather, note]
    tools = [tool(function) for function in functions]
    settled = tuple(tools)
    agent = Agent(model, tools=tools)
    assert [one.name for one in agent.tools] == ["search", "convert", "weather", "note"]
    assert Agent(model, tools=functions).tools[1].schema.parameters["required"] == ["amount", "rate"]

    cpu = cpu_of_statements(
        {
            "plain": "Agent(model)",
            "plain floor": "FloorAgent(model)",
            "tools": "Agent(model, tools=tools)",
            "tools floor": "FloorAgent(model, tools=tuple(tools))",
            "functions": "Agent(model, tools=functions)",
            "session": "Session()",
        },
        globals() | locals(),
    )
    plain, with_tools = rival_row("create"), rival_row("create_tools")
    kept, kept_tools = rival_row("create", "retained_bytes"), rival_row("create_tools", "retained_bytes")
    size = retained(lambda: Agent(model))
    size_tools = retained(lambda: Agent(model, tools=tools))
    floor_size, floor_size_tools = (
        retained(lambda: FloorAgent(model)),
        retained(lambda: FloorAgent(model, tools=tuple(tools))),
    )
    assert Agent(model, tools=settled).tools == settled
    publish(
        "create",
        [
            Row(
                "build an agent",
                "µs",
                cpu["plain"],
                cpu["plain floor"],
                plain,
                "≤ 0.2 µs",
                cpu["plain"] <= 0.2,
            ),
            Row(
                "build an agent with 4 tools",
                "µs",
                cpu["tools"],
                cpu["tools floor"],
                with_tools,
                "≤ 0.4 µs",
                cpu["tools"] <= 0.4,
            ),
            Row(
                "build an agent with 4 plain functions",
                "µs",
                cpu["functions"],
                cpu["tools floor"],
                with_tools,
            ),
            Row("begin a session", "µs", cpu["session"]),
            Row("bytes an agent keeps", "B", size, floor_size, kept),
            Row(
                "bytes an agent with 4 tools keeps",
                "B",
                size_tools,
                floor_size_tools,
                kept_tools,
                "≤ 230 B",
                size_tools <= 230,
            ),
            Row("bytes a session keeps", "B", retained(Session)),
        ],
    )


if __name__ == "__main__":
    main()
