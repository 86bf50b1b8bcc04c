"""A conversation that is handed over: the session remembers who answers next."""

from __future__ import annotations

import asyncio

from gossamer import Agent, Session, Toolkit, handoff, tool


@tool(inline=True)
def invoice(number: int) -> str:
    """Look an invoice up.

    Args:
        number: the number on it.
    """
    return f"invoice {number} is paid"


billing = Agent("offline", "You answer about invoices.", name="billing", tools=[Toolkit("books", [invoice])])
desk = Agent(
    "offline", "You find out who can help.", name="desk", tools=[handoff(billing, "About invoices.")]
)


async def main() -> None:
    session = Session("customer-12")
    result = await desk.run("Please hand_over_to_billing: has invoice 7 been paid?", session=session)
    print(f"{result.agent}: {result.output}")

    again = Session.from_export(session.export())  # in another process, days later
    result = await desk.run("And invoice 8?", session=again)
    print(f"{result.agent}: {result.output}")


if __name__ == "__main__":
    asyncio.run(main())
