"""The hosts that may be reached from a sandbox: what may stand in such a list, and what is meant by it."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from gossamer.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AllowList", "is_address", "plain_host"]

_USUAL_PORTS = frozenset((80, 443))
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)
# What resolvers take for a number of another form, as in 127.1 or 0x7f000001.
_NUMBER_AT_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


class AllowList:
    """Hosts and ports.

    Args:
        hosts: each a name (`pypi.example`), all names below one but not itself (`*.example.org`), or an address
            (`192.0.2.7`, `[2001:db8::1]`); with a port behind it (`api.example.com:8443`), or for 80 and 443.

    Raises:
        ArgumentError: something is none of these; the message names it.
    """

    __slots__ = ("_hosts", "_written")

    def __init__(self, hosts: Sequence[str]) -> None:
        if isinstance(hosts, str):
            raise ArgumentError(f"hosts must be a list, not {hosts!r}; write [{hosts!r}]")
        self._written = tuple(hosts)
        if not self._written:
            raise ArgumentError("hosts is empty; name what may be reached, or leave the network off")
        self._hosts: dict[str, frozenset[int]] = {}
        for one in self._written:
            host, ports = _parsed(one)
            self._hosts[host] = self._hosts.get(host, frozenset()) | ports

    def allows(self, host: str, port: int) -> bool:
        """Tell whether a host may be reached at a port.

        Args:
            host: as `plain_host` gives it. An address is allowed only where it stands in the list itself.
            port: from 1 to 65535.
        """
        if port in self._hosts.get(host, ()):
            return True
        if is_address(host):
            return False
        labels = host.split(".")
        return any(port in self._hosts.get(".".join(("*", *labels[n:])), ()) for n in range(1, len(labels)))

    def __str__(self) -> str:
        """Give the list as it was written, cut where it is long."""
        shown = ", ".join(self._written[:10])
        return shown if len(self._written) <= 10 else f"{shown} and {len(self._written) - 10} more"


def plain_host(text: str) -> str:
    """Write a host in the one way in which hosts are compared.

    Args:
        text: a name or an address, an IPv6 address with or without its brackets.

    Returns:
        Lower case, ASCII (IDNA), without a dot at the end; an address in its shortest form, without brackets.

    Raises:
        ValueError: it is neither a name nor an address. Numbers that only some resolvers take for an address, as `127.1`,
            are neither.
    """
    try:
        address = IPv6Address(text[1:-1]) if text[:1] + text[-1:] == "[]" else ip_address(text)
    except ValueError:
        pass  # a name, or nothing
    else:
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            raise ValueError(f"{text!r} names a network interface")
        return str(address)
    name = text.lower().removesuffix(".")
    if not name.isascii():
        name = name.encode("idna").decode("ascii")
    if not _NAME.fullmatch(name) or _NUMBER_AT_END.fullmatch(name):
        raise ValueError(f"{text!r} is neither a name nor an address")
    return name


def is_address(host: str) -> bool:
    """Tell whether a host, as `plain_host` gives it, is an address and no name."""
    return ":" in host or _NUMBER_AT_END.fullmatch(host) is not None


def _parsed(entry: str) -> tuple[str, frozenset[int]]:
    try:
        host, ports = _split(entry)
        below = host.startswith("*.")
        plain = plain_host(host.removeprefix("*.")) if below else plain_host(host)
        if below and is_address(plain):
            raise ValueError(f"{host!r} is no name")
    except (ValueError, TypeError, AttributeError) as error:
        raise ArgumentError(
            f"hosts: {entry!r} cannot be allowed; write a name, *.name or an address, and a port behind it where it is "
            "not 80 or 443, without http:// and without a path"
        ) from error
    return f"*.{plain}" if below else plain, ports


def _split(entry: str) -> tuple[str, frozenset[int]]:
    host, colon, port = entry.rpartition(":")
    # A second colon is one of an IPv6 address, which has brackets around it where a port follows.
    if not colon or (":" in host and not host.endswith("]")):
        return entry, _USUAL_PORTS
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError(f"{port!r} is no port")
    return host, frozenset((int(port),))
