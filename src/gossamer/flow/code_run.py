"""One run of code that calls tools: its steps are the turns of a run of the loop, whose model is the code.

The code runs in a sandbox, in a task of its own. Where it waits for functions, the calls that it made become one answer
of the "model", and what comes of them in the loop goes back into the code; what comes of the code is the last answer.
Nothing of this is kept but the run's own messages: after a pause or a crash the code runs again from its start, and what
it called before is answered from there.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import Collection, Sequence
from contextvars import Context
from typing import Any, Self

import msgspec

from gossamer.context import RunContext
from gossamer.errors import CodeError, GossamerError, SandboxError, SandboxUnavailableError
from gossamer.flow.code_functions import CallError, Function, Functions
from gossamer.ids import new_id
from gossamer.messages import Image, Message, Text, ToolCall, ToolResult
from gossamer.middleware import CallModel, CallTool, Middleware
from gossamer.models.base import ModelRequest, ModelResponse
from gossamer.sandbox import Execution, HostAnswer, HostCall, Sandbox
from gossamer.tools.execution import CLEANUP_SECONDS, Interception
from gossamer.usage import UNASKED
from gossamer.view import MessageView

__all__ = ["FAILED", "CodeRun"]

# How the words begin of code that came to no end of its own.
FAILED = "The code failed"

# What the results of all calls of one piece of code may have together, in characters: they are in memory, and in the journal.
_MOST_RESULTS = 16_000_000

# What a model is told of it: characters of what it wrote and of a traceback; calls, and characters of each.
_MOST_OUTPUT = 1_000_000
_MOST_PART = 8_000
_MOST_CALLS = 50
_MOST_CALL = 300


class _Halted(Exception):  # noqa: N818 - a signal: the code is not to go on
    """The code is stopped from outside; the words say why."""


class _Batch(msgspec.Struct, eq=False):
    """Calls that the code waits for together.

    Attributes:
        calls: the calls.
        answers: what is known of their answers.
        done: takes the answers once all are known.
    """

    calls: Sequence[HostCall]
    answers: list[HostAnswer | None]
    done: asyncio.Future[list[HostAnswer]]

    def settle(self) -> None:
        """Let the code go on where every answer is known."""
        answers = [one for one in self.answers if one is not None]
        if len(answers) == len(self.answers) and not self.done.done():
            self.done.set_result(answers)


class CodeRun(Middleware):
    """Answers the requests of a run inside a call of `run_code`, and carries its tool calls out as those of the run around.

    Args:
        sandbox: where the code runs; a session of its own is opened in it.
        code: the code.
        functions: what it may call.
        max_steps: how often it may wait for calls.
        interceptions: middleware around each call of the run around, outermost first.

    Attributes:
        began: whether the code was run at all.
        failed: whether it came to no end of its own.
        images: what it showed.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        code: str,
        functions: Functions,
        max_steps: int,
        interceptions: Sequence[Interception],
    ) -> None:
        self.began = self.failed = False
        self.images: tuple[Image, ...] = ()
        self._sandbox = sandbox
        self._code = code
        self._functions = functions
        self._max_steps = max_steps
        self._interceptions = interceptions
        self._steps = self._received = 0
        self._task: asyncio.Task[Execution] | None = None
        self._past: dict[tuple[str, str], deque[ToolResult]] = {}
        self._waiting: list[_Batch] = []
        self._open: dict[str, tuple[_Batch, int, Function]] = {}
        self._woken: asyncio.Future[None] | None = None

    # --- the loop's side ----------------------------------------------------------------------------------------

    async def model(self, context: RunContext[Any], request: ModelRequest, next: CallModel) -> ModelResponse:  # noqa: A002, ARG002
        """Answer with the calls that the code makes next, or with what came of it.

        Raises:
            SandboxUnavailableError: this machine cannot have the sandbox.
        """
        if self._task is None:
            self._begin(request.messages)
        else:
            self._take(request.messages)
        try:
            calls = await self._next_step()
            if calls:
                return ModelResponse(Message("assistant", tuple(calls)), UNASKED, "tool_calls")
            text = self._outcome(request.messages)
        except _Halted as halted:
            text = self._failure(str(halted), "", request.messages)
        return ModelResponse(Message("assistant", (Text(text),)), UNASKED)

    async def tool(self, context: RunContext[Any], call: ToolCall, next: CallTool) -> ToolResult:  # noqa: A002
        """Carry a call out within the middleware of the run around."""
        outer: Any = context.parent
        step = next
        for interception in reversed(self._interceptions):
            step = _within(interception, outer, step)
        result = await step(call)
        outer.session.push()  # what the tool changed there is not to be behind its result
        return result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the code, whatever became of it; its session is closed with it."""
        if self._task is not None:
            self._task.cancel()
            if kind is not GeneratorExit:  # the run was dropped; nothing may be awaited any more
                await asyncio.wait((self._task,), timeout=CLEANUP_SECONDS)

    # --- the code's side ----------------------------------------------------------------------------------------

    @property
    def names(self) -> Collection[str]:
        """The functions that the code may call."""
        return self._functions.by_name.keys()

    async def answer(self, calls: Sequence[HostCall]) -> Sequence[HostAnswer]:
        """Answer calls of the code once the loop has carried them out."""
        batch = _Batch(calls, [None] * len(calls), asyncio.get_running_loop().create_future())
        self._waiting.append(batch)
        self._wake()
        return await batch.done

    async def _execute(self) -> Execution:
        async with self._sandbox.session() as session:
            return await session.run(self._code, functions=self)

    def _ended(self, task: asyncio.Task[Execution]) -> None:
        if not task.cancelled():
            task.exception()  # marks it as seen, also where nobody asks any more
        self._wake()

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    # --- steps --------------------------------------------------------------------------------------------------

    def _begin(self, messages: MessageView) -> None:
        """Run the code from its start; what an earlier start of it called is known from the messages."""
        self.began = True
        for call, result in _calls_in(messages):
            self._past.setdefault(_key(call.name, call.arguments), deque()).append(result)
            self._received += len(result.text)
        self._steps = sum(bool(message.tool_calls) for message in messages)
        # In a context of its own: what a sandbox opens here for others must not keep this run.
        self._task = asyncio.get_running_loop().create_task(
            self._execute(), name="gossamer-run-code", context=Context()
        )
        self._task.add_done_callback(self._ended)

    def _take(self, messages: MessageView) -> None:
        """Give the code the results of the last step."""
        for message in reversed(messages):
            if message.role == "assistant":
                return
            for part in message.parts:
                if isinstance(part, ToolResult) and part.call_id in self._open:
                    batch, place, function = self._open.pop(part.call_id)
                    self._received += len(part.text)
                    batch.answers[place] = function.answer(part)
                    batch.settle()

    async def _next_step(self) -> list[ToolCall]:
        """Wait for the calls that the code makes next; none where it has ended.

        Raises:
            _Halted: it is not to make them.
        """
        task = self._task
        assert task is not None, "the code has begun"
        while True:
            if self._waiting:
                batches, self._waiting = self._waiting, []
                due = [call for batch in batches for call in self._due(batch)]
                if due and self._past:
                    raise _Halted(
                        self._did_otherwise(f"it called {due[0].name} with {_cut(due[0].arguments)}")
                    )
                for batch in batches:
                    batch.settle()
                if due and self._received > _MOST_RESULTS:
                    raise _Halted(
                        f"the results of its calls have more than {_MOST_RESULTS:,} characters together; ask the tools for less, "
                        "or do it in several runs"
                    )
                if due:
                    self._steps += 1
                    if self._steps > self._max_steps:
                        raise _Halted(
                            f"it waited for calls more than {self._max_steps} times; gather calls that do not need "
                            "one another, or do less in one run"
                        )
                    return due
            elif task.done():
                return []
            else:
                self._woken = asyncio.get_running_loop().create_future()
                await self._woken

    def _due(self, batch: _Batch) -> list[ToolCall]:
        """Answer what is known of a batch, and give the calls that the loop is to carry out."""
        due: list[ToolCall] = []
        for place, call in enumerate(batch.calls):
            function = self._functions.by_name.get(call.name)
            try:
                if function is None:
                    raise CallError(f"there is no function {call.name!r:.200}")
                arguments = function.arguments(call)
            except CallError as error:
                batch.answers[place] = HostAnswer(error=str(error))
                continue
            known = self._known(function.tool, arguments)
            if known is None:
                made = ToolCall(function.tool, arguments, new_id())
                self._open[made.id] = batch, place, function
                due.append(made)
            else:
                batch.answers[place] = function.answer(known)
        return due

    def _known(self, tool: str, arguments: str) -> ToolResult | None:
        """Give the result that a call had when the code ran before; each is given once, in order."""
        if not self._past:
            return None
        key = _key(tool, arguments)
        results = self._past.get(key)
        if results is None:
            return None
        result = results.popleft()
        if not results:
            del self._past[key]
        return result

    # --- what came of it ----------------------------------------------------------------------------------------

    def _outcome(self, messages: MessageView) -> str:
        task = self._task
        assert task is not None, "the code has begun"
        if task.cancelled():
            return self._failure("its sandbox was closed", "", messages)
        error = task.exception()
        if isinstance(error, SandboxUnavailableError) or not isinstance(error, GossamerError | None):
            raise error
        if self._past and isinstance(error, CodeError | None):
            what = "it came to its end" if error is None else f"it failed ({_cut(str(error))})"
            return self._failure(self._did_otherwise(what), "", messages)
        if isinstance(error, CodeError):
            return self._failure(_last(error.traceback or str(error)), error.stdout, messages)
        if error is not None:
            stdout = error.stdout if isinstance(error, SandboxError) else ""
            return self._failure(str(error), stdout, messages)
        execution = task.result()
        self.images = execution.images
        return _shown(execution)

    def _did_otherwise(self, what: str) -> str:
        left = Counter({name: 0 for name, _ in self._past})
        for (name, _), results in self._past.items():
            left[name] += len(results)
        told = ", ".join(f"{name} ({count})" for name, count in left.items())
        return (
            "it was run again from its start, as the run had been interrupted, and did not do the same as before: "
            f"{what}, and did not make calls that it had made then: {told}. It was stopped, and no call was made twice. "
            "See below what was done, and go on from there"
        )

    def _failure(self, why: str, stdout: str, messages: MessageView) -> str:
        self.failed = True
        parts = [f"{FAILED}: {why}"]
        if stdout:
            parts.append(f"It had printed:\n{_last(stdout)}")
        made = _calls_in(messages)
        if made:
            lines = [
                f"- {call.name} {_cut(call.arguments)}: {'' if result.outcome == 'ok' else result.outcome + ', '}{_cut(result.text)}"
                for call, result in made[:_MOST_CALLS]
            ]
            if len(made) > _MOST_CALLS:
                lines.append(f"- … {len(made)} in all")
            parts.append("\n".join(["The calls that it had made, which are not undone:", *lines]))
        return _clean("\n\n".join(parts))


def _within(interception: Interception, context: RunContext[Any], step: CallTool) -> CallTool:
    return lambda call: interception(context, call, step)


def _calls_in(messages: MessageView) -> list[tuple[ToolCall, ToolResult]]:
    """Give the calls of a run with their results, in order."""
    results = {
        part.call_id: part for message in messages for part in message.parts if isinstance(part, ToolResult)
    }
    return [
        (call, results[call.id]) for message in messages for call in message.tool_calls if call.id in results
    ]


def _key(tool: str, arguments: str) -> tuple[str, str]:
    return tool, json.dumps(json.loads(arguments), sort_keys=True)


def _shown(execution: Execution) -> str:
    """Give what a model sees of code that came to its end: what it wrote, and the value of its last expression."""
    parts = [execution.stdout.rstrip("\n"), execution.shown]
    if execution.stderr:
        parts.append(f"[stderr]\n{execution.stderr}")
    text = "\n".join(filter(None, parts))
    if not text and execution.images:
        return f"[images: {len(execution.images)}]"
    if not text:
        return "The code ran and showed nothing; print what you need to see, or end with an expression."
    if len(text) > _MOST_OUTPUT:
        text = f"{text[:_MOST_OUTPUT]}\n[… {len(text)} characters in all, the rest is left out]"
    return _clean(text)


def _clean(text: str) -> str:
    """Replace halves of surrogate pairs, which no journal takes."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_CALL else f"{line[:_MOST_CALL]} …"


def _last(text: str) -> str:
    """Give the end of a text that may be long."""
    text = text.strip("\n")
    return text if len(text) <= _MOST_PART else f"[…]\n{text[-_MOST_PART:]}"
