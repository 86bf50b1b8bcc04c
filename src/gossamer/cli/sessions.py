"""`gossamer sessions`: what a store holds, to be listed, shown, exported, imported and deleted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from gossamer.cli.screen import Screen, counted, describe_usage, printable
from gossamer.cli.stores import choose_store, in_store, status_of
from gossamer.errors import ArgumentError, SessionError
from gossamer.messages import Audio, File, Image, Message, Refusal, Text, ToolCall, ToolResult
from gossamer.records import (
    HandoffRecord,
    MessageRecord,
    Record,
    RunFailedRecord,
    RunStartedRecord,
    ToolResultRecord,
    ViewMovedRecord,
)
from gossamer.session import Session
from gossamer.stores import export_session, import_session
from gossamer.stores.base import SessionInfo, SessionStatus, Store
from gossamer.stores.changes import changes_of

__all__ = ["sessions"]

_PAGE = 100

sessions = App(
    name="sessions",
    help="List the sessions of a store; show, export, import or delete one.",
    help_format="plaintext",
)
"""The command and those below it."""


@sessions.default
@sessions.command(name=("list", "ls"))
def list_sessions(
    store: str | None = None,
    *,
    user: str | None = None,
    agent: str | None = None,
    status: SessionStatus | None = None,
    limit: int = 50,
    before: float | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """List the sessions of a store, those changed last first.

    Args:
        store: the store, as sqlite:///chats.db; that of GOSSAMER_STORE where it is not said.
        user: only those begun on this user's behalf.
        agent: only those whose last run is this agent's.
        status: only those that are idle, running, paused (they wait for a decision) or broken (their process died).
        limit: the most that are listed.
        before: only those changed before this time, in seconds since the epoch; for the next page.
        json: print a line of JSON a session.

    Raises:
        GossamerError: one of its children says what went wrong.
    """
    if limit < 1:
        raise ArgumentError(f"--limit must be at least 1, not {limit}")

    async def work(kept: Store) -> list[SessionInfo]:
        return await kept.list_sessions(user=user, agent=agent, status=status, limit=limit, before=before)

    found = in_store(choose_store(store), work)
    if json:
        for info in found:
            sys.stdout.write(msgspec.json.encode(info).decode() + "\n")
        return
    if found:
        _print_table(found)
    else:
        Screen().note("no sessions")
    if len(found) == limit:
        Screen().note(f"the next page: --before {found[-1].updated!r}")


@sessions.command
def show(session: str, /, store: str | None = None) -> None:
    """Show what was said in a session, what it used and what it waits for.

    Args:
        session: its id.
        store: the store, as sqlite:///chats.db; that of GOSSAMER_STORE where it is not said.

    Raises:
        GossamerError: one of its children says what went wrong.
    """
    in_store(choose_store(store), lambda kept: _show(kept, session))


@sessions.command
def export(session: str, /, store: str | None = None) -> None:
    """Write a session to standard output, as lines of JSON: gossamer sessions export ID > session.jsonl.

    Args:
        session: its id.
        store: the store, as sqlite:///chats.db; that of GOSSAMER_STORE where it is not said.

    Raises:
        GossamerError: one of its children says what went wrong.
    """

    async def work(kept: Store) -> None:
        async with aclosing(export_session(kept, session)) as lines:
            async for line in lines:
                sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    in_store(choose_store(store), work)


@sessions.command(name="import")
def import_(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    store: str | None = None,
    *,
    id: Annotated[str | None, Parameter(name="--id")] = None,  # noqa: A002 - the word users know
) -> None:
    """Read a session that was exported, and print its id.

    Args:
        file: the file; - for standard input.
        store: the store, as sqlite:///chats.db; that of GOSSAMER_STORE where it is not said.
        id: the id that it gets, in place of its own.

    Raises:
        GossamerError: one of its children says what went wrong.
    """
    path = Path(file)
    if file != "-" and not path.is_file():
        raise ArgumentError(f"there is no file {file!r}")
    kept = choose_store(store, make=True)

    async def work(kept: Store) -> str:
        if file == "-":
            return await import_session(kept, sys.stdin.buffer, id)
        with path.open("rb") as lines:  # noqa: ASYNC230 - nothing else runs on this loop
            return await import_session(kept, lines, id)

    Screen().line(in_store(kept, work))


@sessions.command
def delete(
    session: str | None = None,
    /,
    store: str | None = None,
    *,
    user: str | None = None,
    yes: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Delete a session, or all that is kept of a user.

    Args:
        session: its id.
        store: the store, as sqlite:///chats.db; that of GOSSAMER_STORE where it is not said.
        user: delete every session begun on this user's behalf and what is remembered of them, in place of one session.
        yes: do not ask.

    Raises:
        GossamerError: one of its children says what went wrong.
    """
    if session is None and user is None:
        raise ArgumentError("say which session to delete, or which user's with --user")
    if session is not None and user is not None:
        raise ArgumentError(f"say a session to delete ({session!r}) or --user ({user!r}), not both")
    kept = choose_store(store)
    what = f"session {session!r}" if user is None else f"all that is kept of user {user!r}"
    question = f"Delete {what} from {kept.url}? It cannot be had back. (y/N) "
    if not yes and not _is_wanted(question):
        raise ArgumentError("nothing was deleted")

    async def work(kept: Store) -> int:
        if user is not None:
            return await kept.delete_user(user)
        return int(await kept.delete_session(session or ""))

    deleted = in_store(kept, work)
    if user is None and not deleted:
        raise SessionError(f"there is no session {session!r} in {kept.url}")
    # How much else there was, the store does not tell.
    others = "" if user is None else f", and what else was kept of user {user!r}, memories among it"
    Screen().note(f"{counted(deleted, 'session')} deleted{others}")


def _is_wanted(question: str) -> bool:
    if not sys.stdin.isatty():
        raise ArgumentError("nobody is there to be asked; say --yes to delete")
    try:
        return input(f"{printable(question)} ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


# --- a table ------------------------------------------------------------------------------------------------


def _print_table(found: list[SessionInfo]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as Words

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("session", "status", "agent", "user"):
        table.add_column(name, overflow="fold")
    table.add_column("messages", justify="right")
    table.add_column("changed", no_wrap=True)
    table.add_column("title", overflow="ellipsis", no_wrap=True)
    styles = {"running": "green", "paused": "yellow", "broken": "red"}
    for info in found:
        table.add_row(
            Words(printable(info.id)),
            Words(info.status, styles.get(info.status, "")),
            Words(printable(info.agent or "")),
            Words(printable(info.user or "")),
            f"{info.messages:,}",
            _time(info.updated),
            Words(printable(info.title)),
        )
    # In a file or a pipe nothing is cut.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, tz=UTC).astimezone():%Y-%m-%d %H:%M:%S}"


# --- a transcript -------------------------------------------------------------------------------------------


async def _show(store: Store, name: str) -> None:
    if await store.load(name) is None:
        raise SessionError(f"there is no session {name!r} in {store.url}")
    screen = Screen()
    session: Session[Any] = Session(name, store=store, merge=lambda state, _: state)
    await session.load()
    place = said = 0
    while records := await session.read(place, place + _PAGE):
        for record in records:
            for line, style in _told(record):
                screen.line(line, style)
        place += len(records)
        said += changes_of(records).messages  # as the list counts them
    status = await status_of(store, session)
    run = (
        "" if session.unfinished is None else f", run {session.unfinished.run} of {session.unfinished.agent}"
    )
    count = f"{counted(said, 'message')}, {len(session.messages):,} in view, {counted(place, 'record')}"
    screen.note(f"session {name}: {status}{run}, {count}")
    screen.note(describe_usage(session.usage))
    for waiting in session.pending:
        late = ", too late by now" if waiting.expired else ""
        asked = f"{waiting.call.name} {waiting.call.arguments}"
        screen.line(f"? {asked} waits for a decision ({waiting.kind}, {waiting.call_id}{late})", "yellow")


def _told(record: Record) -> Iterator[tuple[str, str]]:
    """Give the lines in which a record is told, with their styles; none for most."""
    match record:
        case MessageRecord(message=message):
            marks = [mark for mark in ("interrupted", "withdrawn", "repair") if getattr(record, mark)]
            yield from _said(message, f" ({', '.join(marks)})" if marks else "")
        case ToolResultRecord(result=result):
            yield from _result(result)
        case RunStartedRecord(agent=agent, at=at):
            yield f"[{_time(at)}, {agent}]", "dim"
        case RunFailedRecord(error=error, message=message):
            yield f"[failed: {error}: {message}]", "red"
        case HandoffRecord(to=to):
            yield f"[{to or 'whoever is asked'} answers from here on]", "dim"
        case ViewMovedRecord(reason=reason, begin=begin, end=end):
            yield f"[records {begin} to {end - 1} leave the view: {reason}]", "dim"
        case _:
            pass


def _said(message: Message, marks: str) -> Iterator[tuple[str, str]]:
    who = f"{message.author or message.role}{marks}"
    for part in message.parts:
        match part:
            case Text(text=text):
                yield f"{who}: {text}", "bold" if message.role == "user" else ""
            case Refusal(text=text):
                yield f"{who} declines: {text}", ""
            case ToolCall():
                yield f"→ {part.name} {part.arguments}", "cyan"
            case ToolResult():
                yield from _result(part)
            case Image() | Audio() | File():
                kind = type(part).__name__.lower()
                size = part.url or f"{len(part.data or b''):,} bytes"
                yield f"{who}: [{kind}, {part.media_type}, {size}]", "dim"
            case _:
                pass


def _result(result: ToolResult) -> Iterator[tuple[str, str]]:
    outcome = "" if result.outcome == "ok" else f" ({result.outcome})"
    yield f"← {result.name}{outcome}: {result.text}", "green" if result.outcome == "ok" else "red"
