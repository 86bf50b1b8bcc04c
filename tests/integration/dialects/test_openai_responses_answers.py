"""OpenAI's Responses on the wire: what becomes of each answer, whole, streamed or broken."""

from __future__ import annotations

import json

import msgspec
import openai
import pytest
from tests.integration.asking import ask, convert, streamed_and_not
from tests.integration.dialects.responses_voice import (
    USAGE,
    call,
    frame,
    frames,
    message,
    model,
    reasoning,
    reply,
    response,
    streamed_answer,
    whole_items,
)
from tests.integration.server import DONE, Close, Server, http, packets

from gossamer import Agent, Session, Usage
from gossamer.errors import (
    ArgumentError,
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    ModelConnectionError,
    NotFoundError,
    OutputError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    StreamBrokenError,
)
from gossamer.events import TextDelta, ThinkingDelta, ToolCallStarted
from gossamer.messages import Refusal
from gossamer.models import (
    Capabilities,
    ModelSettings,
    OpenAIResponses,
    resolve,
)
from gossamer.telemetry import metrics

ONE_CALL = call("call_a", "convert", '{"amount": 2, "rate": 3}')


class Quote(msgspec.Struct):
    """A price."""

    amount: float
    currency: str


def agent(server, *arguments, name="gpt-test", capabilities=Capabilities(thinking=True), **options):
    return Agent(model(server, name, capabilities=capabilities), *arguments, **options)


# --- structured output --------------------------------------------------------------------------------------


@streamed_and_not
async def test_native_schema(streamed):
    async with Server(reply(streamed, '{"amount": 2.5, "currency": "EUR"}')) as server:
        settings = ModelSettings(extra_body={"text": {"verbosity": "low"}})
        result, _ = await ask(agent(server, output=Quote, settings=settings), "quote", streamed)
    assert result.output == Quote(2.5, "EUR")
    text = server.requests[0].body["text"]
    assert text["verbosity"] == "low"
    assert (text["format"]["type"], text["format"]["name"], text["format"]["strict"]) == (
        "json_schema",
        "Quote",
        True,
    )


@streamed_and_not
async def test_schema_through_a_tool(streamed):
    answer = reply(streamed, call("c", "final_answer", '{"amount": 2.5, "currency": "EUR"}'))
    async with Server(answer) as server:
        asking = agent(server, output=Quote, capabilities=Capabilities(native_schema=False))
        result, events = await ask(asking, "quote", streamed)
    assert result.output == Quote(2.5, "EUR")
    assert result.finish_reason == "stop"
    assert server.requests[0].body["tool_choice"] == "required"
    assert not [event for event in events if isinstance(event, ToolCallStarted)]
    if streamed:
        said = "".join([event.text for event in events if isinstance(event, TextDelta)])
        assert said == '{"amount": 2.5, "currency": "EUR"}'


# --- answers ------------------------------------------------------------------------------------------------


@streamed_and_not
async def test_a_refusal(streamed):
    session = Session()
    async with Server(reply(streamed, message(refusal="I will not.")), reply(streamed)) as server:
        asking = agent(server)
        result, _ = await ask(asking, "hi", streamed, session=session)
        await ask(asking, "why?", streamed, session=session)
    assert result.finish_reason == "refusal"
    assert result.messages[-1].parts == (Refusal("I will not.", {"openai_responses": {"id": "msg_1"}}),)
    assert server.requests[1].body["input"][1]["content"] == [{"type": "refusal", "refusal": "I will not."}]


async def test_a_refused_structured_answer():
    async with Server(reply(True, message(refusal="I will not."))) as server:
        with pytest.raises(OutputError, match="I will not"):
            await ask(agent(server, output=Quote), "hi", True)


@streamed_and_not
@pytest.mark.parametrize(
    ("status", "reason", "ours"),
    [
        ("completed", None, "stop"),
        ("incomplete", "max_output_tokens", "length"),
        ("incomplete", "content_filter", "content_filter"),
        ("incomplete", "steered", "other"),
        ("incomplete", None, "other"),
    ],
)
async def test_finish_reasons(status, reason, ours, streamed):
    async with Server(reply(streamed, "so far", status=status, reason=reason)) as server:
        result, _ = await ask(agent(server), "hi", streamed)
    assert (result.finish_reason, result.output) == (ours, "so far")


@streamed_and_not
@pytest.mark.parametrize(
    ("usage", "details"), [(USAGE, (64, 8, 20)), ({"input_tokens": 100, "output_tokens": 30}, (0, 0, 0))]
)
async def test_usage(usage, details, streamed):
    async with Server(reply(streamed, usage=usage)) as server:
        result, _ = await ask(agent(server), "hi", streamed)
    cached, written, reasoned = details
    assert result.usage == Usage(
        input_tokens=100,
        output_tokens=30,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoned,
        model_calls=1,
        unpriced_calls=1,
    )
    assert result.model == "gpt-test-2026"


async def test_known_models_have_their_price():
    async with Server(reply(False, usage=USAGE)) as server:
        result = await agent(server, name="gpt-5-mini").run("hi")
    assert result.usage.cost > 0


@streamed_and_not
async def test_an_empty_reply(streamed):
    async with Server(
        http(response()) if not streamed else streamed_answer(*frames()), reply(streamed)
    ) as server:
        session = Session()
        result, _ = await ask(agent(server), "hi", streamed, session=session)
        assert result.output == ""
        await ask(agent(server), "well?", streamed, session=session)
    assert [item["content"] for item in server.requests[1].body["input"]] == ["hi", "well?"]


@streamed_and_not
async def test_parallel_calls_keep_their_order(streamed):
    two = (ONE_CALL, call("call_b", "convert", '{"amount": 4, "rate": 5}'))
    async with Server(reply(streamed, *two, cut=1), reply(streamed)) as server:
        await ask(agent(server, tools=[convert]), "hi", streamed)
    results = [item for item in server.requests[1].body["input"] if item.get("output")]
    assert [item["output"] for item in results] == ["6.0", "20.0"]
    assert len({item["call_id"] for item in results}) == 2


async def test_servers_that_stream_less():
    """No items at their end, no items at all, calls without a beginning: the last event says the rest."""
    whole = response(message("ok"), ONE_CALL)
    bare = [
        frame("response.output_text.delta", delta="ok", output_index=0),
        frame("response.completed", response=whole),
    ]
    late = [frame("response.output_item.done", output_index=1, item=ONE_CALL), bare[1]]
    text = [bare[0], frame("response.completed", response=response()), DONE]
    async with Server(*(streamed_answer(*answer) for answer in (bare, late, text))) as server:
        result, events = await ask(agent(server, tools=[convert]), "hi", True)
    assert result.output == "ok"
    assert [item["output"] for item in server.requests[2].body["input"] if item.get("output")] == ["6.0"] * 2
    started = [event.call_id for event in events if isinstance(event, ToolCallStarted)]
    assert started == [result.messages[3].tool_calls[0].id]


async def test_a_stream_cut_at_every_byte():
    raw = b"".join(
        packets(*frames(reasoning("Höhö 🤔"), message("Grüße 👋 €"), ONE_CALL, cut=1), b": a comment\r\n\r\n")
    )
    answer = [raw[place : place + 1] for place in range(len(raw))]
    async with Server(answer, reply(True)) as server:
        result, _ = await ask(agent(server, tools=[convert]), "hi", True)
    said = result.messages[1]
    assert (said.parts[0].text, said.text) == ("Höhö 🤔", "Grüße 👋 €")
    assert server.requests[1].body["input"][-1]["output"] == "6.0"


async def test_unknown_events_are_counted(monkeypatch):
    counted = []

    class Recorder:
        def __getattr__(self, name):
            return lambda *facts: counted.append((name, *facts))

    monkeypatch.setattr(metrics, "recorder", Recorder())
    async with Server(streamed_answer(*whole_items(message("ok")))) as server:
        result, _ = await ask(agent(server), "hi", True)
    assert result.output == "ok"
    assert ("unknown_frame", "openai", "response.hologram.delta") in counted


# --- failures -----------------------------------------------------------------------------------------------


@streamed_and_not
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "context_length_exceeded", ContextLengthError),
        (400, "content_policy_violation", ContentFilterError),
        (400, "invalid_prompt", InvalidRequestError),
        (401, "invalid_api_key", AuthenticationError),
        (404, "model_not_found", NotFoundError),
        (429, "insufficient_quota", QuotaExceededError),
        (429, "rate_limit_exceeded", RateLimitError),
        (500, "server_error", ProviderError),
    ],
)
async def test_errors(status, code, kind, streamed):
    body = {"error": {"message": "no", "type": "x", "param": None, "code": code}}
    async with Server(http(body, status, "Retry-After: 2", "x-request-id: r1")) as server:
        with pytest.raises(kind) as caught:
            await ask(agent(server), "hi", streamed)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.retry_after, caught.value.request_id) == (status, 2, "r1")


FAILED = {"code": "rate_limit_exceeded", "message": "slow down"}


@pytest.mark.parametrize(
    "last",
    [
        frame("response.failed", response=response(status="failed", error=FAILED)),
        frame("error", **FAILED, param=None),
        frame("error", error=FAILED),
    ],
    ids=["failed", "flat", "nested"],
)
async def test_a_failure_in_the_middle_of_a_stream(last):
    events = frames(message("so far"))[:-3]
    async with Server(streamed_answer(*events, last)) as server:
        with pytest.raises(RateLimitError, match="slow down"):
            await ask(agent(server), "hi", True)


async def test_a_failed_whole_answer():
    async with Server(
        http(response(status="failed", error=FAILED)), http(response(status="queued"))
    ) as server:
        with pytest.raises(RateLimitError, match="slow down"):
            await agent(server).run("hi")
        with pytest.raises(InvalidResponseError, match="queued"):
            await agent(server).run("hi")


@streamed_and_not
@pytest.mark.parametrize(
    "answer",
    [
        http(b"<html>down</html>", kind="text/html"),
        http(b'{"status": "completed", "output": [{"type": "message", "content": 7}]}'),
        http(b'{"status": "completed", "output": 7}'),
        http(b"[]"),
        streamed_answer(b"data: {\n\n"),
        streamed_answer(frame("response.completed", response=7)),
        streamed_answer(frame("response.output_item.done", output_index=0)),
        streamed_answer(
            frame("response.completed", response=response({"type": "function_call", "arguments": 1}))
        ),
    ],
)
async def test_nonsense(answer, streamed):
    async with Server(answer) as server:
        with pytest.raises(InvalidResponseError):
            await ask(agent(server), "hi", streamed)


async def test_a_stream_that_ends_early_tells_what_arrived():
    raw = streamed_answer(*frames(message("one two three"))[:7])
    async with Server(raw, Close(raw[:-40])) as server:
        for _ in range(2):
            with pytest.raises(StreamBrokenError) as caught:
                await ask(agent(server), "hi", True)
            assert caught.value.text
            assert "one two three".startswith(caught.value.text)


async def test_a_whole_answer_that_ends_early():
    async with Server(Close(reply(False)[:-20])) as server:
        with pytest.raises(ModelConnectionError):
            await agent(server).run("hi")


# --- by name ------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    resolve.cache_clear()
    yield monkeypatch
    resolve.cache_clear()


async def test_the_preset(environment):
    with pytest.raises(AuthenticationError, match="OPENAI_API_KEY"):
        resolve("openai_responses:gpt-5-mini")
    async with Server(reply(False)) as server:
        environment.setenv("OPENAI_API_KEY", "secret")
        environment.setenv("OPENAI_BASE_URL", server.url)
        found = resolve("openai_responses:gpt-5-mini")
        assert (await Agent(found).run("hi")).output == "ok"
    assert (found.dialect, found.name) == ("openai_responses", "gpt-5-mini")
    assert server.requests[0].target == "/v1/responses"
    assert server.requests[0].headers["authorization"] == "Bearer secret"
    assert "secret" not in repr(found)


async def test_the_key_goes_to_openai_alone(environment):
    environment.setenv("OPENAI_API_KEY", "secret")
    environment.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    with pytest.raises(ArgumentError, match="base_url"):
        OpenAIResponses("x", provider="groq")
    async with Server(reply(False)) as server:
        await Agent(OpenAIResponses("x", provider="groq", base_url=server.url)).run("hi")
    assert "authorization" not in server.requests[0].headers
    environment.delenv("OPENAI_BASE_URL")
    environment.delenv("OPENAI_API_KEY")
    with pytest.raises(AuthenticationError):
        OpenAIResponses("gpt-5-mini")


# --- the same program elsewhere -----------------------------------------------------------------------------


@streamed_and_not
async def test_what_comes_is_what_the_official_client_sees(streamed):
    items = (reasoning("hm"), message("It is 6."), ONE_CALL)
    answer = reply(streamed, *items, usage=USAGE)
    async with Server(answer, answer, reply(streamed)) as server:
        client = openai.AsyncOpenAI(base_url=server.url, api_key="k", max_retries=0)
        if streamed:
            async with client.responses.stream(model="gpt-test", input="hi") as events:
                async for _ in events:
                    pass
                theirs = await events.get_final_response()
        else:
            theirs = await client.responses.create(model="gpt-test", input="hi")
        await client.close()
        ours, _ = await ask(agent(server, tools=[convert]), "hi", streamed)
    said = ours.messages[1]
    assert said.text == theirs.output_text
    assert said.tool_calls[0].arguments == theirs.output[2].arguments
    assert json.loads(said.tool_calls[0].arguments) == {"amount": 2, "rate": 3}
    assert ours.usage.cached_tokens == theirs.usage.input_tokens_details.cached_tokens


@streamed_and_not
async def test_what_is_said_beside_a_structured_answer_is_none_of_it(streamed):
    class Sum(msgspec.Struct):
        value: int

    aside = message("Let me add.", item="msg_0", phase="commentary")
    final = message('{"value": 4}', phase="final_answer")
    async with Server(reply(streamed, aside, final), reply(streamed, message('{"value": 5}'))) as server:
        session = Session()
        asking = agent(server, output=Sum)
        result, events = await ask(asking, "2 and 2", streamed, session=session)
        assert result.output == Sum(4)
        if streamed:
            said = [event.text for event in events if isinstance(event, TextDelta)]
            assert "".join(said) == '{"value": 4}'
            assert (
                "".join(event.text for event in events if isinstance(event, ThinkingDelta)) == "Let me add."
            )
        await ask(asking, "and 1", streamed, session=session)
    # It goes back as what it was.
    items = server.requests[1].body["input"][1:3]
    assert [(item["id"], item["phase"], item["content"][0]["text"]) for item in items] == [
        ("msg_0", "commentary", "Let me add."),
        ("msg_1", "final_answer", '{"value": 4}'),
    ]


@streamed_and_not
async def test_what_is_said_on_the_way_to_a_text_is_text(streamed):
    aside = message("Let me see. ", item="msg_0", phase="commentary")
    async with Server(reply(streamed, aside, message("Four."))) as server:
        result, _ = await ask(agent(server), "2 and 2", streamed)
    assert result.output == "Let me see. Four."
