"""What is kept once for each event loop."""

import asyncio

from gossamer.per_loop import PerLoop


class Kept:
    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.may_close = asyncio.Event()

    async def aclose(self) -> None:
        self.closed.set()
        await self.may_close.wait()

    def drop_in_child(self) -> None: ...


async def test_who_uses_it_while_it_closes_has_a_new_one_that_stays() -> None:
    per_loop = PerLoop(Kept)
    first = per_loop.here()
    closing = asyncio.ensure_future(per_loop.aclose())
    await first.closed.wait()
    second = per_loop.here()
    assert second is not first
    first.may_close.set()
    await closing
    assert per_loop.here() is second
    assert not second.closed.is_set()
    second.may_close.set()
    await per_loop.aclose()
    assert second.closed.is_set()


def test_it_is_closed_with_its_loop() -> None:
    per_loop = PerLoop(Kept)

    async def use() -> Kept:
        kept = per_loop.here()
        kept.may_close.set()
        return kept

    kept = asyncio.run(use())
    assert kept.closed.is_set()
    assert per_loop.all() == []
