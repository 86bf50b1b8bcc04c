"""Which agent and which model a command works with."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gossamer.agent import Agent
from gossamer.errors import ArgumentError
from gossamer.models.presets import PRESETS
from gossamer.tools.function import tool

if TYPE_CHECKING:
    from types import ModuleType

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
    found, others = _load(target)
    if callable(found) and not isinstance(found, Agent):
        found = found()
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
    agent, others = _load(target)
    if not isinstance(agent, Agent):
        raise ArgumentError(f"{target!r} is no agent: it is of type {type(agent).__name__}; {others}")
    return agent  # pyright: ignore[reportUnknownVariableType] - what type it answers with is not known here


def _load(target: str) -> tuple[Any, str]:
    """Give what a name stands for, and words about the agents beside it, for errors."""
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise ArgumentError(f"{target!r} names no agent; write app.py:agent or package.module:agent")
    module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    others = ", ".join(key for key, value in vars(module).items() if isinstance(value, Agent))
    others = f"agents in {place}: {others or 'none'}"
    if not hasattr(module, name):
        raise ArgumentError(f"{target!r} is no agent: there is no such name; {others}")
    return getattr(module, name), others


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ArgumentError(f"there is no file {str(path)!r}; write app.py:agent with the path from here")
    # As `python app.py` would: its folder first, so that it finds its neighbours.
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _load_module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ArgumentError(
            f"there is no module {error.name!r}; write package.module:agent or app.py:agent"
        ) from error
