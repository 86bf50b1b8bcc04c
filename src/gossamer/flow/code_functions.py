"""An agent's tools as functions that code calls: what goes in, what comes back, and how the tools run."""

from __future__ import annotations

import builtins
import collections.abc
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin

import msgspec

from gossamer.context import RunContext, current_call
from gossamer.errors import ArgumentError
from gossamer.flow.code_signatures import Parameter, Types, parameters_of, python_name, signature
from gossamer.messages import Audio, File, Image, Text, ToolResult
from gossamer.sandbox import HostAnswer, HostCall
from gossamer.schema import HostedTool, ToolSchema, json_schema
from gossamer.tools.function import Tool, hints_of
from gossamer.tools.offload import is_kept_aside
from gossamer.tools.toolset import Toolset, put_together

__all__ = [
    "MOST_RESULT_CHARS",
    "RUN_CODE",
    "CallError",
    "Function",
    "Functions",
    "functions_of",
    "in_their_stead",
]

# The tool that runs code.
RUN_CODE = "run_code"

# A result that is longer does not come into code.
MOST_RESULT_CHARS = 1_000_000

# How often code may call a tool wrongly in a row: as often as it may call at all.
_RETRIES = 1_000_000

_MOST_DESCRIBED = 64

# What comes of a tool's text in code: `text` is a string as it is, `maybe` None where it is empty, `json` whatever the
# JSON says; `guess` is a string, unless the whole of it is a JSON object or array.
Reading: TypeAlias = Literal["text", "maybe", "json", "guess"]

_MEDIA = (Text, Image, Audio, File)

_DESCRIPTION = """\
Run Python code that calls your tools: they are the async functions below. `await` may stand outside of functions, and \
`asyncio.gather` makes several calls at once. What fails raises RuntimeError. Do all that you can in one run: loop, \
filter, compute, and print only what you need to see; the value of the last expression is shown too. The code runs in a \
sandbox, and whatever it needs from outside comes through these functions. Nothing is kept between two runs. After an \
interruption it is run again from its start, and its calls get the results that they had: which calls it makes must not \
depend on the time or on chance."""


class CallError(Exception):
    """Code called a function in a way that makes no call of a tool."""


class Function(msgspec.Struct, frozen=True, eq=False):
    """A tool as code calls it.

    Attributes:
        name: the function's name.
        tool: the tool's.
        parameters: its parameters; code may give them by place, in this order.
        reading: what becomes of its results.
    """

    name: str
    tool: str
    parameters: tuple[Parameter, ...]
    reading: Reading

    def arguments(self, call: HostCall) -> str:
        """Give the arguments of a call as JSON text.

        Raises:
            CallError: they are none; the message says why.
        """
        if len(call.args) > len(self.parameters):
            names = ", ".join(one.name for one in self.parameters) or "none"
            raise CallError(
                f"{self.name}() was given {len(call.args)} arguments by place; its parameters: {names}"
            )
        given = {one.key: value for one, value in zip(self.parameters, call.args, strict=False)}
        keys = {one.name: one.key for one in self.parameters}
        for name, value in call.kwargs.items():
            key = keys.get(name, name)
            if key in given:
                raise CallError(f"{self.name}() was given {name!r} twice")
            given[key] = value
        try:
            text = _encode(given)
            text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise CallError(f"{self.name}(): its arguments have no JSON form: {error}") from error
        return text

    def answer(self, result: ToolResult) -> HostAnswer:
        """Give what code gets for a result: a value, or the words of an error."""
        text = result.content if isinstance(result.content, str) else _words(result.content)
        if result.outcome != "ok":
            return HostAnswer(error=text)
        if is_kept_aside(text):
            return HostAnswer(
                error=f"{self.name}() gave more than {MOST_RESULT_CHARS:,} characters, which do not come into code; "
                "ask for less"
            )
        return HostAnswer(self._read(text))

    def _read(self, text: str) -> Any:
        if self.reading == "text":
            return text
        if not text:
            return "" if self.reading == "guess" else None
        if self.reading == "maybe" or (self.reading == "guess" and text[0] not in "[{"):
            return text
        try:
            return msgspec.json.decode(text)
        except (ValueError, RecursionError):  # a guardrail's words, a person's
            return text


class Functions:
    """The tools of an agent as functions.

    It keeps what is known of the tools and not the tools themselves, which may hold what is open for a session.

    Args:
        tools: the tools by name, as a run has them; `run_code` among them.
        python: which Python it is, in words for the model.

    Attributes:
        by_name: the functions by name.
    """

    __slots__ = ("_described", "_python", "_running", "_told", "by_name")

    def __init__(self, tools: Mapping[str, Tool[..., Any]], python: str) -> None:
        self.by_name: dict[str, Function] = {}
        self._told: dict[
            str, tuple[ToolSchema, Any]
        ] = {}  # by the tool's name: its schema, and what it returns
        for tool in _called_by_code(tools):
            name = python_name(tool.name, {*_BUILTINS, *self.by_name})
            returned = _returned_by(tool)
            parameters = parameters_of(tool.schema.parameters)
            self.by_name[name] = Function(name, tool.name, parameters, _reading_of(returned))
            self._told[tool.name] = tool.schema, returned
        self._running = tools[RUN_CODE].schema
        self._python = python
        self._described: dict[tuple[ToolSchema | HostedTool, ...], tuple[ToolSchema | HostedTool, ...]] = {}

    def described(self, schemas: tuple[ToolSchema | HostedTool, ...]) -> tuple[ToolSchema | HostedTool, ...]:
        """Give what a model sees in place of the tools: the one that runs code, and those that code cannot call.

        The same tuple for the same tools, as the beginning of a prompt lives by it. O(tools); text is made once.

        Args:
            schemas: what it would see.
        """
        seen = self._described.get(schemas)
        if seen is None:
            if len(self._described) >= _MOST_DESCRIBED:
                self._described.clear()
            names = {one.name for one in schemas if isinstance(one, ToolSchema)}
            shown = [one for one in self.by_name.values() if one.tool in names]
            beside = [
                one
                for one in schemas
                if isinstance(one, HostedTool) or one.name not in {*self._told, RUN_CODE}
            ]
            if shown or RUN_CODE in names:
                running = msgspec.structs.replace(self._running, description=self._description(shown))
                beside.insert(0, running)
            seen = self._described[schemas] = tuple(beside)
        return seen

    def _description(self, shown: Sequence[Function]) -> str:
        known = Types()
        heads: list[str] = []
        for one in shown:
            schema, returned = self._told[one.tool]
            kind = _type_of(returned, f"{one.name}_result", known)
            heads.append(
                signature(one.name, schema.description, one.parameters, schema.parameters, kind, known)
            )
        about = f"{_DESCRIPTION} {self._python}" if self._python else _DESCRIPTION
        return "\n\n".join([about, *known.written.values(), *heads])


def functions_of(
    tools: Mapping[str, Tool[..., Any]], python: str, known: dict[tuple[ToolSchema, ...], Functions]
) -> Functions:
    """Give the functions of tools; made once for each selection of schemas, the last 64.

    Args:
        tools: the tools by name, as a run has them.
        python: see `Functions`.
        known: those that were made before.
    """
    key = tuple(tool.schema for tool in tools.values())
    made = known.get(key)
    if made is None:
        if len(known) >= _MOST_DESCRIBED:
            known.clear()
        made = known[key] = Functions(tools, python)
    return made


def in_their_stead(tools: Mapping[str, Tool[..., Any]], _: RunContext[Any]) -> Toolset:
    """Give the tools of a run of code, whose calls are those of the run around it.

    Put together for this run alone: what opened toolkits gave goes with their session, and is kept nowhere else.

    Args:
        tools: the tools of the run around it, by name.
    """
    return put_together(tuple(map(_in_its_stead, _called_by_code(tools))), {}, {})


_BUILTINS = frozenset((*dir(builtins), "asyncio"))

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _words(parts: Iterable[Any]) -> str:
    """Give the text of a result with media, and a note for each of these: code cannot see them."""
    return "".join(
        part.text
        if isinstance(part, Text)
        else f"[{type(part).__name__.lower()}, {part.media_type}: not to be seen from code]"
        for part in parts
    )


def _called_by_code(tools: Mapping[str, Tool[..., Any]]) -> list[Tool[..., Any]]:
    return [tool for tool in tools.values() if tool.name != RUN_CODE and tool.hands_to is None]


def _in_its_stead(tool: Tool[..., Any]) -> Tool[..., Any]:
    """Give a tool as the run inside has it, whose calls are those of the run around it: its state, its user's, its messages."""
    invoke = tool.invoke
    changes: dict[str, Any] = {
        "max_result_chars": max(tool.max_result_chars, MOST_RESULT_CHARS),
        "retries": _RETRIES,
    }
    if tool.delegates_to is not None:  # the run that it starts is one inside the run of the code
        changes["invoke"] = _given_outer(invoke)
    elif tool.goes_on is None:  # one that goes on is found again by the run that made the call
        changes["invoke"] = _as_outer(invoke)
    return msgspec.structs.replace(tool, **changes)


def _given_outer(invoke: Callable[[Any, Any], Any]) -> Callable[[RunContext[Any], Any], Any]:
    return lambda context, arguments: invoke(context.parent, arguments)


def _as_outer(invoke: Callable[[RunContext[Any], Any], Any]) -> Callable[[RunContext[Any], Any], Any]:
    def call(context: RunContext[Any], arguments: Any) -> Any:
        outer = context.parent
        current = current_call.get()
        assert outer is not None, "code runs inside a call"
        assert current is not None, "a tool runs inside a call"
        current_call.set((outer, *current[1:]))  # whoever executes the call puts back what was there before
        return invoke(outer, arguments)

    return call


# --- what a tool returns ----------------------------------------------------------------------------------


def _returned_by(tool: Tool[..., Any]) -> Any:
    """Give the type of what a tool returns; `Any` where nothing says it."""
    if tool.delegates_to is not None:
        output = getattr(tool.delegates_to, "output", Any)
        return output if isinstance(output, type) else Any
    if tool.kind in {"generator", "async_generator"}:  # its hint is that of what it reports
        return Any
    try:
        hint = hints_of(tool.function).get("return", Any)
    except (ArgumentError, TypeError):
        return Any
    while get_origin(hint) in _AWAITABLE:
        hint = get_args(hint)[-1]
    return hint


_AWAITABLE = (collections.abc.Awaitable, collections.abc.Coroutine)


def _type_of(returned: Any, hint: str, known: Types) -> str:
    if returned is Any or _is_media(returned):
        return "Any" if returned is Any else "str"
    try:
        schema = json_schema(returned)
    except ArgumentError:
        return "Any"
    return known.of(schema, schema.get("$defs", {}), hint)


def _reading_of(returned: Any) -> Reading:
    """Tell how text becomes what a tool returned, given the type of that."""
    while get_origin(returned) is Annotated:
        returned = get_args(returned)[0]
    if (
        returned is Any
        or returned is object
        or isinstance(returned, str | typing.TypeVar)
        or _is_media(returned)
    ):
        return "guess"
    if get_origin(returned) in {typing.Union, types.UnionType}:
        readings = {_reading_of(one) for one in get_args(returned) if one is not types.NoneType}
        if readings == {"text"}:
            return "maybe" if types.NoneType in get_args(returned) else "text"
        return "json" if readings == {"json"} else "guess"
    if get_origin(returned) is Literal:
        return "text" if all(isinstance(one, str) for one in get_args(returned)) else "guess"
    returned = getattr(returned, "__supertype__", returned)  # of a NewType
    return "text" if isinstance(returned, type) and issubclass(returned, str) else "json"


def _is_media(returned: Any) -> bool:
    return any(one in _MEDIA for one in (returned, *get_args(returned)))
