"""A session as lines of JSON: out of one store, into another, and nothing left of what does not fit."""

from __future__ import annotations

import json
import os
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.services import postgres  # noqa: F401 - a fixture

from gossamer import Agent, Approve, DecodeError, Deny, Message, Session, SessionError, ToolCall, tool
from gossamer.errors import ArgumentError
from gossamer.messages import Image, Text
from gossamer.models import ScriptedModel
from gossamer.records import SCHEMA_VERSION, RunStartedRecord, ToolStartedRecord
from gossamer.stores import SQLiteStore, export_session, import_session
from gossamer.stores.base import Append


@pytest.fixture(params=["sqlite", "postgres"])
async def stores(request):
    if request.param == "sqlite":
        async with SQLiteStore(":memory:") as one, SQLiteStore(":memory:") as other:
            yield one, other
        return
    kind = pytest.importorskip("gossamer.stores.postgres").PostgresStore
    url = request.getfixturevalue("postgres").url()
    schema = f"s{secrets.token_hex(4)}"
    async with kind(url, schema=f"{schema}a") as one, kind(url, schema=f"{schema}b") as other:
        yield one, other


async def exported(store, session):
    return [line async for line in export_session(store, session)]


async def loaded(store, session, **options):
    found = Session(session, store=store, **options)
    await found.load()
    return found


async def assert_same(one, other):
    assert other.messages == one.messages
    assert other.state == one.state
    assert other.pending == one.pending
    assert other.starts == one.starts
    assert other.unfinished == one.unfinished
    assert other.answering == one.answering
    assert other.usage.model_calls == one.usage.model_calls
    assert other.usage.cost == pytest.approx(one.usage.cost)
    assert other.usage.total_tokens == one.usage.total_tokens
    assert await other.read(0, 1_000_000) == await one.read(0, 1_000_000)


async def assert_nothing_left(store):
    assert await store.list_sessions() == []
    held = await store.hold("s")  # nobody else does
    assert held.length == 0
    await store.append(Append("s", held.fence, 0, (), release=True))
    await store.delete_session("s")


@tool(needs_approval=True, inline=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def image(content: bytes) -> Message:
    return Message("user", (Text("look"), Image(content, media_type="image/png")))


# --- there and back -----------------------------------------------------------------------------------------


async def test_a_session_is_the_same_in_another_store(stores):
    one, other = stores
    session = Session("s", store=one, state={"seen": 0})
    agent = Agent("offline", name="clerk")
    await agent.run("Hello", session=session, user="ada")
    session.update(seen=1)
    await agent.run("And now?", session=session)
    lines = await exported(one, "s")
    assert await import_session(other, lines) == "s"
    await assert_same(session, await loaded(other, "s"))
    (told,) = await other.list_sessions()
    assert (told.user, told.agent, told.title, told.messages, told.status) == (
        "ada",
        "clerk",
        "Hello",
        4,
        "idle",
    )
    assert await exported(other, "s") == lines
    await agent.run("It goes on", session=await loaded(other, "s"))


async def test_a_session_longer_than_a_snapshot_and_a_page(stores):
    one, other = stores
    session = Session("s", store=one, window=10)
    agent = Agent("offline")
    for number in range(60):
        await agent.run(f"number {number}", session=session)
    assert session.first > 0
    await import_session(other, await exported(one, "s"))
    copy = await loaded(other, "s", window=10)
    assert copy.first == 0
    await assert_same(session, copy)


@pytest.mark.parametrize("as_text", [False, True])
async def test_media_said_twice_are_written_once(stores, as_text):
    one, other = stores
    big, small = os.urandom(300_000), os.urandom(10)
    session = Session("s", store=one)
    async with session:
        for message in (image(big), image(small), image(big)):
            session.add(message)
    lines = await exported(one, "s")
    assert [json.loads(line)["line"] for line in lines].count("media") == 2
    assert sum(map(len, lines)) < 450_000
    await import_session(other, [line.decode().rstrip() for line in lines] if as_text else lines)
    await assert_same(session, await loaded(other, "s"))


async def test_media_that_are_forgotten_are_read_again(stores, monkeypatch):
    monkeypatch.setattr("gossamer.stores.importing._MAX_MEDIA_BYTES", 100)
    monkeypatch.setattr("gossamer.stores.importing._MAX_RECORDS", 3)
    one, other = stores
    session = Session("s", store=one)
    contents = [os.urandom(60) for _ in range(5)]
    async with session:
        for content in [*contents, *contents, *reversed(contents)]:
            session.add(image(content))
    await import_session(other, await exported(one, "s"))
    await assert_same(session, await loaded(other, "s"))


async def test_another_id_and_lines_that_come_slowly(stores):
    one, _ = stores
    session = Session("s", store=one)
    await Agent("offline").run("Hello", session=session)
    assert await import_session(one, export_session(one, "s"), id="copy") == "copy"
    await assert_same(session, await loaded(one, "copy"))


async def test_parts_of_a_newer_version_come_through(stores):
    one, other = stores
    held = await one.hold("s")
    part = b'{"type":"hologram","depth":3}'
    from gossamer.records import Record, decode_as

    record = decode_as(
        b'{"type":"message","run":"","at":1.0,"message":{"role":"user","parts":[' + part + b"]}}", Record
    )
    await one.append(Append("s", held.fence, 0, [record], release=True))
    lines = await exported(one, "s")
    assert part in lines[1]
    await import_session(other, lines)
    assert await other.read("s", 0, 9) == [record]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.text(min_size=1, max_size=20)),
        st.tuples(st.just("call"), st.integers(0, 9)),
        st.tuples(st.just("fail"), st.none()),
        st.tuples(st.just("show"), st.binary(max_size=3)),
        st.tuples(st.just("update"), st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2)),
        st.tuples(st.just("rewind"), st.none()),
        st.tuples(st.just("hand_over"), st.sampled_from(["a", "b"])),
    ),
    max_size=12,
)


@tool(inline=True)
def count(number: int) -> str:
    """Count."""
    return str(number)


async def do(session, operation, value):
    match operation:
        case "say":
            await Agent("offline").run(value, session=session)
        case "call":
            agent = Agent(ScriptedModel([ToolCall.of("count", number=value), "counted"]), tools=[count])
            await agent.run("count", session=session)
        case "fail":
            with pytest.raises(RuntimeError):
                await Agent(ScriptedModel([RuntimeError("no")])).run("fail", session=session)
        case "show":
            session.add(image(value))
        case "update":
            session.update(value)
        case "rewind" if session.starts:
            session.rewind(session.starts[-1])
        case "hand_over":
            session.hand_over(value)


@settings(max_examples=40, deadline=None)
@given(operations=OPERATIONS, size=st.integers(1, 5))
async def test_whatever_was_done_in_a_session(operations, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gossamer.stores.importing._MAX_RECORDS", size)
        patch.setattr("gossamer.stores.exporting._PAGE", size)
        async with SQLiteStore(":memory:") as one, SQLiteStore(":memory:") as other:
            session = Session("s", store=one)
            await session.load()
            for operation, value in operations:
                await do(session, operation, value)
            session.update(done=True)
            await session.save()
            await import_session(other, await exported(one, "s"))
            await assert_same(session, await loaded(other, "s"))


# --- paused, broken, inside of one another -------------------------------------------------------------------


async def test_a_paused_session_is_resumed_elsewhere(stores):
    one, other = stores
    agent = Agent(
        ScriptedModel([[ToolCall.of("pay", amount=20), ToolCall.of("pay", amount=30)], "Done."]), tools=[pay]
    )
    session = Session("s", store=one)
    result = await agent.run("pay", session=session)
    first, second = (pending.call_id for pending in result.pending)
    await agent.resume(session, {first: Deny("no")})
    await import_session(other, await exported(one, "s"))
    copy = await loaded(other, "s")
    await assert_same(session, copy)
    assert [info.status for info in await other.list_sessions()] == ["paused"]
    done = await agent.resume(copy, {second: Approve()})
    assert done.output == "Done."
    assert [part.text for part in copy.messages[2].parts] == ["A person denied this call. no", "paid 30"]


def broken_at(store, session, records):
    """Let a journal end with records, as a process leaves it that dies there."""

    async def work():
        held = await store.hold(session)
        await store.append(Append(session, held.fence, held.length, records, release=True))

    return work()


async def test_a_broken_session_goes_on_elsewhere(stores):
    one, other = stores
    ran = []

    @tool(inline=True)
    def charge() -> str:
        ran.append("charge")
        return "charged"

    agent = Agent(
        ScriptedModel(
            lambda request: (
                "Done." if request.messages[-1].role == "tool" else [ToolCall("charge", id="call-1")]
            )
        ),
        tools=[charge],
    )
    whole = Session()
    await agent.run("charge", session=whole)
    ran.clear()
    cut = next(i for i, record in enumerate(whole.journal) if isinstance(record, ToolStartedRecord)) + 1
    await broken_at(one, "s", whole.journal[:cut])
    await import_session(other, await exported(one, "s"))
    assert [info.status for info in await other.list_sessions()] == ["broken"]
    copy = await loaded(other, "s")
    result = await agent.resume(copy)
    assert ran == []
    assert result.output == "Done."
    assert copy.messages[2].parts[0].outcome == "unknown"


async def test_sessions_inside_calls_come_along(stores):
    one, other = stores
    payer = Agent(
        ScriptedModel([[ToolCall.of("pay", amount=5)], "Paid.", [ToolCall.of("pay", amount=6)], "Paid."]),
        name="payer",
        tools=[pay],
    )
    clerk = Agent(
        ScriptedModel([[ToolCall.of("ask_payer", prompt="pay")], "Settled."] * 2),
        name="clerk",
        tools=[payer.as_tool("ask_payer", "Pays.")],
    )
    boss = Agent(
        ScriptedModel([[ToolCall.of("ask_clerk", prompt="settle")], "Very good."] * 2),
        tools=[clerk.as_tool("ask_clerk", "Settles.")],
    )
    session = Session("s", store=one)
    result = await boss.run("settle it", session=session)
    await boss.resume(session, {result.pending[0].call_id: Approve()})
    await boss.run("once more", session=session)  # pauses, two calls deep
    lines = await exported(one, "s")
    kinds = [json.loads(line) for line in lines]
    assert [line["parent"] for line in kinds if line["line"] == "inner"] == [0, 1, 0, 3]
    await import_session(other, lines, id="copy")
    copy = await loaded(other, "copy")
    await assert_same(session, copy)
    assert copy.usage == session.usage
    assert [info.id for info in await other.list_sessions()] == ["copy"]
    again = await exported(other, "copy")
    assert again[1:-1] == lines[1:-1]
    done = await boss.resume(copy, {copy.pending[0].call_id: Approve()})
    assert done.output == "Very good."
    assert done.usage.tool_calls == 3
    assert await other.delete_session("copy")
    assert await other.load(f"copy/{kinds[-2]['record']['run']}/x") is None


# --- what does not fit --------------------------------------------------------------------------------------


async def some_lines(store):
    session = Session("s", store=store, state={"a": 1})
    async with session:
        session.add(image(b"picture"))
    child = Agent("offline", name="child")
    agent = Agent(
        ScriptedModel([[ToolCall.of("ask", prompt="x")], "Done."]), tools=[child.as_tool("ask", "Asks.")]
    )
    await agent.run("go", session=session)
    return await exported(store, "s")


@pytest.fixture
async def lines(stores):
    return await some_lines(stores[0])


async def refused(store, lines, match):
    with pytest.raises(DecodeError, match=match):
        await import_session(store, lines)
    await assert_nothing_left(store)


async def test_every_cut_is_noticed(stores, lines):
    for end in range(len(lines)):
        async with SQLiteStore(":memory:") as store:
            await refused(store, lines[:end], "empty" if end == 0 else f"line {end}: the export is cut off")


@pytest.mark.parametrize("records", [1, 500])
async def test_every_line_that_is_missing_twice_or_swapped_is_noticed(lines, monkeypatch, records):
    monkeypatch.setattr("gossamer.stores.importing._MAX_RECORDS", records)
    for place in range(len(lines)):
        for changed in (
            [*lines[:place], *lines[place + 1 :]],
            [*lines[: place + 1], *lines[place:]],
            [*lines[:place], *reversed(lines[place : place + 2]), *lines[place + 2 :]],
        ):
            if changed == lines:
                continue
            async with SQLiteStore(":memory:") as store:
                await refused(store, changed, r"^line \d+: ")


@settings(max_examples=100, deadline=None)
@given(
    where=st.floats(0, 1, exclude_max=True), at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255)
)
async def test_every_change_is_noticed(where, at, flip):
    async with SQLiteStore(":memory:") as one, SQLiteStore(":memory:") as other:
        lines = await some_lines(one)
        place = int(where * len(lines))
        line = bytearray(lines[place])
        line[int(at * (len(line) - 1))] ^= flip
        lines[place] = bytes(line)
        with pytest.raises((DecodeError, ArgumentError)):
            await import_session(other, lines)
        assert await other.list_sessions() == []


async def test_what_is_newer_or_foreign_is_refused(stores, lines):
    _, other = stores
    first = json.loads(lines[0])
    newer = json.dumps({**first, "schema": SCHEMA_VERSION + 1, "more": 1})
    await refused(other, [newer, *lines[1:]], "line 1: .*newer than")
    foreign = json.dumps({**first, "format": "chat"})
    await refused(other, [foreign, *lines[1:]], "line 1: .*'chat'")
    for junk in (b"\xff\xfe", b"[]", b'{"a": 1}', b"", "\ud800"):
        await refused(other, [junk, *lines[1:]], "^line 1: ")
    await refused(other, [*lines, *lines], f"line {len(lines) + 1}: the session has ended")
    unknown = b'{"line":"record","record":{"type":"dream","run":"","at":1.0}}'
    await refused(other, [lines[0], unknown], "line 2: .*dream")


async def test_media_that_do_not_fit_are_refused(stores, lines):
    _, other = stores
    place = next(place for place, line in enumerate(lines) if b'"line":"media"' in line)
    media, record = json.loads(lines[place]), json.loads(lines[place + 1])
    await refused(
        other, [*lines[:place], json.dumps({**media, "data": "AAAA"})], f"line {place + 1}: .*changed"
    )
    for hashes in ([], ["zz"], ["00" * 32], record["media"] * 2):
        changed = json.dumps({**record, "media": hashes})
        await refused(other, [*lines[: place + 1], changed], f"^line {place + 2}: ")


async def test_an_id_that_is_taken_is_refused_and_its_session_stays(stores, lines):
    one, _ = stores
    before = await exported(one, "s")
    with pytest.raises(SessionError, match="already"):
        await import_session(one, lines)
    assert await exported(one, "s") == before
    await Agent("offline").run("it is free", session=Session("s", store=one))


async def test_what_is_no_line_and_no_session(stores, lines):
    one, other = stores
    with pytest.raises(ArgumentError, match="lines"):
        await import_session(other, b"".join(lines))
    with pytest.raises(SessionError, match="no session 'x'"):
        await exported(one, "x")
    with pytest.raises(ArgumentError, match="id of a session"):
        await import_session(other, lines, id="a\x00b")


async def test_a_reader_that_fails_leaves_nothing(stores, lines):
    _, other = stores

    async def fail():
        for line in lines[:4]:
            yield line
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        await import_session(other, fail())
    await assert_nothing_left(other)


async def test_only_whole_runs_are_written_before_the_end(stores, monkeypatch):
    """Where the process dies meanwhile, nothing is left that could be resumed without the rest of its run."""
    monkeypatch.setattr("gossamer.stores.importing._MAX_RECORDS", 1)
    one, other = stores
    session = Session("s", store=one)
    agent = Agent(ScriptedModel(["a", [ToolCall.of("pay", amount=1)]]), tools=[pay])
    await agent.run("first", session=session)
    await agent.run("second", session=session)
    lines = await exported(one, "s")
    seen = []

    async def watch():
        for line in lines:
            yield line
            kept = await other.read("s", 0, 1000)
            starts = [record.run for record in kept if isinstance(record, RunStartedRecord)]
            seen.append((len(kept), len(starts)))

    await import_session(other, watch())
    assert set(seen) == {(0, 0), (4, 1)}
    assert len(await other.read("s", 0, 1000)) == len(lines) - 2
