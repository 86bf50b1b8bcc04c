"""What every store keeps of its promises: the same tests for each of them."""

import asyncio
import time

import pytest
from tests.integration.stores.places import Place

from gossamer import Agent, Approve, Message, Session, Text, ToolCall, ToolResult, tool
from gossamer.errors import (
    ArgumentError,
    GossamerError,
    SessionBusyError,
    SessionError,
    SessionLostError,
    StoreError,
)
from gossamer.messages import Image
from gossamer.models import ScriptedModel
from gossamer.records import MessageRecord, RunStartedRecord, StateRecord, ViewMovedRecord
from gossamer.stores import Append, StoredSnapshot

agent = Agent(ScriptedModel(lambda request: f"heard {request.messages[-1].text}"), name="ear")

PICTURE = b"\x89PNG" + bytes(range(256)) * 40


def said(text: str) -> MessageRecord:
    return MessageRecord(run="r", message=Message.user(text))


async def append(store, session: str, *records, release: bool = True, **more) -> None:
    held = await store.hold(session)
    await store.append(Append(session, held.fence, held.length, records, release=release, **more))


# --- journals -------------------------------------------------------------------------------------------------


async def test_a_session_goes_on_where_another_object_left_it(place: Place) -> None:
    store = place.open()
    await agent.run("One", session=Session("s", store=store, state={"n": 1}))
    session = Session("s", store=store, state={"n": 0})
    result = await agent.run("Two", session=session)
    assert [message.text for message in result.messages] == ["One", "heard One", "Two", "heard Two"]
    assert session.state == {"n": 1}
    assert session.usage.model_calls == 2
    assert len(session.starts) == 2


async def test_what_was_appended_is_read_back_as_it_was(place: Place) -> None:
    store = place.open()
    records = [
        RunStartedRecord(run="r", agent="a", user="u"),
        said("nul \x00 and 😀 and \u2028"),
        StateRecord(run="r", patch={"deep": [1, 2.5, None, {"x": "\x00"}], "big": 2**63}),
    ]
    await append(store, "s", *records)
    assert await store.read("s", 0, 10) == records
    assert await store.read("s", 1, 2) == records[1:2]
    assert await store.read("s", 5, 2) == []
    assert await store.read("nobody", 0, 10) == []
    assert await store.load("nobody") is None
    loaded = await store.load("s")
    assert loaded is not None
    assert (loaded.length, loaded.tail, loaded.snapshot) == (3, records, None)


async def test_only_what_is_new_is_written(shared: Place) -> None:
    store = shared.open()
    session = Session("s", store=store)
    for turn in range(20):
        await agent.run(str(turn), session=session)
    if shared.kind == "postgres":
        shared.execute(
            "CREATE TABLE changed (kind text)",
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN INSERT INTO {shared.schema}.changed VALUES (TG_OP); RETURN NULL; END $$",
            "CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON records FOR EACH ROW EXECUTE FUNCTION note()",
        )
    else:
        shared.execute("CREATE TABLE changed (kind TEXT)")
        for kind in ("INSERT", "UPDATE", "DELETE"):
            shared.execute(
                f"CREATE TRIGGER noted_{kind} AFTER {kind} ON records BEGIN INSERT INTO changed VALUES ('{kind}'); END"
            )
    await agent.run("and one", session=session)
    assert (
        shared.execute("SELECT kind FROM changed") == [("INSERT",)] * 4
    )  # started, asked, answered, finished


async def test_an_append_whose_answer_got_lost_is_not_written_twice(place: Place) -> None:
    store = place.open()
    held = await store.hold("s")
    first = Append("s", held.fence, 0, [said("a"), said("b")])
    await store.append(first)
    await store.append(first)
    await store.append(Append("s", held.fence, 1, [said("b"), said("c")]))
    texts = [record.message.text for record in await store.read("s", 0, 10)]
    assert texts == ["a", "b", "c"]
    (info,) = await store.list_sessions()
    assert (info.records, info.messages) == (3, 3)


async def test_an_append_behind_the_end_is_refused(place: Place) -> None:
    store = place.open()
    held = await store.hold("s")
    with pytest.raises(SessionLostError, match="lacks the records"):
        await store.append(Append("s", held.fence, 5, [said("a")]))


async def test_a_long_session_goes_on_with_its_view_alone(place: Place) -> None:
    store = place.open()
    session = Session("long", store=store, window=100)
    await session.load()
    for number in range(5000):
        session.add(Message.user(f"q{number}"))
        session.add(Message("assistant", (Text(f"a{number}"),)))
    await session.save()
    stored = await store.load("long")
    assert stored is not None
    assert stored.length > 10_000
    assert len(stored.said) + len(stored.tail) <= 100

    again = Session("long", store=store, window=100)
    result = await agent.run("and?", session=again)
    assert result.output == "heard and?"
    assert result.messages[-3].text == "a4999"
    assert len(again.journal) <= 200
    assert again.first > 9_000
    assert [record.message.text for record in await again.read(0, 2)] == ["q0", "a0"]
    for turn in range(60):
        await agent.run(str(turn), session=again)
    stored = await store.load("long")
    assert stored is not None
    assert len(stored.said) + len(stored.tail) <= 3 * 100 + 128 + 8
    assert len(again.journal) <= 128 + 8  # nor does it stay in memory


async def test_a_large_message(place: Place) -> None:
    store = place.open()
    text = "x" * 50_000_000
    await append(store, "s", said(text), said("small"))
    records = await store.read("s", 0, 2)
    assert [len(record.message.text) for record in records] == [50_000_000, 5]
    (info,) = await store.list_sessions()
    assert info.title == "x" * 80


# --- lists ----------------------------------------------------------------------------------------------------


async def test_a_list_tells_of_sessions_without_their_journals(shared: Place) -> None:
    store = shared.open()
    await agent.run("What is\n  the time?", session=Session("s", store=store), user="ada")
    before = time.time()
    await agent.run("And now?", session=Session("s", store=store), user="bob")
    for table in ("records", "snapshots", "media"):
        shared.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
    (info,) = await store.list_sessions()
    assert (info.id, info.user, info.agent, info.title) == ("s", "ada", "ear", "What is the time?")
    assert (info.messages, info.records, info.status, info.run) == (4, 8, "idle", None)
    assert info.created <= before <= info.updated <= time.time()
    with pytest.raises(StoreError):
        await store.load("s")


async def test_a_list_is_filtered(place: Place) -> None:
    store = place.open()
    for name, user in (("a", "ada"), ("b", "bob"), ("c", "ada")):
        await agent.run("x", session=Session(name, store=store), user=user)
    await agent.replace(name="other").run("x", session=Session("d", store=store), user="bob")

    async def names(**wanted) -> list[str]:
        return [info.id for info in await store.list_sessions(**wanted)]

    assert await names() == ["d", "c", "b", "a"]
    assert await names(user="ada") == ["c", "a"]
    assert await names(agent="other") == ["d"]
    assert await names(user="bob", agent="ear") == ["b"]
    assert await names(user="nobody' OR '1'='1") == []
    assert await names(limit=2) == ["d", "c"]
    assert await names(status="idle") == ["d", "c", "b", "a"]
    assert await names(status="running") == []


async def test_pages_miss_no_session(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.open()
    clock = time.time
    monkeypatch.setattr("gossamer.stores.changes.time", lambda: float(int(clock())))  # a coarse one
    names = {f"s{number}" for number in range(57)}
    await asyncio.gather(*[append(store, name, said(name)) for name in names])
    found: list[str] = []
    before = None
    while page := await store.list_sessions(limit=10, before=before):
        found += [info.id for info in page]
        before = page[-1].updated
    assert len(found) == 57
    assert set(found) == names


async def test_the_status_tells_what_became_of_the_last_run(shared: Place) -> None:
    store = shared.open()

    @tool(needs_approval=True)
    def pay() -> str:
        return "paid"

    async def status() -> str:
        (info,) = await shared.opened[-1].list_sessions()
        return info.status

    seen: list[str] = []

    async def reply(request):
        await session.settle()
        seen.append(await status())
        return ToolCall("pay") if request.messages[-1].role == "user" else "done"

    asker = Agent(ScriptedModel(reply), tools=[pay], name="asker")
    shared.open()  # somebody else looks
    session = Session("s", store=store)
    result = await asker.run("Pay", session=session)
    assert result.pending
    assert seen == ["running"]
    assert await status() == "paused"
    (info,) = await store.list_sessions(status="paused")
    assert info.run == result.run_id
    await asker.resume(Session("s", store=store), {result.pending[0].call_id: Approve()})
    assert await status() == "idle"
    assert await store.list_sessions(status="paused") == []


@pytest.mark.parametrize(
    "wanted",
    [{"user": "a\x00b"}, {"agent": "\ud800"}, {"status": "asleep"}, {"limit": 0}, {"user": "x" * 1001}],
    ids=str,
)
async def test_what_can_not_be_listed_is_said(place: Place, wanted: dict) -> None:
    with pytest.raises(ArgumentError):
        await place.open().list_sessions(**wanted)


# --- media ----------------------------------------------------------------------------------------------------


def picture(data: bytes = PICTURE) -> Image:
    return Image(data=data, media_type="image/png")


async def test_media_are_stored_once_wherever_they_are(shared: Place) -> None:
    store = shared.open()

    @tool
    def draw() -> list:
        return ["here", picture()]

    drawing = Agent(
        ScriptedModel(lambda request: ToolCall("draw") if request.messages[-1].role == "user" else "drawn"),
        tools=[draw],
    )
    session = Session("s", store=store)
    for _ in range(3):
        await drawing.run([Text("like this"), picture()], session=session)
    inserted = ViewMovedRecord(
        run="", reason="compaction", begin=0, end=1, insert=(Message("user", (picture(),)),)
    )
    session.record(inserted)
    await session.save()
    await append(store, "t", MessageRecord(run="", message=Message("user", (picture(),))))
    snapshot = StoredSnapshot(1, (), b"{}", (Message("user", (picture(),)),))
    await append(store, "t", said("x"), snapshot=snapshot)

    assert len(shared.execute("SELECT hash FROM media")) == 1
    assert all(
        PICTURE[:200].hex() not in bytes(data).hex() for (data,) in shared.execute("SELECT data FROM records")
    )
    again = Session("s", store=store)
    await again.load()
    assert again.journal == session.journal
    parts = [part for message in again.messages for part in message.parts]
    results = [part.content for part in parts if isinstance(part, ToolResult)]
    assert results
    assert all(content[1] == picture() for content in results)
    loaded = await store.load("t")
    assert loaded is not None
    assert loaded.snapshot == snapshot


async def test_a_picture_in_a_snapshot_comes_back(place: Place) -> None:
    store = place.open()
    session = Session("s", store=store)
    await session.load()
    session.add(Message("user", (picture(),)))
    insert = (Message("user", (Text("summary"), picture())),)
    session.record(ViewMovedRecord(run="", reason="compaction", begin=0, end=1, insert=insert))
    for _ in range(200):
        session.add(Message.user("x"))
    await session.save()
    stored = await store.load("s")
    assert stored is not None
    assert stored.snapshot is not None
    assert stored.snapshot.inserted == insert
    again = Session("s", store=store)
    await again.load()
    assert list(again.messages) == list(session.messages)


# --- deleting -------------------------------------------------------------------------------------------------


async def test_a_session_is_deleted_whole(shared: Place) -> None:
    store = shared.open()
    inner = Agent(ScriptedModel(lambda request: "inner secret"), name="inner")
    outer = Agent(
        ScriptedModel(
            lambda request: (
                ToolCall("ask", {"prompt": "x"}) if request.messages[-1].role == "user" else "done"
            )
        ),
        tools=[inner.as_tool("ask", "asks")],
    )
    await outer.run([Text("x"), picture(), picture(b"own")], session=Session("s", store=store), user="ada")
    await append(store, "t", MessageRecord(run="", message=Message("user", (picture(),))))
    assert shared.execute("SELECT count(*) FROM sessions") == [(3,)]
    assert [info.id for info in await store.list_sessions()] == ["t", "s"]

    assert await store.delete_session("s")
    assert not await store.delete_session("s")
    assert shared.execute("SELECT count(*) FROM sessions") == [(1,)]
    assert shared.execute("SELECT count(*) FROM records") == [(1,)]
    assert len(shared.execute("SELECT hash FROM media")) == 1  # which "t" shows too
    loaded = await store.load("t")
    assert loaded is not None
    assert loaded.tail[0].message.parts == (picture(),)


async def test_a_user_is_deleted_whole(shared: Place) -> None:
    store = shared.open()
    inner = Agent(ScriptedModel(lambda request: "inner"), name="inner")
    outer = Agent(
        ScriptedModel(
            lambda request: (
                ToolCall("ask", {"prompt": "x"}) if request.messages[-1].role == "user" else "done"
            )
        ),
        tools=[inner.as_tool("ask", "asks")],
    )
    for name, user in (("a", "ada"), ("b", "ada"), ("c", "bob")):
        await outer.run([Text("x"), picture(user.encode())], session=Session(name, store=store), user=user)
    assert await store.delete_user("ada") == 2
    assert await store.delete_user("ada") == 0
    assert [info.id for info in await store.list_sessions()] == ["c"]
    assert shared.execute("SELECT count(*) FROM sessions") == [(2,)]
    assert len(shared.execute("SELECT hash FROM media")) == 1


async def test_a_run_in_a_deleted_session_fails(place: Place) -> None:
    store = place.open()
    session = Session("s", store=store)

    async def reply(request):
        await store.delete_session("s")
        return "too late"

    with pytest.raises(SessionLostError, match="deleted"):
        await Agent(ScriptedModel(reply)).run("x", session=session)
    assert await store.load("s") is None
    result = await agent.run("anew", session=session)
    assert [message.text for message in result.messages] == ["anew", "heard anew"]


async def test_no_inner_session_outlives_a_deleted_one(place: Place) -> None:
    store = place.open()
    held = await store.hold("s")
    assert held.length == 0
    await store.delete_session("s")
    with pytest.raises(SessionLostError):
        await store.hold("s/r/c", parent="s", inside="r/c")
    assert await store.list_sessions() == []


# --- what cannot be kept ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "a\x00b", "half \ud800", "x" * 10_000], ids=["empty", "nul", "half", "long"]
)
async def test_ids_that_cannot_be(place: Place, name: str) -> None:
    store = place.open()
    for ask in (
        lambda: store.hold(name),
        lambda: store.hold("fine", parent=name),
        lambda: store.load(name),
        lambda: store.read(name, 0, 1),
        lambda: store.delete_session(name),
        lambda: store.delete_user(name),
    ):
        with pytest.raises(ArgumentError):
            await ask()
    if name:
        with pytest.raises(ArgumentError):
            Session(name, store=store)
        for options in ({"user": name}, {}):
            named = agent if options else agent.replace(name=name)
            with pytest.raises(ArgumentError):
                await named.run("x", session=Session("s", store=store), **options)
        assert await store.read("s", 0, 9) == []


@pytest.mark.parametrize("name", ["'; DROP TABLE sessions; --", "%s $1 ? {x}", "x" * 1000, "ü😀\n\t"])
async def test_ids_that_look_odd(place: Place, name: str) -> None:
    store = place.open()
    await agent.replace(name=name).run(name, session=Session(name, store=store), user=name)
    (info,) = await store.list_sessions(user=name, agent=name)
    assert (info.id, info.user, info.agent) == (name, name, name)
    loaded = await store.load(name)
    assert loaded is not None
    assert loaded.tail[1].message.text == name
    assert await store.delete_user(name) == 1


@pytest.mark.parametrize(
    "bad",
    [
        said("half \ud800"),
        StateRecord(run="r", patch={"x": object()}),
        StateRecord(run="r", patch={"x": float}),
        RunStartedRecord(run="r", agent="a\x00b"),
        RunStartedRecord(run="r", agent="a", user="\ud800"),
    ],
    ids=["half", "object", "type", "agent", "user"],
)
async def test_what_cannot_be_stored_is_refused_alone(place: Place, bad) -> None:
    store = place.open()
    names = [f"s{number}" for number in range(10)]
    helds = await asyncio.gather(*[store.hold(name) for name in names])
    appends = [
        store.append(Append(name, held.fence, 0, [bad if number == 4 else said(name)], release=True))
        for number, (name, held) in enumerate(zip(names, helds, strict=True))
    ]
    results = await asyncio.gather(*appends, return_exceptions=True)
    assert isinstance(results[4], StoreError)
    assert "s4" in str(results[4])
    assert [result for number, result in enumerate(results) if number != 4] == [None] * 9
    for number, name in enumerate(names):
        assert len(await store.read(name, 0, 9)) == (number != 4)
    assert await store.hold("s4")  # it was let go all the same


async def test_a_run_that_cannot_be_stored_says_so_and_the_next_one_goes_on(place: Place) -> None:
    store = place.open()
    session = Session("s", store=store)
    await agent.run("one", session=session)
    with pytest.raises(StoreError, match="no JSON form"):
        await agent.run("half \ud800", session=session)
    result = await agent.run("two", session=session)
    assert [message.text for message in result.messages] == ["one", "heard one", "two", "heard two"]


async def test_a_state_that_cannot_be_stored_keeps_the_run_from_beginning(place: Place) -> None:
    session = Session("s", store=place.open(), state={"x": object()})
    with pytest.raises(ArgumentError, match="state"):
        await agent.run("x", session=session)
    session = Session("t", store=place.open(), state={"x": "\ud800"})
    with pytest.raises(StoreError):
        await agent.run("x", session=session)
    assert session.holding.holder is None


async def test_a_clock_that_is_put_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.open()
    await agent.run("one", session=Session("s", store=store))
    then = time.time() - 86_400
    monkeypatch.setattr("gossamer.stores.changes.time", lambda: then)
    monkeypatch.setattr("gossamer.records.time", lambda: then)
    result = await agent.run("two", session=Session("s", store=store))
    assert [message.text for message in result.messages] == ["one", "heard one", "two", "heard two"]
    (info,) = await store.list_sessions()
    assert info.records == 8
    assert await store.list_sessions(before=info.updated + 1) == [info]


# --- going on ---------------------------------------------------------------------------------------------------


async def test_a_closed_store_is_opened_anew(shared: Place) -> None:
    store = shared.open()
    session = Session("s", store=store)
    await agent.run("one", session=session)
    await store.aclose()
    await store.aclose()
    await agent.run("two", session=session)
    assert len(await store.read("s", 0, 99)) == 8


async def test_what_was_asked_for_is_done_before_the_store_is_closed(shared: Place) -> None:
    store = shared.open()
    held = await store.hold("s")
    appends = [store.append(Append("s", held.fence, place, [said(str(place))])) for place in range(100)]
    closing = asyncio.create_task(store.aclose())
    await asyncio.sleep(0)
    more = [store.append(Append("s", held.fence, place, [said(str(place))])) for place in range(100, 200)]
    await asyncio.gather(*appends, *more, closing)
    assert len(await store.read("s", 0, 999)) == 200


async def test_a_session_that_was_changed_elsewhere_is_loaded_anew(place: Place) -> None:
    store = place.open()
    here, there = Session("s", store=store), Session("s", store=store)
    await agent.run("one", session=here)
    await agent.run("two", session=there)
    result = await agent.run("three", session=here)
    assert [message.text for message in result.messages[::2]] == ["one", "two", "three"]
    there.add(Message.user("four"))
    with pytest.raises(SessionError, match="changed elsewhere"):
        await there.save()
    await there.load()
    assert len(there.messages) == 6


async def test_a_busy_session_is_refused_or_waited_for(place: Place) -> None:
    store = place.open()
    held = await store.hold("s")
    with pytest.raises(SessionBusyError):
        await store.hold("s")
    with pytest.raises(SessionBusyError):
        await agent.run("x", session=Session("s", store=store, when_busy="refuse"))
    waiting = asyncio.create_task(agent.run("x", session=Session("s", store=store)))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    await store.append(Append("s", held.fence, 0, (), release=True))
    assert (await waiting).output == "heard x"


async def test_a_damaged_row_is_told(shared: Place) -> None:
    store = shared.open()
    await agent.run("x", session=Session("s", store=store))
    broken = "decode('7b', 'hex')" if shared.kind == "postgres" else "x'7b'"
    shared.execute(f"UPDATE records SET data = {broken} WHERE place = 1")
    with pytest.raises(GossamerError, match="damaged"):
        await store.load("s")
