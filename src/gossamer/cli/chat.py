"""`gossamer chat`: a conversation at the prompt, or line by line out of a pipe.

Between two runs the program waits for the user and nothing else, so input is read in the plain blocking way; a run
is driven by the event loop until it ends, pauses for a decision, or is cancelled by Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from gossamer.agent import Agent
from gossamer.cli.choice import choose_agent, describe_model
from gossamer.cli.loop import loop_factory
from gossamer.cli.screen import Screen, counted, describe_usage
from gossamer.cli.stores import choose_session, status_of
from gossamer.errors import GossamerError, SessionError
from gossamer.events import UsageUpdated
from gossamer.models.registry import resolve
from gossamer.records import Answer, Approve, Decision, Deny, PendingCall
from gossamer.result import Result
from gossamer.session import Session
from gossamer.stores.base import Store
from gossamer.stream import RunStream
from gossamer.usage import Usage

__all__ = ["chat"]

_CHOICES = "  (a)pprove, approve for this (s)ession, (e)dit the arguments, (d)eny: "
_HELP = "/new begins anew, /usage tells what was used, /exit leaves; Ctrl-C cancels an answer"


def chat(
    target: str | None = None,
    /,
    *,
    model: str | None = None,
    instructions: str | None = None,
    store: str | None = None,
    session: str | None = None,
) -> int:
    """Talk to an agent: answers as they come, tools as they run, approvals at the prompt.

    At the prompt /new begins anew, /usage tells what was used, and /exit, Ctrl-D or Ctrl-C leaves. While an answer
    comes, Ctrl-C cancels it. Works on a pipe too, line by line.

    Args:
        target: your agent, as app.py:agent or package.module:agent.
        model: provider:model, or offline; in place of the agent's.
        instructions: the system prompt; in place of the agent's.
        store: where the chat is kept, as sqlite:///chats.db; that of GOSSAMER_STORE where it is not said.
        session: the id of the session to go on with; a new one where it is not said.

    Returns:
        The exit code: 1 where the input ended while a run waited for a decision.

    Raises:
        GossamerError: the agent cannot be had. What goes wrong in a run is told, and the chat goes on.
    """
    agent = choose_agent(target, model, instructions)
    if isinstance(agent.model, str):
        resolve(agent.model)
    kept = choose_session(store, session)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        one = _Chat(agent, runner, Session() if kept is None else kept)
        one.talk()
    return 1 if one.left_undecided else 0


class _Left(Exception):  # noqa: N818 - no error: the user has left
    """The user has left the chat."""


class _Chat:
    def __init__(self, agent: Agent[Any, Any], runner: asyncio.Runner, session: Session[Any]) -> None:
        self.agent = agent
        self.runner = runner
        self.screen = Screen()
        self.lines = _Lines(self.screen)
        self.session = session
        self.left_undecided = False
        self.spent = Usage()  # by runs that have ended
        self.running = Usage()  # by the last run, which a decision may take further

    def talk(self) -> None:
        """Read and answer until the user leaves."""
        self.screen.note(f"model: {describe_model(self.agent.model)}")
        self.screen.note(_HELP)
        pending = () if self.session.store is None else self.take_up(self.session.store)
        with contextlib.suppress(_Left):
            self.settle(pending)
            while True:
                said = self.lines.read("> ").strip()
                if said.startswith("/"):
                    self.command(said)
                elif said:
                    self.answer(said)

    def command(self, said: str) -> None:
        match said:
            case "/exit":
                raise _Left
            case "/new":
                self.session = Session(store=self.session.store)
                kept = "" if self.session.store is None else f", session {self.session.id}"
                self.screen.note(f"a new conversation{kept}")
            case "/usage":
                self.screen.note(describe_usage(self.spent + self.running))
            case _:
                self.screen.note(f"there is no {said.split(maxsplit=1)[0]}; {_HELP}")

    def take_up(self, store: Store) -> tuple[PendingCall, ...]:
        """Load what was said before, and tell where the conversation stands; give what waits for decisions here."""
        session = self.session
        self.runner.run(session.load())
        before = f", {counted(len(session.messages), 'message')} in view" if len(session.messages) else ""
        self.screen.note(f"session {session.id}{before}")
        for message in session.messages[-2:]:
            if message.text:
                self.screen.line(f"{message.role}: {message.text}", "dim")
        status = self.runner.run(status_of(store, session))
        if status == "running":
            self.screen.note("a run is under way in another process; your message waits for its end")
            return ()
        if status == "broken":
            self.screen.note(
                "its last run has not ended; where its process died, gossamer resume goes on, and a new message closes it"
            )
        return session.pending

    def answer(self, said: str) -> None:
        self.spent, self.running = self.spent + self.running, Usage()
        result = self.follow(lambda: self.agent.stream(said, session=self.session, pending="deny"))
        if result is None:
            return
        if result.stopped is not None:
            self.screen.note(f"stopped: {result.stopped}")
        self.settle(result.pending)

    def settle(self, pending: tuple[PendingCall, ...]) -> None:
        """Ask for decisions until nothing waits for one."""
        while pending:
            decisions = self.decide(pending)
            if decisions is None:
                self.screen.note("not decided; your next message denies what waits")
                return
            went_on = self.follow(lambda chosen=decisions: self.agent.resume_stream(self.session, chosen))
            if went_on is not None:
                pending = went_on.pending
                if went_on.stopped is not None:
                    self.screen.note(f"stopped: {went_on.stopped}")
            elif not self.waits():  # where something does, a decision did not fit, which has been told
                return

    def waits(self) -> bool:
        """Whether the session waits for a decision; nobody knows where its store failed."""
        with contextlib.suppress(SessionError):
            return bool(self.session.pending)
        return False

    def follow(self, start: Callable[[], RunStream[Any]]) -> Result[Any] | None:
        """Drive a run and show it; None where it was cancelled or failed, which has been told then."""
        try:
            return self.runner.run(self.show(start))
        except KeyboardInterrupt:
            self.screen.note("cancelled")
        except GossamerError as error:
            self.screen.line(f"{type(error).__name__}: {error}", "red")
        except Exception as error:  # noqa: BLE001 - the user's own tools and middleware may raise anything
            self.screen.line(f"{type(error).__name__}: {error}", "red")
        return None

    async def show(self, start: Callable[[], RunStream[Any]]) -> Result[Any] | None:
        stream = start()
        loop = asyncio.get_running_loop()
        cancelled = False

        def cancel() -> None:
            nonlocal cancelled
            cancelled = True
            stream.cancel()

        # Windows has no signal handlers on a loop; there the runner cancels the task.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(signal.SIGINT, cancel)
        try:
            async with stream:
                async for event in stream:
                    if isinstance(event, UsageUpdated):
                        self.running = event.usage
                    self.screen.show(event)
            result = stream.result
        except GossamerError:
            if not cancelled:
                raise
            self.screen.note("cancelled")
            return None
        else:
            self.running = result.usage
            self.screen.end_line()
            return result
        finally:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(signal.SIGINT)

    def decide(self, pending: tuple[PendingCall, ...]) -> dict[str, Decision] | None:
        """Ask about each call that waits; None where the user cancels."""
        decisions: dict[str, Decision] = {}
        try:
            for waiting in pending:
                decisions[waiting.call_id] = (
                    self.approve(waiting) if waiting.kind == "approval" else self.reply(waiting)
                )
        except KeyboardInterrupt:
            return None
        except _Left:
            self.left_undecided = True
            self.screen.line("left while the run waits for a decision; nothing was started", "yellow")
            raise
        return decisions

    def approve(self, waiting: PendingCall) -> Decision:
        call = waiting.call
        self.screen.line(f"? {call.name} {call.arguments} waits for your approval", "yellow")
        while True:
            word, _, rest = self.lines.read(_CHOICES, decision=True).strip().partition(" ")
            match word.lower():
                case "a" | "approve" | "y" | "yes":
                    return Approve()
                case "s" | "session":
                    return Approve(remember="tool")
                case "e" | "edit":
                    arguments = self.edit(rest, call.arguments)
                    if arguments is not None:
                        return Approve(arguments)
                case "d" | "deny" | "n" | "no":
                    return Deny(rest or self.lines.read("  reason, for the model: ", decision=True).strip())
                case _:
                    self.screen.note("write a, s, e or d; behind e the arguments as JSON, behind d a reason")

    def edit(self, written: str, arguments: str) -> dict[str, Any] | None:
        text = written or self.lines.read("  arguments: ", decision=True, draft=arguments)
        try:
            return msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError as error:
            self.screen.note(f"this is no JSON object: {error}")
            return None

    def reply(self, waiting: PendingCall) -> Decision:
        call = waiting.call
        asks = "asks you" if waiting.kind == "question" else "is yours to run"
        self.screen.line(f"? {call.name} {asks}: {call.arguments}", "yellow")
        return Answer(self.lines.read("  your answer: ", decision=True))


class _Lines:
    """The user's lines, from a terminal with line editing, or from a pipe."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.is_terminal = sys.stdin.isatty()
        self.readline: Any = None
        if self.is_terminal:
            with contextlib.suppress(ImportError):
                import readline  # makes input() edit lines and remember them

                self.readline = readline

    def read(self, prompt: str, *, decision: bool = False, draft: str = "") -> str:
        """Read a line.

        Args:
            prompt: shown in front.
            decision: a decision is asked for, and Ctrl-C takes the question back instead of leaving.
            draft: what stands in the line to begin with, on a terminal.

        Raises:
            _Left: the input ended, or Ctrl-C was pressed at an empty prompt.
            KeyboardInterrupt: Ctrl-C was pressed where a decision was asked for.
        """
        self.screen.end_line()
        while True:
            try:
                return (
                    self.read_from_terminal(prompt, draft)
                    if self.is_terminal
                    else self.read_from_pipe(prompt)
                )
            except EOFError:
                self.screen.line("")
                raise _Left from None
            except KeyboardInterrupt:
                self.screen.line("")
                if decision:
                    raise
                if self.readline is None or not self.readline.get_line_buffer():
                    raise _Left from None

    def read_from_terminal(self, prompt: str, draft: str) -> str:
        if draft and self.readline is not None:
            self.readline.set_startup_hook(lambda: self.readline.insert_text(draft))
        try:
            return input(prompt)
        finally:
            if self.readline is not None:
                self.readline.set_startup_hook(None)

    def read_from_pipe(self, prompt: str) -> str:
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        self.screen.line(prompt + line.rstrip("\n"))
        return line.rstrip("\n")
