"""The tool with which a model switches toolkits on and off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from gossamer.context import RunContext
from gossamer.tools.function import Tool, tool
from gossamer.tools.toolkit import Toolkit

__all__ = ["switching_tool"]


def switching_tool(toolkits: Sequence[Toolkit]) -> Tool[..., Any]:
    """Make the tool for toolkits that the model may switch.

    Its description does not tell which are on: it would change with them, and with it the beginning of each prompt.
    """
    names = tuple(toolkit.name for toolkit in toolkits)

    def switch_toolkit(context: RunContext, toolkit: Any, on: bool) -> str:
        context.switch(toolkit, on=on)
        return f"{toolkit} is {'on' if on else 'off'} from your next answer on."

    switch_toolkit.__annotations__["toolkit"] = Literal[names]
    lines = "".join(f"\n- {one.name}: {one.description or 'no description'}" for one in toolkits)
    description = f"Switch a group of tools on or off; their tools are there from your next answer on.{lines}"
    return tool(inline=True, description=description)(switch_toolkit)
