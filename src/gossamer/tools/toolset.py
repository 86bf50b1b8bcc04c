"""The tools of a run, ready for use: put together once for each tuple of tools and toolkits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from gossamer.errors import ArgumentError
from gossamer.models.hosted import hosted_tools
from gossamer.schema import HostedTool, ToolSchema
from gossamer.tools.function import Tool
from gossamer.tools.switching import switching_tool
from gossamer.tools.toolkit import Toolkit

__all__ = ["NO_TOOLS", "AgentTool", "Toolset", "is_shared", "put_together", "toolset", "with_tools"]

# What an agent's tools are made of, once plain functions among them have become tools.
AgentTool: TypeAlias = Tool[..., Any] | Toolkit | HostedTool


class Toolset(msgspec.Struct, frozen=True, eq=False):
    """The tools of a run, ready for use.

    Attributes:
        by_name: the tools by name, those of toolkits that are on included.
        schemas: what the model sees of them.
        can_pause: whether a call of one of them may have to wait for a decision.
        needs_session: whether a run needs a session: a call may have to wait, now or once toolkits have been switched
            or opened, a tool keeps something there, or another agent may take over.
        reports: whether one of them reports while it runs: interim values, or events of a run inside it.
        hands_over: whether one of them hands the conversation over to another agent.
        instructions: what the toolkits that are on add to the system prompt.
        toolkits: the toolkits, those that are off included.
        settled: whether the toolkits are as they stand here until somebody switches one: none is to be opened.
        items: what all this was made of.
    """

    by_name: dict[str, Tool[..., Any]]
    schemas: tuple[ToolSchema | HostedTool, ...]
    can_pause: bool
    needs_session: bool
    reports: bool
    hands_over: bool = False
    instructions: str = ""
    toolkits: tuple[Toolkit, ...] = ()
    settled: bool = True
    items: tuple[AgentTool, ...] = ()


_kits: dict[tuple[AgentTool, ...], Toolset] = {}
_MAX_KITS = 1024


def toolset(items: tuple[AgentTool, ...]) -> Toolset:
    """Give the toolset of a tuple of tools and toolkits; built once for each tuple, the last 1,024 of them.

    One with a tool that is an agent is built for each run: kept here, it would keep the agent alive. So is one with a
    toolkit that is to be opened, which is closed when nobody has it any more; its tools are put together once it is.

    Cost: a hash of the tuple and a look-up.

    Raises:
        ArgumentError: two tools, or two toolkits, of one name.
    """
    kit = _kits.get(items)
    if kit is None:
        kit = put_together(items, {}, {})
        opens = any(one.open is not None for one in kit.toolkits)
        if (
            not opens
            and not kit.hands_over
            and not any(one.delegates_to is not None for one in kit.by_name.values())
        ):
            if len(_kits) >= _MAX_KITS:
                _kits.clear()
            _kits[items] = kit
    return kit


def put_together(
    items: tuple[AgentTool, ...],
    switches: Mapping[str, bool],
    opened: Mapping[Toolkit, tuple[Sequence[Tool[..., Any]], str]],
) -> Toolset:
    """Build the toolset of tools and toolkits. O(tools).

    Args:
        items: tools and toolkits; of two with one name, the later one says what becomes of it.
        switches: which toolkits have been switched, by name, and to what.
        opened: the tools of toolkits that were opened, and what these have to say of themselves; those of toolkits that
            are not there are left out.

    Raises:
        ArgumentError: two tools, or two toolkits, of one name.
    """
    by_name: dict[str, Tool[..., Any]] = {}
    hosted: list[HostedTool] = []
    toolkits: dict[str, Toolkit] = {}
    words: list[str] = []
    off: list[Any] = []
    for item in items:
        if isinstance(item, Tool):
            _add(by_name, item, None)
        elif isinstance(item, HostedTool):
            hosted.append(item)
        else:
            if item.name in toolkits:
                raise ArgumentError(f"two toolkits are called {item.name!r}; give one another name")
            toolkits[item.name] = item
            if not switches.get(item.name, item.on):
                off += item.choose(item.tools)
                continue
            more, said = opened.get(item, ((), ""))
            for tool in (*item.choose(item.tools), *more):
                _add(by_name, tool, item)
            words += filter(None, (item.instructions, said))
    switchable = tuple((one.name, one.description) for one in toolkits.values() if one.switchable)
    if switchable:
        _add(by_name, switching_tool(switchable), None)
    tools = by_name.values()
    can_pause = any(one.can_pause for one in tools)
    hands_over = any(one.hands_to is not None for one in tools)
    opens = any(one.open is not None for one in toolkits.values())
    return Toolset(
        by_name,
        (*[one.schema for one in tools], *hosted),
        can_pause=can_pause,
        needs_session=can_pause
        or hands_over
        or opens
        or any(one.can_pause or one.hands_to or one.needs_session for one in (*tools, *off)),
        reports=any(
            one.kind in {"generator", "async_generator"} or one.delegates_to is not None for one in tools
        ),
        hands_over=hands_over,
        instructions="\n\n".join(words),
        toolkits=tuple(toolkits.values()),
        settled=not switchable and not opens,
        items=items,
    )


NO_TOOLS = put_together((), {}, {})


def is_shared(kit: Toolset) -> bool:
    """Tell whether a toolset is kept for all runs with the same tools, and so may be kept elsewhere too."""
    return kit is NO_TOOLS or _kits.get(kit.items) is kit


def with_tools(kit: Toolset, tools: Sequence[Tool[..., Any]]) -> Toolset:
    """Add tools to a toolset, before those that the provider runs; one whose name is taken is left out. O(tools).

    Args:
        kit: the toolset; it comes back itself where nothing is added.
        tools: the tools.
    """
    new = [tool for tool in tools if tool.name not in kit.by_name]
    if not new:
        return kit
    by_name = {**kit.by_name, **{tool.name: tool for tool in new}}
    own = len(kit.schemas) - len(hosted_tools(kit.schemas))  # behind them stand those that the provider runs
    schemas = (*kit.schemas[:own], *[tool.schema for tool in new], *kit.schemas[own:])
    return msgspec.structs.replace(kit, by_name=by_name, schemas=schemas)


def _add(by_name: dict[str, Tool[..., Any]], tool: Tool[..., Any], toolkit: Toolkit | None) -> None:
    """Add a tool, by the rule of its toolkit where its name is taken."""
    if tool.name in by_name:
        if toolkit is None or toolkit.on_clash == "raise":
            whose = "" if toolkit is None else f", one of toolkit {toolkit.name!r}"
            raise ArgumentError(
                f"two tools are called {tool.name!r}{whose}; rename one with tool.replace(name=…), "
                "or give its toolkit on_clash='skip', 'override' or 'rename'"
            )
        if toolkit.on_clash == "skip":
            return
        if toolkit.on_clash == "rename":
            tool = tool.replace(name=f"{toolkit.name}_{tool.name}")
            if tool.name in by_name:
                raise ArgumentError(f"two tools are called {tool.name!r}, after one was renamed")
    by_name[tool.name] = tool
