"""Scripted replies: a JSON list that says what the simulated model answers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from gossamer.errors import ArgumentError
from gossamer.simulator.faults import Fault
from gossamer.simulator.hosted import HostedUse, hosted_use
from gossamer.simulator.replies import Reply, ToolUse

__all__ = ["Script"]


class _ToolEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tool: str
    arguments: dict[str, Any] | str = {}


class _HostedEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tool: Literal["web_search", "code_execution"]
    input: dict[str, Any] = {}
    result: Any = None


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    when: str | None = None
    text: str | None = None
    thinking: str = ""
    tool: str | None = None
    arguments: dict[str, Any] | str | None = None
    tools: tuple[_ToolEntry, ...] = ()
    hosted: tuple[_HostedEntry, ...] = ()
    finish: Literal["stop", "length", "content_filter", "refusal", "pause"] | None = None
    error: int | None = None
    retry_after: float | None = None
    message: str = ""
    code: str | None = None
    fault: Fault | None = None
    after: int | None = None
    latency: float | None = None
    tps: float | None = None


_decoder = msgspec.json.Decoder(list[str | _Entry])


class Script:
    """What the simulated model answers: a list of replies.

    A reply is a string, or an object with some of these keys: `text`, `thinking`, `tool` with `arguments`, `tools`
    (a list of such pairs, called in parallel), `hosted` (a list of calls of the provider's own tools, made before the
    text: `tool`, which is `web_search` or `code_execution`, `input` with the `query` or the `code`, and `result`, the
    pages with `url` and `title` or the text that was printed), `finish` (why the answer ends: `stop`, `length`,
    `content_filter`, `refusal`, where the text is the refusal, or `pause`, where the last hosted tool is still at
    work), `error` (an HTTP status; with `retry_after` in seconds, `message`, and `code`, the
    provider's own word such as `insufficient_quota`),
    `fault` (`reset`, `stall`, `half_frame`, `malformed`, `close`, `unknown_frame`, `error_frame`, as `Fault` tells;
    `after` so many chunks, 0 for before the first byte), `latency` (seconds before the first byte), `tps` (chunks a
    second) and `when`.

    `arguments` is an object, or a string that is sent as it stands (to try out broken arguments).

    `when` is text that the last user message must contain, or a regular expression between slashes. Replies with
    `when` go first: the matching ones are said in turn, one a model call, from each new user message on. Where none
    matches or all have been said, the replies without `when` are given out one after another to whoever asks, from
    the start again when they are used up.

    Args:
        replies: strings and objects as above.
        source: named in error messages, for example the file's path.

    Raises:
        ArgumentError: the replies do not have this form; the message names the place.
    """

    __slots__ = ("_matching", "_sequence")

    def __init__(self, replies: Sequence[str | dict[str, Any]], *, source: str = "script") -> None:
        try:
            encoded = msgspec.json.encode(replies)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"{source}: not JSON data: {error}") from error
        self._load(encoded, source)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Script:
        """Read a script from a JSON file.

        Raises:
            ArgumentError: the file cannot be read or is not a script; the message names the place in the file.
        """
        try:
            # Some editors put a mark before UTF-8.
            content = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
        except OSError as error:
            raise ArgumentError(f"cannot read the script {os.fspath(path)!r}: {error.strerror}") from error
        script = cls.__new__(cls)
        script._load(content, os.fspath(path))
        return script

    def _load(self, content: bytes, source: str) -> None:
        try:
            entries = _decoder.decode(content)
        except UnicodeDecodeError as error:
            raise ArgumentError(f"{source}: not UTF-8 text; save it as UTF-8") from error
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ArgumentError(
                f"{source}: {_place(str(error), content)}; a script is a JSON list of replies"
            ) from error
        if not entries:
            raise ArgumentError(f"{source}: the script is empty; give at least one reply")
        self._matching: list[tuple[Callable[[str], object], Reply]] = []
        self._sequence: list[Reply] = []
        for number, entry in enumerate(entries, 1):
            checked = _Entry(text=entry) if isinstance(entry, str) else entry
            try:
                reply = _reply(checked)
                if checked.when is None:
                    self._sequence.append(reply)
                else:
                    self._matching.append((_matcher(checked.when), reply))
            except ArgumentError as error:
                raise ArgumentError(f"{source}: reply {number}: {error}") from None

    def matching(self, said: str, turn: int) -> Reply | None:
        """The reply whose `when` is meant, or None.

        Args:
            said: the last user message.
            turn: model calls answered since that message.
        """
        for matches, reply in self._matching:
            if matches(said):
                if not turn:
                    return reply
                turn -= 1
        return None

    def in_turn(self, position: int) -> Reply | None:
        """The reply without `when` at a place of their endless sequence, or None where there is none such."""
        return self._sequence[position % len(self._sequence)] if self._sequence else None


def _place(problem: str, content: bytes) -> str:
    at = re.search(r" \(byte (\d+)\)", problem)
    if at is not None:
        before = content[: int(at[1])]
        column = len(before) - before.rfind(b"\n")
        line = before.count(b"\n") + 1
        return problem.replace(at[0], f" at line {line}, column {column}")
    detail, found, path = problem.partition(" - at `$")
    if not found:
        return problem
    index = re.match(r"\[(\d+)\]", path)
    where = f"reply {int(index[1]) + 1}, " if index else ""
    return f"{where}at `${path.rstrip('`')}`: {detail}"


def _matcher(when: str) -> Callable[[str], object]:
    if len(when) > 2 and when.startswith("/") and when.endswith("/"):
        try:
            return re.compile(when[1:-1]).search
        except re.error as error:
            raise ArgumentError(f"`when` {when!r} is not a regular expression: {error}") from error
    if not when:
        raise ArgumentError("`when` is empty; leave it out or give the text to look for")
    return lambda said: when in said


def _reply(entry: _Entry) -> Reply:
    if entry.tool is not None and entry.tools:
        raise ArgumentError("`tool` and `tools` exclude each other; put every call into `tools`")
    if entry.arguments is not None and entry.tool is None:
        raise ArgumentError("`arguments` needs `tool`")
    if entry.after is not None and (entry.fault is None or entry.after < 0):
        raise ArgumentError("`after` is a number of chunks, 0 or more, and needs `fault`")
    for name, value in (("latency", entry.latency), ("tps", entry.tps), ("retry_after", entry.retry_after)):
        if value is not None and value < 0:
            raise ArgumentError(f"`{name}` is {value}; give 0 or more")
    speaks = entry.text is not None or entry.thinking or entry.tool is not None or entry.tools or entry.hosted
    if entry.error is not None:
        if not 400 <= entry.error <= 599:
            raise ArgumentError(f"`error` is {entry.error}; give an HTTP status from 400 to 599")
        if speaks or entry.fault is not None or entry.finish is not None:
            raise ArgumentError(
                "`error` stands alone: it excludes text, thinking, tools, `finish` and `fault`"
            )
    elif entry.retry_after is not None or entry.message or entry.code is not None:
        raise ArgumentError("`retry_after`, `message` and `code` need `error`")
    elif not speaks and entry.fault is None and entry.finish is None:
        raise ArgumentError(
            "the reply says nothing; give `text`, `thinking`, `tool`, `tools`, `finish`, `error` or `fault`"
        )
    entries = (_ToolEntry(entry.tool, entry.arguments or {}),) if entry.tool is not None else entry.tools
    return Reply(
        text=entry.text or "",
        thinking=entry.thinking,
        calls=tuple(ToolUse(each.tool, _arguments(each.arguments)) for each in entries),
        hosted=tuple(_hosted(each) for each in entry.hosted),
        finish=entry.finish,
        silent=not speaks,
        error=entry.error,
        retry_after=entry.retry_after,
        message=entry.message,
        code=entry.code,
        fault=entry.fault,
        after=entry.after,
        latency=entry.latency,
        tps=entry.tps,
    )


def _hosted(entry: _HostedEntry) -> HostedUse:
    try:
        return hosted_use(entry.tool, entry.input, entry.result)
    except ValueError as error:
        raise ArgumentError(f"`hosted`: {error}") from None


def _arguments(arguments: dict[str, Any] | str) -> str:
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
