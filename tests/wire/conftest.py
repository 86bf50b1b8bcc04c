"""Every asynchronous test of the wire runs on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
import sys

import pytest

LOOPS = {"asyncio": asyncio.SelectorEventLoop}
if sys.platform != "win32":
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop


def pytest_asyncio_loop_factories(config, item):
    return LOOPS


@pytest.fixture(params=LOOPS.values(), ids=LOOPS.keys())
def loop_factory(request):
    """For tests that start loops of their own."""
    return request.param


@pytest.fixture(autouse=True)
def no_proxy_in_the_environment(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
