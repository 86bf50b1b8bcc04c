"""The simulator as an HTTP server: driven over raw sockets, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import json
import re
import socket
import time

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.errors import ArgumentError
from gossamer.simulator import Script, Simulator

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def runner(request):
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as running:
        yield running


def bounded(scenario):
    """A test that runs its coroutine on both loops and may take 20 seconds."""

    def test(runner, **arguments):
        async def run():
            async with asyncio.timeout(20):
                await scenario(**arguments)

        runner.run(run())

    own = inspect.Parameter("runner", inspect.Parameter.KEYWORD_ONLY)
    test.__signature__ = inspect.Signature([*inspect.signature(scenario).parameters.values(), own])
    return test


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


class Client:
    """One raw connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, simulator, **options):
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port, **options)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def head(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:-2])

    async def answer(self):
        """Status, headers and body of the next answer."""
        status, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, b"".join([chunk async for chunk in self.chunks()])
        if "content-length" in headers:
            return status, headers, await self.reader.readexactly(int(headers["content-length"]))
        return status, headers, await self.reader.read()

    async def chunks(self):
        while size := int(await self.reader.readline(), 16):
            yield await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"


def post(said="x", *, headers="", path="/v1/chat/completions", version="1.1", **fields):
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": said}], **fields}).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def said(body):
    """What the model said in a whole answer, or in the frames of a stream."""
    if body.startswith(b"{"):
        return json.loads(body)["choices"][0]["message"]["content"]
    frames = [frame for frame in body.decode().split("\n\n") if frame]
    assert frames[-1] == "data: [DONE]"
    deltas = [json.loads(frame.removeprefix("data: "))["choices"][0]["delta"] for frame in frames[:-1]]
    return "".join(delta.get("content") or "" for delta in deltas)


# --- requests -----------------------------------------------------------------------------------------------


@bounded
async def test_keep_alive_serves_whole_and_streamed_answers_in_turn():
    async with Simulator() as simulator, Client.to(simulator) as client:
        for number in range(6):
            client.writer.write(post(f"n {number}", stream=bool(number % 2)))
            _, headers, body = await client.answer()
            assert said(body) == f"You said: n {number}"
            assert "connection" not in headers
        assert simulator.stats.connections == 1
        assert simulator.stats.requests == 6


@bounded
async def test_one_frame_in_each_http_chunk():
    async with Simulator(chunks=5) as simulator, Client.to(simulator) as client:
        client.writer.write(post(stream=True))
        _, headers = await client.head()
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        frames = [chunk async for chunk in client.chunks()]
        assert [frame.count(b"data: ") for frame in frames] == [1, 1, 1, 1, 1, 1, 2]


@bounded
async def test_pipelined_requests_are_answered_in_their_order():
    async with Simulator(latency=0.001) as simulator, Client.to(simulator) as client:
        count = 60  # more than wait at once: reading pauses and goes on
        client.writer.write(b"".join(post(f"n {number}", stream=number % 3 == 0) for number in range(count)))
        for number in range(count):
            assert said((await client.answer())[2]) == f"You said: n {number}"


@bounded
async def test_thousands_of_pipelined_requests_do_not_recurse():
    async with Simulator() as simulator, Client.to(simulator) as client:
        count = 3000
        client.writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * count)
        for _ in range(count):
            assert (await client.answer())[0] == 200
        assert simulator.stats.requests == count


@bounded
async def test_any_prefix_and_query_before_the_path():
    async with Simulator() as simulator, Client.to(simulator) as client:
        for path in ("/chat/completions", "/openai/deployments/d/chat/completions?api-version=1"):
            client.writer.write(post("hi", path=path))
            assert said((await client.answer())[2]) == "You said: hi"


@bounded
async def test_stats_health_and_unknown_paths():
    async with Simulator() as simulator, Client.to(simulator) as client:
        client.writer.write(post("a b", stream=True))
        await client.answer()
        client.writer.write(b"GET /health HTTP/1.1\r\n\r\n")
        assert (await client.answer())[2] == b'{"status":"ok"}'
        for request in (b"GET /nowhere", b"GET /v1/chat/completions", b"DELETE /v1/models", b"POST /stats"):
            client.writer.write(request + b" HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
            status, _, body = await client.answer()
            assert status == 404
            error = json.loads(body)["error"]
            assert request.decode() in error["message"]
            assert error["type"] == "invalid_request_error"
        client.writer.write(b"GET /stats HTTP/1.1\r\n\r\n")
        stats = json.loads((await client.answer())[2])
        assert stats["requests"] == 7
        assert stats["chunks"] == stats["completion_tokens"] == 5
        assert stats["connections"] == 1
        assert stats["errors"] == {"404": 4}


@bounded
async def test_expect_100_continue():
    async with Simulator() as simulator, Client.to(simulator) as client:
        head, body = post("hi", headers="Expect: 100-continue\r\n").split(b"\r\n\r\n")
        for _ in range(2):
            client.writer.write(head + b"\r\n\r\n")
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.writer.write(body)
            assert said((await client.answer())[2]) == "You said: hi"


@bounded
async def test_continue_waits_for_the_answer_before():
    async with Simulator(chunks=3, tps=100) as simulator, Client.to(simulator) as client:
        head, body = post("hi", headers="Expect: 100-continue\r\n").split(b"\r\n\r\n")
        client.writer.write(post(stream=True) + head + b"\r\n\r\n")
        await client.answer()
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(body)
        assert (await client.answer())[0] == 200


@bounded
async def test_chunked_request_body():
    async with Simulator() as simulator, Client.to(simulator) as client:
        body = post("in pieces").partition(b"\r\n\r\n")[2]
        pieces = b"".join(b"1;ext=1\r\n%b\r\n" % body[i : i + 1] for i in range(len(body)))
        client.writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            + pieces
            + b"0\r\nA: b\r\n\r\n"
        )
        assert said((await client.answer())[2]) == "You said: in pieces"


@bounded
async def test_http_1_0_gets_no_chunks_and_the_end_of_the_connection():
    async with Simulator() as simulator, Client.to(simulator) as client:
        client.writer.write(post("old", stream=True, version="1.0"))
        status, headers, body = await client.answer()
        assert status == 200
        assert "transfer-encoding" not in headers
        assert headers["connection"] == "close"
        assert said(body) == "You said: old"


@bounded
async def test_connection_close_is_honoured():
    async with Simulator() as simulator, Client.to(simulator) as client:
        client.writer.write(post("bye", headers="Connection: close\r\n"))
        _, headers, body = await client.answer()
        assert headers["connection"] == "close"
        assert said(body) == "You said: bye"
        assert await client.reader.read() == b""


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 700), max_size=12), st.booleans())
def test_fragments_of_any_size_make_the_same_requests(cuts, stream):
    async def scenario():
        requests = post("first é 🎉", stream=stream) + post("second") + b"GET /health HTTP/1.1\r\n\r\n"
        async with Simulator() as simulator, Client.to(simulator) as client:
            start = 0
            for end in [*sorted(cuts), len(requests)]:
                client.writer.write(requests[start:end])
                start = max(start, end)
                await asyncio.sleep(0)
            assert said((await client.answer())[2]) == "You said: first é 🎉"
            assert said((await client.answer())[2]) == "You said: second"
            assert (await client.answer())[0] == 200

    asyncio.run(scenario())


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=200), st.booleans())
def test_any_text_comes_back(text, stream):
    async def scenario():
        async with Simulator() as simulator, Client.to(simulator) as client:
            client.writer.write(post(text, stream=stream))
            assert said((await client.answer())[2]) == f"You said: {text}"

    asyncio.run(scenario())


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_get_an_answer_or_silence_and_harm_nobody(data):
    async def scenario():
        async with Simulator() as simulator:
            async with Client.to(simulator) as client:
                client.writer.write(data)
                client.writer.write_eof()
                answer = await client.reader.read()
                assert not answer or answer.startswith(b"HTTP/1.1 ")
            async with Client.to(simulator) as client:
                client.writer.write(post("still here"))
                assert said((await client.answer())[2]) == "You said: still here"

    asyncio.run(scenario())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["messages", "tools", "tool_choice", "response_format", "stop", "n", "max_tokens", "stream_options"]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), json_values, min_size=1))
def test_any_field_of_any_type_gets_an_answer(fields):
    async def scenario():
        async with Simulator() as simulator, Client.to(simulator) as client:
            client.writer.write(post("x", **fields))
            status, _, body = await client.answer()
            assert status in {200, 400}
            assert ("error" in json.loads(body)) == (status == 400)

    asyncio.run(scenario())


# --- bad requests -------------------------------------------------------------------------------------------


@bounded
async def test_a_body_that_is_not_json_is_refused_and_the_connection_lives():
    async with Simulator() as simulator, Client.to(simulator) as client:
        for body in (b"", b"{", b"[]", b'"text"', b"\xff\xfe", b'{"model": "m"}', b"[" * 100_000):
            client.writer.write(
                b"POST /chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            status, _, answer = await client.answer()
            assert status == 400
            assert json.loads(answer)["error"]["type"] == "invalid_request_error"
        client.writer.write(post())
        assert (await client.answer())[0] == 200


@bounded
async def test_a_body_above_the_limit_is_refused_before_it_is_read():
    async with Simulator() as simulator, Client.to(simulator) as client:
        client.writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 50000000\r\n\r\n")
        status, headers, body = await client.answer()
        assert status == 413
        assert headers["connection"] == "close"
        assert "33554432" in json.loads(body)["error"]["message"]
        assert simulator.stats.errors == {"413": 1}


@bounded
async def test_a_client_that_sends_its_large_body_first_still_reads_the_refusal():
    async with Simulator() as simulator, Client.to(simulator) as client:
        client.writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 50000000\r\n\r\n")
        client.writer.write(bytes(50_000_000))
        await client.writer.drain()
        assert (await client.answer())[0] == 413


@bounded
async def test_a_chunked_body_above_the_limit_is_refused():
    async with Simulator() as simulator, Client.to(simulator) as client:
        client.writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(40):
            client.writer.write(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
        assert (await client.answer())[0] == 413


@pytest.mark.parametrize(
    "opening",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nName: ",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000,
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: ",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;extension=",
    ],
    ids=["line", "header", "headers", "trailer", "chunk-extension"],
)
@bounded
async def test_an_endless_head_is_refused(opening):
    async with Simulator() as simulator, Client.to(simulator) as client:
        client.writer.write(opening)
        sender = asyncio.ensure_future(endlessly(client.writer))
        status, _, body = await client.answer()
        sender.cancel()
        assert (status, json.loads(body)["error"]["type"]) == (431, "invalid_request_error")


async def endlessly(writer):
    with contextlib.suppress(OSError):
        for _ in range(1000):
            writer.write(b"a" * 10_000)
            await writer.drain()
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: five\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["tls", "nonsense", "upgrade", "length", "smuggling"],
)
@bounded
async def test_what_is_not_plain_http_is_refused(request_bytes):
    async with Simulator() as simulator, Client.to(simulator) as client:
        client.writer.write(request_bytes)
        status, headers, _ = await client.answer()
        assert status == 400
        assert headers["connection"] == "close"
        assert await client.reader.read() == b""


# --- pace ---------------------------------------------------------------------------------------------------


@bounded
async def test_latency_and_tps_set_the_time_an_answer_takes():
    async with Simulator(latency=0.1, tps=50, chunks=10) as simulator, Client.to(simulator) as client:
        for stream in (False, True):
            start = asyncio.get_running_loop().time()
            client.writer.write(post(stream=stream))
            await client.head() if stream else await client.answer()
            first = asyncio.get_running_loop().time() - start
            if stream:
                _ = [chunk async for chunk in client.chunks()]
            took = asyncio.get_running_loop().time() - start
            # Never early; how late is the machine's affair.
            assert first >= 0.099
            assert took >= 0.299


@bounded
async def test_stamps_tell_when_each_token_was_sent():
    async with Simulator(tps=100, chunks=5) as simulator, Client.to(simulator) as client:
        before = time.monotonic_ns()
        client.writer.write(post("ab", stream=True, headers="X-Simulator-Stamp: 1\r\n"))
        _, _, body = await client.answer()
        stamps = [int(stamp) for stamp in re.findall(rb'"content":"(\d+) ', body)]
        assert len(stamps) == 5
        assert stamps == sorted(stamps)
        assert before < stamps[0]
        assert stamps[-1] < time.monotonic_ns()
        client.writer.write(post("ab", stream=True))
        assert said((await client.answer())[2]) == "You said: ab" + "You"


@bounded
async def test_a_slow_reader_stops_its_stream_and_no_other():
    async with Simulator(chunks=100_000) as simulator:
        slow = socket.create_connection(("127.0.0.1", simulator.port))
        slow.sendall(post(stream=True))
        sent = -1
        while sent != simulator.stats.chunks:
            sent = simulator.stats.chunks
            async with Client.to(simulator) as client:  # the others are served, and time passes
                client.writer.write(post(max_tokens=300, stream=True))
                assert said((await client.answer())[2])
            sent += 300
        assert sent < 90_000
        assert simulator.stats.streams == 1
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        rest = b""
        while not rest.endswith(b"[DONE]\n\n\r\n0\r\n\r\n"):
            rest = rest[-40:] + await loop.sock_recv(slow, 1 << 20)
        slow.close()
        await until(lambda: not simulator.stats.connections)
        assert simulator.stats.chunks > 100_000


# --- ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["waiting", "streaming", "stalled", "parked"])
@bounded
async def test_a_client_that_leaves_frees_everything(phase):
    script = {"waiting": {"text": "x", "latency": 60}, "stalled": {"text": "x y", "fault": "stall"}}.get(
        phase
    )
    options = {"chunks": 1_000_000, "tps": 20 if phase == "streaming" else 0}
    async with Simulator(script=Script([script]) if script else None, **options) as simulator:
        async with Client.to(simulator, limit=1024) as client:
            client.writer.write(post(stream=True))
            await until(lambda: simulator.stats.streams)
            if phase != "waiting":
                await client.head()
                await until(lambda: simulator.stats.chunks)
            client.writer.transport.abort()
        await until(lambda: not simulator.stats.connections)
        assert simulator.stats.streams == 0
        assert simulator.stats.disconnects == 1
        gc.collect()
        left = [
            o
            for o in gc.get_objects()
            if str(type(o).__module__).startswith("gossamer.")
            and type(o).__name__ in {"Connection", "StreamDelivery", "ChatStream"}
        ]
        assert left == []


@bounded
async def test_closing_the_simulator_ends_live_streams():
    async with Simulator(tps=5, chunks=1000) as simulator:
        port = simulator.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(stream=True))
        await reader.readuntil(b"\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        while await reader.read(1000):
            pass
    writer.close()
    assert simulator.stats.streams == simulator.stats.connections == 0
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    async with simulator, Client.to(simulator) as client:
        client.writer.write(post("again", max_tokens=1))
        assert said((await client.answer())[2]) == "You"


@bounded
async def test_reset_is_a_reset_and_close_an_end():
    async with Simulator(script=Script([{"fault": "reset"}, {"fault": "close"}])) as simulator:
        async with Client.to(simulator) as client:
            client.writer.write(post())
            with pytest.raises(ConnectionResetError):
                await client.reader.read()
        async with Client.to(simulator) as client:
            client.writer.write(post())
            assert await client.reader.read() == b""


@bounded
async def test_half_a_frame():
    script = Script([{"fault": "half_frame", "after": 1, "text": "one two three"}])
    async with Simulator(script=script) as simulator:
        async with Client.to(simulator) as client:
            client.writer.write(post(stream=True))
            await client.head()
            *frames, rest = (await client.reader.read()).split(b"\n\n\r\n")
            assert [b'"content":"one"' in frame for frame in frames] == [False, True]
            assert rest
            assert b"three" not in rest
        async with Client.to(simulator) as client:
            client.writer.write(post())
            _, headers = await client.head()
            body = await client.reader.read()
            assert 0 < len(body) < int(headers["content-length"])


@bounded
async def test_a_malformed_frame_is_whole_http_and_the_stream_goes_on():
    script = Script([{"fault": "malformed", "after": 1, "text": "one two three"}])
    async with Simulator(script=script) as simulator, Client.to(simulator) as client:
        client.writer.write(post(stream=True))
        _, _, body = await client.answer()
        frames = body.decode().split("\n\n")
        assert [is_json(frame) for frame in frames[:-2]] == [True, True, False, True, True]
        client.writer.write(post())
        status, _, body = await client.answer()
        assert (status, is_json("data: " + body.decode())) == (200, False)


def is_json(frame):
    try:
        json.loads(frame.removeprefix("data: "))
    except ValueError:
        return False
    return True


# --- arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"latency": -1}, "latency is -1"),
        ({"tps": float("nan")}, "tps is nan"),
        ({"chunks": 0}, "chunks is 0"),
        ({"port": 70_000}, "port is 70000"),
        ({"error_rate": 1.5}, "error_rate is 1.5"),
        ({"faults": ["404"]}, "404"),
        ({"faults": []}, "faults has nothing"),
        ({"certificate": "c.pem"}, "both a certificate and its key"),
        ({"certificate": "/nowhere.pem", "key": "/nowhere.pem"}, r"nowhere\.pem"),
        ({"script": "/nowhere.json"}, r"nowhere\.json"),
    ],
)
def test_arguments_are_checked(options, says):
    with pytest.raises(ArgumentError, match=says):
        Simulator(**options)


async def test_a_port_that_is_taken_is_named():
    async with Simulator() as simulator:
        with pytest.raises(ArgumentError, match=f"cannot listen on 127.0.0.1:{simulator.port}"):
            async with Simulator(port=simulator.port):
                pass
        with pytest.raises(ArgumentError, match="open already"):
            async with simulator:
                pass
