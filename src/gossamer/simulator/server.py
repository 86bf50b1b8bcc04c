"""The simulator: a model provider that listens on a port."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Sequence
from typing import Self

from gossamer.errors import ArgumentError
from gossamer.simulator.connection import Connection
from gossamer.simulator.faults import RATE_FAULTS, FaultDice, RateFault
from gossamer.simulator.script import Script
from gossamer.simulator.service import Service
from gossamer.simulator.stats import SimulatorStats
from gossamer.simulator.wheel import TimerWheel

__all__ = ["Simulator"]

_BACKLOG = 4096


class Simulator:
    """A server that speaks the wire formats of model providers, for tests and load tests that cost nothing.

    It speaks OpenAI's Chat Completions and Responses, Anthropic's Messages, Gemini and Ollama, and the embeddings of
    OpenAI, Azure, Gemini and Ollama: the path tells which. `/stats` counts, for programs as JSON and for browsers as
    a page.

    Use it as `async with Simulator() as simulator:` and give `simulator.url` to a client as its base URL; what comes
    before a format's own path does not matter, so the same URL, or the same without `/v1`, does for each. It answers what its script says, else as `default_reply` describes. It runs on the loop that opened it and may be
    opened again after it was closed.

    Args:
        host: to listen on.
        port: to listen on; 0 takes a free one.
        latency: seconds before the first byte of an answer.
        tps: tokens, that is chunks, a second in each answer; 0 for as fast as possible. An answer that is not
            streamed comes after the time that it would have streamed.
        chunks: repeat or cut the echo that is the default answer to this many tokens.
        error_rate: share of requests to the model that fail, from 0 to 1.
        faults: what they fail with, each equally often.
        script: what to answer: a `Script` or the path of its file.
        seed: of the faults; the same requests in the same order then fail in the same way.
        certificate: path of a PEM certificate; with `key`, the server speaks TLS.
        key: path of the certificate's private key.

    Raises:
        ArgumentError: an argument is out of range, or the script, certificate or key cannot be read.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        latency: float = 0.0,
        tps: float = 0.0,
        chunks: int | None = None,
        error_rate: float = 0.0,
        faults: Sequence[RateFault] = RATE_FAULTS,
        script: Script | str | os.PathLike[str] | None = None,
        seed: int = 0,
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
    ) -> None:
        for name, value in (("latency", latency), ("tps", tps)):
            if not 0 <= value < float("inf"):
                raise ArgumentError(f"{name} is {value!r}; give 0 or more")
        if chunks is not None and chunks < 1:
            raise ArgumentError(f"chunks is {chunks!r}; give at least 1, or None")
        if not 0 <= port <= 65535:
            raise ArgumentError(f"port is {port!r}; give 0 to 65535")
        self._host = host
        self._port = port
        self._tls = _tls(certificate, key)
        self._service = Service(
            script=script if script is None or isinstance(script, Script) else Script.load(script),
            dice=FaultDice(error_rate, faults, seed),
            latency=latency,
            tps=tps,
            chunks=chunks,
        )
        self._server: asyncio.Server | None = None
        self._wheel: TimerWheel | None = None
        self._connections: set[Connection] = set()

    @property
    def stats(self) -> SimulatorStats:
        """What the simulator did so far; live."""
        return self._service.stats

    @property
    def port(self) -> int:
        """The port it listens on, or was told to."""
        return self._port if self._server is None else self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """The base URL for clients, for example `http://127.0.0.1:8000/v1`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self._tls is None else 'https'}://{host}:{self.port}/v1"

    async def __aenter__(self) -> Self:
        if self._server is not None:
            raise ArgumentError(f"this simulator is open already, at {self.url}; make another one")
        loop = asyncio.get_running_loop()
        wheel = self._wheel = TimerWheel(loop)
        service, connections = self._service, self._connections
        factory: Callable[[], Connection] = lambda: Connection(service, wheel, connections)  # noqa: E731 - typed
        try:
            self._server = await loop.create_server(
                factory, self._host, self._port, backlog=_BACKLOG, ssl=self._tls
            )
        except OSError as error:
            raise ArgumentError(
                f"cannot listen on {self._host}:{self._port}: {error.strerror or error}; "
                "choose another port, or 0 for a free one"
            ) from error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        server, wheel = self._server, self._wheel
        if server is None or wheel is None:
            return
        server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        await server.wait_closed()
        # The transports report their end in the next turns of the loop.
        while self._connections:  # noqa: ASYNC110 - they are gone after one turn; an event would outlive its use
            await asyncio.sleep(0)
        wheel.close()
        self._server = self._wheel = None


def _tls(
    certificate: str | os.PathLike[str] | None, key: str | os.PathLike[str] | None
) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ArgumentError("TLS needs both a certificate and its key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ArgumentError(
            f"cannot use certificate {os.fspath(certificate)!r} with key {os.fspath(key)!r}: {error}"
        ) from error
    return context
