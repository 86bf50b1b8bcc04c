"""The tool that reads what was kept aside because it is too large for the view."""

from __future__ import annotations

import functools
from typing import Any

from gossamer.context import RunContext
from gossamer.tools.function import Tool, tool
from gossamer.tools.offload import Offload, read_part

__all__ = ["reading_tool"]


async def read_offloaded(
    context: RunContext[Any], reference: str, start: int = 0, length: int = 4_000, find: str | None = None
) -> str:
    """Read a part of a long tool result that was kept aside, or find words in it.

    Args:
        context: the run.
        reference: the reference that stands in the shortened result, such as offload-3.
        start: the first character to read.
        length: how many characters to read, at most 20,000.
        find: words to search for instead of reading; regardless of case.
    """
    kept: Offload | None = context.offload if context.session is None else context.session.offload
    if kept is None:
        return "Nothing was kept aside."
    if reference not in kept.texts and context.session is not None:
        stored = await context.session.kept_aside(reference)
        if stored is not None:
            return read_part(stored, start, length, find)
    return kept.read(reference, start, length, find)


@functools.cache
def reading_tool() -> Tool[..., Any]:
    """Give the tool; built when something is kept aside for the first time."""
    return tool(max_result_chars=30_000)(read_offloaded)
