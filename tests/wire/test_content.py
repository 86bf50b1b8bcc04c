"""Compressed bodies: decoded as they come, however they are packed, and never all at once."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from tests.wire.peer import CHUNKED, OK, Peer, answer, bytewise, chunk, collect

from gossamer.errors import ProtocolError, TooLargeError, WireError
from gossamer.wire import Endpoint

TEXT = b"The quick brown fox jumps over the lazy dog. " * 200


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def coded(coding: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        coding,
        len(body),
        body,
    )


CODINGS = [
    pytest.param(b"gzip", gzip.compress(TEXT), id="gzip"),
    pytest.param(b"X-GZIP", gzip.compress(TEXT), id="x-gzip"),
    pytest.param(b"gzip", gzip.compress(TEXT[:99]) + gzip.compress(TEXT[99:]), id="two members"),
    pytest.param(b"gzip", gzip.compress(TEXT) + b"\0" * 20, id="padding"),
    pytest.param(b"deflate", zlib.compress(TEXT), id="deflate"),
    pytest.param(b"deflate", raw_deflate(TEXT), id="raw deflate"),
    pytest.param(b"identity", TEXT, id="identity"),
]


@pytest.mark.parametrize("fragments", [lambda data: [data], bytewise], ids=["at once", "bytewise"])
@pytest.mark.parametrize(("coding", "body"), CODINGS)
async def test_content_codings(coding, body, fragments):
    async with Peer(answer(*fragments(coded(coding, body)))) as peer:
        endpoint = Endpoint(peer.url)
        for _ in range(2):
            assert await collect(await endpoint.send(b"")) == TEXT
        assert len(peer.connections) == 1


async def test_pieces_are_decoded_as_they_come():
    packer = zlib.compressobj(wbits=31)

    async def script(connection):
        await connection.request()
        connection.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"))
        for number in range(3):
            connection.send(chunk(packer.compress(b"event %d" % number) + packer.flush(zlib.Z_SYNC_FLUSH)))
            # The next is not sent before this one was read.
            await connection.more()
        connection.send(chunk(packer.flush()) + b"0\r\n\r\n")
        await connection.request()

    async with Peer(script) as peer:
        stream = await Endpoint(peer.url).send(b"")
        for number in range(3):
            assert await stream.read() == b"event %d" % number
            peer.connections[0].news.set()
        assert await stream.read() == b""


async def test_compression_is_not_asked_for_unless_the_caller_does():
    async with Peer(answer(OK)) as peer:
        await collect(await Endpoint(peer.url).send(b""))
        await collect(await Endpoint(peer.url, headers={"Accept-Encoding": "gzip"}).send(b""))
        assert "Accept-Encoding" not in peer.requests[0].headers
        assert peer.requests[1].headers["Accept-Encoding"] == "gzip"


async def test_a_bomb_is_handed_out_in_bounded_pieces():
    bomb = gzip.compress(b"\0" * 200_000_000, compresslevel=9)
    async with Peer(answer(coded(b"gzip", bomb))) as peer:
        endpoint = Endpoint(peer.url)
        stream = await endpoint.send(b"")
        total = largest = 0
        tracemalloc.start()
        try:
            while data := await stream.read():
                total += len(data)
                largest = max(largest, len(data))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert total == 200_000_000
        assert largest <= 256 * 1024
        assert peak < 8_000_000
        with pytest.raises(TooLargeError):
            await (await endpoint.send(b"")).read_all(1_000_000)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(gzip.compress(TEXT)[:-9], id="cut off"),
        pytest.param(gzip.compress(TEXT)[:-4] + b"\0\0\0\0", id="wrong length"),
        pytest.param(b"this is not gzip", id="not gzip"),
        pytest.param(b"\x1f", id="one byte"),
    ],
)
async def test_damaged_bodies_are_protocol_errors(body):
    async with Peer(answer(coded(b"gzip", body))) as peer:
        stream = await Endpoint(peer.url).send(b"")
        with pytest.raises(ProtocolError, match="compressed body"):
            await collect(stream)
        with pytest.raises(WireError):
            await stream.read()


async def test_an_empty_body_needs_no_coding():
    async with Peer(answer(coded(b"gzip", b""))) as peer:
        assert await collect(await Endpoint(peer.url).send(b"")) == b""
