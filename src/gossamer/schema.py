"""JSON schemas from Python types, and values from JSON, for tool arguments and structured output.

msgspec does the work. Pydantic models are recognised by their own hooks, without importing pydantic.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard, cast, get_origin

import msgspec
from msgspec.structs import force_setattr

from gossamer.errors import ArgumentError

__all__ = [
    "HostedTool",
    "Output",
    "OutputSchema",
    "ToolSchema",
    "decode_unsupported",
    "encode_unsupported",
    "encode_value",
    "is_array",
    "is_object",
    "is_strict",
    "json_schema",
    "output_schema",
]

_NOT_STRICT = frozenset({"allOf", "default", "oneOf"})


class ToolSchema(msgspec.Struct, frozen=True, eq=False):
    """A tool as a model sees it.

    Attributes:
        name: unique within a request.
        description: what the tool does and when to use it.
        parameters: JSON schema of an object.
        strict: whether the schema fits providers' strict mode: every property required, none beyond them.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool = False


class HostedTool(msgspec.Struct, frozen=True, eq=False):
    """A tool that the provider runs on its side: `Agent(…, tools=[HostedTool("web_search")])`.

    Attributes:
        name: `web_search` or `code_execution`, which every dialect that has them knows under its own name; or the
            provider's own word for another one.
        options: further fields of its declaration, as the provider documents them; laid over those that the dialect
            sets itself.

    Raises:
        ArgumentError: the name is empty, or the options are no JSON object.
    """

    name: str
    options: Mapping[str, Any] = {}

    def __post_init__(self) -> None:
        name, options = cast("tuple[Any, Any]", (self.name, self.options))
        if not isinstance(name, str) or not name:
            raise ArgumentError(f"name of a hosted tool must be text that is not empty, not {name!r}")
        if not isinstance(options, Mapping) or any(type(key) is not str for key in cast("Any", options)):
            raise ArgumentError(
                f"options of the hosted tool {name!r} must be fields by name, not {options!r}"
            )
        try:
            force_setattr(self, "options", msgspec.json.decode(msgspec.json.encode(dict(self.options))))
        except (TypeError, ValueError, RecursionError) as error:
            raise ArgumentError(f"options of the hosted tool {name!r} have no JSON form: {error}") from error


def json_schema(type_: Any) -> dict[str, Any]:
    """Make the JSON schema of a type, self-contained: shared definitions stand under `$defs`.

    Args:
        type_: any type msgspec knows, or a pydantic model, alone or inside others.

    Returns:
        The schema, with every object closed (`additionalProperties: false`) unless its type is open.

    Raises:
        ArgumentError: a type that has no JSON form.
    """
    try:
        schemas, components = msgspec.json.schema_components(
            [type_], schema_hook=_schema_of_unsupported, ref_template="#/$defs/{name}"
        )
    except TypeError as error:
        raise ArgumentError(f"{type_!r} cannot be described as JSON schema: {error}") from error
    definitions: dict[str, Any] = {}
    for name, component in components.items():
        definitions[name] = _tidy(component, definitions)
    schema = _tidy(schemas[0], definitions)
    if set(schema) == {"$ref"}:  # providers want an object at the root, not a reference to one
        name = schema["$ref"].rsplit("/", 1)[-1]
        schema = dict(definitions[name])
        if not _mentions(definitions, f"#/$defs/{name}"):
            del definitions[name]
    return {**schema, "$defs": definitions} if definitions else schema


def is_strict(schema: Any) -> bool:
    """Tell whether a schema fits providers' strict mode: closed objects whose properties are all required.

    Neither defaults nor `oneOf` and `allOf` are known there.
    """
    if is_array(schema):
        return all(is_strict(item) for item in schema)
    if not is_object(schema):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        closed = schema.get("additionalProperties") is False
        if not closed or set(schema.get("properties", ())) != set(schema.get("required", ())):
            return False
    return schema.keys().isdisjoint(_NOT_STRICT) and all(is_strict(value) for value in schema.values())


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Tell whether JSON data is an object."""
    return type(value) is dict


def is_array(value: Any) -> TypeGuard[list[Any]]:
    """Tell whether JSON data is an array."""
    return type(value) is list


class Output(msgspec.Struct, frozen=True, eq=False):
    """An output type with validators: `Agent(…, output=Output(Quote, validators=[positive]))`.

    Attributes:
        type: the type to produce.
        validators: functions of the value, sync or async; each returns the value, changed or not, or raises
            `ValueError` or `ModelRetry` whose text tells the model what to mend.
        name: what the model knows the output as.
    """

    type: Any
    validators: Sequence[Callable[[Any], Any]] = ()
    name: str | None = None


class OutputSchema(msgspec.Struct, frozen=True, eq=False):
    """What a structured answer must look like, and how it becomes a value. Built once per type.

    Attributes:
        name: what the model knows the output as.
        description: the type's docstring.
        schema: JSON schema of an object; types that are not objects are wrapped into `{"result": …}`.
        strict: whether the schema fits providers' strict mode.
        decode: turns the text of an answer into a value; raises ValueError with what does not fit.
        validators: see `Output`.
    """

    name: str
    description: str
    schema: dict[str, Any]
    strict: bool
    decode: Callable[..., Any]
    validators: tuple[Callable[[Any], Any], ...] = ()


def output_schema(output: Any) -> OutputSchema:
    """Give the schema of an output type or `Output`; built at the first call for each type.

    Raises:
        ArgumentError: a type that has no JSON form.
    """
    try:
        return _output_schema(output)
    except TypeError:  # not hashable: an Annotated type that holds a list, say
        return _output_schema.__wrapped__(output)


@functools.lru_cache(maxsize=1024)
def _output_schema(output: Any) -> OutputSchema:
    spec = output if isinstance(output, Output) else Output(output)
    target: Any = spec.type
    schema = json_schema(target)
    if hasattr(target, "__pydantic_validator__"):
        decode = target.model_validate_json
    elif schema.get("type") == "object" and get_origin(target) is not dict and target is not dict:
        decode = msgspec.json.Decoder(target, dec_hook=decode_unsupported).decode
    else:
        wrapper = msgspec.defstruct("Output", [("result", target)], forbid_unknown_fields=True)
        schema = json_schema(wrapper)
        decode = _unwrapped(msgspec.json.Decoder(wrapper, dec_hook=decode_unsupported).decode)
    name = spec.name or getattr(target, "__name__", None) or "output"
    return OutputSchema(
        name="".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in name)[:64],
        description=schema.get("description", ""),
        schema=schema,
        strict=is_strict(schema),
        decode=decode,
        validators=tuple(spec.validators),
    )


def decode_unsupported(type_: Any, value: Any) -> Any:
    """Decode hook for msgspec: pydantic models inside other types.

    Raises:
        ValueError: the value does not fit.
        NotImplementedError: the type is not known here either.
    """
    if hasattr(type_, "__pydantic_validator__"):
        return type_.model_validate(value)
    raise NotImplementedError(f"{type_!r} cannot be made from JSON")


def encode_value(value: Any) -> str:
    """Turn what a tool returned into text for the model: text as it is, anything else as JSON.

    Raises:
        TypeError: the value has no JSON form.
        UnicodeEncodeError: text with half of a surrogate pair, which no provider takes.
    """
    if isinstance(value, str):
        if not value.isascii():
            value.encode()
        return str.__str__(value)
    if value is None:
        return ""
    return _encode(value).decode()


def encode_unsupported(value: Any) -> Any:
    """Encode hook for msgspec: pydantic models inside other types.

    Raises:
        TypeError: the value has no JSON form.
    """
    if hasattr(value, "__pydantic_validator__"):
        return value.model_dump(mode="json")
    raise TypeError(
        f"a {type(value).__name__} has no JSON form; return text, numbers, lists, dicts or a Struct"
    )


_encode = msgspec.json.Encoder(enc_hook=encode_unsupported).encode


def stored_value(value: Any) -> Any:
    """Give a run's output as JSON data for the journal; its words where it has no JSON form."""
    if value is None or type(value) is str:
        return value
    try:
        return msgspec.to_builtins(value, enc_hook=encode_unsupported)
    except (TypeError, ValueError, RecursionError):
        return str(value)


def words_of(error: BaseException) -> str:
    """Give the text of an error as something that JSON can hold, whatever its own `__str__` does."""
    try:
        return str(error).encode("utf-8", "replace").decode()
    except Exception as broken:  # noqa: BLE001 - the users' exception classes may do anything
        return f"({type(broken).__name__} while reading the error)"


def _schema_of_unsupported(type_: Any) -> dict[str, Any]:
    if hasattr(type_, "__pydantic_validator__"):
        return type_.model_json_schema()
    raise NotImplementedError


def _unwrapped(decode: Callable[..., Any]) -> Callable[..., Any]:
    def unwrap(text: str | bytes) -> Any:
        return decode(text).result

    return unwrap


def _tidy(schema: Any, definitions: dict[str, Any]) -> Any:
    """Close every object that lists its properties, as strict modes demand, and move `$defs` to the root's."""
    if is_array(schema):
        return [_tidy(item, definitions) for item in schema]
    if not is_object(schema):
        return schema
    for name, definition in schema.get("$defs", {}).items():
        definitions[name] = _tidy(definition, definitions)
    node = {key: _tidy(value, definitions) for key, value in schema.items() if key != "$defs"}
    if node.get("type") == "object" and "properties" in node:
        node.setdefault("additionalProperties", False)
        node.setdefault("required", [])
    if is_array(node.get("anyOf")):
        node["anyOf"] = sorted(node["anyOf"], key=_place_of_choice)
    return node


def _place_of_choice(schema: Any) -> tuple[bool, bytes]:
    """Order the members of a union alike in every process, null last: Python keeps no order of its own.

    A provider's prompt cache lives by it.
    """
    return is_object(schema) and schema.get("type") == "null", msgspec.json.encode(schema)


def _mentions(schema: Any, reference: str) -> bool:
    if is_array(schema):
        return any(_mentions(item, reference) for item in schema)
    if is_object(schema):
        return schema.get("$ref") == reference or any(
            _mentions(value, reference) for value in schema.values()
        )
    return False
