"""`gossamer resume`: the runs of a store whose process died go on from what is stored."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from cyclopts import Parameter

from gossamer.agent import Agent
from gossamer.cli.choice import choose_agents
from gossamer.cli.deps import choose_deps, wanted_deps
from gossamer.cli.screen import Screen, printable
from gossamer.cli.stores import choose_store, every_session, in_store, status_of
from gossamer.context import AgentLike
from gossamer.errors import ArgumentError, ResumeError, SessionBusyError, SessionError
from gossamer.fingerprint import changes, fingerprint
from gossamer.handing_over import successors
from gossamer.models.registry import resolve
from gossamer.session import Session
from gossamer.stores.base import SessionInfo, Store

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["resume"]

Outcome: TypeAlias = Literal["ended", "waits", "left alone", "failed"]


def resume(
    target: str,
    /,
    store: str | None = None,
    *,
    session: str | None = None,
    deps: str | None = None,
    without_deps: Annotated[bool, Parameter(negative="")] = False,
    also_changed: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    concurrency: int = 8,
) -> int:
    """Go on with the runs of a store whose process died; those of other processes that live are left alone.

    A tool with a stored result never runs again. One that was started without a result runs again only if it is
    idempotent; else the model is told that its outcome is unknown. What waits for a decision is listed and left alone.

    Args:
        target: your agents, as app.py:agents: one, a list or dict of them, or a function that gives them.
        store: the store, as sqlite:///chats.db; that of GOSSAMER_STORE where it is not said.
        session: the id of the one session to go on with; all that broke off where it is not said.
        deps: the function that gives the deps of all these runs, as app.py:make_deps; it is called once.
        without_deps: go on too where a tool or the instructions say that they want deps and --deps names none.
        also_changed: go on too where the agent is not the one any more that began the run.
        dry_run: show what would be done, and do nothing.
        concurrency: how many runs go on at once.

    Returns:
        The exit code: 1 where a run failed, was stopped by a limit, or was left alone because no agent of its name is
        there, its agent has changed, or it wants deps.

    Raises:
        GossamerError: one of its children says what went wrong.
    """
    if concurrency < 1:
        raise ArgumentError(f"--concurrency must be at least 1, not {concurrency}")
    if deps is not None and without_deps:
        raise ArgumentError("say --deps or --without-deps, not both")
    has_deps = deps is not None or without_deps
    agents = _Agents(choose_agents(target), also_changed=also_changed, has_deps=has_deps)
    make_deps = None if deps is None else choose_deps(deps)

    async def work(kept: Store) -> int:
        screen = Screen()
        broken = await _broken(kept, session, screen)
        chosen = [one for info in broken if (one := agents.choose(info, screen)) is not None]
        if dry_run or not broken:
            return 0
        for agent in {id(one.agent): one.agent for one in chosen}.values():
            if isinstance(agent.model, str):
                resolve(agent.model)  # a missing key is told before anything goes on
        if chosen and not has_deps:
            screen.note("no deps are given: in these runs context.deps is None; see --deps")
        made = await make_deps() if make_deps is not None and chosen else None
        outcomes = await _resume_all(kept, chosen, made, screen, concurrency)
        refused = len(broken) - len(chosen)
        outcomes["left alone"] += refused
        screen.note(_summary(outcomes, len(broken)))
        return 1 if outcomes["failed"] or refused else 0

    return in_store(choose_store(store), work)


class _Chosen(msgspec.Struct, frozen=True):
    """A session whose run is to go on, and the agent that does it."""

    info: SessionInfo
    agent: Agent[Any, Any]


class _Agents:
    """The agents that are here, by the names of those that may have begun a run.

    That is the agent itself, or one to whom it hands over: then it is asked all the same, and hands over.
    """

    def __init__(self, agents: list[Agent[Any, Any]], *, also_changed: bool, has_deps: bool) -> None:
        self._also_changed = also_changed
        self._has_deps = has_deps
        self._asked: dict[str, Agent[Any, Any]] = {one.name: one for one in agents}
        self._began: dict[str, AgentLike] = dict(self._asked)
        for one in agents:
            for other in () if callable(one.tools) else successors(one.tools):
                self._asked.setdefault(other.name, one)
                self._began.setdefault(other.name, other)

    def choose(self, info: SessionInfo, screen: Screen) -> _Chosen | None:
        """Say what becomes of a session; give who goes on with it."""
        name = info.agent or ""
        about = f"{printable(info.id)}: run {info.run} of {printable(name)}"
        agent = self._asked.get(name)
        if agent is None:
            here = printable(", ".join(sorted(self._asked))) or "none"
            screen.line(
                f"{about} is left alone: there is no agent of that name here; there are: {here}", "yellow"
            )
            return None
        changed = self.has_changed(info)
        what = ", ".join(changes(info.fingerprint, fingerprint(self._began[name]))) if changed else ""
        if changed and not self._also_changed:
            screen.line(f"{about} is left alone: its agent has changed: {what}; see --also-changed", "red")
            return None
        if not self._has_deps and (wanted := wanted_deps(agent)):
            screen.line(
                f"{about} is left alone: {wanted}; say --deps app.py:make_deps, or --without-deps", "red"
            )
            return None
        if changed:
            screen.line(f"{about} is to go on, though its agent has changed: {what}", "yellow")
        else:
            screen.line(f"{about} is to go on, its agent has not changed")
        return _Chosen(info, agent)

    def has_changed(self, info: SessionInfo) -> bool:
        """Whether an agent is here that is not any more as it was when it began a run."""
        began = self._began.get(info.agent or "")
        return began is not None and bool(info.fingerprint) and fingerprint(began) != info.fingerprint


async def _broken(store: Store, only: str | None, screen: Screen) -> list[SessionInfo]:
    """List the sessions that broke off, and show those that wait for decisions."""
    broken = [info async for info in every_session(store, "broken") if only in {None, info.id}]
    if only is not None:
        if not broken:
            await _tell_why_not(store, only, screen)
        return broken
    async for info in every_session(store, "paused"):
        screen.line(f"{printable(info.id)} waits for a decision, and is left alone", "dim")
    if not broken:
        screen.note("no run broke off")
    return broken


async def _tell_why_not(store: Store, name: str, screen: Screen) -> None:
    if await store.load(name) is None:
        raise SessionError(f"there is no session {name!r} in {store.url}")
    session: Session[Any] = Session(name, store=store, merge=lambda state, _: state)
    await session.load()
    told = {
        "idle": "has no unfinished run",
        "running": "is held by a process that lives, and is left alone",
        "paused": "waits for a decision, and is left alone",
        "broken": "broke off this very moment; ask again",
    }
    screen.line(f"{printable(name)} {told[await status_of(store, session)]}")


# --- going on -----------------------------------------------------------------------------------------------


async def _resume_all(
    store: Store, chosen: list[_Chosen], deps: Any, screen: Screen, concurrency: int
) -> Counter[Outcome]:
    """Let the runs go on, some at a time, and tell what becomes of each; count what did."""
    waiting = iter(chosen)
    outcomes: Counter[Outcome] = Counter()
    styles: dict[Outcome, str] = {"failed": "red", "left alone": "yellow"}

    async def go_on(tell: Callable[[str, str], None]) -> None:
        for one in waiting:
            outcome, words = await _resume(store, one, deps)
            outcomes[outcome] += 1
            tell(f"{printable(one.info.id)} {printable(words)}", styles.get(outcome, "green"))

    with _progress(len(chosen), screen) as tell:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(chosen))):
                group.create_task(go_on(tell))
    return outcomes


async def _resume(store: Store, one: _Chosen, deps: Any) -> tuple[Outcome, str]:
    """Let a run go on; tell what became of it, in a word and in several."""
    session: Session[Any] = Session(one.info.id, store=store, when_busy="refuse")
    try:
        await session.load()
        run = session.unfinished
        if run is None or run.run != one.info.run:
            return "left alone", "went on elsewhere meanwhile"
        try:
            result = await one.agent.resume(session, deps=deps, user=run.user)
        except SessionBusyError:
            return "left alone", "is held by another process meanwhile, and is left alone"
        except ResumeError:
            await session.load()
            if session.unfinished is None:
                return "left alone", "went on elsewhere meanwhile"
            raise
        finally:
            await session.aclose()
    except Exception as error:  # noqa: BLE001 - the user's own tools and middleware may raise anything
        return "failed", f"failed: {type(error).__name__}: {error}"
    if result.pending:
        names = ", ".join(pending.call.name for pending in result.pending)
        return "waits", f"waits for a decision about {names}"
    if result.stopped is not None:
        return "failed", f"was stopped: {result.stopped}"
    return "ended", f"has ended: {' '.join(str(result.value).split())[:200]}"


def _summary(outcomes: Counter[Outcome], broken: int) -> str:
    """Say how many of the runs that broke off went on, and what became of the others."""
    words = [f"{outcomes['ended']} of {broken} went on to their end"]
    waits = outcomes["waits"]
    if waits:
        words.append(f"{waits} {'waits' if waits == 1 else 'wait'} for a decision")
    others: tuple[Outcome, ...] = ("left alone", "failed")
    words += [f"{outcomes[one]} {one}" for one in others if outcomes[one]]
    return ", ".join(words)


@contextmanager
def _progress(count: int, screen: Screen) -> Generator[Callable[[str, str], None]]:
    """Give what tells of a run that has ended: below the lines there is a bar, on a terminal."""
    if not sys.stdout.isatty() or not count:
        yield screen.line
        return
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

    with Progress(console=Console(), transient=True) as bar:
        task = bar.add_task("resuming", total=count)

        def tell(words: str, style: str) -> None:
            bar.console.print(Text(words, style), soft_wrap=True)
            bar.advance(task)

        yield tell
