"""A session: a conversation that remembers, can be taken back, and can be stored."""

from __future__ import annotations

import asyncio

from gossamer import Agent, Session

agent = Agent("offline")


async def main() -> None:
    session = Session(id="ticket-42", window=100)
    await agent.run("My name is Ada.", session=session)
    await agent.run("What is my name?", session=session)
    print(f"{len(session.messages)} messages:")
    for message in session.messages:
        print(f"  {message.role}: {message.text}")

    session.rewind(session.starts[-1])
    print(f"{len(session.messages)} messages after the last question was taken back")

    stored = session.export()
    again = Session.from_export(stored)
    result = await agent.run("Who am I?", session=again)
    print(f"{again.id} goes on: {result.output}")


if __name__ == "__main__":
    asyncio.run(main())
