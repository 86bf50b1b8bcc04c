"""The other end of the wire: a real TCP server whose connections play a script."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from typing import Self

from gossamer import wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    head: bytes = field(repr=False)


class PeerConnection(asyncio.Protocol):
    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.received = bytearray()
        self.news = asyncio.Event()
        self.gone = asyncio.Event()
        self.context: str = ""

    def connection_made(self, transport):
        self.transport = transport
        self.peer.connections.append(self)
        self.task = asyncio.get_running_loop().create_task(self.peer.play(self))

    def data_received(self, data):
        self.received += data
        self.news.set()

    def connection_lost(self, exc):
        self.gone.set()
        self.news.set()

    async def more(self) -> bool:
        """Wait for more bytes; False where the client is gone."""
        self.news.clear()
        if self.gone.is_set():
            return False
        await self.news.wait()
        return not self.gone.is_set()

    async def request(self) -> Request | None:
        """The next whole request, or None where the client is gone."""
        while (end := self.received.find(b"\r\n\r\n")) < 0:
            if not await self.more():
                return None
        head = bytes(self.received[: end + 4])
        del self.received[: end + 4]
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, target, _ = first.split(" ")
        headers = dict(line.split(": ", 1) for line in lines)
        size = int(headers.get("Content-Length", 0))
        while len(self.received) < size:
            if not await self.more():
                return None
        body = bytes(self.received[:size])
        del self.received[:size]
        request = Request(method, target, headers, body, head)
        self.peer.requests.append(request)
        return request

    def send(self, data: bytes) -> None:
        if not self.gone.is_set():
            self.transport.write(data)

    async def send_in(self, pieces) -> None:
        """Send each piece in a packet of its own, as far as TCP lets one."""
        for piece in pieces:
            self.send(piece)
            for _ in range(3):
                await asyncio.sleep(0)

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Peer:
    """`async with Peer(script) as peer`: every connection is played by `script(connection)`.

    When it ends it asserts that the client leaked nothing: no connection in use, nobody waiting, no task.
    """

    def __init__(self, script, *, ssl=None, host="127.0.0.1", port=0, sock=None) -> None:
        self.script = script
        self.ssl = ssl
        self.host = host
        self.port = port
        self.sock = sock
        self.connections: list[PeerConnection] = []
        self.requests: list[Request] = []
        self.failures: list[BaseException] = []

    async def play(self, connection: PeerConnection) -> None:
        try:
            await self.script(connection)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self.failures.append(error)
            connection.close()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        where = {"sock": self.sock} if self.sock else {"host": self.host, "port": self.port, "backlog": 4096}
        self.server = await loop.create_server(lambda: PeerConnection(self), ssl=self.ssl, **where)
        self.port = self.server.sockets[0].getsockname()[1]
        host = f"[{self.host}]" if ":" in self.host else self.host
        self.url = f"{'https' if self.ssl else 'http'}://{host}:{self.port}"
        return self

    async def __aexit__(self, kind, error, trace) -> None:
        if error is None:
            for host in wire.statistics():
                assert host.open == host.idle, f"connections in use were left behind: {host}"
                assert host.waiting == 0, f"somebody still waits: {host}"
        self.server.close()
        for connection in self.connections:
            connection.task.cancel()
            connection.transport.abort()
        for connection in self.connections:
            with contextlib.suppress(asyncio.CancelledError):
                await connection.task
            await connection.gone.wait()
        await self.server.wait_closed()
        if error is None:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            # The server's own tasks: scripts of other peers, and handshakes that failed.
            theirs = ("Peer.play", "_accept_connection")
            left = {task for task in left if not any(name in repr(task) for name in theirs)}
            assert not left, f"tasks were left behind: {left}"
            assert not self.failures, self.failures


async def always_ok(connection: PeerConnection) -> None:
    while await connection.request():
        connection.send(OK)


def answer(*pieces: bytes, close: bool = False):
    """A script: answer every request with these pieces, each in its own packet."""

    async def script(connection: PeerConnection) -> None:
        while await connection.request():
            await connection.send_in(pieces)
            if close:
                connection.close()
                return

    return script


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


async def collect(stream: wire.Stream) -> bytes:
    return await stream.read_all(1 << 30)


async def until(condition) -> None:
    """Let the loop turn until the condition holds; ten seconds at most."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)
