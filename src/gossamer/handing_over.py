"""How one agent hands a run over to another: who that is, and how it is remembered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gossamer.asking import Emit
from gossamer.context import AgentLike, RunContext
from gossamer.errors import ArgumentError
from gossamer.events import HandoffEvent
from gossamer.messages import ToolCall, ToolResult
from gossamer.models.base import ModelSettings
from gossamer.opening import tools_of
from gossamer.records import HandoffRecord, MessageRecord, RunStartedRecord, ToolResultRecord
from gossamer.setting_up import Setup, set_up
from gossamer.tools.execution import ToolTurn
from gossamer.tools.function import Tool
from gossamer.tools.toolkit import Toolkit
from gossamer.tools.toolset import Toolset

__all__ = ["handed_to", "successor_of", "successors", "take_over", "who_answers"]

# How many agents are looked at for the one that answers next.
_MOST_AGENTS = 1000


async def who_answers(agent: AgentLike, tools: Any, context: RunContext[Any]) -> AgentLike:
    """Give the agent that answers next in a session: one to whom the agent that is asked hands over, or itself.

    It is looked for by the name that the session remembers, by way of others too. Tools that a function gives are
    looked at for the agent that is asked alone.

    Args:
        agent: the agent that is asked.
        tools: in place of its own, or None.
        context: the run.
    """
    name = context.session.answering
    kit = await tools_of(agent.tools if tools is None else tools, context)
    for one in successors(kit.items):
        if one.name == name:
            context.agent = one.name
            return one
    return agent


def successors(tools: Iterable[Any]) -> Iterator[AgentLike]:
    """Give the agents to whom tools hand over, and those to whom these do in turn; of each name the first.

    Args:
        tools: tools and toolkits. Tools that a function gives to one of the agents are not looked at.
    """
    waiting = _successors(tools)
    seen: set[str] = set()
    while waiting and len(seen) < _MOST_AGENTS:
        one = waiting.pop(0)
        if one.name not in seen:
            seen.add(one.name)
            yield one
            waiting += () if callable(one.tools) else _successors(one.tools)


def successor_of(turn: ToolTurn, calls: Sequence[ToolCall]) -> AgentLike | None:
    """Give the agent to whom the first call of a turn that hands over does so, once all calls have results."""
    return _chosen(turn.tools, calls, turn.results)


def handed_to(context: RunContext[Any], kit: Toolset) -> AgentLike | None:
    """Give the agent to whom a run was handed over just before its process died; None where it was not."""
    if not kit.hands_over:
        return None
    results: dict[str, ToolResult] = {}
    for record in reversed(context.session.journal):
        if isinstance(record, HandoffRecord | RunStartedRecord):
            return None
        if isinstance(record, ToolResultRecord):
            results[record.result.call_id] = record.result
        elif isinstance(record, MessageRecord):
            return _chosen(kit.by_name, record.message.tool_calls, results)
    return None


async def take_over(
    context: RunContext[Any],
    setup: Setup,
    successor: AgentLike,
    output: Any,
    settings: ModelSettings | None,
    emit: Emit | None,
) -> None:
    """Let another agent take a run over: it is recorded, told, and set up, and what was said is checked for it.

    Args:
        context: the run.
        setup: what the run needs of the agent that hands over; from here on, of the other one.
        successor: the other one.
        output: see `set_up`.
        settings: see `set_up`.
        emit: takes events, or None.

    Raises:
        ArgumentError: both have one name, so that a session could not remember which of them answers.
        GossamerError: something of the other agent cannot be had, or one of its guardrails stops the run.
    """
    if successor.name == setup.agent.name and successor is not setup.agent:
        raise ArgumentError(f"two agents called {successor.name!r} hand over; give each a name of its own")
    context.agent = successor.name
    context.session.hand_over(successor.name)
    if emit is not None:
        await emit(HandoffEvent(successor.name))
    ready = set_up(successor, context, output, settings, None, emit, setup.equipment)
    setup.become(ready if isinstance(ready, Setup) else await ready)
    if setup.guards is not None:
        said = await setup.guards.said_before(context)
        setup.beside = setup.guards.beside(context, said, setup.model)


def _chosen(
    tools: dict[str, Tool[..., Any]], calls: Sequence[ToolCall], results: dict[str, ToolResult]
) -> AgentLike | None:
    for call in calls:
        tool = tools.get(call.name)
        if tool is None or tool.hands_to is None:
            continue
        result = results.get(call.id)
        if result is not None and result.outcome == "ok":
            return tool.hands_to()
    return None


def _successors(items: Iterable[Any]) -> list[AgentLike]:
    tools = (tool for item in items for tool in (item.tools if isinstance(item, Toolkit) else (item,)))
    return [tool.hands_to() for tool in tools if isinstance(tool, Tool) and tool.hands_to is not None]
