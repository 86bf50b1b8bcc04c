"""Tools made of functions: the schema from type hints and docstring, built once, and how they are called."""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    ParamSpec,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    overload,
)

import msgspec

from gossamer.context import RunContext
from gossamer.errors import ArgumentError
from gossamer.schema import ToolSchema, decode_unsupported, is_strict, json_schema

__all__ = ["NeedsApproval", "RunBy", "Tool", "as_tool", "hints_of", "tool"]

P = ParamSpec("P")
R = TypeVar("R")

# What a section begins with in Google's, Sphinx's and NumPy's styles.
_SECTION_MARKS = ("Args:", "Arguments:", "Returns:", "Raises:", "Example", ":param", ":return", "\n---")

Kind: TypeAlias = Literal["inline", "async", "thread", "generator", "async_generator"]
RunBy: TypeAlias = Literal["agent", "caller", "person"]

# Whether a person decides before a tool runs: always, never, or by a function of its arguments.
NeedsApproval: TypeAlias = bool | Callable[..., bool | Awaitable[bool]]


class Tool(msgspec.Struct, Generic[P, R], frozen=True, eq=False, weakref=True):
    """Something that a model may ask for. Made by `@tool`; still callable as the function it was made of.

    Attributes:
        schema: what the model sees.
        function: what runs.
        kind: how it runs: `inline` on the loop, `async`, in a `thread`, or as a generator that reports progress.
        decode: turns JSON text into the arguments; raises `msgspec.DecodeError`.
        invoke: calls the function with context and decoded arguments.
        needs_approval: whether a person decides first: always, or by a function of the arguments.
        run_by: who runs it: the agent; the caller, who answers with the result; or a person, who is asked.
        decide_within: seconds in which somebody must decide about a call that waits, or None.
        timeout: seconds after which a call is given up, or None.
        retries: how often in a row the model may try again after `ModelRetry` or invalid arguments.
        exclusive: runs alone, after the other calls of its turn.
        idempotent: may run again when it is not known how an earlier start ended.
        delegates_to: the agent whose run it starts, which keeps its own journal and is resumed rather than repeated; or None.
        goes_on: tells, by the ids of a run and of its call, whether what an earlier start of it began is still under
            way, so that calling it again goes on with that; None for a tool that begins anew each time.
        hands_to: gives the agent that answers from here on, where the tool hands the conversation over; else None.
        needs_session: keeps something in the session: a run without one gets one.
        max_result_chars: a longer result is kept aside and referred to.
    """

    schema: ToolSchema
    function: Callable[P, R]
    kind: Kind
    decode: Callable[[str], Any]
    invoke: Callable[[RunContext[Any], Any], Any]
    needs_approval: NeedsApproval = False
    run_by: RunBy = "agent"
    decide_within: float | None = None
    timeout: float | None = None
    retries: int = 3
    exclusive: bool = False
    idempotent: bool = False
    delegates_to: Any = None
    goes_on: Callable[[str, str], bool] | None = None
    hands_to: Callable[[], Any] | None = None
    needs_session: bool = False
    max_result_chars: int = 50_000

    def __post_init__(self) -> None:
        _check_name(self.schema.name)
        if self.run_by not in get_args(RunBy):
            raise ArgumentError(f"run_by must be 'agent', 'caller' or 'person', not {self.run_by!r}")
        if not isinstance(self.needs_approval, bool) and not callable(self.needs_approval):
            raise ArgumentError(
                f"needs_approval must be True, False or a function of the arguments, not {self.needs_approval!r}"
            )
        for name in ("timeout", "decide_within"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise ArgumentError(f"{name} must be above 0 seconds, not {seconds}")
        if self.retries < 0:
            raise ArgumentError(f"retries must not be negative, not {self.retries}")
        if self.max_result_chars < 1:
            raise ArgumentError(f"max_result_chars must be at least 1, not {self.max_result_chars}")

    @property
    def name(self) -> str:
        """The name under which the model calls it."""
        return self.schema.name

    @property
    def can_pause(self) -> bool:
        """Whether a call may have to wait for a decision, its own or that of a run inside it."""
        return (
            bool(self.needs_approval)
            or self.run_by != "agent"
            or self.delegates_to is not None
            or self.goes_on is not None
        )

    @property
    def fingerprint(self) -> str:
        """Tells the tool from others of its name: a hash of what the model sees of it. O(schema)."""
        return hashlib.sha256(msgspec.json.encode(self.schema)).hexdigest()[:16]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, past every check."""
        return self.function(*args, **kwargs)

    def replace(self, **changes: Any) -> Tool[P, R]:
        """Make a changed copy; `name` and `description` change the schema.

        Raises:
            ArgumentError: there is no such field, or its value is out of range.
        """
        schema_changes = {key: changes.pop(key) for key in ("name", "description") if key in changes}
        if schema_changes:
            changes["schema"] = msgspec.structs.replace(self.schema, **schema_changes)
        try:
            return msgspec.structs.replace(self, **changes)
        except TypeError as error:
            raise ArgumentError(f"Tool.replace: {error}") from error


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    inline: bool = False,
    preset: Mapping[str, Any] | None = None,
    needs_approval: NeedsApproval = False,
    run_by: RunBy = "agent",
    decide_within: float | None = None,
    timeout: float | None = 300.0,
    retries: int = 3,
    exclusive: bool = False,
    idempotent: bool = False,
    max_result_chars: int = 50_000,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    inline: bool = False,
    preset: Mapping[str, Any] | None = None,
    needs_approval: NeedsApproval = False,
    run_by: RunBy = "agent",
    decide_within: float | None = None,
    timeout: float | None = 300.0,
    retries: int = 3,
    exclusive: bool = False,
    idempotent: bool = False,
    max_result_chars: int = 50_000,
) -> Any:
    """Make a tool of a function, a callable object or a partial.

    Type hints and docstring become the schema, once. A parameter annotated `RunContext` is filled in and never
    shown to the model. Coroutine functions run on the loop, generators report progress by what they yield (the
    value returned, or the last one yielded, is the result), and plain functions run in a thread.

    Args:
        function: what to run.
        name: what the model calls it; the function's name where None.
        description: what the model is told; the docstring's where None.
        inline: run a plain function on the loop itself: for pure, quick ones.
        preset: arguments that are fixed here; the model neither sees nor overrides them.
        needs_approval: pause the run until a person decides; a function is called with the arguments, by
            name, and tells whether to pause.
        run_by: `caller`: the run pauses and the caller brings the result; `person`: the run pauses and a
            person answers. The function itself is then never called.
        decide_within: seconds after which a call that waits for a decision counts as denied; None waits forever.
        timeout: seconds after which a call is given up; None waits forever.
        retries: how often in a row the model may try again after `ModelRetry` or invalid arguments.
        exclusive: run alone, after the other calls of the same turn.
        idempotent: may run again when a crash left unknown how an earlier start ended.
        max_result_chars: a longer result is kept aside; the model sees its beginning and a reference.

    Returns:
        The tool, or a decorator that makes it.

    Raises:
        ArgumentError: a parameter cannot be described to a model, or an argument is out of range.
    """
    if function is None:
        return functools.partial(
            tool,  # pyright: ignore[reportArgumentType, reportCallIssue] - the decorator with its arguments
            name=name,
            description=description,
            inline=inline,
            preset=preset,
            needs_approval=needs_approval,
            run_by=run_by,
            decide_within=decide_within,
            timeout=timeout,
            retries=retries,
            exclusive=exclusive,
            idempotent=idempotent,
            max_result_chars=max_result_chars,
        )
    if not callable(function):
        raise ArgumentError(f"a tool is made of something callable, not of {type(function).__name__}")
    if isinstance(function, Tool):
        raise ArgumentError(f"{function.name!r} is a tool already; change it with .replace()")
    signature = _read_signature(function, dict(preset or {}))
    kind = _kind_of(function, inline)
    if callable(needs_approval):
        _check_policy(needs_approval, name or _name_of(function), signature.names)
    schema = ToolSchema(
        name=name or _name_of(function),
        description=description if description is not None else signature.description,
        parameters=signature.parameters,
        strict=is_strict(signature.parameters),
    )
    return Tool(
        schema=schema,
        function=function,
        kind=kind,
        decode=signature.decode,
        invoke=signature.invoke,
        needs_approval=needs_approval,
        run_by=run_by,
        decide_within=decide_within,
        timeout=timeout,
        retries=retries,
        exclusive=exclusive,
        idempotent=idempotent,
        max_result_chars=max_result_chars,
    )


def as_tool(function: Callable[..., Any]) -> Tool[..., Any]:
    """Give the tool of a plain function, built at the first call.

    A callable object that cannot be hashed has its tool built at each call.
    """
    # Only functions are kept by identity; two callable objects may be equal and not the same.
    return _as_tool(function) if inspect.isfunction(function) else tool(function)


@functools.lru_cache(maxsize=4096)
def _as_tool(function: Callable[..., Any]) -> Tool[..., Any]:
    return tool(function)


class _Signature(msgspec.Struct, frozen=True):
    description: str
    names: tuple[str, ...]
    parameters: dict[str, Any]
    decode: Callable[[str], Any]
    invoke: Callable[[RunContext[Any], Any], Any]


def _read_signature(function: Callable[..., Any], preset: dict[str, Any]) -> _Signature:
    name = _name_of(function)
    hints = hints_of(function)
    description, described = _read_docstring(inspect.getdoc(_described(function)) or "")
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    context_name: str | None = None
    parameters = inspect.signature(function).parameters
    # Values that a partial holds are as fixed as presets, and no more the model's business.
    fixed = {*preset, *_held_by_partial(function)}
    positional = not preset
    for position, parameter in enumerate(parameters.values()):
        if parameter.name in fixed:
            continue
        hint = hints.get(parameter.name, Any)
        positional = positional and parameter.kind is not parameter.KEYWORD_ONLY
        if _is_context(hint):
            context_name = parameter.name
            positional = positional and position == 0
            continue
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise ArgumentError(
                f"{name}: *{parameter.name} cannot be described to a model; name the parameters"
            )
        if parameter.name in {"self", "cls"} and parameter.name not in hints:
            raise ArgumentError(
                f"{name}: a method has no {parameter.name!r} before it is bound; make the tool of an object's method: tool(object.{name})"
            )
        words = described.get(parameter.name) or _words_in(hint)
        if words:
            hint = Annotated[hint, msgspec.Meta(description=words)]
        if parameter.default is parameter.empty:
            fields.append((parameter.name, hint))
        else:
            fields.append((parameter.name, hint, _default(parameter.default)))
    unknown = set(preset) - set(parameters)
    if unknown:
        raise ArgumentError(f"{name}: preset names no parameter: {', '.join(sorted(unknown))}")
    try:
        # Keyword-only, so that a required parameter may follow one with a default.
        arguments = msgspec.defstruct("Arguments", fields, forbid_unknown_fields=True, kw_only=True)
        schema = json_schema(arguments)
        decode = msgspec.json.Decoder(arguments, dec_hook=decode_unsupported).decode
    except (TypeError, NameError, ValueError) as error:
        raise ArgumentError(f"{name}: its parameters cannot be described to a model: {error}") from error
    schema.pop("title", None)
    names = tuple(field[0] for field in fields)
    return _Signature(
        description=description,
        names=names,
        parameters=schema,
        decode=decode,
        invoke=_straight_invoker(function, context_name)
        if positional
        else _invoker(function, names, context_name, preset, parameters),
    )


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Split a docstring into its prose and what it says of each parameter."""
    if not any(mark in text for mark in _SECTION_MARKS):
        return text.strip(), {}
    from docstring_parser import parse  # 20 ms to load, and most tools have no sections

    parsed = parse(text)
    prose = "\n\n".join(filter(None, (parsed.short_description, parsed.long_description)))
    return prose, {param.arg_name: param.description or "" for param in parsed.params}


def _held_by_partial(function: Any) -> Sequence[str]:
    return tuple(function.keywords) if isinstance(function, functools.partial) else ()


def _words_in(hint: Any) -> str | None:
    """The description in `Annotated[int, "how many"]`."""
    if get_origin(hint) is not Annotated:
        return None
    return next((note for note in get_args(hint)[1:] if isinstance(note, str)), None)


def _straight_invoker(
    function: Callable[..., Any], context_name: str | None
) -> Callable[[RunContext[Any], Any], Any]:
    """How to call a function whose arguments go in by position, the context first."""
    astuple = msgspec.structs.astuple
    if context_name is None:
        return lambda _, arguments: function(*astuple(arguments))
    return lambda context, arguments: function(context, *astuple(arguments))


def _invoker(
    function: Callable[..., Any],
    names: Sequence[str],
    context_name: str | None,
    preset: dict[str, Any],
    parameters: Mapping[str, inspect.Parameter],
) -> Callable[[RunContext[Any], Any], Any]:
    """How to call any other function: by name, but for what is positional-only."""
    astuple = msgspec.structs.astuple
    leading = [one.name for one in parameters.values() if one.kind is one.POSITIONAL_ONLY]

    def invoke(context: RunContext[Any], arguments: Any) -> Any:
        named = dict(zip(names, astuple(arguments), strict=True))
        if context_name is not None:
            named[context_name] = context
        named.update(preset)
        return function(*[named.pop(name) for name in leading], **named)

    return invoke


def _default(value: Any) -> Any:
    if isinstance(value, list | dict | set):
        return msgspec.field(default_factory=value.copy)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType, reportUnknownVariableType]
    if value is None or isinstance(value, str | int | float | enum.Enum):
        return value
    return msgspec.field(default_factory=lambda: value)  # as in a call from Python, and not for the schema


def _is_context(hint: Any) -> bool:
    return (
        hint is RunContext
        or get_origin(hint) is RunContext
        or (get_origin(hint) is Annotated and _is_context(get_args(hint)[0]))
    )


def _described(function: Callable[..., Any]) -> Any:
    """What carries the name, the hints and the docstring: the function inside partials, or the object's call."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    call = type(function).__call__
    return call if call.__doc__ else function


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Give the type hints of a function, a callable object or a partial.

    Raises:
        ArgumentError: one cannot be resolved.
    """
    while isinstance(function, functools.partial):
        function = function.func
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        return typing.get_type_hints(target, include_extras=True)
    except NameError as error:
        raise ArgumentError(
            f"{_name_of(function)}: a type hint cannot be resolved: {error}; define the type above the tool, at module level"
        ) from error


def _name_of(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", None) or type(function).__name__


def _check_policy(policy: Callable[..., Any], name: str, names: tuple[str, ...]) -> None:
    """Check that a policy takes the arguments of its tool, by name."""
    try:
        inspect.signature(policy).bind(**dict.fromkeys(names))
    except ValueError:  # of something built in, which does not tell
        return
    except TypeError as error:
        raise ArgumentError(
            f"needs_approval of {name!r} is called with its arguments by name ({', '.join(names) or 'none'}): {error}"
        ) from error


def _check_name(name: str) -> None:
    if name == "<lambda>":
        raise ArgumentError("a lambda has no name; pass tool(name=…)")
    if not 0 < len(name) <= 64 or not all(
        letter.isascii() and (letter.isalnum() or letter in "_-") for letter in name
    ):
        raise ArgumentError(
            f"{name!r} is no name for a tool: providers take 1 to 64 letters, digits, '_' and '-'"
        )


def _kind_of(function: Callable[..., Any], inline: bool) -> Kind:
    while isinstance(function, functools.partial):
        function = function.func
    target = function if inspect.isroutine(function) else type(function).__call__
    if inspect.isasyncgenfunction(target):
        return "async_generator"
    if inspect.iscoroutinefunction(target):
        return "async"
    if inspect.isgeneratorfunction(target):
        return "generator"
    return "inline" if inline else "thread"
