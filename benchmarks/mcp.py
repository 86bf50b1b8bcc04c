"""What does a call of an MCP server's tool cost, beside the official client by itself?"""

from __future__ import annotations

import contextlib
import functools
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mcp.client.session import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from benchmarks.measure import Row, cpu_of_awaits, publish, run_loop
from gossamer.context import RunContext
from gossamer.messages import ToolCall
from gossamer.tools.execution import ToolTurn, run_calls
from gossamer.tools.mcp import MCPServer
from gossamer.tools.opened import opened_on_loop

# Without its own folder in the path, where this file would be taken for the official package.
SERVER = [sys.executable, "-P", str(Path(__file__).with_name("mcp_server.py"))]
ARGUMENTS = {"a": 2, "b": 3}


@contextlib.contextmanager
def http_server() -> Iterator[str]:
    """Run the server over HTTP, in a process of its own."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with subprocess.Popen([*SERVER, str(port)], stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(1000):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.02)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()


async def bare_call(session: ClientSession) -> None:
    """The floor: the official client, with nothing around it."""
    result = await session.call_tool("add", ARGUMENTS)
    assert result.content[0].text == "5"


async def our_call(tools: dict[str, Any], call: ToolCall) -> None:
    """A call as a run makes it: arguments decoded and checked, the result as a part."""
    turn = ToolTurn(RunContext("benchmark", None), tools)
    work = run_calls(turn, (call,))
    assert work is not None
    await work
    assert turn.results[call.id].content == "5"


async def calls(streams: Any, server: MCPServer) -> dict[str, float]:
    """CPU of a call in this process; the server's own is not counted."""
    async with streams as (read, write), ClientSession(read, write) as session, server:
        await session.initialize()
        await session.list_tools()
        connection = opened_on_loop()[server].equip
        tools = {tool.name: tool for tool in connection()}
        call = ToolCall("add", '{"a":2,"b":3}', "call-1")
        cases = {
            "bare": functools.partial(bare_call, session),
            "ours": functools.partial(our_call, tools, call),
        }
        return await cpu_of_awaits(cases)


def main() -> None:
    rows: list[Row] = []
    parameters = StdioServerParameters(command=SERVER[0], args=SERVER[1:])
    stdio = run_loop(calls(stdio_client(parameters), MCPServer(command=SERVER)))
    with http_server() as url:
        http = run_loop(calls(streamable_http_client(url), MCPServer(url=url)))
    for way, cpu in (("standard streams", stdio), ("streamable HTTP", http)):
        ratio = cpu["ours"] / cpu["bare"]
        rows.append(Row(f"tool call over {way}", "µs", cpu["ours"], cpu["bare"]))
        rows.append(
            Row(
                f"tool call over {way} to the official client's",
                "x",
                ratio,
                1.0,
                {},
                "≤ 1.1x",
                ratio <= 1.1,
            )
        )
    publish("mcp", rows)


if __name__ == "__main__":
    main()
