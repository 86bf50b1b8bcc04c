"""A tool that needs a person's approval: the run pauses, and goes on later, in another process perhaps."""

from __future__ import annotations

import asyncio

from gossamer import Agent, Approve, Deny, Session, tool


@tool(needs_approval=lambda amount: amount > 100)
def pay(amount: float) -> str:
    """Pay an amount.

    Args:
        amount: in euros.
    """
    return f"{amount:.2f} euros paid"


agent = Agent("offline", tools=[pay])


async def main() -> None:
    print((await agent.run("Pay 20 euros.")).output)  # little enough to need nobody

    result = await agent.run("Pay 500 euros.", session=Session(id="order-7"))
    for waiting in result.pending:
        print(f"waits for approval: {waiting.call.name} {waiting.call.arguments}")
    stored = result.session.export()

    session = Session.from_export(stored)
    decisions = {waiting.call_id: Approve({"amount": 250}) for waiting in session.pending}
    print((await agent.resume(session, decisions)).output)

    result = await agent.run("Pay 900 euros.", session=session)
    decisions = {waiting.call_id: Deny("That is too much.") for waiting in result.pending}
    print((await agent.resume(session, decisions)).output)


if __name__ == "__main__":
    asyncio.run(main())
