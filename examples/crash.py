"""A process is killed while its tools run: another one goes on from what is stored, and charges nobody twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import aclosing
from pathlib import Path

from gossamer import Agent, Session, ToolCall, ToolResult, tool
from gossamer.models import ModelRequest, ScriptedModel
from gossamer.stores import open_store


@tool(inline=True)
def price(article: str) -> str:
    """Look up what an article costs."""
    print(f"  price({article}) runs")
    return "20 euros"


@tool
def charge(amount: float) -> str:
    """Charge the customer's card."""
    print(f"  charge({amount}) runs, and the process is killed", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    return "charged"


@tool(inline=True, idempotent=True)
def stock(article: str) -> str:
    """Look up how many of an article are there."""
    print(f"  stock({article}) runs")
    return "7"


def reply(request: ModelRequest) -> str | list[ToolCall]:
    """Stand in for a model: look up the price, then charge, then tell what came of it."""
    last = request.messages[-1]
    if last.role == "user":
        return [ToolCall.of("price", article="tea")]
    if last.parts[0].name == "price":
        return [ToolCall.of("stock", article="tea"), ToolCall.of("charge", amount=20.0)]
    if any(part.outcome == "unknown" for part in last.parts):
        return "I cannot tell whether your card was charged. I have not tried again; let us look."
    return "Your card was charged."


agent = Agent(ScriptedModel(reply), name="shop", tools=[price, charge, stock])


async def buy(url: str) -> None:
    await agent.run("A pound of tea, please", session=Session("order-7", store=url))


async def go_on(url: str) -> None:
    async with aclosing(open_store(url)) as store:
        for info in await store.list_sessions(status="broken"):
            print(f"session {info.id}: a run of {info.agent} broke off")
            async with Session(info.id, store=store) as session:
                result = await agent.resume(session)
                for message in session.messages:
                    for part in message.parts:
                        if isinstance(part, ToolResult):
                            print(f"the model was told of {part.name}: {part.text}")
                print(f"answer: {result.output}")


def main() -> None:
    if len(sys.argv) > 1:
        asyncio.run(buy(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'shop.db'}"
        print("the first process:", flush=True)
        died = subprocess.run([sys.executable, __file__, url], check=False)  # noqa: S603 - this very file
        print(f"it was killed by signal {-died.returncode}; the second process:")
        asyncio.run(go_on(url))


if __name__ == "__main__":
    main()
