"""Two caches on one Redis are one dict, whatever is done through which of them and in which order."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from tests.unit.test_multilevel_cache import Tiers

from gossamer.cache import MemoryCache, MultiLevelCache, RedisCache


class Ear:
    """Stands before the tiers of a cache, and remembers what was heard last."""

    def __init__(self, tiers) -> None:
        self.tiers = tiers
        self.last = b""
        for here in tiers.on_loop.all():
            here.link._tiers = self

    def heard(self, data: bytes) -> None:
        self.tiers.heard(data)
        self.last = data

    def __getattr__(self, name):
        return getattr(self.tiers, name)


def test_two_caches_are_one_dict(redis):
    class TwoCaches(Tiers):
        def __init__(self) -> None:
            super().__init__()
            assert redis.command(b"FLUSHALL") == b"+OK"
            self.tiers = [RedisCache(redis.url, timeout=5) for _ in range(2)]
            # Small enough that memory drops some by itself.
            self.both = [MultiLevelCache(MemoryCache(max_entries=6), l2) for l2 in self.tiers]
            for cache in self.both:
                self.run(cache.get("connect"))
            self.ears = [Ear(cache._tiers) for cache in self.both]
            self.cache, self.other = self.both
            self.marks = 0

        def caches(self):
            self.run(self.barrier())
            return self.both

        async def barrier(self):
            """Wait until each has heard all that was told so far: messages come in order."""
            self.marks += 1
            mark = b"mark %d" % self.marks
            await self.tiers[0].execute(b"PUBLISH", b"gossamer:invalidations", mark)
            while any(ear.last != mark for ear in self.ears):
                await asyncio.sleep(0)

        @rule()
        def change_places(self):
            self.run(self.barrier())
            self.cache, self.other = self.other, self.cache

        @rule(space=st.sampled_from(["", "x"]))
        def forget_memory(self, space):
            self.cache._tiers.forget()

        @rule(value=st.integers(20, 29))
        def set_through_both_at_once(self, value):
            async def race():
                await asyncio.gather(
                    self.cache.set("a", value),
                    self.other.set("a", value + 10),
                    self.cache.set("a", value + 20),
                    self.cache.get("a"),
                    self.other.get("a"),
                )
                await self.barrier()
                found = {await one.get("a") for one in self.both}
                assert len(found) == 1
                return found.pop()

            found = self.run(race())
            assert found in {value, value + 10, value + 20}
            self.model["", "a"] = (found, ())

        def teardown(self):
            for cache in self.both:
                self.run(cache.aclose())
            for l2 in self.tiers:
                self.run(l2.aclose())
            self.loop.close()

    run_state_machine_as_test(
        TwoCaches,
        settings=settings(
            max_examples=15,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
