"""Opening connections: addresses, the race between them, the proxy's tunnel, TLS."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from itertools import chain, zip_longest
from time import monotonic
from typing import TYPE_CHECKING, cast

import msgspec

from gossamer.errors import AddressRefusedError, ConnectError
from gossamer.wire.proxy import Proxy, open_tunnel
from gossamer.wire.tls import tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Resolver", "Route", "dial", "take_early"]

_HEAD_START = 0.25
_ADDRESS_TTL = 30.0
_ADDRESS_LIMIT = 1_000
_TRIED_LIMIT = 8
_EARLY_LIMIT = 64 * 1024


class Route(msgspec.Struct, frozen=True, cache_hash=True):
    """All that decides whether two requests may share a connection.

    Attributes:
        scheme: `http` or `https`.
        host: the server's host.
        port: the server's port.
        name: the origin as people read it.
        proxy: the proxy on the way, or None.
        ca_file: the PEM file of trusted authorities, or None for the system's.
        verify: whether the server's certificate is checked.
        limit: the most connections.
        allow_address: tells whether an address may be connected to, or None where any may.
    """

    scheme: str
    host: str
    port: int
    name: str
    proxy: Proxy | None
    ca_file: str | None
    verify: bool
    limit: int
    allow_address: Callable[[str], bool] | None = None


class Resolver:
    """Host names to addresses, kept for half a minute; callers who ask for one name at once share one look-up.

    Ten thousand runs that start together would otherwise queue ten thousand look-ups for a handful of
    threads.
    """

    __slots__ = ("_known", "_running")

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._running: dict[str, asyncio.Task[list[str]]] = {}

    async def resolve(self, host: str) -> list[str]:
        """Return the addresses of `host` in the order to try them, address families in turn.

        Args:
            host: a name, or an address, which is its own answer.

        Returns:
            At least one and at most eight addresses.

        Raises:
            OSError: the name does not resolve.
        """
        if _is_address(host):
            return [host]
        known = self._known.get(host)
        if known is not None and known[0] > monotonic():
            return known[1]
        task = self._running.get(host)
        if task is None:
            task = self._running[host] = asyncio.get_running_loop().create_task(self._look_up(host))
            task.add_done_callback(_retrieve)
        # One caller's cancellation is no reason to fail the others.
        return await asyncio.shield(task)

    def forget(self, host: str) -> None:
        """Drop what is known of `host`: its addresses did not answer."""
        self._known.pop(host, None)

    async def aclose(self) -> None:
        """Give up what is being looked up, and wait until nothing of it is left; who waits for it is cancelled."""
        running = tuple(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _look_up(self, host: str) -> list[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses = dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found)
            first_family = found[0][0] if found else None
            first = [address for family, address in addresses if family == first_family]
            others = [address for family, address in addresses if family != first_family]
            ordered = [a for a in chain.from_iterable(zip_longest(first, others)) if a is not None]
            if not ordered:
                raise OSError(f"{host} has no address")
            while len(self._known) >= _ADDRESS_LIMIT:
                del self._known[next(iter(self._known))]
            self._known[host] = monotonic() + _ADDRESS_TTL, ordered[:_TRIED_LIMIT]
            return ordered[:_TRIED_LIMIT]
        finally:
            del self._running[host]


async def dial(route: Route, resolver: Resolver, timeout: float) -> asyncio.Transport:  # noqa: ASYNC109 - it is part of every message
    """Open a connection for `route`: TCP, the proxy's tunnel where there is one, TLS where it is asked for.

    Args:
        route: where to.
        resolver: the loop's resolver.
        timeout: seconds for all of it together.

    Returns:
        A transport that has no protocol of its own yet; `take_early` tells what it received meanwhile.

    Raises:
        AddressRefusedError: none of the host's addresses may be connected to.
        ConnectError: it did not come about; the message names the step and what to do.
    """
    proxy = route.proxy
    host, port = (route.host, route.port) if proxy is None else (proxy.host, proxy.port)
    where = route.name if proxy is None else f"{route.name} through the proxy {proxy.host}:{proxy.port}"
    try:
        async with asyncio.timeout(timeout):
            addresses = await resolver.resolve(host)
            if route.allow_address is not None:
                # What is connected to is what was checked: from here on only addresses are used, never the name.
                addresses = _allowed(addresses, host, route.allow_address)
            try:
                transport = await _connect(addresses, port)
            except OSError:
                resolver.forget(host)
                raise
            return await _secure(transport, route)
    except TimeoutError as error:
        raise ConnectError(
            f"no connection to {where} within {timeout:g} s; check the network or raise timeouts.connect"
        ) from error
    except socket.gaierror as error:
        raise ConnectError(f"the name {host!r} does not resolve: {error.strerror}; check the URL") from error
    except ssl.SSLCertVerificationError as error:
        raise ConnectError(
            f"the certificate of {where} is not trusted: {error.verify_message}; "
            "give ca_file= if a private authority signed it"
        ) from error
    except ssl.SSLError as error:
        raise ConnectError(
            f"the TLS handshake with {where} failed: {error.reason or error}; does the port speak TLS?"
        ) from error
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise ConnectError(
                f"no file descriptor left for a connection to {where}; raise `ulimit -n` or lower max_connections"
            ) from error
        raise ConnectError(f"no connection to {where}: {error}; is the server running?") from error


def _allowed(addresses: Sequence[str], host: str, allow: Callable[[str], bool]) -> list[str]:
    """Leave out the addresses that may not be connected to."""
    allowed = [address for address in addresses if allow(address)]
    if not allowed:
        found = ", ".join(addresses)
        if host in addresses:
            raise AddressRefusedError(f"{found} may not be connected to")
        raise AddressRefusedError(f"{host!r} leads to {found}, which may not be connected to")
    return allowed


async def _connect(addresses: Sequence[str], port: int) -> asyncio.Transport:
    """Connect to the first address that answers; each next one starts a quarter of a second later.

    The loop's own happy eyeballs would do, but uvloop has none.
    """
    loop = asyncio.get_running_loop()
    if len(addresses) == 1:
        transport, _ = await loop.create_connection(_Unbound, addresses[0], port)
        return transport
    tasks: set[asyncio.Task[asyncio.Transport]] = set()
    errors: list[OSError] = []
    waiting = iter(addresses)
    try:
        address = next(waiting, None)
        while address is not None or tasks:
            if address is not None:
                tasks.add(loop.create_task(_connect((address,), port)))
            address = next(waiting, None)
            done, _ = await asyncio.wait(
                tasks,
                timeout=None if address is None else _HEAD_START,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                error = task.exception()
                if error is None:
                    tasks.discard(task)
                    return task.result()
                tasks.discard(task)
                if not isinstance(error, OSError):
                    raise error
                errors.append(error)
        raise errors[0]
    finally:
        for task in tasks:
            task.add_done_callback(_hang_up)
            task.cancel()


async def _secure(transport: asyncio.Transport, route: Route) -> asyncio.Transport:
    proxy = route.proxy
    try:
        if proxy is not None and proxy.scheme == "https":
            transport = await _start_tls(transport, proxy.host, route)
        if route.scheme == "https":
            if proxy is not None:
                await open_tunnel(transport, route.host, route.port, proxy)
            transport = await _start_tls(transport, route.host, route)
    except BaseException:
        transport.abort()
        raise
    return transport


async def _start_tls(transport: asyncio.Transport, host: str, route: Route) -> asyncio.Transport:
    context = await tls_context(route.ca_file, verify=route.verify)
    if transport.is_closing():
        # The handshake of a closed transport would never come to an end.
        raise ConnectionResetError(errno.ECONNRESET, f"{host} closed the connection before the TLS handshake")
    if take_early(transport):
        raise ConnectionResetError(errno.EPROTO, f"{host} sent bytes before the TLS handshake")
    secured = await asyncio.get_running_loop().start_tls(transport, _Unbound(), context, server_hostname=host)
    if secured is None:
        raise ConnectionResetError(errno.ECONNRESET, f"{host} closed the connection during the TLS handshake")
    return secured


class _Unbound(asyncio.Protocol):
    """Keeps what a hasty server sends before the connection is in use, such as a refusal at the door."""

    def __init__(self) -> None:
        self.early = b""
        self._transport: asyncio.Transport | None = None

    def data_received(self, data: bytes) -> None:
        self.early += data
        if len(self.early) > _EARLY_LIMIT and self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio passes it
        self._transport = None


def take_early(transport: asyncio.Transport) -> bytes:
    """Return what came over a dialled transport before it got a protocol of its own."""
    protocol = transport.get_protocol()
    return protocol.early if isinstance(protocol, _Unbound) else b""


def _is_address(host: str) -> bool:
    # The URL was checked: a colon is in no name, and an IPv6 address is a good one.
    if ":" in host:
        return True
    try:
        socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return False
    return True


def _retrieve(task: asyncio.Task[list[str]]) -> None:
    # All who waited may be gone; their error is then of no interest to anybody.
    if not task.cancelled():
        task.exception()


def _hang_up(task: asyncio.Task[asyncio.Transport]) -> None:
    # Connected after all, but the race was won by another.
    if not task.cancelled() and task.exception() is None:
        task.result().abort()
