"""`gossamer run`: one run, shown as it goes."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from gossamer.agent import Agent
from gossamer.cli.choice import QUESTION, choose_agent, describe_model
from gossamer.cli.loop import loop_factory
from gossamer.cli.screen import Screen, describe_usage
from gossamer.cli.stores import choose_session
from gossamer.errors import ArgumentError, RunPausedError
from gossamer.events import Event, RunFinished
from gossamer.messages import ToolCall, ToolResult
from gossamer.models.registry import resolve
from gossamer.result import Result
from gossamer.schema import encode_value
from gossamer.session import Session

__all__ = ["run"]


def run(
    prompt: str | None = None,
    target: str | None = None,
    /,
    *,
    model: str | None = None,
    instructions: str | None = None,
    stream: bool | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    store: str | None = None,
    session: str | None = None,
) -> int:
    """Run an agent once and show its tool calls and its answer.

    Without a prompt, an agent with a tool answers a question. The model is GOSSAMER_MODEL's, or one of the first of
    OpenAI, Anthropic and Gemini whose key or base URL is set, or else offline.

    Args:
        prompt: what is asked.
        target: your agent, as app.py:agent or package.module:agent.
        model: provider:model, or offline; in place of the agent's.
        instructions: the system prompt; in place of the agent's.
        stream: show the answer as it comes; the default, but with --json. With --json: a line of JSON an event.
        json: print the result as JSON, and nothing else.
        store: where the conversation is kept, as sqlite:///chats.db; that of GOSSAMER_STORE where it is not said.
        session: the id of the session to go on with; a new one where it is not said.

    Returns:
        The exit code.

    Raises:
        GossamerError: one of its children says what went wrong.
    """
    if prompt is None and target is not None:
        raise ArgumentError(f"nothing is asked of {target}; write gossamer run PROMPT {target}")
    agent = choose_agent(target, model, instructions)
    if isinstance(agent.model, str):
        resolve(agent.model)  # a missing key is told before anything is printed
    question = QUESTION if prompt is None else prompt
    kept = choose_session(store, session)
    with (
        _where_to_decide(target, model, store, kept),
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        if json:
            return runner.run(_print_json(agent, question, kept, stream=bool(stream)))
        screen = Screen()
        screen.note(f"model: {describe_model(agent.model)}")
        if kept is not None:
            screen.note(f"session {kept.id}")
        if prompt is None:
            screen.line(f"> {QUESTION}", "bold")
        return runner.run(_show(screen, agent, question, kept, stream=stream is not False))


@contextmanager
def _where_to_decide(
    target: str | None, model: str | None, store: str | None, session: Session[Any] | None
) -> Generator[None]:
    """Tell of a run or a session that waits for decisions where they are made, at the command line."""
    try:
        yield
    except RunPausedError as error:
        names = ", ".join(pending.call.name for pending in error.pending)
        words = ["gossamer", "chat", *([] if target is None else [target])]
        if model is not None:
            words += ["--model", model]
        if session is not None:
            # The store's own word for where it is has no password.
            words += ["--store", session.store.url] if store and session.store is not None else []
            words += ["--session", session.id]
        who = "the run" if session is None else f"session {session.id!r}"
        raise RunPausedError(
            f"{who} waits for a decision about {names}; decide in {shlex.join(words)}", pending=error.pending
        ) from error


async def _show(
    screen: Screen, agent: Agent[Any, Any], prompt: str, session: Session[Any] | None, *, stream: bool
) -> int:
    if stream:
        async with agent.stream(prompt, session=session) as events:
            async for event in events:
                screen.show(event)
        result = events.result
        screen.end_line()
        if result.finish_reason == "ended_by_tool" and result.value is not None:
            screen.line(encode_value(result.value))
    else:
        result = await agent.run(prompt, session=session)
        _show_whole(screen, result)
    screen.note(f"{describe_usage(result.usage)}, {result.duration:.2f} s")
    if result.pending:
        raise RunPausedError("the run has paused", pending=result.pending)
    if result.stopped is not None:
        raise result.stopped
    return 0


def _show_whole(screen: Screen, result: Result[Any]) -> None:
    calls: dict[str, ToolCall] = {}
    for message in result.new:
        for part in message.parts:
            if isinstance(part, ToolCall):
                calls[part.id] = part
                screen.show_call(part)
            elif isinstance(part, ToolResult):
                screen.show_result(calls[part.call_id], part)
    if result.value is not None:
        screen.line(encode_value(result.value))


async def _print_json(
    agent: Agent[Any, Any], prompt: str, session: Session[Any] | None, *, stream: bool
) -> int:
    if not stream:
        result = await agent.run(prompt, session=session)
        _print_line(_as_data(result, session))
    else:
        async with agent.stream(prompt, session=session) as events:
            async for event in events:
                _print_line(_event_data(event, session))
        result = events.result
    if result.stopped is not None or result.pending:
        return 1
    return 0


def _event_data(event: Event, session: Session[Any] | None) -> Any:
    if isinstance(event, RunFinished):
        return {"type": "run_finished", "result": _as_data(event.result, session)}
    return event


def _as_data(result: Result[Any], session: Session[Any] | None) -> dict[str, Any]:
    """Lay out a result as JSON data: what it says, not the session or the agent behind it."""
    return {
        "output": result.value,
        "finish_reason": result.finish_reason,
        "run_id": result.run_id,
        **({} if session is None else {"session": session.id}),
        "model": result.model,
        "duration": round(result.duration, 6),
        "usage": result.usage,
        "messages": result.new,
        "pending": result.pending,
        "stopped": None if result.stopped is None else str(result.stopped),
    }


def _print_line(data: Any) -> None:
    sys.stdout.write(_encode(data).decode() + "\n")
    sys.stdout.flush()


def _encode_foreign(value: Any) -> Any:
    """Encode what an agent's output type or a tool brought along."""
    try:
        return msgspec.Raw(encode_value(value).encode())
    except TypeError:
        return str(value)


_encode = msgspec.json.Encoder(enc_hook=_encode_foreign).encode
