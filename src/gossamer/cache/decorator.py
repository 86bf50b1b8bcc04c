"""`@cached`: a function that answers from a cache."""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
from collections.abc import Callable, Coroutine, Iterable
from hashlib import sha256
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

import msgspec

from gossamer.cache.memory import check_ttl
from gossamer.cache.multilevel import MultiLevelCache
from gossamer.errors import ArgumentError, CacheValueError

__all__ = ["CachedFunction", "cached"]

P = ParamSpec("P")
R = TypeVar("R")

# Comes out of msgpack as it went in, so that nothing needs to be converted.
_PLAIN = frozenset(
    {Any, None, type(None), bool, int, float, str, bytes, list, dict, list[Any], dict[str, Any]}
)

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class CachedFunction(Generic[P, R]):
    """A function that answers from a cache, and is run where the cache has no answer; made by `cached`.

    Args:
        function: the function, async or not.
        cache: where its results are kept.
        ttl: how long they are good, in seconds; the cache's own time where None.
        key: gives the key for some arguments; None for one made of the function's name and the arguments.
        tags: of the results, or what gives them for some arguments.
    """

    def __init__(
        self,
        function: Callable[P, Coroutine[Any, Any, R]] | Callable[P, R],
        cache: MultiLevelCache,
        ttl: float | None,
        key: Callable[P, str] | None,
        tags: Iterable[str] | Callable[P, Iterable[str]],
    ) -> None:
        functools.update_wrapper(self, function)
        self.cache = cache
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)
        self._ttl = ttl
        self._key = key
        self._tags = tags if callable(tags) else tuple(tags)
        self._signature = inspect.signature(function)
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._type: Any = None
        self._type_known = False

    def __repr__(self) -> str:
        return f"<cached {self._name}>"

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Give the result for some arguments, from the cache or else of the function.

        Raises:
            ArgumentError: the type that the function says it returns cannot be found, or values of it cannot be made of
                plain data.
            CacheValueError: an argument or the result has no form in msgpack, or the result is not of the annotated
                type.
            CacheBusyError: too many callers wait already; see `MultiLevelCache.get_or_compute`.
            Exception: whatever the function raises.
        """
        kind = self._type if self._type_known else self._find_type()
        key = self.key(*args, **kwargs)
        tags = self._tags(*args, **kwargs) if callable(self._tags) else self._tags

        async def compute() -> R:
            if self._is_async:
                return await cast("Callable[P, Coroutine[Any, Any, R]]", self._function)(*args, **kwargs)
            return await asyncio.to_thread(cast("Callable[P, R]", self._function), *args, **kwargs)

        value = await self.cache.get_or_compute(key, compute, self._ttl, tags)
        if kind is None:
            return value
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError:
            # It may have been kept when the type was another: once more, with what the function gives now.
            await self.cache.delete(key)
        value = await self.cache.get_or_compute(key, compute, self._ttl, tags)
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            await self.cache.delete(key)
            raise CacheValueError(
                f"{self._name} gives something else than its annotation says: {error}"
            ) from error

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the result for some arguments, in all tiers and processes.

        Raises:
            CacheValueError: an argument has no form in msgpack.
        """
        await self.cache.delete(self.key(*args, **kwargs))

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Give the key of the result for some arguments; equal however they are passed, defaults filled in.

        Raises:
            CacheValueError: an argument has no form in msgpack; give `cached` a `key`.
            TypeError: the function does not take these arguments.
        """
        if self._key is not None:
            return self._key(*args, **kwargs)
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        try:
            data = _encode(bound.arguments)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise CacheValueError(
                f"the arguments of {self._name} have no form in msgpack to make a key of: {error}; give plain data, or"
                " @cached(…, key=…)"
            ) from error
        return f"{self._name}:{sha256(data).hexdigest()}"

    def _find_type(self) -> Any:
        """Find what the function says it returns; None where plain data is as good."""
        told = getattr(self._function, "__annotations__", {}).get("return", Any)
        module = self._function.__module__
        try:
            # Of the annotations this one alone, for the others may mean something to type checkers only.
            kind = typing.get_type_hints(
                type("_Told", (), {"__annotations__": {"told": told}, "__module__": module})
            )["told"]
            plain = isinstance(kind, TypeVar) or kind in _PLAIN
            if not plain:
                msgspec.msgpack.Decoder(kind)
        except (NameError, AttributeError, TypeError) as error:
            raise ArgumentError(
                f"{self._name} says that it returns {told!r:.200}, of which no value can be made: {error}; name a type of"
                " its module that msgspec knows, or leave the annotation out"
            ) from error
        self._type = None if plain else kind
        self._type_known = True
        return self._type


class _Decorator(Protocol):
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CachedFunction[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...


def cached(
    cache: MultiLevelCache,
    *,
    ttl: float | None = None,
    key: Callable[..., str] | None = None,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
) -> _Decorator:
    """Keep the results of a function in a cache: equal calls at the same time run it once, in all processes.

    The function becomes async; one that is not runs in a thread. What it returns is converted to its annotated type,
    a new object for each caller; without an annotation callers get plain data that they must not change. `invalidate`
    takes the same arguments and forgets their result. Functions of the same module and qualified name share their
    results, so a function that depends on what is around it wants a `key` of its own. For plain functions, not methods.

    Args:
        cache: where results are kept; a namespace of it keeps those of several programs apart.
        ttl: how long they are good, in seconds; the cache's own time where None.
        key: takes the function's arguments and gives the key; None for one made of the function's module, qualified
            name and arguments in msgpack.
        tags: by which results can be dropped together, or a function of the arguments that gives them.

    Raises:
        ArgumentError: no cache, a time that is not above 0, tags that are a single text, or what is decorated is no function.
    """
    if not isinstance(cache, MultiLevelCache):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"@cached takes a MultiLevelCache, as in @cached(cache), not {cache!r:.200}")
    check_ttl(ttl)
    if isinstance(tags, str):
        raise ArgumentError(f"tags are several, so give them in a tuple: ({tags!r:.100},)")

    def decorate(function: Any, /) -> CachedFunction[Any, Any]:
        if not inspect.isroutine(function):
            raise ArgumentError(f"@cached decorates functions, not {function!r:.200}")
        if next(iter(inspect.signature(function).parameters), "") in {"self", "cls"}:
            raise ArgumentError(
                f"@cached cannot keep results of the method {function.__qualname__}, whose object would be part of the"
                " key: decorate a function that the method calls, or use cache.get_or_compute in the method"
            )
        return CachedFunction(function, cache, ttl, key, tags)

    return decorate
