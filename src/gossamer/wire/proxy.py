"""HTTP proxies: which one a URL goes through, and the CONNECT tunnel."""

from __future__ import annotations

import asyncio
import base64
import os
from urllib.parse import unquote_to_bytes

import msgspec

from gossamer.errors import ConnectError
from gossamer.wire.url import URL, parse_url

__all__ = ["Proxy", "choose_proxy", "open_tunnel"]

_HEAD_LIMIT = 16 * 1024


class Proxy(msgspec.Struct, frozen=True):
    """A proxy to go through.

    Attributes:
        scheme: `http` or `https`: how the proxy itself is spoken to.
        host: its host.
        port: its port.
        authorization: the value of `Proxy-Authorization`, or None.
    """

    scheme: str
    host: str
    port: int
    authorization: str | None = None

    def __repr__(self) -> str:
        # The authorization stays out of logs.
        return f"Proxy({self.scheme}://{self.host}:{self.port})"


def choose_proxy(url: URL, proxy: str | None) -> Proxy | None:
    """Decide which proxy requests to `url` go through.

    Args:
        url: where the requests go.
        proxy: the proxy's URL; `""` for none; None to ask the environment: HTTPS_PROXY or HTTP_PROXY, then
            ALL_PROXY, in either case of letters, unless NO_PROXY names the host. Loopback addresses never
            use a proxy of the environment.

    Returns:
        The proxy, or None to connect directly.

    Raises:
        ArgumentError: the proxy's URL is not an `http` or `https` URL.
    """
    if proxy is None:
        proxy = _proxy_of_environment(url)
        name = "the proxy in the environment"
    else:
        name = "proxy"
    if not proxy:
        return None
    parsed = parse_url(proxy if "://" in proxy else f"http://{proxy}", name=name)
    authorization = None
    if parsed.userinfo:
        user, _, password = parsed.userinfo.partition(":")
        credentials = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
        authorization = "Basic " + base64.b64encode(credentials).decode("ascii")
    return Proxy(parsed.scheme, parsed.host, parsed.port, authorization)


async def open_tunnel(transport: asyncio.Transport, host: str, port: int, proxy: Proxy) -> None:
    """Ask the proxy at the other end of `transport` for a tunnel to `host`; then the transport is the tunnel.

    Args:
        transport: a fresh connection to the proxy.
        host: the host at the far end.
        port: its port.
        proxy: the proxy, for its credentials and the messages.

    Raises:
        ConnectError: the proxy refused, or answered with something else than HTTP.
    """
    asked = _TunnelReply(asyncio.get_running_loop().create_future())
    transport.set_protocol(asked)
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
    if proxy.authorization is not None:
        head += f"Proxy-Authorization: {proxy.authorization}\r\n"
    transport.write(head.encode("ascii") + b"\r\n")
    where = f"the proxy {proxy.host}:{proxy.port}"
    reply = await asked.head
    line = reply.partition(b"\r\n")[0]
    parts = line.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        raise ConnectError(f"{where} answered CONNECT with {line[:80]!r}; is it an HTTP proxy?")
    if parts[1] == b"407":
        raise ConnectError(f"{where} asks for credentials; give them as http://user:password@host:port")
    if not parts[1].startswith(b"2"):
        raise ConnectError(f"{where} refused a tunnel to {authority}: {line[9:120].decode('latin-1')}")
    if not reply.endswith(b"\r\n\r\n"):
        raise ConnectError(f"{where} sent bytes before the TLS handshake with {authority} began")


class _TunnelReply(asyncio.Protocol):
    """Collects the proxy's answer to CONNECT."""

    def __init__(self, head: asyncio.Future[bytes]) -> None:
        self.head = head
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self.head.done():
            return
        if b"\r\n\r\n" in self._received:
            self.head.set_result(bytes(self._received))
        elif len(self._received) > _HEAD_LIMIT:
            self.head.set_exception(
                ConnectError(f"the proxy's answer to CONNECT is longer than {_HEAD_LIMIT} bytes")
            )

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio passes it
        if not self.head.done():
            self.head.set_exception(
                ConnectError("the proxy closed the connection before it answered CONNECT")
            )


def _proxy_of_environment(url: URL) -> str:
    names = ["https_proxy", "HTTPS_PROXY"] if url.scheme == "https" else ["http_proxy"]
    # A CGI server puts the request header `Proxy:` into HTTP_PROXY, where a stranger could set it.
    if url.scheme == "http" and "REQUEST_METHOD" not in os.environ:
        names.append("HTTP_PROXY")
    for name in (*names, "all_proxy", "ALL_PROXY"):
        if value := os.environ.get(name, "").strip():
            excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
            return "" if _is_excepted(url.host, url.port, excepted) else value
    return ""


def _is_excepted(host: str, port: int, excepted: str) -> bool:
    # Loaded only where the environment names a proxy.
    from ipaddress import ip_address, ip_network

    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for entry in excepted.lower().replace(",", " ").split():
        if entry == "*":
            return True
        name, colon, entry_port = entry.rpartition(":")
        if colon and entry_port.isdigit() and (name.endswith("]") or ":" not in name):
            if int(entry_port) != port:
                continue
        else:
            name = entry
        name = name.strip("[]")
        if address is None:
            name = name.lstrip("*.")
            if host == name or host.endswith("." + name):
                return True
            continue
        try:
            if address in ip_network(name, strict=False):
                return True
        except ValueError:
            continue
    return False
