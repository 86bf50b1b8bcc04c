"""What a connection to an MCP server needs to know, apart from the toolkit that it belongs to."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["EXPIRED", "UNREACHED", "NotSentError", "Settings", "address_of"]

# What a call is told that a server refused because it had forgotten the session: it did not begin, and may be sent again.
EXPIRED = "the server does not know the session any more"

# How a call is told that it did not reach the server.
UNREACHED = "it cannot be reached"


class NotSentError(Exception):
    """A request did not leave: the server had ended before."""


class Settings(msgspec.Struct, frozen=True, eq=False):
    """How to reach an MCP server and how much to take from it; see `MCPServer` for what each means.

    A value of its own, so that an open connection holds no reference to the toolkit: it is closed when nobody has
    that any more.
    """

    name: str
    command: tuple[str, ...]
    env: dict[str, str] | None
    cwd: str | None
    url: str
    headers: dict[str, str] | None
    auth: Any
    timeout: float | None
    connect_timeout: float
    max_concurrent: int
    max_waiting: int
    max_message_bytes: int
    max_result_chars: int
    elicitation: bool
    answer_timeout: float
    take_instructions: bool

    @property
    def address(self) -> str:
        """The program or the URL, without anything that may be secret."""
        return self.command[0] if self.command else address_of(self.url)


def address_of(url: str) -> str:
    """Give a URL without what may be secret in it: user and password, query and fragment."""
    scheme, _, rest = url.partition("://")
    for mark in "?#":
        rest = rest.partition(mark)[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
