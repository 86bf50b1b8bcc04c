"""URLs as the wire needs them: scheme, ASCII host, port and an encoded request target."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

import msgspec

from gossamer.errors import ArgumentError

__all__ = ["URL", "encode_target", "parse_url"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_HOST = re.compile(r"[a-z0-9._~-]+")
_PATH_SAFE = "/%:@!$&'()*+,;=-._~[]"
_QUERY_SAFE = _PATH_SAFE + "?"


class URL(msgspec.Struct, frozen=True):
    """One parsed URL.

    Attributes:
        scheme: `http` or `https`.
        host: lower case, ASCII (IDNA), an IPv6 address without its brackets.
        port: the port, the scheme's own where the URL names none.
        path: percent-encoded, always begins with `/`.
        query: percent-encoded, without the `?`; empty where there is none.
        userinfo: what stood before `@`, still encoded; empty where nothing did.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str
    userinfo: str = ""

    @property
    def authority(self) -> str:
        """The host and, where it is not the scheme's own, the port: the value of a `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority, for people to read."""
        return f"{self.scheme}://{self.authority}"


def parse_url(text: str, *, name: str = "url") -> URL:
    """Parse an absolute `http` or `https` URL.

    Args:
        text: the URL; its fragment is ignored.
        name: what the error messages call it.

    Returns:
        The parsed URL.

    Raises:
        ArgumentError: it is no such URL. The message never repeats a password.
    """
    shown = re.sub(r"//[^/@]*@", "//…@", text)
    if _FORBIDDEN.search(text):
        raise ArgumentError(f"{name} {shown!r} holds a space, a backslash or a control character; encode it")
    try:
        parts = urlsplit(text)
        port = parts.port
        raw_host = parts.hostname or ""
    except ValueError as error:
        raise ArgumentError(f"{name} {shown!r} is not a URL: {error}") from None
    scheme = parts.scheme
    if scheme not in _DEFAULT_PORTS:
        raise ArgumentError(f"{name} {shown!r} must begin with http:// or https://")
    if port is None:
        port = _DEFAULT_PORTS[scheme]
    elif port == 0:
        raise ArgumentError(f"{name} {shown!r} has port 0; give one from 1 to 65535")
    return URL(
        scheme=scheme,
        host=_ascii_host(raw_host, name, shown),
        port=port,
        path=quote(parts.path, safe=_PATH_SAFE) or "/",
        query=quote(parts.query, safe=_QUERY_SAFE),
        userinfo=parts.netloc.rpartition("@")[0],
    )


def encode_target(url: URL, path: str | None) -> str:
    """Make the request target of `url`, with `path` put behind the URL's own.

    Args:
        url: the base; its query is kept.
        path: for example `/models?limit=5`; None stands for nothing more.

    Returns:
        An encoded target such as `/v1/models?limit=5`.

    Raises:
        ArgumentError: the path holds spaces, line breaks or other control characters.
    """
    target, query = url.path, url.query
    if path:
        if _FORBIDDEN.search(path):
            raise ArgumentError(f"path {path!r} holds a space, a backslash or a control character; encode it")
        more, _, more_query = path.partition("#")[0].partition("?")
        target = f"{target.rstrip('/')}/{quote(more, safe=_PATH_SAFE).lstrip('/')}" if more else target
        query = "&".join(filter(None, (query, quote(more_query, safe=_QUERY_SAFE))))
    return f"{target}?{query}" if query else target


def _ascii_host(host: str, name: str, shown: str) -> str:
    if not host:
        raise ArgumentError(f"{name} {shown!r} names no host")
    if ":" in host:
        from ipaddress import IPv6Address

        try:
            IPv6Address(host.partition("%")[0])
        except ValueError:
            raise ArgumentError(f"{name} {shown!r} has a bad IPv6 address") from None
        return host
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii").lower()
        except UnicodeError as error:
            raise ArgumentError(f"{name} {shown!r} has a host name that IDNA refuses: {error}") from None
    if not _HOST.fullmatch(host):
        raise ArgumentError(f"{name} {shown!r} has a host name with characters that no host name has")
    return host
