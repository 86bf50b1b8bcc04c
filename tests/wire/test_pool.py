"""The pool: reuse, limits, waiting in line, and connections that die while they lie idle."""

from __future__ import annotations

import asyncio

import pytest
from tests.wire.peer import CHUNKED, OK, Peer, always_ok, answer, chunk, collect, until

from gossamer.errors import ConnectError, PoolTimeoutError, ProtocolError, ReadTimeoutError
from gossamer.wire import Endpoint, Timeouts, statistics
from gossamer.wire import pool as pool_module


async def test_connections_are_kept_and_used_again():
    async with Peer(always_ok) as peer:
        endpoint = Endpoint(peer.url)
        streams = await asyncio.gather(*[endpoint.send(b"") for _ in range(5)])
        for stream in streams:
            await collect(stream)
        assert len(peer.connections) == 5
        for _ in range(20):
            await collect(await endpoint.send(b""))
        assert len(peer.connections) == 5
        [host] = statistics()
        assert (host.open, host.idle, host.waiting, host.limit) == (5, 5, 0, 20_000)
        assert host.host == peer.url


async def test_only_one_connection_serves_requests_one_after_another():
    served = []

    async def script(connection):
        while await connection.request():
            served.append(connection)
            connection.send(OK)

    async with Peer(script) as peer:
        endpoint = Endpoint(peer.url)
        for stream in await asyncio.gather(*[endpoint.send(b"") for _ in range(3)]):
            await collect(stream)
        served.clear()
        for _ in range(6):
            await collect(await endpoint.send(b""))
        assert len(set(served)) == 1


async def test_endpoints_of_one_origin_share_and_others_do_not():
    async with Peer(always_ok) as peer:
        same = [Endpoint(peer.url), Endpoint(peer.url + "/v1?x=1", headers={"A": "b"})]
        for endpoint in same:
            await collect(await endpoint.send(b""))
        assert len(peer.connections) == 1
        await collect(await Endpoint(peer.url, max_connections=7).send(b""))
        await collect(await Endpoint(peer.url.replace("127.0.0.1", "localhost")).send(b""))
        assert len(peer.connections) == 3
        assert sorted(host.limit for host in statistics()) == [7, 20_000, 20_000]


async def test_at_the_limit_requests_wait_and_are_served_in_order():
    order = []

    async def script(connection):
        while request := await connection.request():
            order.append(int(request.body))
            await asyncio.sleep(0.001)
            connection.send(OK)

    async with Peer(script) as peer:
        endpoint = Endpoint(peer.url, max_connections=2)

        async def one(number):
            await collect(await endpoint.send(b"%d" % number))

        tasks = [asyncio.create_task(one(number)) for number in range(20)]
        await until(lambda: order)
        [host] = statistics()
        assert (host.open, host.limit) == (2, 2)
        assert host.waiting > 10
        await asyncio.gather(*tasks)
        assert len(peer.connections) == 2
        assert sorted(order[:2]) == [0, 1]
        assert all(abs(place - number) <= 1 for place, number in enumerate(order))


async def hold_then_ok(connection):
    """Answer with a stream that lasts until the client sends another byte or goes."""
    while await connection.request():
        connection.send(CHUNKED + chunk(b"first"))
        await connection.peer.go_on.wait()
        connection.send(b"0\r\n\r\n")


async def test_a_wait_for_a_connection_ends_in_a_pool_timeout():
    async with Peer(hold_then_ok) as peer:
        peer.go_on = asyncio.Event()
        endpoint = Endpoint(peer.url, max_connections=1, timeouts=Timeouts(pool=0.05))
        held = await endpoint.send(b"")
        with pytest.raises(PoolTimeoutError, match="1 of 1"):
            await endpoint.send(b"")
        patient = Endpoint(peer.url, max_connections=1, timeouts=Timeouts(pool=30, total=0.05))
        with pytest.raises(ReadTimeoutError, match="total"):
            await patient.send(b"")
        assert statistics()[0].waiting == 0
        peer.go_on.set()
        assert await collect(held) == b"first"
        assert await collect(await endpoint.send(b"")) == b"first"


async def test_a_cancelled_wait_takes_nothing_with_it():
    async with Peer(hold_then_ok) as peer:
        peer.go_on = asyncio.Event()
        endpoint = Endpoint(peer.url, max_connections=1)
        held = await endpoint.send(b"")
        waiting = [asyncio.create_task(endpoint.send(b"")) for _ in range(3)]
        await until(lambda: statistics()[0].waiting == 3)
        waiting[0].cancel()
        waiting[2].cancel()
        await until(lambda: statistics()[0].waiting == 1)
        peer.go_on.set()
        await collect(held)
        await collect(await waiting[1])
        assert len(peer.connections) == 1
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_connection_handed_to_a_task_that_is_cancelled_in_that_moment_is_not_lost():
    async with Peer(hold_then_ok) as peer:
        peer.go_on = asyncio.Event()
        endpoint = Endpoint(peer.url, max_connections=1)
        held = await endpoint.send(b"")
        waiting = asyncio.create_task(endpoint.send(b""))
        await until(lambda: statistics()[0].waiting == 1)
        reader = asyncio.create_task(collect(held))
        # The place goes to the waiting task when the reader ends, before either of them runs.
        reader.add_done_callback(lambda _: waiting.cancel())
        peer.go_on.set()
        await asyncio.gather(reader, waiting, return_exceptions=True)
        await until(lambda: statistics()[0].open == statistics()[0].idle)
        assert await collect(await endpoint.send(b"")) == b"first"

        # The same with a place to open a connection in.
        peer.go_on.clear()
        held = await endpoint.send(b"")
        waiting = asyncio.create_task(endpoint.send(b""))
        await until(lambda: statistics()[0].waiting == 1)
        held.close()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        peer.go_on.set()
        assert await collect(await endpoint.send(b"")) == b"first"


async def test_closing_a_stream_lets_the_next_in_line_open_a_connection():
    async with Peer(hold_then_ok) as peer:
        peer.go_on = asyncio.Event()
        endpoint = Endpoint(peer.url, max_connections=1)
        held = await endpoint.send(b"")
        waiting = asyncio.create_task(endpoint.send(b""))
        await until(lambda: statistics()[0].waiting == 1)
        peer.go_on.set()
        peer.go_on = asyncio.Event()
        peer.go_on.set()
        held.close()
        assert await collect(await waiting) == b"first"


async def test_a_server_that_closes_an_idle_connection_removes_it():
    async with Peer(always_ok) as peer:
        endpoint = Endpoint(peer.url)
        await collect(await endpoint.send(b""))
        peer.connections[0].close()
        await until(lambda: statistics()[0].open == 0)
        await collect(await endpoint.send(b""))
        assert len(peer.requests) == 2


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_request_on_a_kept_connection_that_is_dead_goes_once_more_on_a_new_one(end):
    async def script(connection):
        await connection.request()
        connection.send(OK)
        if len(peer.connections) == 1:
            # The second request is read, and the connection closed without a byte of an answer.
            await connection.request()
            getattr(connection, end)()
        else:
            while await connection.request():
                connection.send(OK)

    async with Peer(script) as peer:
        endpoint = Endpoint(peer.url)
        await collect(await endpoint.send(b"one"))
        stream = await endpoint.send(b"two" * 50_000)
        assert await collect(stream) == b"ok"
        assert [len(request.body) for request in peer.requests] == [3, 150_000, 150_000]
        assert len(peer.connections) == 2
        assert statistics()[0].open == 1


async def test_a_request_goes_no_third_time():
    async def script(connection):
        await connection.request()
        if len(peer.requests) == 1:
            connection.send(OK)
            await connection.request()
        connection.close()

    async with Peer(script) as peer:
        endpoint = Endpoint(peer.url)
        await collect(await endpoint.send(b"one"))
        with pytest.raises(ProtocolError, match="before it answered"):
            await endpoint.send(b"two")
        assert len(peer.requests) == 3


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
async def test_a_request_is_never_repeated_once_a_byte_of_the_answer_came(begun):
    async def script(connection):
        await connection.request()
        connection.send(OK)
        await connection.request()
        await connection.send_in([begun])
        connection.close()

    async with Peer(script) as peer:
        endpoint = Endpoint(peer.url)
        await collect(await endpoint.send(b"one"))
        with pytest.raises(ProtocolError, match="inside the headers"):
            await endpoint.send(b"two")
        assert len(peer.requests) == 2


async def test_the_place_of_a_dead_connection_goes_to_its_replacement_and_to_nobody_else():
    async def script(connection):
        await connection.request()
        connection.send(OK)
        if len(peer.connections) == 1:
            await connection.request()
            connection.close()
        while await connection.request():
            connection.send(OK)

    async with Peer(script) as peer:
        endpoint = Endpoint(peer.url, max_connections=1)
        await collect(await endpoint.send(b""))
        first = asyncio.create_task(endpoint.send(b"first"))
        second = asyncio.create_task(endpoint.send(b"second"))
        most = 0

        async def watch():
            nonlocal most
            while not (first.done() and second.done()):
                most = max(most, sum(not c.gone.is_set() for c in peer.connections))
                if first.done():
                    await collect(await first)
                await asyncio.sleep(0)

        await watch()
        assert await collect(await second) == b"ok"
        assert most <= 2  # one of them closing
        assert statistics()[0].open == 1


async def test_cancelling_a_request_on_a_dead_connection_frees_its_place():
    async def script(connection):
        await connection.request()
        connection.send(OK)
        await connection.request()
        connection.close()

    for turns in range(12):
        async with Peer(script) as peer:
            endpoint = Endpoint(peer.url, max_connections=1)
            await collect(await endpoint.send(b""))
            task = asyncio.create_task(endpoint.send(b""))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await until(lambda: statistics()[0].open == statistics()[0].idle)


async def test_cancelling_at_any_moment_of_opening_leaves_nothing():
    async with Peer(answer(OK)) as peer:
        endpoint = Endpoint(peer.url.replace("127.0.0.1", "localhost"), max_connections=1)
        for turns in range(25):
            task = asyncio.create_task(endpoint.send(b""))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            [outcome] = await asyncio.gather(task, return_exceptions=True)
            if not isinstance(outcome, BaseException):
                outcome.close()
            for host in statistics():
                assert host.open == host.idle
        assert await collect(await endpoint.send(b"")) == b"ok"
        await until(lambda: sum(not c.gone.is_set() for c in peer.connections) == 1)


async def test_idle_connections_are_bounded_in_number(monkeypatch):
    monkeypatch.setattr(pool_module, "IDLE_LIMIT", 3)
    async with Peer(always_ok) as peer:
        endpoint = Endpoint(peer.url)
        for stream in await asyncio.gather(*[endpoint.send(b"") for _ in range(8)]):
            await collect(stream)
        assert statistics()[0].idle == statistics()[0].open == 3
        await until(lambda: sum(not c.gone.is_set() for c in peer.connections) == 3)


async def test_idle_connections_are_bounded_in_age(monkeypatch):
    monkeypatch.setattr(pool_module, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(pool_module, "_SWEEP_SECONDS", 0.01)
    async with Peer(always_ok) as peer:
        endpoint = Endpoint(peer.url)
        for stream in await asyncio.gather(*[endpoint.send(b"") for _ in range(4)]):
            await collect(stream)
        await until(lambda: all(c.gone.is_set() for c in peer.connections))
        await until(lambda: not statistics())
        assert await collect(await endpoint.send(b"")) == b"ok"


async def test_only_so_many_connections_are_opened_at_once(monkeypatch):
    monkeypatch.setattr(pool_module, "OPENING_LIMIT", 4)
    async with Peer(hold_then_ok) as peer:
        peer.go_on = asyncio.Event()
        endpoint = Endpoint(peer.url)
        tasks = [asyncio.create_task(endpoint.send(b"")) for _ in range(50)]
        await asyncio.sleep(0)
        assert statistics()[0].open == 4
        assert statistics()[0].waiting == 46
        streams = await asyncio.gather(*tasks)
        assert statistics()[0].open == 50
        peer.go_on.set()
        assert [await collect(stream) for stream in streams] == [b"first"] * 50


async def test_failing_to_connect_frees_the_place_and_lets_the_next_try():
    async with Peer(always_ok) as peer:
        port = peer.port
    endpoint = Endpoint(f"http://127.0.0.1:{port}", max_connections=2)
    results = await asyncio.gather(*[endpoint.send(b"") for _ in range(10)], return_exceptions=True)
    assert all(isinstance(result, ConnectError) for result in results)
    assert "is the server running?" in str(results[0])
    assert all(host.open == 0 and host.waiting == 0 for host in statistics())


async def test_a_server_that_closes_at_the_door_is_a_typed_error():
    async def script(connection):
        connection.reset()

    async with Peer(script) as peer:
        endpoint = Endpoint(peer.url)
        for _ in range(5):
            with pytest.raises((ProtocolError, ConnectError)):
                await endpoint.send(b"")
        assert statistics()[0].open == 0


async def test_a_refusal_at_the_door_is_the_answer():
    async def script(connection):
        connection.send(b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbusy")
        await connection.gone.wait()

    async with Peer(script) as peer:
        stream = await Endpoint(peer.url).send(b"")
        assert stream.status == 503
        assert await collect(stream) == b"busy"
