"""The way out of a box: to the hosts that were named, and nowhere else."""

import asyncio
import contextlib

import pytest

from gossamer.errors import ArgumentError, CodeError
from gossamer.sandbox import BubblewrapSandbox

pytestmark = pytest.mark.usefixtures("bubblewrap")

FETCH = "import urllib.request\nurllib.request.urlopen({!r}).read().decode()"


@contextlib.asynccontextmanager
async def web_server(heard):
    async def serve(reader, writer):
        heard.append((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[0])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
async def heard():
    return []


async def test_a_host_that_is_named_is_reached_from_every_session(heard):
    async with web_server(heard) as port, BubblewrapSandbox(network=[f"127.0.0.1:{port}"], warm=1) as sandbox:
        assert sandbox.network == (f"127.0.0.1:{port}",)
        for number in range(3):
            code = FETCH.format(f"http://127.0.0.1:{port}/{number}")
            assert (await sandbox.run(code)).value == "hello"
    assert heard == [f"GET /{number} HTTP/1.1" for number in range(3)]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:{other}/", "http://localhost:{port}/", "http://example.com/", "https://example.com/"],
)
async def test_others_are_not(heard, url):
    async with web_server(heard) as port, web_server(heard) as other:
        async with BubblewrapSandbox(network=[f"127.0.0.1:{port}"], warm=0) as sandbox:
            with pytest.raises(CodeError, match="403"):
                await sandbox.run(FETCH.format(url.format(port=port, other=other)))
    assert heard == []


async def test_there_is_no_way_past_the_proxy(heard):
    code = """
import socket
told = []
for family, kind, where in (
    (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", {port})),
    (socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 80)),
    (socket.AF_INET6, socket.SOCK_STREAM, ("::1", {port})),
    (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", {port})),
    (socket.AF_NETLINK, socket.SOCK_RAW, (0, 0)),
):
    try:
        with socket.socket(family, kind) as one:
            one.connect(where)
            told.append(repr(where))
    except OSError:
        pass
told
"""
    async with web_server(heard) as port, BubblewrapSandbox(network=["example.com"], warm=0) as sandbox:
        assert (await sandbox.run(code.format(port=port))).value == []
    assert heard == []


def test_what_may_be_reached_is_checked():
    for wrong in ("example.com", ["http://example.com"], ["*"], [""]):
        with pytest.raises(ArgumentError):
            BubblewrapSandbox(network=wrong)
