"""A tool with which one agent hands the conversation over to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gossamer.agent import Agent
from gossamer.errors import ArgumentError
from gossamer.flow.team import Team
from gossamer.tools.function import Tool, tool

__all__ = ["handoff"]


def handoff(
    agent: Agent[Any, Any] | Team | Callable[[], Agent[Any, Any] | Team],
    description: str,
    *,
    name: str | None = None,
) -> Tool[..., Any]:
    """Make a tool that hands the conversation over: `Agent(…, tools=[handoff(billing, "Questions about invoices.")])`.

    The other agent goes on with the same run: it sees what was said, answers with its own model, instructions, tools,
    guardrails and output type, and may hand over in turn. The limits, and the middleware around the run, are those of
    the agent that was asked. A session remembers who answers next: asking the first agent again asks the other one.

    Args:
        agent: the agent, or the team, that answers from then on, or a function that gives it, for two that hand over to each other.
        description: what the model is told: when to hand over.
        name: what the model calls the tool; `hand_over_to_<agent>` where None, which a function needs.

    Raises:
        ArgumentError: no agent, or a function without a name.
    """
    if not isinstance(agent, Agent | Team) and callable(getattr(agent, "resume", None)):
        raise ArgumentError(
            f"a handoff goes to an Agent or a Team, not to a {type(agent).__name__}; let it be a tool: .as_tool(…)"
        )
    if isinstance(agent, Agent | Team):
        give: Callable[[], Agent[Any, Any] | Team] = lambda: agent  # noqa: E731 - typed
        name = name or f"hand_over_to_{agent.name}"
    elif callable(agent) and name:
        give = agent
    elif callable(agent):
        raise ArgumentError("a handoff to the agent that a function gives needs a name=")
    else:
        raise ArgumentError(f"a handoff goes to an Agent or a Team, not {type(agent).__name__}")

    def successor() -> Agent[Any, Any]:
        one = give()
        return one.agent if isinstance(one, Team) else one

    def hand_over() -> str:
        return f"{give().name} answers from here on."

    made = tool(name=name, description=description, inline=True, idempotent=True)(hand_over)
    return msgspec.structs.replace(made, hands_to=successor)
