"""Code mode: one piece of Python looks at twenty orders and refunds some; a person decides about one in the middle of it."""

from __future__ import annotations

import asyncio
import json

from gossamer import Agent, Approve, Deny, Session, code_mode, tool
from gossamer.events import InnerEvent, ToolCallFinished

ORDERS = {number: {"id": number, "late": number % 3 == 0, "price": number * 12} for number in range(1, 21)}


@tool(inline=True)
def order(number: int) -> dict:
    """Look up an order.

    Args:
        number: its number, from 1 to 20
    """
    return ORDERS[number]


@tool(needs_approval=lambda number, amount: amount > 100)
async def refund(number: int, amount: float) -> str:
    """Give money back.

    Args:
        number: the order
        amount: in euros
    """
    return f"{amount:.2f} euros for order {number}"


# What a model would write; the offline model takes it from between the prompt's quotes.
CODE = """
import asyncio

orders = await asyncio.gather(*[order(number) for number in range(1, 21)])
late = [one for one in orders if one['late']]
print(len(late), 'of', len(orders), 'orders are late')
for one in late:
    try:
        print(await refund(one['id'], one['price'] / 2))
    except RuntimeError as error:
        print('order', one['id'], '-', error)
"""

agent = code_mode(Agent("offline", "You look after orders.", tools=[order, refund]))


async def main() -> None:
    session = Session()
    calls = 0
    async with agent.stream(f'Run "{CODE}"', session=session) as stream:
        async for event in stream:
            if isinstance(event, InnerEvent) and isinstance(event.event, ToolCallFinished):
                calls += 1
    print(f"{calls} calls done")
    result = stream.result
    while result.pending:
        (pending,) = result.pending
        print(f"waits for a person: {pending.call.name} {pending.call.arguments}")
        number = json.loads(pending.call.arguments)["number"]
        decision = Deny("Not again.") if number == 18 else Approve()
        result = await agent.resume(session, {pending.call_id: decision})
    print(result.output)
    print(f"{result.usage.model_calls} calls of the model, {result.usage.tool_calls} tool calls")


if __name__ == "__main__":
    asyncio.run(main())
