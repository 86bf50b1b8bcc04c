"""Runs on sessions that are kept in a store: what another object of the same session finds, and what it is refused."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from gossamer import (
    Agent,
    Answer,
    Approve,
    ArgumentError,
    Image,
    Limits,
    Message,
    RunContext,
    RunPausedError,
    Session,
    SessionBusyError,
    SessionError,
    Text,
    ToolCall,
    tool,
)
from gossamer.errors import SessionChangedError, StoreError
from gossamer.flow import handoff
from gossamer.models import ScriptedModel
from gossamer.records import RunFailedRecord, RunStartedRecord, ToolResultRecord
from gossamer.stores import SQLiteStore, open_store

LONG = "".join(f"line {number}: all is well\n" for number in range(10_000))


@pytest.fixture
async def store(tmp_path):
    async with SQLiteStore(tmp_path / "chats.db") as store:
        yield store


def says(*script):
    return Agent(ScriptedModel(list(script)))


async def test_a_conversation_goes_on_in_another_object(store):
    first = Session("chat", store=store)
    await says("Hello Ada.").run("I am Ada.", session=first, user="ada")
    second = Session("chat", store=store)
    result = await says("You are Ada.").run("Who am I?", session=second)
    assert [message.text for message in result.messages] == [
        "I am Ada.",
        "Hello Ada.",
        "Who am I?",
        "You are Ada.",
    ]
    await says("As I said.").run("Really?", session=first)  # which has to look what happened since
    assert len(first.messages) == 6
    assert first.usage.model_calls == 3
    (info,) = await store.list_sessions()
    assert (info.id, info.user, info.title, info.messages, info.status) == (
        "chat",
        "ada",
        "I am Ada.",
        6,
        "idle",
    )


async def test_nothing_is_told_of_a_session_that_is_not_loaded(store):
    await says("Hello.").run("Hi", session=Session("chat", store=store))
    session = Session("chat", store=store)
    for look in (
        lambda: session.messages,
        lambda: session.pending,
        lambda: session.state,
        lambda: session.usage,
        lambda: session.add(Message.user("x")),
        lambda: session.update(a=1),
        lambda: session.switch("files", on=True),
        lambda: session.rewind(0),
        lambda: session.unfinished,
    ):
        with pytest.raises(SessionError, match="not loaded from its store"):
            look()
    async with session:
        assert len(session.messages) == 2


async def test_start_and_prompt_are_written_together(store):
    asked = asyncio.Event()

    async def slow(request):
        asked.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Agent(ScriptedModel(slow)).run("Hi", session=Session("chat", store=store)))
    await asked.wait()
    records = await store.read("chat", 0, 10)
    while not records:
        records = await store.read("chat", 0, 10)
    assert [type(record).__name__ for record in records] == ["RunStartedRecord", "MessageRecord"]
    (info,) = await store.list_sessions()
    assert (info.status, info.run) == ("running", records[0].run)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    session = Session("chat", store=store)
    await session.load()
    assert session.unfinished is None
    assert any(isinstance(record, RunFailedRecord) for record in session.journal)


async def test_it_is_on_disk_that_a_tool_starts_before_it_does(store):
    found = []

    @tool(inline=True)
    def inline() -> str:
        with ThreadPoolExecutor() as thread:  # as the loop must not be blocked by a database
            found.append(len(thread.submit(store_now).result()))
        return "ok"

    @tool
    async def slow() -> str:
        found.append(len(await store.read("chat", 0, 100)))
        return "ok"

    def store_now():
        with sqlite3.connect(store.url.removeprefix("sqlite:///")) as connection:
            return connection.execute("SELECT * FROM records").fetchall()

    agent = Agent(ScriptedModel([ToolCall.of("inline"), ToolCall.of("slow"), "ok"]), tools=[inline, slow])
    await agent.run("Hi", session=Session("chat", store=store))
    # Start, prompt, answer, started; then result, answer, started.
    assert found == [4, 7]


async def test_a_paused_run_is_decided_about_in_another_object(store):
    ran = []

    @tool(needs_approval=True)
    async def refund(amount: float) -> str:
        ran.append(amount)
        return f"{amount} refunded"

    @tool(run_by="person")
    def ask(question: str) -> str:
        raise NotImplementedError

    agent = Agent(
        ScriptedModel([[ToolCall.of("refund", amount=250.0), ToolCall.of("ask", question="Why?")], "Done."]),
        tools=[refund, ask],
    )
    await agent.run("My money", session=Session("chat", store=store))
    assert [info.status for info in await store.list_sessions(status="paused")] == ["paused"]
    async with Session("chat", store=store) as waiting:
        with pytest.raises(RunPausedError):
            await agent.run("Hello?", session=waiting)
        refunding, asking = waiting.pending
    again = Session("chat", store=store)
    decisions = {refunding.call_id: Approve(args={"amount": 2.0}), asking.call_id: Answer("because")}
    result = await agent.resume(again, decisions)
    assert (result.output, ran) == ("Done.", [2.0])
    assert (await store.list_sessions())[0].status == "idle"


async def test_a_paused_run_inside_a_tool_is_decided_about_in_another_object(store):
    @tool(needs_approval=True)
    async def refund(amount: float) -> str:
        return f"{amount} refunded"

    clerk = Agent(
        ScriptedModel([ToolCall.of("refund", amount=250.0), "Refunded."]), name="clerk", tools=[refund]
    )
    desk = Agent(
        ScriptedModel([ToolCall.of("ask_clerk", prompt="Refund 250"), "All settled."]),
        name="desk",
        tools=[clerk.as_tool("ask_clerk", "Handles refunds.")],
    )
    result = await desk.run("Money back!", session=Session("chat", store=store))
    call_id = result.pending[0].call_id
    result = await desk.resume(Session("chat", store=store), {call_id: Approve()})
    assert result.output == "All settled."
    assert result.usage.model_calls == 4
    assert [info.id for info in await store.list_sessions()] == ["chat"]  # inner ones are not listed


async def test_what_outer_and_inner_runs_used_is_counted_once(store):
    clerk = Agent(ScriptedModel(["Stamped."]), name="clerk")
    desk = Agent(
        ScriptedModel([ToolCall.of("ask_clerk", prompt="Stamp it"), "Done."]),
        tools=[clerk.as_tool("ask_clerk", "Stamps.")],
    )
    memory, stored = Session("a"), Session("b", store=store)
    await desk.run("Go", session=memory)
    await desk.replace(
        model=ScriptedModel([ToolCall.of("ask_clerk", prompt="Stamp it"), "Done."]),
        tools=[clerk.replace(model=ScriptedModel(["Stamped."])).as_tool("ask_clerk", "Stamps.")],
    ).run("Go", session=stored)
    again = Session("b", store=store)
    await again.load()
    assert again.usage == stored.usage == memory.usage
    assert again.usage.model_calls == 3


async def test_a_long_result_is_read_on_in_another_object(store):
    @tool(inline=True)
    def report() -> str:
        return LONG

    await Agent(ScriptedModel([ToolCall.of("report"), "ok"]), tools=[report]).run(
        "go", session=Session("chat", store=store)
    )
    session = Session("chat", store=store)
    await session.load()
    (reference,) = re.findall(r"kept as (offload-\d+)", session.messages[2].parts[0].text)
    model = ScriptedModel(
        [ToolCall.of("read_offloaded", reference=reference, start=10, length=20), ToolCall.of("report"), "ok"]
    )
    result = await Agent(model, tools=[report]).run("more", session=session)
    assert result.new_messages[2].parts[0].content == f"[characters 10 to 30 of {len(LONG)}]\n{LONG[10:30]}"
    assert "offload-2" in result.new_messages[4].parts[0].content  # no reference is given out twice


async def test_handing_over_is_remembered(store):
    french = Agent(ScriptedModel(["Bonjour.", "Encore."]), name="french")
    desk = Agent(
        ScriptedModel([ToolCall.of("hand_over_to_french")]),
        name="desk",
        tools=[handoff(french, "Speaks French.")],
    )
    result = await desk.run("Salut", session=Session("chat", store=store))
    assert result.output == "Bonjour."
    assert (await desk.run("Encore ?", session=Session("chat", store=store))).output == "Encore."


async def test_changes_outside_of_runs_are_saved(store):
    async with Session("chat", store=store) as session:
        session.add(Message.user("An old question"))
        session.add(Message.assistant("An old answer"))
        session.update(name="Ada")
        session.switch("files", on=True)
    async with Session("chat", store=store) as again:
        assert [message.text for message in again.messages] == ["An old question", "An old answer"]
        assert again.state == {"name": "Ada"}
        assert again.switches == {"files": True}
        again.rewind(0)
    async with Session("chat", store=store) as third:
        assert list(third.messages) == []
        assert third.state == {"name": "Ada"}


async def test_changes_of_two_at_once_are_not_mixed(store):
    one, other = Session("chat", store=store), Session("chat", store=store)
    await one.load()
    await other.load()
    one.add(Message.user("mine"))
    other.add(Message.user("theirs"))
    await other.save()
    with pytest.raises(SessionChangedError, match="changed elsewhere"):
        await one.save()
    await one.load()
    assert [message.text for message in one.messages] == ["theirs"]
    one.add(Message.user("mine"))
    result = await says("ok").run("go", session=one)  # a run takes along what was added
    assert [message.text for message in result.messages] == ["theirs", "mine", "go", "ok"]


async def test_two_runs_on_one_session_never_interleave(store):
    async def slow(request):
        await asyncio.sleep(0)
        return "ok"

    agent = Agent(ScriptedModel(slow))
    sessions = [Session("chat", store=store) for _ in range(20)]
    await asyncio.gather(*(agent.run(f"{index}", session=one) for index, one in enumerate(sessions)))
    records = await store.read("chat", 0, 1000)
    runs = [record.run for record in records]
    assert len(records) == 80
    assert [runs[index : index + 4] for index in range(0, 80, 4)] == [[run] * 4 for run in runs[::4]]
    assert len(set(runs)) == 20


async def test_a_run_may_be_refused_rather_than_wait(store):
    held = asyncio.Event()

    async def slow(request):
        held.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Agent(ScriptedModel(slow)).run("Hi", session=Session("chat", store=store)))
    await held.wait()
    other = Session("chat", store=store, when_busy="refuse")
    with pytest.raises(SessionBusyError, match="held by a run elsewhere"):
        await says("no").run("Hi", session=other)
    limited = await says("no").run(
        "Hi", session=Session("chat", store=store), limits=Limits(max_seconds=0.05)
    )
    assert limited.finish_reason == "limit"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await says("yes").run("Hi", session=other)).output == "yes"


async def test_a_run_inside_a_tool_cannot_have_the_session_around_it(store):
    @tool
    async def again(context: RunContext) -> str:
        return (await says("inner").run("x", session=Session("chat", store=store))).output

    agent = Agent(ScriptedModel([ToolCall.of("again"), "done"]), tools=[again])
    result = await agent.run("go", session=Session("chat", store=store))
    assert "give the inner run a session of its own" in result.messages[2].parts[0].text


async def test_limits_of_a_session_count_what_was_used_before(store):
    agent = Agent(ScriptedModel(lambda _: "ok"))
    limits = Limits(max_tool_calls=1)

    @tool
    async def touch() -> str:
        return "touched"

    model = ScriptedModel([ToolCall.of("touch"), "ok"])
    await Agent(model, tools=[touch]).run("go", session=Session("chat", store=store, limits=limits))
    model = ScriptedModel([ToolCall.of("touch"), "ok"])
    result = await Agent(model, tools=[touch]).run("go", session=Session("chat", store=store, limits=limits))
    assert result.finish_reason == "limit"
    assert agent is not None


async def test_a_stream_is_stored_like_a_run(store):
    agent = says("streamed", "again")
    async with agent.stream("Hi", session=Session("chat", store=store)) as stream:
        async for _ in stream:
            pass
    async with agent.stream("Hi", session=Session("chat", store=store)) as stream:
        async for _ in stream:
            break  # the reader loses interest
    session = Session("chat", store=store)
    await session.load()
    assert session.unfinished is None
    assert [message.text for message in session.messages][:2] == ["Hi", "streamed"]
    assert (await store.list_sessions())[0].status == "idle"


async def test_run_sync_and_a_loop_share_a_store(store):
    await says("one").run("Hi", session=Session("chat", store=store))
    session = Session("chat", store=store)
    result = await asyncio.to_thread(says("two").run_sync, "Hi", session=session)
    assert [message.text for message in result.messages] == ["Hi", "one", "Hi", "two"]


async def test_a_picture_comes_back_with_its_bytes(store):
    picture = Image(data=b"\x89PNG\r\n\x1a\n" + b"x" * 10_000)

    @tool(inline=True)
    def look() -> tuple:
        return (Text("Here:"), picture)

    agent = Agent(ScriptedModel([ToolCall.of("look"), "nice"]), tools=[look])
    await agent.run([picture, "Look at this"], session=Session("chat", store=store))
    session = Session("chat", store=store)
    await session.load()
    assert session.messages[0].parts[0] == picture
    assert session.messages[2].parts[0].content[1] == picture


async def test_what_cannot_be_stored_is_refused_and_harms_nobody_else(store):
    session = Session("chat", store=store)
    await says("ok").run("Hi", session=session)
    session.add(Message.user("fine"))
    bad = Message("user", (Text("x", provider={"openai_chat": {"raw": object()}}),))
    session.add(bad)
    other = says("ok").run("Hi", session=Session("other", store=store))
    with pytest.raises(StoreError, match="no JSON form"):
        await session.save()
    await session.load()
    assert len(session.messages) == 2
    assert (await says("still here").run("Hi", session=session)).output == "still here"
    assert (await other).output == "ok"
    state = Session("state", store=store, state={"it": object()})
    with pytest.raises(ArgumentError, match="state of session 'state' has no JSON form"):
        await says("ok").run("Hi", session=state)


@pytest.mark.parametrize("bad", ["a\x00b", "x" * 1001, "half \ud800"])
def test_ids_that_no_store_can_keep_are_refused(bad, tmp_path):
    with pytest.raises(ArgumentError, match="id of a session"):
        Session(bad, store=SQLiteStore(tmp_path / "chats.db"))


async def test_a_view_is_loaded_and_not_the_journal(store):
    session = Session("chat", store=store, window=20)
    agent = Agent(ScriptedModel(lambda _: "ok"))
    for number in range(200):
        await agent.run(f"question {number}", session=session)
    assert len(await store.read("chat", 0, 10_000)) > 800
    again = Session("chat", store=store, window=20)
    await again.load()
    assert again.messages == session.messages
    assert again.starts == session.starts
    assert again.usage == session.usage
    loaded = await store.load("chat")
    assert len(loaded.said) + len(loaded.tail) < 250
    assert len(again.journal) == len(loaded.tail)
    assert again.first == 0 or await again.read(0, 1) == await store.read("chat", 0, 1)
    assert isinstance((await again.read(0, 1))[0], RunStartedRecord)
    with pytest.raises(SessionError, match="not in memory"):
        again.export()
    with pytest.raises(SessionError, match="not in memory"):
        again.branch()


async def test_results_are_stored_as_they_come(store):
    release = asyncio.Event()

    @tool
    async def quick() -> str:
        return "quick"

    @tool
    async def slow() -> str:
        await release.wait()
        return "slow"

    model = ScriptedModel([[ToolCall.of("quick"), ToolCall.of("slow")], "ok"])
    task = asyncio.create_task(
        Agent(model, tools=[quick, slow]).run("go", session=Session("chat", store=store))
    )
    results = []
    while not results:
        await asyncio.sleep(0)
        records = await store.read("chat", 0, 100)
        results = [record for record in records if isinstance(record, ToolResultRecord)]
    assert [record.result.text for record in results] == ["quick"]
    release.set()
    await task


def test_a_store_is_named_by_a_url():
    assert open_store("memory:") is open_store("memory:")
    for bad in ("mysql://x", "sqlite:", "sqlite:///", "chats.db", ""):
        with pytest.raises(ArgumentError, match="no store is known"):
            open_store(bad)
    with pytest.raises(ArgumentError, match="named by a URL"):
        open_store(3)


async def test_nothing_is_made_of_a_session_that_is_not_loaded(store):
    await says("Hello.").run("I am Ada", session=Session("chat", store=store))
    session = Session("chat", store=store)
    for make in (session.export, session.branch, lambda: session.journal):
        with pytest.raises(SessionError, match="not loaded from its store"):
            make()
    async with session:
        copy = Session.from_export(session.export())
    assert [message.text for message in copy.messages] == ["I am Ada", "Hello."]


async def test_a_state_is_before_a_reload_what_it_is_behind_it(store):
    async with Session("chat", store=store) as session:
        session.update(pair=(1, 2), kinds={1})
        before = dict(session.state)
        with pytest.raises(ArgumentError, match=r"'bad' has no such form"):
            session.update(fine=1, bad=object())
    async with Session("chat", store=store) as again:
        assert again.state == before == {"pair": [1, 2], "kinds": [1]}


@pytest.mark.parametrize("store", [5, object(), b"sqlite:///x.db"])
def test_what_is_no_store_is_refused_at_once(store):
    with pytest.raises(ArgumentError, match="store must be a Store or its URL"):
        Session("chat", store=store)


@pytest.mark.parametrize("arguments", [{"window": "a"}, {"window": 0}, {"id": ""}, {"id": 3}])
def test_arguments_of_a_session_are_checked(arguments):
    with pytest.raises(ArgumentError, match=next(iter(arguments))):
        Session(**arguments)


def test_text_is_no_message():
    with pytest.raises(ArgumentError, match=r'made by Message.user\("…"\), not by str'):
        Session().add("hello")
