"""Sessions that are loaded: beside runs, in parts, and where loading is cut off."""

import asyncio

import pytest
from tests.integration.stores.places import Place

from gossamer import Agent, Approve, Limits, Message, Session, ToolCall, tool
from gossamer.errors import SessionError, SteeringError
from gossamer.models import ScriptedModel
from gossamer.stores import SQLiteStore

agent = Agent(ScriptedModel(lambda request: f"heard {request.messages[-1].text}"), name="ear")


def after_tools(answer: str, call: ToolCall):
    """Give a model that makes a call, and answers when its result is there."""
    return ScriptedModel(lambda request: answer if request.messages[-1].role == "tool" else call)


@tool
def look() -> str:
    return "seen"


@tool(needs_approval=True)
def pay() -> str:
    return "paid"


payer = Agent(after_tools("paid", ToolCall("pay")), tools=[pay], name="payer")


class Slow:
    """Lets loading take until it is told to go on.

    Args:
        store: whose.
        session: the id of the session that is slow; others are quick.
    """

    def __init__(self, store, session: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = asyncio.Event()
        self.go = asyncio.Event()
        load = store.load

        async def slowly(name: str):
            stored = await load(name)
            if name == session and not self.read.is_set():
                self.read.set()
                await self.go.wait()
            return stored

        monkeypatch.setattr(type(store), "load", lambda _, name: slowly(name))


async def test_what_was_loaded_late_does_not_undo_a_run(place: Place, monkeypatch) -> None:
    store = place.open()
    session = Session("s", store=store)
    await agent.run("One", session=session)
    slow = Slow(store, "s", monkeypatch)
    loading = asyncio.ensure_future(session.load())
    await slow.read.wait()

    async def reply(request):
        if request.messages[-1].role == "user":
            return ToolCall("look")
        slow.go.set()
        await loading
        return "fine"

    await Agent(ScriptedModel(reply), tools=[look]).run("Two", session=session)
    assert [message.text for message in session.messages if message.role == "user"] == ["One", "Two"]
    assert [message.text for message in (await agent.run("Three", session=session)).messages][-2:] == [
        "Three",
        "heard Three",
    ]


async def test_what_was_loaded_late_does_not_undo_a_run_that_has_ended(place: Place, monkeypatch) -> None:
    store = place.open()
    session = Session("s", store=store)
    slow = Slow(store, "s", monkeypatch)
    loading = asyncio.ensure_future(session.load())
    await slow.read.wait()
    await agent.run("One", session=session)
    slow.go.set()
    await loading
    assert [message.text for message in session.messages] == ["One", "heard One"]


async def test_a_session_is_free_whose_inner_ones_could_not_be_loaded(place: Place, monkeypatch) -> None:
    store = place.open()
    ask = payer.as_tool("ask", "asks")
    outer = Agent(after_tools("done", ToolCall("ask", {"prompt": "x"})), tools=[ask], name="outer")
    result = await outer.run("Go", session=Session("s", store=store))
    decided = {result.pending[0].call_id: Approve()}
    (key,) = (await store.load("s")).children.values()
    slow = Slow(store, key, monkeypatch)
    session = Session("s", store=store)
    resuming = asyncio.ensure_future(outer.resume(session, decided))
    await slow.read.wait()
    resuming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await resuming
    async with asyncio.timeout(10):
        assert (await outer.resume(session, decided)).output == "done"
    assert session.usage.model_calls == 4


async def test_a_paused_session_stays_paused_where_nothing_came_of_a_run(place: Place, monkeypatch) -> None:
    store = place.open()
    await payer.run("Pay", session=Session("s", store=store))
    before = await store.list_sessions()
    assert [info.status for info in before] == ["paused"]
    slow = Slow(store, "s", monkeypatch)
    resuming = asyncio.ensure_future(payer.resume(Session("s", store=store), {}))
    await slow.read.wait()
    resuming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await resuming
    await store.delete_session("none")  # behind what let it go
    assert await store.list_sessions() == before


async def test_nothing_of_a_deleted_session_is_in_another_one_of_its_id(place: Place) -> None:
    store = place.open()
    session, other = Session("s", store=store), Session("s", store=store)
    await agent.run("My secret", session=session)
    await store.delete_session("s")
    await agent.run("As long", session=other)
    result = await agent.run("Who am I?", session=session)
    assert [message.text for message in result.messages] == [
        "As long",
        "heard As long",
        "Who am I?",
        "heard Who am I?",
    ]
    await store.delete_session("s")
    await other.load()
    await other.load()
    assert len(other.messages) == 0


def test_nobody_takes_a_session_for_empty_that_was_not_loaded(tmp_path) -> None:
    session = Session("s", store=SQLiteStore(tmp_path / "chats.db"))
    with pytest.raises(SessionError, match="not loaded from its store"):
        session.export()
    with pytest.raises(SessionError, match="not loaded from its store"):
        session.branch()


async def test_limits_count_what_runs_used_in_other_objects(place: Place) -> None:
    store = place.open()
    looker = Agent(after_tools("done", ToolCall("look")), tools=[look])
    one, other = (Session("s", store=store, limits=Limits(max_tool_calls=2)) for _ in range(2))
    reasons = [(await looker.run("x", session=session)).finish_reason for session in (one, other, one)]
    assert reasons == ["stop", "stop", "limit"]


async def test_who_saves_beside_another_waits_for_the_disk_too(shared: Place) -> None:
    store = shared.open()
    session = Session("s", store=store)
    await session.load()
    session.add(Message.user("x"))
    saving = asyncio.ensure_future(session.save())
    await asyncio.sleep(0)
    await session.save()
    assert len(await shared.open().read("s", 0, 9)) == 1
    await saving


async def test_a_session_that_is_being_saved_hears_nobody(shared: Place) -> None:
    store = shared.open()
    session = Session("s", store=store)
    await session.load()
    session.add(Message.user("x"))
    saving = asyncio.ensure_future(session.save())
    await asyncio.sleep(0)
    with pytest.raises(SteeringError):
        session.steer("nobody would come to it")
    await saving
