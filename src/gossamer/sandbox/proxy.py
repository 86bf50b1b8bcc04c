"""The way out of a sandbox: an HTTP proxy that leads to the hosts of an allow-list and nowhere else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gossamer.errors import ArgumentError, SandboxUnavailableError
from gossamer.sandbox.allow_list import AllowList

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

__all__ = ["AllowListProxy"]

_PAUSE = 0.5


class AllowListProxy:
    """An HTTP proxy for one sandbox: tunnels by `CONNECT`, and plain `http://` requests, one a connection.

    The names of hosts are resolved here, and what is connected to is the address that was checked: one on the public
    internet, or one that stands in the list itself. What a request says in its `Host` header is put right. What is inside
    of a tunnel cannot be seen: a host that serves others too, as a content delivery network does, leads to these.

    Building the first one loads h11 and the wire, some 50 ms; later ones do no work. `serve` starts it in
    the running event loop, `aclose` ends it and all that goes through it.

    Args:
        hosts: see `AllowList`.
        max_connections: how many may be open at once; further ones wait until one is closed.
        max_bytes: how much may go through it in both directions, all connections together; then they are cut off, and
            further ones refused with 403.
        timeout: seconds that the head of a request may take, that connecting may take, and that a connection may be silent.

    Raises:
        ArgumentError: a host cannot be allowed, or a number is not above 0.
        SandboxUnavailableError: the library that reads requests is not there.
    """

    __slots__ = ("_connecting", "_free", "_listening", "_pause", "_traffic")

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        max_connections: int = 16,
        max_bytes: int = 256 * 1024 * 1024,
        timeout: float = 30.0,
    ) -> None:
        for name, value in (
            ("max_connections", max_connections),
            ("max_bytes", max_bytes),
            ("timeout", timeout),
        ):
            if not value > 0:
                raise ArgumentError(f"{name} must be a number above 0, not {value!r}")
        allowed = AllowList(hosts)
        try:
            from gossamer.sandbox.proxied import Traffic
        except ImportError as error:
            raise SandboxUnavailableError(
                f"h11 cannot be imported ({error}), which reads requests; pip install 'gossamer[sandbox]'"
            ) from error
        self._free = max_connections
        self._traffic = Traffic(allowed, max_bytes, timeout, self._one_is_gone)
        self._listening: socket.socket | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None

    def serve(self, listening: socket.socket) -> None:
        """Accept connections in the running event loop, until `aclose`.

        Args:
            listening: a socket that listens, in whichever network namespace; it belongs to the proxy from now on.

        Raises:
            ArgumentError: it serves already.
        """
        if self._listening is not None:
            raise ArgumentError("this proxy serves already; make another one for another sandbox")
        listening.setblocking(False)
        self._listening = listening
        self._listen()

    async def aclose(self) -> None:
        """Close the socket and cut off every connection; when it returns nothing of it is left. Twice is once."""
        listening = self._listening
        if listening is not None and listening.fileno() >= 0:
            if self._pause is not None:
                self._pause.cancel()
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        if self._connecting:
            # Uvloop forgets a connection whose acceptance is cancelled; it only takes a moment.
            await asyncio.wait(self._connecting)
        await self._traffic.cut_off()

    # Sockets are accepted in a callback and not in a task: a task that is cancelled may lose one it has just accepted.

    def _listen(self) -> None:
        self._pause = None
        if self._listening is not None and self._listening.fileno() >= 0 and self._free > 0:
            asyncio.get_running_loop().add_reader(self._listening, self._accept, self._listening)

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            accepted, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor is left
            loop.remove_reader(listening)
            self._pause = loop.call_later(_PAUSE, self._listen)
            return
        accepted.setblocking(False)
        self._free -= 1
        if self._free == 0:
            loop.remove_reader(listening)
        task = loop.create_task(self._connect(accepted))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        client = self._traffic.client()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: client, accepted)
        except OSError:
            accepted.close()
            if client not in self._traffic.open:
                self._one_is_gone()

    def _one_is_gone(self) -> None:
        self._free += 1
        if self._free == 1 and self._pause is None:
            self._listen()
