"""OpenAI Responses: request → prompt."""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from gossamer.simulator.dialect import RequestError
from gossamer.simulator.history import History
from gossamer.simulator.openai_errors import bad, below_minimum, invalid
from gossamer.simulator.openai_tools import check_format, check_tool
from gossamer.simulator.replies import Prompt
from gossamer.simulator.tokens import PrefixCache, PrefixState, count

__all__ = ["Echo", "encrypted", "read_request"]

_MEDIA_TOKENS = 85
_MESSAGE_TOKENS = 3
_CACHED_TOOLS = 64 * 1024
_LEAST_OUTPUT_TOKENS = 16
_T = TypeVar("_T")

# --- wire structs -------------------------------------------------------------------------------------------


class _Part(msgspec.Struct, frozen=True):
    type: str
    text: str = ""
    refusal: str = ""


# The tools that OpenAI runs: what a declaration must have, and the names of those that are simulated.
_HOSTED_FIELDS: dict[str, tuple[str, ...]] = {
    "web_search": (),
    "web_search_2025_08_26": (),
    "web_search_preview": (),
    "code_interpreter": ("container",),
    "file_search": ("vector_store_ids",),
    "image_generation": (),
    "mcp": ("server_label",),
}
_HOSTED_NAMES = {
    "web_search": "web_search",
    "web_search_2025_08_26": "web_search",
    "web_search_preview": "web_search",
    "code_interpreter": "code_execution",
}
# What the items of their calls must have.
_HOSTED_ITEMS = {
    "web_search_call": ("id", "status", "action"),
    "code_interpreter_call": ("id", "status", "container_id"),
}
_BY_MODEL = frozenset({"function_call", "reasoning", *_HOSTED_ITEMS})


class _Item(msgspec.Struct, frozen=True):
    """One item of any type: what the types share by name means the same in each."""

    type: str = "message"
    id: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[_Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[_Part] | None = None
    encrypted_content: str | None = None
    status: str | None = None
    action: dict[str, Any] | None = None
    code: str | None = None
    container_id: str | None = None
    outputs: list[dict[str, Any]] | None = None

    def by_model(self) -> bool:
        return self.type in _BY_MODEL or self.role == "assistant"

    def text(self) -> str:
        said = self.output if self.type == "function_call_output" else self.content
        if isinstance(said, str):
            return said
        return "".join(part.text for part in said) if said else ""

    def tokens(self) -> int:
        if self.type == "function_call":
            return 1 + count(self.arguments or "")
        if self.type == "reasoning":
            return count(_decrypted(self)) if self.encrypted_content else 0
        if self.type in _HOSTED_ITEMS:
            return count(msgspec.json.encode((self.action, self.code, self.outputs)).decode())
        said = self.output if self.type == "function_call_output" else self.content
        if isinstance(said, str):
            return _MESSAGE_TOKENS + count(said)
        total = _MESSAGE_TOKENS
        for part in said or ():
            is_text = part.type in {"input_text", "output_text", "refusal"}
            total += count(part.text or part.refusal) if is_text else _MEDIA_TOKENS
        return total


class _Tool(msgspec.Struct, frozen=True):
    type: str
    name: str | None = None
    parameters: Any = None
    strict: bool | None = None
    container: str | dict[str, Any] | None = None
    vector_store_ids: list[str] | None = None
    server_label: str | None = None


class _NamedTool(msgspec.Struct, frozen=True):
    type: str
    name: str | None = None


class _ToolChoice(msgspec.Struct, frozen=True):
    type: Literal[
        "function",
        "allowed_tools",
        "code_interpreter",
        "file_search",
        "image_generation",
        "mcp",
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
    ]
    name: str | None = None
    server_label: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: list[_NamedTool] = []


class _Format(msgspec.Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: Any = None
    strict: bool | None = None


class _Text(msgspec.Struct, frozen=True):
    format: _Format | None = None


class _Reasoning(msgspec.Struct, frozen=True):
    effort: str | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class _Request(msgspec.Struct, frozen=True):
    model: str
    input: str | list[msgspec.Raw]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    tool_choice: msgspec.Raw = msgspec.Raw(b"")
    parallel_tool_calls: bool | None = None
    text: msgspec.Raw = msgspec.Raw(b"")
    reasoning: _Reasoning | None = None
    include: list[str] | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"")
    temperature: float | None = None
    top_p: float | None = None


_Choice = Literal["none", "auto", "required"] | _ToolChoice | None

_request_decoder = msgspec.json.Decoder(_Request)
_item_decoder = msgspec.json.Decoder(_Item)
_tools_decoder = msgspec.json.Decoder(list[_Tool] | None)
_choice_decoder = msgspec.json.Decoder(_Choice)
_text_decoder = msgspec.json.Decoder(_Text | None)


class Echo(NamedTuple):
    """What an answer repeats of its request.

    Attributes:
        fields: names and JSON values, as one piece of a JSON object, without its brackets.
        summary: whether thinking is shown.
        encrypted: whether reasoning items carry their content.
        outputs: whether calls of the code interpreter carry what they printed.
    """

    fields: bytes
    summary: bool
    encrypted: bool
    outputs: bool


# --- encrypted reasoning ------------------------------------------------------------------------------------

_SEAL = "gAAAAA"


def encrypted(item_id: str, thinking: str) -> str:
    """What a reasoning item carries of its content: it can be read back, and only with its item's id."""
    return _SEAL + base64.urlsafe_b64encode(f"{item_id}\n{thinking}".encode()).decode()


def _decrypted(item: _Item) -> str:
    content = item.encrypted_content or ""
    problem = "could not be decrypted or parsed"
    try:
        if content.startswith(_SEAL):
            sealed = base64.b64decode(content[len(_SEAL) :], altchars=b"-_", validate=True).decode()
            item_id, found, thinking = sealed.partition("\n")
            if found and item.id in {None, item_id}:
                return thinking
            problem = "item_id did not match the target item id"
    except (binascii.Error, UnicodeDecodeError):
        pass
    raise bad(
        f"The encrypted content {content[:8]}... could not be verified. Reason: Encrypted content {problem}.",
        code="invalid_encrypted_content",
    )


# --- request → prompt ---------------------------------------------------------------------------------------


class _Tools(NamedTuple):
    """The tools of a request: functions by name, and the types of those that OpenAI runs."""

    functions: dict[str, Any]
    hosted: tuple[str, ...]
    tokens: int


def _read_tools(raw: bytes) -> _Tools:
    tools: dict[str, Any] = {}
    hosted: list[str] = []
    for index, tool in enumerate(_tools_decoder.decode(raw) or ()):
        if tool.type in _HOSTED_FIELDS:
            for field in _HOSTED_FIELDS[tool.type]:
                if getattr(tool, field) is None:
                    param = f"tools[{index}].{field}"
                    raise bad(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
            hosted.append(tool.type)
            continue
        if tool.type != "function":
            raise bad(
                f"Invalid value: '{tool.type}'. Simulated are: 'function', "
                f"{', '.join(map(repr, _HOSTED_FIELDS))}.",
                f"tools[{index}].type",
                "invalid_value",
            )
        param = f"tools[{index}].name"
        if tool.name is None:
            raise bad(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
        if tool.name in tools:
            raise bad(f"Two tools are named {tool.name!r}.", param)
        # Where `strict` is left out, the provider makes the schema strict by itself.
        check_tool(tool.name, tool.parameters, f"tools[{index}]", strict=tool.strict is True)
        tools[tool.name] = tool.parameters or {"type": "object"}
    return _Tools(tools, tuple(hosted), count(raw.decode()) if tools or hosted else 0)


_read_tools_cached = lru_cache(maxsize=32)(_read_tools)


def _tools(raw: bytes) -> _Tools:
    if not raw:
        return _Tools({}, (), 0)
    try:
        return _read_tools_cached(raw) if len(raw) < _CACHED_TOOLS else _read_tools(raw)
    except msgspec.ValidationError as error:
        raise invalid(error, "tools") from None


def _field(decoder: msgspec.json.Decoder[_T], raw: msgspec.Raw, name: str) -> _T | None:
    try:
        return decoder.decode(raw) if bytes(raw) else None
    except msgspec.ValidationError as error:
        raise invalid(error, name) from None


def _choose_hosted(choice: _Choice, hosted: tuple[str, ...]) -> str:
    """The tool of OpenAI's that must be used; empty where none must."""
    if choice is None or isinstance(choice, str) or choice.type in {"function", "allowed_tools"}:
        return ""
    if choice.type not in hosted:
        raise bad(f"Tool choice '{choice.type}' not found in 'tools' parameter.", "tool_choice")
    return _HOSTED_NAMES.get(choice.type, "")


def _choose_tools(choice: _Choice, known: _Tools) -> tuple[dict[str, Any], str, str]:
    tools = known.functions
    if choice is None or isinstance(choice, str):
        if choice == "required" and not tools and not known.hosted:
            raise bad("Tool choice 'required' must be specified with 'tools' parameter.", "tool_choice")
        return tools, choice or "auto", ""
    if choice.type == "allowed_tools":
        kept = {tool.name: tools[tool.name] for tool in choice.tools if tool.name in tools}
        if len(kept) != len(choice.tools) or not kept:
            raise bad("'allowed_tools' names a tool that is not in 'tools'.", "tool_choice.tools")
        return {str(name): schema for name, schema in kept.items()}, choice.mode, ""
    if choice.type != "function":
        return tools, "auto", ""
    if choice.name not in tools:
        raise bad(f"Tool choice 'function' not found in 'tools' parameter: {choice.name!r}.", "tool_choice")
    return tools, "function", choice.name or ""


def _read_item(raw: msgspec.Raw, index: int, *, stored: bool) -> _Item:
    try:
        item = _item_decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise invalid(error, f"input[{index}]") from None
    sealed = item.type != "reasoning" or item.encrypted_content
    if item.type == "item_reference" or not (sealed or stored):
        raise RequestError(
            404,
            f"Item with id '{item.id}' not found. Items are not persisted when `store` is set to false. Try again "
            "with `store` set to true, or remove this item from your input.",
            param="input",
        )
    return item


def _missing(index: int, field: str) -> RequestError:
    param = f"input[{index}].{field}"
    return bad(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


def _follow(state: PrefixState, item: _Item, index: int) -> PrefixState:
    """Check that an item may stand where it stands, and count it."""
    pending = state.pending
    match item.type:
        case "message":
            for field in ("role", "content"):
                if getattr(item, field) is None:
                    raise _missing(index, field)
        case "function_call":
            for field in ("call_id", "name", "arguments"):
                if getattr(item, field) is None:
                    raise _missing(index, field)
            pending = (*pending, item.call_id or "")
        case "function_call_output":
            for field in ("call_id", "output"):
                if getattr(item, field) is None:
                    raise _missing(index, field)
            if item.call_id not in pending:
                raise bad(
                    f"No tool call found for function call output with call_id {item.call_id}.", "input"
                )
            pending = tuple(each for each in pending if each != item.call_id)
        case "reasoning":
            if item.id is None:
                raise _missing(index, "id")
        case "web_search_call" | "code_interpreter_call":
            for field in _HOSTED_ITEMS[item.type]:
                if getattr(item, field) is None:
                    raise _missing(index, field)
        case _:
            raise bad(
                f"Invalid value: '{item.type}'. Simulated are: 'message', 'function_call', "
                "'function_call_output', 'reasoning', 'web_search_call' and 'code_interpreter_call'.",
                f"input[{index}].type",
                "invalid_value",
            )
    return PrefixState(state.tokens + item.tokens(), pending)


def _complete(state: PrefixState, index: int) -> None:  # noqa: ARG001 - OpenAI tells no place
    if state.pending:
        raise bad(f"No tool output found for function call {state.pending[0]}.", "input")


def _results(tail: list[_Item]) -> tuple[tuple[tuple[str, str], ...], int, int]:
    """The results since the last answer, the number of all, and the number of answers."""
    names: dict[str, str] = {}
    results: list[tuple[str, str]] = []
    total = turns = 0
    speaking = False
    for item in tail:
        if item.by_model():
            # The items of one answer follow each other without anything between them.
            turns += not speaking
            results.clear()
            if item.type == "function_call":
                names[item.call_id or ""] = item.name or ""
        elif item.type == "function_call_output":
            total += 1
            results.append((names.get(item.call_id or "", "tool"), item.text()))
        speaking = item.by_model()
    return tuple(results), total, turns


def _shape(text: _Text | None) -> tuple[Any, bool]:
    shape = text.format if text is not None else None
    if shape is None:
        return None, False
    if shape.type == "json_schema":
        for field in ("name", "schema"):
            if getattr(shape, field) is None:
                param = f"text.format.{field}"
                raise bad(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
        strict = shape.strict is True
        check_format(shape.name or "", shape.schema, "text.format.name", "text.format.schema", strict=strict)
    return shape.schema, shape.type == "json_object"


def _echo(request: _Request) -> Echo:
    reasoning = request.reasoning or _Reasoning()
    summary = reasoning.summary or reasoning.generate_summary
    fields: dict[str, Any] = {
        "background": False,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": None,
        "metadata": _or(request.metadata, b"{}"),
        "model": request.model,
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": reasoning.effort, "summary": summary},
        "service_tier": "default",
        "store": request.store is not False,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": _or(request.text, b'{"format":{"type":"text"}}'),
        "tool_choice": _or(request.tool_choice, b'"auto"'),
        "tools": _or(request.tools, b"[]"),
        "top_logprobs": 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": "disabled",
        "user": None,
    }
    include = request.include or ()
    return Echo(
        msgspec.json.encode(fields)[1:-1],
        summary is not None,
        "reasoning.encrypted_content" in include,
        "code_interpreter_call.outputs" in include,
    )


def _or(raw: msgspec.Raw, usual: bytes) -> msgspec.Raw:
    given = bytes(raw)
    return msgspec.Raw(usual if given in {b"", b"null"} else given)


def read_request(body: bytes, prefixes: PrefixCache) -> Prompt:
    """Decode and check a request. O(bytes) for hashing, O(new items) for decoding and counting.

    Raises:
        RequestError: the request is one that OpenAI refuses.
    """
    try:
        return _read(body, prefixes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad(f"We could not parse the JSON body of your request: {error}") from None


def _decode(body: bytes) -> _Request:
    try:
        return _request_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(error) from None


def _read(body: bytes, prefixes: PrefixCache) -> Prompt:
    request = _decode(body)
    if request.max_output_tokens is not None and request.max_output_tokens < _LEAST_OUTPUT_TOKENS:
        raise below_minimum("max_output_tokens", request.max_output_tokens, _LEAST_OUTPUT_TOKENS)
    if request.previous_response_id is not None:
        raise bad(
            f"Previous response with id '{request.previous_response_id}' not found.",
            "previous_response_id",
            "previous_response_not_found",
        )
    raw_tools = bytes(request.tools)
    tools = _tools(raw_tools)
    tokens = tools.tokens
    choice = _field(_choice_decoder, request.tool_choice, "tool_choice")
    hosted_forced = _choose_hosted(choice, tools.hosted)
    allowed, choice, forced = _choose_tools(choice, tools)
    schema, json_object = _shape(_field(_text_decoder, request.text, "text"))
    if request.instructions:
        tokens += _MESSAGE_TOKENS + count(request.instructions)
    given = request.input
    raw = (
        [msgspec.Raw(msgspec.json.encode({"role": "user", "content": given}))]
        if isinstance(given, str)
        else given
    )
    if not raw:
        raise bad("Invalid 'input': empty array. Expected an array with minimum length 1.", "input")
    stored = request.store is not False
    items = History(
        raw,
        hash(("openai_responses", request.model, stored, request.instructions, raw_tools)),
        tokens,
        prefixes,
        read=partial(_read_item, stored=stored),
        follow=_follow,
        complete=_complete,
    )
    tail = items.since_user()
    results, results_total, turns = _results(tail)
    return Prompt(
        model=request.model,
        said=tail[0].text() if tail[0].role == "user" else "",
        turn=turns,
        tools=allowed,
        results=results,
        results_total=results_total,
        tool_choice=choice,
        forced=forced,
        hosted=tuple(_HOSTED_NAMES[kind] for kind in tools.hosted if kind in _HOSTED_NAMES),
        hosted_forced=hosted_forced,
        parallel=request.parallel_tool_calls is not False,
        schema=schema,
        json_object=json_object,
        max_tokens=request.max_output_tokens,
        thinks=request.reasoning is None or request.reasoning.effort != "none",
        stream=bool(request.stream),
        tokens=items.tokens,
        cached_tokens=items.cached_tokens,
        wire=_echo(request),
    )
