"""The simulator is faithful to OpenAI: the official client drives it and understands all it says."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager

import openai
import pytest
import trustme
from pydantic import BaseModel

from gossamer.simulator import Script, Simulator


@asynccontextmanager
async def served(script=None, **options):
    async with Simulator(script=Script(script) if script else None, **options) as simulator:
        async with openai.AsyncOpenAI(
            base_url=simulator.url, api_key="none", max_retries=0, timeout=20
        ) as client:
            yield simulator, client


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def user(text):
    return [{"role": "user", "content": text}]


def function(name, parameters=None):
    parameters = parameters or {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}}


WEATHER = function("get_weather")


async def collect(stream):
    """Text, thinking, calls as {index: (id, name, arguments)}, finish reason, usage and chunks of a stream."""
    text, thinking, calls, finish, usage, chunks = "", "", {}, None, None, []
    async for chunk in stream:
        chunks.append(chunk)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            thinking += getattr(choice.delta, "reasoning_content", None) or ""
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or ():
                known = calls.setdefault(call.index, [call.id, call.function.name, ""])
                known[2] += call.function.arguments
    return text, thinking, {i: tuple(c) for i, c in calls.items()}, finish, usage, chunks


# --- text ---------------------------------------------------------------------------------------------------


async def test_whole_answer_echoes_and_counts():
    async with served() as (simulator, client):
        answer = await client.chat.completions.create(model="gpt-5-mini", messages=user("hello world"))
        assert answer.choices[0].message.content == "You said: hello world"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.model == "gpt-5-mini"
        assert answer.object == "chat.completion"
        assert answer.system_fingerprint == "fp_simulator"
        assert answer.usage.prompt_tokens == 5  # three for the message, two words
        assert answer.usage.completion_tokens == 5
        assert answer.usage.total_tokens == 10
        assert simulator.stats.completion_tokens == 5


async def test_stream_sends_a_token_a_chunk_with_one_id():
    async with served() as (simulator, client):
        stream = await client.chat.completions.create(model="m", messages=user("hello world"), stream=True)
        text, _, _, finish, usage, chunks = await collect(stream)
        assert text == "You said: hello world"
        assert [c.choices[0].delta.content for c in chunks] == [
            "",
            "You",
            " said",
            ":",
            " hello",
            " world",
            None,
        ]
        assert chunks[0].choices[0].delta.role == "assistant"
        assert finish == "stop"
        assert usage is None
        assert len({chunk.id for chunk in chunks}) == 1
        assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
        assert simulator.stats.chunks == 5


async def test_stream_ends_with_usage_where_it_was_asked_for():
    async with served() as (_, client):
        whole = await client.chat.completions.create(model="m", messages=user("count me, please"))
        stream = await client.chat.completions.create(
            model="m", messages=user("count me, please"), stream=True, stream_options={"include_usage": True}
        )
        _, _, _, _, usage, chunks = await collect(stream)
        assert chunks[-1].choices == []
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert (usage.prompt_tokens, usage.completion_tokens) == (
            whole.usage.prompt_tokens,
            whole.usage.completion_tokens,
        )


async def test_text_of_any_script_arrives_unharmed():
    said = 'Ünïcode 🎉 日本語テキスト "quotes" \\ back\nlines\t\u2028 and   many     spaces   '
    async with served() as (_, client):
        stream = await client.chat.completions.create(model="m", messages=user(said), stream=True)
        assert (await collect(stream))[0] == f"You said: {said}"


async def test_content_parts_are_read_and_pictures_counted():
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    async with served() as (_, client):
        answer = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": parts}]
        )
        assert answer.choices[0].message.content == "You said: look"
        assert answer.usage.prompt_tokens == 3 + 1 + 85


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_max_tokens_cuts_the_answer(field):
    async with served() as (_, client):
        answer = await client.chat.completions.create(model="m", messages=user("a b c d"), **{field: 4})
        assert answer.choices[0].message.content == "You said: a"
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 4
        stream = await client.chat.completions.create(
            model="m", messages=user("a b c d"), stream=True, **{field: 4}
        )
        text, _, _, finish, _, _ = await collect(stream)
        assert (text, finish) == ("You said: a", "length")


async def test_max_tokens_that_suffice_do_not_cut():
    async with served() as (_, client):
        answer = await client.chat.completions.create(model="m", messages=user("a"), max_tokens=4)
        assert answer.choices[0].message.content == "You said: a"
        assert answer.choices[0].finish_reason == "stop"


async def test_stop_ends_the_text_before_it():
    async with served() as (_, client):
        answer = await client.chat.completions.create(
            model="m", messages=user("one two STOP three"), stop=["nowhere", "STOP"]
        )
        assert answer.choices[0].message.content == "You said: one two "
        assert answer.choices[0].finish_reason == "stop"


async def test_chunks_sets_the_length_of_the_echo():
    async with served(chunks=12) as (simulator, client):
        stream = await client.chat.completions.create(model="m", messages=user("x"), stream=True)
        text, _, _, _, _, chunks = await collect(stream)
        assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) == 12
        assert text == "You said: x" * 3
        whole = await client.chat.completions.create(model="m", messages=user("x"))
        assert whole.choices[0].message.content == text
        assert simulator.stats.chunks == 12


# --- tools --------------------------------------------------------------------------------------------------


async def test_tool_call_and_its_result():
    async with served() as (_, client):
        messages = user('please\ncall get_weather {"city": "Vienna"}')
        answer = await client.chat.completions.create(model="m", messages=messages, tools=[WEATHER])
        choice = answer.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        call = choice.message.tool_calls[0]
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == {"city": "Vienna"}
        messages += [
            choice.message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 °C"},
        ]
        answer = await client.chat.completions.create(model="m", messages=messages, tools=[WEATHER])
        assert answer.choices[0].message.content == "get_weather returned: sunny, 21 °C"
        assert answer.choices[0].finish_reason == "stop"


async def test_streamed_arguments_come_in_fragments():
    async with served() as (_, client):
        arguments = '{"city": "Sankt Pölten an der Traisen"}'
        stream = await client.chat.completions.create(
            model="m", messages=user(f"call get_weather {arguments}"), tools=[WEATHER], stream=True
        )
        _, _, calls, finish, _, chunks = await collect(stream)
        assert finish == "tool_calls"
        assert [(name, text) for _, name, text in calls.values()] == [("get_weather", arguments)]
        assert calls[0][0].startswith("call_")
        fragments = [c.choices[0].delta.tool_calls[0].function.arguments for c in chunks[1:-1]]
        assert len(fragments) > 5
        assert chunks[2].choices[0].delta.tool_calls[0].id is None


async def test_parallel_calls_have_indices_and_ids_of_their_own():
    said = 'call get_weather {"city": "Vienna"}\ncall get_time\ncall unknown_tool {}'
    tools = [WEATHER, function("get_time", {"type": "object", "properties": {}})]
    async with served() as (_, client):
        stream = await client.chat.completions.create(
            model="m", messages=user(said), tools=tools, stream=True
        )
        _, _, calls, finish, _, _ = await collect(stream)
        assert finish == "tool_calls"
        assert [(i, name, text) for i, (_, name, text) in calls.items()] == [
            (0, "get_weather", '{"city": "Vienna"}'),
            (1, "get_time", "{}"),
        ]
        assert calls[0][0] != calls[1][0]


async def test_without_parallel_calls_tools_are_called_one_after_another():
    messages = user("call a {}\ncall b {}")
    tools = [function("a", {"type": "object"}), function("b", {"type": "object"})]
    names = []
    async with served() as (_, client):
        for _ in range(3):
            answer = await client.chat.completions.create(
                model="m", messages=messages, tools=tools, parallel_tool_calls=False
            )
            message = answer.choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            for call in message.tool_calls or ():
                names.append(call.function.name)
                messages.append(
                    {"role": "tool", "tool_call_id": call.id, "content": f"{call.function.name} done"}
                )
        assert names == ["a", "b"]
        assert message.content == "b returned: b done"


async def test_tool_choice_is_honoured():
    tools = [WEATHER, function("get_time", {"type": "object", "properties": {}})]
    async with served() as (_, client):

        async def choose(said, choice):
            answer = await client.chat.completions.create(
                model="m", messages=user(said), tools=tools, tool_choice=choice
            )
            choice = answer.choices[0]
            return [c.function.name for c in choice.message.tool_calls or ()], choice.finish_reason

        assert await choose("call get_time {}", "none") == ([], "stop")
        assert await choose("hello", "auto") == ([], "stop")
        assert await choose("hello", "required") == (["get_weather"], "tool_calls")
        forced = {"type": "function", "function": {"name": "get_time"}}
        assert await choose("hello", forced) == (["get_time"], "stop")
        allowed = {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "get_time"}}],
            },
        }
        assert await choose("hello", allowed) == (["get_time"], "tool_calls")


async def test_invented_arguments_fit_the_schema():
    class Search(BaseModel):
        query: str
        limit: int
        tags: list[str]

    tools = [openai.pydantic_function_tool(Search, name="search")]
    async with served() as (_, client):
        answer = await client.chat.completions.create(model="m", messages=user("call search"), tools=tools)
        Search.model_validate_json(answer.choices[0].message.tool_calls[0].function.arguments)


# --- structured output --------------------------------------------------------------------------------------


class Leaf(BaseModel):
    kind: str
    size: float


class Tree(BaseModel):
    name: str
    leaf: Leaf | None
    children: list[Tree]
    parent: Tree | None


async def test_structured_output_is_an_instance_of_the_schema():
    async with served() as (_, client):
        answer = await client.chat.completions.parse(model="m", messages=user("a tree"), response_format=Tree)
        assert isinstance(answer.choices[0].message.parsed, Tree)
        assert answer.choices[0].message.parsed.children == []


async def test_json_object_is_an_object():
    async with served() as (_, client):
        answer = await client.chat.completions.create(
            model="m", messages=user("json"), response_format={"type": "json_object"}
        )
        assert json.loads(answer.choices[0].message.content) == {"echo": "json"}


@pytest.mark.parametrize(
    ("schema", "instance"),
    [
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "number", "exclusiveMaximum": 0}, -0.5),
        ({"type": "integer", "minimum": 5, "multipleOf": 4}, 8),
        ({"type": "string", "minLength": 6}, "text.."),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "string", "format": "date"}, "2000-01-01"),
        ({"type": ["null", "boolean"]}, False),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": {"x": 1}}, {"x": 1}),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
        ({"type": "array", "prefixItems": [{"type": "null"}, {"const": 1}]}, [None, 1]),
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 0}),
        ({"allOf": [{"$ref": "#/$defs/a"}, {"required": ["y"]}], "$defs": {
            "a": {"type": "object", "properties": {"x": {"const": 1}, "y": {"const": 2}}, "required": ["x"]}
        }}, {"x": 1, "y": 2}),
        ({"anyOf": [{"$ref": "#"}, {"type": "integer"}]}, 0),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": "found"}}}, "found"),
    ],
)  # fmt: skip
async def test_smallest_instance(schema, instance):
    async with served() as (_, client):
        answer = await client.chat.completions.create(
            model="m",
            messages=user("x"),
            response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
        )
        assert json.loads(answer.choices[0].message.content) == instance


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"again": {"$ref": "#"}}, "required": ["again"]},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.com/schema"},
        {"type": "array", "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"type": "galaxy"},
        {"type": "object", "required": 5},
        {"type": "object", "properties": ["a"], "required": ["a"]},
        {"type": "integer", "minimum": "low"},
        {"enum": 5},
        {"anyOf": [5]},
    ],
)
async def test_schema_without_an_instance_is_refused(schema):
    async with served() as (_, client):
        with pytest.raises(openai.BadRequestError, match="Invalid schema"):
            await client.chat.completions.create(
                model="m",
                messages=user("x"),
                response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
            )
        # The connection is still good.
        await client.chat.completions.create(model="m", messages=user("x"))


# --- thinking -----------------------------------------------------------------------------------------------


async def test_thinking_is_sent_as_reasoning_content():
    script = [{"thinking": "Let me think hard.", "text": "Done."}]
    async with served(script) as (_, client):
        stream = await client.chat.completions.create(
            model="m", messages=user("x"), stream=True, stream_options={"include_usage": True}
        )
        text, thinking, _, finish, usage, _ = await collect(stream)
        assert (thinking, text, finish) == ("Let me think hard.", "Done.", "stop")
        assert usage.completion_tokens_details.reasoning_tokens == 5
        assert usage.completion_tokens == 7
        answer = await client.chat.completions.create(model="m", messages=user("x"))
        assert answer.choices[0].message.reasoning_content == "Let me think hard."
        assert answer.choices[0].message.content == "Done."


async def test_thinking_uses_up_max_tokens():
    async with served([{"thinking": "one two three four", "text": "never"}]) as (_, client):
        answer = await client.chat.completions.create(model="m", messages=user("x"), max_tokens=3)
        assert answer.choices[0].finish_reason == "length"
        assert answer.choices[0].message.reasoning_content == "one two three"
        assert not answer.choices[0].message.content


# --- usage --------------------------------------------------------------------------------------------------


async def test_cached_tokens_are_those_of_the_longest_prefix_seen_before():
    async with served() as (simulator, client):
        messages = [{"role": "system", "content": "Be brief."}, *user("first question")]
        first = await client.chat.completions.create(model="m", messages=messages)
        assert first.usage.prompt_tokens_details.cached_tokens == 0
        messages += [{"role": "assistant", "content": "An answer."}, *user("second question")]
        second = await client.chat.completions.create(model="m", messages=messages)
        assert second.usage.prompt_tokens_details.cached_tokens == first.usage.prompt_tokens
        assert second.usage.prompt_tokens > first.usage.prompt_tokens
        other = await client.chat.completions.create(model="other", messages=messages)
        assert other.usage.prompt_tokens_details.cached_tokens == 0
        with_tools = await client.chat.completions.create(model="m", messages=messages, tools=[WEATHER])
        assert with_tools.usage.prompt_tokens_details.cached_tokens == 0
        assert simulator.stats.cached_tokens == first.usage.prompt_tokens


# --- errors -------------------------------------------------------------------------------------------------


async def test_scripted_errors_become_the_clients_exceptions():
    script = [
        {"error": 429, "retry_after": 1.5, "message": "slow down"},
        {"error": 500},
        {"error": 401},
        {"error": 404},
        {"error": 503},
    ]
    async with served(script) as (simulator, client):
        with pytest.raises(openai.RateLimitError, match="slow down") as limited:
            await client.chat.completions.create(model="m", messages=user("x"))
        assert limited.value.code == "rate_limit_exceeded"
        assert limited.value.response.headers["retry-after"] == "2"
        assert limited.value.response.headers["retry-after-ms"] == "1500"
        assert limited.value.request_id.startswith("req_")
        for expected in (openai.InternalServerError, openai.AuthenticationError, openai.NotFoundError):
            with pytest.raises(expected):
                await client.chat.completions.create(model="m", messages=user("x"))
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="m", messages=user("x"), stream=True)
        assert simulator.stats.errors == {"429": 1, "500": 1, "401": 1, "404": 1, "503": 1}


async def test_client_retries_after_a_rate_limit():
    async with served([{"error": 429, "retry_after": 0.01}, "at last"]) as (simulator, client):
        answer = await client.with_options(max_retries=1).chat.completions.create(
            model="m", messages=user("x")
        )
        assert answer.choices[0].message.content == "at last"
        assert simulator.stats.requests == 2


@pytest.mark.parametrize("kind", ["reset", "close", "half_frame"])
@pytest.mark.parametrize("stream", [False, True])
async def test_broken_connections_are_connection_errors(kind, stream):
    async with served([{"fault": kind, "after": 2, "text": "one two three four"}]) as (simulator, client):
        said = ""
        with pytest.raises(Exception) as broken:
            answer = await client.chat.completions.create(model="m", messages=user("x"), stream=stream)
            async for chunk in answer:
                said += chunk.choices[0].delta.content or ""
        if stream:
            # Past the first byte the client passes its HTTP library's error on.
            assert said in ({"one two"} if kind != "reset" else {"", "one", "one two"})
            assert type(broken.value).__name__ in {"RemoteProtocolError", "ReadError", "APIConnectionError"}
        else:
            assert isinstance(broken.value, openai.APIConnectionError)
        assert simulator.stats.errors == {kind: 1}
        assert simulator.stats.streams == 0


@pytest.mark.parametrize("kind", ["reset", "close"])
async def test_fault_before_the_first_byte_of_a_stream(kind):
    async with served([{"fault": kind, "after": 0}]) as (_, client):
        with pytest.raises(openai.APIConnectionError):
            await client.chat.completions.create(model="m", messages=user("x"), stream=True)


async def test_malformed_frame_breaks_the_clients_decoding():
    async with served([{"fault": "malformed", "after": 1, "text": "one two three"}]) as (_, client):
        said = ""
        with pytest.raises(json.JSONDecodeError):
            async for chunk in await client.chat.completions.create(
                model="m", messages=user("x"), stream=True
            ):
                said += chunk.choices[0].delta.content or ""
        assert said == "one"


async def test_stall_runs_into_the_clients_timeout():
    async with served([{"fault": "stall", "after": 2, "text": "one two three"}]) as (simulator, client):
        said = ""
        with pytest.raises(Exception, match=r"(?i)timed? ?out|^$") as stalled:
            stream = await client.chat.completions.create(
                model="m", messages=user("x"), stream=True, timeout=0.3
            )
            async for chunk in stream:
                said += chunk.choices[0].delta.content or ""
        assert "Timeout" in type(stalled.value).__name__
        assert said == "one two"
        await until(lambda: not simulator.stats.streams)
        assert simulator.stats.disconnects == 1


def tool_result(call_id):
    return {"role": "tool", "tool_call_id": call_id, "content": "r"}


CALLED = {
    "role": "assistant",
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        ({"messages": user("x"), "n": 2}, "1 choice", "n"),
        ({"messages": []}, "empty array", "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "robot", "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "Missing required parameter", "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "Invalid value", "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "Invalid value", "messages[0].content"),
        ({"messages": "hello"}, "Invalid value", "messages"),
        ({"messages": user("x"), "max_tokens": 0}, ">= 1", "max_tokens"),
        ({"messages": user("x"), "stop": ["a", "b", "c", "d", "e"]}, "at most 4", "stop"),
        (
            {"messages": user("x"), "stream_options": {"include_usage": True}},
            "only allowed",
            "stream_options",
        ),
        ({"messages": user("x"), "tool_choice": "required"}, "only allowed", "tool_choice"),
        ({"messages": user("x"), "tools": [WEATHER, WEATHER]}, "Two tools", "tools[1].function.name"),
        ({"messages": user("x"), "tools": [{"type": "web"}]}, "Unsupported", "tools[0].type"),
        (
            {
                "messages": user("x"),
                "tools": [WEATHER],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
            },
            "not found",
            "tool_choice",
        ),
        ({"messages": [*user("x"), tool_result("c1")]}, "preceding message", "messages[1].role"),
        ({"messages": [*user("x"), CALLED]}, "c1", "messages[1].role"),
        ({"messages": [*user("x"), CALLED, *user("y")]}, "c1", "messages[2].role"),
        ({"messages": [*user("x"), CALLED, tool_result("c2")]}, "preceding message", "messages[2].role"),
        (
            {"messages": user("x"), "response_format": {"type": "json_schema"}},
            "Missing",
            "response_format.json_schema",
        ),
    ],
)
async def test_bad_requests_are_refused_with_the_place(body, says, param):
    async with served() as (simulator, client):
        with pytest.raises(openai.BadRequestError, match=says) as refused:
            await client.post("/chat/completions", body={"model": "m", **body}, cast_to=object)
        assert refused.value.param == param
        assert refused.value.type == "invalid_request_error"
        assert simulator.stats.errors == {"400": 1}


async def test_unknown_and_null_fields_are_tolerated():
    async with served() as (_, client):
        answer = await client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "x", "mood": "fine"}],
            temperature=0.2,
            seed=3,
            user="u",
            extra_body={
                "future_field": {"a": [1]},
                "tools": None,
                "stop": None,
                "n": None,
                "tool_choice": None,
            },
        )
        assert answer.choices[0].message.content == "You said: x"


# --- models, disconnects, TLS, the synchronous client -------------------------------------------------------


async def test_models():
    async with served() as (_, client):
        assert [model.id async for model in client.models.list()] == ["simulator"]
        assert (await client.models.retrieve("gpt-5-mini")).id == "gpt-5-mini"


async def test_disconnect_frees_the_stream_at_once():
    async with served(chunks=100_000, tps=50) as (simulator, client):
        stream = await client.chat.completions.create(model="m", messages=user("x"), stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        assert simulator.stats.streams == 1
        await stream.close()
        await until(lambda: not simulator.stats.connections)
        assert simulator.stats.streams == 0
        assert simulator.stats.disconnects == 1
        sent = simulator.stats.chunks
        await asyncio.sleep(0.1)
        assert simulator.stats.chunks == sent


async def test_many_streams_at_once_keep_apart():
    async with served(tps=200) as (simulator, client):

        async def ask(number):
            stream = await client.chat.completions.create(
                model="m", messages=user(f"n {number}"), stream=True
            )
            return (await collect(stream))[0]

        assert await asyncio.gather(*map(ask, range(40))) == [f"You said: n {number}" for number in range(40)]
        assert simulator.stats.streams == 0
        assert simulator.stats.streams_peak > 1


async def test_tls(tmp_path):
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    pem = tmp_path / "both.pem"
    async with Simulator(certificate=pem, key=pem) as simulator:
        assert simulator.url.startswith("https://")
        async with openai.AsyncOpenAI(
            base_url=simulator.url, api_key="k", http_client=openai.DefaultAsyncHttpxClient(verify=context)
        ) as client:
            stream = await client.chat.completions.create(model="m", messages=user("secret"), stream=True)
            assert (await collect(stream))[0] == "You said: secret"


async def test_the_synchronous_client():
    async with Simulator() as simulator:

        def ask():
            with openai.OpenAI(base_url=simulator.url, api_key="k", max_retries=0) as client:
                stream = client.chat.completions.create(model="m", messages=user("sync"), stream=True)
                return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

        assert await asyncio.to_thread(ask) == "You said: sync"
