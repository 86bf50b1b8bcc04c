"""How one agent hands a run over to another: who that is, and where the other one goes on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gossamer.context import AgentLike, RunContext
from gossamer.errors import ArgumentError
from gossamer.messages import ToolCall
from gossamer.tools.execution import ToolTurn
from gossamer.tools.function import Tool
from gossamer.tools.toolkit import Toolkit
from gossamer.tools.toolset import Toolset

__all__ = ["GoingOn", "hand_over", "successor_named", "successor_of"]


class GoingOn(msgspec.Struct, frozen=True):
    """Where a run stands that another agent takes over; its session is held already.

    Attributes:
        began: when the run began, on the clock of `perf_counter`.
        turns: the model calls made so far.
        opened: whether it has been recorded that the run began, with its prompt.
    """

    began: float
    turns: int
    opened: bool


def successor_of(turn: ToolTurn, calls: Sequence[ToolCall]) -> AgentLike | None:
    """Give the agent to whom the first call of a turn that hands over does so, once all have results."""
    for call in calls:
        tool = turn.tools.get(call.name)
        if tool is not None and tool.hands_to is not None and turn.results[call.id].outcome == "ok":
            return tool.hands_to()
    return None


def successor_named(name: str, kit: Toolset) -> AgentLike | None:
    """Find the agent of a name among those to whom tools hand over, if only by way of others; None where it is not.

    Tools that a function gives are looked at for the agent that is asked alone.
    """
    waiting = _successors(kit.by_name.values())
    seen: set[int] = set()
    while waiting:
        agent = waiting.pop(0)
        if agent.name == name:
            return agent
        if id(agent) in seen or callable(agent.tools):
            continue
        seen.add(id(agent))
        waiting += _successors(agent.tools)
    return None


def hand_over(context: RunContext[Any], agent: AgentLike, successor: AgentLike) -> None:
    """Record that another agent answers from here on.

    Raises:
        ArgumentError: both have one name, so that a session could not remember which of them answers.
    """
    if successor.name == agent.name and successor is not agent:
        raise ArgumentError(f"two agents called {agent.name!r} hand over; give each a name of its own")
    context.agent = successor.name
    if context.session is not None:
        context.session.hand_over(successor.name)


def _successors(items: Iterable[Any]) -> list[AgentLike]:
    tools = (tool for item in items for tool in (item.tools if isinstance(item, Toolkit) else (item,)))
    return [tool.hands_to() for tool in tools if isinstance(tool, Tool) and tool.hands_to is not None]
