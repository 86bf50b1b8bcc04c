"""Calls whose runs have paused are kept for a while, and not without end."""

from __future__ import annotations

import asyncio

import pytest

from gossamer.tools.mcp import parked
from gossamer.tools.mcp.calls import Ongoing
from gossamer.tools.mcp.parked import Parked


def waiting() -> Ongoing:
    ongoing = Ongoing(None, "run", 60)
    ongoing.start(asyncio.sleep(3600), "a call")
    return ongoing


async def test_a_call_is_given_back_once():
    kept, one = Parked(60), waiting()
    kept.put("a", one)
    assert "a" in kept
    assert kept.take("a") is one
    assert "a" not in kept
    assert kept.take("a") is None
    assert not one.task.cancelling()
    one.cancel()


async def test_beyond_the_bound_the_oldest_is_given_up(monkeypatch):
    monkeypatch.setattr(parked, "MAX_PARKED", 2)
    kept, calls = Parked(60), [waiting() for _ in range(3)]
    for name, one in zip("abc", calls, strict=True):
        kept.put(name, one)
    assert [name in kept for name in "abc"] == [False, True, True]
    with pytest.raises(asyncio.CancelledError):
        await calls[0].task
    kept.clear()
    await asyncio.wait([one.task for one in calls])
    assert all(one.task.cancelled() for one in calls)


async def test_a_call_whose_run_does_not_come_back_is_given_up():
    kept, one = Parked(0.01), waiting()
    kept.put("a", one)
    with pytest.raises(asyncio.CancelledError):
        await one.task
    assert "a" not in kept
