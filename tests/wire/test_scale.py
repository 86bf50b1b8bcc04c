"""Many streams at once: each gets its own bytes, and each costs little."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

from tests.wire.peer import CHUNKED, Peer, chunk, until

from gossamer import wire
from gossamer.wire import Endpoint, SSEDecoder, statistics

STREAMS = 1_000


async def test_a_thousand_streams_at_once():
    async def script(connection):
        while request := await connection.request():
            name = request.body.decode()
            connection.send(CHUNKED)
            for number in range(5):
                await asyncio.sleep(0)
                connection.send(chunk(b'data: {"of": %b, "n": %d}\n\n' % (name.encode(), number)))
            connection.send(b"0\r\n\r\n")

    async def one(endpoint, name):
        stream = await endpoint.send(b"%d" % name)
        decoder = SSEDecoder()
        frames = []
        while data := await stream.read():
            frames += decoder.feed(data)
        assert decoder.close() is None
        assert [frame.data for frame in frames] == [b'{"of": %d, "n": %d}' % (name, n) for n in range(5)]

    async with Peer(script) as peer:
        endpoint = Endpoint(peer.url)
        for _ in range(2):
            await asyncio.gather(*[one(endpoint, name) for name in range(STREAMS)])
        [host] = statistics()
        assert host.open == host.idle <= STREAMS
        assert len(peer.requests) == 2 * STREAMS


async def test_a_live_stream_costs_at_most_four_kilobytes_of_ours():
    headers = b"".join(b"X-Header-%d: %b\r\n" % (i, b"v" * 20) for i in range(20))

    async def script(connection):
        await connection.request()
        connection.send(CHUNKED.replace(b"\r\n\r\n", b"\r\n" + headers + b"\r\n") + chunk(b"data: 1\n\n"))
        await connection.peer.go_on.wait()
        connection.send(chunk(b"data: 2\n\n") + b"0\r\n\r\n")
        await connection.request()

    reading = 0

    async def one(endpoint):
        nonlocal reading
        stream = await endpoint.send(b"x" * 2000)
        decoder = SSEDecoder()
        while data := await stream.read():
            decoder.feed(data)
            reading += 1

    async with Peer(script) as peer:
        peer.go_on = asyncio.Event()
        endpoint = Endpoint(peer.url)
        await warm(endpoint)
        gc.collect()
        tracemalloc.start()
        try:
            tasks = [asyncio.create_task(one(endpoint)) for _ in range(500)]
            await until(lambda: reading >= 500)
            gc.collect()
            snapshot = tracemalloc.take_snapshot()
        finally:
            tracemalloc.stop()
        # Everything allocated by the wire's own lines, the parser's memory and the waiting reader included;
        # in dial.py it is the loop's transport that is made.
        ours = snapshot.filter_traces(
            [
                tracemalloc.Filter(True, wire.__path__[0] + "/*"),
                tracemalloc.Filter(False, wire.__path__[0] + "/dial.py"),
            ]
        )
        cost = sum(trace.size for trace in ours.traces) / 500
        peer.go_on.set()
        await asyncio.gather(*tasks)
        assert cost <= 4096, f"{cost:.0f} bytes a stream"


async def warm(endpoint):
    stream = await endpoint.send(b"")
    await stream.read()
    stream.close()
