"""Silence, deadlines and back-pressure."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from tests.wire.peer import CHUNKED, OK, Peer, chunk, collect, until

from gossamer.errors import ArgumentError, ConnectError, ReadTimeoutError
from gossamer.wire import Endpoint, Timeouts, statistics


async def silent(connection):
    while await connection.request():
        pass


async def test_silence_before_the_answer_is_a_read_timeout():
    async with Peer(silent) as peer:
        with pytest.raises(ReadTimeoutError, match=r"0\.05 s"):
            await Endpoint(peer.url, timeouts=Timeouts(read=0.05)).send(b"")
        assert statistics()[0].open == 0
        await asyncio.wait_for(peer.connections[0].gone.wait(), 5)


async def test_silence_inside_the_answer_is_a_read_timeout_and_the_next_request_works():
    async def script(connection):
        while await connection.request():
            if len(peer.requests) > 1:
                connection.send(OK)
            else:
                connection.send(CHUNKED + chunk(b"first"))

    async with Peer(script) as peer:
        endpoint = Endpoint(peer.url, timeouts=Timeouts(read=0.05))
        stream = await endpoint.send(b"")
        assert await stream.read() == b"first"
        with pytest.raises(ReadTimeoutError):
            await stream.read()
        with pytest.raises(ReadTimeoutError):
            await stream.read()
        stream.close()
        assert await collect(await endpoint.send(b"")) == b"ok"


async def test_a_stream_may_last_longer_than_the_read_timeout():
    async def script(connection):
        await connection.request()
        connection.send(CHUNKED)
        for _ in range(30):
            await asyncio.sleep(0.02)
            connection.send(chunk(b"x"))
        connection.send(b"0\r\n\r\n")
        await connection.request()

    async with Peer(script) as peer:
        stream = await Endpoint(peer.url, timeouts=Timeouts(read=0.4)).send(b"")
        assert await collect(stream) == b"x" * 30


async def test_silence_while_nobody_reads_is_not_the_servers():
    async def script(connection):
        await connection.request()
        connection.send(CHUNKED + chunk(b"first"))
        await peer.go_on.wait()
        connection.send(chunk(b"second") + b"0\r\n\r\n")
        await connection.request()

    async with Peer(script) as peer:
        peer.go_on = asyncio.Event()
        stream = await Endpoint(peer.url, timeouts=Timeouts(read=0.05)).send(b"")
        assert await stream.read() == b"first"
        await asyncio.sleep(0.2)
        peer.go_on.set()
        assert await stream.read() == b"second"
        assert await stream.read() == b""


async def test_the_total_time_ends_a_stream_that_never_falls_silent():
    async def script(connection):
        await connection.request()
        connection.send(CHUNKED)
        while not connection.gone.is_set():
            connection.send(chunk(b"x"))
            await asyncio.sleep(0.01)

    async with Peer(script) as peer:
        stream = await Endpoint(peer.url, timeouts=Timeouts(read=5, total=0.1)).send(b"")
        with pytest.raises(ReadTimeoutError, match="total"):
            await collect(stream)
        assert statistics()[0].open == 0


async def test_the_total_time_ends_a_stream_that_nobody_reads():
    async with Peer(silent_after_head) as peer:
        stream = await Endpoint(peer.url, timeouts=Timeouts(total=0.05)).send(b"")
        await asyncio.wait_for(peer.connections[0].gone.wait(), 5)
        with pytest.raises(ReadTimeoutError, match="total"):
            await stream.read()


async def silent_after_head(connection):
    await connection.request()
    connection.send(CHUNKED)
    await connection.gone.wait()


async def test_a_shorter_timeout_on_a_kept_connection_holds():
    async def script(connection):
        await connection.request()
        connection.send(OK)
        await connection.request()
        await connection.gone.wait()

    async with Peer(script) as peer:
        await collect(await Endpoint(peer.url, timeouts=Timeouts(read=60)).send(b""))
        with pytest.raises(ReadTimeoutError):
            await asyncio.wait_for(Endpoint(peer.url, timeouts=Timeouts(read=0.05)).send(b""), 5)
        assert len(peer.connections) == 1


async def test_a_slow_upload_is_not_silence():
    async def script(connection):
        connection.transport.pause_reading()
        for megabytes in range(1, 13):
            await asyncio.sleep(0.05)
            connection.transport.resume_reading()
            await until(lambda enough=megabytes * 1_500_000: len(connection.received) > enough)
            connection.transport.pause_reading()
        connection.transport.resume_reading()
        await connection.request()
        connection.send(OK)
        await connection.request()

    async with Peer(script) as peer:
        body = b"x" * 20_000_000
        assert await collect(await Endpoint(peer.url, timeouts=Timeouts(read=0.3)).send(body)) == b"ok"
        assert len(peer.requests[0].body) == len(body)


async def test_a_host_that_does_not_answer_is_a_connect_timeout():
    # A listener whose queue is full drops further attempts, as a host that is down does.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        try:
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
                fillers.append(filler)
            with pytest.raises(ConnectError, match=r"within 0\.1 s"):
                await Endpoint(f"http://127.0.0.1:{port}", timeouts=Timeouts(connect=0.1)).send(b"")
            with pytest.raises(ReadTimeoutError, match="total"):
                await Endpoint(f"http://127.0.0.1:{port}", timeouts=Timeouts(total=0.1)).send(b"")
        finally:
            for filler in fillers:
                filler.close()
    assert all(host.open == 0 for host in statistics())


async def test_endless_timeouts_are_allowed():
    forever = float("inf")

    async def script(connection):
        while await connection.request():
            connection.send(OK)

    async with Peer(script) as peer:
        timeouts = Timeouts(connect=forever, read=forever, total=forever, pool=forever)
        endpoint = Endpoint(peer.url, timeouts=timeouts, max_connections=1)
        streams = await asyncio.gather(*[endpoint.send(b"") for _ in range(3)])
        assert [await collect(stream) for stream in streams] == [b"ok"] * 3


@pytest.mark.parametrize("bad", [0, -1, float("nan"), "5", True])
@pytest.mark.parametrize("name", ["connect", "read", "total", "pool"])
def test_timeouts_are_checked(name, bad):
    with pytest.raises(ArgumentError, match=name):
        Timeouts(**{name: bad})


@pytest.mark.parametrize("coding", [b"", b"Content-Encoding: identity\r\n"])
async def test_a_reader_that_does_not_read_holds_the_server_back(coding):
    sent = 0

    async def script(connection):
        nonlocal sent
        await connection.request()
        connection.send(CHUNKED.replace(b"\r\n\r\n", b"\r\n" + coding + b"\r\n"))
        piece = chunk(b"x" * 65_536)
        while sent < 1000:
            if connection.transport.get_write_buffer_size() == 0:
                connection.send(piece)
                sent += 1
                await asyncio.sleep(0)
            elif connection.gone.is_set():
                return
            else:
                await asyncio.sleep(0.001)
        connection.send(b"0\r\n\r\n")
        await connection.request()

    async with Peer(script) as peer:
        stream = await Endpoint(peer.url).send(b"")
        settled = -1
        deadline = time.monotonic() + 10
        while settled != sent and time.monotonic() < deadline:
            settled = sent
            await asyncio.sleep(0.2)
        assert 0 < sent < 500, "the sender was never held back"
        data = await stream.read()
        assert len(data) <= 1024 * 1024
        rest = await collect(stream)
        assert len(data) + len(rest) == 1000 * 65_536
        # The connection is as good as new after all its pauses.
        await until(lambda: statistics()[0].idle == 1)


async def test_an_answer_that_ends_while_paused_gives_its_connection_back():
    body = b"x" * 300_000

    async def script(connection):
        while await connection.request():
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with Peer(script) as peer:
        endpoint = Endpoint(peer.url)
        for _ in range(4):
            stream = await endpoint.send(b"")
            await asyncio.sleep(0.01)
            assert await collect(stream) == body
        assert len(peer.connections) == 1
