"""The simulator is faithful to Anthropic: the official client drives it and understands all it says."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gossamer.instances import SchemaError
from gossamer.simulator import Script, Simulator
from gossamer.simulator.anthropic_chat import AnthropicChatDialect
from gossamer.simulator.dialect import Request, RequestError
from gossamer.simulator.replies import default_reply
from gossamer.simulator.speech import speech_of
from gossamer.simulator.tokens import PrefixCache

MODEL = "claude-sonnet-4-6"
THINK = {"type": "enabled", "budget_tokens": 1024}
CACHE = {"type": "ephemeral"}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def tool(name, schema=None, **fields):
    schema = schema or {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
    return {"name": name, "description": "d", "input_schema": schema, **fields}


WEATHER = tool("get_weather")
TIME = tool("get_time", {"type": "object", "properties": {}})


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def result(call_id, content="sunny"):
    return {"type": "tool_result", "tool_use_id": call_id, "content": content}


class Asking:
    """The client with the settings that each request needs."""

    def __init__(self, simulator, client):
        self.simulator = simulator
        self.client = client

    async def create(self, messages, **options):
        if isinstance(messages, str):
            messages = [user(messages)]
        options = {"model": MODEL, "max_tokens": 2000, **options}
        return await self.client.messages.create(messages=messages, **options)

    async def stream(self, messages, **options):
        """The final message as the client puts it together, and the types of all events."""
        if isinstance(messages, str):
            messages = [user(messages)]
        options = {"model": MODEL, "max_tokens": 2000, **options}
        async with self.client.messages.stream(messages=messages, **options) as stream:
            events = [event async for event in stream]
            return await stream.get_final_message(), events


@asynccontextmanager
async def served(script=None, **options):
    async with Simulator(script=Script(script) if script else None, **options) as simulator:
        async with anthropic.AsyncAnthropic(
            base_url=simulator.url.removesuffix("/v1"), api_key="none", max_retries=0, timeout=20
        ) as client:
            yield Asking(simulator, client)


async def refused(messages, match, script=None, kind=anthropic.BadRequestError, **options):
    async with served(script) as asking:
        with pytest.raises(kind, match=match) as caught:
            await asking.create(messages, **options)
        assert caught.value.type in {"invalid_request_error", "authentication_error"}


def bare(message):
    """What a message holds apart from its ids."""
    content = [
        {key: value for key, value in block.to_dict().items() if key != "id"} for block in message.content
    ]
    return content, message.stop_reason, message.stop_sequence, message.usage.output_tokens


# --- text ---------------------------------------------------------------------------------------------------


async def test_whole_answer_echoes_and_counts():
    async with served() as asking:
        answer = await asking.create("hello world")
        assert [block.to_dict() for block in answer.content] == [
            {"type": "text", "text": "You said: hello world"}
        ]
        assert (answer.role, answer.model, answer.type) == ("assistant", MODEL, "message")
        assert answer.id.startswith("msg_")
        assert answer.stop_reason == "end_turn"
        assert answer.stop_sequence is None
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 5)
        assert answer.usage.cache_read_input_tokens == answer.usage.cache_creation_input_tokens == 0
        assert answer._request_id.startswith("req_")
        assert asking.simulator.stats.completion_tokens == 5
        assert asking.simulator.stats.dialects["anthropic_chat"].requests == 1


async def test_the_raw_events_come_in_the_providers_order():
    async with served() as asking:
        stream = await asking.create("hello", stream=True)
        events = [event async for event in stream]
        assert [event.type for event in events] == [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        assert events[0].message.content == []
        assert events[0].message.usage.input_tokens == 4
        assert [event.delta.text for event in events[2:6]] == ["You", " said", ":", " hello"]
        assert {event.index for event in events[1:7]} == {0}
        assert events[7].usage.output_tokens == 4
        assert events[7].usage.input_tokens == 4
        assert events[7].delta.stop_reason == "end_turn"
        assert asking.simulator.stats.chunks == 4


async def test_a_ping_follows_the_start_of_the_first_block():
    async with served() as asking:
        body = {"model": MODEL, "max_tokens": 9, "messages": [user("x")], "stream": True}
        async with asking.client.messages.with_streaming_response.create(**body) as response:
            text = await response.text()
        names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
        assert names[:4] == ["message_start", "content_block_start", "ping", "content_block_delta"]
        assert response.headers["content-type"].startswith("text/event-stream")
        for frame in text.strip().split("\n\n"):
            name, data = frame.split("\n")
            assert json.loads(data.removeprefix("data: "))["type"] == name.removeprefix("event: ")


@pytest.mark.parametrize(
    "said",
    ["hello world", 'Ünïcode 🎉 日本語テキスト "quotes" \\ back\nlines\t\u2028 and   many     spaces   '],
)
async def test_a_streamed_answer_is_put_together_to_the_whole_one(said):
    async with served() as asking:
        streamed, _ = await asking.stream(said)
        assert bare(streamed) == bare(await asking.create(said))
        assert streamed.content[0].text == f"You said: {said}"


async def test_max_tokens_cuts_the_answer():
    async with served() as asking:
        for answer in (
            await asking.create("a b c d", max_tokens=4),
            (await asking.stream("a b c d", max_tokens=4))[0],
        ):
            assert answer.content[0].text == "You said: a"
            assert answer.stop_reason == "max_tokens"
            assert answer.usage.output_tokens == 4
        nothing = await asking.create("a b c d", max_tokens=0)
        assert (nothing.content, nothing.stop_reason) == ([], "max_tokens")


async def test_a_stop_sequence_ends_the_text_and_is_named():
    async with served() as asking:
        stops = ["nowhere", "STOP"]
        for answer in (
            await asking.create("one two STOP three", stop_sequences=stops),
            (await asking.stream("one two STOP three", stop_sequences=stops))[0],
        ):
            assert answer.content[0].text == "You said: one two "
            assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "STOP")


async def test_a_refusal_is_told_by_the_stop_reason():
    async with served([{"text": "No.", "finish": "refusal"}]) as asking:
        for answer in (await asking.create("x"), (await asking.stream("x"))[0]):
            assert answer.stop_reason == "refusal"
            assert answer.stop_details.type == "refusal"


async def test_instructions_and_pictures_are_counted():
    async with served() as asking:
        system = [{"type": "text", "text": "Be brief."}]
        assert (await asking.create("hi", system=system)).usage.input_tokens == 3 + 1 + 3
        assert (await asking.create("hi", system="Be brief.")).usage.input_tokens == 3 + 1 + 3
        picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
        answer = await asking.create([user([{"type": "text", "text": "look"}, picture])])
        assert answer.content[0].text == "You said: look"
        assert answer.usage.input_tokens == 3 + 1 + 1600


# --- tools --------------------------------------------------------------------------------------------------


async def test_tool_call_and_its_result():
    async with served() as asking:
        messages = [user('please\ncall get_weather {"city": "Vienna"}')]
        answer = await asking.create(messages, tools=[WEATHER])
        assert answer.stop_reason == "tool_use"
        (call,) = answer.content
        assert (call.type, call.name, call.input) == ("tool_use", "get_weather", {"city": "Vienna"})
        assert call.id.startswith("toolu_")
        messages += [assistant(answer.content), user([result(call.id, "sunny, 21 °C")])]
        answer = await asking.create(messages, tools=[WEATHER])
        assert answer.content[0].text == "get_weather returned: sunny, 21 °C"
        assert answer.stop_reason == "end_turn"


async def test_parallel_calls_are_blocks_of_their_own():
    said = 'call get_weather {"city": "Vienna"}\ncall get_time\ncall unknown_tool {}'
    async with served() as asking:
        whole = await asking.create(said, tools=[WEATHER, TIME])
        streamed, events = await asking.stream(said, tools=[WEATHER, TIME])
        assert bare(streamed) == bare(whole)
        assert [(call.name, call.input) for call in whole.content] == [
            ("get_weather", {"city": "Vienna"}),
            ("get_time", {}),
        ]
        assert len({call.id for call in (*whole.content, *streamed.content)}) == 4
        starts = [event.index for event in events if event.type == "content_block_start"]
        stops = [event.index for event in events if event.type == "content_block_stop"]
        assert starts == stops == [0, 1]
        both = [result(streamed.content[1].id, "noon"), result(streamed.content[0].id)]
        answer = await asking.create(
            [user(said), assistant(streamed.content), user(both)], tools=[WEATHER, TIME]
        )
        assert answer.content[0].text == "get_time returned: noon\nget_weather returned: sunny"


async def test_streamed_arguments_come_in_fragments():
    arguments = '{"city": "Sankt Pölten an der Traisen"}'
    async with served() as asking:
        message, events = await asking.stream(f"call get_weather {arguments}", tools=[WEATHER])
        fragments = [event.partial_json for event in events if event.type == "input_json"]
        assert "".join(fragments) == arguments
        assert fragments[0] == ""
        assert len(fragments) > 5
        assert message.content[0].input == json.loads(arguments)


async def test_text_before_calls_keeps_its_place():
    script = [{"text": "Let me see.", "tool": "get_weather", "arguments": {"city": "Graz"}}]
    async with served(script) as asking:
        message, events = await asking.stream("x", tools=[WEATHER])
        assert [block.type for block in message.content] == ["text", "tool_use"]
        assert message.stop_reason == "tool_use"
        order = [event.type for event in events if event.type.startswith("content_block_st")]
        assert order == ["content_block_start", "content_block_stop"] * 2


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"type": "any"}, ["get_weather"]),
        ({"type": "tool", "name": "get_time"}, ["get_time"]),
        ({"type": "none"}, []),
        ({"type": "auto"}, []),
    ],
)
async def test_a_tool_is_called_where_the_request_wants_it(choice, names):
    async with served() as asking:
        answer = await asking.create("hello", tools=[WEATHER, TIME], tool_choice=choice)
        assert [block.name for block in answer.content if block.type == "tool_use"] == names
        assert answer.stop_reason == ("tool_use" if names else "end_turn")


async def test_tools_are_taken_in_turn_where_any_will_do():
    async with served() as asking:
        messages = [user("hello")]
        names = []
        for _ in range(3):
            answer = await asking.create(messages, tools=[WEATHER, TIME], tool_choice={"type": "any"})
            (call,) = answer.content
            names.append(call.name)
            messages += [assistant(answer.content), user([result(call.id)])]
        assert names == ["get_weather", "get_time", "get_weather"]


async def test_calls_come_one_after_another_where_parallel_ones_are_disabled():
    said = "call get_time\ncall get_time"
    async with served() as asking:
        choice = {"type": "auto", "disable_parallel_tool_use": True}
        answer = await asking.create(said, tools=[TIME], tool_choice=choice)
        assert len(answer.content) == 1
        messages = [user(said), assistant(answer.content), user([result(answer.content[0].id)])]
        again = await asking.create(messages, tools=[TIME], tool_choice=choice)
        assert [block.type for block in again.content] == ["tool_use"]


async def test_neighbours_of_one_role_count_as_one_message():
    async with served() as asking:
        said = "call get_time\ncall get_time"
        answer = await asking.create([user("first"), user(said)], tools=[TIME])
        first, second = answer.content
        messages = [
            user("first"),
            user(said),
            assistant([first]),
            assistant([second]),
            user([result(first.id, "1")]),
            user([result(second.id, "2")]),
        ]
        answer = await asking.create(messages, tools=[TIME])
        assert answer.content[0].text == "get_time returned: 1\nget_time returned: 2"


async def test_what_the_user_adds_to_results_is_answered():
    async with served() as asking:
        answer = await asking.create("call get_time", tools=[TIME])
        mixed = [result(answer.content[0].id), {"type": "text", "text": "never mind"}]
        messages = [user("call get_time"), assistant(answer.content), user(mixed)]
        assert (await asking.create(messages, tools=[TIME])).content[0].text == "You said: never mind"


async def test_arguments_that_were_cut_are_empty_in_a_whole_answer():
    async with served() as asking:
        said = 'call get_weather {"city": "Vienna and its surroundings"}'
        answer = await asking.create(said, tools=[WEATHER], max_tokens=4)
        assert answer.content[0].input == {}
        assert answer.stop_reason == "max_tokens"


# --- structured output --------------------------------------------------------------------------------------


class Quote(BaseModel):
    amount: float
    currency: str


async def test_structured_output_is_an_instance_of_the_schema():
    async with served() as asking:
        parsed = await asking.client.messages.parse(
            model=MODEL, max_tokens=99, messages=[user("x")], output_format=Quote
        )
        assert isinstance(parsed.parsed_output, Quote)
        async with asking.client.messages.stream(
            model=MODEL, max_tokens=99, messages=[user("x")], output_format=Quote
        ) as stream:
            assert isinstance((await stream.get_final_message()).parsed_output, Quote)


@pytest.mark.parametrize(
    ("schema", "match"),
    [
        ({"type": "object", "properties": {}}, "additionalProperties"),
        ({"type": "integer", "minimum": 1}, "minimum are not supported"),
        ({"type": "array", "items": {"type": "string", "maxLength": 3}}, "maxLength are not supported"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, "minItems"),
    ],
)
async def test_schemas_beyond_the_providers_are_refused(schema, match):
    shape = {"type": "json_schema", "schema": schema}
    await refused("x", match, output_config={"format": shape})


# --- thinking -----------------------------------------------------------------------------------------------


async def test_thinking_is_signed_and_comes_back():
    script = [
        {"thinking": "The weather. I need the tool.", "tool": "get_weather", "arguments": {"city": "Graz"}},
        {"thinking": "Sunny, then.", "text": "Go out."},
    ]
    async with served(script) as asking:
        messages = [user("How is it?")]
        message, events = await asking.stream(messages, tools=[WEATHER], thinking=THINK)
        assert [block.type for block in message.content] == ["thinking", "tool_use"]
        assert message.content[0].thinking == "The weather. I need the tool."
        assert len(message.content[0].signature) > 40
        kinds = [event.type for event in events]
        assert kinds.index("thinking") < kinds.index("signature") < kinds.index("input_json")
        assert message.usage.output_tokens_details.thinking_tokens == 8
        messages += [assistant(message.content), user([result(message.content[1].id)])]
        answer = await asking.create(messages, tools=[WEATHER], thinking=THINK)
        assert [block.type for block in answer.content] == ["thinking", "text"]
        assert answer.content[1].text == "Go out."


async def test_the_same_thinking_has_the_same_signature():
    script = [
        {"thinking": "Hm.", "text": "a"},
        {"thinking": "Hm.", "text": "b"},
        {"thinking": "Ah.", "text": "c"},
    ]
    async with served(script) as asking:
        signatures = [
            (await asking.create("x", thinking=THINK)).content[0].signature,
            (await asking.stream("x", thinking=THINK))[0].content[0].signature,
            (await asking.create("x", thinking=THINK)).content[0].signature,
        ]
        assert signatures[0] == signatures[1] != signatures[2]


async def test_an_answer_with_a_thinking_budget_begins_with_a_thinking_block():
    async with served() as asking:
        for message in (
            await asking.create("call get_time", tools=[TIME], thinking=THINK),
            (await asking.stream("call get_time", tools=[TIME], thinking=THINK))[0],
        ):
            assert [block.type for block in message.content] == ["thinking", "tool_use"]
            messages = [
                user("call get_time"),
                assistant(message.content),
                user([result(message.content[1].id)]),
            ]
            again = await asking.create(messages, tools=[TIME], thinking=THINK)
            assert again.content[-1].text == "get_time returned: sunny"


async def test_omitted_thinking_has_a_signature_but_no_text():
    script = [{"thinking": "Secret steps.", "text": "Done."}] * 2
    thinking = {"type": "adaptive", "display": "omitted"}
    async with served(script) as asking:
        message, events = await asking.stream("x", thinking=thinking)
        assert bare(message) == bare(await asking.create("x", thinking=thinking))
        assert message.content[0].thinking == ""
        assert message.content[0].signature
        assert "thinking" not in [event.type for event in events]
        assert message.usage.output_tokens == 5
        assert asking.simulator.stats.completion_tokens == 10
        await asking.create([user("x"), assistant(message.content), user("and?")], thinking=thinking)


async def test_disabled_thinking_is_not_sent():
    async with served([{"thinking": "Hm.", "text": "Done."}]) as asking:
        for message in (
            await asking.create("x", thinking={"type": "disabled"}),
            (await asking.stream("x", thinking={"type": "disabled"}))[0],
        ):
            assert [block.type for block in message.content] == ["text"]
            assert message.usage.output_tokens == 2


@pytest.mark.parametrize(
    ("model", "kinds", "text"),
    [
        ("claude-sonnet-4-6", ["text"], None),
        ("claude-opus-5", ["thinking", "text"], ""),
        ("my-model", ["thinking", "text"], "Hm."),
    ],
)
async def test_models_think_by_themselves_or_not(model, kinds, text):
    async with served([{"thinking": "Hm.", "text": "Done."}]) as asking:
        for message in (await asking.create("x", model=model), (await asking.stream("x", model=model))[0]):
            assert [block.type for block in message.content] == kinds
            assert text is None or message.content[0].thinking == text


async def test_a_tool_loop_that_lost_its_thinking_is_refused():
    async with served() as asking:
        answer = await asking.create("call get_time", tools=[TIME], thinking=THINK)
        messages = [
            user("call get_time"),
            assistant(answer.content[1:]),
            user([result(answer.content[1].id)]),
        ]
        with pytest.raises(anthropic.BadRequestError, match="must start with a thinking block"):
            await asking.create(messages, tools=[TIME], thinking=THINK)
        # The requirement falls with the setting, and with a new question.
        await asking.create(messages, tools=[TIME])
        await asking.create([*messages, assistant("fine"), user("next")], tools=[TIME], thinking=THINK)


async def test_thinking_that_was_changed_is_refused():
    async with served([{"thinking": "One and one is two.", "text": "2"}]) as asking:
        answer = await asking.create("x", thinking=THINK)
        thinking = answer.content[0].to_dict()
        for changed in (
            {**thinking, "thinking": "One and one is three."},
            {**thinking, "signature": thinking["signature"][:-8] + "AAAAAAAA"},
            {**thinking, "signature": "made up"},
        ):
            history = [user("x"), assistant([changed, {"type": "text", "text": "2"}]), user("y")]
            with pytest.raises(
                anthropic.BadRequestError, match=r"messages\.1\.content\.0: Invalid `signature`"
            ):
                await asking.create(history, thinking=THINK)


# --- caching ------------------------------------------------------------------------------------------------


def spent(answer):
    usage = answer.usage
    return usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens


LONG = "You are a patient helper who knows a great deal about the weather."


async def test_nothing_is_cached_without_marks():
    async with served() as asking:
        for _ in range(2):
            assert spent(await asking.create("hello", system=LONG))[1:] == (0, 0)


async def test_a_marked_prefix_is_written_once_and_read_afterwards():
    async with served() as asking:
        system = [{"type": "text", "text": LONG, "cache_control": CACHE}]
        first = await asking.create("hello", system=system)
        assert spent(first) == (4, 14, 0)
        assert first.usage.cache_creation.ephemeral_5m_input_tokens == 14
        assert spent(await asking.create("something else", system=system)) == (6, 0, 14)
        streamed, _ = await asking.stream("hello", system=system)
        assert spent(streamed) == (4, 0, 14)
        assert asking.simulator.stats.cached_tokens == 28


async def test_automatic_caching_moves_forward_with_the_conversation():
    async with served() as asking:
        messages = [user("hello")]
        first = await asking.create(messages, system=LONG, cache_control=CACHE)
        assert spent(first) == (0, 18, 0)
        messages += [assistant(first.content), user("and now?")]
        second = await asking.create(messages, system=LONG, cache_control=CACHE)
        assert spent(second) == (0, 13, 18)
        # Without a mark nothing is looked for.
        assert spent(await asking.create(messages, system=LONG)) == (31, 0, 0)


async def test_where_marks_stand_does_not_change_the_prefix():
    async with served() as asking:
        marked = {"type": "text", "text": "hello", "cache_control": CACHE}
        await asking.create([user([marked])])
        history = [user("hello"), assistant("hi"), user([{**marked, "text": "more"}])]
        assert spent(await asking.create(history))[2] == 4


async def test_other_tools_make_another_prefix():
    async with served() as asking:
        await asking.create("hello", cache_control=CACHE, tools=[WEATHER])
        other = await asking.create("hello", cache_control=CACHE, tools=[TIME])
        assert spent(other)[2] == 0
        tools = [{**WEATHER, "cache_control": CACHE}]
        await asking.create("hello", tools=tools)
        # Another tool choice leaves the tools as they were, but not what follows them.
        read = await asking.create("hello", tools=tools, tool_choice={"type": "none"}, cache_control=CACHE)
        assert 0 < spent(read)[2] < sum(spent(read))
        assert spent(read)[1] == 4


async def test_longer_lived_marks_are_counted_apart_and_come_first():
    async with served() as asking:
        hour = {"type": "ephemeral", "ttl": "1h"}
        system = [{"type": "text", "text": LONG, "cache_control": hour}]
        answer = await asking.create("hello", system=system, cache_control=CACHE)
        created = answer.usage.cache_creation
        assert (created.ephemeral_1h_input_tokens, created.ephemeral_5m_input_tokens) == (14, 4)
    system[0]["cache_control"] = CACHE
    await refused("hello", "must not come after", system=system, cache_control=hour)


async def test_a_mark_looks_back_over_twenty_blocks():
    async with served() as asking:
        begin = user([{"type": "text", "text": "begin", "cache_control": CACHE}])
        await asking.create([begin])
        near = [user([{"type": "text", "text": "begin"}, *[{"type": "text", "text": "x"}] * 20])]
        far = [user([{"type": "text", "text": "begin"}, *[{"type": "text", "text": "y"}] * 21])]
        assert spent(await asking.create(near, cache_control=CACHE))[2] == 4
        assert spent(await asking.create(far, cache_control=CACHE))[2] == 0


async def test_five_marks_are_too_many():
    parts = [{"type": "text", "text": "x", "cache_control": CACHE}] * 5
    await refused([user(parts)], "A maximum of 4 blocks with cache_control may be provided. Found 5")


async def test_tokens_are_counted_as_they_are_billed():
    async with served() as asking:
        answer = await asking.create("hello world", system=LONG, tools=[WEATHER])
        counted = await asking.client.messages.count_tokens(
            model=MODEL, messages=[user("hello world")], system=LONG, tools=[WEATHER]
        )
        assert counted.input_tokens == answer.usage.input_tokens
        with pytest.raises(anthropic.BadRequestError, match="non-empty"):
            await asking.client.messages.count_tokens(model=MODEL, messages=[user("")])


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "word"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (413, anthropic.RequestTooLargeError, "request_too_large"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.OverloadedError, "overloaded_error"),
    ],
)
async def test_errors_are_the_clients_own(status, kind, word):
    script = [{"error": status, "retry_after": 2, "message": "as it happens"}]
    async with served(script) as asking:
        for streamed in (False, True):
            with pytest.raises(kind, match="as it happens") as caught:
                await asking.create("x", stream=streamed)
            assert caught.value.status_code == status
            assert caught.value.type == word
            assert caught.value.request_id.startswith("req_")
            assert caught.value.response.headers["retry-after"] == "2"


async def test_the_client_retries_an_overload():
    async with served([{"error": 529, "retry_after": 0}, "fine"]) as asking:
        client = asking.client.with_options(max_retries=1)
        answer = await client.messages.create(model=MODEL, max_tokens=9, messages=[user("x")])
        assert answer.content[0].text == "fine"


async def test_an_error_in_the_middle_of_a_stream():
    async with served([{"text": "one two three four", "fault": "error_frame", "after": 2}]) as asking:
        texts = []
        with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            async for event in await asking.create("x", stream=True):
                if event.type == "content_block_delta":
                    texts.append(event.delta.text)  # noqa: PERF401 - what came before the error counts
        assert texts == ["one", " two"]


async def test_an_unknown_event_does_no_harm():
    async with served([{"text": "one two three", "fault": "unknown_frame", "after": 1}]) as asking:
        message, events = await asking.stream("x")
        assert message.content[0].text == "one two three"
        assert "simulator_unknown" in [event.type for event in events]


async def test_a_request_needs_a_key_and_a_version():
    async with served() as asking:
        url = asking.simulator.url + "/messages"
        body = {"model": MODEL, "max_tokens": 9, "messages": [user("x")]}
        http = asking.client._client
        missing = await http.post(url, json=body, headers={"anthropic-version": "2023-06-01"})
        assert missing.status_code == 401
        assert missing.json()["error"]["type"] == "authentication_error"
        unversioned = await http.post(url, json=body, headers={"x-api-key": "none"})
        assert unversioned.status_code == 400
        assert "anthropic-version" in unversioned.json()["error"]["message"]
        broken = await http.post(
            url, content=b"{", headers={"anthropic-version": "2023-06-01", "x-api-key": "none"}
        )
        assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_a_body_that_is_too_large():
    async with served() as asking:
        with pytest.raises(anthropic.RequestTooLargeError, match="larger than") as caught:
            await asking.create("x" * 34_000_000)
        assert caught.value.type == "request_too_large"


async def test_models():
    async with served() as asking:
        names = [model.id async for model in asking.client.models.list()]
        assert names == ["simulator"]
        model = await asking.client.models.retrieve(MODEL)
        assert (model.id, model.type) == (MODEL, "model")


# --- refused requests ---------------------------------------------------------------------------------------


USE = {"type": "tool_use", "id": "toolu_1", "name": "get_time", "input": {}}
USE2 = {**USE, "id": "toolu_2"}
TEXT = {"type": "text", "text": "and"}


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([], "at least one message is required"),
        ([assistant("hi"), user("x")], 'first message must use the "user" role'),
        ([user("")], "messages.0: all messages must have non-empty content"),
        ([user([])], "messages.0: all messages must have non-empty content"),
        ([user([{"type": "text", "text": ""}])], "text content blocks must be non-empty"),
        ([user(" \n")], "must contain non-whitespace text"),
        ([{"role": "tool", "content": "x"}], "messages.0.role"),
        ([user([{"type": "video", "url": "x"}])], r"messages\.0\.content\.0: Input tag 'video'"),
        ([user([{"type": "text"}])], r"messages\.0\.content\.0\.text: Field required"),
        (
            [user([{"type": "text", "text": 1}])],
            r"messages\.0\.content\.0\.text: Input should be a valid string",
        ),
        ([user([{**TEXT, "id": 1}])], r"messages\.0\.content\.0\.id: Extra inputs are not permitted"),
        ([user([USE])], "`tool_use` blocks can only be in `assistant` messages"),
        ([user("x"), assistant([result("toolu_1")])], "`tool_result` blocks can only be in `user` messages"),
        ([user("x"), assistant([USE])], "messages.1: `tool_use` ids were found without `tool_result`"),
        (
            [user("x"), assistant([USE]), user("y")],
            "messages.1: `tool_use` ids were found without `tool_result`",
        ),
        (
            [user("x"), assistant([USE, USE2]), user([result("toolu_1")])],
            "immediately after: toolu_2",
        ),
        ([user("x"), assistant([USE]), user([TEXT, result("toolu_1")])], "immediately after: toolu_1"),
        ([user("x"), assistant([USE]), user([result("toolu_9")])], "unexpected `tool_use_id` found"),
        ([user([result("toolu_1")])], "unexpected `tool_use_id` found"),
        ([user("x"), assistant("y"), user([TEXT, result("toolu_1")])], "unexpected `tool_use_id` found"),
        (
            [user("x"), assistant([USE]), user([result("toolu_1"), result("toolu_1")])],
            "each tool_use must have a single result",
        ),
        ([user("x"), assistant([USE, USE]), user([result("toolu_1")])], "`tool_use` ids must be unique"),
        (
            [user("x"), assistant([{**USE, "id": "call.1"}]), user([result("call.1")])],
            "String should match pattern",
        ),
        ([user("x"), assistant([{**USE, "input": "{}"}])], "input: Input should be a valid dictionary"),
        ([user("x"), assistant("The answer is")], "does not support assistant message prefill"),
        ([user("x"), {"role": "system", "content": "y"}], "role 'system' is not supported on this model"),
    ],
)
async def test_messages_that_the_provider_refuses(messages, match):
    await refused(messages, match, tools=[TIME])


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ({"type": "base64", "media_type": "image/tiff", "data": PIXEL}, "media_type"),
        ({"type": "base64", "media_type": "image/png", "data": "???"}, "Invalid base64 data"),
        ({"type": "base64", "media_type": "image/png", "data": ""}, "image cannot be empty"),
        (
            {"type": "base64", "media_type": "image/png", "data": "A" * 5_300_000},
            "image exceeds 5 MB maximum",
        ),
        ({"type": "base64", "data": PIXEL}, "media_type: Field required"),
        ({"type": "path", "path": "x"}, "Input tag 'path'"),
    ],
)
async def test_pictures_that_the_provider_refuses(source, match):
    await refused([user([{"type": "image", "source": source}])], match)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_tokens": "many"}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0"),
        ({"extra_body": {"temperature": 2}}, "temperature: range: 0..1"),
        ({"extra_body": {"temperature": 0.5}, "model": "claude-opus-4-8"}, "`temperature` is deprecated"),
        ({"thinking": THINK, "model": "claude-sonnet-5"}, '"thinking.type.enabled" is not supported'),
        ({"thinking": {"type": "adaptive"}, "model": "claude-haiku-4-5"}, "is not supported for this model"),
        ({"thinking": {"type": "disabled"}, "model": "claude-opus-5-5"}, "is not supported for this model"),
        ({"stop_sequences": ["\n"]}, "must contain non-whitespace"),
        ({"extra_body": {"n": 2}}, "n: Extra inputs are not permitted"),
        ({"extra_body": {"stream": "yes"}}, "stream: Input should be a valid boolean"),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "greater than or equal to 1024"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "`max_tokens` must be greater"),
        ({"thinking": {"type": "enabled"}}, "budget_tokens: Field required"),
        ({"thinking": THINK, "extra_body": {"temperature": 0.5}}, "`temperature` may only be set to 1"),
        (
            {"thinking": THINK, "tools": [TIME], "tool_choice": {"type": "any"}},
            "Thinking may not be enabled when tool_choice forces tool use",
        ),
        ({"tool_choice": {"type": "any"}}, "only be specified while providing tools"),
        ({"tools": [TIME], "tool_choice": {"type": "tool", "name": "x"}}, "not found in provided tools"),
        ({"tools": [TIME, TIME]}, "Tool names must be unique"),
        ({"tools": [tool("a b")]}, "tools.0.custom.name: String should match pattern"),
        ({"tools": [{"name": "a"}]}, "tools.0.custom.input_schema: Field required"),
        ({"tools": [tool("a", {"type": "string"})]}, "input_schema.type"),
        ({"tools": [tool("a", {"type": "object", "anyOf": []})]}, "does not support oneOf, allOf, or anyOf"),
        ({"tools": [tool("a", strict=True)]}, "additionalProperties"),
        (
            {
                "tools": [tool("a", {"type": "object", "required": [None]})],
                "tool_choice": {"type": "any"},
            },
            "not all names",
        ),
        ({"tools": [{"type": "magic", "name": "m"}]}, "Input tag 'magic'"),
        ({"system": [{"type": "text", "text": ""}]}, "system: text content blocks must be non-empty"),
    ],
)
async def test_settings_that_the_provider_refuses(options, match):
    await refused("x", match, **options)


async def test_max_tokens_is_required():
    async with served() as asking:
        with pytest.raises(anthropic.BadRequestError, match="max_tokens: Field required"):
            await asking.client.post(
                "/v1/messages", body={"model": MODEL, "messages": [user("x")]}, cast_to=object
            )


async def test_what_older_and_newer_models_take():
    async with served() as asking:
        prefilled = [user("x"), assistant("The answer is")]
        assert (await asking.create(prefilled, model="claude-haiku-4-5")).content
        with pytest.raises(anthropic.BadRequestError, match="trailing whitespace"):
            await asking.create([user("x"), assistant("The answer is ")], model="claude-haiku-4-5-20251001")
        told = [user("x"), {"role": "system", "content": "Be brief."}]
        assert (await asking.create(told, model="claude-opus-4-8")).content[0].text == "You said: x"
        with pytest.raises(anthropic.BadRequestError, match="must come after"):
            await asking.create([user("x"), assistant("y"), told[1], user("z")], model="claude-opus-4-8")


async def test_server_tools_are_accepted():
    async with served() as asking:
        search = {"type": "web_search_20250305", "name": "web_search"}
        assert (await asking.create("x", tools=[search])).content[0].text == "You said: x"


# --- any request at all -------------------------------------------------------------------------------------


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value, path=()):
    """The path of everything in a request."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*path, key))


def changed(value, path, new):
    """The request with something else at one place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


STRICT = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "integer"}}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
FULL = {
    "model": "my-model",
    "max_tokens": 2000,
    "stream": True,
    "system": [{"type": "text", "text": "s", "cache_control": CACHE}],
    "messages": [
        user(
            [TEXT, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}]
        ),
        assistant([TEXT, USE]),
        user([result("toolu_1", [TEXT]), {"type": "text", "text": "call get_time"}]),
    ],
    "tools": [tool("get_time", STRICT, strict=True)],
    "tool_choice": {"type": "auto"},
    "thinking": {"type": "adaptive", "display": "omitted"},
    "output_config": {"format": {"type": "json_schema", "schema": STRICT}, "effort": "low"},
    "stop_sequences": ["x"],
    "cache_control": CACHE,
}


@given(path=st.sampled_from(list(places(FULL))), new=VALUES)
def test_whatever_a_request_holds_it_is_answered_or_refused(path, new):
    dialect = AnthropicChatDialect()
    body = json.dumps(changed(FULL, path, new)).encode()
    request = Request(
        b"POST",
        b"/v1/messages",
        b"alt=sse",
        {b"x-api-key": b"k", b"anthropic-version": b"1"},
        body,
        True,
        True,
        False,
    )
    try:
        prompt = dialect.read(request, PrefixCache())
        speech = speech_of(prompt, default_reply(prompt))
    except (RequestError, SchemaError) as refusal:
        answer = dialect.error(400, str(refusal))
        key = "error"
    else:
        answer = dialect.whole(prompt, speech, 1)
        key = "type"
        stream = dialect.stream(prompt, speech, 1, stamp=False)
        frames = stream.opening() + b"".join(stream.frame() for _ in range(stream.length)) + stream.closing()
        for line in frames.splitlines():
            assert not line.startswith(b"data: ") or json.loads(line.removeprefix(b"data: "))
    assert json.loads(answer)[key]
