"""Toolkits: tools that belong together, switched on and off as one, and what they need open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol, TypeAlias, get_args

import msgspec
from msgspec.structs import force_setattr

from gossamer.errors import ArgumentError
from gossamer.tools.function import NeedsApproval, Tool, as_tool

__all__ = ["Equip", "Equipped", "OnClash", "Scope", "Toolkit"]

# What becomes of a tool whose name another tool before it has.
OnClash: TypeAlias = Literal["raise", "skip", "override", "rename"]

# How long what a toolkit opened stays open: for all runs of a process and event loop, of a session, or for one run.
Scope: TypeAlias = Literal["loop", "session", "run"]


class Equipped(Protocol):
    """What an opened toolkit gives where it has something to say of itself.

    Attributes:
        instructions: stands at the end of the system prompt, behind those of the toolkit.
    """

    @property
    def instructions(self) -> str:
        """What the model is told while the toolkit is on; the same text until it changes."""
        ...

    def __call__(self) -> tuple[Tool[..., Any], ...]:
        """Tell the tools as they are now: the same tuple until they change."""
        ...


# What an opened toolkit gives: its tools, or where they may change, a function that tells them as they are now: the
# same tuple until they do. See `Equipped`.
Equip: TypeAlias = (
    Sequence[Tool[..., Any] | Callable[..., Any]] | Callable[[], tuple[Tool[..., Any], ...]] | Equipped
)


class Toolkit(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """Tools that belong together: `Agent(…, tools=[Toolkit("travel", [flights, hotels]), convert])`. A value.

    A toolkit whose tools need a connection, a process or a folder gives `open`: a function that makes an async
    context manager, which is entered at the first use, in a task of its own, and gives the tools. It is left at the
    end of its `scope`; `async with agent:` holds it open.

    Attributes:
        name: tells toolkits of an agent apart.
        tools: tools and plain functions.
        description: what the model is told when it chooses between toolkits.
        instructions: stands at the end of the system prompt while the toolkit is on.
        on: whether it is on before anybody switched it; `session.switch` and, where the model may, the model do.
        switchable: whether the model may switch it, with the tool `switch_toolkit`.
        needs_approval: as of a tool, for those of its tools that do not say so themselves.
        include: the names of the tools to take; all where None.
        exclude: the names of those to leave out.
        on_clash: what becomes of a tool whose name is taken: `raise` an error, `skip` it, let it `override` the
            other, or `rename` it to `<toolkit>_<tool>`.
        open: makes the async context manager that gives further tools, see `Equip`; None where nothing is to be opened.
        scope: how long it stays open: for the event loop, so that all runs share it, or for a session or a run.

    Raises:
        ArgumentError: an argument cannot be used; the message names it.
    """

    name: str
    tools: Sequence[Tool[..., Any] | Callable[..., Any]] = ()
    description: str = ""
    instructions: str = ""
    on: bool = True
    switchable: bool = False
    needs_approval: NeedsApproval = False
    include: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    on_clash: OnClash = "raise"
    open: Callable[[], AbstractAsyncContextManager[Equip]] | None = None
    scope: Scope = "loop"

    def __post_init__(self) -> None:
        tools: Any = self.tools
        if isinstance(tools, str | bytes) or not hasattr(tools, "__iter__"):
            raise ArgumentError(f"tools of toolkit {self.name!r} must be a list, not {type(tools).__name__}")
        if not isinstance(self.name, str) or not self.name:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"name of a toolkit must be text that is not empty, not {self.name!r}")
        if self.on_clash not in get_args(OnClash):
            raise ArgumentError(
                f"on_clash must be one of {', '.join(get_args(OnClash))}, not {self.on_clash!r}"
            )
        if self.scope not in get_args(Scope):
            raise ArgumentError(f"scope must be one of {', '.join(get_args(Scope))}, not {self.scope!r}")
        if isinstance(self.include, str) or isinstance(self.exclude, str):
            raise ArgumentError(f"include and exclude of toolkit {self.name!r} must be lists of names")
        items: list[Any] = list(tools)
        made = tuple(one if one.__class__ is Tool else as_tool(one) for one in items)
        force_setattr(self, "tools", made)
        if self.open is None:
            self.check_names(made)

    def check_names(self, tools: Sequence[Tool[..., Any]]) -> None:
        """Check that `include` and `exclude` name tools that are there.

        Raises:
            ArgumentError: one names none of these.
        """
        names = {tool.name for tool in tools}
        unknown = sorted({*(self.include or ()), *self.exclude} - names)
        if unknown:
            raise ArgumentError(
                f"toolkit {self.name!r} has no tool {', '.join(unknown)}; it has {', '.join(sorted(names)) or 'none'}"
            )

    def choose(self, tools: Sequence[Any]) -> list[Tool[..., Any]]:
        """Leave out the tools that are not wanted, and let the others need approval where the toolkit says so."""
        return [
            tool
            if not self.needs_approval or tool.needs_approval
            else tool.replace(needs_approval=self.needs_approval)
            for tool in tools
            if (self.include is None or tool.name in self.include) and tool.name not in self.exclude
        ]

    def replace(self, **changes: Any) -> Toolkit:
        """Make a changed copy.

        Raises:
            ArgumentError: there is no such argument, or its value cannot be used.
        """
        try:
            return msgspec.structs.replace(self, **changes)
        except TypeError as error:
            if isinstance(error, ArgumentError):
                raise
            raise ArgumentError(f"Toolkit.replace: {error}") from error
