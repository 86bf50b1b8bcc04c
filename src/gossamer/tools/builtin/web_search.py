"""`web_search`: the web searched by a service of the user's choice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import msgspec

from gossamer.errors import ArgumentError, ToolkitError
from gossamer.tools.builtin.fetching import Service, retry_after_of
from gossamer.tools.builtin.page_text import check_library, text_of_fragment
from gossamer.tools.function import tool
from gossamer.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from gossamer.wire import Headers

__all__ = ["BraveSearch", "SearXNG", "SearchBackend", "SearchResult", "TavilySearch", "web_search"]

_MAX_QUERY_CHARS = 400  # Brave takes no more
_MAX_RESULTS = 20
_MAX_TEXT_CHARS = 2_000
_Count = Annotated[int, msgspec.Meta(ge=1, le=_MAX_RESULTS)]


class SearchResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page that was found.

    Attributes:
        title: of the page.
        url: where it is.
        text: what it says of the query.
        date: when it was written or found, as the service says it.
    """

    title: str
    url: str
    text: str = ""
    date: str = ""


class SearchBackend(Protocol):
    """What searches the web for `web_search`: one of the classes here, or your own."""

    async def search(self, query: str, limit: int) -> Sequence[SearchResult]:
        """Find pages, the best first.

        Args:
            query: what is looked for.
            limit: the most pages to give.
        """
        ...


def web_search(backend: SearchBackend) -> Toolkit:
    """Give the tool `search_web`.

    A query has at most 400 characters, and a search gives at most 20 pages with 2,000 characters of each.

    Args:
        backend: what searches, for example `BraveSearch()` or `SearXNG("http://localhost:8888")`.

    Raises:
        ArgumentError: the back end has no method `search`.
    """
    if not callable(getattr(backend, "search", None)):
        raise ArgumentError(f"backend has no method search: {backend!r}; give for example BraveSearch()")

    @tool(idempotent=True)
    async def search_web(
        query: Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_QUERY_CHARS)], limit: _Count = 5
    ) -> list[SearchResult]:
        """Search the web.

        Args:
            query: a few words, as for a search engine.
            limit: the most results to give, from 1 to 20.
        """
        found = await backend.search(query, limit)
        return [_bounded(result) for result in found[:limit]]

    return Toolkit("web_search", [search_web], description="Search the web for pages.")


# --- back ends ------------------------------------------------------------------------------------------------


class BraveSearch:
    """The web as Brave's search API has it.

    Args:
        api_key: the key; BRAVE_API_KEY where None.
        base_url: where the API begins.
        timeout: seconds for a search.
        pause: seconds between the beginnings of two searches. The smallest plan allows one a second; 0 for larger ones.

    Raises:
        ToolkitError: there is no key, or the library that reads the excerpts is missing.
        ArgumentError: an argument cannot be used.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str = "https://api.search.brave.com/res/v1",
        *,
        timeout: float = 20.0,
        pause: float = 1.0,
    ) -> None:
        check_library()
        self._service = Service(
            "Brave Search",
            base_url,
            headers={"X-Subscription-Token": _key(api_key, "BRAVE_API_KEY"), "Accept": "application/json"},
            timeout=timeout,
            pause=pause,
            advice="check BRAVE_API_KEY",
            retry_after=_brave_retry_after,
        )

    async def search(self, query: str, limit: int) -> list[SearchResult]:
        """Find pages, the best first.

        Args:
            query: what is looked for; at most 400 characters and 50 words.
            limit: the most pages to give; Brave gives 20 at most.

        Raises:
            ServiceError: Brave did not answer, or refused.
        """
        parameters = {"q": query, "count": min(limit, _MAX_RESULTS), "result_filter": "web"}
        answer = await self._service.get_json("/web/search", parameters, answer=_BraveAnswer)
        results = answer.web.results if answer.web is not None else []
        return [
            SearchResult(
                _plain(one.title), one.url, _plain(one.description or ""), one.page_age or one.age or ""
            )
            for one in results[:limit]
        ]


class SearXNG:
    """The web as a SearXNG server of yours has it. Its settings must name `json` in `search.formats`.

    Args:
        base_url: where the server is.
        language: of the results, such as `de`; the server's own where empty.
        timeout: seconds for a search.

    Raises:
        ArgumentError: an argument cannot be used.
    """

    def __init__(self, base_url: str, *, language: str = "", timeout: float = 20.0) -> None:
        self._language = language
        self._service = Service(
            "SearXNG",
            base_url,
            timeout=timeout,
            advice="the server must allow the format json: search.formats in its settings.yml",
        )

    async def search(self, query: str, limit: int) -> list[SearchResult]:
        """Find pages, the best first.

        Args:
            query: what is looked for.
            limit: the most pages to give; the server decides how many it has on one page.

        Raises:
            ServiceError: the server did not answer, or refused, or none of its engines could search.
        """
        parameters = {"q": query, "format": "json"}
        if self._language:
            parameters["language"] = self._language
        answer = await self._service.get_json("/search", parameters, answer=_SearxngAnswer)
        if not answer.results and answer.unresponsive_engines:
            failed = ", ".join(" ".join(map(str, engine)) for engine in answer.unresponsive_engines[:10])
            raise self._service.error(f"found nothing, as engines of it failed: {failed}")
        return [
            SearchResult(one.title, one.url, one.content or "", one.publishedDate or "")
            for one in answer.results[:limit]
        ]


class TavilySearch:
    """The web as Tavily's search API has it.

    Args:
        api_key: the key; TAVILY_API_KEY where None.
        base_url: where the API begins.
        timeout: seconds for a search.

    Raises:
        ToolkitError: there is no key.
        ArgumentError: an argument cannot be used.
    """

    def __init__(
        self, api_key: str | None = None, base_url: str = "https://api.tavily.com", *, timeout: float = 20.0
    ) -> None:
        key = _key(api_key, "TAVILY_API_KEY")
        headers = {"Authorization": f"Bearer {key}"}
        advice = "check TAVILY_API_KEY"
        self._service = Service("Tavily", base_url, headers=headers, timeout=timeout, advice=advice)

    async def search(self, query: str, limit: int) -> list[SearchResult]:
        """Find pages, the best first.

        Args:
            query: what is looked for.
            limit: the most pages to give; Tavily gives 20 at most.

        Raises:
            ServiceError: Tavily did not answer, or refused.
        """
        question = {"query": query, "max_results": min(limit, _MAX_RESULTS)}
        answer = await self._service.post_json("/search", question, answer=_TavilyAnswer)
        return [
            SearchResult(one.title or one.url, one.url, one.content or "", one.published_date or "")
            for one in answer.results[:limit]
        ]


# --- what services answer -------------------------------------------------------------------------------------


class _BraveResult(msgspec.Struct):
    title: str
    url: str
    description: str | None = None
    page_age: str | None = None
    age: str | None = None


class _BraveResults(msgspec.Struct):
    results: list[_BraveResult] = []


class _BraveAnswer(msgspec.Struct):
    web: _BraveResults | None = None  # missing where nothing was found


class _SearxngResult(msgspec.Struct):
    title: str
    url: str
    content: str | None = None
    publishedDate: str | None = None  # noqa: N815 - SearXNG's name


class _SearxngAnswer(msgspec.Struct):
    results: list[_SearxngResult]
    unresponsive_engines: list[list[Any]] = []


class _TavilyResult(msgspec.Struct):
    url: str
    title: str | None = None
    content: str | None = None
    published_date: str | None = None


class _TavilyAnswer(msgspec.Struct):
    results: list[_TavilyResult]


def _bounded(result: SearchResult) -> SearchResult:
    if len(result.text) <= _MAX_TEXT_CHARS and len(result.title) <= _MAX_TEXT_CHARS:
        return result
    title, text = (
        part if len(part) <= _MAX_TEXT_CHARS else f"{part[:_MAX_TEXT_CHARS]}…"
        for part in (result.title, result.text)
    )
    return msgspec.structs.replace(result, title=title, text=text)


def _plain(html: str) -> str:
    """Give Brave's titles and excerpts, which have entities and `<strong>` around the words of the query, as text."""
    return " ".join(text_of_fragment(html[:_MAX_TEXT_CHARS]).replace("**", "").split())


def _brave_retry_after(headers: Headers) -> float | None:
    """Brave tells seconds for each of its limits, `X-RateLimit-Reset: 1, 1419704`, and what is left of each."""
    remaining = (headers.get("x-ratelimit-remaining") or "").split(",")
    resets = (headers.get("x-ratelimit-reset") or "").split(",")
    try:
        waits = [float(reset) for left, reset in zip(remaining, resets, strict=True) if float(left) <= 0]
    except ValueError:
        waits = []
    return max(waits) if waits else retry_after_of(headers)


def _key(given: str | None, variable: str) -> str:
    key = given or os.environ.get(variable)
    if not key:
        raise ToolkitError(f"there is no key: set {variable}, or give api_key=")
    return key
