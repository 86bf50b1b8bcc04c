"""Pipelines, hubs and merged streams over real connections."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.asking import agent, model, reply
from tests.integration.server import Server, completion, http

from gossamer import Agent, FanoutError, MessageHub, fanout_pipeline, stream_pipeline
from gossamer.events import TextDelta
from gossamer.models import OpenAIChat
from gossamer.simulator import Simulator

COUNT = 30


def simulated(simulator: Simulator, name: str) -> Agent:
    return Agent(OpenAIChat("gpt-test", base_url=simulator.url, api_key="k"), name=name)


async def test_a_fan_out_takes_as_long_as_the_slowest_and_not_the_sum():
    arrived = 0
    all_there = asyncio.Event()

    async def answer(connection, request):
        nonlocal arrived
        arrived += 1
        if arrived == COUNT:
            all_there.set()
        await all_there.wait()  # nobody is answered before everybody has asked
        await connection.send(completion("hello"))

    async with Server(answer) as server, asyncio.timeout(20):
        results = await fanout_pipeline([agent(server)] * COUNT, "hi")
        assert [result.output for result in results] == ["hello"] * COUNT
        assert server.accepted == COUNT


async def test_no_more_connections_than_may_run_at_once():
    async with Server(reply(False)) as server, asyncio.timeout(20):
        await fanout_pipeline([agent(server)] * COUNT, "hi", max_concurrency=4)
        assert len(server.requests) == COUNT
        assert server.accepted <= 4


async def test_an_error_closes_the_connections_of_the_others():
    stopped = 0

    async def answer(connection, request):
        nonlocal stopped
        if len(server.requests) == COUNT:
            await connection.send(http({"error": {"message": "no"}}, 400))
            return
        await connection.wait_closed_by_client()
        stopped += 1

    async with Server(answer) as server, asyncio.timeout(20):
        with pytest.raises(FanoutError) as caught:
            await fanout_pipeline([Agent(model(server))] * COUNT, "hi")
        assert len(caught.value.errors) == 1
        while stopped < COUNT - 1:
            await asyncio.sleep(0.001)


async def test_many_streams_in_one():
    async with Simulator(chunks=20) as simulator, asyncio.timeout(20):
        agents = [simulated(simulator, f"agent {number}") for number in range(COUNT)]
        texts: dict[tuple[str, int | None], str] = {}
        async with stream_pipeline(agents, "Tell me something long.", buffer=10) as stream:
            async for item in stream:
                if isinstance(item.event, TextDelta):
                    assert item.agent == agents[item.place].name
                    key = (item.run_id, item.message)
                    texts[key] = texts.get(key, "") + item.event.text
        for result in stream.results:
            assert texts[result.run_id, 0] == result.output
        assert len(texts) == COUNT


async def test_leaving_a_merged_stream_closes_its_connections():
    async with Simulator(chunks=1_000, tps=50) as simulator, asyncio.timeout(20):
        agents = [simulated(simulator, f"agent {number}") for number in range(COUNT)]
        speaking = set()
        async with stream_pipeline(agents, "Tell me something long.") as stream:
            async for item in stream:
                if isinstance(item.event, TextDelta):
                    speaking.add(item.place)
                if len(speaking) == COUNT:
                    break
        while simulator.stats.streams:
            await asyncio.sleep(0.001)


async def test_what_a_hub_lets_agents_hear_goes_to_the_provider_with_its_author():
    async with Server(completion("A boat.")) as server:
        writer, critic = agent(server, name="writer"), agent(server, name="critic")
        async with MessageHub([writer, critic], "Name it."):
            await writer()
            await critic()
        said = server.requests[1].messages
        assert [(one["role"], one.get("name"), one["content"]) for one in said] == [
            ("user", None, "Name it."),
            ("user", "writer", "A boat."),
        ]
