"""The simulator is faithful to Ollama: the official client drives it and understands all it says."""

from __future__ import annotations

import asyncio
import contextlib
import json

import httpx
import ollama
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from gossamer.simulator import Script, Simulator


@contextlib.asynccontextmanager
async def served(script=None, **options):
    async with Simulator(script=Script(script) if script else None, **options) as simulator:
        async with ollama.AsyncClient(host=simulator.url.removesuffix("/v1"), timeout=20) as client:
            yield simulator, client


def user(text):
    return [{"role": "user", "content": text}]


def get_weather(city: str) -> str:
    """The weather.

    Args:
        city: where
    """
    return city


def get_time() -> str:
    """The time."""
    return "now"


async def parts_of(stream):
    return [part async for part in await stream]


# --- text ---------------------------------------------------------------------------------------------------


async def test_whole_answer_echoes_and_counts():
    async with served() as (simulator, client):
        answer = await client.chat(model="gemma3", messages=user("hello world"))
        assert answer.message.content == "You said: hello world"
        assert answer.message.role == "assistant"
        assert (answer.model, answer.done, answer.done_reason) == ("gemma3", True, "stop")
        assert (answer.prompt_eval_count, answer.eval_count) == (5, 5)
        assert answer.total_duration >= answer.eval_duration >= 0
        assert answer.message.tool_calls is None
        assert simulator.stats.dialects["ollama_chat"].completion_tokens == 5


async def test_stream_is_a_line_a_token_and_a_last_one_with_the_counts():
    async with served() as (simulator, client):
        parts = await parts_of(client.chat(model="m", messages=user("hello"), stream=True))
        assert [part.message.content for part in parts] == ["You", " said", ":", " hello", ""]
        assert [part.done for part in parts] == [False] * 4 + [True]
        assert (parts[-1].prompt_eval_count, parts[-1].eval_count) == (4, 4)
        assert simulator.stats.chunks == 4


async def test_an_answer_is_streamed_unless_the_request_says_otherwise():
    async with served() as (simulator, _), httpx.AsyncClient() as http:
        answer = await http.post(
            simulator.url.replace("/v1", "/api/chat"), json={"model": "m", "messages": user("hello")}
        )
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert "".join(line["message"]["content"] for line in lines) == "You said: hello"


async def test_text_of_any_script_arrives_unharmed():
    said = 'Ünïcode 🎉 日本語テキスト "quotes" \\ back\nlines\t\u2028 and   many     spaces   '
    async with served() as (_, client):
        parts = await parts_of(client.chat(model="m", messages=user(said), stream=True))
        assert "".join(part.message.content for part in parts) == f"You said: {said}"


async def test_options_cut_the_answer():
    async with served() as (_, client):
        answer = await client.chat(model="m", messages=user("a b c d"), options={"num_predict": 4})
        assert (answer.message.content, answer.done_reason) == ("You said: a", "length")
        parts = await parts_of(
            client.chat(model="m", messages=user("a b c d"), options={"num_predict": 4}, stream=True)
        )
        assert (parts[-1].done_reason, parts[-1].eval_count) == ("length", 4)
        answer = await client.chat(model="m", messages=user("a b c d"), options={"stop": ["c"]})
        assert (answer.message.content, answer.done_reason) == ("You said: a b ", "stop")
        answer = await client.chat(model="m", messages=user("a"), options={"num_predict": -1})
        assert answer.message.content == "You said: a"


async def test_pictures_are_counted():
    async with served() as (_, client):
        message = {"role": "user", "content": "look", "images": ["aGVsbG8="]}
        answer = await client.chat(model="m", messages=[message])
        assert answer.message.content == "You said: look"
        assert answer.prompt_eval_count == 3 + 1 + 256


# --- tools --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
async def test_tool_call_and_its_result(named):
    async with served() as (_, client):
        messages = user('please\ncall get_weather {"city": "Vienna"}')
        answer = await client.chat(model="m", messages=messages, tools=[get_weather])
        call = answer.message.tool_calls[0].function
        assert (call.name, call.arguments) == ("get_weather", {"city": "Vienna"})
        assert (answer.message.content, answer.done_reason) == ("", "stop")
        result = {"role": "tool", "content": "sunny", **({"tool_name": "get_weather"} if named else {})}
        answer = await client.chat(model="m", messages=[*messages, answer.message, result])
        assert answer.message.content == "get_weather returned: sunny"


async def test_parallel_calls_are_streamed_whole():
    said = 'call get_weather {"city": "Vienna"}\ncall get_time\ncall unknown_tool {}'
    async with served() as (simulator, client):
        parts = await parts_of(
            client.chat(model="m", messages=user(said), tools=[get_weather, get_time], stream=True)
        )
        calls = [call.function for part in parts for call in part.message.tool_calls or ()]
        assert [(call.name, call.arguments) for call in calls] == [
            ("get_weather", {"city": "Vienna"}),
            ("get_time", {}),
        ]
        assert len(parts) == 3
        assert parts[-1].eval_count == simulator.stats.completion_tokens > 3


async def test_calls_have_ids_by_which_results_are_told_apart():
    tools = [{"type": "function", "function": {"name": name}} for name in "ab"]
    async with served() as (simulator, _), httpx.AsyncClient() as http:

        async def ask(messages):
            body = {"model": "m", "messages": messages, "tools": tools, "stream": False}
            return (await http.post(simulator.url.replace("/v1", "/api/chat"), json=body)).json()["message"]

        messages = user("call a {}\ncall b {}")
        called = await ask(messages)
        first, second = (call["id"] for call in called["tool_calls"])
        assert first != second
        results = [{"role": "tool", "content": each, "tool_call_id": each} for each in (second, first)]
        said = (await ask([*messages, called, *results]))["content"]
        assert said == f"b returned: {second}\na returned: {first}"


@pytest.mark.parametrize("stream", [False, True])
async def test_arguments_that_are_no_object_are_text(stream):
    async with served([{"tool": "step", "arguments": "{broken"}]) as (_, client):
        answer = client.chat(model="m", messages=user("x"), stream=stream)
        parts = await parts_of(answer) if stream else [await answer]
        assert "".join(part.message.content for part in parts) == '{"name": "step", "arguments": {broken'
        assert not any(part.message.tool_calls for part in parts)


# --- structured output, thinking ----------------------------------------------------------------------------


class Leaf(BaseModel):
    kind: str
    size: float


async def test_structured_output_is_an_instance_of_the_schema():
    async with served() as (_, client):
        answer = await client.chat(model="m", messages=user("x"), format=Leaf.model_json_schema())
        Leaf.model_validate_json(answer.message.content)
        answer = await client.chat(model="m", messages=user("x"), format="json")
        assert json.loads(answer.message.content) == {"echo": "x"}


async def test_thinking_has_a_field_of_its_own():
    async with served([{"thinking": "Let me think.", "text": "Done."}]) as (_, client):
        answer = await client.chat(model="m", messages=user("x"), think=True)
        assert (answer.message.thinking, answer.message.content) == ("Let me think.", "Done.")
        parts = await parts_of(client.chat(model="m", messages=user("x"), think="high", stream=True))
        assert "".join(part.message.thinking or "" for part in parts) == "Let me think."
        assert "".join(part.message.content for part in parts) == "Done."
        plain = await client.chat(model="m", messages=user("x"), think=False)
        assert plain.message.thinking is None
        assert plain.eval_count == answer.eval_count - 4


# --- models -------------------------------------------------------------------------------------------------


async def test_models_and_version():
    async with served() as (simulator, client):
        assert [model.model for model in (await client.list()).models] == ["simulator"]
        shown = await client.show("simulator")
        assert "tools" in shown.capabilities
        assert shown.modelinfo["general.architecture"] == "simulator"
        assert (await client.ps()).models == []
        async with httpx.AsyncClient() as http:
            refused = await http.post(simulator.url.replace("/v1", "/api/show"), json={})
            assert (refused.status_code, refused.json()) == (400, {"error": "model is required"})
            version = await http.get(simulator.url.replace("/v1", "/api/version"))
            assert version.json()["version"]


# --- errors -------------------------------------------------------------------------------------------------


async def test_scripted_errors_become_the_clients_exceptions():
    async with served([{"error": 404, "message": "model 'x' not found"}, {"error": 500}]) as (_, client):
        with pytest.raises(ollama.ResponseError, match="model 'x' not found") as missing:
            await client.chat(model="x", messages=user("x"))
        assert missing.value.status_code == 404
        with pytest.raises(ollama.ResponseError, match="failed to generate") as failed:
            await parts_of(client.chat(model="x", messages=user("x"), stream=True))
        assert failed.value.status_code == 500


async def test_an_error_in_the_stream_is_a_line():
    async with served([{"fault": "error_frame", "after": 2, "text": "one two three"}]) as (simulator, client):
        said = ""
        with pytest.raises(ollama.ResponseError, match="an error was encountered"):
            async for part in await client.chat(model="m", messages=user("x"), stream=True):
                said += part.message.content
        assert said == "one two"
        assert simulator.stats.streams == 0


async def test_an_unknown_line_is_put_in_and_the_answer_goes_on():
    async with served([{"fault": "unknown_frame", "after": 1, "text": "one two"}]) as (_, client):
        parts = await parts_of(client.chat(model="m", messages=user("x"), stream=True))
        assert [part.message.content for part in parts] == ["one", "", " two", ""]
        assert (await client.chat(model="m", messages=user("x"))).message.content == "one two"


async def test_malformed_line_breaks_the_clients_decoding():
    async with served([{"fault": "malformed", "after": 1, "text": "one two three"}]) as (_, client):
        said = ""
        with pytest.raises(json.JSONDecodeError):
            async for part in await client.chat(model="m", messages=user("x"), stream=True):
                said += part.message.content
        assert said == "one"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"model": ""}, "model is required"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "robot"),
        ({"messages": "x"}, "array"),
        ({"messages": [{"role": "user", "content": 5}]}, "str"),
        ({"format": 5}, "invalid format"),
        ({"think": "hard"}, "invalid think value"),
        ({"options": {"num_predict": "all"}}, "num_predict"),
        ({"tools": [{"type": "function"}]}, "function"),
        ({"messages": [{"role": "user", "images": [5]}]}, "images"),
    ],
)
async def test_bad_requests_are_refused(body, says):
    async with served() as (simulator, _), httpx.AsyncClient() as http:
        answer = await http.post(
            simulator.url.replace("/v1", "/api/chat"), json={"model": "m", "messages": user("x"), **body}
        )
        assert answer.status_code == 400
        assert says in answer.json()["error"]
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
FIELDS = ["messages", "tools", "format", "options", "think", "stream"]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), json_values, min_size=1))
def test_any_field_of_any_type_gets_an_answer(fields):
    async def scenario():
        async with served() as (simulator, _), httpx.AsyncClient() as http:
            body = {"model": "m", "messages": user("x"), **fields}
            answer = await http.post(simulator.url.replace("/v1", "/api/chat"), json=body)
            assert answer.status_code in {200, 400}
            for line in answer.text.splitlines():
                assert ("error" in json.loads(line)) == (answer.status_code == 400)

    asyncio.run(scenario())
