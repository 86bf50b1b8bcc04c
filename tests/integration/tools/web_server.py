"""A web server for the tests of toolkits: it answers byte for byte what a test tells it to."""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from gossamer import wire

STALL = object()
"""In a list of pieces: send nothing more until the client has gone."""


@dataclass
class Request:
    """One request, as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self):
        return urlsplit(self.target).path

    @property
    def query(self):
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


class WebServer:
    """`async with WebServer({"/path": answer, …}) as server`: a whole answer, pieces of one, or a function of the request.

    A path that is not there is answered with 404. Pieces are sent in packets of their own; where they end without a
    length the connection is closed. At its end the server asserts that no connection is left in use.
    """

    def __init__(self, answers=None, *, host="127.0.0.1", port=0):
        self.answers = answers if answers is not None else {}
        self.host = host
        self.port = port
        self.requests: list[Request] = []
        self.failures: list[BaseException] = []
        self.accepted = 0
        self._tasks: set[asyncio.Task] = set()

    @property
    def url(self):
        return f"http://{self.host}:{self.port}"

    @property
    def targets(self):
        return [request.target for request in self.requests]

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind, error, trace):
        left = [host for host in wire.statistics() if host.open != host.idle or host.waiting]
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        if error is None:
            assert not left, f"connections are still in use: {left}"
            assert not self.failures, self.failures

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.accepted += 1
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                answer = self.answers.get(request.path, NOT_FOUND)
                if callable(answer):
                    answer = answer(request)
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                    continue
                for piece in answer:
                    if piece is STALL:
                        await reader.read()
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                return
        except ConnectionError:
            pass  # the client has read enough
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self.failures.append(error)
        finally:
            writer.transport.abort() if writer.transport.is_closing() else writer.close()


async def _read(reader):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    except asyncio.IncompleteReadError:
        return None
    method, target, _ = first.split(" ")
    return Request(method, target, headers, body)


# --- answers ------------------------------------------------------------------------------------------------


def http(body="", status=200, *headers, kind=None):
    """A whole answer with a length. The kind is that of the body where none is given; `""` for none."""
    if isinstance(body, bytes):
        data = body
    else:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    if kind is None:
        kind = "text/html; charset=utf-8" if isinstance(body, str) else "application/json"
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(data)}", *headers]
    if kind:
        lines.append(f"Content-Type: {kind}")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode() + data


def packed(body, *headers, kind=None):
    """A whole answer in gzip."""
    data = body.encode() if isinstance(body, str) else body
    kind = kind or "text/html; charset=utf-8"
    return http(gzip.compress(data), 200, "Content-Encoding: gzip", *headers, kind=kind)


def redirect(location, status=302):
    """An answer that points elsewhere."""
    return http("<p>moved", status, f"Location: {location}")


def cut_off(answer):
    """The first half of an answer, behind which the connection is closed."""
    return [answer[: len(answer) // 2]]


NOT_FOUND = http("<h1>Not found</h1>", 404)
