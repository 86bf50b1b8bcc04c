"""Who waits for a place of a sandbox comes in in order, and not for ever."""

import asyncio

import pytest

from gossamer.errors import SandboxBusyError, SandboxClosedError
from gossamer.sandbox.places import Places


async def test_those_who_wait_come_in_in_their_order():
    places, order = Places("box", 3, 1000, 30), []

    async def visit(number):
        await places.enter()
        order.append(number)
        await asyncio.sleep(0)
        places.leave()

    await asyncio.gather(*map(visit, range(50)))
    assert order == list(range(50))
    assert places.taken == 0


async def test_who_is_cancelled_while_waiting_takes_no_place():
    places = Places("box", 1, 10, 30)
    await places.enter()
    first, second = asyncio.create_task(places.enter()), asyncio.create_task(places.enter())
    await asyncio.sleep(0)
    places.leave()
    first.cancel()  # in the very moment in which its turn has come
    await second
    assert first.cancelled()
    places.leave()
    assert places.taken == 0


async def test_too_many_and_too_late_are_told_and_a_closed_one_sends_all_away():
    places = Places("box", 1, 1, 0.01)
    await places.enter()
    waiting = asyncio.create_task(places.enter())
    await asyncio.sleep(0)
    with pytest.raises(SandboxBusyError, match="max_waiting"):
        await places.enter()
    with pytest.raises(SandboxBusyError, match=r"within 0\.01 seconds"):
        await waiting
    places = Places("box", 1, 1, 30)
    await places.enter()
    waiting = asyncio.create_task(places.enter())
    await asyncio.sleep(0)
    places.close()
    with pytest.raises(SandboxClosedError):
        await waiting
