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


async def test_a_tool_of_the_providers_own_that_is_not_simulated_cannot_be_forced():
    tools = [{"name": "f", "input_schema": OBJECT}, {"type": "web_fetch_20250910", "name": "web_fetch"}]
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], "tools": tools}
    status, answer = await ask("/v1/messages", body | {"tool_choice": {"type": "tool", "name": "web_fetch"}})
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


# --- what the real ones take --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"contents": {"parts": {"text": "hi"}}, "system_instruction": {"parts": {"text": "Be brief."}}},
        {
            "contents": [{"role": None, "parts": [{"text": "hi", "inlineData": None}]}],
            "generationConfig": None,
            "tools": None,
            "toolConfig": None,
            "systemInstruction": None,
        },
        {
            "contents": [{"parts": [{"text": "hi", "mediaProcessing": {}}]}],
            "generationConfig": {"stopSequences": "zz"},
        },
    ],
)
async def test_google_reads_lists_of_one_and_nulls(body):
    status, answer = await ask("/v1beta/models/m:generateContent", body)
    assert status == 200
    assert answer["candidates"][0]["content"]["parts"][0]["text"] == "You said: hi"


async def test_a_null_that_is_a_tools_argument_stays():
    script = Script([{"tool": "f", "arguments": {"a": None}}, "done"])
    tools = [{"function_declarations": [{"name": "f", "parameters": {"type": "OBJECT"}}]}]
    async with Simulator(script=script) as simulator, httpx.AsyncClient(headers=KEYS) as http:
        url = simulator.url.removesuffix("/v1") + "/v1beta/models/m:generateContent"
        contents = [{"role": "user", "parts": [{"text": "hi"}]}]
        first = await http.post(url, json={"contents": contents, "tools": tools})
        said = first.json()["candidates"][0]["content"]
        result = {"functionResponse": {"name": "f", "response": {"result": "ok"}}}
        contents += [said, {"role": "user", "parts": [result | {"text": None}]}]
        second = await http.post(url, json={"contents": contents, "tools": tools})
        assert second.status_code == 200, second.text


async def test_azures_path_names_the_model():
    body = {"messages": [{"role": "user", "content": "x"}]}
    status, answer = await ask("/openai/deployments/mine/chat/completions", body)
    assert (status, answer["model"]) == (200, "mine")
    assert (await ask("/v1/chat/completions", body))[0] == 400


async def test_anthropic_takes_pictures_to_transform_and_the_state_of_a_browser():
    picture = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
        "transformations": [],
    }
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    state = {"type": "browser_state", "tabs": []}
    messages = [
        {"role": "user", "content": [picture]},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [state]}]},
    ]
    status, answer = await ask("/v1/messages", {"model": "m", "max_tokens": 9, "messages": messages})
    assert status == 200, answer


async def test_ollama_passes_over_a_size_that_a_model_does_not_have():
    for size in (-1, 0, 10_000):
        status, answer = await ask("/api/embed", {"model": "m", "input": "x", "dimensions": size})
        assert (status, len(answer["embeddings"][0])) == (200, 768)


async def test_google_tells_in_its_own_words_that_a_size_is_wrong():
    body = {"content": {"parts": [{"text": "x"}]}, "outputDimensionality": 10_000}
    status, answer = await ask("/v1beta/models/m:embedContent", body)
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert "output_dimensionality" in answer["error"]["message"]


async def test_what_one_format_has_seen_is_no_prefix_in_another():
    # Ollama takes a result without its call; that must not make it right for OpenAI.
    lost = {"role": "tool", "content": "x", "tool_call_id": "1"}
    messages = [lost, {"role": "user", "content": "x"}]
    async with Simulator() as simulator, httpx.AsyncClient(headers=KEYS) as http:
        root = simulator.url.removesuffix("/v1")
        body = {"model": "m", "messages": messages, "stream": False}
        assert (await http.post(f"{root}/api/chat", json=body)).status_code == 200
        assert (await http.post(f"{root}/v1/chat/completions", json=body)).status_code == 400
