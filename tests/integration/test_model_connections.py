"""The connections of a model, as its server sees them: kept, closed, never shared between loops and processes."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from tests.integration.asking import TWO, agent, ask, calling, convert, reply, streamed_and_not
from tests.integration.server import (
    LAST_CHUNK,
    STREAM_HEAD,
    Close,
    Server,
    chunk,
    completion,
    frame,
    http,
    say,
)

from gossamer import Agent, Limits, Session, wire
from gossamer.errors import InvalidRequestError, RateLimitError
from gossamer.events import TextDelta
from gossamer.models import OpenAIChat, OpenAIResponses

# --- kept ---------------------------------------------------------------------------------------------------


@streamed_and_not
async def test_one_connection_carries_many_runs(streamed):
    async with Server(reply(streamed)) as server:
        for _ in range(20):
            await ask(agent(server), "hi", streamed)
        assert server.accepted == 1
        (host,) = [host for host in wire.statistics() if str(server.port) in host.host]
        assert (host.open, host.idle) == (1, 1)


async def test_the_formal_end_of_a_stream_may_come_in_a_packet_of_its_own():
    async def in_two(connection, request):
        await connection.send(STREAM_HEAD + b"".join(chunk(event) for event in say("ok")))
        for _ in range(10):
            await asyncio.sleep(0)
        await connection.send(LAST_CHUNK)

    async with Server(in_two) as server:
        for _ in range(3):
            await ask(agent(server), "hi", streamed=True)
        assert server.accepted == 1


@streamed_and_not
async def test_one_connection_carries_a_tool_loop(streamed):
    async with Server(calling(streamed, *TWO), calling(streamed, TWO[0]), reply(streamed)) as server:
        await ask(agent(server, tools=[convert]), "hi", streamed)
        assert server.accepted == 1


async def test_streamed_and_whole_answers_share_it():
    async with Server(*(reply(n % 2 == 0) for n in range(6))) as server:
        for n in range(6):
            await ask(agent(server), "hi", streamed=n % 2 == 0)
        assert server.accepted == 1


@streamed_and_not
async def test_an_error_that_came_whole_keeps_it(streamed):
    async with Server(http(b"{}", 429), reply(streamed)) as server:
        with pytest.raises(RateLimitError):
            await ask(agent(server), "hi", streamed)
        await ask(agent(server), "hi", streamed)
        assert server.accepted == 1


@streamed_and_not
async def test_concurrent_runs_have_their_own_and_keep_them(streamed):
    arrived = asyncio.Event()

    async def together(connection, request):
        if len(server.requests) == 10:
            arrived.set()
        await arrived.wait()
        await connection.send(reply(streamed, request.messages[0]["content"]))

    async with Server(together) as server:
        asking = agent(server)
        for _ in range(3):
            results = await asyncio.gather(*(ask(asking, f"run {n}", streamed) for n in range(10)))
            assert [result.output for result, _ in results] == [f"run {n}" for n in range(10)]
        assert server.accepted == 10


@streamed_and_not
async def test_a_server_that_closed_an_idle_one_is_asked_on_a_new_one(streamed):
    async with Server(Close(reply(streamed, "one")), reply(streamed, "two")) as server:
        for expected in ("one", "two"):
            result, _ = await ask(agent(server), "hi", streamed)
            assert result.output == expected
        assert server.accepted == 2
        assert len(server.requests) == 2


async def test_a_slow_reader_slows_the_server():
    sent = 0
    held = asyncio.Event()

    async def flood(connection, request):
        nonlocal sent
        connection.writer.write(STREAM_HEAD)
        piece = chunk(frame({"content": "x" * 1000}))
        # The kernel takes a few MiB; that the rest is held back shows in a writer that does not drain.
        while sent < 30 << 20:
            connection.writer.write(piece)
            sent += len(piece)
            try:
                await asyncio.wait_for(connection.writer.drain(), 0.3)
            except TimeoutError:
                held.set()
                break
        await connection.wait_closed_by_client()

    async with Server(flood) as server:
        async with agent(server).stream("hi") as running:
            async for event in running:
                if isinstance(event, TextDelta):
                    break
            await asyncio.wait_for(held.wait(), 20)
            more = 0
            async for event in running:
                more += isinstance(event, TextDelta)
                if more == 100:
                    break
        await hung_up(server)
    assert sent < 30 << 20


# --- cancelled ----------------------------------------------------------------------------------------------


async def endless(connection, request):
    """Stream without end, until the client hangs up."""
    await connection.send(STREAM_HEAD + chunk(frame({"content": "so far"})))
    await connection.wait_closed_by_client()


async def silent(connection, request):
    await connection.wait_closed_by_client()


async def hung_up(server):
    async with asyncio.timeout(5):
        await server.connections[0].gone.wait()


@pytest.mark.parametrize("way", ["leave", "cancel", "aclose", "task"])
async def test_a_stopped_stream_closes_its_connection(way):
    session = Session()
    async with Server(endless, reply(True, "back")) as server:
        asking = agent(server)
        heard = asyncio.Event()

        async def read():
            async with asking.stream("first", session=session) as running:
                async for event in running:
                    if not isinstance(event, TextDelta):
                        continue
                    heard.set()
                    if way == "leave":
                        break
                    if way == "cancel":
                        running.cancel()
                    elif way == "aclose":
                        await running.aclose()

        task = asyncio.create_task(read())
        await heard.wait()
        if way == "task":
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled() is (way == "task")
        await hung_up(server)
        result, _ = await ask(asking, "second", streamed=True, session=session)
        assert result.output == "back"
    assert [message["content"] for message in server.requests[1].messages] == ["first", "so far", "second"]


@streamed_and_not
async def test_a_run_cancelled_while_it_waits_closes_its_connection(streamed):
    session = Session()
    async with Server(silent, reply(streamed, "back")) as server:
        asking = agent(server)
        task = asyncio.create_task(ask(asking, "first", streamed, session=session))
        async with asyncio.timeout(5):
            while not server.requests:
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await hung_up(server)
        result, _ = await ask(asking, "second", streamed, session=session)
        assert result.output == "back"
    # Nothing came of the first prompt, so it has left the view.
    assert [message["content"] for message in server.requests[1].messages] == ["second"]


@streamed_and_not
async def test_a_run_out_of_time_closes_its_connection(streamed):
    async with Server(silent) as server:
        result, _ = await ask(agent(server), "hi", streamed, limits=Limits(max_seconds=0.05))
        assert result.finish_reason == "limit"
        await hung_up(server)


# --- loops, threads, processes ------------------------------------------------------------------------------


@streamed_and_not
async def test_a_session_goes_through_two_event_loops_with_one_model(streamed):
    session = Session()
    async with Server(reply(streamed, "one"), reply(streamed, "two")) as server:
        asking = agent(server)
        for prompt in ("a", "b"):
            await asyncio.to_thread(
                lambda said: asyncio.run(ask(asking, said, streamed, session=session))[0], prompt
            )
        assert [message["content"] for message in server.requests[1].messages] == ["a", "one", "b"]
        # The first loop took its connection with it.
        async with asyncio.timeout(5):
            await server.connections[0].gone.wait()
        assert server.accepted == 2


async def test_threads_share_a_model():
    async def echo(connection, request):
        await connection.send(completion(request.messages[-1]["content"]))

    async with Server(echo) as server:
        asking = agent(server)

        def with_a_loop(number):
            async def several():
                return [(await asking.run(f"loop {number}.{n}")).output for n in range(5)]

            return asyncio.run(several()) == [f"loop {number}.{n}" for n in range(5)]

        def without(number):
            return [asking.run_sync(f"sync {number}.{n}").output for n in range(5)] == [
                f"sync {number}.{n}" for n in range(5)
            ]

        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(8, thread_name_prefix="asyncio_test") as threads:
            right = await asyncio.gather(
                *(loop.run_in_executor(threads, with_a_loop, n) for n in range(4)),
                *(loop.run_in_executor(threads, without, n) for n in range(4)),
            )
        assert right == [True] * 8
        assert len(server.requests) == 40
        # One for each of the four loops, and at most four on the loop that `run_sync` shares.
        assert 5 <= server.accepted <= 8


FORKING = """
import asyncio, os, sys
from gossamer import Agent
from gossamer.models import OpenAIChat, OpenAIResponses

asking = Agent(OpenAIChat("gpt-test", base_url=sys.argv[1]))

async def main():
    assert (await asking.run("before")).output == "before"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            result = asyncio.run(asking.run("child"))
            code = 0 if result.output == "child" else 2
        finally:
            os._exit(code)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert status == 0, status
    assert (await asking.run("after")).output == "after"

asyncio.run(main())
"""

FORKING_SYNC = """
import os, sys
from gossamer import Agent
from gossamer.models import OpenAIChat, OpenAIResponses

asking = Agent(OpenAIChat("gpt-test", base_url=sys.argv[1]))
assert asking.run_sync("before").output == "before"
child = os.fork()
if child == 0:
    code = 1
    try:
        code = 0 if asking.run_sync("child").output == "child" else 2
    finally:
        os._exit(code)
assert os.waitpid(child, 0)[1] == 0
assert asking.run_sync("after").output == "after"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
@pytest.mark.parametrize("program", [FORKING, FORKING_SYNC], ids=["run", "run_sync"])
async def test_a_fork_leaves_the_parents_connection_alone(program):
    async def echo(connection, request):
        await connection.send(completion(request.messages[-1]["content"]))

    async with Server(echo) as server:
        command = [sys.executable, "-W", "ignore", "-c", program, server.url]
        run = partial(subprocess.run, command, capture_output=True, text=True, timeout=30, check=False)
        finished = await asyncio.to_thread(run)
        assert finished.returncode == 0, finished.stderr
        carried = {request.messages[0]["content"]: request.connection for request in server.requests}
    assert list(carried) == ["before", "child", "after"]
    assert carried["after"] is carried["before"]
    assert carried["child"] is not carried["before"]


async def test_models_of_one_server_share_its_connections():
    async with Server(completion("ok")) as server:
        for name in ("small", "large"):
            await Agent(OpenAIChat(name, base_url=server.url)).run("hi")
        assert server.accepted == 1
    assert [request.body["model"] for request in server.requests] == ["small", "large"]


@pytest.mark.parametrize("kind", [OpenAIChat, OpenAIResponses])
async def test_the_query_of_a_base_url_stays_behind_the_path(kind):
    async with Server(http({"error": {"message": "no"}}, 400)) as server:
        model = kind("m", base_url=f"{server.url}/?version=2&x=y", api_key="k")
        with pytest.raises(InvalidRequestError):
            await Agent(model).run("hi")
    path = "/chat/completions" if kind is OpenAIChat else "/responses"
    assert server.requests[0].target == f"/v1{path}?version=2&x=y"
