"""Time limits wherever a run waits, and results that outlive the last event."""

import asyncio
import gc

import pytest

from gossamer import Agent, Limits, Middleware, Session, ToolCall, tool
from gossamer.events import RunFinished
from gossamer.models import ScriptedModel

SOON = Limits(max_seconds=0.05)


async def forever() -> None:
    await asyncio.Event().wait()


async def test_while_the_session_is_busy() -> None:
    release = asyncio.Event()

    async def slow(request):
        await release.wait()
        return "slow"

    session = Session()
    first = asyncio.create_task(Agent(ScriptedModel(slow)).run("one", session=session))
    await asyncio.sleep(0)
    result = await Agent(ScriptedModel(["never"])).run("two", session=session, limits=SOON)
    assert (result.finish_reason, result.stopped.limit) == ("limit", "max_seconds")
    release.set()
    assert (await first).output == "slow"
    assert (await Agent(ScriptedModel(["three"])).run("three", session=session)).output == "three"


async def test_while_another_run_of_the_session_is_in_the_middle_of_a_tool() -> None:
    release = asyncio.Event()

    @tool
    async def slow() -> str:
        """Waits."""
        await release.wait()
        return "waited"

    session = Session()
    holder = Agent(ScriptedModel([ToolCall.of("slow"), "done"]), tools=[slow])
    first = asyncio.create_task(holder.run("one", session=session))
    await asyncio.sleep(0)
    result = await Agent(ScriptedModel(["never"])).run("two", session=session, limits=SOON)
    assert result.finish_reason == "limit"
    assert session.unfinished is not None  # the first run goes on as if nothing had happened
    release.set()
    assert (await first).output == "done"
    assert [message.role for message in session.messages] == ["user", "assistant", "tool", "assistant"]


async def test_while_tools_are_being_found() -> None:
    async def tools(context):
        await forever()

    result = await Agent(ScriptedModel(["never"]), tools=tools, limits=SOON).run("hi")
    assert result.finish_reason == "limit"


async def test_inside_a_middleware_around_the_run() -> None:
    class Waits(Middleware):
        async def run(self, context, next):
            await forever()

    result = await Agent(ScriptedModel(["never"]), middleware=[Waits()], limits=SOON).run("hi")
    assert result.finish_reason == "limit"
    assert not asyncio.current_task().cancelling()


async def test_a_cancellation_from_outside_wins() -> None:
    cleaning = asyncio.Event()

    @tool
    async def tidy() -> str:
        try:
            await forever()
        finally:
            cleaning.set()
            await forever()

    agent = Agent(ScriptedModel([ToolCall("tidy"), "never"]), tools=[tidy], limits=SOON)
    task = asyncio.create_task(agent.run("hi"))
    await cleaning.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("how", ["break", "cancel"])
async def test_the_result_stays_after_the_last_event(how: str) -> None:
    async with Agent(ScriptedModel(["hello"])).stream("hi") as stream:
        async for event in stream:
            if isinstance(event, RunFinished):
                if how == "break":
                    break
                stream.cancel()
    assert stream.result.output == "hello"


async def test_a_dropped_stream_is_not_held_by_its_timer() -> None:
    session = Session()
    stream = Agent(ScriptedModel(["one two"]), limits=Limits(max_seconds=60)).stream("hi", session=session)
    await anext(stream)
    del stream
    gc.collect()
    assert (await Agent(ScriptedModel(["next"])).run("on", session=session)).output == "next"


async def test_a_tool_that_is_cancelled_from_within_fails_alone() -> None:
    @tool
    async def waits() -> str:
        task = asyncio.ensure_future(forever())
        task.cancel()
        await task

    @tool
    def raises() -> str:
        raise asyncio.CancelledError

    model = ScriptedModel([ToolCall("waits"), [ToolCall("waits"), ToolCall("raises")], "done"])
    result = await Agent(model, tools=[waits, raises]).run("hi")
    outcomes = [
        part.outcome for message in result.messages if message.role == "tool" for part in message.parts
    ]
    assert (result.output, outcomes) == ("done", ["error", "error", "error"])


async def test_a_run_inside_a_thread_ends_with_the_run_around_it() -> None:
    calls = 0
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()

    def reply(request):
        nonlocal calls
        calls += 1
        if calls == 3:
            loop.call_soon_threadsafe(enough.set)
        return ToolCall("nap")

    @tool
    async def nap() -> str:
        await asyncio.sleep(0.001)
        return "napped"

    inner = Agent(ScriptedModel(reply), tools=[nap], limits=Limits(max_turns=100_000))
    ended: asyncio.Future = loop.create_future()

    @tool
    def ask() -> str:
        try:
            return inner.run_sync("x").output
        except Exception as error:
            loop.call_soon_threadsafe(ended.set_result, str(error))
            raise

    task = asyncio.create_task(Agent(ScriptedModel([ToolCall("ask"), "x"]), tools=[ask]).run("hi"))
    await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "has ended" in await asyncio.wait_for(ended, 10)
