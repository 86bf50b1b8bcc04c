"""Gemini: request → prompt."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar, cast
from urllib.parse import unquote

import msgspec

from gossamer.simulator.dialect import Request, RequestError
from gossamer.simulator.gemini_chat.content import (
    Content,
    ContentSum,
    bad,
    camel,
    decode,
    invalid,
    read_content,
    text_of,
)
from gossamer.simulator.replies import Prompt
from gossamer.simulator.tokens import PrefixCache, PrefixState, count

__all__ = ["Wire", "count_request", "read_request"]

_Read = TypeVar("_Read")
_CACHED_TOOLS = 64 * 1024
_STOPS = 5
_FUNCTION_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
# Gemini 3 began to insist on thought signatures, to know levels of thinking, and to answer in JSON beside functions.
_BEFORE_3 = re.compile(r"gemini-[12]\b|gemma|learnlm")
# The tools that Google runs, and the names of those that are simulated.
_HOSTED_FIELDS = {
    "google_search": "web_search",
    "google_search_retrieval": "",
    "google_maps": "",
    "code_execution": "code_execution",
    "url_context": "",
    "file_search": "",
}
_SCHEMA_KEYS = frozenset(
    {
        "additionalProperties",
        "anyOf",
        "default",
        "description",
        "enum",
        "example",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "nullable",
        "pattern",
        "properties",
        "propertyOrdering",
        "required",
        "title",
        "type",
    }
)

# --- wire structs -------------------------------------------------------------------------------------------


class _Function(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    name: str = ""
    description: str = ""
    parameters: dict[str, Any] | None = None
    parameters_json_schema: Any = None
    response: Any = None
    response_json_schema: Any = None
    behavior: str = ""


class _Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    function_declarations: list[_Function] = []
    google_search: Any = None
    google_search_retrieval: Any = None
    google_maps: Any = None
    code_execution: Any = None
    url_context: Any = None
    file_search: Any = None
    computer_use: Any = None
    mcp_servers: Any = None


class _CallingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    mode: Literal["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"] = "AUTO"
    allowed_function_names: list[str] = []


class _ToolConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    function_calling_config: _CallingConfig | None = None
    retrieval_config: Any = None
    include_server_side_tool_invocations: bool = False


class _ThinkingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    include_thoughts: bool = False
    thinking_budget: int | None = None
    thinking_level: str | None = None


class _GenerationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] = []
    seed: int | None = None
    candidate_count: int | None = None
    response_mime_type: str = ""
    response_schema: dict[str, Any] | None = None
    response_json_schema: Any = None
    response_modalities: list[str] = []
    response_format: Any = None
    thinking_config: _ThinkingConfig | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_logprobs: bool = False
    logprobs: int | None = None
    media_resolution: str = ""
    speech_config: Any = None
    translation_config: Any = None
    audio_transcription_config: Any = None
    image_config: Any = None
    enable_enhanced_civic_answers: bool = False


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    contents: list[msgspec.Raw] = []
    model: str = ""
    system_instruction: Content | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    tool_config: _ToolConfig | None = None
    safety_settings: Any = None
    generation_config: _GenerationConfig = _GenerationConfig()
    cached_content: str = ""
    service_tier: str = ""
    store: bool | None = None
    labels: Any = None


class _CountRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    contents: msgspec.Raw = msgspec.Raw(b"[]")
    generate_content_request: msgspec.Raw = msgspec.Raw(b"")


_request_decoder = msgspec.json.Decoder(_Request)
_count_decoder = msgspec.json.Decoder(_CountRequest)
_tools_decoder = msgspec.json.Decoder(list[_Tool])


class Wire(NamedTuple):
    """What an answer tells of its request.

    Attributes:
        shows: whether thoughts are sent.
        tells: whether calls of Google's own tools are sent, and what came of them.
    """

    shows: bool = False
    tells: bool = False


# --- tools and schemas --------------------------------------------------------------------------------------


def _plain_schema(node: object, where: str) -> Any:
    """The provider's own kind of schema as a JSON schema; refuses what is not of this kind."""
    if not isinstance(node, dict):
        raise bad(
            f"Invalid value at '{where}' (type.googleapis.com/google.ai.generativelanguage.v1beta.Schema)"
        )
    schema = {camel(name): each for name, each in cast("dict[str, Any]", node).items()}
    for name in schema:
        if name not in _SCHEMA_KEYS:
            raise bad(
                f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field."
            )
    kind = schema.get("type")
    if isinstance(kind, str):
        schema["type"] = kind.lower()
    elif kind is not None:
        raise bad(
            f"Invalid value at '{where}.type' (type.googleapis.com/google.ai.generativelanguage.v1beta.Type)"
        )
    for name, form in (("properties", dict), ("required", list), ("enum", list), ("anyOf", list)):
        if not isinstance(schema.get(name, form()), form):
            raise bad(f"Invalid value at '{where}.{name}'")
    if "properties" in schema:
        schema["properties"] = {
            name: _plain_schema(each, f"{where}.properties[{index}].value")
            for index, (name, each) in enumerate(schema["properties"].items())
        }
    if "items" in schema:
        schema["items"] = _plain_schema(schema["items"], f"{where}.items")
    if "anyOf" in schema:
        schema["anyOf"] = [_plain_schema(each, f"{where}.any_of") for each in schema["anyOf"]]
    for name in ("minItems", "maxItems", "minLength", "maxLength"):
        # Protocol buffers write 64-bit numbers as strings.
        given = schema.get(name)
        if isinstance(given, str):
            if not given.isdecimal():
                raise bad(f"Invalid value at '{where}.{name}' (TYPE_INT64), \"{given}\"")
            schema[name] = int(given)
    return schema


class _Tools(NamedTuple):
    """The tools of a request: functions by name, and the fields of those that Google runs."""

    functions: dict[str, Any]
    hosted: tuple[str, ...]
    tokens: int


def _read_tools(raw: bytes) -> _Tools:
    schemas: dict[str, Any] = {}
    hosted: list[str] = []
    for outer, tool in enumerate(decode(_tools_decoder, raw)):
        hosted += [name for name in _HOSTED_FIELDS if getattr(tool, name) is not None]
        for inner, function in enumerate(tool.function_declarations):
            where = f"tools[{outer}].function_declarations[{inner}]"
            if not _FUNCTION_NAME.fullmatch(function.name):
                raise bad(
                    f"* GenerateContentRequest.{where}.name: [FIELD_INVALID] Invalid function name. Must start with a "
                    "letter or an underscore. Must be alphanumeric (a-z, A-Z, 0-9), underscores (_), dots (.), colons "
                    "(:), or dashes (-), with a maximum length of 128."
                )
            if function.name in schemas:
                raise bad(f"Duplicate function declaration found: {function.name}")
            schema: Any = function.parameters_json_schema
            if function.parameters is not None:
                if schema is not None:
                    raise bad(
                        f"* GenerateContentRequest.{where}: only one of parameters and parameters_json_schema may be set"
                    )
                schema = _plain_schema(function.parameters, f"{where}.parameters")
            schemas[function.name] = schema if schema is not None else {"type": "object"}
    return _Tools(schemas, tuple(hosted), count(raw.decode()))


_read_tools_cached = lru_cache(maxsize=32)(_read_tools)


def _tools(raw: bytes) -> _Tools:
    if not raw or raw == b"null":
        return _Tools({}, (), 0)
    try:
        return _read_tools_cached(raw) if len(raw) < _CACHED_TOOLS else _read_tools(raw)
    except msgspec.ValidationError as error:
        raise invalid(error, "tools") from None


def _check_hosted(request: _Request, tools: _Tools, model: str) -> bool:
    """Refuse tools that Google runs where they may not stand; whether their calls are told of in the answer."""
    tells = request.tool_config is not None and request.tool_config.include_server_side_tool_invocations
    config = request.generation_config
    if tools.hosted and _BEFORE_3.match(model):
        if tools.functions:
            raise bad(
                "Built-in tools ({google_search}) and Function Calling cannot be combined in the same request."
            )
        if config.response_mime_type == "application/json":
            raise bad("Tool use with a response mime type: 'application/json' is unsupported")
    elif tools.hosted and tools.functions and not tells:
        raise bad(
            "Please enable tool_config.include_server_side_tool_invocations to use Built-in tools with Function calling."
        )
    return tells


def _choose(request: _Request, tools: dict[str, Any]) -> tuple[dict[str, Any], str]:
    config = request.tool_config and request.tool_config.function_calling_config
    if config is None:
        return tools, "auto"
    names = config.allowed_function_names
    if names and config.mode not in {"ANY", "VALIDATED"}:
        raise bad(
            "Allowed function names should be set only when the function calling mode is ANY or VALIDATED."
        )
    if config.mode == "ANY" and not tools:
        raise bad("Function calling config is set without function_declarations.")
    unknown = [name for name in names if name not in tools]
    if unknown:
        raise bad(f"Allowed function names contain a function that is not declared: {', '.join(unknown)}")
    kept = {name: tools[name] for name in names} if names else tools
    if config.mode == "NONE":
        return kept, "none"
    return kept, "required" if config.mode == "ANY" else "auto"


# --- contents -----------------------------------------------------------------------------------------------


class _Contents:
    """The contents of a request; those in a prefix seen before are not checked again."""

    __slots__ = ("_pending", "_raw", "_signed", "_sums", "cached_tokens", "tokens")

    def __init__(
        self, raw: list[msgspec.Raw], key: int, tokens: int, prefixes: PrefixCache, *, signed: bool
    ) -> None:
        self._raw = raw
        self._sums: dict[int, ContentSum] = {}
        self._signed = signed
        if not raw:
            raise bad("* GenerateContentRequest.contents: contents is not specified")
        state, self.cached_tokens = prefixes.walk(raw, key, tokens, self._follow, self._complete)
        self.tokens = state.tokens
        self._check_turn()

    def content(self, index: int) -> ContentSum:
        found = self._sums.get(index)
        if found is None:
            found = self._sums[index] = read_content(bytes(self._raw[index]), index)
        return found

    def since_said(self) -> list[ContentSum]:
        """The last content in which the user says something other than function responses, and all after it."""
        tail: list[ContentSum] = []
        for index in range(len(self._raw) - 1, -1, -1):
            content = self.content(index)
            tail.append(content)
            if content.role == "user" and (content.text or not content.results):
                break
        tail.reverse()
        return tail

    def _follow(self, state: PrefixState, index: int) -> PrefixState:
        # Pending are the names of the calls without response, and a mark where responses have begun to come.
        content = self.content(index)
        pending = state.pending
        if content.role == "model":
            if content.corrupted or any(call.signature == "corrupted" for call in content.calls):
                raise bad("Corrupted thought signature.")
            if pending and pending[0] == _ANSWERING:
                raise _uneven()
            if content.calls and index == 0:
                raise bad(
                    "Please ensure that function call turn comes immediately after a user turn or after a function "
                    "response turn."
                )
            pending += tuple(call.name for call in content.calls)
        elif content.calls:
            raise bad("Please ensure that function call parts are in a turn of the role model.")
        elif content.results:
            if not pending:
                raise bad(
                    "Please ensure that function response turn comes immediately after a function call turn."
                )
            pending = self._answered(pending, content)
        elif pending:
            raise _uneven()
        return PrefixState(state.tokens + content.tokens, pending)

    def _answered(self, pending: tuple[str, ...], content: ContentSum) -> tuple[str, ...]:
        left = list(pending[1:] if pending[0] == _ANSWERING else pending)
        for name, _, _ in content.results:
            if name not in left:
                raise _uneven()
            left.remove(name)
        if left and content.text:
            raise _uneven()
        return (_ANSWERING, *left) if left else ()

    def _complete(self, state: PrefixState, index: int) -> None:  # noqa: ARG002 - the state says all
        if state.pending:
            raise _uneven()

    def _check_turn(self) -> None:
        """Each step of the current turn needs a signature on its first call."""
        if not self._signed:
            return
        tail = self.since_said()
        for position, content in enumerate(tail, len(self._raw) - len(tail) + 1):
            if content.role == "model" and content.calls and content.calls[0].signature == "missing":
                raise bad(
                    "Function call is missing a thought_signature in functionCall parts. This is required for tools "
                    "to work correctly, and missing thought_signature may lead to degraded model performance. "
                    f"Additional data, function call `default_api:{content.calls[0].name}`, position {position}."
                )


_ANSWERING = "\0"


def _uneven() -> RequestError:
    return bad(
        "Please ensure that the number of function response parts is equal to the number of function call parts of "
        "the function call turn."
    )


# --- request → prompt ---------------------------------------------------------------------------------------


def _model(path: bytes) -> str:
    name = path.rpartition(b":")[0].rpartition(b"models/")[2]
    return unquote(name.decode("latin-1"))


def _check_config(config: _GenerationConfig, tools: dict[str, Any], model: str) -> None:
    if config.candidate_count not in {None, 1}:
        raise bad("Multiple candidates is not enabled for this model")
    if config.max_output_tokens is not None and config.max_output_tokens < 1:
        raise bad(
            "* GenerateContentRequest.generation_config.max_output_tokens: max_output_tokens must be positive"
        )
    if len(config.stop_sequences) > _STOPS:
        raise bad(
            f"The number of stop sequences must be at most {_STOPS}; {len(config.stop_sequences)} were given."
        )
    if config.temperature is not None and not 0 <= config.temperature <= 2:
        raise bad(
            f"* GenerateContentRequest.generation_config.temperature: temperature must be in the range [0.0, 2.0], "
            f"not {config.temperature}"
        )
    if config.top_p is not None and not 0 <= config.top_p <= 1:
        raise bad("* GenerateContentRequest.generation_config.top_p: top_p must be in the range [0.0, 1.0]")
    kind = config.response_mime_type
    if kind not in {"", "text/plain", "application/json", "text/x.enum"}:
        raise bad(
            f"* GenerateContentRequest.generation_config.response_mime_type: allowed mimetypes are `text/plain`, "
            f"`application/json`, `application/xml`, `application/yaml` and `text/x.enum`; got `{kind}`."
        )
    if config.response_schema is not None and config.response_json_schema is not None:
        raise bad("Only one of response_schema and response_json_schema may be set.")
    shaped = config.response_schema is not None or config.response_json_schema is not None
    if shaped and kind not in {"application/json", "text/x.enum"}:
        raise bad(
            "* GenerateContentRequest.generation_config.response_schema: only allowed when response_mime_type is "
            "application/json"
        )
    if kind == "application/json" and tools and _BEFORE_3.match(model):
        raise bad("Function calling with a response mime type: 'application/json' is unsupported")
    if config.thinking_config is not None:
        _check_thinking(config.thinking_config, model)


def _check_thinking(thinking: _ThinkingConfig, model: str) -> None:
    level = thinking.thinking_level
    if level is not None:
        if thinking.thinking_budget is not None:
            raise bad("You can only set only one of thinking budget and thinking level.")
        if level.upper() not in {"MINIMAL", "LOW", "MEDIUM", "HIGH", "THINKING_LEVEL_UNSPECIFIED"}:
            raise bad(
                "Invalid value at 'generation_config.thinking_config.thinking_level' "
                f'(type.googleapis.com/google.ai.generativelanguage.v1beta.ThinkingConfig.ThinkingLevel), "{level}"'
            )
        if _BEFORE_3.match(model):
            raise bad("Thinking level is not supported for this model.")
    elif thinking.thinking_budget is not None and thinking.thinking_budget < -1:
        raise bad(f"The thinking budget {thinking.thinking_budget} is invalid.")


def _schema(config: _GenerationConfig) -> Any:
    if config.response_schema is not None:
        return _plain_schema(config.response_schema, "generation_config.response_schema")
    return config.response_json_schema


def _results(tail: list[ContentSum]) -> tuple[tuple[tuple[str, str], ...], int]:
    results: list[tuple[str, str]] = []
    total = 0
    for content in tail[1:]:
        if content.role == "model":
            results.clear()
        total += len(content.results)
        results += [(name, text) for name, _, text in content.results]
    return tuple(results), total


def _guarded(read: Callable[[], _Read]) -> _Read:
    try:
        return read()
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad(f"Invalid JSON payload received. {error}") from None


def read_request(request: Request, prefixes: PrefixCache) -> Prompt:
    """Decode and check a request. O(bytes) for hashing, O(new contents) for decoding and counting.

    Raises:
        RequestError: the request is one that Gemini refuses.
    """
    return _guarded(lambda: _read(request, request.body, prefixes))


def count_request(request: Request) -> int:
    """The tokens of a prompt that is not answered.

    Raises:
        RequestError: the request is one that Gemini refuses.
    """

    def read() -> int:
        counted = decode(_count_decoder, request.body)
        body = bytes(counted.generate_content_request) or b'{"contents":%b}' % bytes(counted.contents)
        return _read(request, body, PrefixCache()).tokens

    return _guarded(read)


def _read(request: Request, body: bytes, prefixes: PrefixCache) -> Prompt:
    asked = decode(_request_decoder, body)
    model = _model(request.path)
    config = asked.generation_config
    raw_tools = bytes(asked.tools)
    known = _tools(raw_tools)
    tools = known.functions
    _check_config(config, tools, model)
    tells = _check_hosted(asked, known, model)
    allowed, choice = _choose(asked, tools)
    told = "" if asked.system_instruction is None else text_of(asked.system_instruction)
    contents = _Contents(
        asked.contents,
        hash(("gemini_chat", model, raw_tools, told)),
        known.tokens + count(told),
        prefixes,
        signed=not _BEFORE_3.match(model),
    )
    tail = contents.since_said()
    results, results_total = _results(tail)
    thinking = config.thinking_config
    return Prompt(
        model=model,
        said=tail[0].text if tail[0].role == "user" else "",
        turn=sum(content.role == "model" for content in tail),
        tools=allowed,
        results=results,
        results_total=results_total,
        tool_choice=choice,
        hosted=tuple(_HOSTED_FIELDS[name] for name in known.hosted if _HOSTED_FIELDS[name]),
        schema=_schema(config),
        json_object=config.response_mime_type == "application/json",
        max_tokens=config.max_output_tokens,
        stop=tuple(each for each in config.stop_sequences if each),
        thinks=thinking is None or thinking.thinking_budget != 0,
        stream=request.path.endswith(b":streamGenerateContent"),
        tokens=contents.tokens,
        cached_tokens=contents.cached_tokens,
        wire=Wire(shows=thinking is not None and thinking.include_thoughts, tells=tells),
    )
