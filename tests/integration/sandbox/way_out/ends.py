"""The proxy on a real socket, a host at its far end, and a client that sends bytes as they are."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from gossamer.sandbox.proxy import AllowListProxy

__all__ = ["Host", "answer_once", "echo", "hang_up", "proxied", "request", "silent"]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Host:
    """A server that keeps all it receives and plays a script for each connection."""

    def __init__(self, script) -> None:
        self.script = script
        self.received = []
        self.writers = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.play, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
            await hang_up(writer)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.server.wait_closed(), 5)

    async def play(self, reader, writer):
        received = bytearray()
        self.received.append(received)
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.script(reader, writer, received)
        writer.close()

    @property
    def name(self):
        return f"127.0.0.1:{self.port}"


async def answer_once(reader, writer, received):
    """Read a head and what is said to follow, and answer `ok`."""
    received += await reader.readuntil(b"\r\n\r\n")
    while b"chunked" in received and not received.endswith(b"0\r\n\r\n"):
        received += await reader.readexactly(1)
    _, _, size = bytes(received).partition(b"content-length: ")
    if size:
        received += await reader.readexactly(int(size.split(b"\r\n")[0]))
    writer.write(OK)
    await writer.drain()
    writer.write_eof()
    received += await reader.read()


async def echo(reader, writer, received):
    """Send back all that comes, and end when nothing more does."""
    while data := await reader.read(65_536):
        received += data
        writer.write(data)
        await writer.drain()
    writer.write(b"|end")


async def silent(reader, writer, received):
    """Read and say nothing."""
    while data := await reader.read(65_536):
        received += data


@contextlib.asynccontextmanager
async def proxied(*hosts, **options):
    """Serve a proxy; give it, its port beside."""
    listening = socket.create_server(("127.0.0.1", 0))
    proxy = AllowListProxy(hosts, **options)
    port = listening.getsockname()[1]
    proxy.serve(listening)
    try:
        yield proxy, port
    finally:
        await proxy.aclose()
        assert listening.fileno() == -1


async def request(port, data, *, ends=False):
    """Send bytes as they are; give all that comes back until the other side ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    if ends:
        writer.write_eof()
    answer = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65_536):
            answer += piece
    await hang_up(writer)
    return bytes(answer)


async def hang_up(writer):
    """Close a connection and wait until it is closed."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
