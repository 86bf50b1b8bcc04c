"""Lives and deaths: cancellation, loops, threads, forks, and what must not be kept alive."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import socket
import threading
import warnings
import weakref

import pytest
from tests.wire.peer import CHUNKED, OK, Peer, always_ok, chunk, collect, until

from gossamer.errors import ArgumentError, WireError
from gossamer.wire import Endpoint, statistics


class ThreadedServer:
    """A keep-alive server that outlives loops and forks; `connections` holds its open sockets by number."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.accepted = 0
        self.changed = threading.Condition()
        self.ended: set[int] = set()
        self.thread = threading.Thread(target=self._accept)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()

    def wait_for_end(self, number: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: number in self.ended, timeout=10)

    def _accept(self):
        threads = []
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                connection.settimeout(30)
                self.accepted += 1
                threads.append(threading.Thread(target=self._serve, args=(connection, self.accepted)))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _serve(self, connection, number):
        with connection, contextlib.suppress(OSError):
            received = b""
            while data := connection.recv(65_536):
                received += data
                if received.endswith(b"\r\n\r\n"):
                    received = b""
                    body = b"%d" % number
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        with self.changed:
            self.ended.add(number)
            self.changed.notify_all()


async def ask(endpoint: Endpoint) -> int:
    """The number of the connection that served the request."""
    return int(await collect(await endpoint.send(b"", method="GET")))


async def test_cancelling_a_request_closes_its_connection():
    async def script(connection):
        await connection.request()
        await connection.gone.wait()

    async with Peer(script) as peer:
        task = asyncio.create_task(Endpoint(peer.url).send(b""))
        await until(lambda: peer.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert statistics()[0].open == 0
        await asyncio.wait_for(peer.connections[0].gone.wait(), 5)


async def first_and_no_more(connection):
    while await connection.request():
        connection.send(CHUNKED + chunk(b"first"))


async def test_cancelling_a_read_closes_the_connection():
    async with Peer(first_and_no_more) as peer:
        stream = await Endpoint(peer.url).send(b"")
        assert await stream.read() == b"first"
        task = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(peer.connections[0].gone.wait(), 5)
        with pytest.raises(WireError, match="closed before"):
            await stream.read()


async def test_closing_a_stream_that_is_not_read_to_its_end_closes_the_connection():
    async with Peer(first_and_no_more) as peer:
        endpoint = Endpoint(peer.url)
        stream = await endpoint.send(b"")
        stream.close()
        stream.close()
        assert statistics()[0].open == 0
        await asyncio.wait_for(peer.connections[0].gone.wait(), 5)
        (await endpoint.send(b"")).close()
        assert len(peer.connections) == 2


async def test_closing_wakes_a_reader_in_another_task():
    async with Peer(first_and_no_more) as peer:
        stream = await Endpoint(peer.url).send(b"")
        await stream.read()
        task = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        stream.close()
        with pytest.raises(WireError, match="closed before"):
            await task


async def test_two_readers_of_one_stream_are_refused():
    async with Peer(first_and_no_more) as peer:
        stream = await Endpoint(peer.url).send(b"")
        await stream.read()
        first = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        with pytest.raises(ArgumentError, match="one reader"):
            await stream.read()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_a_cancellation_at_any_moment_of_an_exchange_leaves_a_working_pool():
    async def script(connection):
        while await connection.request():
            await connection.send_in([CHUNKED, chunk(b"a"), chunk(b"b"), b"0\r\n\r\n"])

    async with Peer(script) as peer:
        endpoint = Endpoint(peer.url, max_connections=2)
        for turns in range(60):
            task = asyncio.create_task(self_contained(endpoint))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for host in statistics():
                assert host.open == host.idle, f"after {turns} turns: {host}"
        assert await self_contained(endpoint) == b"ab"


async def self_contained(endpoint):
    stream = await endpoint.send(b"")
    try:
        return await collect(stream)
    finally:
        stream.close()


def test_the_end_of_a_loop_closes_its_connections_and_a_new_loop_opens_its_own(loop_factory):
    with ThreadedServer() as server:
        endpoint = Endpoint(server.url)

        async def main():
            assert await ask(endpoint) == await ask(endpoint)
            return server.accepted

        for number in (1, 2, 3):
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                assert runner.run(main()) == number
                assert number not in server.ended
            assert server.wait_for_end(number)


def test_loops_of_several_threads_share_an_endpoint_and_no_connection(loop_factory):
    with ThreadedServer() as server:
        endpoint = Endpoint(server.url)
        together = threading.Barrier(4)
        seen: list[set[int]] = []

        async def main():
            numbers = {await ask(endpoint) for _ in range(20)}
            await asyncio.to_thread(together.wait, 10)
            return numbers

        def thread():
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                seen.append(runner.run(main()))

        threads = [threading.Thread(target=thread) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(20)
        assert sorted(number for numbers in seen for number in numbers) == [1, 2, 3, 4]


def test_a_loop_closed_without_ceremony_is_let_go(loop_factory):
    with ThreadedServer() as server, warnings.catch_warnings():
        # Nobody shut the loop down, so its transports complain when they are collected.
        warnings.simplefilter("ignore", ResourceWarning)
        endpoint = Endpoint(server.url)
        loop = loop_factory()
        assert loop.run_until_complete(ask(endpoint)) == 1
        loop.close()
        gone = weakref.ref(loop)
        del loop
        gc.collect()
        assert gone() is None
        assert server.wait_for_end(1)
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            assert runner.run(ask(endpoint)) == 2


def test_the_end_of_a_loop_ends_the_requests_under_way(loop_factory):
    with ThreadedServer() as server:
        endpoint = Endpoint(server.url)

        async def main():
            return await endpoint.send(b"half a request, so no answer ends", method="GET")

        async def with_time():
            sending = asyncio.create_task(main())
            await asyncio.sleep(0.01)
            return sending

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            sending = runner.run(with_time())
        assert sending.cancelled()
        assert server.wait_for_end(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_fork_shares_no_connection(loop_factory):
    with ThreadedServer() as server:
        endpoint = Endpoint(server.url)
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            assert runner.run(ask(endpoint)) == 1
            hold, release = os.pipe()
            report, tell = os.pipe()
            child = os.fork()
            if child == 0:
                outcome = b"failed"
                try:
                    os.close(release)
                    with asyncio.Runner(loop_factory=loop_factory) as own:
                        numbers = {own.run(ask(endpoint)) for _ in range(3)}
                    outcome = repr(sorted(numbers)).encode()
                finally:
                    os.write(tell, outcome)
                    os.read(hold, 1)
                    os._exit(0)
            os.close(tell)
            os.close(hold)
            try:
                # The child opened one of its own; the parent's still is the parent's.
                assert os.read(report, 100) == b"[2]"
                assert runner.run(ask(endpoint)) == 1
                assert 1 not in server.ended
                # The child let go of the parent's, so that the parent alone decides about its end.
                runner.close()
                assert server.wait_for_end(1)
            finally:
                os.close(release)
                os.close(report)
                os.waitpid(child, 0)


async def test_a_kept_connection_does_not_keep_alive_what_the_run_that_opened_it_knew():
    class Run:
        pass

    current: contextvars.ContextVar[Run] = contextvars.ContextVar("current")

    async def run(endpoint):
        known = Run()
        current.set(known)
        await collect(await endpoint.send(b"x" * 100_000))
        return weakref.ref(known)

    async with Peer(always_ok) as peer:
        endpoint = Endpoint(peer.url)
        known = await asyncio.create_task(run(endpoint))
        assert statistics()[0].idle == 1
        # The server of this test runs in the same loop; its half of the connection is its own affair.
        await asyncio.sleep(0)
        gc.collect()
        assert known() is None


async def test_a_request_body_is_let_go_once_it_is_written():
    class Body(bytes):
        """Bytes whose end can be seen."""

        ended = False

        def __del__(self):
            Body.ended = True

    async def script(connection):
        await connection.request()
        await peer.go_on.wait()
        connection.send(OK)
        await connection.request()

    async with Peer(script) as peer:
        peer.go_on = asyncio.Event()
        endpoint = Endpoint(peer.url)

        def request():
            return asyncio.ensure_future(endpoint.send(Body(b"x" * 100_000)))

        sending = request()
        await until(lambda: peer.requests)
        gc.collect()
        assert Body.ended
        peer.go_on.set()
        await collect(await sending)
