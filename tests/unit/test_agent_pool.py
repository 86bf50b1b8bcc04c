"""Pools of agents that hold something scarce: bounded, checked, cleared, closed."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from gossamer import (
    Agent,
    AgentPool,
    ArgumentError,
    GossamerError,
    PoolExhaustedError,
    ToolCall,
    Toolkit,
    tool,
)
from gossamer.models import ScriptedModel


class Scarce:
    """Makes agents with a resource of their own each, and counts what is open."""

    def __init__(self) -> None:
        self.made = 0
        self.open = 0
        self.most = 0
        self.files: dict[str, list[str]] = {}

    async def make(self) -> Agent:
        self.made += 1
        name = f"agent-{self.made}"

        @contextlib.asynccontextmanager
        async def workspace():
            self.open += 1
            self.most = max(self.most, self.open)
            self.files[name] = []

            @tool
            async def write(words: str) -> str:
                """Write."""
                self.files[name].append(words)
                return f"{name} has {len(self.files[name])}"

            yield [write]
            self.open -= 1

        def reply(request):
            last = request.messages[-1]
            return ToolCall.of("write", words="x") if last.role == "user" else last.parts[0].text

        return Agent(ScriptedModel(reply), name=name, tools=[Toolkit("workspace", open=workspace)])

    def clear(self, agent: Agent) -> None:
        self.files[agent.name].clear()


async def test_no_more_than_size_are_made_and_all_are_closed():
    scarce = Scarce()
    async with AgentPool(scarce.make, size=3, clear=scarce.clear) as pool:
        results = await asyncio.gather(*(pool.run("go") for _ in range(30)))
        assert scarce.most <= 3
        assert pool.statistics.lent == 0
        assert pool.statistics.idle == scarce.made
    assert {result.output.split(" ", 1)[1] for result in results} == {"has 1"}
    assert scarce.open == 0


async def test_an_agent_is_used_again_before_another_is_made():
    scarce = Scarce()
    async with AgentPool(scarce.make, size=3) as pool:
        assert (await pool.run("go")).output == "agent-1 has 1"
        assert (await pool.run("go")).output == "agent-1 has 2"  # nothing clears it
        assert scarce.made == 1


async def test_a_borrower_that_waits_too_long_is_told():
    scarce = Scarce()
    async with AgentPool(scarce.make, size=1, wait_timeout=0.02, max_waiting=1) as pool:
        async with pool.agent():
            waiting = asyncio.create_task(pool.run("go"))
            await asyncio.sleep(0)
            with pytest.raises(PoolExhaustedError, match="1 borrowers wait for one of 1 agents"):
                await pool.run("go")
            with pytest.raises(PoolExhaustedError, match=r"within 0\.02 seconds"):
                await waiting
            assert pool.statistics.waiting == 0
        assert (await pool.run("go")).output == "agent-1 has 1"


async def test_those_who_wait_are_served_in_order_and_one_that_goes_away_is_passed_over():
    scarce, order = Scarce(), []
    async with AgentPool(scarce.make, size=1) as pool:

        async def borrow(number: int) -> None:
            async with pool.agent():
                order.append(number)

        async with pool.agent():
            tasks = [asyncio.create_task(borrow(number)) for number in range(4)]
            while pool.statistics.waiting < 4:
                await asyncio.sleep(0)
            tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [0, 2, 3]
        assert pool.statistics.lent == 0


@pytest.mark.parametrize("verdict", [False, ValueError("sick")])
async def test_one_that_is_not_well_is_replaced(verdict):
    scarce, asked = Scarce(), []

    async def check(agent: Agent) -> bool:
        asked.append(agent.name)
        if isinstance(verdict, Exception):
            raise verdict
        return agent.name != "agent-1"

    async with AgentPool(scarce.make, size=1, check=check) as pool:
        await pool.run("go")
        assert (await pool.run("go")).output == "agent-2 has 1"
        assert asked == ["agent-1"]
        assert pool.statistics.replaced == 1
        assert scarce.open == 1


async def test_one_that_cannot_be_cleared_is_replaced():
    scarce = Scarce()

    async def clear(agent: Agent) -> None:
        raise OSError("stuck")

    async with AgentPool(scarce.make, size=1, clear=clear) as pool:
        await pool.run("go")
        assert pool.statistics.idle == 0
        assert scarce.open == 0
        assert (await pool.run("go")).output == "agent-2 has 1"


async def test_a_borrower_that_fails_or_is_cancelled_leaves_a_cleared_agent():
    scarce, cleared = Scarce(), []

    async def clear(agent: Agent) -> None:
        await asyncio.sleep(0)
        cleared.append(agent.name)

    async with AgentPool(scarce.make, size=1, clear=clear) as pool:
        with pytest.raises(KeyError):
            async with pool.agent():
                raise KeyError
        begun = asyncio.Event()

        async def hang() -> None:
            async with pool.agent():
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hang())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await pool.run("go")
        assert cleared == ["agent-1"] * 3


async def test_what_cannot_be_made_gives_its_place_back():
    tries = []

    def make() -> Agent:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("no licence")
        return Agent("offline")

    async with AgentPool(make, size=1, wait_timeout=1) as pool:
        with pytest.raises(OSError, match="no licence"):
            await pool.run("go")
        assert "go" in (await pool.run("go")).output


async def test_a_pool_that_is_closed():
    scarce = Scarce()
    pool = AgentPool(scarce.make, size=1)
    async with pool.agent():
        waiting = asyncio.create_task(pool.run("go"))
        while not pool.statistics.waiting:
            await asyncio.sleep(0)
        await pool.aclose()
        with pytest.raises(GossamerError, match="closed"):
            await waiting
    assert scarce.open == 0
    with pytest.raises(GossamerError, match="closed"):
        await pool.run("go")


def test_a_pool_belongs_to_one_loop():
    pool = AgentPool(lambda: Agent("offline"))
    asyncio.run(pool.run("x"))
    with pytest.raises(ArgumentError, match="one event loop"):
        asyncio.run(pool.run("x"))


@pytest.mark.parametrize("wrong", [{"size": 0}, {"wait_timeout": 0}, {"max_waiting": -1}, {"make": 3}])
def test_what_no_pool_can_be_made_of(wrong):
    with pytest.raises(ArgumentError):
        AgentPool(**{"make": lambda: Agent("offline"), **wrong})


async def test_make_must_give_an_agent():
    with pytest.raises(ArgumentError, match="make gave int"):
        await AgentPool(lambda: 3).run("x")


async def test_a_clearing_that_is_cancelled_from_within_costs_the_agent_and_not_its_place():
    async def clear(agent: Agent) -> None:
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        await task

    scarce = Scarce()
    async with AgentPool(scarce.make, size=1, clear=clear, wait_timeout=1) as pool:
        await pool.run("go")
        assert pool.statistics.lent == 0
        assert (await pool.run("go")).output == "agent-2 has 1"
