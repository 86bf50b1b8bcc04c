"""MCP servers for tests: commands to start them, processes that serve over HTTP, and a look at what is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from gossamer import Agent, ToolCall
from gossamer.models import ScriptedModel

HERE = Path(__file__).parent
PLAIN = [sys.executable, str(HERE / "plain_server.py")]
RAW = [sys.executable, "-S", str(HERE / "raw_server.py")]


def raw(mode: str, *more: str) -> list[str]:
    """The command of a server of standard library alone, which misbehaves as told; see raw_server.py."""
    return [*RAW, mode, *more]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def until(condition) -> None:
    """Wait until something holds; a test that waits in vain runs into its time limit."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


async def gone(pid: int) -> None:
    await until(lambda: not is_alive(pid))


class HTTPServer:
    """A plain server in a process of its own, that can be killed and started again on its port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *PLAIN,
            "--http",
            str(self.port),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    await writer.wait_closed()
                    return
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        await self.process.wait()


@contextlib.asynccontextmanager
async def http_server():
    server = HTTPServer()
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


def calling(*calls: ToolCall, then: str = "done", **agent) -> Agent:
    """An agent whose model makes these calls, one a turn, and then answers."""
    return Agent(ScriptedModel([*calls, then]), **agent)


def results(result) -> list:
    return [part for message in result.messages if message.role == "tool" for part in message.parts]
