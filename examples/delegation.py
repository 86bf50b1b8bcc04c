"""An agent as the tool of another one: it works in a journal of its own and its usage is counted in."""

from __future__ import annotations

import asyncio

from gossamer import Agent, Limits, Session, tool


@tool(inline=True)
def multiply(first: float, second: float) -> float:
    """Multiply two numbers.

    Args:
        first: a number.
        second: another one.
    """
    return first * second


accountant = Agent("offline", name="accountant", tools=[multiply])
assistant = Agent(
    "offline",
    name="assistant",
    tools=[accountant.as_tool("ask_accountant", "Answers questions about numbers.")],
    limits=Limits(max_turns=10, max_tool_calls=5),
)


async def main() -> None:
    session = Session()
    result = await assistant.run('Ask the accountant: "What are 6 times 7?"', session=session)
    print(result.output)
    print(
        f"{result.usage.model_calls} model calls and {result.usage.tool_calls} tool calls, both agents together"
    )


if __name__ == "__main__":
    asyncio.run(main())
