"""Tools made of functions: schema, arguments, defaults, names, presets."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer import Agent, ArgumentError, RunContext, Tool, ToolCall, tool
from gossamer.models import ScriptedModel


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Money(msgspec.Struct):
    amount: Annotated[float, msgspec.Meta(ge=0)]
    currency: str = "EUR"


@dataclasses.dataclass
class Address:
    street: str
    city: str = "Berlin"


class Options(TypedDict, total=False):
    fast: bool


class Person(pydantic.BaseModel):
    name: str
    friends: list[Person] = []


class Node(msgspec.Struct):
    value: int
    children: list[Node] = []


def order(
    context: RunContext[Any],
    item: str,
    count: Annotated[int, msgspec.Meta(ge=1, le=9)],
    price: Money,
    to: Address | None = None,
    colour: Literal["red", "blue"] = "red",
    tags: Sequence[str] = (),
    options: Options | None = None,
) -> str:
    """Order something."""
    return f"{item}|{count}|{price}|{to}|{colour}|{tags}|{options}"


async def call(made: Tool[..., Any], /, **arguments: Any) -> Any:
    """Let a model call a tool and give the content of the result."""
    agent = Agent(ScriptedModel([ToolCall.of(made.name, **arguments), "done"]), tools=[made])
    (result,) = (await agent.run("go", deps="deps")).new_messages[2].parts
    assert result.outcome == "ok", result.content
    return result.content


def properties(made: Tool[..., Any]) -> dict[str, Any]:
    return made.schema.parameters["properties"]


# --- the schema ----------------------------------------------------------------------------------------------------


def test_the_schema_comes_from_the_type_hints():
    parameters = tool(order).schema.parameters
    assert parameters["type"] == "object"
    assert parameters["required"] == ["item", "count", "price"]
    assert parameters["additionalProperties"] is False
    expected = {
        "item": {"type": "string"},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "price": {"$ref": "#/$defs/Money"},
        "to": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}], "default": None},
        "colour": {"enum": ["blue", "red"], "default": "red"},
    }
    assert {name: parameters["properties"][name] for name in expected} == expected
    assert parameters["$defs"]["Money"]["properties"]["amount"] == {"type": "number", "minimum": 0}
    assert parameters["$defs"]["Money"]["additionalProperties"] is False


async def test_arguments_arrive_as_the_types_in_the_hints():
    content = await call(
        tool(order),
        item="cup",
        count=2,
        price={"amount": 1},
        to={"street": "Main"},
        colour="blue",
        tags=["a"],
        options={"fast": True},
    )
    assert content == (
        "cup|2|Money(amount=1.0, currency='EUR')|Address(street='Main', city='Berlin')|blue|['a']|{'fast': True}"
    )


async def test_what_the_model_leaves_out_takes_its_default():
    content = await call(tool(order), item="cup", count=2, price={"amount": 1})
    assert content == "cup|2|Money(amount=1.0, currency='EUR')|None|red|()|None"


def test_the_context_never_shows_in_the_schema():
    def first(context: RunContext[str], a: int) -> int: ...
    def last(a: int, context: RunContext) -> int: ...
    def keyword(*, context: Annotated[RunContext[Any], "the run"], a: int) -> int: ...

    for function in (first, last, keyword):
        assert tool(function).schema.parameters["properties"] == {"a": {"type": "integer"}}


@pytest.mark.parametrize(
    "docstring",
    [
        """Pay a bill.

        Takes the money at once.

        Args:
            amount: how much, in euros.
            to (str): who gets it,
                by name.

        Returns:
            A receipt.
        """,
        """Pay a bill.

        Takes the money at once.

        Parameters
        ----------
        amount : float
            how much, in euros.
        to : str
            who gets it,
            by name.

        Returns
        -------
        str
            A receipt.
        """,
        """Pay a bill.

        Takes the money at once.

        :param amount: how much, in euros.
        :param to: who gets it,
            by name.
        :returns: A receipt.
        """,
    ],
    ids=["google", "numpy", "sphinx"],
)
def test_descriptions_come_from_docstrings_of_three_styles(docstring):
    def pay(amount: float, to: str) -> str: ...

    pay.__doc__ = docstring
    schema = tool(pay).schema
    assert schema.description.replace("\n\n", "\n") == "Pay a bill.\nTakes the money at once."
    assert schema.parameters["properties"]["amount"]["description"] == "how much, in euros."
    assert schema.parameters["properties"]["to"]["description"].split() == [
        "who",
        "gets",
        "it,",
        "by",
        "name.",
    ]


def test_a_docstring_without_sections_is_the_description_whole():
    def pay() -> str:
        """Pay: at once.

        For example, with `cash`.
        """
        return ""

    assert tool(pay).schema.description == "Pay: at once.\n\nFor example, with `cash`."
    assert tool(lambda_named()).schema.description == ""


def lambda_named():
    def plain(): ...

    return plain


def test_descriptions_may_stand_in_the_hints():
    def pay(
        amount: Annotated[float, "in euros"], to: Annotated[str, msgspec.Meta(description="who")]
    ) -> str: ...

    assert properties(tool(pay)) == {
        "amount": {"type": "number", "description": "in euros"},
        "to": {"type": "string", "description": "who"},
    }


def test_name_and_description_may_be_given():
    made = tool(name="buy", description="Buys it.")(order)
    assert (made.name, made.schema.description) == ("buy", "Buys it.")
    changed = made.replace(name="sell", description="Sells it.", timeout=1.0)
    assert (changed.name, changed.schema.description, changed.timeout) == ("sell", "Sells it.", 1.0)
    assert made.name == "buy"


def test_a_tool_without_parameters_takes_an_empty_object():
    schema = tool(lambda_named()).schema
    assert schema.parameters == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }
    assert schema.strict


def test_strict_means_closed_and_all_required():
    def strict(a: int, money: list[int]) -> int: ...
    def optional(a: int = 1) -> int: ...
    def open_ended(a: dict[str, int]) -> int: ...

    assert tool(strict).schema.strict
    assert not tool(optional).schema.strict
    assert not tool(open_ended).schema.strict


async def test_types_that_refer_to_themselves():
    def depth(node: Node) -> int:
        return 1 + max((depth(child) for child in node.children), default=0)

    assert tool(depth).schema.parameters["$defs"]["Node"]["properties"]["children"]["items"] == {
        "$ref": "#/$defs/Node"
    }
    assert await call(tool(depth), node={"value": 1, "children": [{"value": 2}]}) == "2"


async def test_pydantic_models_are_taken_alone_and_inside_others():
    def count(person: Person, others: list[Person]) -> str:
        return f"{person!r} {len(others)}"

    parameters = tool(count).schema.parameters
    assert parameters["$defs"]["Person"]["properties"]["friends"]["items"] == {"$ref": "#/$defs/Person"}
    content = await call(tool(count), person={"name": "Ann", "friends": [{"name": "Bo"}]}, others=[])
    assert content == "Person(name='Ann', friends=[Person(name='Bo', friends=[])]) 0"


async def test_enums_arrive_as_members():
    def paint(colour: Colour = Colour.RED) -> str:
        return colour.name

    assert tool(paint).schema.parameters["$defs"]["Colour"]["enum"] == ["blue", "red"]
    assert await call(tool(paint), colour="blue") == "BLUE"
    assert await call(tool(paint)) == "RED"


def test_a_type_that_json_cannot_hold_is_refused_by_name():
    def use(handle: Missing) -> str: ...  # noqa: F821

    with pytest.raises(ArgumentError, match=r"use: a type hint cannot be resolved.*'Missing'.*module level"):
        tool(use)

    def nested(handle: list[type]) -> str: ...

    with pytest.raises(ArgumentError, match="nested: its parameters cannot be described"):
        tool(nested)


def test_types_defined_after_the_tool_are_found_at_module_level():
    assert tool(uses_even_later).schema.parameters["$defs"]["EvenLater"]["required"] == ["b"]


def uses_even_later(later: EvenLater) -> str:
    return str(later)


class EvenLater(msgspec.Struct):
    b: int


def test_star_arguments_are_refused():
    def many(*words: str) -> str: ...
    def named(**words: str) -> str: ...

    for function in (many, named):
        with pytest.raises(ArgumentError, match=rf"{function.__name__}: \*words cannot be described"):
            tool(function)


def test_the_schema_is_built_once_for_each_callable():
    def count(a: int) -> int: ...

    first, second = Agent("offline", tools=[count]), Agent("offline", tools=[count])
    assert first.tools[0] is second.tools[0]


# --- ways to take parameters ---------------------------------------------------------------------------------------


async def test_positional_only_and_keyword_only_parameters_mix():
    def mix(a: int, /, b: int, *, c: int, d: int = 4) -> str:
        return f"{a}{b}{c}{d}"

    def with_context(a: int, /, context: RunContext[str], *, b: int = 2) -> str:
        return f"{a}{context.deps}{b}"

    def context_by_keyword(*, context: RunContext[str], b: int) -> str:
        return f"{context.deps}{b}"

    def only(a: int, b: int = 2, /) -> str:
        return f"{a}{b}"

    assert await call(tool(mix), a=1, b=2, c=3) == "1234"
    assert await call(tool(with_context), a=1) == "1deps2"
    assert await call(tool(context_by_keyword), b=2) == "deps2"
    assert await call(tool(only), a=1) == "12"
    assert await call(tool(preset={"a": 7})(mix), b=2, c=3) == "7234"


class Counting:
    """Counts."""

    def __init__(self):
        self.calls = 0

    def __call__(self, by: int) -> int:
        """Count up.

        Args:
            by: how far.
        """
        self.calls += by
        return self.calls

    def down(self, by: int) -> int:
        self.calls -= by
        return self.calls

    @classmethod
    def make(cls, by: int) -> str:
        return f"{cls.__name__} {by}"

    @staticmethod
    def still(by: int) -> int:
        return by


async def test_objects_and_their_methods_are_tools():
    counting = Counting()
    made = tool(counting)
    assert (made.name, made.schema.description) == ("Counting", "Count up.")
    assert properties(made) == {"by": {"type": "integer", "description": "how far."}}
    assert await call(made, by=2) == "2"
    assert await call(tool(counting.down), by=1) == "1"
    assert await call(tool(Counting.make), by=1) == "Counting 1"
    assert await call(tool(Counting.still), by=1) == "1"


@dataclasses.dataclass
class Adding:
    """Adds."""

    number: int

    def __call__(self, to: int) -> int:
        return self.number + to


async def test_an_object_that_cannot_be_hashed_is_a_tool_like_others():
    agent = Agent(ScriptedModel([ToolCall.of("Adding", to=1), "done"]), tools=[Adding(2)])
    assert (await agent.run("go")).new_messages[2].parts[0].content == "3"
    assert tool(Adding(2)).schema.description == "Adds."


def test_a_method_that_is_not_bound_is_refused():
    with pytest.raises(ArgumentError, match=r"down: a method has no 'self' before it is bound"):
        tool(Counting.down)


async def test_a_partial_hides_what_it_holds():
    def pay(amount: int, to: str, key: str = "none") -> str:
        return f"{amount} {to} {key}"

    by_position = tool(functools.partial(pay, 5))
    by_keyword = tool(functools.partial(pay, to="Ann", key="secret"))
    nested = tool(functools.partial(functools.partial(pay, key="secret"), 5))
    assert list(properties(by_position)) == ["to", "key"]
    assert list(properties(by_keyword)) == ["amount"]
    assert "secret" not in str(by_keyword.schema)
    assert await call(by_position, to="Bo") == "5 Bo none"
    assert await call(by_keyword, amount=1) == "1 Ann secret"
    assert await call(nested, to="Bo") == "5 Bo secret"
    assert by_position.name == "pay"


@pytest.mark.parametrize(
    "fix",
    [
        lambda pay: tool(preset={"key": "secret"}, inline=True)(pay),
        lambda pay: tool(inline=True)(functools.partial(pay, key="secret")),
    ],
    ids=["preset", "partial"],
)
async def test_the_model_neither_sees_nor_overrides_fixed_arguments(fix):
    used = []

    def pay(amount: int, key: str) -> str:
        used.append(key)
        return "paid"

    made = fix(pay)
    assert "key" not in str(made.schema)
    calls = [ToolCall.of("pay", amount=1, key="stolen"), ToolCall.of("pay", amount=1)]
    result = await Agent(ScriptedModel([calls, "done"]), tools=[made]).run("go")
    refused, paid = result.new_messages[2].parts
    assert "unknown field `key`" in refused.content
    assert paid.content == "paid"
    assert used == ["secret"]


def test_a_preset_that_names_no_parameter_is_refused():
    with pytest.raises(ArgumentError, match="pay: preset names no parameter: colour"):

        @tool(preset={"colour": "red"})
        def pay(amount: int) -> int:
            return amount


async def test_a_preset_may_stand_in_for_the_context():
    def look(context: RunContext[Any], a: int) -> str:
        return f"{context} {a}"

    assert await call(tool(preset={"context": "mine"})(look), a=1) == "mine 1"


async def test_mutable_defaults_are_fresh_in_each_call():
    @tool(inline=True)
    def collect(item: str, items: list[str] = [], seen: dict[str, int] = {"a": 1}) -> str:  # noqa: B006
        items.append(item)
        seen[item] = 1
        return f"{items} {seen}"

    assert await call(collect, item="x") == "['x'] {'a': 1, 'x': 1}"
    assert await call(collect, item="y") == "['y'] {'a': 1, 'y': 1}"


async def test_any_object_may_be_a_default():
    marker = object()

    @tool(inline=True)
    def use(
        a: Any = marker,
        money: Money = Money(2),  # noqa: B008
        person: Person = Person(name="Ann"),  # noqa: B008
        address: Address = Address("Main"),  # noqa: B008
    ) -> str:
        return f"{a is marker} {money.amount} {person.name} {address.street}"

    assert use.schema.parameters["required"] == []
    assert await call(use) == "True 2 Ann Main"
    assert await call(use, a=1, money={"amount": 3}) == "False 3.0 Ann Main"


# --- names and arguments of @tool ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "A-b_9", "x" * 64])
def test_names_that_providers_take(name):
    assert tool(name=name)(order).name == name


@pytest.mark.parametrize("name", ["two words", "ünder", "a.b", "x" * 65, "a\n"])
def test_names_that_providers_refuse(name):
    with pytest.raises(ArgumentError, match="is no name for a tool"):
        tool(name=name)(order)
    with pytest.raises(ArgumentError, match="is no name for a tool"):
        tool(order).replace(name=name)


def test_a_lambda_needs_a_name():
    with pytest.raises(ArgumentError, match=r"a lambda has no name; pass tool\(name=…\)"):
        tool(lambda: 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": 0}, "timeout must be above 0 seconds, not 0"),
        ({"retries": -1}, "retries must not be negative, not -1"),
        ({"max_result_chars": 0}, "max_result_chars must be at least 1, not 0"),
        ({"run_by": "nobody"}, "run_by must be 'agent', 'caller' or 'person', not 'nobody'"),
    ],
)
def test_arguments_out_of_range_are_refused(options, words):
    with pytest.raises(ArgumentError, match=words):
        tool(**options)(order)
    with pytest.raises(ArgumentError, match=words):
        tool(order).replace(**options)


def test_what_cannot_become_a_tool_is_refused():
    with pytest.raises(ArgumentError, match="callable, not of int"):
        tool(7)
    with pytest.raises(ArgumentError, match="'order' is a tool already"):
        tool(tool(order))
    with pytest.raises(ArgumentError, match=r"Tool.replace: .*colour"):
        tool(order).replace(colour="red")


def test_a_tool_is_still_the_function_it_was_made_of():
    @tool
    def double(a: int) -> int:
        return 2 * a

    assert double(4) == 8
    assert double("ab") == "abab"


def test_a_tool_is_frozen():
    with pytest.raises(AttributeError):
        tool(order).timeout = 1.0


@given(
    st.fixed_dictionaries(
        {"a": st.integers(-(2**53), 2**53), "b": st.text(st.characters(exclude_categories=["Cs"]))},
        optional={
            "c": st.lists(st.booleans()),
            "d": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        },
    )
)
def test_decoded_arguments_are_what_the_model_wrote(arguments):
    decoded = _TAKE.decode(msgspec.json.encode(arguments).decode())
    assert _TAKE.invoke(None, decoded) == {"c": None, "d": None, **arguments}


def take(a: int, b: str, c: list[bool] | None = None, d: float | None = None) -> dict[str, Any]:
    return {"a": a, "b": b, "c": c, "d": d}


_TAKE = tool(take)


@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda data: data.decode("latin-1")))
def test_no_text_makes_decoding_fail_but_by_a_value_error(text):
    try:
        decoded = _ORDER.decode(text)
    except ValueError:
        return
    assert decoded is not None


_ORDER = tool(order)
