"""`gossamer doctor --online`: whether the services that toolkits use answer a small question."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from gossamer.cli.screen import Screen
from gossamer.errors import GossamerError
from gossamer.tools.builtin import BraveSearch, SearXNG, arxiv, hacker_news, wikipedia
from gossamer.tools.toolkit import Toolkit

__all__ = ["CHECKS", "Check", "OnlineService", "ask_services", "show_services"]

_TIMEOUT = 10.0


class OnlineService(msgspec.Struct, frozen=True):
    """A service that a toolkit uses.

    Attributes:
        name: of the service.
        used_by: the function that gives the toolkit.
        reachable: whether it answered; None where it was not asked.
        problem: why it did not answer, or was not asked.
    """

    name: str
    used_by: str
    reachable: bool | None
    problem: str = ""


class Check(msgspec.Struct, frozen=True):
    """How a service is asked.

    Attributes:
        name: of the service.
        used_by: the function that gives the toolkit.
        url: where the service is.
        ask: puts one small question to the service at a URL; raises where it does not answer.
        variable: is not asked where this variable of the environment is not set; `""` where none is needed.
    """

    name: str
    used_by: str
    url: str
    ask: Callable[[str], Awaitable[Any]]
    variable: str = ""


def _ask_arxiv(url: str) -> Awaitable[Any]:
    return _call(arxiv(base_url=url, timeout=_TIMEOUT), "search_arxiv", "tide", 1)


def _ask_wikipedia(url: str) -> Awaitable[Any]:
    return _call(wikipedia(base_url=url, timeout=_TIMEOUT), "search_wikipedia", "tide", 1)


def _ask_hacker_news(url: str) -> Awaitable[Any]:
    return _call(hacker_news(base_url=url, timeout=_TIMEOUT), "list_hacker_news", "top", 1)


def _ask_hacker_news_search(url: str) -> Awaitable[Any]:
    return _call(hacker_news(search_url=url, timeout=_TIMEOUT), "search_hacker_news", "tide", 1)


def _ask_brave(url: str) -> Awaitable[Any]:
    return BraveSearch(base_url=url, timeout=_TIMEOUT).search("tide", 1)


def _ask_searxng(url: str) -> Awaitable[Any]:
    return SearXNG(url or os.environ["SEARXNG_URL"], timeout=_TIMEOUT).search("tide", 1)


CHECKS = (
    Check("arXiv", "arxiv", "https://export.arxiv.org/api", _ask_arxiv),
    Check("Wikipedia", "wikipedia", "https://en.wikipedia.org/w", _ask_wikipedia),
    Check("Hacker News", "hacker_news", "https://hacker-news.firebaseio.com/v0", _ask_hacker_news),
    Check(
        "The search of Hacker News", "hacker_news", "https://hn.algolia.com/api/v1", _ask_hacker_news_search
    ),
    Check("Brave Search", "web_search", "https://api.search.brave.com/res/v1", _ask_brave, "BRAVE_API_KEY"),
    Check("SearXNG", "web_search", "", _ask_searxng, "SEARXNG_URL"),
)
"""The services, in the order in which they are shown. The URL of SearXNG is that of the environment."""


async def ask_services(checks: tuple[Check, ...] | None = None) -> tuple[OnlineService, ...]:
    """Ask every service at once, each for at most ten seconds.

    Args:
        checks: which and how; `CHECKS` where None.
    """
    return tuple(await asyncio.gather(*map(_ask, CHECKS if checks is None else checks)))


def show_services(screen: Screen, services: tuple[OnlineService, ...]) -> None:
    """Show what came of it.

    Args:
        screen: where to.
        services: as `ask_services` gives them.
    """
    screen.line("\nOnline services", "bold")
    for service in services:
        about = f"{service.name} (toolkit {service.used_by})"
        if service.reachable:
            screen.line(f"  ✓ {about} answers")
        elif service.reachable is None:
            screen.line(f"  - {about}: {service.problem}", "dim")
        else:
            screen.line(f"  ✗ {about}: {service.problem}", "red")


async def _ask(check: Check) -> OnlineService:
    if check.variable and not os.environ.get(check.variable):
        return OnlineService(check.name, check.used_by, None, f"{check.variable} is not set")
    try:
        await check.ask(check.url)
    except GossamerError as error:
        return OnlineService(check.name, check.used_by, reachable=False, problem=str(error))
    return OnlineService(check.name, check.used_by, reachable=True)


def _call(toolkit: Toolkit, name: str, *arguments: Any) -> Awaitable[Any]:
    """Call a tool as a model would."""
    tools: list[Any] = list(toolkit.tools)
    return next(tool for tool in tools if tool.name == name)(*arguments)
