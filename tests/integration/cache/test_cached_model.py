"""`CachedModel` on a `MultiLevelCache`: one question for all processes."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys

import pytest
from tests.integration.cache.serving import eventually
from tests.integration.server import Server, completion

from gossamer import Agent, Message, ModelError, Usage
from gossamer.cache import MultiLevelCache, RedisCache
from gossamer.errors import ProviderError
from gossamer.events import TextDelta
from gossamer.models import CachedModel, ModelRequest, ModelResponse, ScriptedModel
from gossamer.view import MessageView

HIT = Usage(cached_calls=1)


def request(text="hello"):
    return ModelRequest(MessageView([Message.user(text)], 0, 1))


class Slow:
    """Answers when it is told to; counts how often it was asked."""

    def __init__(self, answer="an answer", finish_reason="stop") -> None:
        self.asked = 0
        self.go = asyncio.Event()
        self.answer = answer
        self.finish_reason = finish_reason

    async def __call__(self, request):
        self.asked += 1
        await self.go.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return ModelResponse(Message.assistant(self.answer), Usage(5, 7), self.finish_reason, "m")


@pytest.fixture
async def caches(redis):
    async with (
        RedisCache(redis.url, timeout=5) as one,
        RedisCache(redis.url, timeout=5) as two,
        MultiLevelCache(l2=one) as a,
        MultiLevelCache(l2=two) as b,
    ):
        yield a, b


async def test_equal_requests_at_the_same_time_are_asked_once(caches):
    slow = Slow()
    models = [CachedModel(ScriptedModel(slow), cache) for cache in caches]
    asking = [asyncio.create_task(model.respond(request())) for model in models for _ in range(50)]
    await eventually(lambda: slow.asked)
    await asyncio.sleep(0.05)
    slow.go.set()
    responses = await asyncio.gather(*asking)
    assert slow.asked == 1
    assert {response.message.text for response in responses} == {"an answer"}
    usages = [response.usage for response in responses]
    assert usages.count(HIT) == 99, "only who asked pays"
    for model in models:
        assert (await model.respond(request())).usage == HIT
        assert [one async for one in model.stream(request())][-1].usage == HIT
    assert slow.asked == 1


async def test_agents_share_answers_with_agents_elsewhere(caches):
    a, b = (Agent(CachedModel(ScriptedModel(["Paris."]), cache)) for cache in caches)
    assert (await a.run("The capital of France?")).usage.model_calls == 1
    again = await b.run("The capital of France?")
    assert (again.output, again.usage.model_calls, again.usage.cached_calls) == ("Paris.", 0, 1)
    async with b.stream("The capital of France?") as stream:
        assert "".join([event.text async for event in stream if isinstance(event, TextDelta)]) == "Paris."


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_answers_that_are_not_kept_are_given_to_who_asked(caches, reason):
    slow = Slow(finish_reason=reason)
    slow.go.set()
    model = CachedModel(ScriptedModel(slow), caches[0])
    for asked in (1, 2):
        response = await model.respond(request())
        assert (response.message.text, response.finish_reason, response.usage) == (
            "an answer",
            reason,
            Usage(5, 7),
        )
        assert slow.asked == asked


async def test_an_error_is_raised_and_not_kept(caches):
    slow = Slow(ProviderError("broken"))
    slow.go.set()
    model = CachedModel(ScriptedModel(slow), caches[0])
    for asked in (1, 2):
        with pytest.raises(ModelError, match="broken"):
            await model.respond(request())
        assert slow.asked == asked


async def test_who_is_cancelled_fails_nobody_else(caches):
    slow = Slow()
    model = CachedModel(ScriptedModel(slow), caches[0])
    first, second = (asyncio.create_task(model.respond(request())) for _ in range(2))
    await eventually(lambda: slow.asked)
    first.cancel()
    slow.go.set()
    assert (await second).message.text == "an answer"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_what_is_wrong_in_the_cache_is_asked_for_anew(caches, caplog):
    caplog.set_level(logging.WARNING, "gossamer")
    model = CachedModel(ScriptedModel(["first", "second"]), caches[0])
    for wrong in (b"no answer", [1], None):
        await caches[0].set(model.key(request(repr(wrong))), wrong)
    assert (await model.respond(request("b'no answer'"))).message.text == "first"
    assert (await model.respond(request("[1]"))).message.text == "second"
    assert (await model.respond(request("[1]"))).usage == HIT
    assert "no answer where one should be" in caplog.text


async def test_a_cache_that_is_busy_or_down_is_passed_over(redis):
    async with MultiLevelCache(l2=redis.url, max_waiting=1) as cache:
        slow = Slow()
        slow.go.set()
        model = CachedModel(ScriptedModel(slow), cache)
        blocking = asyncio.create_task(cache.get_or_compute("k", lambda: asyncio.sleep(1000)))
        await eventually(lambda: cache.statistics().waiting)
        assert (await model.respond(request())).message.text == "an answer"
        blocking.cancel()
        await asyncio.wait([blocking])
        redis.kill()
        assert (await model.respond(request("other"))).message.text == "an answer"
        assert (await model.respond(request("other"))).usage == HIT, "memory has it"


PROGRAM = """
import asyncio, json, sys
from gossamer import Message
from gossamer.cache import MultiLevelCache, RedisCache
from gossamer.models import CachedModel, ModelRequest, OpenAIChat
from gossamer.view import MessageView

async def main():
    l2 = RedisCache(sys.argv[1], timeout=5)
    async with l2, MultiLevelCache(l2=l2) as cache:
        await cache.get("connect")
        model = CachedModel(OpenAIChat("gpt-test", base_url=sys.argv[2], api_key="secret"), cache)
        request = ModelRequest(MessageView([Message.user("hello")], 0, 1))
        print("ready", flush=True)
        sys.stdin.readline()
        found = await asyncio.gather(*[model.respond(request) for _ in range(20)])
        print(json.dumps([[one.message.text, one.usage.cached_calls] for one in found]))

asyncio.run(main())
"""


async def test_two_processes_ask_a_provider_once(redis):
    async def slow_answer(connection, request):
        await asyncio.sleep(0.2)
        await connection.send(completion("from the provider"))

    async with Server(slow_answer) as server:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, redis.url, server.url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for process in processes:
            assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        answers = [json.loads((await asyncio.to_thread(process.communicate))[0]) for process in processes]
        assert len(server.requests) == 1
    found = [tuple(one) for answer in answers for one in answer]
    assert {text for text, _ in found} == {"from the provider"}
    assert sum(cached for _, cached in found) == 39
