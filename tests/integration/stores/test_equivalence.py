"""Whatever is done to a session in a store comes to the same as if it were kept in memory."""

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.stores.places import place_of

from gossamer import Agent, Approve, Deny, Message, RunContext, Session, ToolCall, tool
from gossamer.errors import GossamerError
from gossamer.messages import Image, Text
from gossamer.models import ModelRequest, ModelResponse, ScriptedModel
from gossamer.records import OffloadedRecord
from gossamer.usage import Usage

PICTURES = [Image(data=bytes([number]) * 500, media_type="image/png") for number in range(3)]


@tool(inline=True)
def note(context: RunContext, text: str) -> str:
    """Note."""
    context.session.update({text: len(text)})
    return f"noted {text}"


@tool
async def long() -> str:
    """Say much."""
    return "much " * 12_000


@tool
def draw() -> list:
    """Draw."""
    return ["look", PICTURES[0]]


@tool(needs_approval=True, inline=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@tool(inline=True)
def broken() -> str:
    """Fail."""
    raise ValueError("broken")


def reply(request: ModelRequest) -> Any:
    """Do what the last words of the user say, once."""
    last = request.messages[-1]
    if last.role == "tool":
        return ModelResponse(
            Message("assistant", (Text("done"),)), Usage(input_tokens=3, output_tokens=1, model_calls=1)
        )
    what = last.text.split()
    calls = {
        "note": [ToolCall("note", {"text": last.text[-12:]}), ToolCall("broken", {})],
        "long": [ToolCall("long", {})],
        "draw": [ToolCall("draw", {}), ToolCall("note", {"text": "drawn"})],
        "pay": [ToolCall("pay", {"amount": 1}), ToolCall("note", {"text": "paid"})],
        "ask": [ToolCall("ask", {"prompt": "note inside"})],
        "other": [ToolCall("hand_over_to_other", {})],
    }
    if what and what[0] == "fail":
        return ValueError("the model failed")
    return calls.get(what[0] if what else "", f"heard {last.text}")


inner = Agent(ScriptedModel(reply), tools=[note], name="inner")
other = Agent(
    ScriptedModel(reply), tools=[note, long, draw, pay, broken, inner.as_tool("ask", "asks")], name="other"
)
agent = other.replace(name="first")

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("run"), st.sampled_from(["say", "note", "long", "draw", "fail", "ask", "pay"]), words
        ),
        st.tuples(st.just("decide"), st.booleans(), st.sampled_from([None, "tool", "arguments"])),
        st.tuples(st.just("add"), words, st.integers(0, 2)),
        st.tuples(st.just("rewind"), st.integers(0, 5)),
        st.tuples(st.just("update"), words, st.integers(0, 9)),
        st.tuples(st.just("switch"), words, st.booleans()),
        st.tuples(st.just("hand"), st.sampled_from([None, "other"])),
        st.tuples(st.just("forget")),
        st.tuples(st.just("many"), st.integers(1, 40)),
        st.tuples(st.just("reload")),
        st.tuples(st.just("save")),
    ),
    max_size=14,
)


async def apply(session: Session, operation: tuple) -> Any:
    """Do one thing and give what came of it, without ids and times."""
    what, *arguments = operation
    try:
        if what == "run":
            kind, text = arguments
            result = await agent.run(f"{kind} {text}", session=session, user="ada")
            return result.output if not result.pending else len(result.pending)
        if what == "decide":
            if not session.pending:
                return None
            yes, remember = arguments
            decision = Approve(remember=remember) if yes else Deny("no", remember=remember)
            result = await agent.resume(session, {one.call_id: decision for one in session.pending})
            return result.output, msgspec.structs.astuple(result.usage)
        if what == "add":
            session.add(Message("user", (Text(arguments[0]), PICTURES[arguments[1]])))
        elif what == "rewind":
            starts = session.starts
            if starts:
                session.rewind(starts[-1 - arguments[0] % len(starts)])
        elif what == "update":
            session.update({arguments[0]: arguments[1]})
        elif what == "switch":
            session.switch(arguments[0], on=arguments[1])
        elif what == "hand":
            session.hand_over(arguments[0] and "first")
        elif what == "forget":
            session.forget_approvals()
        elif what == "many":
            for number in range(arguments[0]):
                session.add(Message.user(str(number)))
    except GossamerError as error:
        return type(error).__name__
    except ValueError as error:
        return str(error)
    return None


def shape(session: Session) -> dict[str, Any]:
    """What a session comes to, without ids and times."""

    def part(one: Any) -> Any:
        data = msgspec.to_builtins(one)
        for key in ("id", "call_id"):
            data.pop(key, None)
        return data

    return {
        "messages": [(one.role, [part(piece) for piece in one.parts]) for one in session.messages],
        "state": session.state,
        "pending": [(one.kind, one.call.name, one.agent) for one in session.pending],
        "usage": msgspec.structs.astuple(session.usage),
        "starts": len(session.starts),  # a text kept aside is a record where there is a store
        "switches": dict(session.switches),
        "answering": session.answering,
        "remembered": [(key[1], decision) for key, (_, decision) in session.remembered.items()],
        "unfinished": session.unfinished is not None,
    }


async def check(kind: str, url: str, steps: list[tuple], window: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = place_of(kind, Path(folder), url)
        store = place.open()

        def fresh() -> Session:
            return Session("s", store=store, window=window, state={"begun": True})

        plain = Session(window=window, state={"begun": True})
        kept = fresh()
        await kept.load()
        try:
            for step in steps:
                if step[0] in {"reload", "save"}:
                    await kept.save()
                    if step[0] == "reload":
                        kept = fresh()
                        await kept.load()
                    continue
                expected = await apply(plain, step)
                assert await apply(kept, step) == expected, step
                assert shape(kept) == shape(plain), step
            await kept.save()
            again = fresh()
            await again.load()
            assert shape(again) == shape(plain)
            told = Counter(type(one) for one in await again.read(0, 100_000))
            del told[OffloadedRecord]
            assert told == Counter(type(one) for one in plain.journal)
            for reference, text in plain.offload.texts.items():
                assert await again.kept_aside(reference) == text
        finally:
            await place.aclose()
            if kind == "postgres":
                place.execute(f'DROP SCHEMA IF EXISTS "{place.schema}" CASCADE')


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=operations, window=st.sampled_from([1, 5, 60, 1000]))
def test_a_session_in_sqlite_comes_to_the_same(steps: list[tuple], window: int) -> None:
    asyncio.run(check("sqlite", "", steps, window))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=operations, window=st.sampled_from([1, 5, 60, 1000]))
def test_a_session_in_postgres_comes_to_the_same(postgres, steps: list[tuple], window: int) -> None:
    asyncio.run(check("postgres", postgres.url(), steps, window))


@pytest.mark.parametrize("window", [5, 60])
async def test_a_long_talk_with_snapshots_comes_to_the_same(window: int) -> None:
    steps: list[tuple] = []
    for number in range(30):
        steps += [
            ("many", 7),
            ("run", "note", str(number)),
            ("update", str(number), number),
            ("run", "draw", "x"),
        ]
        if number % 5 == 4:
            steps += [
                ("run", "pay", "x"),
                ("reload",),
                ("decide", True, "arguments" if number > 10 else None),
            ]
            steps += [
                ("run", "long", "x"),
                ("rewind", 0),
                ("hand", "other"),
                ("switch", str(number), True),
                ("reload",),
            ]
            steps += [("run", "ask", "x"), ("run", "fail", "x")]
    await check("sqlite", "", steps, window)
