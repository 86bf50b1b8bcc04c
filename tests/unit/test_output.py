"""Structured output: every kind of type, validators, one repair, partial objects."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from typing import Annotated, Literal, TypedDict

import msgspec
import pydantic
import pytest

from gossamer import (
    Agent,
    ArgumentError,
    Message,
    ModelRetry,
    Output,
    OutputError,
    Refusal,
    Session,
    ToolCall,
    Usage,
    tool,
)
from gossamer.events import OutputDelta, OutputRestarted
from gossamer.models import ModelResponse, OpenAIChat, ScriptedModel, TextDelta
from gossamer.simulator import Script, Simulator


def model(*replies) -> ScriptedModel:
    return ScriptedModel(list(replies))


class Quote(msgspec.Struct):
    """A price."""

    amount: float
    currency: str = "EUR"


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Person(TypedDict):
    name: str
    age: int


class Address(pydantic.BaseModel):
    street: str
    number: int = pydantic.Field(gt=0)


class Customer(pydantic.BaseModel):
    name: str
    home: Address


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    tricks: list[str]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Tree(msgspec.Struct):
    value: int
    children: list[Tree] = []


KINDS = [
    (Quote, '{"amount": 2.5}', Quote(2.5)),
    (Point, '{"x": 1, "y": 2}', Point(1, 2)),
    (Person, '{"name": "ada", "age": 36}', {"name": "ada", "age": 36}),
    (Address, '{"street": "High", "number": 3}', Address(street="High", number=3)),
    (
        Customer,
        '{"name": "ada", "home": {"street": "High", "number": 3}}',
        Customer(name="ada", home=Address(street="High", number=3)),
    ),
    (
        list[Address],
        '{"result": [{"street": "High", "number": 3}]}',
        [Address(street="High", number=3)],
    ),
    (Literal["yes", "no"], '{"result": "no"}', "no"),
    (int | str, '{"result": "x"}', "x"),
    (Cat | Dog, '{"result": {"type": "Dog", "tricks": ["sit"]}}', Dog(["sit"])),
    (Quote | None, '{"result": null}', None),
    (int, '{"result": 7}', 7),
    (float, '{"result": 7.5}', 7.5),
    (bool, '{"result": true}', True),
    (Colour, '{"result": "blue"}', Colour.BLUE),
    (list[int], '{"result": [1, 2]}', [1, 2]),
    (dict[str, int], '{"result": {"a": 1}}', {"a": 1}),
    (tuple[int, str], '{"result": [1, "a"]}', (1, "a")),
    (Annotated[int, msgspec.Meta(ge=1)], '{"result": 3}', 3),
    (Tree, '{"value": 1, "children": [{"value": 2, "children": []}]}', Tree(1, [Tree(2)])),
]


@pytest.mark.parametrize(("kind", "text", "value"), KINDS, ids=lambda kind: str(kind)[:30])
@pytest.mark.parametrize("how", ["run", "stream"])
async def test_every_kind_of_type(kind, text, value, how):
    scripted = model(text)
    agent = Agent(scripted, output=kind)
    if how == "run":
        result = await agent.run("x")
    else:
        async with agent.stream("x") as stream:
            async for _ in stream:
                pass
        result = stream.result
    assert result.output == value
    assert type(result.output) is type(value)
    schema = scripted.requests[0].output_schema
    assert schema.schema["type"] == "object"
    assert schema.name
    # What the schema promises is what the type takes.
    assert schema.decode(text) == value


async def test_the_schema_carries_name_and_description_and_is_built_once():
    scripted = model('{"amount": 1}', '{"amount": 2}')
    agent = Agent(scripted, output=Quote)
    await agent.run("x")
    await agent.run("x")
    first, second = (request.output_schema for request in scripted.requests)
    assert first is second
    assert (first.name, first.description) == ("Quote", "A price.")
    assert first.schema["properties"]["amount"] == {"type": "number"}


async def test_a_type_without_a_json_form_is_refused_when_it_is_given():
    class Nothing:
        pass

    with pytest.raises(ArgumentError, match="Nothing"):
        Agent("offline", output=Nothing)
    with pytest.raises(ArgumentError, match="Nothing"):
        await Agent("offline").run("x", output=Nothing)


@pytest.mark.parametrize(
    ("kind", "bad", "reason"),
    [
        (Quote, '{"amount": "much"}', "amount"),
        (Quote, "not json", "JSON|malformed"),
        (Quote, "", "JSON|truncated"),
        (Address, '{"street": "High", "number": -1}', "greater than 0"),
        (int, '{"result": "x"}', "int"),
        (Literal["a"], '{"result": "b"}', "b"),
    ],
)
async def test_one_repair_turn_with_the_validation_message(kind, bad, reason):
    good = {Quote: '{"amount": 1}', Address: '{"street": "H", "number": 1}', int: '{"result": 1}'}
    scripted = model(bad, good.get(kind, '{"result": "a"}'))
    session = Session()
    result = await Agent(scripted, output=kind).run("x", session=session)
    assert result.output is not None
    repair = scripted.requests[1].messages[-1]
    assert repair.role == "user"
    assert any(word in repair.text for word in reason.split("|"))
    assert [message.role for message in session.messages] == ["user", "assistant", "user", "assistant"]
    assert result.usage == Usage(model_calls=2)


@pytest.mark.parametrize("how", ["run", "stream"])
async def test_an_answer_that_does_not_fit_after_its_repair_is_an_error_with_the_raw_text(how):
    scripted = model("first", "second", "fine")
    session = Session()
    agent = Agent(scripted, output=Quote)
    with pytest.raises(OutputError, match="one repair") as caught:
        if how == "run":
            await agent.run("x", session=session)
        else:
            async with agent.stream("x", session=session) as stream:
                async for _ in stream:
                    pass
    assert caught.value.text == "second"
    assert len(scripted.requests) == 2
    assert session.unfinished is None
    assert (await agent.run("y", session=session, output=str)).output == "fine"


async def test_validators_sync_and_async_change_pass_or_refuse():
    def positive(quote: Quote) -> Quote:
        if quote.amount <= 0:
            raise ValueError("amount must be positive")
        return quote

    async def rounded(quote: Quote) -> Quote:
        await asyncio.sleep(0)
        if quote.currency != "EUR":
            raise ModelRetry("only euros, please")
        return Quote(round(quote.amount), quote.currency)

    output = Output(Quote, validators=[positive, rounded], name="price-tag")
    scripted = model('{"amount": -1}', '{"amount": 2.6}')
    result = await Agent(scripted, output=output).run("x")
    assert result.output == Quote(3)
    assert "amount must be positive" in scripted.requests[1].messages[-1].text
    assert scripted.requests[0].output_schema.name == "price-tag"
    retried = model('{"amount": 1, "currency": "USD"}', '{"amount": 1, "currency": "GBP"}')
    with pytest.raises(OutputError, match="only euros") as caught:
        await Agent(retried).run("x", output=output)
    assert caught.value.text == '{"amount": 1, "currency": "GBP"}'


async def test_a_refusal_is_an_error_at_once():
    refusal = ModelResponse(Message("assistant", (Refusal("I would rather not"),)), Usage(model_calls=1))
    scripted = model(refusal, "never")
    with pytest.raises(OutputError, match="rather not"):
        await Agent(scripted, output=Quote).run("x")
    assert len(scripted.requests) == 1


async def test_tools_first_then_the_structured_answer():
    @tool(inline=True)
    def price(of: str) -> float:
        return 2.5

    agent = Agent(model(ToolCall.of("price", of="tea"), '{"amount": 2.5}'), tools=[price], output=Quote)
    result = await agent.run("x")
    assert result.output == Quote(2.5)
    assert result.usage.tool_calls == 1


async def test_partial_objects_grow_and_their_texts_stay_linear():
    items = list(range(3000))
    text = msgspec.json.encode({"result": items}).decode()
    deltas = [TextDelta(text[place : place + 3]) for place in range(0, len(text), 3)]
    stream = Agent(model(deltas), output=list[int]).stream("x")
    partials = [event async for event in stream if isinstance(event, OutputDelta)]
    assert stream.result.output == items
    assert sum(len(event.text) for event in partials) < 20 * len(text)
    assert len(partials) < 300
    sizes = [len((event.partial or {}).get("result", ())) for event in partials]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 2500
    assert all(text.startswith(event.text) for event in partials)


async def test_a_partial_object_is_plain_data_at_every_letter():
    text = '{"name": "Ada \\u00e9", "age": 36}'
    stream = Agent(model([TextDelta(letter) for letter in text]), output=Person).stream("x")
    partials = [event.partial async for event in stream if isinstance(event, OutputDelta)]
    assert partials[0] in (None, {})
    assert {"name": "Ada "} in partials
    assert partials[-1]["name"] == "Ada é"
    assert stream.result.output == {"name": "Ada é", "age": 36}


async def test_output_restarted_precedes_the_repaired_answer():
    scripted = model('{"amount": "x"}', '{"amount": 1}')
    stream = Agent(scripted, output=Quote).stream("x")
    kinds = [type(event) async for event in stream if isinstance(event, OutputDelta | OutputRestarted)]
    restart = kinds.index(OutputRestarted)
    assert OutputDelta in kinds[:restart]
    assert OutputDelta in kinds[restart:]
    assert kinds.count(OutputRestarted) == 1


async def test_structured_output_over_a_real_connection_with_its_repair():
    script = Script(['{"amount": "much"}', '{"amount": 4.5}'])
    async with Simulator(script=script) as simulator:
        agent = Agent(OpenAIChat("gpt", base_url=simulator.url, api_key="k"), output=Quote)
        result = await agent.run("x")
        assert result.output == Quote(4.5)
        assert result.usage.model_calls == 2
