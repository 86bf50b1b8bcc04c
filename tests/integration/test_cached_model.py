"""CachedModel: what was asked before is answered without asking again, on real sockets where a wire is involved."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from tests.integration.asking import TWO, ask, calling, convert, reply, streamed_and_not
from tests.integration.server import Close, Server, completion, frame, http, packets, say

from gossamer import (
    Agent,
    Limits,
    Message,
    ModelSettings,
    Session,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    tool,
)
from gossamer.cache import MemoryCache
from gossamer.errors import ProviderError, StreamBrokenError
from gossamer.events import TextDelta, ToolArgumentsDelta, ToolCallFinished, ToolCallStarted
from gossamer.messages import Citation, Image, ProviderBlock, Thinking
from gossamer.models import (
    CachedModel,
    FallbackModel,
    ModelRequest,
    ModelResponse,
    OpenAIChat,
    Price,
    RetryModel,
    ScriptedModel,
)
from gossamer.models import cached as cached_module
from gossamer.schema import ToolSchema, output_schema
from gossamer.telemetry import disable_metrics, enable_metrics
from gossamer.view import MessageView

HIT = Usage(cached_calls=1)


def cached(server, **options):
    return CachedModel(OpenAIChat("gpt-test", base_url=server.url, api_key="secret"), **options)


def request(*messages, **fields):
    return ModelRequest(MessageView(list(messages), 0, len(messages)), **fields)


async def drain(model, request):
    return [item async for item in model.stream(request)]


@streamed_and_not
async def test_an_equal_request_is_asked_once(streamed):
    async with Server(reply(streamed, "4"), http({}, 500)) as server:
        agent = Agent(cached(server), instructions="Be brief.")
        first, _ = await ask(agent, "2 + 2?", streamed)
        again, _ = await ask(agent, "2 + 2?", streamed)
        whole, _ = await ask(agent, "2 + 2?", not streamed)
    assert [first.output, again.output, whole.output] == ["4"] * 3
    assert len(server.requests) == 1
    assert first.usage.model_calls == 1
    assert again.usage == whole.usage == HIT
    assert again.messages[-1].created > first.messages[-1].created


async def test_a_stream_is_replayed_as_the_deltas_that_came():
    async with Server(packets(*say("He", "llo ", "you"))) as server:
        agent = Agent(cached(server))
        _, first = await ask(agent, "Hi", True)
        _, again = await ask(agent, "Hi", True)
    texts = [[event.text for event in events if type(event) is TextDelta] for events in (first, again)]
    assert texts == [["He", "llo ", "you"]] * 2
    assert len(server.requests) == 1


async def test_a_long_stream_is_replayed_from_its_message():
    words = [f"{number} " for number in range(10_500)]
    model = CachedModel(ScriptedModel([[TextDelta(word) for word in words]]))
    await drain(model, request(Message.user("count")))
    *deltas, response = await drain(model, request(Message.user("count")))
    assert "".join(delta.text for delta in deltas) == response.message.text == "".join(words)


@streamed_and_not
async def test_a_whole_tool_loop_is_replayed_with_fresh_call_ids(streamed):
    async with Server(calling(streamed, *TWO), reply(streamed, "2 and 12"), http({}, 500)) as server:
        agent = Agent(cached(server), tools=[convert])
        first, _ = await ask(agent, "convert", streamed)
        again, events = await ask(agent, "convert", streamed)
    assert first.output == again.output == "2 and 12"
    assert len(server.requests) == 2
    ids = [[call.id for call in result.messages[1].tool_calls] for result in (first, again)]
    assert len({*ids[0], *ids[1]}) == 4
    assert again.usage == Usage(cached_calls=2, tool_calls=2)
    if streamed:
        started = [event.call_id for event in events if type(event) is ToolCallStarted]
        written = [event.call_id for event in events if type(event) is ToolArgumentsDelta]
        finished = [event.call.id for event in events if type(event) is ToolCallFinished]
        assert started == sorted(set(written)) == finished == ids[1]


async def test_every_kind_of_part_comes_back():
    parts = (
        Thinking("hm", signed=True, provider={"x": {"signature": "abc"}}),
        Text("a", {"x": [1, msgspec.Raw(b'{"raw":true}')]}),
        Citation("http://c", "C", "words", 1, 2),
        ProviderBlock("x", {"k": [1, 2.5, None]}),
        Image(bytes(range(256)), media_type="image/png"),
    )
    said = ModelResponse(Message("assistant", parts, "Ann", provider={"x": {"id": 1}}), Usage(model_calls=1))
    model = CachedModel(ScriptedModel([said]))
    await model.respond(DIFFERENT["plain"])
    again = await model.respond(DIFFERENT["plain"])
    assert msgspec.json.encode(again.message.parts) == msgspec.json.encode(parts)
    assert (again.message.author, again.message.provider) == ("Ann", {"x": {"id": 1}})


async def test_providers_data_of_calls_is_kept():
    async with Server(calling(False, *TWO), completion("done"), http({}, 500)) as server:
        agent = Agent(cached(server), tools=[convert])
        await agent.run("convert")
        again = await agent.run("convert")
    given = [call.provider for call in again.messages[1].tool_calls]
    assert given == [{"openai_chat": {"id": "a"}}, {"openai_chat": {"id": "b"}}]


# --- the key ------------------------------------------------------------------------------------------------


@dataclass
class Colour:
    """A colour."""

    name: str


CALL = ToolCall("f", '{"a":1}', "id-1")
OTHER = ToolCall("f", '{"a":1}', "id-2")
PICTURE = Image(b"\x89PNG\r\n\x1a\n" + b"a" * 50)
SCHEMA = ToolSchema("f", "Do f.", {"type": "object", "properties": {"a": {"type": "integer"}}})


def history(first, second, *, swapped=False, split=False):
    results = [ToolResult(first.id, "f", "one"), ToolResult(second.id, "f", "two")]
    if swapped:
        results = [
            msgspec.structs.replace(one, call_id=other.call_id)
            for one, other in zip(results, results[::-1], strict=True)
        ]
    tools = [Message("tool", (result,)) for result in results] if split else [Message("tool", tuple(results))]
    return [Message.user("go"), Message.assistant(first, second), *tools]


DIFFERENT = {
    "plain": request(Message.user("hi")),
    "text": request(Message.user("hi!")),
    "role": request(Message.system("hi")),
    "two messages": request(Message.user("h"), Message.user("i")),
    "two parts": request(Message.user("h", "i")),
    "author": request(Message.user("hi", author="Ann")),
    "provider data": request(Message.user(Text("hi", {"openai_chat": {"a": 1}}))),
    "other provider data": request(Message.user(Text("hi", {"openai_chat": {"a": 2}}))),
    "instructions": request(Message.user("hi"), instructions="Be brief."),
    "empty instructions": request(Message.user("hi"), instructions=""),
    "tools": request(Message.user("hi"), tools=(SCHEMA,)),
    "tool schema": request(
        Message.user("hi"), tools=(msgspec.structs.replace(SCHEMA, parameters={"type": "object"}),)
    ),
    "tool words": request(Message.user("hi"), tools=(msgspec.structs.replace(SCHEMA, description="Do g."),)),
    "tool choice": request(Message.user("hi"), tools=(SCHEMA,), tool_choice="required"),
    "output": request(Message.user("hi"), output_schema=output_schema(Colour)),
    "other output": request(Message.user("hi"), output_schema=output_schema(int)),
    "picture": request(Message.user(PICTURE)),
    "other picture": request(Message.user(Image(PICTURE.data + b"b"))),
    "its type": request(Message.user(Image(PICTURE.data, media_type="image/webp"))),
    "its address": request(Message.user(Image(url="http://a/b.png"))),
    "temperature": request(Message.user("hi"), settings=ModelSettings(temperature=0.0)),
    "other temperature": request(Message.user("hi"), settings=ModelSettings(temperature=1.0)),
    "extra body": request(Message.user("hi"), settings=ModelSettings(extra_body={"a": 1, "b": 2})),
    "extra headers": request(Message.user("hi"), settings=ModelSettings(extra_headers={"x-beta": "1"})),
    "results": request(*history(CALL, OTHER)),
    "results of the other call": request(*history(CALL, OTHER, swapped=True)),
    "results apart": request(*history(CALL, OTHER, split=True)),
    "results apart, of the other call": request(*history(CALL, OTHER, swapped=True, split=True)),
    "outcome": request(
        Message.user("go"), Message.assistant(CALL), Message("tool", (ToolResult("id-1", "f", "x"),))
    ),
    "other outcome": request(
        Message.user("go"), Message.assistant(CALL), Message("tool", (ToolResult("id-1", "f", "x", "error"),))
    ),
    "media result": request(
        Message.user("go"),
        Message.assistant(CALL),
        Message("tool", (ToolResult("id-1", "f", (Text("x"), PICTURE)),)),
    ),
}
THIRD, FOURTH = ToolCall("f", '{"a":1}', "id-3"), ToolCall("f", '{"a":1}', "id-4")
EQUAL = {
    "plain": request(Message("user", (Text("hi"),), None, 0.0), on_repeat=lambda: None),
    "picture": request(Message.user(Image(bytes(PICTURE.data)))),
    "extra body": request(
        Message.user("hi"), settings=ModelSettings(extra_body={"b": 2, "a": 1}, timeout=3.0)
    ),
    "results": request(*history(THIRD, FOURTH)),
    "results apart": request(*history(THIRD, FOURTH, split=True)),
    "results apart, of the other call": request(*history(THIRD, FOURTH, swapped=True, split=True)),
    "tools": request(Message.user("hi"), tools=(msgspec.structs.replace(SCHEMA),)),
    "output": request(Message.user("hi"), output_schema=msgspec.structs.replace(output_schema(Colour))),
}


def test_the_key_covers_what_changes_the_answer():
    model = CachedModel(ScriptedModel([]))
    keys = {name: model.key(one) for name, one in DIFFERENT.items()}
    assert len(set(keys.values())) == len(keys)
    for name, one in EQUAL.items():
        assert model.key(one) == keys[name], name


def test_the_key_covers_the_model():
    chat = {"base_url": "http://127.0.0.1:1/v1", "api_key": "one"}
    models = [
        OpenAIChat("a", **chat),
        OpenAIChat("b", **chat),
        OpenAIChat("a", base_url="http://127.0.0.1:2/v1"),
        OpenAIChat("a", **chat, provider="vllm"),
        OpenAIChat("a", **chat, send_thinking=True),
        FallbackModel(OpenAIChat("a", **chat), OpenAIChat("b", **chat)),
        FallbackModel(OpenAIChat("b", **chat), OpenAIChat("a", **chat)),
    ]
    keys = [CachedModel(model).key(DIFFERENT["plain"]) for model in models]
    assert len(set(keys)) == len(keys)
    same = [OpenAIChat("a", **{**chat, "api_key": "other"}), RetryModel(OpenAIChat("a", **chat))]
    assert {CachedModel(model).key(DIFFERENT["plain"]) for model in same} == {keys[0]}


async def test_the_key_of_a_grown_view_is_that_of_a_whole_one():
    """Bodies are encoded once, as a conversation grows; a stranger with the same history must meet the same key."""
    model = CachedModel(ScriptedModel([]))
    items, encodings = [], {}
    for number in range(20):
        items.append(Message.user(f"message {number}"))
        grown = ModelRequest(MessageView(items, max(0, number - 7), len(items), encodings))
        whole = request(*items[max(0, number - 7) :])
        assert model.key(grown) == model.key(whole)


async def test_each_message_is_encoded_once_for_its_conversation(monkeypatch):
    encoded = []
    encode = cached_module._key_of_message
    monkeypatch.setattr(
        cached_module, "_key_of_message", lambda view, *pair: encoded.append(pair[0]) or encode(view, *pair)
    )
    agent, session = Agent(CachedModel(ScriptedModel(lambda request: "ok"))), Session()
    for number in range(30):
        await agent.run(f"turn {number}", session=session)
    assert len(encoded) == len(session.messages) - 1  # the last answer has not been sent yet
    assert len({id(message) for message in encoded}) == len(encoded)


# --- what is not kept ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("finish", ["length", "content_filter", "odd"])
@streamed_and_not
async def test_answers_that_did_not_end_well_are_not_kept(finish, streamed):
    bad = packets(*say("cut", finish=finish)) if streamed else completion("cut", finish=finish)
    async with Server(bad, reply(streamed, "whole")) as server:
        model = cached(server)
        items = []
        for _ in range(2):
            if streamed:
                items.append((await drain(model, DIFFERENT["plain"]))[-1])
            else:
                items.append(await model.respond(DIFFERENT["plain"]))
    assert [item.message.text for item in items] == ["cut", "whole"]


async def test_a_stream_that_broke_is_not_kept():
    broken = [*packets(frame({"content": "half"}))[:-1], Close(b"")]
    async with Server(broken, packets(*say("whole"))) as server:
        model = cached(server)
        with pytest.raises(StreamBrokenError):
            await drain(model, DIFFERENT["plain"])
        assert (await drain(model, DIFFERENT["plain"]))[-1].message.text == "whole"


async def test_a_stream_that_was_left_is_not_kept():
    async with Server(packets(*say("a", "b")), packets(*say("c"))) as server:
        model = cached(server)
        stream = model.stream(DIFFERENT["plain"])
        assert await anext(stream) == TextDelta("a")
        await stream.aclose()
        assert (await drain(model, DIFFERENT["plain"]))[-1].message.text == "c"


async def test_errors_are_not_kept():
    async with Server(http({"error": {"message": "broken"}}, 500), completion("fine")) as server:
        model = cached(server)
        with pytest.raises(ProviderError):
            await model.respond(DIFFERENT["plain"])
        assert (await model.respond(DIFFERENT["plain"])).message.text == "fine"


async def test_answers_are_good_for_their_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("gossamer.cache.memory.monotonic", lambda: now[0])
    model = CachedModel(ScriptedModel(["old", "new"]), ttl=60)
    texts = []
    for now[0] in (0.0, 59.0, 61.0):
        texts.append((await model.respond(DIFFERENT["plain"])).message.text)
    assert texts == ["old", "old", "new"]


# --- calls in flight ----------------------------------------------------------------------------------------


class Gate:
    """Answers only when it is opened, and counts who asked."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.calls = 0
        self.open = asyncio.Event()

    async def __call__(self, request):
        self.calls += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        await self.open.wait()
        return outcome

    async def asked(self, times):
        async with asyncio.timeout(10):
            while self.calls < times:
                await asyncio.sleep(0)


async def last(model, request):
    return (await drain(model, request))[-1]


async def test_equal_calls_in_flight_are_made_once_streams_and_not():
    gate = Gate("one answer")
    model = CachedModel(ScriptedModel(gate))
    one = DIFFERENT["plain"]
    calls = [model.respond(one), last(model, one), model.respond(one), last(model, one)]
    for order in (calls, [last(model, DIFFERENT["text"]), model.respond(DIFFERENT["text"])]):
        gate.calls = 0
        gate.open.clear()
        tasks = [asyncio.ensure_future(call) for call in order]
        await gate.asked(1)
        for _ in range(5):
            await asyncio.sleep(0)
        gate.open.set()
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*tasks)
        assert gate.calls == 1
        assert {answer.message.text for answer in answers} == {"one answer"}
        assert [answer.usage for answer in answers[1:]] == [HIT] * (len(answers) - 1)


async def test_an_answer_that_is_not_kept_is_shared_all_the_same():
    cut = ModelResponse(Message.assistant("cut"), Usage(model_calls=1), "length")
    gate = Gate(cut)
    cache = MemoryCache()
    model = CachedModel(ScriptedModel(gate), cache)
    tasks = [asyncio.ensure_future(model.respond(DIFFERENT["plain"])) for _ in range(3)]
    await gate.asked(1)
    gate.open.set()
    assert {answer.finish_reason for answer in await asyncio.gather(*tasks)} == {"length"}
    assert gate.calls == 1
    assert cache.statistics().entries == 0


@streamed_and_not
async def test_where_the_first_fails_another_asks_in_its_turn(streamed):
    gate = Gate(ProviderError("broken"), "fine")
    model = CachedModel(ScriptedModel(gate))
    call = last if streamed else CachedModel.respond
    tasks = [asyncio.ensure_future(call(model, DIFFERENT["plain"])) for _ in range(4)]
    await gate.asked(1)
    gate.open.set()
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], ProviderError)
    assert {answer.message.text for answer in answers[1:]} == {"fine"}
    assert gate.calls == 2


@streamed_and_not
async def test_where_the_first_is_cancelled_another_asks_in_its_turn(streamed):
    gate = Gate("fine")
    model = CachedModel(ScriptedModel(gate))
    call = last if streamed else CachedModel.respond
    tasks = [asyncio.ensure_future(call(model, DIFFERENT["plain"])) for _ in range(4)]
    await gate.asked(1)
    tasks[0].cancel()
    tasks[2].cancel()
    await gate.asked(2)
    gate.open.set()
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [
        asyncio.CancelledError,
        ModelResponse,
        asyncio.CancelledError,
        ModelResponse,
    ]
    assert gate.calls == 2
    assert not model._flights


@streamed_and_not
async def test_after_a_second_failure_nobody_waits_for_another(streamed):
    calls = 0
    all_ask = asyncio.Event()

    async def answer(request):
        nonlocal calls
        calls += 1
        if calls == 20:
            all_ask.set()
        await (all_ask.wait() if calls > 2 else asyncio.sleep(0))
        raise ProviderError("broken")

    model = CachedModel(ScriptedModel(answer))
    call = last if streamed else CachedModel.respond
    async with asyncio.timeout(10):
        answers = await asyncio.gather(
            *[call(model, DIFFERENT["plain"]) for _ in range(20)], return_exceptions=True
        )
    assert [type(answer) for answer in answers] == [ProviderError] * 20
    assert calls == 20
    assert not model._flights


async def test_nobody_waits_for_ever_for_a_stream_that_nobody_reads(monkeypatch):
    monkeypatch.setattr("gossamer.models.cached._LOOK_SECONDS", 0.02)
    calls = []
    model = CachedModel(ScriptedModel(lambda request: calls.append(request) or "two words"))
    resting = model.stream(DIFFERENT["plain"])
    assert await anext(resting) == TextDelta("two ")
    async with asyncio.timeout(10):
        answers = await asyncio.gather(
            *[model.respond(DIFFERENT["plain"]) for _ in range(3)], last(model, DIFFERENT["plain"])
        )
    assert {answer.message.text for answer in answers} == {"two words"}
    assert len(calls) == 2  # one asked in the place of the stream, and the others waited for that one
    assert (await last(model, DIFFERENT["plain"])).usage == HIT
    assert [type(item) async for item in resting] == [TextDelta, ModelResponse]
    assert not model._flights


async def test_a_stream_that_is_read_slowly_is_waited_for(monkeypatch):
    monkeypatch.setattr("gossamer.models.cached._LOOK_SECONDS", 0.05)
    calls = []
    model = CachedModel(ScriptedModel(lambda request: calls.append(request) or "word " * 40))

    async def read_slowly():
        async for _ in model.stream(DIFFERENT["plain"]):
            await asyncio.sleep(0.005)

    async with asyncio.timeout(10):
        reader = asyncio.ensure_future(read_slowly())
        await asyncio.sleep(0)
        assert (await model.respond(DIFFERENT["plain"])).usage == HIT
        await reader
    assert len(calls) == 1


def test_loops_share_answers_but_not_calls():
    model = CachedModel(ScriptedModel(["one", "two"]))
    texts = [
        asyncio.run(model.respond(one)).message.text
        for one in (DIFFERENT["plain"], DIFFERENT["text"], DIFFERENT["plain"])
    ]
    assert texts == ["one", "two", "one"]


# --- caches that fail, what is told -------------------------------------------------------------------------


class Failing:
    """A cache whose server is away."""

    async def get(self, key, default=None):
        raise ConnectionError("no route")

    async def set(self, key, value, ttl=None):
        raise ConnectionError("no route")

    async def delete(self, key):
        raise ConnectionError("no route")


async def test_a_cache_that_fails_is_passed_over(caplog):
    model = CachedModel(ScriptedModel(["one", "two"]), Failing())
    with caplog.at_level(logging.WARNING, "gossamer"):
        assert (await model.respond(DIFFERENT["plain"])).message.text == "one"
        assert (await drain(model, DIFFERENT["plain"]))[-1].message.text == "two"
    assert sum("no route" in record.message for record in caplog.records) == 4


@pytest.mark.parametrize("stored", [b"", b"\xc1junk", "text", 7, b'["old", "form"]'])
async def test_what_cannot_be_read_is_asked_again(stored):
    cache = MemoryCache()
    model = CachedModel(ScriptedModel(["fresh"]), cache)
    await cache.set(model.key(DIFFERENT["plain"]), stored)
    assert (await model.respond(DIFFERENT["plain"])).message.text == "fresh"
    assert (await model.respond(DIFFERENT["plain"])).usage == HIT


async def test_what_is_stored_is_bytes_and_holds_no_key():
    async with Server(completion("4")) as server:
        stored = {}

        class Plain(MemoryCache):
            async def set(self, key, value, ttl=None):
                stored[key] = value
                await super().set(key, value, ttl)

        await cached(server, cache=Plain()).respond(DIFFERENT["plain"])
    ((key, value),) = stored.items()
    assert type(value) is bytes
    assert key.startswith("answer:")
    assert b"secret" not in value


async def test_hits_use_up_no_limit_on_money_or_tokens():
    used = Usage(input_tokens=10, output_tokens=5, model_calls=1)

    def reply(request):
        if request.messages[-1].role == "user":
            return ModelResponse(Message.assistant(ToolCall.of("look")), used, "tool_calls")
        return ModelResponse(Message.assistant("done"), used)

    @tool(inline=True)
    def look() -> str:
        """Look."""
        return "seen"

    model = CachedModel(ScriptedModel(reply, price=Price(input=1.0, output=1.0)))
    agent = Agent(model, tools=[look], limits=Limits(max_tokens=1000, max_cost=0.001))
    first = await agent.run("hi")
    assert (first.output, first.usage.model_calls) == ("done", 2)
    # All that is left is reserved for each call: a hit that counted as its reservation would leave no second turn.
    second = await agent.run("hi")
    assert second.stopped is None
    assert second.output == "done"
    assert second.usage.cached_calls >= 1


async def test_metrics_tell_hits_shared_and_misses():
    recorder = enable_metrics(CollectorRegistry())
    try:
        gate = Gate("one")
        model = CachedModel(ScriptedModel(gate))
        tasks = [asyncio.ensure_future(model.respond(DIFFERENT["plain"])) for _ in range(3)]
        await gate.asked(1)
        gate.open.set()
        await asyncio.gather(*tasks)
        await model.respond(DIFFERENT["plain"])
        counted = {
            outcome: recorder.registry.get_sample_value(
                "gossamer_model_cache_requests_total", {"model": "scripted", "outcome": outcome}
            )
            for outcome in ("hit", "shared", "miss")
        }
        assert counted == {"hit": 1, "shared": 2, "miss": 1}
    finally:
        disable_metrics()


async def test_it_goes_around_retries():
    async with Server(http({}, 500), completion("fine"), http({}, 500)) as server:
        inner = RetryModel(
            OpenAIChat("gpt-test", base_url=server.url, api_key="secret"), first_wait=0.01, longest_wait=0.02
        )
        agent = Agent(CachedModel(inner))
        assert (await agent.run("hi")).output == (await agent.run("hi")).output == "fine"
        assert len(server.requests) == 2
