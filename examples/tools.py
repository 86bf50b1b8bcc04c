"""Functions as tools: type hints and docstring tell the model how to call them."""

from __future__ import annotations

import asyncio

from gossamer import Agent, RunContext, tool


@tool(inline=True)  # pure and quick, so it needs no thread
def convert(amount: float, rate: float) -> float:
    """Convert an amount of money.

    Args:
        amount: in the source currency.
        rate: target units for one source unit.
    """
    return round(amount * rate, 2)


async def look_up(context: RunContext[dict[str, str]], name: str) -> str:
    """Look up a person's city.

    Args:
        name: the person's name.
    """
    return context.deps.get(name, "unknown")


agent = Agent("offline", tools=[convert, look_up])


async def main() -> None:
    result = await agent.run("What are 20 euros at 1.1?")
    print(result.output)
    result = await agent.run('Where does "Ada" live?', deps={"Ada": "London"})
    print(result.output)
    print(f"{result.usage.model_calls} model calls, {result.usage.tool_calls} tool call")


if __name__ == "__main__":
    asyncio.run(main())
