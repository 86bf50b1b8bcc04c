"""A model provider that answers what a test tells it to, byte for byte, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from dataclasses import dataclass, field

from gossamer import wire


@dataclass
class Request:
    """One request, as it arrived."""

    target: str
    headers: dict[str, str]
    raw: bytes
    connection: Connection = field(repr=False)

    @property
    def body(self):
        return json.loads(self.raw)

    @property
    def messages(self):
        return self.body["messages"]


@dataclass
class Connection:
    """One accepted connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def request(self):
        """Read the next request; None where the client has gone."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")[:-2]
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            raw = await self.reader.readexactly(int(headers.get("content-length", 0)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return Request(first.split(" ")[1], headers, raw, self)

    async def send(self, *pieces):
        """Send each piece in a packet of its own; False where the client has gone."""
        try:
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                if len(pieces) > 1:
                    await asyncio.sleep(0)
        except ConnectionError:
            return False
        return not self.reader.at_eof()

    async def wait_closed_by_client(self):
        """Wait until the client has closed, whatever it still sends."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        self.gone.set()


class Close(bytes):
    """Bytes after which the server closes the connection."""


class Server:
    """`async with Server(answer, …) as server`: answers requests in order, whoever asks; the last one for ever.

    An answer is the bytes to send, a list of them to send in packets of their own, a `Close`, or an async function
    of the connection and the request that sends what it likes. At its end the server asserts that nothing was
    leaked on its loop: no connection in use, no waiting request, no task, and no thread beyond those before.
    """

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests: list[Request] = []
        self.connections: list[Connection] = []
        self.failures: list[BaseException] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def accepted(self):
        return len(self.connections)

    async def __aenter__(self):
        self._threads = threading.active_count()
        self._before = asyncio.all_tasks()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind, error, trace):
        try:
            if error is None:
                self._assert_nothing_leaked()
        finally:
            await self._close()
        if error is None:
            assert not self.failures, self.failures

    async def _close(self):
        self._server.close()
        for connection in self.connections:
            connection.writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _assert_nothing_leaked(self):
        for host in wire.statistics():
            assert host.open == host.idle, f"a connection is still in use: {host}"
            assert host.waiting == 0, f"a request still waits: {host}"
        left = {
            task
            for task in asyncio.all_tasks() - self._before - {asyncio.current_task()}
            if task.get_coro().__qualname__
            != "Server._serve"  # of this server, or of another in the same test
        }
        assert not left, f"tasks were left behind: {left}"
        # Executors of loops and the loop behind `run_sync` stay for the process.
        new = [thread.name for thread in threading.enumerate()[self._threads :]]
        kept = [name for name in new if not name.startswith(("asyncio_", "uvloop_", "gossamer"))]
        assert not kept, f"threads were left behind: {kept}"

    async def _serve(self, reader, writer):
        self._tasks.append(asyncio.current_task())
        connection = Connection(reader, writer)
        self.connections.append(connection)
        try:
            while (request := await connection.request()) is not None:
                self.requests.append(request)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if callable(answer):
                    await answer(connection, request)
                del request  # it may be large, and the next one long in coming
                if callable(answer):
                    continue
                pieces = answer if isinstance(answer, list) else [answer]
                await connection.send(*pieces)
                if isinstance(pieces[-1], Close):
                    break
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self.failures.append(error)
        finally:
            connection.gone.set()
            writer.close()


# --- answers ------------------------------------------------------------------------------------------------

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def http(body, status=200, *headers, kind="application/json"):
    """A whole answer with a length."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = "".join(f"{line}\r\n" for line in headers)
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{lines}\r\n"
    return head.encode() + data


def completion(text=None, *, finish="stop", usage=None, model="gpt-test-2025", **message):
    """A chat completion that is not streamed."""
    said = {"role": "assistant", "content": text, **message}
    body = {"id": "c", "object": "chat.completion", "model": model}
    body["choices"] = [{"index": 0, "message": said, "finish_reason": finish}]
    if usage is not None:
        body["usage"] = usage
    return http(body)


def frame(delta=None, *, finish=None, **more):
    """One event of a stream."""
    body = {"id": "c", "object": "chat.completion.chunk", "model": "gpt-test-2025", "choices": [], **more}
    if delta is not None or finish is not None:
        body["choices"] = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def say(*words, finish="stop"):
    """The events of an answer of text."""
    return [frame({"content": word}) for word in words] + [frame({}, finish=finish), DONE]


def chunk(data):
    """Bytes as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream(*frames):
    """A whole streamed answer in one packet."""
    return STREAM_HEAD + chunk(b"".join(frames)) + LAST_CHUNK


def packets(*frames):
    """A whole streamed answer, every event in a packet of its own."""
    return [STREAM_HEAD, *(chunk(event) for event in frames), LAST_CHUNK]


def call_entry(call_id, name, arguments, **more):
    """One entry of `tool_calls`."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}
