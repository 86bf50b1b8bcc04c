"""Toolkits that come with Gossamer. Each is a function that gives a `Toolkit`."""

from __future__ import annotations

from gossamer.tools.builtin.arxiv import arxiv
from gossamer.tools.builtin.hacker_news import hacker_news
from gossamer.tools.builtin.http_fetch import http_fetch
from gossamer.tools.builtin.web_search import (
    BraveSearch,
    SearchBackend,
    SearchResult,
    SearXNG,
    TavilySearch,
    web_search,
)
from gossamer.tools.builtin.wikipedia import wikipedia

__all__ = [
    "BraveSearch",
    "SearXNG",
    "SearchBackend",
    "SearchResult",
    "TavilySearch",
    "arxiv",
    "hacker_news",
    "http_fetch",
    "web_search",
    "wikipedia",
]
