"""Who may write to a session: one run at a time, in all processes, threads and loops."""

import asyncio
import gc
import os
import signal
import subprocess
import threading
import weakref
from pathlib import Path

import pytest
from tests.integration.stores.places import ROOT, Place

from gossamer import Agent, Approve, Message, Session, ToolCall, tool
from gossamer.errors import SessionBusyError, SessionLostError, StoreBusyError, StoreError
from gossamer.models import ScriptedModel
from gossamer.records import MessageRecord, RunFinishedRecord
from gossamer.stores import Append, SQLiteStore
from gossamer.usage import Usage

agent = Agent(ScriptedModel(lambda request: f"heard {request.messages[-1].text}"), name="ear")


def said(text: str) -> MessageRecord:
    return MessageRecord(run="r", message=Message.user(text))


def start(place: Place, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(place.command(*arguments), stdout=subprocess.PIPE, text=True, cwd=ROOT)


def lines(process: subprocess.Popen) -> list[str]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return out.split()


async def texts(place: Place, session: str) -> list[str]:
    records = await place.opened[0].read(session, 0, 10_000)
    return [record.message.text for record in records if isinstance(record, MessageRecord)]


def steal(place: Place) -> None:
    """Make all that hold sessions look dead."""
    if place.kind == "postgres":
        place.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'gossamer' AND pid <> pg_backend_pid()"
        )
        return
    for one in Path(place.where).parent.glob("chats.db-holder-*"):
        one.unlink()


# --- processes ------------------------------------------------------------------------------------------------


def test_processes_that_write_at_once_lose_nothing(shared: Place) -> None:
    names, rounds = ("ann", "ben", "cyd"), 8
    processes = [start(shared, "write", name, "common", str(rounds)) for name in names]
    for process in processes:
        assert lines(process) == ["done"]
    store = shared.open()

    async def check() -> None:
        for name in names:
            for number in range(5):
                expected = []
                for turn in range(rounds):
                    prompt = f"{name} {number} {turn}"
                    expected += [prompt, f"{name} heard {prompt}"]
                assert await texts(shared, f"{name}-{number}") == expected
        common = await texts(shared, "common")
        assert len(common) == 2 * rounds * len(names)
        for asked, answered in zip(common[::2], common[1::2], strict=True):  # runs never interleave
            assert answered == f"{asked.split()[0]} heard {asked}"
        for name in names:
            assert [text for text in common[::2] if text.startswith(name)] == [
                f"{name} {turn}" for turn in range(rounds)
            ]
        (info,) = [info for info in await store.list_sessions() if info.id == "common"]
        assert info.records == 4 * rounds * len(names)
        await store.aclose()

    asyncio.run(check())
    places = shared.execute("SELECT session, count(*), max(place) + 1 FROM records GROUP BY session")
    assert all(count == end for _, count, end in places)


def test_processes_that_migrate_at_once(shared: Place) -> None:
    processes = [start(shared, "ready") for _ in range(4)]
    assert [lines(process) for process in processes] == [["0"]] * 4


async def test_what_a_killed_process_held_is_free_at_once(shared: Place) -> None:
    process = await asyncio.to_thread(start, shared, "hold", "s")
    try:
        assert await asyncio.to_thread(process.stdout.readline) == "holding\n"
        store = shared.open()
        with pytest.raises(SessionBusyError):
            await store.hold("s")
        (info,) = await store.list_sessions()
        while info.status == "idle":  # until its start is stored, too
            (info,) = await store.list_sessions()
        assert info.status == "running"
        assert await store.list_sessions(status="running") == [info]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    (info,) = await store.list_sessions()
    while info.status == "running":  # until the server has heard of it
        (info,) = await store.list_sessions()
    assert info.status == "broken"
    result = await agent.run("Go on", session=Session("s", store=store, when_busy="refuse"))
    assert [message.text for message in result.messages] == [
        "Go on",
        "heard Go on",
    ]  # nothing had followed "Hold"
    assert await store.list_sessions(status="broken") == []


async def test_a_run_that_was_taken_over_stores_nothing_more(shared: Place) -> None:
    store, other = shared.open(), shared.open()
    ran: list[str] = []

    @tool
    def pay() -> str:
        ran.append("paid")
        return "paid"

    async def reply(request):
        await session.settle()
        await asyncio.to_thread(steal, shared)
        held = await other.hold("s")
        await other.append(Append("s", held.fence, held.length, [said("mine now")]))
        return ToolCall("pay")

    session = Session("s", store=store)
    with pytest.raises(SessionLostError, match="another process"):
        await Agent(ScriptedModel(reply), tools=[pay]).run("Pay", session=session)
    assert ran == []
    assert await texts(shared, "s") == ["Pay", "mine now"]
    (info,) = await other.list_sessions()
    assert info.status == "running"  # what was lost has not let it go
    await session.load()
    assert [message.text for message in session.messages] == ["Pay", "mine now"]


async def test_two_stores_never_hold_a_session_at_once(shared: Place) -> None:
    stores = [shared.open() for _ in range(3)]
    inside: list[str] = []
    most = 0

    async def reply(request):
        nonlocal most
        inside.append("x")
        most = max(most, len(inside))
        await asyncio.sleep(0.002)
        inside.pop()
        return "x"

    slow = Agent(ScriptedModel(reply))
    runs = [slow.run(str(number), session=Session("s", store=stores[number % 3])) for number in range(12)]
    await asyncio.gather(*runs)
    assert most == 1
    assert len(await stores[0].read("s", 0, 1000)) == 48


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_uses_the_store_beside_its_parent(shared: Place) -> None:
    assert lines(start(shared, "fork", "s")) == ["forked"]
    store = shared.open()

    async def check() -> list[str]:
        found = await texts(shared, "s")
        await store.aclose()
        return found

    expected = []
    for turn in range(5):
        expected += [f"parent {turn}", f"child {turn}"]
    assert asyncio.run(check())[::2] == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_what_a_dead_parent_held_is_not_held_by_its_child(shared: Place) -> None:
    process = start(shared, "orphan", "s")
    child = int(process.stdout.readline())
    try:
        process.send_signal(signal.SIGKILL)
        process.wait()
        answers = [""]
        while answers[0] in {"", "busy"}:  # until the server has heard of it
            answers = lines(start(shared, "look", "s"))
        assert answers == ["held", "0"]
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


# --- loops and threads ------------------------------------------------------------------------------------------


def test_threads_with_loops_of_their_own_share_a_store(place: Place) -> None:
    store = place.open()
    failed: list[BaseException] = []

    async def work(name: str) -> None:
        async def own(number: int) -> None:
            session = Session(f"{name}-{number}", store=store)
            for turn in range(5):
                await agent.run(str(turn), session=session)

        await asyncio.gather(*[own(number) for number in range(10)])
        for turn in range(5):
            await agent.run(f"{name} {turn}", session=Session("common", store=store))

    def run(name: str) -> None:
        try:
            asyncio.run(work(name))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(f"t{number}",)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
    assert failed == []

    async def check() -> None:
        assert len(await store.list_sessions(limit=1000)) == 41
        common = await texts(place, "common")
        assert len(common) == 40
        assert all(
            answered == f"heard {asked}" for asked, answered in zip(common[::2], common[1::2], strict=True)
        )
        await store.aclose()

    asyncio.run(check())


def test_a_loop_that_ends_while_writes_are_under_way_loses_none(place: Place) -> None:
    store = place.open()
    session = Session("s", store=store)

    async def begin() -> None:
        await agent.run("one", session=session)
        for number in range(50):
            session.add(Message.user(str(number)))
        saving = asyncio.create_task(session.save())
        while session._journal.saving.pushed != session._journal.end:
            await asyncio.sleep(0)
        saving.cancel()

    asyncio.run(begin())

    async def go_on() -> None:
        result = await agent.run("two", session=session)
        assert len(result.messages) == 54
        assert len(await texts(place, "s")) == 54
        await store.aclose()

    asyncio.run(go_on())


async def test_a_run_that_is_cancelled_while_it_takes_hold_holds_nothing(place: Place) -> None:
    store = place.open()
    for number in range(30):
        session = Session("s", store=store)
        run = asyncio.create_task(agent.run("x", session=session))
        for _ in range(number):
            await asyncio.sleep(0)
        run.cancel()
        await asyncio.wait([run])
        assert session.holding.holder is None
        held = await store.hold("t")
        await store.append(Append("t", held.fence, held.length, (), release=True))
        held = await asyncio.wait_for(_hold_patiently(store, "s"), 10)
        await store.append(Append("s", held.fence, held.length, (), release=True))


async def _hold_patiently(store, session: str):
    while True:
        try:
            return await store.hold(session)
        except SessionBusyError:
            await asyncio.sleep(0)


async def test_a_stream_that_is_dropped_while_it_takes_hold_holds_nothing(place: Place) -> None:
    store = place.open()
    await agent.run("One", session=Session("s", store=store))
    stream = agent.stream("Two", session=Session("s", store=store))
    step = stream.__anext__()
    step.send(None)  # asks for the session
    step.close()
    del step, stream
    async with asyncio.timeout(10):
        await agent.run("Three", session=Session("s", store=store))


async def test_a_session_is_free_for_others_whose_last_records_were_refused(shared: Place) -> None:
    store, other = shared.open(), shared.open()
    bad = Message("user", Message.user("x").parts, provider={"dialect": object()})
    with pytest.raises(StoreError, match="no JSON form"):
        await agent.run([bad], session=Session("s", store=store))
    assert (await other.hold("s")).length == 0


async def test_what_a_dropped_run_could_not_store_does_not_harm_the_next_one(place: Place) -> None:
    session = Session("s", store=place.open())
    bad = Message("user", Message.user("x").parts, provider={"dialect": object()})
    stream = agent.stream([bad], session=session)
    await anext(stream)
    del stream
    gc.collect()
    result = await agent.run("Fine", session=session)
    assert [message.text for message in result.messages] == ["Fine", "heard Fine"]


def test_what_a_loop_held_that_was_closed_is_free(place: Place) -> None:
    store = place.open()

    async def hold() -> None:
        await store.hold("s")

    asyncio.run(hold())

    async def again() -> None:
        assert (await store.hold("s")).length == 0
        with pytest.raises(SessionBusyError):
            await store.hold("s")
        await store.aclose()

    asyncio.run(again())


async def test_a_run_that_is_cancelled_while_it_waits_for_the_disk_is_stored(place: Place) -> None:
    store = place.open()
    session = Session("s", store=store)
    answered = asyncio.Event()

    async def reply(request):
        answered.set()
        return "x"

    run = asyncio.create_task(Agent(ScriptedModel(reply)).run("one", session=session))
    await answered.wait()
    await asyncio.sleep(0)
    run.cancel()
    await asyncio.wait([run])
    result = await agent.run("two", session=session)
    assert [message.text for message in result.messages][-2:] == ["two", "heard two"]
    again = Session("s", store=store)
    await again.load()
    assert list(again.messages) == list(session.messages)


async def test_a_late_release_does_not_free_what_another_run_holds(shared: Place) -> None:
    store, other = shared.open(), shared.open()
    first = await store.hold("s")
    steal(shared)
    second = await other.hold("s")
    await other.append(Append("s", second.fence, 0, (), release=True))
    third = await store.hold("s")
    with pytest.raises(SessionLostError):
        await store.append(Append("s", first.fence, 0, [said("late")], release=True))
    with pytest.raises(SessionBusyError):
        await store.hold("s")
    await store.append(Append("s", third.fence, 0, [said("mine")], release=True))
    assert await texts(shared, "s") == ["mine"]


async def test_sessions_and_stores_are_let_go_of(place: Place) -> None:
    store = place.open()
    session = Session("s", store=store)
    await agent.run("x", session=session)
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None
    assert len(await texts(place, "s")) == 2


def test_a_store_that_nobody_has_any_more_ends_its_threads(tmp_path) -> None:
    async def use() -> None:
        await agent.run("x", session=Session("s", store=SQLiteStore(tmp_path / "a.db")))

    asyncio.run(use())
    gc.collect()  # and the fixture sees that no thread is left


# --- pauses -----------------------------------------------------------------------------------------------------


async def test_a_paused_run_is_resumed_from_the_store_or_from_memory(place: Place) -> None:
    store = place.open()
    ran: list[str] = []

    @tool(needs_approval=True)
    def pay() -> str:
        ran.append("paid")
        return "paid"

    def inner_reply(request):
        return ToolCall("pay") if request.messages[-1].role == "user" else "inner done"

    inner = Agent(ScriptedModel(inner_reply), tools=[pay], name="inner")

    def reply(request):
        if request.messages[-1].role == "user":
            return [ToolCall("ask", {"prompt": "a"}, id="1"), ToolCall("ask", {"prompt": "b"}, id="2")]
        return "done"

    outer = Agent(ScriptedModel(reply), tools=[inner.as_tool("ask", "asks")], name="outer")
    used = []
    for kept in (None, store, store):
        session = Session("s" if len(used) < 2 else "t", store=kept)
        result = await outer.run("x", session=session)
        assert len(result.pending) == 2
        if len(used) == 2:
            session = Session("t", store=store)
            await session.load()
        assert session.usage.model_calls == 3
        result = await outer.resume(session, {one.call_id: Approve() for one in result.pending})
        assert result.output == "done"
        used.append((result.usage, session.usage, len(session.messages)))
    assert used[0] == used[1] == used[2]
    assert len(ran) == 6


async def test_too_much_at_once_is_refused_but_never_what_lets_go(shared: Place, monkeypatch) -> None:
    store = shared.open()
    held = await store.hold("s")
    monkeypatch.setattr("gossamer.stores.thread._MAX_WAITING", 0)
    with pytest.raises(StoreBusyError, match="wait for the store"):
        await store.append(Append("s", held.fence, 0, [said("x")]))
    with pytest.raises(StoreBusyError):
        await store.load("s")
    await store.append(Append("s", held.fence, 0, [said("last")], release=True))
    session = Session("t", store=store)
    with pytest.raises(StoreBusyError):
        await agent.run("x", session=session)
    assert session.holding.holder is None
    monkeypatch.undo()
    assert (await store.hold("s")).length == 1
    assert (await agent.run("x", session=session)).output == "heard x"


async def test_a_record_that_reads_back_otherwise_is_known_again(place: Place) -> None:
    store = place.open()
    session = Session("s", store=store)
    await agent.run("one", session=session)
    record = RunFinishedRecord(run="r", finish_reason="stop", usage=Usage(), output=("a", {"b": (1.0, 2)}))
    session.record(record)
    held = await store.hold("s")
    await store.append(
        Append("s", held.fence, held.length, [record], release=True)
    )  # as if its answer got lost
    result = await agent.run("two", session=session)
    assert [message.text for message in result.messages] == ["one", "heard one", "two", "heard two"]


async def test_what_nobody_waited_for_is_told_in_the_log(shared: Place, caplog) -> None:
    store, other = shared.open(), shared.open()
    session = Session("s", store=store)
    answering = asyncio.Event()

    async def reply(request):
        await session.settle()
        await asyncio.to_thread(steal, shared)
        await other.hold("s")
        answering.set()
        await asyncio.sleep(600)

    run = asyncio.create_task(Agent(ScriptedModel(reply)).run("x", session=session))
    await answering.wait()
    run.cancel()
    await asyncio.wait([run])
    with pytest.raises(SessionBusyError):
        await agent.run("y", session=Session("s", store=store, when_busy="refuse"))
    session.holding.when_busy = "refuse"
    with pytest.raises(SessionBusyError):
        await agent.run("y", session=session)
    assert "another process holds session 's'" in caplog.text
