"""Tools as Python functions: their signatures and the types in them, out of JSON schemas."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from gossamer.schema import is_array, is_object

__all__ = ["Parameter", "Types", "parameters_of", "python_name", "signature"]

# How deep types may nest; what lies deeper is Any. A server's schema may refer to itself without end.
_MOST_DEPTH = 20

# How many schemas are looked at for the types of a tool, and of all tools; the others are Any. A schema that refers to
# others many times over has many more in it than are written there.
_MOST_OF_TOOL = 1_000
_MOST_OF_ALL = 20_000

_MOST_DEFAULT = 60
_MOST_COMMENT = 300

_PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}

# Names that mean something else where types are written.
_NO_CLASS = frozenset((*keyword.kwlist, "Any", "Literal", "NotRequired", "TypedDict"))

# What a schema says of a value beyond its type, in the order in which it is told.
_FACTS = (
    "format",
    "pattern",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
)


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a function.

    Attributes:
        name: as Python code writes it.
        key: as the tool has it.
        schema: what it takes.
        required: whether it must be given.
    """

    name: str
    key: str
    schema: Any
    required: bool


def python_name(name: str, taken: Collection[str]) -> str:
    """Make a name that Python code can write, and that is not taken.

    Args:
        name: the name of a tool or of one of its parameters.
        taken: names that it must not have.
    """
    made = re.sub(r"\W", "_", name, flags=re.ASCII)
    made = re.sub(r"^__+", "_", made)  # two are Python's own: without its `__builtins__` no code runs at all
    if not made or made[0].isdigit():
        made = f"_{made}"
    while keyword.iskeyword(made) or made in taken:
        made += "_"
    return made


def parameters_of(schema: Any) -> tuple[Parameter, ...]:
    """Give the parameters of a tool in the order in which code may give them: those that must be given first.

    Args:
        schema: the JSON schema of its arguments.
    """
    properties: Any = schema.get("properties") if is_object(schema) else None
    if not is_object(properties):
        return ()
    required: Any = schema.get("required")
    needed: set[Any] = set(required) if is_array(required) else set()
    made: list[Parameter] = []
    taken: set[str] = set()
    for key, one in properties.items():
        name = python_name(key, taken)
        taken.add(name)
        made.append(Parameter(name, key, one, key in needed))
    return tuple(sorted(made, key=lambda one: not one.required))


def signature(
    name: str, description: str, parameters: Sequence[Parameter], schema: Any, returned: str, types: Types
) -> str:
    """Write a tool as the head of an async function, with a docstring.

    Args:
        name: the function's name.
        description: what the tool does.
        parameters: its parameters.
        schema: the JSON schema that they come from.
        returned: the type of what it gives.
        types: takes the types of the parameters.
    """
    definitions = _definitions_of(schema)
    types.begin_tool()
    given: list[str] = []
    words: list[str] = []
    for one in parameters:
        kind = types.of(one.schema, definitions, one.key)
        given.append(f"{one.name}: {kind}" + ("" if one.required else f" = {_default_of(one.schema)}"))
        if said := _said_of(one.schema):
            words.append(f"    {one.name}: {said}")
    lines = [f"async def {name}({', '.join(given)}) -> {returned}:"]
    prose = _plain(description).lstrip().splitlines()
    if not prose and not words:
        return f"{lines[0]} ..."
    if len(prose) == 1 and not words:
        return f'{lines[0]}\n    """{prose[0]}"""'
    lines.append(f'    """{prose[0] if prose else ""}')
    lines += [f"    {line}".rstrip() for line in prose[1:]]
    if words:
        lines += ["", *words] if prose else words
    return "\n".join([*lines, '    """'])


class Types:
    """The types that signatures speak of: for each object of a schema that lists its fields a `TypedDict`.

    Attributes:
        written: their definitions by name, each behind those that it needs.
    """

    def __init__(self) -> None:
        self.written: dict[str, str] = {}
        self._open: dict[int, str] = {}
        self._same: dict[
            str, str
        ] = {}  # names by the text that a type would have if nothing else had its name
        self._numbers: dict[str, int] = {}
        self._left_of_all = _MOST_OF_ALL
        self._left = _MOST_OF_TOOL

    def begin_tool(self) -> None:
        """Go on with the types of another tool, whose schemas are counted anew."""
        self._left = _MOST_OF_TOOL

    def of(self, schema: Any, definitions: Any, hint: str, depth: int = 0) -> str:
        """Give the type that a schema describes, as Python writes it; `Any` where it says nothing that Python could.

        Args:
            schema: the schema.
            definitions: what it may refer to, by name.
            hint: what a type without a name is called after.
            depth: how deep the schema lies in others.
        """
        if not is_object(schema) or depth > _MOST_DEPTH or not self._left or not self._left_of_all:
            return "Any"
        self._left -= 1
        self._left_of_all -= 1
        within = depth + 1
        if "$ref" in schema:
            name = str(schema["$ref"]).rpartition("/")[2]
            return (
                self.of(definitions.get(name), definitions, name, within) if is_object(definitions) else "Any"
            )
        if "const" in schema or is_array(schema.get("enum")):
            return _literal([schema["const"]] if "const" in schema else schema["enum"])
        for key in ("anyOf", "oneOf"):
            if is_array(schema.get(key)):
                return _union([self.of(one, definitions, hint, within) for one in schema[key]])
        all_of: Any = schema.get("allOf")
        if is_array(all_of) and len(all_of) == 1:
            return self.of(all_of[0], definitions, hint, within)
        kind: Any = schema.get("type")
        if is_array(kind):
            return _union([self.of({**schema, "type": one}, definitions, hint, within) for one in kind])
        if kind in _PLAIN:
            return _PLAIN[kind]
        if kind == "array" or "items" in schema:
            item = self.of(schema.get("items"), definitions, hint, within)
            return "list" if item == "Any" else f"list[{item}]"
        if kind == "object" or "properties" in schema:
            if is_object(schema.get("properties")) and schema["properties"]:
                return self._typed_dict(schema, definitions, str(schema.get("title") or hint), within)
            value = self.of(schema.get("additionalProperties"), definitions, hint, within)
            return "dict" if value == "Any" else f"dict[str, {value}]"
        return "Any"

    def _typed_dict(self, schema: dict[str, Any], definitions: Any, hint: str, depth: int) -> str:
        if id(schema) in self._open:  # it refers to itself
            return self._open[id(schema)]
        wanted = _class_name(hint)
        name = self._free(wanted)
        self._open[id(schema)] = name
        try:
            body = self._body(schema, definitions, depth)
        finally:
            del self._open[id(schema)]
        same = self._same.setdefault(_class(wanted, body, schema), name)
        if same == name:  # else it is another tool's
            self.written[name] = _class(name, body, schema)
        return same

    def _free(self, wanted: str) -> str:
        """Give a name that no other type has. O(1), amortised."""
        name = wanted
        while name in _NO_CLASS or name in self.written or name in self._open.values():
            number = self._numbers[wanted] = self._numbers.get(wanted, 1) + 1
            name = f"{wanted}{number}"
        return name

    def _body(self, schema: dict[str, Any], definitions: Any, depth: int) -> list[tuple[str, str, str]]:
        required: Any = schema.get("required")
        needed: set[Any] = set(required) if is_array(required) else set()
        body: list[tuple[str, str, str]] = []
        for key, one in schema["properties"].items():
            kind = self.of(one, definitions, key, depth)
            body.append((key, kind if key in needed else f"NotRequired[{kind}]", _said_of(one)))
        return body


def _class(name: str, body: Sequence[tuple[str, str, str]], schema: dict[str, Any]) -> str:
    said = _one_line(schema.get("description"))
    if not all(key.isidentifier() and not keyword.iskeyword(key) for key, _, _ in body):
        fields = ", ".join(f"{key!r}: {kind}" for key, kind, _ in body)
        return f"{name} = TypedDict({name!r}, {{{fields}}})" + (f"  # {said}" if said else "")
    lines = [f"class {name}(TypedDict):" + (f"  # {said}" if said else "")]
    lines += [f"    {key}: {kind}" + (f"  # {words}" if words else "") for key, kind, words in body]
    return "\n".join(lines)


def _definitions_of(schema: Any) -> Any:
    if not is_object(schema):
        return {}
    found: list[Any] = [schema.get("definitions"), schema.get("$defs")]
    return {name: one for part in found if is_object(part) for name, one in part.items()}


def _said_of(schema: Any) -> str:
    """Give in one line what a schema says of a value: its description, and its bounds."""
    if not is_object(schema):
        return ""
    facts = _one_line(", ".join(f"{fact} {schema[fact]}" for fact in _FACTS if fact in schema))
    said = _one_line(schema.get("description"))
    return f"{said} ({facts})" if said and facts else said or facts


def _plain(words: str) -> str:
    """Leave out of a text what would end a docstring, or Python's reading of it."""
    words = words.replace('"""', "'''").replace("\0", "").rstrip()
    return f"{words} " if words.endswith(('"', "\\")) else words


def _one_line(words: Any) -> str:
    line = " ".join(_plain(words).split()) if isinstance(words, str) else ""
    return line if len(line) <= _MOST_COMMENT else f"{line[:_MOST_COMMENT]} …"


def _default_of(schema: Any) -> str:
    """Write a default; `...` where there is one that is not known, or long."""
    written = repr(schema["default"]) if is_object(schema) and "default" in schema else "..."
    return written if len(written) <= _MOST_DEFAULT else "..."


def _literal(values: Sequence[Any]) -> str:
    plain = all(value is None or isinstance(value, str | int | bool) for value in values)
    return f"Literal[{', '.join(map(repr, values))}]" if values and plain else "Any"


def _union(kinds: Sequence[str]) -> str:
    """Join types; what may be anything is Any."""
    if not kinds or "Any" in kinds:
        return "Any"
    return " | ".join(dict.fromkeys(kinds))


def _class_name(hint: str) -> str:
    words = re.findall(r"[A-Za-z0-9]+", hint)
    name = "".join(word[0].upper() + word[1:] for word in words)
    return name if name and not name[0].isdigit() else f"Object{name}"
