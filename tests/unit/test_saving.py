"""Writing a session to its store, while several wait for what each of them has pushed."""

from __future__ import annotations

import asyncio

from gossamer.errors import StoreFullError
from gossamer.saving import Saving


class SlowStore:
    """Writes when it is told to."""

    def __init__(self) -> None:
        self.writes: list[asyncio.Future[None]] = []

    def append(self, _: object) -> asyncio.Future[None]:
        self.writes.append(asyncio.get_running_loop().create_future())
        return self.writes[-1]


def held() -> tuple[Saving, SlowStore]:
    store = SlowStore()
    saving = Saving(store, "s", None, None)
    saving.fence = 1
    return saving, store


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_waits_does_not_wait_for_what_others_push_meanwhile():
    saving, store = held()
    saving.push([], 1)
    first = asyncio.ensure_future(saving.settle())
    await turns()
    saving.push([], 2)
    second = asyncio.ensure_future(saving.settle())
    store.writes[0].set_result(None)
    await turns()
    assert first.done()
    assert not second.done()
    store.writes[1].set_result(None)
    await second
    assert saving.saved == 2


async def test_a_write_that_failed_is_told_to_all_whose_records_it_was_to_hold():
    saving, store = held()
    saving.push([], 1)
    saving.push([], 2)
    both = [asyncio.ensure_future(saving.settle()) for _ in range(2)]
    await turns()
    store.writes[0].set_result(None)
    store.writes[1].set_exception(StoreFullError("the disk is full"))
    outcomes = await asyncio.gather(*both, return_exceptions=True)
    # The very kind, as it tells whether what was not written is kept for another try.
    assert [type(one) for one in outcomes] == [StoreFullError, StoreFullError]
