"""`@cached`: which calls are equal, what comes back, what is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from gossamer import ArgumentError, CacheValueError
from gossamer.cache import MultiLevelCache, cached

if TYPE_CHECKING:
    from nowhere import OnlyForCheckers

cache = MultiLevelCache()
calls: list[Any] = []


class Quote(msgspec.Struct):
    amount: float
    tags: tuple[str, ...] = ()


@dataclasses.dataclass
class Point:
    x: int


@pytest.fixture(autouse=True)
async def empty():
    await cache.drop_namespace()
    calls.clear()


@cached(cache)
async def quote(symbol: str, amount: float = 1.0, *more: int, **options: Any) -> Quote:
    """Give a quote."""
    calls.append((symbol, amount, more, options))
    return Quote(float(amount), (repr(symbol),))


@cached(cache, ttl=60, tags=lambda x: (f"x{x}", "all"))
def double(x: int) -> int:
    calls.append(threading.current_thread())
    return 2 * x


@cached(cache)
async def unannotated(x):
    return (x,)


async def test_equal_calls_are_run_once_however_they_are_written():
    first = await quote("A")
    assert first == Quote(1.0, ("'A'",))
    for again in (quote("A", 1.0), quote(symbol="A"), quote(amount=1.0, symbol="A")):
        assert await again == first
    assert calls == [("A", 1.0, (), {})]
    different = [
        quote("B"),
        quote("A", 1),
        quote("A", True),
        quote("A", 1.0, 2),
        quote("A", b=1, a=2),
        quote(b"A"),
        quote(None),
    ]
    for one in different:
        await one
    assert len(calls) == 8
    await quote("A", a=2, b=1)
    assert len(calls) == 8


async def test_what_comes_back_is_of_the_annotated_type_and_ones_own():
    first, second = await quote("A"), await quote("A")
    assert type(second) is Quote
    first.amount = 7
    assert (await quote("A")).amount == 1.0
    assert await unannotated(1) == [1]
    assert await double(4) == 8


async def test_a_function_that_is_not_async_runs_in_a_thread():
    assert await asyncio.gather(*[double(2) for _ in range(20)]) == [4] * 20
    [thread] = calls
    assert thread is not threading.current_thread()


async def test_results_are_forgotten_by_their_arguments_and_by_tags():
    for x in (1, 2, 3):
        await double(x)
    await double.invalidate(x=1)
    await double(1)
    await double(2)
    assert len(calls) == 4
    await cache.drop_tag("x2")
    await double(2)
    await double(3)
    assert len(calls) == 5
    await cache.drop_tag("all")
    await double(3)
    assert len(calls) == 6


async def test_a_key_of_ones_own():
    @cached(cache, key=lambda point, verbose: f"point:{point.x}")
    async def shown(point: object, verbose: bool) -> str:
        calls.append(point)
        return str(verbose)

    assert await shown(Point(1), True) == await shown(Point(1), False) == "True"
    assert cache.peek("point:1") == "True"
    await shown.invalidate(Point(1), False)
    assert await shown(Point(1), False) == "False"


async def test_arguments_without_a_form_are_refused_by_name_before_anything_runs():
    for bad in (object(), {1j}, 2**70):
        with pytest.raises(CacheValueError, match="quote have no form"):
            await quote(bad)
        with pytest.raises(CacheValueError):
            await quote.invalidate(bad)
    assert not calls
    with pytest.raises(TypeError):
        await quote()
    await quote(Point(1))
    await quote(Point(1))
    assert len(calls) == 1


async def test_results_without_a_form_are_refused():
    @cached(cache)
    async def wrong(x: int) -> object:
        return object()

    with pytest.raises(CacheValueError, match="object cannot be cached"):
        await wrong(1)


async def test_a_result_that_is_not_what_the_annotation_says():
    @cached(cache)
    async def lying(x: int) -> int:
        return "text"  # type: ignore[return-value]

    @cached(cache)
    async def lying_more(x: int) -> Quote:
        calls.append(x)
        return {"amount": "text"}  # type: ignore[return-value]

    assert await lying(1) == "text"  # plain data is not looked at
    with pytest.raises(CacheValueError, match="lying_more gives something else"):
        await lying_more(1)
    assert calls == [1, 1]


async def test_a_result_that_was_kept_when_the_type_was_another_is_computed_anew():
    await cache.set(quote.key("A"), {"price": 1.0})
    assert await quote("A") == Quote(1.0, ("'A'",))
    assert len(calls) == 1
    assert await quote("A") == Quote(1.0, ("'A'",))
    assert len(calls) == 1


async def test_a_type_that_cannot_be_found_or_made_is_told_before_anything_runs():
    class Local(msgspec.Struct):
        x: int

    @cached(cache)
    async def local(x: int) -> Local:
        calls.append(x)
        return Local(x)

    @cached(cache)
    async def either(x: int) -> Quote | Point:  # nothing in plain data tells which
        calls.append(x)
        return Point(x)

    for function in (local, either):
        with pytest.raises(ArgumentError, match="says that it returns"):
            await function(1)
    assert not calls

    @cached(cache)
    async def hinted(x: OnlyForCheckers) -> Quote:
        return Quote(1.0)

    assert await hinted(1) == await hinted(1) == Quote(1.0)


async def test_errors_are_raised_and_not_kept():
    @cached(cache)
    async def failing(x: int) -> int:
        calls.append(x)
        raise ValueError("broken")

    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            await failing(1)
    assert calls == [1, 1]


async def test_functions_are_told_apart_and_look_like_themselves():
    assert quote.__name__ == "quote"
    assert quote.__doc__ == "Give a quote."
    assert repr(quote) == f"<cached {__name__}.quote>"
    assert quote.cache is cache
    assert double.key(1) != unannotated.key(1)


@pytest.mark.parametrize("arguments", [{"ttl": 0}, {"tags": "t"}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ArgumentError):
        cached(cache, **arguments)


def test_only_functions_are_decorated():
    for bad in (Quote, 1):
        with pytest.raises(ArgumentError, match="functions"):
            cached(cache)(bad)


async def test_what_is_decorated_in_a_wrong_way_is_told_at_once():
    with pytest.raises(ArgumentError, match=r"as in @cached\(cache\)"):

        @cached
        def bare(x):
            return x

    with pytest.raises(ArgumentError, match="results of the method"):

        class Prices:
            @cached(MultiLevelCache())
            async def of(self, symbol):
                return symbol


async def test_what_computes_nothing_is_told():
    async with MultiLevelCache() as cache:
        with pytest.raises(ArgumentError, match="compute gave int"):
            await cache.get_or_compute("key", lambda: 5)
        with pytest.raises(ArgumentError, match="compute must be a function"):
            await cache.get_or_compute("key", 5)
