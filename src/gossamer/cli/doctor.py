"""`gossamer doctor`: what is configured, what can be reached, what is missing and how to get it."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Annotated

import msgspec
from cyclopts import Parameter

import gossamer
from gossamer.cli.choice import base_url, default_model
from gossamer.cli.loop import loop_factory
from gossamer.cli.online import OnlineService, ask_services, show_services
from gossamer.cli.sandboxes import SandboxState, look_for_sandboxes, show_sandboxes
from gossamer.cli.screen import Screen
from gossamer.cli.tools_report import ToolkitState, show_tools, tools_report
from gossamer.errors import ArgumentError, GossamerError
from gossamer.models.catalog import list_models
from gossamer.models.presets import PRESETS, check_model
from gossamer.wire.url import parse_url

__all__ = ["Library", "OpenFiles", "Provider", "Report", "doctor"]

# Files that a process has open beside its connections: standard streams, event loop, logs, a database.
_OTHER_FILES = 64
_COMFORTABLE_FILES = 10_000

_NEEDED = {
    "cachebox": "cachebox",
    "cyclopts": "cyclopts",
    "docstring_parser": "docstring-parser",
    "httptools": "httptools",
    "jiter": "jiter",
    "msgspec": "msgspec",
    "rich": "rich",
}
_OPTIONAL = {
    "defusedxml": ("defusedxml", "the toolkit arxiv", "pip install 'gossamer[web]'"),
    "duckdb": ("duckdb", "databases and tables for agents", "pip install 'gossamer[sql]'"),
    "html_to_markdown": (
        "html-to-markdown",
        "the toolkits http_fetch, web_search, wikipedia and hacker_news",
        "pip install 'gossamer[web]'",
    ),
    "uvloop": ("uvloop", "a faster event loop", "pip install uvloop; not for Windows"),
    "prometheus_client": ("prometheus-client", "metrics", "pip install 'gossamer[metrics]'"),
    "mcp": ("mcp", "tools of MCP servers", "pip install 'gossamer[mcp]'"),
    "numpy": ("numpy", "memories found by vectors", "pip install 'gossamer[vectors]'"),
    "psycopg": (
        "psycopg",
        "sessions in Postgres; Postgres for agents",
        "pip install 'gossamer[postgres]' or 'gossamer[sql]'",
    ),
    "tiktoken": ("tiktoken", "exact token counts for OpenAI's models", "pip install 'gossamer[tokens]'"),
    "redis": ("redis", "caches in Redis or Valkey", "pip install 'gossamer[redis]'"),
    "yaml": ("pyyaml", "skills", "pip install 'gossamer[skills]'"),
    "pydantic_monty": ("pydantic-monty", "the sandbox monty", "pip install 'gossamer[sandbox]'"),
    "pyseccomp": ("pyseccomp", "the sandbox bubblewrap", "pip install 'gossamer[sandbox]'; for Linux alone"),
    "h11": ("h11", "the network of the sandbox bubblewrap", "pip install 'gossamer[sandbox]'"),
    "packaging": ("packaging", "packages in the sandbox bubblewrap", "pip install 'gossamer[sandbox]'"),
    "sentence_transformers": (
        "sentence-transformers",
        "embeddings in this process",
        "pip install 'gossamer[local]'",
    ),
}


class Library(msgspec.Struct, frozen=True):
    """A library, and whether it is there.

    Attributes:
        name: as it is imported.
        version: None where it is missing.
        needed: whether Gossamer works without it.
        gives: what it is for, where it is optional.
        get: how to get it, where it is missing.
    """

    name: str
    version: str | None
    needed: bool
    gives: str = ""
    get: str = ""


class Provider(msgspec.Struct, frozen=True):
    """A provider that is known by name.

    Attributes:
        name: as in `name:model`.
        url: the origin that is asked.
        key_env: the variable that holds the key; None where none is needed.
        key_set: whether it is set.
        configured: whether its key or its URL is set, so that it was asked for its models.
        reachable: whether it listed its models; None where it was not asked.
        problem: why it did not.
    """

    name: str
    url: str
    key_env: str | None
    key_set: bool
    configured: bool
    reachable: bool | None = None
    problem: str = ""


class OpenFiles(msgspec.Struct, frozen=True):
    """How many files, and so connections, a process may have open.

    Attributes:
        limit: the limit in force; None where there is none.
        most: how far it may be raised without more rights; None where there is no bound.
        streams: how many streams at once that allows, one connection each.
    """

    limit: int | None
    most: int | None
    streams: int | None


class Report(msgspec.Struct, frozen=True):
    """What `gossamer doctor` found.

    Attributes:
        version: Gossamer's.
        python: version and build of Python.
        system: the operating system and the processor.
        processors: how many there are.
        model: what `gossamer run` uses here.
        libraries: needed and optional ones.
        providers: those known by name.
        tools: the toolkits that come along, and whether they can be used here.
        sandboxes: whether code that nobody has read can be run here, in which, and why not.
        open_files: the limit, or None where the system has no such thing.
        online: the services that toolkits use, as far as they were asked for.
        broken: what is needed and does not work; empty where all is well.
    """

    version: str
    python: str
    system: str
    processors: int
    model: str
    libraries: tuple[Library, ...]
    providers: tuple[Provider, ...]
    tools: tuple[ToolkitState, ...]
    sandboxes: tuple[SandboxState, ...]
    open_files: OpenFiles | None
    online: tuple[OnlineService, ...]
    broken: tuple[str, ...]


def doctor(
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
    online: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show what is configured, what can be reached, what is missing and how to get it.

    Keys are never shown. Providers with a key or a URL of yours are asked for the list of their models, which shows
    whether they can be reached and take the key, and costs no tokens.

    Args:
        json: print the findings as JSON.
        online: ask the services that toolkits use (arXiv, Wikipedia, Hacker News; Brave Search where BRAVE_API_KEY is
            set, SearXNG where SEARXNG_URL is) one small question each.

    Returns:
        The exit code: 1 where something that is needed does not work.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        providers = runner.run(_providers())
        services = runner.run(ask_services()) if online else ()
        sandboxes = runner.run(look_for_sandboxes())
    model = default_model()
    libraries = _libraries()
    report = Report(
        version=gossamer.__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.machine()}",
        processors=os.cpu_count() or 1,
        model=model,
        libraries=libraries,
        providers=providers,
        tools=tools_report(sandboxes),
        sandboxes=sandboxes,
        open_files=_open_files(),
        online=services,
        broken=(*_broken_libraries(libraries), *_broken_model(model, providers)),
    )
    if json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        _show(report)
    return 1 if report.broken else 0


def _libraries() -> tuple[Library, ...]:
    found = [Library(name, _version(name, package), needed=True) for name, package in _NEEDED.items()]
    for name, (package, gives, get) in _OPTIONAL.items():
        version = _version(name, package)
        found.append(Library(name, version, needed=False, gives=gives, get="" if version else get))
    return tuple(found)


def _version(name: str, package: str) -> str | None:
    try:
        if name in _NEEDED:
            import_module(name)
        elif find_spec(name) is None:  # not loaded: sentence-transformers takes seconds
            return None
        return metadata.version(package)
    except (ImportError, metadata.PackageNotFoundError):
        return None


async def _providers() -> tuple[Provider, ...]:
    return tuple(await asyncio.gather(*map(_provider, PRESETS)))


async def _provider(name: str) -> Provider:
    preset = PRESETS[name]
    key_set = preset.key() is not None
    configured = key_set or preset.url() is not None
    url = base_url(name)
    problem = ""
    try:
        url = parse_url(url, name=preset.url_env or "url").origin if url else ""
        if configured:
            await list_models(name)
    except GossamerError as error:
        problem = str(error)
    reachable = not problem if configured or problem else None
    return Provider(name, url, preset.key_env, key_set, configured, reachable, problem)


def _open_files() -> OpenFiles | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, most = (
        None if number == resource.RLIM_INFINITY else number
        for number in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    return OpenFiles(limit, most, None if limit is None else max(limit - _OTHER_FILES, 0))


def _broken_libraries(libraries: tuple[Library, ...]) -> list[str]:
    missing = [library.name for library in libraries if library.needed and library.version is None]
    return [
        f"{name} is missing or cannot be loaded; reinstall with pip install --force-reinstall gossamer"
        for name in missing
    ]


def _broken_model(model: str, providers: tuple[Provider, ...]) -> list[str]:
    """Say why the model that is used by default cannot answer."""
    try:
        check_model(model)
    except ArgumentError as error:
        return [f"GOSSAMER_MODEL: {error}"]
    for provider in providers:
        if provider.name == model.partition(":")[0]:
            if provider.problem:
                return [f"{model}: {provider.problem}"]
            if provider.key_env and not provider.configured:
                return [f"{model}: {provider.key_env} is not set"]
    return []


def _show(report: Report) -> None:
    screen = Screen()
    screen.line(
        f"Gossamer {report.version}, {report.python}, {report.system}, {report.processors} processors", "bold"
    )
    screen.line(f"gossamer run uses the model {report.model}")

    screen.line("\nLibraries", "bold")
    for library in report.libraries:
        if library.version is not None:
            screen.line(f"  ✓ {library.name} {library.version}")
        elif library.needed:
            screen.line(f"  ✗ {library.name} is missing", "red")
        else:
            screen.line(f"  - {library.name} is missing: {library.gives}; {library.get}", "yellow")

    screen.line("\nProviders", "bold")
    for provider in report.providers:
        _show_provider(screen, provider)

    show_tools(screen, report.tools)
    show_sandboxes(screen, report.sandboxes)
    if report.online:
        show_services(screen, report.online)

    screen.line("\nOpen files", "bold")
    _show_open_files(screen, report.open_files)

    screen.line("\nServices", "bold")
    screen.line("  none is needed, and none is used")

    if report.broken:
        screen.line("")
        for problem in report.broken:
            screen.line(f"✗ {problem}", "red")


def _show_provider(screen: Screen, provider: Provider) -> None:
    if provider.key_env is None:
        key = "needs no key"
    else:
        key = f"{provider.key_env} is {'set' if provider.key_set else 'not set'}"
    about = f"{provider.name}: {key}"
    if provider.reachable:
        screen.line(f"  ✓ {about}; {provider.url} answers")
    elif provider.problem:
        screen.line(f"  ✗ {about}; {provider.problem}", "red")
    else:
        screen.line(f"  - {about}", "dim")


def _show_open_files(screen: Screen, files: OpenFiles | None) -> None:
    if files is None or files.limit is None:
        screen.line("  no limit")
        return
    screen.line(f"  {files.limit:,}: about {files.streams:,} streams at once, a connection each")
    if files.limit < _COMFORTABLE_FILES and (files.most is None or files.most > files.limit):
        most = "as far as you like" if files.most is None else f"up to {files.most:,}"
        screen.line(f"    to have more: ulimit -n {files.most or 65_536} before you start ({most})", "yellow")
