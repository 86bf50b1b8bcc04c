"""The simulator is faithful to OpenAI's Responses API: the official client drives it and understands all it says."""

from __future__ import annotations

import asyncio
import contextlib
import json

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from gossamer.simulator import Script, Simulator


@contextlib.asynccontextmanager
async def served(script=None, **options):
    async with Simulator(script=Script(script) if script else None, **options) as simulator:
        async with openai.AsyncOpenAI(
            base_url=simulator.url, api_key="none", max_retries=0, timeout=20
        ) as client:
            yield simulator, client


def function(name, parameters=None):
    parameters = parameters or {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
    return {"type": "function", "name": name, "parameters": parameters, "strict": False}


WEATHER = function("get_weather")
THINKING = {"reasoning": {"summary": "auto"}}
ENCRYPTED = {"include": ["reasoning.encrypted_content"], "store": False}


async def events_of(stream):
    return [event async for event in stream]


def kinds(events):
    """The types of events, those of the same type in a row told once."""
    told = []
    for event in events:
        if not told or told[-1] != event.type:
            told.append(event.type)
    return [kind.removeprefix("response.") for kind in told]


# --- text ---------------------------------------------------------------------------------------------------


async def test_whole_answer_echoes_and_counts():
    async with served() as (simulator, client):
        answer = await client.responses.create(
            model="gpt-5-mini", input="hello world", instructions="Be brief.", metadata={"ticket": "7"}
        )
        assert answer.output_text == "You said: hello world"
        assert (answer.status, answer.object, answer.model) == ("completed", "response", "gpt-5-mini")
        assert (answer.instructions, answer.metadata) == ("Be brief.", {"ticket": "7"})
        assert answer.id.startswith("resp_")
        message = answer.output[0]
        assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
        assert (
            answer.usage.input_tokens == 3 + 2 + 3 + 3
        )  # two messages, two words, three of the instructions
        assert answer.usage.output_tokens == 5
        assert answer.usage.total_tokens == 16
        assert simulator.stats.dialects["openai_responses"].completion_tokens == 5


async def test_streamed_events_come_in_the_order_of_the_provider():
    async with served() as (simulator, client):
        stream = await client.responses.create(model="m", input="hello", stream=True)
        events = await events_of(stream)
        assert kinds(events) == [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert deltas == ["You", " said", ":", " hello"]
        done = events[-1].response
        assert done.output_text == "You said: hello"
        assert done.id == events[0].response.id
        assert (events[0].response.status, done.status) == ("in_progress", "completed")
        assert events[0].response.usage is None
        assert done.usage.output_tokens == simulator.stats.chunks == 4


async def test_stream_and_whole_answer_say_the_same():
    script = [{"thinking": "Hm, hm.", "text": "Both.", "tool": "get_weather", "arguments": {"city": "Oslo"}}]
    async with served(script) as (_, client):
        request = {"model": "m", "input": "x", "tools": [WEATHER], **THINKING, **ENCRYPTED}
        whole = (await client.responses.create(**request)).model_dump()
        async with client.responses.stream(**request) as stream:
            streamed = (await stream.get_final_response()).model_dump()
        events = await events_of(await client.responses.create(**request, stream=True))
        done = [e.item.model_dump() for e in events if e.type == "response.output_item.done"]
        assert done == events[-1].response.model_dump()["output"]
        for answer in (whole, streamed):
            for item in answer["output"]:
                for name in ("id", "call_id", "encrypted_content", "parsed_arguments"):
                    item.pop(name, None)
                for part in item.get("content") or ():
                    part.pop("parsed", None)
        assert whole["output"] == streamed["output"]
        assert [item["type"] for item in whole["output"]] == ["reasoning", "message", "function_call"]
        assert whole["usage"]["output_tokens"] == streamed["usage"]["output_tokens"]


async def test_items_are_read_and_pictures_counted():
    content = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"},
    ]
    async with served() as (_, client):
        answer = await client.responses.create(model="m", input=[{"role": "user", "content": content}])
        assert answer.output_text == "You said: look"
        assert answer.usage.input_tokens == 3 + 1 + 85


async def test_max_output_tokens_make_the_response_incomplete():
    async with served(chunks=40) as (_, client):
        answer = await client.responses.create(model="m", input="x", max_output_tokens=16)
        assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        assert answer.output[0].status == "incomplete"
        assert answer.usage.output_tokens == 16
        events = await events_of(
            await client.responses.create(model="m", input="x", max_output_tokens=16, stream=True)
        )
        assert events[-1].type == "response.incomplete"
        assert events[-1].response.output_text == answer.output_text
        with pytest.raises(openai.BadRequestError, match="expected a value >= 16") as refused:
            await client.responses.create(model="m", input="x", max_output_tokens=4)
        assert refused.value.code == "integer_below_min_value"


async def test_scripted_reasons_to_end():
    script = [
        {"text": "I cannot help with that.", "finish": "refusal"},
        {"text": "half", "finish": "content_filter"},
    ]
    async with served(script) as (_, client):
        refused = await client.responses.create(model="m", input="x")
        assert refused.output[0].content[0].refusal == "I cannot help with that."
        assert (refused.status, refused.output_text) == ("completed", "")
        filtered = await client.responses.create(model="m", input="x")
        assert (filtered.status, filtered.incomplete_details.reason) == ("incomplete", "content_filter")
        events = await events_of(await client.responses.create(model="m", input="x", stream=True))
        assert kinds(events)[4:6] == ["refusal.delta", "refusal.done"]
        assert events[-1].response.output[0].content[0].refusal == "I cannot help with that."


# --- tools --------------------------------------------------------------------------------------------------


async def test_tool_call_and_its_result():
    async with served() as (_, client):
        items = [{"role": "user", "content": 'please\ncall get_weather {"city": "Vienna"}'}]
        answer = await client.responses.create(model="m", input=items, tools=[WEATHER])
        call = answer.output[0]
        assert (call.type, call.name, call.status) == ("function_call", "get_weather", "completed")
        assert json.loads(call.arguments) == {"city": "Vienna"}
        assert call.call_id != call.id
        items += [call, {"type": "function_call_output", "call_id": call.call_id, "output": "sunny, 21 °C"}]
        answer = await client.responses.create(model="m", input=items, tools=[WEATHER])
        assert answer.output_text == "get_weather returned: sunny, 21 °C"


async def test_parallel_calls_are_streamed_one_after_another():
    said = 'call get_weather {"city": "Vienna"}\ncall get_time'
    tools = [WEATHER, function("get_time", {"type": "object", "properties": {}})]
    async with served() as (simulator, client):
        async with client.responses.stream(model="m", input=said, tools=tools) as stream:
            events = await events_of(stream)
            final = await stream.get_final_response()
        assert [(call.name, call.arguments) for call in final.output] == [
            ("get_weather", '{"city": "Vienna"}'),
            ("get_time", "{}"),
        ]
        assert final.output[0].call_id != final.output[1].call_id
        one = [
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
        ]
        assert kinds(events) == ["created", "in_progress", *one, *one, "completed"]
        assert final.usage.output_tokens == simulator.stats.chunks


async def test_turns_and_sequential_calls():
    tools = [function("a", {"type": "object"}), function("b", {"type": "object"})]
    items = [{"role": "user", "content": "call a {}\ncall b {}"}]
    names = []
    async with served() as (_, client):
        for _ in range(3):
            answer = await client.responses.create(
                model="m", input=items, tools=tools, parallel_tool_calls=False
            )
            items += answer.output
            for call in (item for item in answer.output if item.type == "function_call"):
                names.append(call.name)
                items.append(
                    {"type": "function_call_output", "call_id": call.call_id, "output": f"{call.name} done"}
                )
        assert names == ["a", "b"]
        assert answer.output_text == "b returned: b done"


async def test_one_answer_of_many_items_is_one_turn_of_the_script():
    script = [
        {"when": "go", "thinking": "Hm.", "text": "First.", "tool": "f"},
        {"when": "go", "text": "Second."},
    ]
    async with served(script) as (_, client):
        items = [{"role": "user", "content": "go"}]
        answer = await client.responses.create(model="m", input=items)
        items += answer.output
        items.append({"type": "function_call_output", "call_id": answer.output[-1].call_id, "output": "r"})
        assert (await client.responses.create(model="m", input=items)).output_text == "Second."


async def test_tool_choice_is_honoured():
    tools = [WEATHER, function("get_time", {"type": "object", "properties": {}})]
    async with served() as (_, client):

        async def choose(said, choice):
            answer = await client.responses.create(model="m", input=said, tools=tools, tool_choice=choice)
            return [item.name for item in answer.output if item.type == "function_call"]

        assert await choose("call get_time {}", "none") == []
        assert await choose("hello", "auto") == []
        assert await choose("hello", "required") == ["get_weather"]
        assert await choose("hello", {"type": "function", "name": "get_time"}) == ["get_time"]
        allowed = {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "get_time"}],
        }
        assert await choose("hello", allowed) == ["get_time"]


# --- structured output --------------------------------------------------------------------------------------


class Leaf(BaseModel):
    kind: str
    size: float


async def test_structured_output_is_an_instance_of_the_schema():
    async with served() as (_, client):
        answer = await client.responses.parse(model="m", input="a leaf", text_format=Leaf)
        assert isinstance(answer.output_parsed, Leaf)
        async with client.responses.stream(model="m", input="a leaf", text_format=Leaf) as stream:
            assert (await stream.get_final_response()).output_parsed == answer.output_parsed
        answer = await client.responses.create(
            model="m", input="json", text={"format": {"type": "json_object"}}
        )
        assert json.loads(answer.output_text) == {"echo": "json"}


# --- reasoning ----------------------------------------------------------------------------------------------

THINKER = [{"thinking": "Let me think hard.", "text": "Done."}]


async def test_thinking_is_shown_as_a_summary_where_that_is_asked_for():
    async with served(THINKER) as (_, client):
        answer = await client.responses.create(model="m", input="x", **THINKING)
        assert answer.output[0].summary[0].text == "Let me think hard."
        assert answer.output[0].encrypted_content is None
        assert answer.usage.output_tokens_details.reasoning_tokens == 5
        events = await events_of(await client.responses.create(model="m", input="x", stream=True, **THINKING))
        assert kinds(events)[2:9] == [
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
            "output_item.added",
        ]


async def test_thinking_that_is_not_shown_counts_and_sends_no_text():
    async with served(THINKER) as (simulator, client):
        events = await events_of(await client.responses.create(model="m", input="x", stream=True))
        assert "reasoning_summary_text.delta" not in kinds(events)
        reasoning, message = events[-1].response.output
        assert (reasoning.type, reasoning.summary) == ("reasoning", [])
        assert message.content[0].text == "Done."
        assert events[-1].response.usage.output_tokens == simulator.stats.completion_tokens == 7
        assert simulator.stats.chunks == 2


async def test_encrypted_reasoning_goes_back_as_it_came():
    async with served(THINKER) as (_, client):
        items = [{"role": "user", "content": "x"}]
        answer = await client.responses.create(model="m", input=items, **ENCRYPTED)
        sealed = answer.output[0].model_dump(exclude_none=True)
        assert sealed["encrypted_content"].startswith("gAAAAA")
        ask = client.responses.create
        again = await ask(model="m", input=[*items, *answer.output, *items], **ENCRYPTED)
        assert again.usage.input_tokens > answer.usage.input_tokens + 5  # what was thought is counted
        for broken, says in (
            ({"encrypted_content": "gAAAAA!!"}, "could not be verified"),
            ({"encrypted_content": sealed["encrypted_content"][:-3]}, "could not be verified"),
            ({"id": "rs_other"}, "did not match the target item id"),
        ):
            with pytest.raises(openai.BadRequestError, match=says) as refused:
                await ask(model="m", input=[*items, sealed | broken, *items], **ENCRYPTED)
            assert refused.value.code == "invalid_encrypted_content"
        del sealed["encrypted_content"]
        with pytest.raises(openai.NotFoundError, match="not persisted when `store` is set to false"):
            await ask(model="m", input=[*items, sealed, *items], **ENCRYPTED)
        assert (await ask(model="m", input=[*items, sealed, *items])).status == "completed"


# --- usage --------------------------------------------------------------------------------------------------


async def test_cached_tokens_are_those_of_the_longest_prefix_seen_before():
    async with served() as (_, client):
        items = [{"role": "user", "content": "first question"}]
        first = await client.responses.create(model="m", input=items, instructions="Be brief.")
        assert first.usage.input_tokens_details.cached_tokens == 0
        items += [*first.output, {"role": "user", "content": "second question"}]
        second = await client.responses.create(model="m", input=items, instructions="Be brief.")
        assert second.usage.input_tokens_details.cached_tokens == first.usage.input_tokens
        other = await client.responses.create(model="m", input=items, instructions="Be long.")
        assert other.usage.input_tokens_details.cached_tokens == 0


# --- errors -------------------------------------------------------------------------------------------------


async def test_scripted_errors_become_the_clients_exceptions():
    async with served([{"error": 429, "retry_after": 1.5}, {"error": 500}]) as (simulator, client):
        with pytest.raises(openai.RateLimitError) as limited:
            await client.responses.create(model="m", input="x")
        assert limited.value.response.headers["retry-after-ms"] == "1500"
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model="m", input="x", stream=True)
        assert simulator.stats.dialects["openai_responses"].errors == 2


async def test_an_error_in_the_stream_ends_in_a_failed_response():
    async with served([{"fault": "error_frame", "after": 2, "text": "one two three"}]) as (simulator, client):
        events = await events_of(await client.responses.create(model="m", input="x", stream=True))
        assert kinds(events)[-3:] == ["output_text.delta", "error", "failed"]
        assert [e.delta for e in events if e.type == "response.output_text.delta"] == ["one", " two"]
        assert events[-2].code == events[-1].response.error.code == "server_error"
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert simulator.stats.streams == 0
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model="m", input="x")


async def test_an_unknown_event_is_put_in_and_the_answer_goes_on():
    script = [{"fault": "unknown_frame", "after": after, "text": "one two three"} for after in (0, 1, 3)]
    async with served(script) as (simulator, client):
        for after in (0, 1, 3):
            events = await events_of(await client.responses.create(model="m", input="x", stream=True))
            assert events[-1].response.output_text == "one two three"
            assert [event.sequence_number for event in events] == list(range(len(events)))
            types = [event.type for event in events]
            before = types[: types.index("response.simulator_unknown")]
            assert before.count("response.output_text.delta") == after
        assert simulator.stats.errors == {"unknown_frame": 3}


async def test_malformed_event_breaks_the_clients_decoding():
    async with served([{"fault": "malformed", "after": 1, "text": "one two three"}]) as (_, client):
        said = ""
        with pytest.raises(json.JSONDecodeError):
            async for event in await client.responses.create(model="m", input="x", stream=True):
                said += event.delta if event.type == "response.output_text.delta" else ""
        assert said == "one"


CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "r"}
USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        ({}, "Missing required parameter", "input"),
        ({"input": []}, "empty array", "input"),
        ({"input": 5}, "Invalid value", "input"),
        ({"input": [USER, OUTPUT]}, "No tool call found for function call output with call_id c1", "input"),
        ({"input": [USER, CALL]}, "No tool output found for function call c1", "input"),
        ({"input": [USER, CALL, OUTPUT, OUTPUT]}, "No tool call found", "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "robot", "input[0].role"),
        ({"input": [{"role": "user"}]}, "Missing required parameter", "input[0].content"),
        ({"input": [USER, {"type": "function_call", "call_id": "c"}]}, "Missing", "input[1].name"),
        ({"input": [{"type": "galaxy"}]}, "Invalid value: 'galaxy'", "input[0].type"),
        ({"input": "x", "previous_response_id": "resp_1"}, "'resp_1' not found", "previous_response_id"),
        ({"input": "x", "tools": [WEATHER, WEATHER]}, "Two tools", "tools[1].name"),
        ({"input": "x", "tools": [{"type": "computer"}]}, "Invalid value: 'computer'", "tools[0].type"),
        ({"input": "x", "tools": [{"type": "function"}]}, "Missing", "tools[0].name"),
        ({"input": "x", "tool_choice": "required"}, "must be specified with 'tools'", "tool_choice"),
        (
            {"input": "x", "tools": [WEATHER], "tool_choice": {"type": "function", "name": "f"}},
            "not found",
            "tool_choice",
        ),
        ({"input": "x", "text": {"format": {"type": "json_schema"}}}, "Missing", "text.format.name"),
        ({"input": "x", "reasoning": {"summary": "long"}}, "Invalid value", "reasoning.summary"),
    ],
)
async def test_bad_requests_are_refused_with_the_place(body, says, param):
    async with served() as (simulator, client):
        with pytest.raises(openai.BadRequestError, match=says) as refused:
            await client.post("/responses", body={"model": "m", **body}, cast_to=object)
        assert refused.value.param == param
        assert refused.value.type == "invalid_request_error"
        assert simulator.stats.errors == {"400": 1}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["input", "tools", "tool_choice", "text", "reasoning", "include", "metadata", "instructions"]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), json_values, min_size=1))
def test_any_field_of_any_type_gets_an_answer(fields):
    async def scenario():
        async with served() as (_, client):
            # Anything but an answer or a refusal is an error of another type, which ends the test.
            with contextlib.suppress(openai.BadRequestError):
                await client.post("/responses", body={"model": "m", "input": "x", **fields}, cast_to=object)
            assert (await client.responses.create(model="m", input="still here")).status == "completed"

    asyncio.run(scenario())


async def test_many_streams_at_once_keep_apart():
    async with served(tps=200) as (simulator, client):

        async def ask(number):
            async with client.responses.stream(model="m", input=f"n {number}") as stream:
                return (await stream.get_final_response()).output_text

        assert await asyncio.gather(*map(ask, range(20))) == [f"You said: n {number}" for number in range(20)]
        assert simulator.stats.streams == 0
