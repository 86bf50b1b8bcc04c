"""`wikipedia`: articles found and read, by the API of MediaWiki."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from gossamer.errors import ArgumentError
from gossamer.tools.builtin.fetching import USER_AGENT, Service
from gossamer.tools.builtin.page_text import check_library, text_of_fragment
from gossamer.tools.function import tool
from gossamer.tools.toolkit import Toolkit

__all__ = ["Article", "ArticleFound", "wikipedia"]

_MAX_QUERY_CHARS = 300  # MediaWiki takes no more
_MAX_TITLE_CHARS = 255
_MAX_RESULTS = 20
_MAX_EXCERPT_CHARS = 1_000
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,12}){0,3}|simple")


class ArticleFound(msgspec.Struct, frozen=True, omit_defaults=True):
    """An article that a search found.

    Attributes:
        title: under which it is read.
        excerpt: what it says of the query.
        words: how many it has.
    """

    title: str
    excerpt: str = ""
    words: int = 0


class Article(msgspec.Struct, frozen=True, omit_defaults=True):
    """An article.

    Attributes:
        title: its own, where another led to it.
        url: where people read it.
        text: plain text; a heading stands between `==`.
        description: a few words.
        note: what is missing of it, or that it only leads to others.
    """

    title: str
    url: str
    text: str
    description: str = ""
    note: str = ""


def wikipedia(
    language: str = "en",
    *,
    base_url: str | None = None,
    max_chars: int = 100_000,
    timeout: float = 20.0,
    max_bytes: int = 4_000_000,
    user_agent: str = USER_AGENT,
) -> Toolkit:
    """Give the tools `search_wikipedia` and `read_wikipedia`.

    A search gives at most 20 articles with an excerpt of at most 1,000 characters.

    Args:
        language: of the Wikipedia, such as `de`.
        base_url: where `api.php` is, in place of that language's Wikipedia: any MediaWiki with the extension
            TextExtracts.
        max_chars: the most characters of an article; those behind are left out.
        timeout: seconds for a request.
        max_bytes: the most bytes of an answer.
        user_agent: what Wikipedia is told of who asks. It wants a way to reach you, such as your e-mail address, and
            may refuse many requests without one.

    Raises:
        ArgumentError: an argument cannot be used; the message names it.
        ToolkitError: the library that reads excerpts is missing.
    """
    check_library()
    if not _LANGUAGE.fullmatch(language):
        raise ArgumentError(f"language is {language!r}; give the code of a Wikipedia, such as 'en'")
    if max_chars < 1:
        raise ArgumentError(f"max_chars is {max_chars!r}; give 1 or more")
    service = Service(
        "Wikipedia",
        base_url or f"https://{language}.wikipedia.org/w",
        headers={"User-Agent": user_agent},
        timeout=timeout,
        max_bytes=max_bytes,
    )

    @tool(idempotent=True)
    async def search_wikipedia(
        query: Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_QUERY_CHARS)],
        limit: Annotated[int, msgspec.Meta(ge=1, le=_MAX_RESULTS)] = 5,
    ) -> list[ArticleFound]:
        """Search Wikipedia for articles.

        Args:
            query: a few words.
            limit: the most articles to give, from 1 to 20.
        """
        found = (await _ask(service, {"list": "search", "srsearch": query, "srlimit": limit})).search
        return [
            ArticleFound(one.title, text_of_fragment(one.snippet)[:_MAX_EXCERPT_CHARS], one.wordcount)
            for one in found[:limit]
        ]

    @tool(idempotent=True)
    async def read_wikipedia(
        title: Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_TITLE_CHARS)],
    ) -> Article:
        """Read an article of Wikipedia.

        Args:
            title: as a search gives it.
        """
        return await _read(service, title, max_chars)

    description = f"Find and read articles of the Wikipedia in the language {language}."
    return Toolkit("wikipedia", [search_wikipedia, read_wikipedia], description=description)


# --- the tools' work ------------------------------------------------------------------------------------------


async def _read(service: Service, title: str, max_chars: int) -> Article:
    if "|" in title:
        raise ArgumentError("title holds a '|', which no title does; read one article at a time")
    parameters: dict[str, str | int] = {
        "titles": title,
        "redirects": 1,
        "prop": "extracts|info|pageprops",
        "explaintext": 1,
        "exsectionformat": "wiki",
        "inprop": "url",
        "ppprop": "disambiguation|wikibase-shortdesc",
    }
    pages = (await _ask(service, parameters)).pages
    if not pages or pages[0].missing or pages[0].invalid:
        why = f": {pages[0].invalidreason}" if pages and pages[0].invalidreason else ""
        raise service.error(f"has no article {title!r}{why}; search for it", 200)
    page = pages[0]
    notes: list[str] = []
    if "disambiguation" in page.pageprops:
        notes.append("This title has several meanings; read one of the articles that it names.")
    text = page.extract.strip()
    if len(text) > max_chars:
        notes.append(f"The article has {len(text):,} characters; those behind {max_chars:,} are missing.")
    return Article(
        page.title,
        page.fullurl,
        text[:max_chars],
        page.pageprops.get("wikibase-shortdesc") or "",
        " ".join(notes),
    )


async def _ask(service: Service, parameters: dict[str, str | int]) -> _Query:
    always = {"action": "query", "format": "json", "formatversion": 2}
    answer = await service.get_json("/api.php", {**always, **parameters}, answer=_Answer)
    if answer.error is not None:
        raise service.error(
            f"refused the request: {answer.error.info[:300]} ({answer.error.code[:100]})", 200
        )
    return answer.query or _Query()


# --- what MediaWiki answers -----------------------------------------------------------------------------------


class _Found(msgspec.Struct):
    title: str
    snippet: str = ""
    wordcount: int = 0


class _Page(msgspec.Struct):
    title: str = ""
    extract: str = ""
    fullurl: str = ""
    missing: bool = False
    invalid: bool = False
    invalidreason: str = ""
    pageprops: dict[str, str | None] = {}


class _Query(msgspec.Struct):
    search: list[_Found] = []
    pages: list[_Page] = []


class _Failure(msgspec.Struct):
    code: str
    info: str = ""


class _Answer(msgspec.Struct):
    query: _Query | None = None
    error: _Failure | None = None
