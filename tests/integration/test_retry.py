"""Calls that are made again: after which errors, how often, and what they may cost."""

from __future__ import annotations

import asyncio
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tests.integration.asking import TWO, ask, calling, model, reply, streamed_and_not
from tests.integration.server import STREAM_HEAD, Close, Server, chunk, completion, frame, http, say, stream

from gossamer import Agent, Limits, ModelSettings, Session, disable_metrics, enable_metrics, tool, wire
from gossamer.errors import (
    ArgumentError,
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    ModelConnectionError,
    ModelError,
    ModelTimeoutError,
    NotFoundError,
    OverloadedError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    StreamBrokenError,
)
from gossamer.events import MessageFinished, OutputDelta, OutputRestarted, TextDelta, ToolCallStarted
from gossamer.models import CachedModel, OpenAIChat, Price, RetryBudget, RetryModel, ScriptedModel, resolve
from gossamer.models import retry as retry_module
from gossamer.simulator import Simulator


def retrying(server, **options):
    return RetryModel(model(server), **{"first_wait": 0.001, **options})


def error(status, code=None, *headers):
    return http({"error": {"message": "no", "code": code}}, status, *headers)


def broken_after(*words):
    """A stream that breaks off after some text."""
    return [STREAM_HEAD + chunk(b"".join(frame({"content": word}) for word in words)), Close(b"")]


PASSING = {
    "limited": (error(429), RateLimitError),
    "failing": (error(500), ProviderError),
    "bad gateway": (http(b"<html>Bad gateway</html>", 502, kind="text/html"), ProviderError),
    "no capacity": (error(503), OverloadedError),
    "overloaded": (error(529), OverloadedError),
    "late": (error(408), ModelTimeoutError),
    "gone": ([b"HTTP/1.1 200 OK\r\n", Close(b"")], ModelConnectionError),
    "a page": (http(b"<html>Hello</html>", 200, kind="text/html"), InvalidResponseError),
    "cut off": (http(b'{"choices": [', 200), InvalidResponseError),
}

LASTING = {
    "wrong key": (error(401), AuthenticationError),
    "not allowed": (error(403), AuthenticationError),
    "no such model": (error(404), NotFoundError),
    "malformed": (error(400), InvalidRequestError),
    "too long": (error(400, "context_length_exceeded"), ContextLengthError),
    "filtered": (error(400, "content_filter"), ContentFilterError),
    "quota": (error(429, "insufficient_quota"), QuotaExceededError),
    "moved": (http(b"", 307, "Location: https://elsewhere.example/"), InvalidResponseError),
}


@streamed_and_not
@pytest.mark.parametrize("what", PASSING)
async def test_passing_errors_are_tried_again(what, streamed):
    async with Server(PASSING[what][0], PASSING[what][0], reply(streamed)) as server:
        result, _ = await ask(Agent(retrying(server)), "hi", streamed)
    assert result.output == "ok"
    assert len(server.requests) == 3
    assert {request.raw for request in server.requests} == {server.requests[0].raw}


@streamed_and_not
@pytest.mark.parametrize("what", PASSING)
async def test_the_last_error_is_raised(what, streamed):
    async with Server(PASSING[what][0]) as server:
        with pytest.raises(ModelError) as caught:
            await ask(Agent(retrying(server, attempts=2)), "hi", streamed)
    assert isinstance(caught.value, PASSING[what][1])
    assert caught.value.attempts == len(server.requests) == 2
    assert any("asked 2 times" in note for note in caught.value.__notes__)


@streamed_and_not
@pytest.mark.parametrize("what", LASTING)
async def test_lasting_errors_are_not(what, streamed):
    async with Server(LASTING[what][0]) as server:
        with pytest.raises(ModelError) as caught:
            await ask(Agent(retrying(server)), "hi", streamed)
    assert type(caught.value) is LASTING[what][1]
    assert caught.value.attempts == len(server.requests) == 1


@streamed_and_not
async def test_a_host_that_is_not_there(streamed):
    async with Server(b"") as server:
        pass
    with pytest.raises(ModelConnectionError) as caught:
        await ask(Agent(retrying(server, attempts=4)), "hi", streamed)
    assert caught.value.attempts == 4


@streamed_and_not
async def test_a_finished_tool_does_not_run_again(streamed):
    runs = []

    @tool
    def convert(amount: float, rate: float) -> float:
        runs.append(amount)
        return amount * rate

    answers = [error(500), calling(streamed, *TWO), error(500), error(429), reply(streamed)]
    async with Server(*answers) as server:
        result, _ = await ask(Agent(retrying(server), tools=[convert]), "hi", streamed)
    assert result.output == "ok"
    assert len(server.requests) == 5
    assert sorted(runs) == [1, 3]
    assert (result.usage.model_calls, result.usage.tool_calls) == (2, 2)


# --- how long to wait ---------------------------------------------------------------------------------------


async def test_the_provider_says_how_long_to_wait():
    came = []

    async def limited(connection, request):
        came.append(asyncio.get_running_loop().time())
        wait = "retry-after-ms: 60" if len(came) == 1 else "Retry-After: 0.05"
        await connection.send(completion("ok") if len(came) == 3 else error(429, None, wait))

    async with Server(limited) as server:
        assert (await Agent(retrying(server, first_wait=0)).run("hi")).output == "ok"
    assert came[1] - came[0] >= 0.059
    assert came[2] - came[1] >= 0.049


async def test_a_wait_too_long_is_told_at_once():
    async with Server(error(429, None, "Retry-After: 120")) as server:
        with pytest.raises(RateLimitError) as caught:
            await Agent(retrying(server)).run("hi")
    assert caught.value.retry_after == 120
    assert caught.value.attempts == len(server.requests) == 1
    assert "120 s" in caught.value.__notes__[0]


def test_waits_grow_and_are_drawn_in_full(monkeypatch):
    drawn = []
    monkeypatch.setattr("random.uniform", lambda low, high: drawn.append((low, high)) or 0.0)
    model = ScriptedModel([*[OverloadedError("no")] * 7, "ok"])
    agent = Agent(RetryModel(model, attempts=8, first_wait=0.5, longest_wait=10))
    assert agent.run_sync("hi").output == "ok"
    assert drawn == [(0, 0.5), (0, 1), (0, 2), (0, 4), (0, 8), (0, 10), (0, 10)]


@streamed_and_not
async def test_a_time_limit_interrupts_the_wait(streamed):
    async with Server(error(429, None, "Retry-After: 25")) as server:
        agent = Agent(retrying(server), limits=Limits(max_seconds=0.2))
        result, _ = await ask(agent, "hi", streamed)
    assert result.stopped.limit == "max_seconds"
    assert len(server.requests) == 1


async def test_cancelling_interrupts_the_wait():
    asked = asyncio.Event()

    async def limited(connection, request):
        await connection.send(error(429, None, "Retry-After: 25"))
        asked.set()

    async with Server(limited) as server:
        task = asyncio.create_task(Agent(retrying(server)).run("hi"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)


# --- streams that break -------------------------------------------------------------------------------------


async def test_a_stream_that_breaks_before_its_first_word_is_tried_again():
    opening = [STREAM_HEAD + chunk(frame({"role": "assistant"})), Close(b"")]
    async with Server(opening, stream(*say("ok"))) as server:
        result, events = await ask(Agent(retrying(server)), "hi", streamed=True)
    assert result.output == "ok"
    assert not [event for event in events if isinstance(event, OutputRestarted)]
    assert len(server.requests) == 2


async def test_a_stream_that_breaks_after_text_holds_it():
    session = Session()
    async with Server(broken_after("so ", "far"), stream(*say("next"))) as server:
        agent = Agent(retrying(server))
        with pytest.raises(StreamBrokenError) as caught:
            await ask(agent, "hi", streamed=True, session=session)
        assert caught.value.text == "so far"
        assert len(server.requests) == caught.value.attempts == 1
        assert "restart=True" in caught.value.__notes__[0]
        await ask(agent, "again", streamed=True, session=session)
    assert [message.text for message in session.messages] == ["hi", "so far", "again", "next"]


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (b'data: {"error": {"message": "no", "code": 503}}\n\n', OverloadedError),
        (b"data: {nonsense\n\n", InvalidResponseError),
    ],
)
async def test_every_error_of_a_broken_stream_holds_the_text(end, kind):
    async with Server(stream(frame({"content": "so far"}), end)) as server:
        with pytest.raises(kind) as caught:
            await ask(Agent(retrying(server)), "hi", streamed=True)
    assert caught.value.text == "so far"
    assert len(server.requests) == 1


async def test_a_silent_stream_holds_the_text():
    async def silent(connection, request):
        await connection.send(STREAM_HEAD + chunk(frame({"content": "so far"})))
        await connection.wait_closed_by_client()

    async with Server(silent) as server:
        with pytest.raises(ModelTimeoutError) as caught:
            await ask(Agent(retrying(server)), "hi", streamed=True, settings=ModelSettings(timeout=0.1))
    assert caught.value.text == "so far"
    assert len(server.requests) == 1


async def test_a_restart_voids_what_was_shown():
    started = {"index": 0, "id": "a", "type": "function", "function": {"name": "convert", "arguments": "{"}}
    broken = [
        STREAM_HEAD + chunk(frame({"content": "so far"}) + frame({"tool_calls": [started]})),
        Close(b""),
    ]
    session = Session()
    async with Server(broken, broken_after("a", "b"), stream(*say("c", "d"))) as server:
        result, events = await ask(
            Agent(retrying(server, restart=True)), "hi", streamed=True, session=session
        )
    assert result.output == "cd"
    assert [message.text for message in session.messages] == ["hi", "cd"]
    assert not session.messages[-1].tool_calls
    kinds = (TextDelta, ToolCallStarted, OutputRestarted, MessageFinished)
    seen = [event for event in events if isinstance(event, kinds)]
    assert [type(event).__name__ for event in seen] == [
        "TextDelta",
        "ToolCallStarted",
        "OutputRestarted",
        "TextDelta",
        "TextDelta",
        "OutputRestarted",
        "TextDelta",
        "TextDelta",
        "MessageFinished",
    ]
    assert "openai" in seen[2].reason


async def test_a_restart_that_fails_too_keeps_its_own_text():
    session = Session()
    async with Server(broken_after("first"), broken_after("second")) as server:
        with pytest.raises(StreamBrokenError) as caught:
            await ask(Agent(retrying(server, attempts=2, restart=True)), "hi", streamed=True, session=session)
    assert (caught.value.text, caught.value.attempts) == ("second", 2)
    assert [message.text for message in session.messages] == ["hi", "second"]


async def test_partial_objects_begin_again():
    class Quote(msgspec.Struct):
        amount: int
        currency: str

    broken = broken_after('{"amount": 99', ', "currency": "US')
    whole = stream(*say('{"amount": 1', ', "currency": "EUR"}'))
    async with Server(broken, whole) as server:
        result, events = await ask(Agent(retrying(server, restart=True)), "hi", streamed=True, output=Quote)
    assert result.output == Quote(1, "EUR")
    at = next(place for place, event in enumerate(events) if isinstance(event, OutputRestarted))
    before = [event.partial for event in events[:at] if isinstance(event, OutputDelta)]
    after = [event.partial for event in events[at:] if isinstance(event, OutputDelta)]
    assert {shown["amount"] for shown in before} == {99}
    assert {shown["amount"] for shown in after} == {1}


async def test_leaving_a_stream_closes_the_one_inside():
    async def endless(connection, request):
        await connection.send(STREAM_HEAD + chunk(frame({"content": "a"})))
        await connection.wait_closed_by_client()

    async with Server(endless) as server:
        async with Agent(retrying(server)).stream("hi") as running:
            async for event in running:
                if isinstance(event, TextDelta):
                    break
        assert not any(host.open for host in wire.statistics())  # at once, not when memory is collected
        await asyncio.wait_for(server.connections[0].gone.wait(), 5)


@streamed_and_not
async def test_a_provider_that_often_fails_in_every_way(streamed):
    """Four of ten requests fail or break, in five ways; every answer comes whole, and sessions hold nothing else."""

    async def talk(agent, number):
        session = Session()
        for said in (f"first {number}", f"second {number}"):
            result, events = await ask(agent, said, streamed, session=session)
            shown = []
            for event in events:
                if isinstance(event, OutputRestarted):
                    shown.clear()
                elif isinstance(event, TextDelta):
                    shown.append(event.text)
            if streamed:
                assert "".join(shown) == result.output
            assert said in result.output
        assert [message.role for message in session.messages] == ["user", "assistant"] * 2
        assert [message.text for message in session.messages][::2] == [f"first {number}", f"second {number}"]

    async with Simulator(
        error_rate=0.4, faults=["500", "reset", "stall", "half_frame", "malformed"], seed=5
    ) as simulator:
        answering = OpenAIChat("sim", base_url=simulator.url, api_key="k")
        repeated = RetryModel(answering, attempts=30, first_wait=0.001, longest_wait=0.01, restart=True)
        agent = Agent(repeated, settings=ModelSettings(timeout=0.3))
        await asyncio.gather(*[talk(agent, number) for number in range(25)])


# --- what repeated calls may cost ---------------------------------------------------------------------------


def silent():
    async def answer(connection, request):
        await connection.wait_closed_by_client()

    return answer


async def spent(server, limits, **options):
    """Ask a server with five attempts under limits; who stopped the run, or its error."""
    settings = ModelSettings(max_tokens=100, timeout=0.05)
    agent = Agent(retrying(server, attempts=5, **options), settings=settings, limits=limits)
    return await agent.run("q" * 84)  # with its frame: 100 tokens at most, plus 16 for the instructions


async def test_attempts_that_may_be_charged_count_against_a_hard_limit():
    async with Server(silent()) as server:
        result = await spent(server, Limits(max_tokens=700))
    assert result.stopped.limit == "max_tokens"
    assert len(server.requests) == 3  # 216 tokens each


async def test_refused_attempts_cost_nothing():
    async with Server(error(500), error(429), error(503), completion("ok")) as server:
        result = await spent(server, Limits(max_tokens=217))
    assert result.output == "ok"


async def test_there_must_be_room_for_as_much_again():
    async with Server(silent(), completion("ok")) as server:
        result = await spent(server, Limits(max_tokens=431))
        assert result.stopped.limit == "max_tokens"
        assert len(server.requests) == 1
    async with Server(
        silent(), completion("ok", usage={"prompt_tokens": 30, "completion_tokens": 5})
    ) as server:
        result = await spent(server, Limits(max_tokens=432))
    assert result.output == "ok"
    assert [
        request.body["max_tokens" if "max_tokens" in request.body else "max_completion_tokens"]
        for request in server.requests
    ] == [100, 100]


@streamed_and_not
@pytest.mark.parametrize("limits", [Limits(max_cost=0.5), Limits(max_tokens=50_000)], ids=["cost", "tokens"])
async def test_a_roomy_limit_leaves_room_for_a_retry(limits, streamed):
    async with Server(Close(b""), reply(streamed, "ok")) as server:
        agent = Agent(RetryModel(model(server, price=Price(1, 10)), first_wait=0.001), limits=limits)
        result, _ = await ask(agent, "hi", streamed)
    assert result.output == "ok"
    assert len(server.requests) == 2


@pytest.mark.parametrize("end", [Close(b""), b'data: {"error": {"message": "no", "code": 503}}\n\n'])
async def test_a_restart_counts_too(end):
    said = frame({"content": "so far"})
    broken = [STREAM_HEAD + chunk(said), end] if isinstance(end, Close) else stream(said, end)
    async with Server(broken) as server:
        settings = ModelSettings(max_tokens=100)
        agent = Agent(
            retrying(server, attempts=5, restart=True), settings=settings, limits=Limits(max_tokens=700)
        )
        result, _ = await ask(agent, "q" * 84, streamed=True)
    assert result.stopped.limit == "max_tokens"
    assert len(server.requests) == 3


# --- the budget ---------------------------------------------------------------------------------------------


async def test_a_budget_bounds_the_retries_of_all_models():
    budget = RetryBudget(share=0, least=3)
    model = ScriptedModel(lambda request: OverloadedError("no"))
    agents = [Agent(RetryModel(model, first_wait=0, budget=budget)) for _ in range(2)]
    attempts = []
    for agent in agents * 2:
        with pytest.raises(OverloadedError) as caught:
            await agent.run("hi")
        attempts.append(caught.value.attempts)
    assert attempts == [3, 2, 1, 1]
    assert "budget" in caught.value.__notes__[0]


@given(
    st.floats(0, 1),
    st.integers(0, 5),
    st.lists(st.tuples(st.sampled_from(["call", "retry"]), st.floats(0, 45)), max_size=120),
)
def test_the_budget_holds_over_every_minute(share, least, happenings):
    now = 1000.0
    calls, retries = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry_module, "monotonic", lambda: now)
        budget = RetryBudget(share, least)

        def inside(times):
            return sum(int(now) - 60 < second <= int(now) for second in times)

        for what, passed in happenings:
            now += passed
            if what == "call":
                budget.count_call()
                calls.append(int(now))
                continue
            allowed = inside(retries) + 1 <= least + share * inside(calls)
            assert budget.take_retry() is allowed
            if allowed:
                retries.append(int(now))


def test_a_budget_is_exact_under_threads():
    budget = RetryBudget(share=0.5, least=10)
    taken = []

    def work():
        for _ in range(500):
            budget.count_call()
        taken.append(sum(budget.take_retry() for _ in range(500)))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    # All happened within a minute; late calls may have come after refused retries.
    assert 10 < sum(taken) <= 10 + 0.5 * 2000


# --- the rest -----------------------------------------------------------------------------------------------


async def test_a_model_string_brings_retries(monkeypatch):
    resolve.cache_clear()
    async with Server(error(500), error(500), completion("ok"), error(500)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setattr("random.uniform", lambda low, high: low)
        agent = Agent("openai:some-model")
        assert (await agent.run("hi")).output == "ok"
        with pytest.raises(ProviderError) as caught:
            await agent.run("hi")
    assert caught.value.attempts == 3
    inner = RetryModel("openai:some-model").model
    assert not isinstance(inner, RetryModel)
    assert CachedModel("openai:some-model").model is resolve("openai:some-model")
    assert not isinstance(resolve("offline"), RetryModel)
    resolve.cache_clear()


async def test_a_key_is_looked_for_at_the_first_use(monkeypatch):
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    agent = Agent(RetryModel("groq:some-model"))
    with pytest.raises(AuthenticationError, match="GROQ_API_KEY"):
        await agent.run("hi")
    with pytest.raises(ArgumentError, match="acme"):
        RetryModel("acme:x")


def test_one_model_in_several_loops():
    lock = threading.Lock()
    seen: dict[str, int] = {}

    def flaky(request):
        asked = request.messages[-1].text
        with lock:
            seen[asked] = seen.get(asked, 0) + 1
        return OverloadedError("no") if seen[asked] < 3 else asked

    agent = Agent(RetryModel(ScriptedModel(flaky), first_wait=0.001))
    outputs = []

    def work(name):
        async def runs():
            return await asyncio.gather(*[agent.run(f"{name} {n}") for n in range(25)])

        outputs.extend(result.output for result in asyncio.run(runs()))

    workers = [threading.Thread(target=work, args=(str(n),)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(outputs) == sorted(f"{name} {n}" for name in range(4) for n in range(25))
    assert set(seen.values()) == {3}


async def test_retries_are_counted():
    registry = CollectorRegistry()
    enable_metrics(registry)
    try:
        async with Server(error(429), error(503), completion("ok")) as server:
            await Agent(retrying(server)).run("hi")
        counts = [
            registry.get_sample_value("gossamer_model_retries_total", {"model": "gpt-test", "kind": kind})
            for kind in ("RateLimitError", "OverloadedError", "ProviderError")
        ]
    finally:
        disable_metrics()
    assert counts == [1, 1, None]


@pytest.mark.parametrize(
    "options",
    [{"attempts": 0}, {"first_wait": -1}, {"longest_wait": float("nan")}],
    ids=["attempts", "first_wait", "longest_wait"],
)
def test_arguments(options):
    with pytest.raises(ArgumentError):
        RetryModel("offline", **options)


def test_it_looks_like_the_model_inside():
    inner = ScriptedModel(["x"])
    outer = RetryModel(inner)
    assert (outer.name, outer.dialect, outer.capabilities, outer.price, outer.model) == (
        "scripted",
        "scripted",
        inner.capabilities,
        None,
        inner,
    )
    with pytest.raises(ArgumentError, match="not the class"):
        RetryModel(ScriptedModel)
