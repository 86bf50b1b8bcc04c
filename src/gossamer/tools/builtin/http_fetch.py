"""`http_fetch`: pages of the web as text, and no way into the network of the machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Sequence
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from time import monotonic
from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import urljoin

import msgspec

from gossamer.errors import (
    AddressRefusedError,
    ArgumentError,
    ConnectError,
    ReadTimeoutError,
    ServiceError,
)
from gossamer.tools.builtin.fetching import USER_AGENT
from gossamer.tools.builtin.page_text import check_library, decode_text, read_page
from gossamer.tools.function import tool
from gossamer.tools.threads import run_in_thread
from gossamer.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from gossamer.wire import Stream, Timeouts
    from gossamer.wire.url import URL

__all__ = ["Page", "http_fetch"]

_MAX_URL_CHARS = 8_000
_MAX_CONNECTIONS = 8  # to one host
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WEB_PORTS = frozenset({80, 443})
_FIRST_FREE_PORT = 1024
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_TEXT = frozenset(
    {
        "application/ecmascript",
        "application/javascript",
        "application/json",
        "application/toml",
        "application/x-javascript",
        "application/x-ndjson",
        "application/x-sh",
        "application/x-yaml",
        "application/xml",
        "application/yaml",
    }
)
_ACCEPT = "text/html,application/xhtml+xml,text/plain,application/json;q=0.9,*/*;q=0.5"


class Page(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found at a URL.

    Attributes:
        status: the HTTP status; an error of the server has a page, too.
        url: where it was found in the end, behind all redirects.
        text: what it says: Markdown for HTML, other text as it is.
        title: of an HTML page.
        content_type: as the server has it, without parameters.
        note: what is missing of it, and why.
    """

    status: int
    url: str
    text: str
    title: str = ""
    content_type: str = ""
    note: str = ""


def http_fetch(
    *,
    allow_private: bool | Sequence[str] = False,
    ports: Sequence[int] = (),
    max_bytes: int = 2_000_000,
    max_chars: int = 200_000,
    max_redirects: int = 5,
    timeout: float = 30.0,
    proxy: str = "",
    user_agent: str = USER_AGENT,
) -> Toolkit:
    """Give the tool `fetch`, which gets a page of the web by GET and gives its text.

    A model chooses the URL, perhaps one that a page told it, so only public addresses are connected to (see
    `gossamer.wire.is_public_address`). Each address is checked behind the name look-up and right before the
    connection, for every redirect anew. URLs with a user or password are refused, and ports other than 80, 443 and
    those from 1024 on. Nothing of the environment is used, no cookie is kept and no key is sent. HTML of more than
    100,000 characters is read in a process of its own, as a page can be made to take minutes and no thread be stopped.

    Args:
        allow_private: True allows every address; a list of networks, such as `["10.1.0.0/16"]`, those beside the
            public ones.
        ports: further ports below 1024 to allow.
        max_bytes: the most bytes of a page, after decompression; what lies beyond is left out.
        max_chars: the most characters of the text; what lies beyond is left out.
        max_redirects: the most redirects to follow.
        timeout: seconds for all of it: redirects, body, and making text of it.
        proxy: the URL of an HTTP proxy to send everything through. It then resolves the names, so it must refuse
            private addresses itself; here only addresses that stand in URLs are still checked.
        user_agent: what servers are told of who asks.

    Raises:
        ArgumentError: an argument cannot be used; the message names it.
        ToolkitError: the library that reads HTML is missing.
    """
    check_library()
    bounds = {"max_bytes": (max_bytes, 1), "max_chars": (max_chars, 1), "max_redirects": (max_redirects, 0)}
    for name, (value, least) in bounds.items():
        if type(value) is not int or value < least:
            raise ArgumentError(f"{name} is {value!r}; give a whole number, {least} or more")
    from gossamer.wire import Endpoint, Timeouts  # with what speaks HTTP, which other toolkits do not need

    rules = _Rules(
        allow_address=_rule(allow_private),
        ports=_ports(ports),
        max_bytes=max_bytes,
        max_chars=max_chars,
        max_redirects=max_redirects,
        timeout=timeout,
        # One clock for all of it, in `_fetch`; these only must not come before.
        timeouts=Timeouts(connect=10.0, read=2 * timeout, pool=2 * timeout),
        proxy=proxy,
        headers={"User-Agent": user_agent, "Accept": _ACCEPT, "Accept-Encoding": "gzip, deflate"},
    )
    Endpoint("http://localhost", headers=rules.headers, proxy=proxy)  # tells what is wrong with either

    @tool(timeout=None, idempotent=True)
    async def fetch(url: Annotated[str, msgspec.Meta(max_length=_MAX_URL_CHARS)]) -> Page:
        """Get a page of the web by GET and give its status, title and text.

        Args:
            url: begins with http:// or https://.
        """
        return await _fetch(url, rules)

    return Toolkit(
        "http_fetch", [fetch], description="Get pages of the web by their URL and read their text."
    )


# --- rules ----------------------------------------------------------------------------------------------------


class _Rules(msgspec.Struct, frozen=True):
    allow_address: Callable[[str], bool] | None
    ports: frozenset[int]
    max_bytes: int
    max_chars: int
    max_redirects: int
    timeout: float
    timeouts: Timeouts
    proxy: str
    headers: dict[str, str]


class _AlsoPrivate(msgspec.Struct, frozen=True):
    """Allows public addresses and those of some networks. Equal ones are one rule and share connections."""

    networks: tuple[IPv4Network | IPv6Network, ...]

    def __call__(self, address: str) -> bool:
        from gossamer.wire import is_public_address

        if is_public_address(address):
            return True
        number = ip_address(address)
        return any(number in network for network in self.networks)


def _rule(allow_private: bool | Sequence[str]) -> Callable[[str], bool] | None:
    from gossamer.wire import is_public_address

    if isinstance(allow_private, bool):
        return None if allow_private else is_public_address
    # A number alone would be taken for an address.
    if not _is_sequence_of(str, allow_private):
        raise ArgumentError(f"allow_private is {allow_private!r}; give True, False or a list of networks")
    try:
        return _AlsoPrivate(tuple(ip_network(network) for network in allow_private))
    except ValueError as error:
        raise ArgumentError(f"allow_private: {error}; write a network as in 10.1.0.0/16") from None


def _ports(ports: Sequence[int]) -> frozenset[int]:
    if not _is_sequence_of(int, ports) or not all(0 < port < 65_536 for port in ports):
        raise ArgumentError(f"ports is {ports!r}; give a list of whole numbers from 1 to 65,535")
    return frozenset(ports)


def _is_sequence_of(kind: type, value: object) -> bool:
    if isinstance(value, str | bytes) or not isinstance(value, Collection):
        return False
    return all(type(one) is kind for one in cast("Collection[object]", value))


def _check(url: str, rules: _Rules) -> URL:
    """Refuse what is not to be fetched, as far as the URL alone tells."""
    from gossamer.wire.url import parse_url

    parsed = parse_url(url)
    if parsed.userinfo:
        raise ArgumentError("the URL holds a user or password, and pages that need one are not fetched")
    if parsed.port < _FIRST_FREE_PORT and parsed.port not in _WEB_PORTS | rules.ports:
        raise ArgumentError(f"port {parsed.port} is not one of the web; 80, 443 and those from 1024 on are")
    if rules.proxy and rules.allow_address is not None:
        address = _written_address(parsed.host)
        if address is not None and not rules.allow_address(address):
            raise AddressRefusedError(f"{address} may not be connected to")
    return parsed


def _written_address(host: str) -> str | None:
    """Give the address that a host is, however it is spelled: `127.1` and `0x7f000001` are, too."""
    if ":" in host:
        return host
    try:
        return socket.inet_ntoa(
            socket.inet_aton(host.rstrip("."))
        )  # a dot at the end changes nothing of a name
    except OSError:
        return None


# --- the tool's work ------------------------------------------------------------------------------------------


async def _fetch(url: str, rules: _Rules) -> Page:
    try:
        async with asyncio.timeout(rules.timeout):
            return await _follow(url, rules)
    except TimeoutError:
        raise ReadTimeoutError(f"the page was not there and read within {rules.timeout:g} s") from None


async def _follow(url: str, rules: _Rules) -> Page:
    deadline = monotonic() + rules.timeout
    for hop in range(rules.max_redirects + 1):
        try:
            stream = await _send(url, rules)
        except (ArgumentError, ConnectError) as error:
            if not hop:
                raise
            raise type(error)(f"the URL redirects to where it cannot be followed: {error}") from error
        location = stream.headers.get("location") if stream.status in _REDIRECTS else None
        if location is None:
            return await _read(stream, url, rules, deadline)
        stream.close()
        # Servers send UTF-8 here, and spaces, though neither may stand in a header.
        location = location.encode("latin-1").decode("utf-8", "replace").strip().replace(" ", "%20")
        try:
            url = urljoin(url, location)
        except ValueError as error:
            raise ServiceError(f"the server redirects to {location!r}, which is no URL: {error}") from None
    raise ServiceError(f"the URL redirects more than {rules.max_redirects} times, and no page was found")


async def _send(url: str, rules: _Rules) -> Stream:
    _check(url, rules)
    from gossamer.wire import Endpoint

    endpoint = Endpoint(
        url,
        headers=rules.headers,
        timeouts=rules.timeouts,
        max_connections=_MAX_CONNECTIONS,
        proxy=rules.proxy,
        allow_address=None if rules.proxy else rules.allow_address,
    )
    return await endpoint.send(method="GET")


async def _read(stream: Stream, url: str, rules: _Rules, deadline: float) -> Page:
    content_type, charset = _content_type(stream.headers.get("content-type") or "")
    if content_type and not _is_readable(content_type):
        size = stream.headers.get("content-length")
        stream.close()
        return _unreadable(stream.status, url, content_type, f", {size} bytes" if size else "")
    pieces: list[bytes] = []
    left = rules.max_bytes
    while left >= 0 and (piece := await stream.read()):
        pieces.append(piece[:left])
        left -= len(piece)
    is_cut = left < 0
    stream.close()
    body = b"".join(pieces)
    make = partial(_page, stream.status, url, content_type, charset, body, is_cut, rules, deadline)
    return await run_in_thread(make)


def _page(
    status: int,
    url: str,
    content_type: str,
    charset: str,
    data: bytes,
    is_cut: bool,
    rules: _Rules,
    deadline: float,
) -> Page:
    """Make text of a body; in a thread, as a page may be made to take long."""
    text = decode_text(data, charset)
    if "\0" in text:
        return _unreadable(status, url, content_type or "unknown", "")
    title, length = "", len(text)
    if content_type in _HTML or (not content_type and _looks_like_html(text)):
        seconds = max(0.0, deadline - monotonic())
        title, text, length = read_page(text, url, rules.max_chars, seconds)
    notes = [f"The page is larger than {rules.max_bytes:,} bytes; the rest is missing."] if is_cut else []
    if length > rules.max_chars:
        notes.append(f"The text has {length:,} characters; those behind {rules.max_chars:,} are missing.")
    return Page(status, url, text[: rules.max_chars], title, content_type, " ".join(notes))


def _content_type(header: str) -> tuple[str, str]:
    """Split the header into type, in lower case, and charset."""
    kind, *parameters = header.partition(",")[0].split(";")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return kind.strip().lower(), value.strip()
    return kind.strip().lower(), ""


def _is_readable(content_type: str) -> bool:
    return (
        content_type in _HTML
        or content_type in _TEXT
        or content_type.startswith("text/")
        or content_type.endswith(("+json", "+xml", "+yaml"))
    )


def _looks_like_html(text: str) -> bool:
    start = text[:1_000].lstrip("\ufeff \t\r\n").lower()
    return start.startswith(("<!doctype html", "<html", "<head", "<body"))


def _unreadable(status: int, url: str, content_type: str, size: str) -> Page:
    note = f"There is no text to read: the content is of type {content_type}{size}."
    return Page(status, url, "", content_type=content_type, note=note)
