"""Which agent and which model a command works with."""

from __future__ import annotations

import inspect
import os
from typing import Any, cast

from gossamer.agent import Agent
from gossamer.cli.target import call_without_arguments, load_target
from gossamer.errors import ArgumentError
from gossamer.models.presets import PRESETS
from gossamer.tools.function import tool

__all__ = [
    "QUESTION",
    "base_url",
    "choose_agent",
    "choose_agents",
    "convert",
    "default_model",
    "describe_model",
]

_DEFAULT_MODELS = ("openai:gpt-5-mini", "anthropic:claude-haiku-5-5", "gemini:gemini-3.8-flash")

QUESTION = "What are 20 euros in dollars, at 1.1 dollars a euro?"


@tool(inline=True)
def convert(amount: float, rate: float) -> float:
    """Convert an amount of money.

    Args:
        amount: in the source currency.
        rate: target units for one source unit.
    """
    return round(amount * rate, 2)


def default_model() -> str:
    """Name the model to use where none is asked for.

    It is GOSSAMER_MODEL; else that of the first provider here whose key or base URL is set; else the offline one.
    """
    name = os.environ.get("GOSSAMER_MODEL")
    if name:
        return name
    for model in _DEFAULT_MODELS:
        preset = PRESETS[model.partition(":")[0]]
        if preset.key() or preset.url():
            return model
    return "offline"


def base_url(provider: str) -> str:
    """Say where a known provider is asked, as the environment has it."""
    preset = PRESETS[provider]
    return preset.url() or preset.base_url


def describe_model(model: Any) -> str:
    """Say in a few words which model answers, and where; nothing secret."""
    if not isinstance(model, str):
        return f"{model.name} ({model.dialect})"
    if model == "offline":
        return "offline, no provider is asked; set OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY to ask one"
    from gossamer.wire.url import parse_url

    return f"{model} at {parse_url(base_url(model.partition(':')[0])).origin}"


def choose_agent(target: str | None, model: str | None, instructions: str | None) -> Agent[Any, Any]:
    """Give the agent to run: the user's own, or one with a tool to try.

    Args:
        target: `app.py:agent` or `package.module:agent`; None for the one to try.
        model: in place of the agent's.
        instructions: in place of the agent's.

    Raises:
        ArgumentError: there is no such file, module or agent, or the model names no known provider.
    """
    if target is None:
        return Agent(
            model or default_model(), instructions or "Be brief. Use tools to calculate.", tools=[convert]
        )
    agent = _load_agent(target)
    changes: dict[str, Any] = {}
    if model is not None:
        changes["model"] = model
    if instructions is not None:
        changes["instructions"] = instructions
    return agent.replace(**changes) if changes else agent


def choose_agents(target: str) -> list[Agent[Any, Any]]:
    """Give the agents that a name stands for: one, a list, tuple or dict of them, or what a function gives of these.

    Args:
        target: `app.py:agents` or `package.module:agents`.

    Raises:
        ArgumentError: there is no such file, module or name, it is something else, or two agents have one name.
    """
    found, others = load_target(target, "agents")
    if callable(found) and not isinstance(found, Agent):
        found = call_without_arguments(found, target)
        if inspect.iscoroutine(found):
            found.close()
            raise ArgumentError(
                f"{target!r} is an async function; one that gives agents is a plain one; {others}"
            )
    if isinstance(found, dict):
        found = list(cast("dict[Any, Any]", found).values())
    agents: list[Any] = list(cast("list[Any]", found)) if isinstance(found, list | tuple) else [found]
    for one in agents:
        if not isinstance(one, Agent):
            raise ArgumentError(f"{target!r} gives no agents: one is of type {type(one).__name__}; {others}")
    names = [one.name for one in agents]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ArgumentError(
            f"{target!r} has two agents called {', '.join(twice)}; give each a name of its own"
        )
    return agents


def _load_agent(target: str) -> Agent[Any, Any]:
    agent, others = load_target(target, "agent")
    if not isinstance(agent, Agent):
        raise ArgumentError(f"{target!r} is no agent: it is of type {type(agent).__name__}; {others}")
    return agent  # pyright: ignore[reportUnknownVariableType] - what type it answers with is not known here
