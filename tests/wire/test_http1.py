"""HTTP/1.1 as servers speak it, well and badly."""

from __future__ import annotations

import asyncio

import pytest
from tests.wire.peer import CHUNKED, OK, Peer, answer, bytewise, chunk, collect

from gossamer.errors import ProtocolError, TooLargeError, WireError
from gossamer.wire import Endpoint, statistics

WHOLE = [
    pytest.param(OK, b"ok", id="length"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", id="empty"),
    pytest.param(CHUNKED + chunk(b"hello ") + chunk(b"world") + b"0\r\n\r\n", b"hello world", id="chunked"),
    pytest.param(CHUNKED + b'2;a=1;b="x;y"\r\nok\r\n0;last\r\n\r\n', b"ok", id="extensions"),
    pytest.param(
        CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
        b"ok",
        id="trailers",
    ),
    pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="204"),
    pytest.param(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n", b"", id="304"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok", id="100"),
    pytest.param(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK,
        b"ok",
        id="103 and 102",
    ),
    pytest.param(b"HTTP/1.1 104 Unheard Of\r\nX: y\r\n\r\n" + OK, b"ok", id="unknown 1xx"),
    pytest.param(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", b"ok", id="1.0 kept"
    ),
    pytest.param(b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", b"ok", id="no reason"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
        id="upgrade offered",
    ),
]


@pytest.mark.parametrize("fragments", [lambda data: [data], bytewise], ids=["at once", "bytewise"])
@pytest.mark.parametrize(("data", "body"), WHOLE)
async def test_whole_answers_are_read_and_their_connection_is_used_again(data, body, fragments):
    async with Peer(answer(*fragments(data))) as peer:
        endpoint = Endpoint(peer.url)
        for _ in range(3):
            assert await collect(await endpoint.send(b"x")) == body
        assert len(peer.connections) == 1


@pytest.mark.parametrize(
    ("data", "body"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end", id="no length"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", id="1.0"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", id="close"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"", id="no length, empty"),
    ],
)
@pytest.mark.parametrize("fragments", [lambda data: [data], bytewise], ids=["at once", "bytewise"])
async def test_answers_that_end_the_connection_are_whole_and_the_next_gets_a_new_one(data, body, fragments):
    async with Peer(answer(*fragments(data), close=True)) as peer:
        endpoint = Endpoint(peer.url)
        for _ in range(2):
            assert await collect(await endpoint.send(b"x")) == body
        assert len(peer.connections) == 2


async def test_the_client_closes_where_the_server_said_close_but_did_not():
    async with Peer(answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")) as peer:
        assert await collect(await Endpoint(peer.url).send(b"")) == b"ok"
        await asyncio.wait_for(peer.connections[0].gone.wait(), 5)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5000\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    ],
)
async def test_the_answer_to_head_has_no_body_whatever_its_headers_say(head):
    async with Peer(answer(*bytewise(head))) as peer:
        endpoint = Endpoint(peer.url)
        for _ in range(2):
            stream = await endpoint.send(method="HEAD")
            assert stream.status == 200
            assert await stream.read() == b""
        assert len(peer.connections) == 1
        assert "Content-Length" not in peer.requests[0].headers


async def test_a_body_behind_the_answer_to_head_is_garbage():
    async with Peer(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")) as peer:
        endpoint = Endpoint(peer.url)
        for _ in range(2):
            stream = await endpoint.send(method="HEAD")
            assert await stream.read() == b""
        assert len(peer.connections) == 2


@pytest.mark.parametrize(
    "garbage",
    [b"HTT", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"\x00\xff", b"<html>"],
)
@pytest.mark.parametrize("whole", [OK, CHUNKED + b"2\r\nok\r\n0\r\n\r\n"], ids=["length", "chunked"])
async def test_garbage_behind_an_answer_never_reaches_the_next(whole, garbage):
    async with Peer(answer(whole + garbage)) as peer:
        endpoint = Endpoint(peer.url)
        for _ in range(3):
            assert await collect(await endpoint.send(b"")) == b"ok"
        assert len(peer.connections) == 3


async def test_bytes_on_an_idle_connection_close_it():
    async with Peer(answer(OK)) as peer:
        endpoint = Endpoint(peer.url)
        assert await collect(await endpoint.send(b"")) == b"ok"
        peer.connections[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await peer.connections[0].gone.wait()
        assert await collect(await endpoint.send(b"")) == b"ok"
        assert len(peer.connections) == 2


CUT = [
    pytest.param(b"", "before it answered", id="nothing"),
    pytest.param(b"HTTP/1.", "inside the headers", id="status line"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-", "inside the headers", id="header"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", "inside the headers", id="after 100"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "middle of the body", id="no body"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "middle of the body", id="half a body"
    ),
    pytest.param(CHUNKED, "middle of the body", id="no chunk"),
    pytest.param(CHUNKED + b"5\r\nhe", "middle of the body", id="in a chunk"),
    pytest.param(CHUNKED + chunk(b"hello"), "middle of the body", id="between chunks"),
    pytest.param(CHUNKED + chunk(b"hello") + b"0\r\n", "middle of the body", id="before the last line"),
]


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize(("data", "where"), CUT)
async def test_a_connection_cut_at_any_point_is_a_typed_error_and_the_next_request_works(data, where, end):
    async def script(connection):
        await connection.request()
        if len(peer.requests) > 1:
            connection.send(OK)
            return
        await connection.send_in([data])
        getattr(connection, end)()

    async with Peer(script) as peer:
        endpoint = Endpoint(peer.url)
        with pytest.raises(ProtocolError, match=where if end == "close" else "closed the connection"):
            await collect(await endpoint.send(b"x"))
        assert len(peer.requests) == 1
        assert statistics()[0].open == 0
        assert await collect(await endpoint.send(b"x")) == b"ok"


async def test_what_came_before_the_cut_is_read_before_the_error():
    async def script(connection):
        await connection.request()
        await connection.send_in([CHUNKED, chunk(b"first"), chunk(b"second")])
        connection.close()

    async with Peer(script) as peer:
        stream = await Endpoint(peer.url).send(b"x")
        await peer.connections[0].gone.wait()
        received = b""
        with pytest.raises(ProtocolError):
            while True:
                received += await stream.read()
        assert received == b"firstsecond"
        with pytest.raises(ProtocolError):
            await stream.read()


BROKEN = [
    pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
    pytest.param(b"<html>nope</html>", id="html"),
    pytest.param(b"HTTP/9.9 200 OK\r\n\r\n", id="version"),
    pytest.param(b"HTTP/1.1 2x0 OK\r\n\r\n", id="status"),
    pytest.param(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", id="101"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", id="two lengths"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        id="length and chunks",
    ),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", id="negative length"),
    pytest.param(b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", id="null in a header"),
    pytest.param(b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n", id="folded header"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx", id="transfer coding"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx", id="content coding"
    ),
    pytest.param(CHUNKED + b"zz\r\n", id="chunk size"),
    pytest.param(CHUNKED + b"ffffffffffffffffff\r\n", id="chunk size overflow"),
    pytest.param(CHUNKED + b"2\r\nokXX", id="chunk end"),
]


@pytest.mark.parametrize("fragments", [lambda data: [data], bytewise], ids=["at once", "bytewise"])
@pytest.mark.parametrize("data", BROKEN)
async def test_broken_http_is_a_protocol_error_and_the_next_request_works(data, fragments):
    async def script(connection):
        while await connection.request():
            await connection.send_in([OK] if len(peer.requests) > 1 else fragments(data))

    async with Peer(script) as peer:
        endpoint = Endpoint(peer.url)
        with pytest.raises(ProtocolError):
            await collect(await endpoint.send(b"x"))
        assert await collect(await endpoint.send(b"x")) == b"ok"
        assert len(peer.requests) == 2


async def flood(connection, start, piece):
    """Send `piece` until the client has had enough."""
    await connection.request()
    if len(connection.peer.requests) > 1:
        connection.send(OK)
        return
    connection.send(start)
    for _ in range(10_000):
        await connection.send_in([piece])
        if connection.gone.is_set():
            return
    raise AssertionError("the client took it all")


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"X-Bomb: %b\r\n" % (b"b" * 500), id="header bomb"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 10, id="many small headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1000, id="endless header"),
        pytest.param(b"HTTP/1.1 200 ", b"x" * 1000, id="endless reason"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 10, id="endless 100"),
        pytest.param(CHUNKED + b"5;", b"x" * 1000, id="endless chunk extension"),
        pytest.param(CHUNKED + b"2\r\nok\r\n0\r\nX: ", b"x" * 1000, id="endless trailer"),
        pytest.param(CHUNKED + b"2\r\nok\r\n0\r\n", b"X-Bomb: %b\r\n" % (b"b" * 500), id="trailer bomb"),
        pytest.param(b"", b"\r\n" * 500, id="endless blank lines"),
    ],
)
async def test_endless_framing_is_bounded(start, piece):
    async with Peer(lambda connection: flood(connection, start, piece)) as peer:
        endpoint = Endpoint(peer.url)
        with pytest.raises(TooLargeError):
            await collect(await endpoint.send(b"x"))
        assert await collect(await endpoint.send(b"x")) == b"ok"


async def test_a_head_of_a_size_that_servers_do_send_is_taken():
    fields = b"".join(b"X-Header-%d: %b\r\n" % (i, b"v" * 200) for i in range(200))
    async with Peer(answer(b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 2\r\n\r\nok")) as peer:
        stream = await Endpoint(peer.url).send(b"x")
        assert stream.headers.get("x-header-199") == "v" * 200
        assert await collect(stream) == b"ok"


async def test_read_all_stops_at_its_limit():
    body = b"x" * 100_000
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + body
    async with Peer(answer(data)) as peer:
        endpoint = Endpoint(peer.url)
        assert await (await endpoint.send(b"")).read_all(100_000) == body
        with pytest.raises(TooLargeError, match="99999"):
            await (await endpoint.send(b"")).read_all(99_999)


async def test_headers_are_found_whatever_their_case():
    head = b"HTTP/1.1 200 OK\r\nContent-TYPE: text/plain\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX-Latin: \xe9\r\n"
    async with Peer(answer(head + b"X-Empty:\r\nContent-Length: 0\r\n\r\n")) as peer:
        headers = (await Endpoint(peer.url).send(b"")).headers
        assert headers.get("content-type") == headers.get("Content-Type") == "text/plain"
        assert headers.get_all("SET-COOKIE") == ["a=1", "b=2"]
        assert headers.get("set-cookie") == "a=1, b=2"
        assert headers.get("x-latin") == "é"
        assert headers.get("x-empty") == ""
        assert headers.get("type") is None
        assert headers.get("missing", "default") == "default"
        assert "CONTENT-length" in headers
        assert "content" not in headers
        assert dict(headers.items())["content-type"] == "text/plain"


async def test_early_answer_to_a_body_that_is_still_going_out_ends_the_connection():
    async def script(connection):
        connection.transport.pause_reading()
        connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await connection.gone.wait()

    async with Peer(script) as peer:
        stream = await Endpoint(peer.url).send(b"x" * 30_000_000)
        assert stream.status == 413
        assert await collect(stream) == b"big"
        assert statistics()[0].open == 0
        peer.connections[0].transport.resume_reading()


async def test_large_bodies_arrive_whole_whatever_they_are_made_of():
    body = bytes(range(256)) * 20_000

    async def script(connection):
        while request := await connection.request():
            connection.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%b" % (b"ok" if request.body == body else b"no")
            )

    async with Peer(script) as peer:
        endpoint = Endpoint(peer.url)
        for form in (body, bytearray(body), memoryview(body), [body[:1000], memoryview(body)[1000:]]):
            assert await collect(await endpoint.send(form)) == b"ok"


async def test_a_buffer_may_change_once_the_request_is_on_its_way():
    async with Peer(answer(OK)) as peer:
        endpoint = Endpoint(peer.url)
        buffer = bytearray(b"before" * 1000)
        sending = asyncio.ensure_future(endpoint.send([memoryview(buffer)[:600]]))
        await asyncio.sleep(0)
        buffer[:] = b"after"
        await collect(await sending)
        assert peer.requests[0].body == b"before" * 100


async def test_reading_after_the_end_and_after_close():
    async with Peer(answer(OK)) as peer:
        endpoint = Endpoint(peer.url)
        stream = await endpoint.send(b"")
        assert await collect(stream) == b"ok"
        assert await stream.read() == b""
        stream.close()
        stream.close()
        assert await stream.read() == b""
        unread = await endpoint.send(b"")
        unread.close()
        with pytest.raises(WireError, match="closed before"):
            await unread.read()
        # Its answer had arrived whole, so nothing was lost by not reading it.
        assert len(peer.connections) == 1
