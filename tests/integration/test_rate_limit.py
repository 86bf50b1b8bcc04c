"""Calls that wait for their turn: when it comes, in which order, and what happens to those who leave.

The schedule is tested in virtual time: an event loop whose clock jumps to the next timer instead of waiting for it.
"""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tests.integration.asking import ask, model, streamed_and_not
from tests.integration.server import Server, completion, frame, http, stream

from gossamer import Agent, Limits, ModelSettings, Usage, disable_metrics, enable_metrics
from gossamer.errors import (
    ArgumentError,
    InvalidRequestError,
    OverloadedError,
    QueueFullError,
    RateLimitError,
    StreamBrokenError,
)
from gossamer.messages import Message
from gossamer.models import FallbackModel, ModelResponse, RateLimitedModel, RetryModel, ScriptedModel
from gossamer.models import rate_limit as rate_limit_module

PROMPT = 8  # the tokens that the prompt "hi" is taken for


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock goes on to the next timer as soon as nothing else is to be done."""

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        really = self._selector.select

        def select(timeout):
            events = really(0)
            if not events and timeout is None:
                events = really(5)
                assert events, "nothing will ever happen"
            elif not events and timeout > 0:
                self.now += timeout
            return events

        self._selector.select = select

    def time(self):
        return self.now


def in_virtual_time(work):
    """Run a coroutine function of the loop in virtual time."""
    loop = VirtualLoop()
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=lambda: loop) as runner:
        patch.setattr(rate_limit_module, "monotonic", loop.time)
        return runner.run(work(loop))


def using(tokens):
    """Answers that used so many tokens; 0 for a provider that does not count."""
    usage = Usage(output_tokens=tokens, model_calls=1)
    return ScriptedModel(lambda request: ModelResponse(Message.assistant("ok"), usage))


def at_most(tokens):
    return ModelSettings(max_tokens=tokens)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.none(), st.floats(1, 120)),
    st.one_of(st.none(), st.integers(10, 3000)),
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 4000)), min_size=1, max_size=25),
)
def test_the_schedule(requests, tokens, arrivals):
    """Each call begins in its order, at the very moment that both buckets hold what it needs."""
    if requests is None and tokens is None:
        tokens = 600

    async def work(loop):
        began = []

        def answer(request):
            began.append((request.settings.seed, loop.time()))
            return "ok"

        limited = RateLimitedModel(
            ScriptedModel(answer), requests_per_minute=requests, tokens_per_minute=tokens
        )
        agent = Agent(limited)
        runs, came = [], []
        for place, (gap, wanted) in enumerate(arrivals):
            await asyncio.sleep(gap)
            came.append(loop.time())
            given = ModelSettings(max_tokens=wanted, seed=place)
            runs.append(asyncio.create_task(agent.run("hi", settings=given)))
            await asyncio.sleep(0)
        await asyncio.gather(*runs)
        assert limited.waiting == 0
        return came, began

    came, began = in_virtual_time(work)
    assert [place for place, _ in began] == list(range(len(arrivals)))
    times = [time for _, time in began]

    # The same by hand: levels that fill up, and a line.
    sizes = (requests, tokens)
    levels, now = [requests, tokens], 1000.0
    for place, (_, wanted) in enumerate(arrivals):
        needs = (1, wanted + PROMPT)
        start = max(came[place], now)
        for size, level, need in zip(sizes, levels, needs, strict=True):
            if size is not None:
                start = max(start, now + (min(need, size) - level) * 60 / size)
        for kind, size in enumerate(sizes):
            if size is not None:
                levels[kind] = min(size, levels[kind] + (start - now) * size / 60) - needs[kind]
        now = start
        assert times[place] == pytest.approx(start, abs=1e-4)

    if requests is not None:  # over any span, no more than a full bucket and what came since
        for first in range(len(times)):
            for last in range(first, len(times)):
                assert last - first + 1 <= max(requests, 1) * (1 + (times[last] - times[first]) / 60) + 1e-3


def test_who_leaves_the_line_makes_room():
    async def work(loop):
        agent = Agent(RateLimitedModel(using(0), requests_per_minute=6))
        for _ in range(6):
            await agent.run("hi")
        runs = [asyncio.create_task(agent.run("hi")) for _ in range(20)]
        await asyncio.sleep(3)
        for run in runs[:19]:
            run.cancel()
        assert (await runs[19]).output == "ok"
        assert loop.time() == pytest.approx(1010)
        assert agent.model.waiting == 0
        assert all(run.cancelled() for run in runs[:19])

    in_virtual_time(work)


def test_a_time_limit_leaves_the_line_too():
    async def work(loop):
        agent = Agent(RateLimitedModel(using(0), requests_per_minute=1))
        await agent.run("hi")
        result = await agent.run("hi", limits=Limits(max_seconds=2))
        assert (result.stopped.limit, loop.time()) == ("max_seconds", 1002)
        assert agent.model.waiting == 0
        async with agent.stream("hi") as running:
            await anext(running)
        assert agent.model.waiting == 0
        assert (await agent.run("hi")).output == "ok"
        assert loop.time() == pytest.approx(1060)

    in_virtual_time(work)


@pytest.mark.parametrize(("used", "wait"), [(100, 0), (400, 0), (500, 10), (900, 50), (1600, 120)])
def test_what_was_used_corrects_the_estimate(used, wait):
    """600 tokens a minute, ten a second; estimated are 500, and 200 must be there for the next call."""

    async def work(loop):
        agent = Agent(RateLimitedModel(using(used), tokens_per_minute=600))
        await agent.run("hi", settings=at_most(500 - PROMPT))
        await agent.run("hi", settings=at_most(200 - PROMPT))
        assert loop.time() - 1000 == pytest.approx(wait)

    in_virtual_time(work)


def test_a_correction_wakes_who_waits():
    async def work(loop):
        async def answer(request):
            await asyncio.sleep(5)
            return ModelResponse(Message.assistant("ok"), Usage(output_tokens=10, model_calls=1))

        agent = Agent(RateLimitedModel(ScriptedModel(answer), tokens_per_minute=600))
        first = asyncio.create_task(agent.run("hi", settings=at_most(592)))
        await asyncio.sleep(0)
        await agent.run("hi", settings=at_most(300))  # by itself it would have waited 30.8 seconds
        assert first.done()
        assert loop.time() == pytest.approx(1010)

    in_virtual_time(work)


@pytest.mark.parametrize(
    ("kind", "wait"), [(InvalidRequestError, 0), (OverloadedError, 0), (StreamBrokenError, 60)]
)
def test_refused_calls_give_their_tokens_back(kind, wait):
    async def work(loop):
        model = ScriptedModel([kind("no"), "ok"])
        agent = Agent(RateLimitedModel(model, tokens_per_minute=600), settings=at_most(592))
        with pytest.raises(kind):
            await agent.run("hi")
        await agent.run("hi")
        assert loop.time() - 1000 == pytest.approx(wait)

    in_virtual_time(work)


def test_a_call_larger_than_a_minute_waits_for_a_full_bucket():
    async def work(loop):
        agent = Agent(RateLimitedModel(using(0), tokens_per_minute=600))
        await agent.run("hi", settings=at_most(1192))
        assert loop.time() == 1000
        await agent.run("hi", settings=at_most(1192))  # after the debt of 600 and a minute's worth
        assert loop.time() == pytest.approx(1120)

    in_virtual_time(work)


def test_the_line_has_an_end():
    async def work(loop):
        limited = RateLimitedModel(using(0), requests_per_minute=1, max_waiting=3)
        agent = Agent(limited)
        await agent.run("hi")
        runs = [asyncio.create_task(agent.run("hi")) for _ in range(3)]
        await asyncio.sleep(0)
        assert limited.waiting == 3
        with pytest.raises(QueueFullError, match="max_waiting") as caught:
            await agent.run("hi")
        assert isinstance(caught.value, RateLimitError)
        with pytest.raises(QueueFullError) as caught:  # nor does a retry queue behind the queue
            await Agent(RetryModel(limited)).run("hi")
        assert caught.value.attempts == 1
        assert (await Agent(FallbackModel(limited, ScriptedModel(["other"]))).run("hi")).output == "other"
        assert loop.time() == 1000
        await asyncio.gather(*runs)
        assert loop.time() == pytest.approx(1180)

    in_virtual_time(work)


def test_repeated_calls_count():
    async def work(loop):
        model = ScriptedModel([OverloadedError("no"), OverloadedError("no"), "ok"])
        agent = Agent(RetryModel(RateLimitedModel(model, requests_per_minute=1), first_wait=0))
        await agent.run("hi")
        assert loop.time() == pytest.approx(1120)

    in_virtual_time(work)


def test_waits_are_measured():
    registry = CollectorRegistry()

    async def work(loop):
        agent = Agent(RateLimitedModel(using(0), requests_per_minute=2))
        for _ in range(4):
            await agent.run("hi")

    enable_metrics(registry)
    try:
        in_virtual_time(work)
        name, labels = "gossamer_model_rate_limit_wait_seconds", {"model": "scripted"}
        assert registry.get_sample_value(f"{name}_count", labels) == 2
        assert registry.get_sample_value(f"{name}_sum", labels) == pytest.approx(60)
    finally:
        disable_metrics()


# --- real sockets, loops, threads and processes -------------------------------------------------------------


@streamed_and_not
async def test_a_provider_is_asked_no_faster(streamed):
    """60,000 tokens a minute are 1,000 a second; the first call takes them all, the next three need 100 each."""
    came = []

    async def answer(connection, request):
        came.append(asyncio.get_running_loop().time())
        tokens = {"prompt_tokens": 60_000 if len(came) == 1 else 50, "completion_tokens": 50}
        whole = completion("ok", usage=tokens)
        pieces = stream(frame({"content": "ok"}), frame({}, finish="stop"), frame(usage=tokens))
        await connection.send(pieces if streamed else whole)

    async with Server(answer) as server:
        agent = Agent(RateLimitedModel(model(server), tokens_per_minute=60_000), settings=at_most(92))
        began = (
            asyncio.get_running_loop().time()
        )  # a call may arrive late, so that the next seems to come early
        for _ in range(4):
            assert (await ask(agent, "hi", streamed))[0].output == "ok"
    assert came[1] - began >= 0.14  # 50 were used beyond the whole bucket
    assert came[3] - began >= 0.34


async def test_refusals_over_a_socket():
    async with Server(http({"error": {"message": "no"}}, 400), completion("ok")) as server:
        agent = Agent(RateLimitedModel(model(server), tokens_per_minute=600), settings=at_most(592))
        with pytest.raises(InvalidRequestError):
            await agent.run("hi")
        assert (await asyncio.wait_for(agent.run("hi"), 10)).output == "ok"


def test_one_limit_for_several_loops():
    """After the first call 1,000 tokens a second, and 40 calls of 10."""
    agent = Agent(RateLimitedModel(using(0), tokens_per_minute=60_000), settings=at_most(2))
    agent.run_sync("hi", settings=at_most(60_000 - PROMPT))
    outputs = []
    began = rate_limit_module.monotonic()

    def work():
        async def runs():
            return await asyncio.gather(*[agent.run("hi") for _ in range(10)])

        outputs.extend(result.output for result in asyncio.run(runs()))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert outputs == ["ok"] * 40
    assert rate_limit_module.monotonic() - began >= 0.35
    assert agent.model.waiting == 0


@pytest.mark.parametrize("closed", [False, True], ids=["standing", "closed"])
def test_a_loop_that_stands_still_holds_nobody_up(closed):
    agent = Agent(RateLimitedModel(using(0), tokens_per_minute=60_000), settings=at_most(92))
    agent.run_sync("hi", settings=at_most(60_000 - PROMPT))
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(agent.run("hi"))
    loop.run_until_complete(asyncio.sleep(0))
    assert agent.model.waiting == 1
    if closed:
        loop.close()
    assert asyncio.run(asyncio.wait_for(agent.run("hi"), 10)).output == "ok"
    if closed:
        waiting._log_destroy_pending = False
        waiting.get_coro().close()
    else:
        assert loop.run_until_complete(asyncio.wait_for(waiting, 10)).output == "ok"
        loop.close()
    assert agent.model.waiting == 0


def test_a_loop_that_stops_in_front_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(rate_limit_module, "_LOOK_SECONDS", 0.02)
    agent = Agent(RateLimitedModel(using(0), tokens_per_minute=60_000), settings=at_most(92))
    agent.run_sync("hi", settings=at_most(60_000 - PROMPT))
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(agent.run("hi", settings=at_most(60_000 - PROMPT)))
    turning = threading.Thread(target=loop.run_forever)
    turning.start()

    async def behind():
        while not agent.model.waiting:
            await asyncio.sleep(0)
        run = asyncio.create_task(agent.run("hi"))
        await asyncio.sleep(0)
        loop.call_soon_threadsafe(loop.stop)
        return (await asyncio.wait_for(run, 10)).output

    assert asyncio.run(behind()) == "ok"
    turning.join(10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(waiting)
    loop.close()
    assert agent.model.waiting == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_leaves_the_line_behind():
    agent = Agent(RateLimitedModel(using(0), tokens_per_minute=60_000), settings=at_most(92))

    async def work():
        await agent.run("hi", settings=at_most(60_000 - PROMPT))
        waiting = asyncio.create_task(agent.run("hi"))
        await asyncio.sleep(0)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio._set_running_loop(None)
                code = 0 if asyncio.run(asyncio.wait_for(agent.run("hi"), 10)).output == "ok" else 2
            finally:
                os._exit(code)
        await waiting
        return child

    child = asyncio.run(work())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- what is estimated --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "options", "tokens"),
    [
        ("hi", {}, 8 + 500),
        ("x" * 4000, {}, 1008 + 500),
        ("hi", {"instructions": "y" * 400}, 8 + 100 + 500),
        ("hi", {"settings": at_most(1000)}, 8 + 1000),
    ],
)
def test_the_estimate(prompt, options, tokens):
    async def work(loop):
        agent = Agent(RateLimitedModel(using(0), tokens_per_minute=6000), **options)
        await agent.run(prompt)
        await agent.run("hi", settings=at_most(6000 - PROMPT))  # waits for what the first one took
        estimated = (loop.time() - 1000) * 100
        assert estimated == pytest.approx(tokens)

    in_virtual_time(work)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"requests_per_minute": 0},
        {"tokens_per_minute": -1},
        {"requests_per_minute": 1, "max_waiting": -1},
    ],
)
def test_arguments(options):
    with pytest.raises(ArgumentError):
        RateLimitedModel("offline", **options)
