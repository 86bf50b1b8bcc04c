"""Toolkits that come with Gossamer. Each is a function that gives a `Toolkit`."""

from __future__ import annotations

from gossamer.tools.builtin.arxiv import arxiv
from gossamer.tools.builtin.calculator import CalculationError, calculator
from gossamer.tools.builtin.dataframes import dataframes
from gossamer.tools.builtin.files import files
from gossamer.tools.builtin.git import git
from gossamer.tools.builtin.git_process import GitError
from gossamer.tools.builtin.hacker_news import hacker_news
from gossamer.tools.builtin.http_fetch import http_fetch
from gossamer.tools.builtin.python import python
from gossamer.tools.builtin.rows import QueryError
from gossamer.tools.builtin.shell import shell
from gossamer.tools.builtin.shell_on_host import shell_on_host
from gossamer.tools.builtin.sql import sql
from gossamer.tools.builtin.web_search import (
    BraveSearch,
    SearchBackend,
    SearchResult,
    SearXNG,
    TavilySearch,
    web_search,
)
from gossamer.tools.builtin.wikipedia import wikipedia
from gossamer.tools.commands import CommandError
from gossamer.tools.rooted import FilesError

__all__ = [
    "BraveSearch",
    "CalculationError",
    "CommandError",
    "FilesError",
    "GitError",
    "QueryError",
    "SearXNG",
    "SearchBackend",
    "SearchResult",
    "TavilySearch",
    "arxiv",
    "calculator",
    "dataframes",
    "files",
    "git",
    "hacker_news",
    "http_fetch",
    "python",
    "shell",
    "shell_on_host",
    "sql",
    "web_search",
    "wikipedia",
]
