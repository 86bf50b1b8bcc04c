"""What the simulated providers refuse as the real ones do, and what they take as the real ones do."""

from __future__ import annotations

import json

import httpx
import pytest

from gossamer.simulator import Script, Simulator

KEYS = {
    "authorization": "Bearer none",
    "x-api-key": "none",
    "x-goog-api-key": "none",
    "anthropic-version": "2023-06-01",
}
OBJECT = {"type": "object", "properties": {}, "additionalProperties": False}


async def ask(path, body=None, script=None, content=None):
    async with Simulator(script=script) as simulator, httpx.AsyncClient(headers=KEYS) as http:
        root = simulator.url.removesuffix("/v1")
        answer = await http.post(f"{root}{path}", json=body, content=content)
        return answer.status_code, answer.json()


def closed(**properties):
    return {**OBJECT, "properties": properties, "required": list(properties)}


# --- OpenAI's tools and strict schemas ----------------------------------------------------------------------

TEXT = {"type": "string"}
NOT_STRICT = [
    (
        {"type": "object", "properties": {"a": TEXT}, "required": ["a"]},
        "In context=(), 'additionalProperties'",
    ),
    (
        closed(a={"type": "object", "properties": {}}),
        "In context=('properties', 'a'), 'additionalProperties'",
    ),
    ({**OBJECT, "properties": {"a": TEXT}}, "Missing 'a'"),
    (closed(a={"type": "array", "items": {"oneOf": [TEXT]}}), "'items'), 'oneOf' is not permitted"),
    (closed(a={"type": "string", "default": "x"}), "'default' is not permitted"),
    (closed(a={"anyOf": [TEXT, {"type": "object"}]}), "'anyOf', '1'), 'additionalProperties'"),
    ({**OBJECT, "$defs": {"a": {"allOf": [TEXT]}}}, "('$defs', 'a'), 'allOf' is not permitted"),
]


def chat(name="f", parameters=OBJECT, *, strict=None):
    function = {"name": name, "parameters": parameters, "strict": strict}
    return {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"type": "function", "function": function}],
    }


def responses(name="f", parameters=OBJECT, *, strict=None):
    tool = {"type": "function", "name": name, "parameters": parameters, "strict": strict}
    return {"model": "m", "input": "x", "tools": [tool]}


APIS = [
    ("/v1/chat/completions", chat, "tools[0].function"),
    ("/v1/responses", responses, "tools[0]"),
]


@pytest.mark.parametrize(("path", "make", "where"), APIS)
@pytest.mark.parametrize(("schema", "says"), NOT_STRICT)
async def test_a_strict_tool_needs_a_strict_schema(path, make, where, schema, says):
    status, answer = await ask(path, make("f", schema, strict=True))
    assert status == 400
    assert answer["error"]["message"].startswith("Invalid schema for function 'f': ")
    assert says in answer["error"]["message"]
    assert answer["error"]["param"] == f"{where}.parameters"
    assert answer["error"]["code"] == "invalid_function_parameters"
    assert (await ask(path, make("f", schema, strict=False)))[0] == 200


@pytest.mark.parametrize(("path", "make", "where"), APIS)
@pytest.mark.parametrize(
    ("name", "code"), [("a.b", "invalid_value"), ("", "invalid_value"), ("a" * 65, "string_above_max_length")]
)
async def test_a_tool_needs_a_plain_name(path, make, where, name, code):
    status, answer = await ask(path, make(name))
    assert (status, answer["error"]["code"]) == (400, code)
    assert answer["error"]["param"] == f"{where}.name"


@pytest.mark.parametrize(("path", "make", "where"), APIS)
async def test_a_tool_takes_an_object(path, make, where):
    status, answer = await ask(path, make("f", {"type": "array", "items": TEXT}))
    assert status == 400
    assert "got 'type: \"array\"'" in answer["error"]["message"]
    assert answer["error"]["param"] == f"{where}.parameters"
    assert (await ask(path, make("f", None)))[0] == 200


@pytest.mark.parametrize(("schema", "says"), NOT_STRICT)
async def test_a_strict_answer_needs_a_strict_schema(schema, says):
    for strict, expected in ((True, 400), (False, 200)):
        shape = {"name": "s", "schema": schema, "strict": strict}
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
        status, answer = await ask("/v1/chat/completions", body)
        assert status == expected
        assert expected == 200 or says in answer["error"]["message"]
        text = {"format": {"type": "json_schema", **shape}}
        status, answer = await ask("/v1/responses", {"model": "m", "input": "x", "text": text})
        assert status == expected
        assert expected == 200 or says in answer["error"]["message"]


async def test_parallel_calls_are_for_requests_with_tools():
    body = chat() | {"parallel_tool_calls": False}
    assert (await ask("/v1/chat/completions", body))[0] == 200
    status, answer = await ask("/v1/chat/completions", body | {"tools": None})
    assert (status, answer["error"]["param"]) == (400, "parallel_tool_calls")


# --- bodies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/v1/chat/completions", b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}'),
        ("/v1/responses", b'{"model":"m","input":[{"role":"user","content":"\xff"}]}'),
        ("/v1/responses", b'{"model":"m","input":"x","tools":[{"type":"function","name":"\xff"}]}'),
        ("/v1/messages", b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"\xff"}]}'),
        ("/v1/messages/count_tokens", b'{"model":"m","\xff":9,"messages":[]}'),
        ("/v1beta/models/m:generateContent", b'{"contents":[{"parts":[{"text":"\xff"}]}]}'),
        ("/v1beta/models/m:countTokens", b'{"contents":[{"parts":[{"text":"\xff"}]}]}'),
        ("/api/chat", b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}'),
        ("/api/show", b'{"model":"\xff"}'),
        ("/v1/embeddings", b'{"model":"m","input":"\xff"}'),
        ("/v1beta/models/m:embedContent", b'{"content":{"parts":[{"text":"\xff"}]}}'),
        ("/api/embed", b'{"model":"m","input":"\xff"}'),
    ],
)
async def test_bytes_that_are_no_text_are_refused(path, content):
    status, answer = await ask(path, content=content)
    assert status == 400
    assert answer["error"]


async def test_a_tool_of_the_providers_own_cannot_be_forced():
    tools = [{"name": "f", "input_schema": OBJECT}, {"type": "web_search_20250305", "name": "web_search"}]
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], "tools": tools}
    status, answer = await ask("/v1/messages", body | {"tool_choice": {"type": "tool", "name": "web_search"}})
    assert status == 400
    assert "the provider's own" in answer["error"]["message"]


# --- thinking that is turned off ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "tokens"),
    [
        (
            "/v1/chat/completions",
            {"model": "m", "reasoning_effort": "none", "messages": [{"role": "user", "content": "x"}]},
            lambda answer: answer["usage"]["completion_tokens"],
        ),
        (
            "/v1/responses",
            {"model": "m", "input": "x", "reasoning": {"effort": "none"}},
            lambda answer: answer["usage"]["output_tokens"],
        ),
        (
            "/v1/messages",
            {"model": "claude-sonnet-4-5", "max_tokens": 3, "messages": [{"role": "user", "content": "x"}]},
            lambda answer: answer["usage"]["output_tokens"],
        ),
        (
            "/v1beta/models/gemini-2.5-flash:generateContent",
            {
                "contents": [{"parts": [{"text": "x"}]}],
                "generationConfig": {"maxOutputTokens": 3, "thinkingConfig": {"thinkingBudget": 0}},
            },
            lambda answer: (
                answer["usageMetadata"]["totalTokenCount"] - answer["usageMetadata"]["promptTokenCount"]
            ),
        ),
        (
            "/api/chat",
            {
                "model": "m",
                "think": False,
                "stream": False,
                "options": {"num_predict": 3},
                "messages": [{"role": "user", "content": "x"}],
            },
            lambda answer: answer["eval_count"],
        ),
    ],
)
async def test_thinking_that_is_off_costs_nothing(path, body, tokens):
    script = Script([{"thinking": "one two three four five", "text": "said at once"}])
    async with Simulator(script=script) as simulator, httpx.AsyncClient(headers=KEYS) as http:
        answer = (await http.post(simulator.url.removesuffix("/v1") + path, json=body)).json()
        assert "said at once" in json.dumps(answer)
        assert "one two" not in json.dumps(answer)
        assert tokens(answer) == 3
        assert simulator.stats.completion_tokens == 3
