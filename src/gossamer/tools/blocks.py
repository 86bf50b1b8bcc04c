"""`async with agent:` — what such blocks hold open."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, MutableMapping

from gossamer.tools.opened import Opened, open_in, opened_on_loop
from gossamer.tools.toolkit import Toolkit

__all__ = ["enter_block", "leave_block"]

# What the blocks of an agent hold on one event loop, the innermost last.
_blocks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, MutableMapping[object, list[list[Opened]]]] = (
    weakref.WeakKeyDictionary()
)


async def enter_block(agent: object, toolkits: Iterable[Toolkit]) -> None:
    """Open toolkits that all runs of the running event loop share, and hold them until the block is left.

    Raises:
        GossamerError: one could not be opened; none is held then, and what nobody else holds is closed.
    """
    held: list[Opened] = []
    try:
        for toolkit in toolkits:
            if toolkit.open is not None and toolkit.scope == "loop":
                one = open_in(opened_on_loop(), toolkit)
                one.users += 1
                held.append(one)
        for one in held:
            await one.ready()
    except BaseException:
        _let_go(held)
        raise
    _blocks_here().setdefault(agent, []).append(held)


async def leave_block(agent: object) -> None:
    """Let go of what a block holds; what nobody else holds is closed."""
    for one in _let_go(_blocks_here()[agent].pop()):
        await one.closed()


def _blocks_here() -> MutableMapping[object, list[list[Opened]]]:
    loop = asyncio.get_running_loop()
    blocks = _blocks.get(loop)
    if blocks is None:
        blocks = _blocks[loop] = weakref.WeakKeyDictionary()
    return blocks


def _let_go(held: list[Opened]) -> list[Opened]:
    """Let go, and begin to close what nobody else holds, which is given back."""
    for one in held:
        one.users -= 1
    closing = [one for one in held if one.users == 0]
    for one in closing:
        one.close()
    return closing
