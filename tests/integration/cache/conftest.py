"""What the tests of the cache in Redis start."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import pytest
from tests.integration.cache.serving import PEER, Peer, Proxy
from tests.services import redis, redis_server  # noqa: F401 - fixtures


@pytest.fixture
async def proxy(redis):  # noqa: F811 - a fixture
    async with Proxy(redis.port) as one:
        yield one


@pytest.fixture
async def peer(redis):  # noqa: F811 - a fixture
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PEER),
        redis.url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        one = Peer(process)
        assert await one.answer() == "ready"
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        process.stdin.close()
