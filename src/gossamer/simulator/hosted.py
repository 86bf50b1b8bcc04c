"""Tools that the simulated provider runs on its side: what they are asked, and what they find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import msgspec

__all__ = ["HOSTED", "HostedUse", "found_in", "hosted_use"]

# The tools that are simulated, by the names that all wire formats share here.
HOSTED = ("web_search", "code_execution")

_PAGE = {"url": "https://example.org/simulated", "title": "A simulated page"}


class HostedUse(msgspec.Struct, frozen=True):
    """A call of a tool of the provider's, and what came of it.

    Attributes:
        name: `web_search` or `code_execution`.
        asked: the query, or the code.
        pages: what a search found, as (URL, title).
        printed: what the code printed.
    """

    name: str
    asked: str
    pages: tuple[tuple[str, str], ...] = ()
    printed: str = ""

    def told(self) -> str:
        """What was found, in words."""
        return ", ".join(title for _, title in self.pages) if self.name == "web_search" else self.printed


def hosted_use(name: str, given: Mapping[str, Any], result: Any = None) -> HostedUse:
    """Make the call of a tool; what is not given is the same for everybody.

    Args:
        name: one of `HOSTED`.
        given: the query under `query`, or the code under `code`.
        result: the pages that a search found, each with `url` and `title`; or what the code printed.

    Raises:
        ValueError: the result is of another form.
    """
    if name == "web_search":
        pages: Any = [_PAGE] if result is None else result
        if not _are_pages(pages):
            raise ValueError("the result of a web_search is a list of objects with `url` and `title`")
        found = tuple((page["url"], page["title"]) for page in pages)
        return HostedUse(name, str(given.get("query", "simulated")), found)
    printed = "simulated\n" if result is None else result
    if not isinstance(printed, str):
        raise ValueError("the result of a code_execution is the text that it printed")  # noqa: TRY004 - a value
    return HostedUse(name, str(given.get("code", "print('simulated')")), (), printed)


def _are_pages(pages: Any) -> TypeGuard[list[dict[str, str]]]:
    return isinstance(pages, list) and all(
        isinstance(page, dict) and all(isinstance(page.get(key), str) for key in ("url", "title"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType, reportUnknownVariableType]
        for page in pages  # pyright: ignore[reportUnknownVariableType]
    )


def found_in(uses: Sequence[HostedUse]) -> list[tuple[str, str]]:
    """All pages that were found, as (URL, title): what is said then rests on them."""
    return [page for use in uses for page in use.pages]
