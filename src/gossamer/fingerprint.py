"""Fingerprints of agents: what tells whether an agent is still the one that began a run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from hashlib import sha256
from typing import Any, cast
from weakref import WeakKeyDictionary

import msgspec

from gossamer.context import AgentLike
from gossamer.records import RunStartedRecord
from gossamer.schema import HostedTool, output_schema
from gossamer.telemetry.logging import logger
from gossamer.tools.function import Tool, as_tool
from gossamer.tools.toolkit import Toolkit

__all__ = ["changes", "fingerprint", "warn_of_changes"]

_PARTS = ("name", "model", "instructions", "tools", "output")
_PART_CHARS = 6

# Weak, so that nothing keeps an agent alive.
_known: WeakKeyDictionary[AgentLike, str] = WeakKeyDictionary()


def fingerprint(agent: AgentLike) -> str:
    """Give the fingerprint of an agent: the same in every process, until something changes how its runs go on.

    In it are, a short hash each: the name; the model, by its string or by dialect and name; the instructions, of a
    function the name alone; the tools, by what the model sees of them, with the fingerprints of agents among them; the
    schema of the output. Not in it: settings and limits, which may be turned without a run going another way; middleware
    and guardrails, whose code a hash cannot see; what tools do; tools that a function gives or a toolkit opens, which are
    known in a run alone; the agents to whom it hands over, which may hand back.

    Cost: a look-up; the first time a hash of all that.

    Args:
        agent: the agent.

    Raises:
        ArgumentError: its output type has no JSON form.
    """
    known = _known.get(agent)
    if known is None:
        model: Any = agent.model
        known = _known[agent] = "-".join(
            [
                _hash(agent.name),
                _hash(model) if isinstance(model, str) else _hash(model.dialect, model.name),
                _hash("text", agent.instructions)
                if isinstance(agent.instructions, str)
                else _hash("function", _name_of(agent.instructions)),
                _hash("function", _name_of(agent.tools))
                if callable(agent.tools)
                else _hash(*sorted(map(_of_tool, agent.tools))),
                _of_output(agent.output),
            ]
        )
    return known


def changes(before: str, now: str) -> tuple[str, ...]:
    """Name what differs between two fingerprints: `name`, `model`, `instructions`, `tools`, `output`."""
    old, new = before.split("-"), now.split("-")
    if len(old) != len(new):
        return ("form of the fingerprint",)  # one of them is of another version of this library
    return tuple(name for name, one, other in zip(_PARTS, old, new, strict=False) if one != other)


def warn_of_changes(session: str, run: RunStartedRecord, agent: AgentLike) -> None:
    """Tell in the log where an agent has changed since it began a run that it is to go on with.

    Nothing is told of a run without a fingerprint, nor where another agent has taken it over.
    """
    if not run.fingerprint or run.agent != agent.name:
        return
    now = fingerprint(agent)
    if now != run.fingerprint:
        what = ", ".join(changes(run.fingerprint, now))
        logger.warning(
            "session %s: agent %r has changed since it began run %s, which it goes on with: %s (fingerprint %s, now %s)",
            session,
            agent.name,
            run.run,
            what,
            run.fingerprint,
            now,
        )


def _of_tool(item: Tool[..., Any] | Toolkit | HostedTool | Callable[..., Any]) -> str:
    if isinstance(item, Toolkit):
        return _hash("toolkit", item.name, item.instructions, *sorted(map(_of_tool, item.choose(item.tools))))
    if isinstance(item, HostedTool):
        return _hash("hosted", item.name, msgspec.json.encode(item.options, order="deterministic").decode())
    tool: Tool[..., Any] = cast("Any", item) if isinstance(item, Tool) else as_tool(item)
    inner = tool.delegates_to
    if inner is None:
        return _hash("tool", tool.fingerprint)
    # What is no agent, as a pool of them, is known by its name alone.
    return _hash(
        "agent", tool.fingerprint, fingerprint(inner) if hasattr(inner, "instructions") else inner.name
    )


def _of_output(output: Any) -> str:
    if output is str:
        return _hash("text")
    schema = output_schema(output)
    return _hash("schema", schema.name, msgspec.json.encode(schema.schema).decode())


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return getattr(function, "__qualname__", None) or type(function).__qualname__  # pyright: ignore[reportUnknownArgumentType]


def _hash(*words: str) -> str:
    whole = sha256()
    for word in words:
        data = word.encode(errors="backslashreplace")
        whole.update(f"{len(data)}:".encode())
        whole.update(data)
    return whole.hexdigest()[:_PART_CHARS]
