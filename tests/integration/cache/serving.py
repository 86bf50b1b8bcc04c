"""A way to Redis that can be held up, and a second process with a cache of its own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Self

__all__ = ["PEER", "Peer", "Proxy", "eventually"]

PEER = Path(__file__).with_name("peer.py")


async def eventually(check, message="it did not happen"):
    """Wait until something is so; what is waited for must not depend on how long it takes."""
    deadline = asyncio.get_running_loop().time() + 20
    while not (value := check()):
        assert asyncio.get_running_loop().time() < deadline, message
        await asyncio.sleep(0.005)
    return value


class Proxy:
    """Stands between a cache and Redis, connection by connection, those that listen to messages told apart."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = ""
        self.held = 0  # answers that wait
        self.answers = asyncio.Event()  # cleared: answers to commands wait
        self.answers.set()
        self.refusing = self.refusing_subscriptions = False
        self.mute = False  # what listeners would be told is lost
        self._writers: dict[asyncio.StreamWriter, bool] = {}  # whether it listens
        self._tasks: set[asyncio.Task] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self, *, subscriptions_only: bool = False) -> None:
        """Break the connections."""
        for writer, listens in list(self._writers.items()):
            if listens or not subscriptions_only:
                writer.transport.abort()

    async def _serve(self, reader, writer) -> None:
        self._tasks.add(asyncio.current_task())
        if self.refusing:
            writer.transport.abort()
            return
        self._writers[writer] = False
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._up(reader, server_writer, writer))
                pumps.create_task(self._down(server_reader, writer))
        except* (ConnectionError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._writers.pop(writer, None)
            for one in (writer, server_writer):
                one.transport.abort()

    async def _up(self, reader, server_writer, writer) -> None:
        while data := await reader.read(65536):
            if b"SUBSCRIBE" in data:
                if self.refusing_subscriptions:
                    break
                self._writers[writer] = True
            server_writer.write(data)
        raise EOFError

    async def _down(self, server_reader, writer) -> None:
        while data := await server_reader.read(65536):
            if not self._writers.get(writer) and not self.answers.is_set():
                self.held += 1
                await self.answers.wait()
            if not (self.mute and self._writers.get(writer)):
                writer.write(data)
        raise EOFError


class Peer:
    """Another process with a `MultiLevelCache`; `await peer(method, ...)` calls it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def send(self, method: str, *args, **kwargs) -> None:
        self.process.stdin.write(json.dumps([method, args, kwargs]).encode() + b"\n")
        await self.process.stdin.drain()

    async def answer(self):
        line = await asyncio.wait_for(self.process.stdout.readline(), 60)
        assert line, "the other process is gone"
        return json.loads(line)

    async def __call__(self, method: str, *args, **kwargs):
        await self.send(method, *args, **kwargs)
        return await self.answer()
