"""Several models in a row: who is asked after whom, who is paid, and what a conversation takes along."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import pytest
from prometheus_client import CollectorRegistry
from tests.integration.asking import TWO, ask, calling, convert, model, reply, streamed_and_not
from tests.integration.server import STREAM_HEAD, Close, Server, chunk, completion, frame, http, say, stream

from gossamer import (
    Agent,
    Limits,
    ModelSettings,
    Price,
    Session,
    Usage,
    disable_metrics,
    enable_metrics,
)
from gossamer.errors import (
    ArgumentError,
    AuthenticationError,
    CircuitOpenError,
    ContextLengthError,
    InvalidRequestError,
    OverloadedError,
    ProviderError,
    QueueFullError,
    StreamBrokenError,
)
from gossamer.events import OutputRestarted, TextDelta
from gossamer.messages import Message
from gossamer.models import (
    AnthropicChat,
    Capabilities,
    FallbackModel,
    ModelRequest,
    ModelResponse,
    RetryModel,
    ScriptedModel,
    resolve,
)
from gossamer.view import MessageView


@contextlib.asynccontextmanager
async def servers(*answers):
    """One server an argument, each with its answers."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Server(*(one if isinstance(one, tuple) else (one,))))
            for one in answers
        ]


def error(status, code=None):
    return http({"error": {"message": "no", "code": code}}, status)


def failing(kind, **options):
    return ScriptedModel(lambda request: kind("no"), **options)


def window(tokens):
    return Capabilities(context_window=tokens)


GOES_ON = {
    "wrong key": error(401),
    "no such model": error(404),
    "limited": error(429),
    "quota": error(429, "insufficient_quota"),
    "failing": error(500),
    "overloaded": error(529),
    "filtered": error(400, "content_filter"),
    "gone": Close(b""),
    "a page": http(b"<html>Hello</html>", 200, kind="text/html"),
}


@streamed_and_not
@pytest.mark.parametrize("what", GOES_ON)
async def test_the_next_one_answers(what, streamed):
    async with servers(GOES_ON[what], error(500), reply(streamed)) as (first, second, third):
        agent = Agent(FallbackModel(*[model(server) for server in (first, second, third)]))
        result, _ = await ask(agent, "hi", streamed)
    assert result.output == "ok"
    assert [len(server.requests) for server in (first, second, third)] == [1, 1, 1]


@streamed_and_not
async def test_the_first_one_is_asked_first(streamed):
    async with servers((reply(streamed, "a"), error(500), reply(streamed, "b")), reply(streamed, "c")) as (
        first,
        second,
    ):
        agent = Agent(FallbackModel(model(first), model(second)))
        outputs = [(await ask(agent, "hi", streamed))[0].output for _ in range(3)]
    assert outputs == ["a", "c", "b"]


@streamed_and_not
async def test_a_wrong_request_is_wrong_everywhere(streamed):
    async with servers(error(400), reply(streamed)) as (first, second):
        with pytest.raises(InvalidRequestError):
            await ask(Agent(FallbackModel(model(first), model(second))), "hi", streamed)
    assert not second.requests


@streamed_and_not
async def test_where_all_fail_each_is_told(streamed):
    async with servers(error(500), error(529), error(401)) as every:
        with pytest.raises(AuthenticationError) as caught:
            await ask(Agent(FallbackModel(*map(model, every))), "hi", streamed)
    (note,) = caught.value.__notes__
    assert note.index("ProviderError") < note.index("OverloadedError") < note.index("AuthenticationError")


async def test_errors_that_are_no_models_end_the_call():
    second = ScriptedModel(["never"])
    for kind in (ArgumentError, RuntimeError):
        with pytest.raises(kind):
            await Agent(FallbackModel(failing(kind), second)).run("hi")
    assert not second.requests


@pytest.mark.parametrize("kind", [CircuitOpenError, QueueFullError])
async def test_what_our_side_holds_back_goes_on(kind):
    assert (await Agent(FallbackModel(failing(kind), ScriptedModel(["ok"]))).run("hi")).output == "ok"


# --- a context too long -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("windows", "asked"),
    [
        ((100, 100, 200), (1, 0, 1)),
        ((100, None, 50), (1, 1, 0)),
        ((None, 10, 20), (1, 1, 1)),
        ((200, 100, 200), (1, 0, 0)),
    ],
)
async def test_a_long_request_goes_to_larger_windows(windows, asked):
    models = [failing(ContextLengthError, capabilities=window(tokens)) for tokens in windows]
    with pytest.raises(ContextLengthError):
        await Agent(FallbackModel(*models)).run("hi")
    assert tuple(len(one.requests) for one in models) == asked


async def test_what_is_too_long_stays_too_long():
    """After another failure too, a model is not asked whose window is as small as one that was too small."""
    models = [
        failing(ContextLengthError, capabilities=window(100)),
        failing(OverloadedError, capabilities=window(200)),
        ScriptedModel(["never"], capabilities=window(100)),
        ScriptedModel(["ok"], capabilities=window(200)),
    ]
    assert (await Agent(FallbackModel(*models)).run("hi")).output == "ok"
    assert not models[2].requests


# --- streams ------------------------------------------------------------------------------------------------

BROKEN = [STREAM_HEAD + chunk(frame({"content": "so far"})), Close(b"")]


async def test_a_stream_that_breaks_after_text_is_not_handed_on():
    async with servers(BROKEN, stream(*say("never"))) as (first, second):
        with pytest.raises(StreamBrokenError) as caught:
            await ask(Agent(FallbackModel(model(first), model(second))), "hi", streamed=True)
    assert caught.value.text == "so far"
    assert not second.requests


async def test_unless_a_restart_was_asked_for():
    session = Session()
    async with servers(BROKEN, stream(*say("all ", "of it"))) as (first, second):
        agent = Agent(FallbackModel(model(first), model(second), restart=True))
        result, events = await ask(agent, "hi", streamed=True, session=session)
    assert result.output == "all of it"
    assert [message.text for message in session.messages] == ["hi", "all of it"]
    shown = [event for event in events if isinstance(event, TextDelta | OutputRestarted)]
    assert [type(event) for event in shown] == [TextDelta, OutputRestarted, TextDelta, TextDelta]


async def test_a_stream_that_breaks_before_text_is_handed_on():
    async with servers([STREAM_HEAD, Close(b"")], stream(*say("ok"))) as (first, second):
        result, events = await ask(Agent(FallbackModel(model(first), model(second))), "hi", streamed=True)
    assert result.output == "ok"
    assert not [event for event in events if isinstance(event, OutputRestarted)]


# --- who is paid --------------------------------------------------------------------------------------------

USED = {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000}


@streamed_and_not
async def test_who_answers_is_paid_and_named(streamed):
    answer = completion("ok", usage=USED, model="second-2026")
    if streamed:
        named = frame({"content": "ok"}, model="second-2026")
        answer = stream(named, frame({}, finish="stop"), frame(usage=USED))
    async with servers(error(500), answer) as (first, second):
        models = [model(first, price=Price(100, 200)), model(second, price=Price(1, 2))]
        result, _ = await ask(Agent(FallbackModel(*models)), "hi", streamed)
    assert (result.usage.cost, result.usage.unpriced_calls, result.model) == (3, 0, "second-2026")


def spending(cost, **options):
    usage = Usage(input_tokens=1_000_000, model_calls=1)
    return ScriptedModel([ModelResponse(Message.assistant("ok"), usage)], price=cost, **options)


async def test_a_model_without_a_price_is_not_free():
    result = await Agent(FallbackModel(failing(OverloadedError, price=Price(1, 1)), spending(None))).run("hi")
    assert (result.usage.cost, result.usage.unpriced_calls) == (0, 1)


@pytest.mark.parametrize("wrap", [lambda model: model, RetryModel], ids=["plain", "wrapped"])
async def test_a_model_that_is_free_is_free(wrap):
    dear = failing(OverloadedError, price=Price(1, 1))
    result = await Agent(wrap(FallbackModel(dear, spending(Price(0, 0)))), limits=Limits(max_cost=9)).run(
        "hi"
    )
    assert (result.usage.cost, result.usage.unpriced_calls, result.usage.input_tokens) == (0, 0, 1_000_000)


def test_the_price_is_an_upper_bound():
    prices = [
        Price(10, 1, cached=1),
        Price(2, 20, cache_write=12.5, long_above=200_000, long=Price(4, 40)),
        Price(3, 3, long_above=100_000, long=Price(30, 3)),
    ]
    bound = FallbackModel(*[ScriptedModel([], price=price) for price in prices]).price
    for tokens in (1, 100_001, 200_001, 1_000_000):
        for usage in (
            Usage(input_tokens=tokens, output_tokens=7),
            Usage(input_tokens=tokens, cached_tokens=tokens),
            Usage(input_tokens=tokens, cache_write_tokens=tokens),
            Usage(output_tokens=tokens),
        ):
            assert bound.of(usage) >= max(price.of(usage) for price in prices)
    assert (bound.input, bound.output, bound.cached, bound.cache_write) == (10, 20, 3, 12.5)
    assert FallbackModel(ScriptedModel([], price=Price(1, 1)), ScriptedModel([])).price is None


async def test_a_limit_on_money_holds_for_the_dearest():
    dear, cheap = spending(Price(1_000_000, 0)), spending(Price(0.001, 0))
    result = await Agent(FallbackModel(cheap, dear), limits=Limits(max_cost=1)).run("hi")
    assert result.stopped.limit == "max_cost"
    assert not cheap.requests
    with pytest.raises(ArgumentError, match="price"):
        await Agent(FallbackModel(cheap, spending(None)), limits=Limits(max_cost=1)).run("hi")


async def test_a_lost_call_counts_before_the_next_begins():
    async def silent(connection, request):
        await connection.wait_closed_by_client()

    settings = ModelSettings(max_tokens=100, timeout=0.05)
    async with servers(silent, completion("ok")) as (first, second):
        agent = Agent(FallbackModel(model(first), model(second)), settings=settings)
        for limit, output in ((431, None), (432, "ok")):  # 216 tokens each
            result = await agent.run("q" * 84, limits=Limits(max_tokens=limit))
            assert (None if result.stopped else result.output) == output
    assert (len(first.requests), len(second.requests)) == (2, 1)


# --- conversations ------------------------------------------------------------------------------------------


def anthropic(*content, stop="end_turn"):
    body = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": list(content),
    }
    return http({**body, "stop_reason": stop, "usage": {"input_tokens": 1, "output_tokens": 1}})


async def test_a_conversation_moves_between_wire_formats():
    called = {"type": "tool_use", "id": "toolu_1", "name": "convert", "input": {"amount": 5, "rate": 6}}
    chat = (calling(False, *TWO), error(500), error(500), completion("back"))
    async with servers(
        chat, (anthropic(called, stop="tool_use"), anthropic({"type": "text", "text": "over"}))
    ) as (
        first,
        second,
    ):
        claude = AnthropicChat("claude-test", base_url=f"http://127.0.0.1:{second.port}", api_key="k")
        agent = Agent(FallbackModel(model(first), claude), tools=[convert])
        session = Session()
        assert (await agent.run("hi", session=session)).output == "over"
        assert (await agent.run("again", session=session)).output == "back"
    # The calls that one provider made came to the other with their results, in its own words.
    _, said, results = second.requests[0].body["messages"]
    uses = [block for block in said["content"] if block["type"] == "tool_use"]
    given = [block for block in results["content"] if block["type"] == "tool_result"]
    assert [use["input"] for use in uses] == [{"amount": 1, "rate": 2}, {"amount": 3, "rate": 4}]
    assert [use["id"] for use in uses] == [one["tool_use_id"] for one in given]
    # And back again.
    history = first.requests[-1].messages
    calls = [call["id"] for message in history for call in message.get("tool_calls") or ()]
    answered = [message["tool_call_id"] for message in history if message["role"] == "tool"]
    assert len(calls) == 3
    assert calls == answered
    assert history[-2]["content"] == "over"


# --- the rest -----------------------------------------------------------------------------------------------


async def test_strings_bring_their_retries(monkeypatch):
    resolve.cache_clear()
    monkeypatch.setattr("random.uniform", lambda low, high: low)
    async with servers(error(500), completion("ok")) as (first, second):
        monkeypatch.setenv("OPENAI_BASE_URL", first.url)
        monkeypatch.setenv("VLLM_BASE_URL", second.url)
        assert (await Agent(FallbackModel("openai:a", "vllm:b")).run("hi")).output == "ok"
    assert (len(first.requests), len(second.requests)) == (3, 1)
    resolve.cache_clear()


async def test_a_missing_key_is_told_before_it_is_needed(monkeypatch):
    resolve.cache_clear()
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    first = ScriptedModel(["never"])
    agent = Agent(FallbackModel(first, "groq:x"))
    with pytest.raises(AuthenticationError, match="GROQ_API_KEY"):
        await agent.run("hi")
    assert not first.requests


def test_what_it_says_of_itself():
    first = ScriptedModel([], capabilities=Capabilities(thinking=True, audio=True, context_window=100))
    second = ScriptedModel([], capabilities=Capabilities(images=False, audio=True, context_window=50))
    third = ScriptedModel([], capabilities=Capabilities(native_schema=False, audio=True))
    both = FallbackModel(first, second, third)
    assert both.capabilities == Capabilities(
        native_schema=False, images=False, audio=True, thinking=False, context_window=50
    )
    assert (both.name, both.dialect) == ("scripted|scripted|scripted", "scripted")
    assert both.models == (first, second, third)


def test_arguments():
    with pytest.raises(ArgumentError, match="models"):
        FallbackModel()
    with pytest.raises(ArgumentError, match="acme"):
        FallbackModel("offline", "acme:x")
    with pytest.raises(ArgumentError, match="int"):
        FallbackModel(3)


@streamed_and_not
async def test_a_retry_around_begins_from_the_first(streamed):
    first = failing(ProviderError)
    second = ScriptedModel([OverloadedError("no"), "ok"])
    agent = Agent(RetryModel(FallbackModel(first, second), first_wait=0))
    assert (await ask(agent, "hi", streamed))[0].output == "ok"
    assert len(first.requests) == 2


async def test_fallbacks_are_counted():
    registry = CollectorRegistry()
    enable_metrics(registry)
    try:
        await Agent(FallbackModel(failing(OverloadedError), ScriptedModel(["ok"]))).run("hi")
        labels = {"model": "scripted", "kind": "OverloadedError"}
        assert registry.get_sample_value("gossamer_model_fallbacks_total", labels) == 1
    finally:
        disable_metrics()


async def test_cancelling_asks_nobody_else():
    async def silent(connection, request):
        await connection.wait_closed_by_client()

    async with servers(silent, completion("never")) as (first, second):
        agent = Agent(FallbackModel(model(first), model(second)), limits=Limits(max_seconds=0.1))
        result = await agent.run("hi")
    assert result.stopped.limit == "max_seconds"
    assert not second.requests


class Failing:
    """Fails with an error of its own, and remembers whether that is still there."""

    name = dialect = "failing"
    capabilities = Capabilities()

    def __init__(self):
        self.errors = []

    def error(self):
        error = OverloadedError("no")
        self.errors.append(weakref.ref(error))
        return error

    async def respond(self, request):
        raise self.error()

    async def stream(self, request):
        raise self.error()
        yield


@streamed_and_not
@pytest.mark.parametrize("second", [ScriptedModel(["ok"] * 2), None], ids=["answered", "failed"])
async def test_what_failed_is_let_go_at_once(second, streamed, caplog):
    """With no help of the garbage collector: a failed call would keep its conversation in memory until then."""
    caplog.set_level("CRITICAL", "gossamer")  # a record that pytest keeps would hold the error
    failing = Failing()
    model = FallbackModel(failing, second or failing)
    messages = [Message.user("hi")]
    request = ModelRequest(MessageView(messages, 0, 1))
    gc.disable()
    try:
        with contextlib.suppress(OverloadedError):
            if streamed:
                _ = [delta async for delta in model.stream(request)]
            else:
                await model.respond(request)
        await asyncio.sleep(0)
        assert [error() for error in failing.errors] == [None] * (1 if second else 2)
    finally:
        gc.enable()
