"""Toolkits that hold something open: when it is opened, who shares it, and that it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import AsyncIterator

import pytest

from gossamer import (
    Agent,
    Approve,
    ArgumentError,
    Limits,
    Session,
    Tool,
    ToolCall,
    Toolkit,
    ToolkitError,
    tool,
)
from gossamer.models import ScriptedModel


class Resource:
    """Something to open: counts, and remembers in which tasks it was entered and left."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.opened = self.closed = 0
        self.fail = fail
        self.tasks: list[object] = []

    @property
    def live(self) -> int:
        return self.opened - self.closed

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[list[Tool]]:
        await asyncio.sleep(0)
        if self.fail is not None:
            raise self.fail
        self.opened += 1
        self.tasks.append(asyncio.current_task())
        number = self.opened

        @tool
        async def which() -> int:
            """Tell which connection this is."""
            return number

        try:
            async with asyncio.timeout(60):  # must be left in the task that entered it
                yield [which]
        finally:
            self.tasks.append(asyncio.current_task())
            self.closed += 1


def agent_with(kit: Toolkit, runs: int = 1) -> Agent:
    return Agent(ScriptedModel([ToolCall.of("which"), "done"] * runs), tools=[kit])


def answers(result) -> list[str]:
    return [part.text for message in result.messages if message.role == "tool" for part in message.parts]


async def soon(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_all_runs_of_a_loop_share_it_and_a_block_closes_it():
    resource = Resource()
    agent = agent_with(Toolkit("r", open=resource.open), runs=4)
    async with agent:
        assert resource.live == 1
        results = await asyncio.gather(*(agent.run("x") for _ in range(2)))
        assert resource.opened == 1
    assert resource.live == 0
    assert {one.output for one in results} == {"done"}
    assert len(set(resource.tasks)) == 1
    assert resource.tasks[0] is not asyncio.current_task()


async def test_it_is_opened_at_the_first_use_and_stays_open_for_the_next_run():
    resource = Resource()
    agent = agent_with(Toolkit("r", open=resource.open), runs=2)
    assert resource.opened == 0
    assert answers(await agent.run("x")) == ["1"]
    assert answers(await agent.run("x")) == ["1"]
    assert resource.live == 1
    async with agent:
        pass
    assert resource.live == 0


def test_each_loop_opens_its_own_and_it_is_closed_with_it(watch):
    watch.patience = 0
    resource = Resource()
    agent = agent_with(Toolkit("r", open=resource.open), runs=2)
    assert answers(asyncio.run(agent.run("x"))) == ["1"]
    assert resource.live == 0
    assert answers(asyncio.run(agent.run("x"))) == ["2"]
    assert resource.live == 0
    assert len(watch.leaked_tasks) == 2  # they lasted as long as their loops, as they are meant to
    watch.leaked_tasks.clear()


async def test_it_is_closed_when_nobody_has_the_toolkit_any_more():
    resource = Resource()
    await agent_with(Toolkit("r", open=resource.open)).run("x")
    gc.collect()
    await soon(lambda: resource.live == 0)


async def test_one_for_each_run():
    resource = Resource()
    agent = agent_with(Toolkit("r", open=resource.open, scope="run"), runs=2)
    assert answers(await agent.run("x")) == ["1"]
    assert resource.live == 0
    assert answers(await agent.run("x")) == ["2"]
    assert resource.live == 0


async def test_one_for_each_session():
    resource = Resource()
    agent = agent_with(Toolkit("r", open=resource.open, scope="session"), runs=4)
    async with Session() as one:
        other = Session()
        assert answers(await agent.run("x", session=one)) == ["1"]
        assert answers(await agent.run("x", session=other)) == ["2"]
        assert answers(await agent.run("x", session=one))[-1] == "1"
    assert resource.live == 1
    del other
    gc.collect()
    await soon(lambda: resource.live == 0)
    await agent.run("x", session=one)  # opened anew
    assert resource.live == 1
    await one.aclose()
    assert resource.live == 0


async def test_what_is_off_is_not_opened():
    resource = Resource()
    kit = Toolkit("r", open=resource.open, on=False, switchable=True)
    model = ScriptedModel(
        ["quiet", ToolCall.of("switch_toolkit", toolkit="r", on=True), ToolCall.of("which"), "done"]
    )
    agent = Agent(model, tools=[kit])
    await agent.run("x")
    assert resource.opened == 0
    assert answers(await agent.run("x"))[-1] == "1"
    async with agent:
        pass
    assert resource.live == 0


async def test_what_cannot_be_opened_fails_the_run_and_is_tried_again_by_the_next():
    resource = Resource(OSError("no cable"))
    agent = agent_with(Toolkit("r", open=resource.open))
    with pytest.raises(ToolkitError, match="'r' could not be opened: OSError: no cable"):
        await agent.run("x")
    with pytest.raises(ToolkitError, match="no cable"):
        async with agent:
            pass
    resource.fail = None
    assert answers(await agent.run("x")) == ["1"]
    async with agent:
        pass


async def test_a_failure_leaves_a_session_that_goes_on():
    resource = Resource(OSError("no cable"))
    agent = agent_with(Toolkit("r", open=resource.open, scope="run"))
    session = Session()
    with pytest.raises(ToolkitError):
        await agent.run("x", session=session)
    assert session.unfinished is None
    resource.fail = None
    assert (await agent.run("x", session=session)).output == "done"


async def test_include_of_an_open_toolkit_is_checked_when_it_is_open():
    resource = Resource()
    agent = agent_with(Toolkit("r", open=resource.open, include=["other"], scope="run"))
    with pytest.raises(ArgumentError, match="has no tool other; it has which"):
        await agent.run("x")
    await soon(lambda: resource.live == 0)


async def test_tools_that_change_are_seen_at_the_next_turn():
    @tool(inline=True)
    def grow() -> str:
        """Grow."""
        current[0] = (grow, more)
        return "grown"

    @tool(inline=True)
    def more() -> str:
        """Say more."""
        return "more"

    current = [(grow,)]

    @contextlib.asynccontextmanager
    async def opened():
        yield lambda: current[0]

    model = ScriptedModel([ToolCall.of("grow"), ToolCall.of("more"), "done"])
    result = await Agent(model, tools=[Toolkit("g", open=opened, scope="run")]).run("x")
    assert answers(result) == ["grown", "more"]
    assert [[schema.name for schema in request.tools] for request in model.requests] == [
        ["grow"],
        ["grow", "more"],
        ["grow", "more"],
    ]


@pytest.mark.parametrize("how", ["cancel", "limit", "leave", "error"])
async def test_it_is_closed_however_a_run_ends(how):
    resource = Resource()
    waiting = asyncio.Event()

    @tool
    async def hang() -> str:
        """Hang."""
        waiting.set()
        await asyncio.Event().wait()

    kit = Toolkit("r", [hang], open=resource.open, scope="run")
    model = ScriptedModel(
        [ToolCall.of("hang"), ValueError("broken")] if how != "error" else [ValueError("x")]
    )
    agent = Agent(model, tools=[kit])
    if how == "cancel":
        task = asyncio.create_task(agent.run("x"))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif how == "limit":
        result = await agent.run("x", limits=Limits(max_seconds=0.05))
        assert result.stopped is not None
    elif how == "leave":
        async with agent.stream("x") as stream:
            async for event in stream:
                if type(event).__name__ == "MessageFinished":
                    break
    else:
        with pytest.raises(ValueError, match="x"):
            await agent.run("x")
    assert resource.opened == 1
    await soon(lambda: resource.live == 0)


async def test_what_does_not_close_holds_nobody_up(monkeypatch):
    monkeypatch.setattr("gossamer.tools.opened.CLOSING_SECONDS", 0.05)
    cancelled = []

    @contextlib.asynccontextmanager
    async def stubborn():
        yield []
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    agent = Agent(ScriptedModel(["done"]), tools=[Toolkit("s", open=stubborn, scope="run")])
    assert (await agent.run("x")).output == "done"
    await soon(lambda: cancelled)


async def test_the_run_that_opened_it_is_not_kept_alive():
    class Deps:
        pass

    resource = Resource()
    agent = agent_with(Toolkit("r", open=resource.open))
    deps = Deps()
    kept = weakref.ref(deps)
    await agent.run("x", deps=deps)
    del deps
    gc.collect()
    assert kept() is None
    async with agent:
        pass


async def test_a_block_lets_go_of_what_it_holds_and_of_nothing_else():
    resource = Resource()
    started, go_on = asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> str:
        """Wait."""
        started.set()
        await go_on.wait()
        return "waited"

    kit = Toolkit("r", [wait], open=resource.open, scope="session")
    agent = Agent(ScriptedModel([ToolCall.of("wait"), "done"]), tools=[kit])
    task = asyncio.create_task(agent.run("x"))
    await started.wait()
    async with agent:
        async with agent:
            pass
    assert resource.live == 1
    go_on.set()
    result = await task
    await result.session.aclose()
    assert resource.live == 0


async def test_what_inner_agents_open_for_their_sessions_is_closed_with_them():
    resource = Resource()
    inner = agent_with(Toolkit("r", open=resource.open, scope="session"), runs=3)
    calls = [ToolCall.of("ask", prompt="x") for _ in range(3)]
    outer = Agent(ScriptedModel([*calls, "done"]), tools=[inner.as_tool("ask", "Asks.")])
    await outer.run("x", session=Session())
    assert (resource.opened, resource.closed) == (3, 3)


async def test_what_a_run_without_a_session_opens_ends_with_it_and_outlasts_a_pause():
    resource = Resource()

    @tool(needs_approval=True)
    async def sign() -> str:
        """Sign."""
        return "signed"

    kit = Toolkit("r", [sign], open=resource.open, scope="session")
    calls = [ToolCall.of("which"), ToolCall.of("sign"), ToolCall.of("which"), "done"]
    agent = Agent(ScriptedModel([*calls, "x"]), tools=[kit])
    paused = await agent.run("x")
    assert resource.live == 1
    (call,) = paused.pending
    done = await agent.resume(paused.session, {call.call_id: Approve()})
    assert done.output == "done"
    assert (answers(done)[0], answers(done)[-1], resource.opened) == ("1", "1", 1)
    await paused.session.aclose()
    assert resource.live == 0
    kept = await agent.run("x")  # a result that is kept keeps nothing open
    assert (kept.output, resource.opened, resource.live) == ("x", 2, 0)


async def test_what_a_run_without_a_session_opens_is_closed_where_it_fails():
    resource = Resource()
    kit = Toolkit("r", open=resource.open, scope="session")
    agent = Agent(ScriptedModel([ToolCall.of("which"), ValueError("broken")]), tools=[kit])
    with pytest.raises(ValueError, match="broken"):
        await agent.run("x")
    assert resource.opened == 1
    await soon(lambda: resource.live == 0)


async def test_an_opening_that_nobody_waits_for_any_more_is_cancelled():
    opening, cancelled = asyncio.Event(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def hanging():
        opening.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        yield []

    agent = Agent(ScriptedModel(["x"]), tools=[Toolkit("h", open=hanging, scope="run")])
    task = asyncio.create_task(agent.run("x"))
    await opening.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        await cancelled.wait()


async def test_a_session_that_is_closed_while_a_run_waits_for_an_opening_tells_the_run():
    opening = asyncio.Event()

    @contextlib.asynccontextmanager
    async def hanging():
        opening.set()
        await asyncio.Event().wait()
        yield []

    session = Session()
    agent = Agent(ScriptedModel(["x"]), tools=[Toolkit("h", open=hanging, scope="session")])
    task = asyncio.create_task(agent.run("x", session=session))
    await opening.wait()
    await session.aclose()
    with pytest.raises(ToolkitError, match="closed while it was being opened"):
        await task


async def test_an_open_that_fails_at_once_is_told_like_any_other_and_the_others_are_closed():
    def broken():
        raise OSError("no cable")

    resource = Resource()
    kits = [Toolkit("r", open=resource.open), Toolkit("b", open=broken)]
    agent = Agent(ScriptedModel(["x"]), tools=kits)
    with pytest.raises(ToolkitError, match="'b' could not be opened: OSError: no cable"):
        async with agent:
            pass
    await soon(lambda: resource.live == 0)
    with pytest.raises(ToolkitError, match="no cable"):
        await agent.run("x")
    await soon(lambda: resource.live == 1)  # opened by the run, and kept for the next one
    async with agent.replace(tools=kits[:1]):
        pass
    assert resource.live == 0


async def test_tools_that_change_to_a_name_that_is_taken_leave_everything_as_it_was(caplog):
    @tool(inline=True)
    def grow() -> str:
        """Grow."""
        current[0] = (grow, taken.replace(description="The other one."))
        return "grown"

    @tool(inline=True)
    def taken() -> str:
        """Be there first."""
        return "first"

    current = [(grow,)]

    @contextlib.asynccontextmanager
    async def opened():
        yield lambda: current[0]

    model = ScriptedModel([ToolCall.of("grow"), ToolCall.of("taken"), "done"])
    result = await Agent(model, tools=[taken, Toolkit("g", open=opened, scope="run")]).run("x")
    assert answers(result) == ["grown", "first"]
    assert "are not taken over" in caplog.text


async def test_nothing_of_it_is_kept_when_nobody_has_the_toolkit_any_more():
    class Connection:
        def __init__(self) -> None:
            self.tools = (tool(inline=True, name="ping")(lambda: self.answer()),)

        def answer(self) -> str:
            return "pong"

    connections = []

    @contextlib.asynccontextmanager
    async def opened():
        connection = Connection()
        connections.append(weakref.ref(connection))
        yield lambda: connection.tools

    kit = Toolkit("c", open=opened, needs_approval=True)
    agent = Agent(ScriptedModel([ToolCall.of("ping"), "done"]), tools=[kit])
    paused = await agent.run("x")
    await agent.resume(paused.session, {paused.pending[0].call_id: Approve()})
    del agent, kit, paused

    def gone() -> bool:
        gc.collect()
        return connections[0]() is None

    await soon(gone)


def test_a_block_on_one_loop_closes_nothing_of_another():
    resource = Resource()
    agent = agent_with(Toolkit("r", open=resource.open), runs=2)
    here, there = threading.Event(), threading.Event()
    seen = []

    async def first() -> None:
        async with agent:
            here.set()
            await asyncio.to_thread(there.wait, 10)
        seen.append(resource.live)
        here.clear()

    async def second() -> None:
        await asyncio.to_thread(here.wait, 10)
        async with agent:
            there.set()
            while here.is_set():
                await asyncio.sleep(0)
            seen.append(resource.live)

    thread = threading.Thread(target=asyncio.run, args=(first(),), name="gossamer-tool-test")
    thread.start()
    asyncio.run(second())
    thread.join()
    assert seen == [1, 1]
    assert resource.live == 0
