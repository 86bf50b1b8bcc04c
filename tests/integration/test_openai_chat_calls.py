"""Tool calls in Chat Completions, however servers cut, count and name them."""

from __future__ import annotations

import pytest
from tests.integration.asking import (
    TWO,
    agent,
    ask,
    calling,
    convert,
    pieces_of,
    reply,
    results_of,
    streamed_and_not,
)
from tests.integration.server import DONE, Server, call_entry, completion, frame, packets, say, stream

from gossamer.events import MessageFinished, ToolArgumentsDelta, ToolCallStarted
from gossamer.messages import Thinking


@streamed_and_not
async def test_parallel_calls_keep_their_order(streamed):
    async with Server(calling(streamed, *TWO), reply(streamed)) as server:
        result, _ = await ask(agent(server, tools=[convert]), "hi", streamed)
    assert results_of(server.requests[1]) == ["2.0", "12.0"]
    assert result.usage.tool_calls == 2
    calls = server.requests[1].messages[1]["tool_calls"]
    assert len({call["id"] for call in calls}) == 2


@pytest.mark.parametrize("theirs", ["a", "", None], ids=["one id for all", "empty ids", "no ids"])
async def test_whole_calls_without_ids_of_their_own_stay_apart(theirs):
    entries = [{**entry, "id": theirs} for entry in TWO]
    async with Server(calling(False, *entries), completion("ok")) as server:
        await agent(server, tools=[convert]).run("hi")
    assert results_of(server.requests[1]) == ["2.0", "12.0"]


@pytest.mark.parametrize(
    "index_of",
    [lambda place: place, lambda place: None, lambda place: 0, lambda place: place + 1],
    ids=["as specified", "missing", "always 0", "from 1"],
)
async def test_calls_are_told_apart_however_servers_count_them(index_of):
    async with Server(stream(*pieces_of(TWO, index_of)), stream(*say("ok"))) as server:
        result, events = await ask(agent(server, tools=[convert]), "hi", streamed=True)
    assert result.output == "ok"
    assert results_of(server.requests[1]) == ["2.0", "12.0"]
    started = [event for event in events if isinstance(event, ToolCallStarted)]
    assert [event.name for event in started] == ["convert", "convert"]
    for event, entry in zip(started, TWO, strict=True):
        told = [e.text for e in events if isinstance(e, ToolArgumentsDelta) and e.call_id == event.call_id]
        assert "".join(told) == entry["function"]["arguments"]


async def test_interleaved_calls():
    opening = [
        frame({"tool_calls": [{**e, "index": n, "function": {"name": "convert", "arguments": ""}}]})
        for n, e in enumerate(TWO)
    ]
    rest = [
        frame(
            {"tool_calls": [{"index": n, "function": {"arguments": letter}} for n, letter in enumerate(pair)]}
        )
        for pair in zip(*(entry["function"]["arguments"] for entry in TWO), strict=True)
    ]
    answer = stream(*opening, *rest, frame({}, finish="tool_calls"), DONE)
    async with Server(answer, stream(*say("ok"))) as server:
        await ask(agent(server, tools=[convert]), "hi", streamed=True)
    assert results_of(server.requests[1]) == ["2.0", "12.0"]


async def test_a_stream_cut_at_every_byte():
    """Half characters, half frames, half chunk sizes: what is understood does not depend on the packets."""
    events = [
        frame({"reasoning_content": "Höhö 🤔"}),
        b": a comment\r\n\r\n",
        frame({"content": "Grüße 👋"}),
        b"event: message\n" + frame({"content": " €"}).replace(b"\n", b"\r\n"),
        *pieces_of(TWO, lambda place: place),
    ]
    raw = b"".join(packets(*events))
    answer = [raw[place : place + 1] for place in range(len(raw))]
    async with Server(answer, stream(*say("ok"))) as server:
        result, seen = await ask(agent(server, tools=[convert]), "hi", streamed=True)
    said = next(event.message for event in seen if isinstance(event, MessageFinished))
    assert said.text == "Grüße 👋 €"
    assert said.parts[0] == Thinking("Höhö 🤔")
    assert results_of(server.requests[1]) == ["2.0", "12.0"]
    assert result.output == "ok"


@streamed_and_not
async def test_a_call_that_ends_with_stop_is_a_call(streamed):
    entry = call_entry("a", "convert", '{"amount": 1, "rate": 2}')
    if streamed:
        first = stream(frame({"tool_calls": [{**entry, "index": 0}]}), frame({}, finish="stop"), DONE)
    else:
        first = completion("", finish="stop", tool_calls=[entry])
    async with Server(first, reply(streamed)) as server:
        result, _ = await ask(agent(server, tools=[convert]), "hi", streamed)
    assert result.output == "ok"
    assert results_of(server.requests[1]) == ["2.0"]
