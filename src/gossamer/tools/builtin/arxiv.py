"""`arxiv`: papers found and their abstracts read, by arXiv's own API."""

from __future__ import annotations

import re
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from gossamer.errors import ArgumentError, ToolkitError
from gossamer.tools.builtin.fetching import USER_AGENT, Service
from gossamer.tools.function import tool
from gossamer.tools.threads import run_in_thread
from gossamer.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["Paper", "arxiv"]

_MAX_QUERY_CHARS = 500
_MAX_RESULTS = 30
_MAX_ABSTRACT_CHARS = 4_000
_MAX_AUTHORS = 20
_ATOM = "{http://www.w3.org/2005/Atom}"
_ARXIV = "{http://arxiv.org/schemas/atom}"
_ID = re.compile(r"(?:\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(?:v\d{1,3})?")
_PREFIX = re.compile(r"(?:https?://)?(?:www\.|export\.)?arxiv\.org/(?:abs|pdf)/|arxiv:", re.IGNORECASE)
_SYNTAX = re.compile(r"\b(?:ti|au|abs|co|jr|cat|rn|all|submittedDate):|\b(?:AND|OR|ANDNOT)\b")
_TERM = re.compile(r'"[^"]+"|[^\s"()]+')


class Paper(msgspec.Struct, frozen=True, omit_defaults=True):
    """A paper on arXiv.

    Attributes:
        id: with its version, such as `1706.03762v7`.
        title: of the paper.
        authors: the first 20.
        abstract: of the paper.
        published: when its first version came.
        url: its page.
        updated: when this version came, where it is not the first.
        categories: its main one first.
        comment: what the authors say of it.
        journal: where it was published.
        doi: of the publication.
        more_authors: how many there are beside the first 20.
    """

    id: str
    title: str
    authors: list[str]
    abstract: str
    published: str
    url: str
    updated: str = ""
    categories: list[str] = []
    comment: str = ""
    journal: str = ""
    doi: str = ""
    more_authors: int = 0


def arxiv(
    *,
    base_url: str = "https://export.arxiv.org/api",
    timeout: float = 30.0,
    pause: float = 3.0,
    max_bytes: int = 4_000_000,
    user_agent: str = USER_AGENT,
) -> Toolkit:
    """Give the tools `search_arxiv` and `read_arxiv`.

    A search gives at most 30 papers, with at most 4,000 characters of their abstracts.

    Args:
        base_url: where the API begins.
        timeout: seconds for a request, and for the wait before it.
        pause: seconds between the beginnings of two requests; arXiv asks for 3.
        max_bytes: the most bytes of an answer.
        user_agent: what arXiv is told of who asks.

    Raises:
        ArgumentError: an argument cannot be used; the message names it.
        ToolkitError: the library that reads XML safely is missing.
    """
    if find_spec("defusedxml") is None:
        raise ToolkitError("defusedxml is missing, which reads arXiv's answers; pip install 'gossamer[web]'")
    service = Service(
        "arXiv",
        base_url,
        headers={"User-Agent": user_agent},
        timeout=timeout,
        max_bytes=max_bytes,
        pause=pause,
    )

    @tool(idempotent=True)
    async def search_arxiv(
        query: Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_QUERY_CHARS)],
        limit: Annotated[int, msgspec.Meta(ge=1, le=_MAX_RESULTS)] = 5,
        sort: Literal["relevance", "newest"] = "relevance",
    ) -> list[Paper]:
        """Search arXiv for papers in physics, mathematics, computer science and related fields.

        Args:
            query: words that all must occur, "phrases" in double quotes; or arXiv's own syntax with ti: (title), au:
                (author), abs: (abstract), cat: (category), AND, OR and ANDNOT, such as au:hinton AND ti:distillation.
            limit: the most papers to give, from 1 to 30.
            sort: which come first.
        """
        by = {"relevance": "relevance", "newest": "submittedDate"}[sort]
        parameters = {
            "search_query": _search_query(query),
            "max_results": limit,
            "sortBy": by,
            "sortOrder": "descending",
        }
        return (await _ask(service, parameters))[:limit]

    @tool(idempotent=True)
    async def read_arxiv(paper_id: Annotated[str, msgspec.Meta(max_length=200)]) -> Paper:
        """Read the abstract of a paper on arXiv, and who wrote it, when and where.

        Args:
            paper_id: such as 1706.03762 or hep-th/9901001, or the URL of its page.
        """
        found = await _ask(service, {"id_list": _paper_id(paper_id), "max_results": 1})
        if not found:
            raise service.error(f"has no paper {paper_id!r}; search for it", 200)
        return found[0]

    return Toolkit("arxiv", [search_arxiv, read_arxiv], description="Find scientific papers on arXiv.")


# --- the tools' work ------------------------------------------------------------------------------------------


async def _ask(service: Service, parameters: dict[str, str | int]) -> list[Paper]:
    data = await service.get("/query", parameters)
    return await run_in_thread(partial(_papers, service, data))


def _search_query(query: str) -> str:
    """Let all words have to occur, as arXiv takes any of them for enough, where the query says nothing else."""
    if _SYNTAX.search(query):
        return query
    terms = [term for term in _TERM.findall(query) if any(map(str.isalnum, term))]
    if not terms:
        raise ArgumentError(f"query {query!r} holds no word to look for")
    return " AND ".join(f"all:{term}" for term in terms)


def _paper_id(text: str) -> str:
    number = _PREFIX.sub("", text.strip()).removesuffix(".pdf")
    if not _ID.fullmatch(number):
        raise ArgumentError(f"{text!r} is no id of a paper; one looks like 1706.03762 or hep-th/9901001")
    return number


# --- what arXiv answers ---------------------------------------------------------------------------------------


def _papers(service: Service, data: bytes) -> list[Paper]:
    """Read a feed. An entity or a document type in it is refused, as one could be made to grow without end."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        feed: Element = fromstring(data, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError, RecursionError) as error:
        shown = " ".join(data[:200].decode("utf-8", "replace").split())
        raise service.error(
            f"answered with no feed ({error or type(error).__name__}): {shown!r}", 200
        ) from error
    if feed.tag != f"{_ATOM}feed":
        raise service.error(f"answered with no feed, but with {feed.tag[:200]!r}", 200)
    entries = feed.findall(f"{_ATOM}entry")
    for entry in entries:
        # Errors come as an entry of their own, some of them as a success.
        if "/api/errors" in _text(entry, f"{_ATOM}id"):
            raise service.error(f"refused the request: {_text(entry, f'{_ATOM}summary')[:300]}", 200)
    # A number that was never given out comes as an entry without a title.
    return [_paper(entry) for entry in entries if _text(entry, f"{_ATOM}title")]


def _paper(entry: Element) -> Paper:
    page = _text(entry, f"{_ATOM}id")
    authors = [_text(author, f"{_ATOM}name") for author in entry.findall(f"{_ATOM}author")]
    published, updated = _text(entry, f"{_ATOM}published"), _text(entry, f"{_ATOM}updated")
    main = entry.find(f"{_ARXIV}primary_category")
    categories = [one.get("term", "") for one in entry.findall(f"{_ATOM}category")]
    if main is not None:
        categories.insert(0, main.get("term", ""))
    return Paper(
        id=page.rpartition("/abs/")[2],
        title=_text(entry, f"{_ATOM}title"),
        authors=authors[:_MAX_AUTHORS],
        abstract=_text(entry, f"{_ATOM}summary")[:_MAX_ABSTRACT_CHARS],
        published=published,
        url=page,
        updated=updated if updated != published else "",
        categories=list(dict.fromkeys(filter(None, categories)))[:_MAX_AUTHORS],
        comment=_text(entry, f"{_ARXIV}comment")[:1_000],
        journal=_text(entry, f"{_ARXIV}journal_ref")[:1_000],
        doi=_text(entry, f"{_ARXIV}doi")[:200],
        more_authors=max(0, len(authors) - _MAX_AUTHORS),
    )


def _text(element: Element, name: str) -> str:
    """Give the text of a child, on one line: arXiv wraps titles and abstracts."""
    return " ".join((element.findtext(name) or "").split())
