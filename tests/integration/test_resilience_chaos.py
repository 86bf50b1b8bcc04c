"""Everything at once: many runs, every fault, models wrapped in each other; no wrong answer, no tool twice, no leak."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from gossamer import Agent, GossamerError, Limits, ModelSettings, RunContext, tool, wire
from gossamer.errors import LimitError, ModelError
from gossamer.events import OutputRestarted, RunFinished, TextDelta
from gossamer.models import (
    AnthropicChat,
    CachedModel,
    CircuitBreakerModel,
    FallbackModel,
    GeminiChat,
    OllamaChat,
    OpenAIChat,
    OpenAIResponses,
    Price,
    RateLimitedModel,
    RetryModel,
)
from gossamer.models.wrapping import WrappedModel
from gossamer.simulator import Simulator
from gossamer.simulator.faults import RATE_FAULTS

RUNS = 200
PRICE = Price(1.0, 2.0)

ran: Counter[str] = Counter()


@tool
async def note(context: RunContext, tag: str) -> str:
    """Take a note."""
    ran[context.run_id] += 1
    await asyncio.sleep(0)
    return f"noted {tag}"


def dialects(url):
    root = url.removesuffix("/v1")
    return [
        OpenAIChat("any", base_url=url, api_key="none", price=PRICE),
        AnthropicChat("any", base_url=root, api_key="none", price=PRICE),
        GeminiChat("gemini-3-pro", base_url=root, api_key="none", price=PRICE),
        OpenAIResponses("any", base_url=url, api_key="none", price=PRICE),
        OllamaChat("any", base_url=root, price=PRICE),
    ]


def retry(model, **options):
    return RetryModel(model, first_wait=0.005, longest_wait=2.0, **options)


def nestings(models):
    a, b, c, d, e = models
    breaker = CircuitBreakerModel(c, failures=3, open_seconds=0.05)
    return [
        retry(a),
        FallbackModel(retry(b), retry(c)),
        CachedModel(retry(d)),
        CachedModel(FallbackModel(e, a)),
        retry(CachedModel(b)),
        FallbackModel(CachedModel(retry(c)), breaker, d),
        retry(RateLimitedModel(breaker, requests_per_minute=1e6), restart=True),
        CachedModel(retry(FallbackModel(d, e, restart=True), restart=True)),
        FallbackModel(retry(a, restart=True), retry(CachedModel(b), restart=True), restart=True),
    ]


async def one_run(model, tag, limits):
    """Stream a run to its end: the run's id, and what became of it."""
    agent = Agent(model, tools=[note], settings=ModelSettings(timeout=1.0, max_tokens=200), limits=limits)
    shown = ""
    run = agent.stream(f'call note {{"tag": "{tag}"}}')
    try:
        async with run as events:
            async for event in events:
                if type(event) is TextDelta:
                    shown += event.text
                elif type(event) is OutputRestarted:
                    shown = ""
                elif type(event) is RunFinished and event.result.stopped is None:
                    assert event.result.output.endswith(shown)
            return run.run_id, run.result.output
    except GossamerError as error:
        return run.run_id, error


@pytest.mark.parametrize("limits", [None, Limits(max_cost=0.5, max_tokens=50_000)], ids=["free", "limited"])
async def test_every_run_ends_right_or_in_a_typed_error(limits):
    ran.clear()
    before = asyncio.all_tasks()
    async with Simulator(error_rate=0.3, seed=7) as simulator:
        models = nestings(dialects(simulator.url))
        async with asyncio.timeout(60):
            # Neighbours ask the same of the same model, so that the cached ones share.
            ended = await asyncio.gather(
                *[
                    one_run(models[number // 2 % len(models)], f"n{number // 2}", limits)
                    for number in range(RUNS)
                ]
            )
        left = asyncio.all_tasks() - before
        in_use = [host for host in wire.statistics() if host.open != host.idle or host.waiting]
        faults = set(simulator.stats.errors)
    assert not in_use
    assert not left
    assert faults >= set(RATE_FAULTS)
    right = 0
    for number, (run_id, outcome) in enumerate(ended):
        assert ran[run_id] <= 1, "a finished tool ran again"
        if isinstance(outcome, str):
            assert f"noted n{number // 2}" in outcome
            assert ran[run_id] == 1
            right += 1
        else:
            assert isinstance(outcome, ModelError | LimitError)
    assert right > RUNS / 2


def within(model):
    """A model and all those inside it."""
    yield model
    inside = [model.model] if isinstance(model, WrappedModel) else getattr(model, "models", ())
    for one in inside:
        yield from within(one)


async def leave(model, tag, events):
    """Stream a run and leave it after so many events."""
    agent = Agent(model, tools=[note], settings=ModelSettings(timeout=1.0, max_tokens=200))
    async with agent.stream(f'call note {{"tag": "{tag}"}}') as run:
        async for _ in run:
            events -= 1
            if events < 0:
                break


async def test_runs_that_are_cancelled_or_left_leave_nothing():
    before = asyncio.all_tasks()
    dice = random.Random(5)
    async with Simulator(error_rate=0.3, seed=5, latency=0.02, tps=200) as simulator:
        models = nestings(dialects(simulator.url))
        runs = [
            asyncio.ensure_future(
                leave(models[number // 2 % len(models)], f"n{number // 2}", dice.randrange(15))
                if number % 2
                else one_run(models[number // 2 % len(models)], f"n{number // 2}", None)
            )
            for number in range(RUNS)
        ]
        for run in runs[::3]:
            asyncio.get_running_loop().call_later(dice.uniform(0, 0.4), run.cancel)
        async with asyncio.timeout(60):
            ended = await asyncio.gather(*runs, return_exceptions=True)
        left = asyncio.all_tasks() - before
        in_use = [host for host in wire.statistics() if host.open != host.idle or host.waiting]
        every = [one for model in models for one in within(model)]
    assert not left
    assert not in_use
    assert not [one for one in every if isinstance(one, CachedModel) and one._flights]
    assert not [one for one in every if isinstance(one, RateLimitedModel) and one.waiting]
    assert not [one for one in every if isinstance(one, CircuitBreakerModel) and one._trying]
    odd = [one for one in ended if isinstance(one, BaseException)]
    assert all(isinstance(one, ModelError | asyncio.CancelledError) for one in odd)
    assert any(isinstance(one, asyncio.CancelledError) for one in odd)
