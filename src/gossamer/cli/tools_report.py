"""What the toolkits that come with Gossamer need, and whether it is here: a part of `gossamer doctor`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from ctypes.util import find_library
from importlib import metadata
from importlib.util import find_spec

import msgspec

from gossamer.cli.sandboxes import SandboxState
from gossamer.cli.screen import Screen
from gossamer.tools.builtin.git_process import OLDEST, git_version

__all__ = ["NEEDS", "Need", "ToolkitState", "show_tools", "tools_report"]


class Need(msgspec.Struct, frozen=True):
    """What a toolkit needs beside Gossamer. Another toolkit is another row of `NEEDS`.

    Attributes:
        toolkit: the function that makes it, and what of it where it is a part.
        check: looks on this machine alone; gives what was found, with its version, or None.
        get: how to get it.
        sandbox: the name of the sandbox that it runs things in; None where it needs none.
    """

    toolkit: str
    check: Callable[[], str | None]
    get: str
    sandbox: str | None = None


class ToolkitState(msgspec.Struct, frozen=True):
    """Whether a toolkit can be used here.

    Attributes:
        name: the function that makes it, and what of it where it is a part.
        ready: whether it can.
        found: what it uses, with its version.
        get: how to get what is missing; empty where nothing is.
    """

    name: str
    ready: bool
    found: str
    get: str = ""


def tools_report(sandboxes: Sequence[SandboxState]) -> tuple[ToolkitState, ...]:
    """Look for what each toolkit needs, without asking anybody on a network.

    Args:
        sandboxes: which there are.
    """
    by_name = {state.name: state for state in sandboxes}
    return tuple(_state(need, by_name) for need in NEEDS)


def show_tools(screen: Screen, states: tuple[ToolkitState, ...]) -> None:
    """Show what `tools_report` found."""
    screen.line("\nTools", "bold")
    for state in states:
        if state.ready:
            screen.line(f"  ✓ {state.name}: {state.found}")
        else:
            screen.line(f"  - {state.name}: not ready; {state.get}", "yellow")


def _state(need: Need, sandboxes: Mapping[str, SandboxState]) -> ToolkitState:
    found = need.check()
    if found is None:
        return ToolkitState(need.toolkit, ready=False, found="", get=need.get)
    if need.sandbox is None:
        return ToolkitState(need.toolkit, ready=True, found=found)
    sandbox = sandboxes[need.sandbox]
    if not sandbox.ready:
        return ToolkitState(
            need.toolkit, ready=False, found="", get=f"it needs the sandbox {sandbox.name}, see below"
        )
    return ToolkitState(
        need.toolkit, ready=True, found=", ".join(filter(None, (found, f"the sandbox {sandbox.name}")))
    )


# --- checks ---------------------------------------------------------------------------------------------------------


def _nothing() -> str:
    return "needs nothing more"


def _sandbox_alone() -> str:
    return ""


def _groups() -> str | None:
    return "unprotected, needs nothing more" if hasattr(os, "killpg") else None


def _folders() -> str | None:
    return "needs nothing more" if os.open in os.supports_dir_fd else None


def _library(module: str, distribution: str = "") -> str | None:
    """Give a library with its version, without loading it."""
    name = distribution or module
    try:
        return f"{name} {metadata.version(name)}" if find_spec(module) is not None else None
    except (ImportError, ValueError, metadata.PackageNotFoundError):
        return None


def _html() -> str | None:
    return _library("html_to_markdown", "html-to-markdown")


def _psycopg() -> str | None:
    found = _library("psycopg")
    # It is made of Python; what speaks to the server is in one of these.
    speaks = find_spec("psycopg_binary") or find_spec("psycopg_c") or find_library("pq")
    return found if speaks else None


def _git() -> str | None:
    version = git_version()
    usable = version is not None and version >= OLDEST and hasattr(os, "killpg")
    return f"git {'.'.join(map(str, version))}" if version and usable else None


_WEB = "pip install 'gossamer[web]'"

NEEDS = (
    Need("calculator", _nothing, ""),
    Need("files", _folders, "it needs Linux, macOS or BSD"),
    Need("sql on SQLite", _nothing, ""),
    Need("sql on DuckDB", lambda: _library("duckdb"), "pip install 'gossamer[sql]'"),
    Need("sql on Postgres", _psycopg, "pip install 'gossamer[sql]'"),
    Need("dataframes", lambda: _library("duckdb"), "pip install 'gossamer[dataframes]'"),
    Need("git", _git, f"install git {'.'.join(map(str, OLDEST))} or newer, for example apt-get install git"),
    Need("http_fetch", _html, _WEB),
    Need("web_search", _html, _WEB),
    Need("arxiv", lambda: _library("defusedxml"), _WEB),
    Need("wikipedia", _html, _WEB),
    Need("hacker_news", _html, _WEB),
    Need("MCP servers", lambda: _library("mcp"), "pip install 'gossamer[mcp]'"),
    Need("skills", lambda: _library("yaml", "pyyaml"), "pip install 'gossamer[skills]'"),
    Need(
        "skills' scripts", lambda: _library("yaml", "pyyaml"), "pip install 'gossamer[skills]'", "bubblewrap"
    ),
    Need("python on Monty", _sandbox_alone, "", "monty"),
    Need("python on bubblewrap", _sandbox_alone, "", "bubblewrap"),
    Need("shell", _sandbox_alone, "", "bubblewrap"),
    Need("shell_on_host", _groups, "it needs Linux, macOS or BSD"),
)
