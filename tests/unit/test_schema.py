"""JSON schemas of types, and structured output's way from text to value."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, TypedDict

import msgspec
import pydantic
import pytest

from gossamer import ArgumentError, Output
from gossamer.schema import encode_value, is_strict, json_schema, output_schema


class Line(msgspec.Struct):
    """One line."""

    text: str
    amount: Annotated[float, msgspec.Meta(ge=0)]


class Bill(msgspec.Struct):
    """A bill."""

    lines: list[Line]


@dataclasses.dataclass
class Place:
    x: int
    y: int


class Flags(TypedDict):
    on: bool


class Person(pydantic.BaseModel):
    """Somebody."""

    name: str
    friends: list[Person] = []


class Group(msgspec.Struct):
    people: list[Person]


class Tree(msgspec.Struct):
    children: list[Tree] = []


def references(schema):
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from references(item)


@pytest.mark.parametrize("type_", [Line, Bill, Place, Flags, Person, Group, Tree, list[Tree], int | str])
def test_schemas_are_self_contained(type_):
    schema = json_schema(type_)
    for reference in references(schema):
        assert reference.removeprefix("#/$defs/") in schema["$defs"]


@pytest.mark.parametrize("type_", [Line, Bill, Place, Flags, Person, Group, Tree])
def test_the_root_is_a_closed_object(type_):
    schema = json_schema(type_)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert isinstance(schema["required"], list)


def test_strict_is_told_from_the_schema():
    assert is_strict(json_schema(Bill))
    assert is_strict(json_schema(Place))
    assert not is_strict(json_schema(Tree))
    assert not is_strict(json_schema(dict[str, int]))
    for word in ("allOf", "oneOf"):
        choice = {word: [{"type": "string"}]}
        assert not is_strict(
            {
                "type": "object",
                "properties": {"a": choice},
                "required": ["a"],
                "additionalProperties": False,
            }
        )


def test_a_type_without_json_form_is_refused():
    with pytest.raises(ArgumentError, match="cannot be described as JSON schema"):
        json_schema(complex)


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        (Bill, '{"lines":[{"text":"a","amount":1}]}', Bill([Line("a", 1.0)])),
        (Place, '{"x":1,"y":2}', Place(1, 2)),
        (Flags, '{"on":true}', {"on": True}),
        (Person, '{"name":"Ann"}', Person(name="Ann")),
        (Group, '{"people":[{"name":"Ann"}]}', Group([Person(name="Ann")])),
        (int, '{"result":3}', 3),
        (list[int], '{"result":[1,2]}', [1, 2]),
        (Literal["a", "b"], '{"result":"b"}', "b"),
        (dict[str, int], '{"result":{"a":1}}', {"a": 1}),
        (int | None, '{"result":null}', None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_answer_becomes_a_value_of_the_type(type_, text, value):
    schema = output_schema(type_)
    assert schema.schema["type"] == "object"
    assert schema.decode(text) == value


@pytest.mark.parametrize("type_", [Bill, Place, Flags, Person, Group, int, list[int]])
@pytest.mark.parametrize("text", ["", "no json", "{}", "[]", '{"lines":7}', '{"result":"x"}', "null"])
def test_an_answer_that_does_not_fit_is_a_value_error(type_, text):
    with pytest.raises(ValueError):
        output_schema(type_).decode(text)


def test_an_output_schema_is_built_once_for_each_type():
    assert output_schema(Bill) is output_schema(Bill)
    assert output_schema(Bill).name == "Bill"
    assert output_schema(Bill).description == "A bill."


def test_names_of_outputs_are_those_providers_take():
    assert output_schema(Output(list[int], name="my list!")).name == "my_list_"
    assert output_schema(Output(Bill, name="x" * 100)).name == "x" * 64
    assert output_schema(Annotated[int, msgspec.Meta(examples=[1])]).schema["properties"]["result"][
        "examples"
    ] == [1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        (None, ""),
        (1.5, "1.5"),
        (Place(1, 2), '{"x":1,"y":2}'),
        (Person(name="Ann"), '{"name":"Ann","friends":[]}'),
        ([Person(name="Ann")], '[{"name":"Ann","friends":[]}]'),
    ],
)
def test_values_become_text_for_the_model(value, text):
    assert encode_value(value) == text


def test_values_without_json_form_are_refused_by_type():
    with pytest.raises(TypeError, match="a complex has no JSON form"):
        encode_value(1j)
