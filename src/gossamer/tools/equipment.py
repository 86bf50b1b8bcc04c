"""The tools of one run whose toolkits are switched, or are to be opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gossamer.context import RunContext
from gossamer.errors import ArgumentError
from gossamer.telemetry.logging import logger
from gossamer.tools.function import Tool
from gossamer.tools.opened import Opened, OpenedToolkits, open_in, opened_on_loop
from gossamer.tools.toolkit import Toolkit
from gossamer.tools.toolset import Toolset, put_together

__all__ = ["Equipment", "needs_equipment"]


def needs_equipment(kit: Toolset, context: RunContext[Any]) -> bool:
    """Tell whether the tools of a run may differ from what its toolset says."""
    return not kit.settled or (context.session is not None and bool(context.session.switches))


# What a kit is put together of before anything is switched or opened.
_PLAIN: tuple[Any, ...] = ((),)


class Equipment:
    """The toolkits of one run: holds open those that are on, and tells the tools as they are now.

    Args:
        context: the run.
        kit: the toolset of its agent.
    """

    __slots__ = ("_closing", "_context", "_held", "_kit", "_known", "_own")

    def __init__(self, context: RunContext[Any], kit: Toolset) -> None:
        self._context = context
        self._kit = kit
        self._known: tuple[Any, ...] = (
            (),
        )  # what the kit was put together of: nothing switched, nothing opened
        self._held: dict[Toolkit, Opened] = {}
        self._own: OpenedToolkits = {}
        self._closing: list[Opened] = []

    def serve(self, kit: Toolset) -> None:
        """Serve another agent of the run from here on; what is open stays open until the run ends."""
        self._kit, self._known = kit, _PLAIN

    async def toolset(self) -> Toolset:
        """Give the tools as they are now, after opening what has been switched on. O(toolkits) where nothing changed.

        Tools that have changed to a name that is taken leave everything as it was.

        Raises:
            GossamerError: a toolkit could not be opened.
            ArgumentError: two tools of one name.
        """
        switches = self._context.switched
        opened: dict[Toolkit, tuple[Sequence[Tool[..., Any]], str]] = {}
        fresh = False
        for toolkit in self._kit.toolkits:
            if toolkit.open is None or not switches.get(toolkit.name, toolkit.on):
                continue
            one = self._held.get(toolkit)
            if one is None:
                fresh = True
                one = self._held[toolkit] = open_in(self._scope(toolkit), toolkit)
                one.users += 1
                await one.ready()
            opened[toolkit] = one.tools, one.instructions
        known = (tuple(switches.items()), *opened.values())
        if known != self._known:
            try:
                self._kit = put_together(self._kit.items, switches, opened)
            except ArgumentError as error:
                if fresh or known[0] != self._known[0]:
                    raise
                logger.warning("tools that changed are not taken over: %s", error)
            self._known = known
        return self._kit

    def release(self, *, with_session: bool = False) -> None:
        """Let go of everything, and begin to close what was opened for this run alone.

        Args:
            with_session: whether the run's session was made for it, and ends with it.
        """
        for toolkit, one in self._held.items():
            one.users -= 1
            if toolkit.scope == "run" or (with_session and toolkit.scope == "session"):
                one.close()
                self._closing.append(one)
        self._held.clear()

    async def closed(self) -> None:
        """Wait until what was opened for this run alone is closed."""
        for one in self._closing:
            await one.closed()

    def _scope(self, toolkit: Toolkit) -> OpenedToolkits:
        if toolkit.scope == "run":
            return self._own
        return self._context.session.opened if toolkit.scope == "session" else opened_on_loop()
