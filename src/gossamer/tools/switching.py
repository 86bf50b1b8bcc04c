"""The tool with which a model switches toolkits on and off."""

from __future__ import annotations

import functools
from typing import Any, Literal

from gossamer.context import RunContext
from gossamer.tools.function import Tool, tool

__all__ = ["switching_tool"]


@functools.lru_cache(maxsize=256)
def switching_tool(toolkits: tuple[tuple[str, str], ...]) -> Tool[..., Any]:
    """Give the tool for toolkits that the model may switch; built once for each.

    Its description does not tell which are on: it would change with them, and with it the beginning of each prompt.

    Args:
        toolkits: the names of the toolkits, each with its description.
    """
    names = tuple(name for name, _ in toolkits)

    def switch_toolkit(context: RunContext, toolkit: Any, on: bool) -> str:
        context.switch(toolkit, on=on)
        return f"{toolkit} is {'on' if on else 'off'} from your next answer on."

    switch_toolkit.__annotations__["toolkit"] = Literal[names]
    lines = "".join(f"\n- {name}: {description or 'no description'}" for name, description in toolkits)
    words = f"Switch a group of tools on or off; their tools are there from your next answer on.{lines}"
    return tool(inline=True, description=words)(switch_toolkit)
