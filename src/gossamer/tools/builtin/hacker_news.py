"""`hacker_news`: stories found and read with what is said of them, by the site's two APIs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Literal, TypeAlias

import msgspec

from gossamer.tools.builtin.fetching import USER_AGENT, Service
from gossamer.tools.builtin.page_text import check_library, text_of_fragment
from gossamer.tools.function import tool
from gossamer.tools.threads import run_in_thread
from gossamer.tools.toolkit import Toolkit

__all__ = ["Comment", "Discussion", "Story", "hacker_news"]

_MAX_QUERY_CHARS = 300
_MAX_STORIES = 30
_MAX_COMMENTS = 200
_MAX_TEXT_CHARS = 4_000  # of a story or a comment
_AT_ONCE = 4
_Page: TypeAlias = Literal["top", "new", "best", "ask", "show", "job"]


class Story(msgspec.Struct, frozen=True, omit_defaults=True):
    """A story.

    Attributes:
        id: under which it is read.
        title: of the story.
        url: what it points to; empty for a question.
        author: who brought it.
        points: how many voted for it.
        comments: how many there are.
        date: when it was brought.
    """

    id: int
    title: str
    url: str = ""
    author: str = ""
    points: int = 0
    comments: int = 0
    date: str = ""


class Comment(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody says.

    Attributes:
        author: who says it.
        text: as Markdown.
        depth: 0 for what is said of the story, 1 for an answer to that, and so on.
    """

    author: str
    text: str
    depth: int = 0


class Discussion(msgspec.Struct, frozen=True, omit_defaults=True):
    """A story, or a comment, and what is said of it.

    Attributes:
        id: of the story.
        title: of the story; empty for a comment.
        url: what it points to.
        author: who wrote it.
        points: how many voted for it.
        date: when it was written.
        text: what it says itself, as Markdown.
        comments: each followed by the answers to it.
        note: how many comments are left out.
    """

    id: int
    title: str = ""
    url: str = ""
    author: str = ""
    points: int = 0
    date: str = ""
    text: str = ""
    comments: list[Comment] = []
    note: str = ""


def hacker_news(
    *,
    base_url: str = "https://hacker-news.firebaseio.com/v0",
    search_url: str = "https://hn.algolia.com/api/v1",
    timeout: float = 20.0,
    max_bytes: int = 8_000_000,
    user_agent: str = USER_AGENT,
) -> Toolkit:
    """Give the tools `search_hacker_news`, `read_hacker_news` and `list_hacker_news`.

    A list has at most 30 stories, a discussion at most 200 comments with 4,000 characters of each.

    Args:
        base_url: where the API of the site begins, which tells what is on its pages.
        search_url: where the API of its search begins, which also tells whole discussions.
        timeout: seconds for a request.
        max_bytes: the most bytes of an answer; the largest discussions have about 5,000,000.
        user_agent: what the services are told of who asks.

    Raises:
        ArgumentError: an argument cannot be used; the message names it.
        ToolkitError: the library that reads comments is missing.
    """
    check_library()
    headers = {"User-Agent": user_agent}
    site = Service("Hacker News", base_url, headers=headers, timeout=timeout, max_bytes=max_bytes)
    search = Service(
        "The search of Hacker News", search_url, headers=headers, timeout=timeout, max_bytes=max_bytes
    )

    @tool(idempotent=True)
    async def search_hacker_news(
        query: Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_QUERY_CHARS)],
        limit: Annotated[int, msgspec.Meta(ge=1, le=_MAX_STORIES)] = 10,
        sort: Literal["relevance", "newest"] = "relevance",
    ) -> list[Story]:
        """Search Hacker News for stories.

        Args:
            query: a few words.
            limit: the most stories to give, from 1 to 30.
            sort: which come first.
        """
        path = {"relevance": "/search", "newest": "/search_by_date"}[sort]
        parameters = {"query": query, "tags": "story", "hitsPerPage": limit}
        answer = await search.get_json(path, parameters, answer=_Hits)
        return [_story_of_hit(hit) for hit in answer.hits[:limit]]

    @tool(idempotent=True)
    async def read_hacker_news(
        item_id: Annotated[int, msgspec.Meta(ge=1)],
        limit: Annotated[int, msgspec.Meta(ge=0, le=_MAX_COMMENTS)] = 30,
    ) -> Discussion:
        """Read a story of Hacker News and its comments, or a comment and its answers.

        Args:
            item_id: of the story or the comment.
            limit: the most comments to give, from 0 to 200.
        """
        item = await search.get_json(f"/items/{item_id}", answer=_Item)
        return await run_in_thread(partial(_discussion, item, limit))

    @tool(idempotent=True)
    async def list_hacker_news(
        page: _Page = "top", limit: Annotated[int, msgspec.Meta(ge=1, le=_MAX_STORIES)] = 10
    ) -> list[Story]:
        """List the stories that are on a page of Hacker News now.

        Args:
            page: which of its pages.
            limit: the most stories to give, from 1 to 30.
        """
        numbers = await site.get_json(f"/{page}stories.json", answer=list[int])
        return await _stories(site, numbers[:limit])

    return Toolkit(
        "hacker_news",
        [search_hacker_news, read_hacker_news, list_hacker_news],
        description="Find stories on Hacker News and read what is said of them.",
    )


# --- the tools' work ------------------------------------------------------------------------------------------


async def _stories(site: Service, numbers: list[int]) -> list[Story]:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(number: int) -> _SiteItem | None:
        async with slots:
            data = await site.get(f"/item/{number}.json")
        # An item that is not there is `null`.
        return None if data.strip() == b"null" else site.decode(data, _SiteItem)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(number)) for number in numbers]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    items = [task.result() for task in tasks]
    return [_story_of_item(item) for item in items if item is not None and not item.deleted and not item.dead]


def _discussion(item: _Item, limit: int) -> Discussion:
    comments: list[Comment] = []
    more = 0
    left = [(child, 0) for child in reversed(item.children)]
    while left:
        child, depth = left.pop()
        if child.text:
            if len(comments) < limit:
                comments.append(Comment(child.author or "", _text(child.text), depth))
            else:
                more += 1
        left += [(one, depth + 1) for one in reversed(child.children)]
    return Discussion(
        id=item.id,
        title=item.title or "",
        url=item.url or "",
        author=item.author or "",
        points=item.points or 0,
        date=item.created_at,
        text=_text(item.text or ""),
        comments=comments,
        note=f"{more:,} more comments are left out." if more else "",
    )


def _text(html: str) -> str:
    return text_of_fragment(html[: 4 * _MAX_TEXT_CHARS])[:_MAX_TEXT_CHARS]


# --- what the services answer ---------------------------------------------------------------------------------


class _Hit(msgspec.Struct):
    objectID: str  # noqa: N815 - Algolia's name
    title: str | None = None
    url: str | None = None
    author: str | None = None
    points: int | None = None
    num_comments: int | None = None
    created_at: str = ""


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Item(msgspec.Struct):
    id: int
    title: str | None = None
    url: str | None = None
    author: str | None = None
    points: int | None = None
    created_at: str = ""
    text: str | None = None
    children: list[_Item] = []


class _SiteItem(msgspec.Struct):
    id: int
    title: str = ""
    url: str = ""
    by: str = ""
    score: int = 0
    descendants: int = 0
    time: int = 0
    deleted: bool = False
    dead: bool = False


def _story_of_hit(hit: _Hit) -> Story:
    number = int(hit.objectID) if hit.objectID.isascii() and hit.objectID.isdecimal() else 0
    return Story(
        number,
        hit.title or "",
        hit.url or "",
        hit.author or "",
        hit.points or 0,
        hit.num_comments or 0,
        hit.created_at,
    )


def _story_of_item(item: _SiteItem) -> Story:
    date = datetime.fromtimestamp(item.time, UTC).isoformat() if 0 < item.time < 1 << 35 else ""
    return Story(item.id, item.title, item.url, item.by, item.score, item.descendants, date)
