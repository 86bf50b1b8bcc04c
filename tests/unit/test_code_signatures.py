"""Signatures out of JSON schemas: Python that says what the schema says, whatever somebody's server sends."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer import tool
from gossamer.flow.code_signatures import Types, parameters_of, python_name, signature


def written(schema: Any, description: str = "") -> str:
    types = Types()
    head = signature("do", description, parameters_of(schema), schema, "Any", types)
    return "\n\n".join([*types.written.values(), head])


def of(kind: Any, **more: Any) -> str:
    return Types().of({"type": kind, **more}, {}, "thing")


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, "str"),
        ({"type": ["integer", "null"]}, "int | None"),
        ({"anyOf": [{"type": "number"}, {"type": "string"}]}, "float | str"),
        ({"anyOf": [{"type": "number"}, {}]}, "Any"),
        ({"enum": ["a", 1, None, True]}, "Literal['a', 1, None, True]"),
        ({"enum": [[1]]}, "Any"),
        ({"enum": []}, "Any"),
        ({"const": "a"}, "Literal['a']"),
        ({"type": "array"}, "list"),
        ({"type": "array", "items": {"type": "array", "items": {"type": "boolean"}}}, "list[list[bool]]"),
        ({"type": "object"}, "dict"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "dict[str, int]"),
        ({"type": "object", "properties": {}}, "dict"),
        ({"allOf": [{"type": "integer"}]}, "int"),
        ({"allOf": [{"type": "integer"}, {"minimum": 2}]}, "Any"),
        ({"$ref": "#/$defs/Gone"}, "Any"),
        (True, "Any"),
        ({}, "Any"),
        ({"type": "unheard-of"}, "Any"),
    ],
)
def test_types(schema: Any, kind: str) -> None:
    assert Types().of(schema, {}, "thing") == kind


def test_objects_are_typed_dicts_each_once() -> None:
    class Place(msgspec.Struct):
        """Where something is."""

        city: str
        lines: list[str] = []

    class Parcel(msgspec.Struct):
        to: Place
        back: Place | None = None
        inside: list[Parcel] = []

    Parcel.__annotations__["inside"] = list[Parcel]

    def send(parcel, first, weight=1.5, note="a" * 100):
        """Send a parcel.

        Args:
            parcel: what is sent,
                and where to
            first: where it goes first
        """

    send.__annotations__ = {"parcel": dict, "first": Place, "weight": float, "note": str}
    text = written(tool(send).schema.parameters, "Send a parcel.\nNot more than one.")
    assert text == (
        "class Place(TypedDict):  # Where something is.\n"
        "    city: str\n"
        "    lines: NotRequired[list[str]]\n"
        "\n"
        "async def do(parcel: dict, first: Place, weight: float = 1.5, note: str = ...) -> Any:\n"
        '    """Send a parcel.\n'
        "    Not more than one.\n"
        "\n"
        "    parcel: what is sent, and where to\n"
        "    first: where it goes first\n"
        '    """'
    )


def test_what_refers_to_itself_and_what_has_two_meanings() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}, "required": ["next"]}
    types = Types()
    assert types.of({"$ref": "#/$defs/Node"}, {"Node": node}, "x") == "Node"
    assert types.written["Node"] == "class Node(TypedDict):\n    next: Node"
    other = {"type": "object", "properties": {"a-b": {"type": "integer", "minimum": 1}}}
    assert types.of({"$ref": "#/definitions/Node"}, {"Node": other}, "x") == "Node2"
    assert types.written["Node2"] == "Node2 = TypedDict('Node2', {'a-b': NotRequired[int]})"
    assert types.of(dict(other), {}, "node") == "Node2"
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(100):
        deep = {"type": "array", "items": deep}
    assert types.of(deep, {}, "x").count("list") == 21


@pytest.mark.parametrize("title", ["none", "true", "any", "literal", "typed dict", "NotRequired"])
def test_no_type_has_a_name_that_means_something_else(title: str) -> None:
    types = Types()
    schema = {"type": "object", "title": title, "properties": {"a": {"type": "string"}}}
    name = types.of(schema, {}, "x")
    assert name == f"{name.rstrip('2')}2"
    assert isinstance(ast.parse(types.written[name]).body[0], ast.ClassDef)


def test_schemas_that_refer_to_others_many_times_over_end() -> None:
    unions = {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "array", "items": {"$ref": "#/$defs/A"}}] * 5}}
    objects = {
        f"O{level}": {
            "type": "object",
            "properties": {key: {"$ref": f"#/$defs/O{level + 1}"} for key in "abcdefgh"},
        }
        for level in range(19)
    }
    schema = {
        "properties": {key: {"$ref": f"#/$defs/{of}"} for key, of in (("x", "A"), ("y", "O0"), ("z", "O1"))},
        "$defs": unions | objects,
    }
    types = Types()
    for number in range(30):
        text = signature(f"do{number}", "", parameters_of(schema), schema, "Any", types)
        assert len(text) < 50_000
    assert sum(map(len, types.written.values())) < 1_000_000
    # A tool that has so many takes nothing from others before all have very many.
    types = Types()
    signature("first", "", parameters_of(schema), schema, "Any", types)
    simple = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert "n: int" in signature("second", "", parameters_of(simple), simple, "Any", types)


def test_bounds_are_told() -> None:
    schema = {
        "properties": {
            "a": {"type": "integer", "minimum": 1, "maximum": 9, "description": "how\nmany"},
            "b": {"type": "string", "pattern": "x+"},
        },
        "required": ["b"],
    }
    assert [line.strip() for line in written(schema).splitlines()[1:-1]] == [
        '"""',
        "b: pattern x+",
        "a: how many (minimum 1, maximum 9)",
    ]


names = st.text(max_size=8) | st.sampled_from(
    ["class", "self", "print", "a-b", "a_b", "é", "1x", "", "__a__", "__1__"]
)
leaves = st.none() | st.booleans() | st.integers() | names


def schemas(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "object", "array", "integer", "null"])
            | leaves
            | st.lists(names),
            "properties": st.dictionaries(names, inner, max_size=4) | leaves,
            "required": st.lists(names, max_size=3) | leaves,
            "items": inner,
            "anyOf": st.lists(inner, max_size=3) | leaves,
            "allOf": st.lists(inner, max_size=2),
            "enum": st.lists(leaves, max_size=3) | leaves,
            "const": leaves,
            "default": leaves | st.lists(leaves),
            "description": names | st.just('say """this""" \\ now\n\nand that'),
            "title": names | leaves,
            "$ref": st.sampled_from(["#/$defs/A", "#/$defs/B", "A", "#"]) | leaves,
            "$defs": st.dictionaries(st.sampled_from(["A", "B"]), inner, max_size=2) | leaves,
            "additionalProperties": inner,
            "minimum": leaves,
        },
    )


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@given(st.recursive(leaves, schemas, max_leaves=12), names)
def test_whatever_a_schema_is_its_signature_is_python(schema: Any, description: str) -> None:
    text = written(schema, description)
    tree = ast.parse(text)
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    defined |= {
        node.targets[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    head = tree.body[-1]
    assert isinstance(head, ast.AsyncFunctionDef)
    known = {*defined, "Any", "Literal", "NotRequired", "TypedDict", *dir(builtins)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert used <= known
    given_names = [one.arg for one in head.args.args]
    assert given_names == [one.name for one in parameters_of(schema)]


@given(st.lists(names, max_size=6))
def test_names_are_names_and_different(wanted: list[str]) -> None:
    made: list[str] = []
    for name in wanted:
        made.append(python_name(name, made))
        assert made[-1].isidentifier()
        assert not keyword.iskeyword(made[-1])
        assert not re.match(r"__+[^_]", made[-1])
    assert len(set(made)) == len(made)
