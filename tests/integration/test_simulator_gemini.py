"""The simulator is faithful to Gemini: Google's official client drives it and understands all it says."""

from __future__ import annotations

import json
from base64 import b64decode
from contextlib import asynccontextmanager

import httpx
import pytest
from google import genai
from google.genai import errors, types
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gossamer.instances import SchemaError
from gossamer.simulator import Script, Simulator
from gossamer.simulator.dialect import Request, RequestError
from gossamer.simulator.gemini_chat import GeminiChatDialect
from gossamer.simulator.replies import default_reply
from gossamer.simulator.speech import speech_of
from gossamer.simulator.tokens import PrefixCache

MODEL = "gemini-3-flash-preview"
OLD = "gemini-2.5-flash"
PIXEL = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def tools(*functions):
    return [types.Tool(function_declarations=list(functions))]


def function(name, schema=None):
    return types.FunctionDeclaration(name=name, description="d", parameters_json_schema=schema)


WEATHER = function("get_weather", CITY)
TIME = function("get_time")


def user(*parts):
    return types.Content(role="user", parts=[types.Part(text=p) if isinstance(p, str) else p for p in parts])


def answered(name, response, **fields):
    return types.Part(function_response=types.FunctionResponse(name=name, response=response, **fields))


class Asking:
    """The client with one model."""

    def __init__(self, simulator, client):
        self.simulator = simulator
        self.client = client

    async def whole(self, contents, model=MODEL, **config):
        config = types.GenerateContentConfig(**manual(config))
        return await self.client.aio.models.generate_content(model=model, contents=contents, config=config)

    async def stream(self, contents, model=MODEL, **config):
        config = types.GenerateContentConfig(**manual(config))
        stream = await self.client.aio.models.generate_content_stream(
            model=model, contents=contents, config=config
        )
        return [chunk async for chunk in stream]

    async def post(self, body, path=f"models/{MODEL}:generateContent", **options):
        """A request as it stands, without the client's help."""
        url = f"{self.simulator.url.removesuffix('/v1')}/v1beta/{path}"
        options = {"headers": {"x-goog-api-key": "none"}, **options}
        async with httpx.AsyncClient() as http:
            return await http.post(url, json=body, **options)


def manual(config):
    return {"automatic_function_calling": types.AutomaticFunctionCallingConfig(disable=True), **config}


@asynccontextmanager
async def served(script=None, **options):
    async with (
        Simulator(script=Script(script) if script else None, **options) as simulator,
        httpx.AsyncClient(timeout=20) as http,  # the client's own choice, aiohttp, warns of how it is used
    ):
        options = types.HttpOptions(base_url=simulator.url.removesuffix("/v1"), httpx_async_client=http)
        client = genai.Client(api_key="none", http_options=options)
        yield Asking(simulator, client)
        client.close()


def parts_of(chunks):
    """All parts of a stream, in order; parts of text with nothing in them left out."""
    return [
        part
        for chunk in chunks
        for candidate in chunk.candidates or ()
        for part in (candidate.content and candidate.content.parts) or ()
        if part.text != ""
    ]


def said(chunks):
    return "".join(part.text for part in parts_of(chunks) if part.text and not part.thought)


def calls_of(chunks):
    return [
        (part.function_call.name, part.function_call.args) for part in parts_of(chunks) if part.function_call
    ]


def spent(answer):
    usage = answer.usage_metadata
    return (
        usage.prompt_token_count,
        usage.thoughts_token_count,
        usage.candidates_token_count,
        usage.total_token_count,
    )


# --- text ---------------------------------------------------------------------------------------------------


async def test_whole_answer_echoes_and_counts():
    async with served() as asking:
        answer = await asking.whole("hello world")
        assert answer.text == "You said: hello world"
        assert answer.candidates[0].finish_reason == types.FinishReason.STOP
        assert answer.candidates[0].content.role == "model"
        assert answer.model_version == MODEL
        assert answer.response_id
        assert spent(answer) == (2, None, 5, 7)
        assert asking.simulator.stats.completion_tokens == 5
        assert asking.simulator.stats.dialects["gemini_chat"].requests == 1


async def test_a_stream_sends_a_token_a_chunk_and_counts_on():
    async with served() as asking:
        chunks = await asking.stream("hello world")
        assert said(chunks) == "You said: hello world"
        assert [chunk.text for chunk in chunks] == ["You", " said", ":", " hello", " world", ""]
        assert [chunk.usage_metadata.candidates_token_count for chunk in chunks] == [1, 2, 3, 4, 5, 5]
        assert [chunk.usage_metadata.total_token_count for chunk in chunks] == [3, 4, 5, 6, 7, 7]
        assert [chunk.candidates[0].finish_reason for chunk in chunks] == [None] * 5 + ["STOP"]
        assert len({chunk.response_id for chunk in chunks}) == 1
        assert {chunk.model_version for chunk in chunks} == {MODEL}
        assert asking.simulator.stats.chunks == 5


async def test_text_of_any_script_arrives_unharmed():
    text = 'Ünïcode 🎉 日本語テキスト "quotes" \\ back\nlines\t and   many     spaces 100%  '
    async with served() as asking:
        assert said(await asking.stream(text, model="models/percent%20100%d")) == f"You said: {text}"
        assert (await asking.whole(text)).text == f"You said: {text}"


async def test_frames_are_as_googles():
    async with served() as asking:
        body = {"contents": [{"parts": [{"text": "x"}]}]}
        answer = await asking.post(body, f"models/{MODEL}:streamGenerateContent?alt=sse")
        assert answer.headers["content-type"] == "text/event-stream"
        frames = answer.text.split("\r\n\r\n")
        assert frames.pop() == ""
        decoded = [json.loads(frame.removeprefix("data: ")) for frame in frames]
        assert decoded[0]["candidates"] == [
            {"content": {"parts": [{"text": "You"}], "role": "model"}, "index": 0}
        ]
        assert decoded[0]["usageMetadata"]["promptTokensDetails"] == [{"modality": "TEXT", "tokenCount": 1}]
        assert decoded[-1]["candidates"][0]["finishReason"] == "STOP"


async def test_the_limit_and_the_stop_words_end_the_text():
    async with served() as asking:
        for text, reason in (
            await ended(asking, "a b c d", max_output_tokens=4),
            await ended(asking, "a b c d", max_output_tokens=4, streamed=True),
        ):
            assert (text, reason) == ("You said: a", "MAX_TOKENS")
        for text, reason in (
            await ended(asking, "one STOP two", stop_sequences=["no", "STOP"]),
            await ended(asking, "one STOP two", stop_sequences=["no", "STOP"], streamed=True),
        ):
            assert (text, reason) == ("You said: one ", "STOP")


async def ended(asking, contents, *, streamed=False, **config):
    chunks = await asking.stream(contents, **config) if streamed else [await asking.whole(contents, **config)]
    return said(chunks), chunks[-1].candidates[0].finish_reason


async def test_what_is_filtered_is_empty_and_says_why():
    script = [{"text": "Bad words.", "finish": "content_filter"}, {"text": "", "finish": "content_filter"}]
    async with served(script) as asking:
        filtered = await asking.whole("x")
        assert filtered.candidates[0].finish_reason == types.FinishReason.SAFETY
        assert filtered.text is None
        blocked = await asking.whole("x")
        assert blocked.candidates is None
        assert blocked.prompt_feedback.block_reason == types.BlockedReason.SAFETY
        chunks = await asking.stream("x")
        assert chunks[-1].candidates[0].finish_reason == types.FinishReason.SAFETY
        (chunk,) = await asking.stream("x")
        assert chunk.prompt_feedback.block_reason == types.BlockedReason.SAFETY


async def test_instructions_and_pictures_are_counted():
    async with served() as asking:
        picture = types.Part.from_bytes(data=PIXEL, mime_type="image/png")
        answer = await asking.whole([user("look", picture)], system_instruction="Be brief.")
        assert answer.text == "You said: look"
        assert spent(answer)[0] == 3 + 1 + 258


async def test_a_repeated_prefix_is_cached():
    async with served() as asking:
        await asking.whole("hello world")
        history = [
            user("hello world"),
            types.Content(role="model", parts=[types.Part(text="hi")]),
            user("more"),
        ]
        answer = await asking.whole(history)
        assert answer.usage_metadata.cached_content_token_count == 2
        assert spent(answer)[0] == 4
        chunks = await asking.stream(history)
        assert chunks[0].usage_metadata.cached_content_token_count == 4
        assert asking.simulator.stats.cached_tokens == 6


# --- functions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
async def test_function_call_and_its_response(streamed):
    async with served() as asking:
        contents = [user('please\ncall get_weather {"city": "Vienna"}')]
        config = {"tools": tools(WEATHER)}
        chunks = (
            await asking.stream(contents, **config) if streamed else [await asking.whole(contents, **config)]
        )
        assert calls_of(chunks) == [("get_weather", {"city": "Vienna"})]
        assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
        (part,) = [part for part in parts_of(chunks) if part.function_call]
        assert part.thought_signature
        assert part.function_call.id
        contents += [
            types.Content(role="model", parts=[part]),
            user(answered("get_weather", {"result": "sunny, 21 °C"}, id=part.function_call.id)),
        ]
        assert (await asking.whole(contents, **config)).text == "get_weather returned: sunny, 21 °C"


@pytest.mark.parametrize("streamed", [False, True])
async def test_parallel_calls_are_whole_and_the_first_is_signed(streamed):
    text = 'call get_weather {"city": "Vienna"}\ncall get_time\ncall unknown_tool {}'
    async with served() as asking:
        config = {"tools": tools(WEATHER, TIME)}
        chunks = await asking.stream(text, **config) if streamed else [await asking.whole(text, **config)]
        assert calls_of(chunks) == [("get_weather", {"city": "Vienna"}), ("get_time", {})]
        parts = [part for part in parts_of(chunks) if part.function_call]
        assert [bool(part.thought_signature) for part in parts] == [True, False]
        assert len({part.function_call.id for part in parts}) == 2
        if streamed:
            assert len(chunks) == 3
            assert asking.simulator.stats.chunks == 2
        assert asking.simulator.stats.completion_tokens == spent(chunks[-1])[2] > 2
        contents = [
            user(text),
            types.Content(role="model", parts=parts),
            user(answered("get_time", {"result": "noon"}), answered("get_weather", {"sky": "blue"})),
        ]
        answer = await asking.whole(contents, **config)
        assert answer.text == 'get_time returned: noon\nget_weather returned: {"sky":"blue"}'


async def test_the_client_calls_python_functions_by_itself():
    def get_weather(city: str) -> str:
        """Tell the weather."""
        return f"sunny in {city}"

    async with served() as asking:
        answer = await asking.client.aio.models.generate_content(
            model=MODEL,
            contents='call get_weather {"city": "Graz"}',
            config=types.GenerateContentConfig(tools=[get_weather]),
        )
        assert answer.text == "get_weather returned: sunny in Graz"
        assert asking.simulator.stats.requests == 2


@pytest.mark.parametrize(
    ("mode", "names", "called"),
    [
        ("ANY", None, ["get_weather"]),
        ("ANY", ["get_time"], ["get_time"]),
        ("NONE", None, []),
        ("AUTO", None, []),
        ("VALIDATED", ["get_time"], []),
    ],
)
async def test_a_function_is_called_where_the_request_wants_it(mode, names, called):
    async with served() as asking:
        calling = types.FunctionCallingConfig(mode=mode, allowed_function_names=names)
        answer = await asking.whole(
            "hello", tools=tools(WEATHER, TIME), tool_config=types.ToolConfig(function_calling_config=calling)
        )
        assert [name for name, _ in calls_of([answer])] == called


@pytest.mark.parametrize("streamed", [False, True])
async def test_broken_arguments_are_a_reason_to_end(streamed):
    script = [{"text": "Well.", "tool": "get_time", "arguments": '{"city": '}]
    async with served(script) as asking:
        config = {"tools": tools(TIME)}
        chunks = await asking.stream("x", **config) if streamed else [await asking.whole("x", **config)]
        assert chunks[-1].candidates[0].finish_reason == types.FinishReason.MALFORMED_FUNCTION_CALL
        assert (said(chunks), calls_of(chunks)) == ("Well.", [])


# --- structured output --------------------------------------------------------------------------------------


class Quote(BaseModel):
    amount: float
    currency: str
    notes: list[str]


@pytest.mark.parametrize("streamed", [False, True])
async def test_structured_output_is_an_instance_of_the_schema(streamed):
    async with served() as asking:
        for shape in ({"response_schema": Quote}, {"response_json_schema": Quote.model_json_schema()}):
            config = {"response_mime_type": "application/json", **shape}
            if streamed:
                quote = Quote.model_validate_json(said(await asking.stream("x", **config)))
            else:
                quote = Quote.model_validate_json((await asking.whole("x", **config)).text)
            assert isinstance(quote.currency, str)


async def test_json_without_a_schema_is_some_object():
    async with served() as asking:
        answer = await asking.whole("x", response_mime_type="application/json")
        assert json.loads(answer.text) == {"echo": "x"}


async def test_nullable_fields_and_bounds_of_googles_schema_are_understood():
    schema = {
        "type": "OBJECT",
        "properties": {
            "a": {"type": "STRING", "nullable": True},
            "b": {"type": "ARRAY", "items": {"type": "INTEGER"}},
        },
        "required": ["a", "b"],
    }
    schema["properties"]["b"]["minItems"] = "2"
    async with served() as asking:
        body = {
            "contents": [{"parts": [{"text": "x"}]}],
            "generationConfig": {"responseMimeType": "application/json", "responseSchema": schema},
        }
        text = (await asking.post(body)).json()["candidates"][0]["content"]["parts"][0]["text"]
        assert json.loads(text) == {"a": "text", "b": [0, 0]}


# --- thoughts -----------------------------------------------------------------------------------------------


THINKING = [{"thinking": "Let me think.", "text": "Done."}]


async def test_thoughts_are_sent_where_they_are_wanted():
    async with served(THINKING) as asking:
        config = {"thinking_config": types.ThinkingConfig(include_thoughts=True, thinking_level="HIGH")}
        answer = await asking.whole("x", **config)
        assert [(part.text, bool(part.thought)) for part in answer.candidates[0].content.parts] == [
            ("Let me think.", True),
            ("Done.", False),
        ]
        assert answer.candidates[0].content.parts[1].thought_signature
        assert spent(answer) == (1, 4, 2, 7)
        chunks = await asking.stream("x", **config)
        assert "".join(part.text for part in parts_of(chunks) if part.thought) == "Let me think."
        assert said(chunks) == "Done."
        assert [spent(chunk) for chunk in chunks] == [
            (1, 1, None, 2),
            (1, 2, None, 3),
            (1, 3, None, 4),
            (1, 4, None, 5),
            (1, 4, 1, 6),
            (1, 4, 2, 7),
            (1, 4, 2, 7),
        ]
        assert chunks[-1].candidates[0].content.parts[0].thought_signature


async def test_thoughts_that_are_not_wanted_are_counted():
    async with served(THINKING) as asking:
        answer = await asking.whole("x")
        assert [part.text for part in answer.candidates[0].content.parts] == ["Done."]
        assert spent(answer) == (1, 4, 2, 7)
        chunks = await asking.stream("x")
        assert [part.text for part in parts_of(chunks)] == ["Done", "."]
        assert [spent(chunk) for chunk in chunks] == [(1, 4, 1, 6), (1, 4, 2, 7), (1, 4, 2, 7)]
        assert asking.simulator.stats.completion_tokens == 12


async def test_a_streamed_signature_may_come_back_with_the_text_or_apart():
    async with served() as asking:
        chunks = await asking.stream("x")
        signature = chunks[-1].candidates[0].content.parts[0].thought_signature
        for parts in (
            [types.Part(text=said(chunks), thought_signature=signature)],
            [types.Part(text=said(chunks)), types.Part(text="", thought_signature=signature)],
        ):
            history = [user("x"), types.Content(role="model", parts=parts), user("y")]
            assert (await asking.whole(history)).text == "You said: y"


async def called(asking, **changes):
    """A conversation whose last turn ends with the response to a call; the call changed."""
    answer = await asking.whole("call get_time", tools=tools(TIME))
    part = answer.candidates[0].content.parts[0].model_copy(update=changes)
    return [
        user("call get_time"),
        types.Content(role="model", parts=[part]),
        user(answered("get_time", {"result": "noon"})),
    ]


async def test_a_call_without_its_signature_is_refused_since_gemini_3():
    async with served() as asking:
        contents = await called(asking, thought_signature=None)
        with pytest.raises(errors.ClientError, match=r"missing a thought_signature.*get_time.*position 2"):
            await asking.whole(contents, tools=tools(TIME))
        await asking.whole(contents, model=OLD, tools=tools(TIME))
        # Only the current turn counts.
        await asking.whole(
            [*contents, types.Content(role="model", parts=[types.Part(text="noon")]), user("thanks")],
            tools=tools(TIME),
        )


async def test_a_signature_must_be_the_calls_own():
    async with served() as asking:
        other = await asking.whole("call get_weather", tools=tools(WEATHER))
        strange = other.candidates[0].content.parts[0].thought_signature
        for signature in (b"made up", strange):
            contents = await called(asking, thought_signature=signature)
            with pytest.raises(errors.ClientError, match="Corrupted thought signature"):
                await asking.whole(contents, tools=tools(TIME))
        for placeholder in (b"skip_thought_signature_validator", b"context_engineering_is_the_way_to_go"):
            contents = await called(asking, thought_signature=placeholder)
            assert (await asking.whole(contents, tools=tools(TIME))).text == "get_time returned: noon"


async def test_each_step_of_a_turn_needs_its_signature():
    script = [
        {"when": "twice", "tool": "get_time"},
        {"when": "twice", "tool": "get_time"},
        {"when": "twice", "text": "Done."},
    ]
    async with served(script) as asking:
        contents = [user("twice")]
        for _ in range(2):
            answer = await asking.whole(contents, tools=tools(TIME))
            contents += [answer.candidates[0].content, user(answered("get_time", {"result": "noon"}))]
        assert (await asking.whole(contents, tools=tools(TIME))).text == "Done."
        contents[1].parts[0].thought_signature = None
        with pytest.raises(errors.ClientError, match=r"missing a thought_signature.*position 2"):
            await asking.whole(contents, tools=tools(TIME))


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "word"),
    [
        (400, errors.ClientError, "INVALID_ARGUMENT"),
        (401, errors.ClientError, "UNAUTHENTICATED"),
        (403, errors.ClientError, "PERMISSION_DENIED"),
        (404, errors.ClientError, "NOT_FOUND"),
        (429, errors.ClientError, "RESOURCE_EXHAUSTED"),
        (500, errors.ServerError, "INTERNAL"),
        (503, errors.ServerError, "UNAVAILABLE"),
    ],
)
async def test_errors_are_the_clients_own(status, kind, word):
    async with served([{"error": status, "retry_after": 2.5, "message": "as it happens"}]) as asking:
        for ask in (asking.whole, asking.stream):
            with pytest.raises(kind, match="as it happens") as caught:
                await ask("x")
            assert (caught.value.code, caught.value.status) == (status, word)
            (detail,) = caught.value.details["error"]["details"]
            assert detail["retryDelay"] == "2.5s"


async def test_an_error_in_the_middle_of_a_stream():
    async with served([{"text": "one two three four", "fault": "error_frame", "after": 2}]) as asking:
        texts = []
        stream = await asking.client.aio.models.generate_content_stream(model=MODEL, contents="x")
        with pytest.raises(errors.ServerError, match="overloaded"):
            async for chunk in stream:
                texts.append(chunk.text)  # noqa: PERF401 - what came before the error counts
        assert texts == ["one", " two"]


async def test_an_unknown_chunk_does_no_harm():
    async with served([{"text": "one two three", "fault": "unknown_frame", "after": 1}]) as asking:
        chunks = await asking.stream("x")
        assert said(chunks) == "one two three"
        assert any(chunk.candidates is None for chunk in chunks)


async def test_a_request_needs_a_key():
    async with served() as asking:
        body = {"contents": [{"parts": [{"text": "x"}]}]}
        refused = await asking.post(body, headers={})
        assert refused.status_code == 403
        assert refused.json()["error"]["status"] == "PERMISSION_DENIED"
        assert (
            await asking.post(body, f"models/{MODEL}:generateContent?key=k", headers={})
        ).status_code == 200


async def test_models_and_counting():
    async with served() as asking:
        models = await asking.client.aio.models.list()
        assert [model.name async for model in models] == ["models/simulator"]
        model = await asking.client.aio.models.get(model=MODEL)
        assert model.name == f"models/{MODEL}"
        assert "generateContent" in model.supported_actions
        counted = await asking.client.aio.models.count_tokens(model=MODEL, contents="hello world")
        assert counted.total_tokens == 2


# --- refused requests ---------------------------------------------------------------------------------------


def content(role, *parts):
    return {"role": role, "parts": list(parts)}


ASK = content("user", {"text": "x"})
SAY = content("model", {"text": "y"})
CALL = {
    "functionCall": {"name": "get_time", "args": {}},
    "thoughtSignature": "skip_thought_signature_validator",
}
RESPONSE = {"functionResponse": {"name": "get_time", "response": {"result": "noon"}}}
DECLARED = [{"functionDeclarations": [{"name": "get_time"}]}]
UNEVEN = "number of function response parts is equal to the number of function call parts"


@pytest.mark.parametrize(
    ("contents", "match"),
    [
        ([], "contents is not specified"),
        ([content("assistant", {"text": "x"})], "Please use a valid role: user, model."),
        ([content("user")], "contents[0].parts: contents.parts must not be empty"),
        ([content("user", {})], "contents[0].parts[0].data: required oneof field 'data'"),
        (
            [content("user", {"text": "x", "functionCall": {"name": "f"}})],
            "oneof field 'data' is already set",
        ),
        ([content("user", {"text": 1})], "Invalid value at 'contents[0].parts[0].text' (TYPE_STRING)"),
        (
            [content("user", {"txt": "x"})],
            "Unknown name \"txt\" at 'contents[0].parts[0]': Cannot find field",
        ),
        ([content("model", CALL), content("user", RESPONSE)], "function call turn comes immediately after"),
        ([ASK, content("user", CALL)], "in a turn of the role model"),
        ([ASK, content("model", CALL)], UNEVEN),
        ([ASK, content("model", CALL), ASK], UNEVEN),
        ([ASK, content("model", CALL, CALL), content("user", RESPONSE)], UNEVEN),
        ([ASK, content("model", CALL), content("user", RESPONSE, RESPONSE)], UNEVEN),
        (
            [ASK, SAY, content("user", RESPONSE)],
            "function response turn comes immediately after a function call",
        ),
        ([content("user", RESPONSE)], "function response turn comes immediately after a function call"),
        (
            [
                ASK,
                content("model", CALL),
                content("user", {"functionResponse": {"name": "other", "response": {}}}),
            ],
            UNEVEN,
        ),
        (
            [ASK, content("model", CALL), content("user", {"functionResponse": {"response": {}}})],
            "function_response.name: Name cannot be empty",
        ),
        (
            [
                ASK,
                content("model", CALL),
                content("user", {"functionResponse": {"name": "get_time", "response": "x"}}),
            ],
            "Invalid value at 'contents[2].parts[0].function_response.response'",
        ),
        (
            [content("user", {"inlineData": {"mimeType": "image/tiff", "data": ""}})],
            "Unsupported MIME type: image/tiff",
        ),
        (
            [content("user", {"inlineData": {"mimeType": "image/png", "data": "?"}})],
            "parts[0].inline_data.data' (TYPE_BYTES), Base64 decoding failed",
        ),
        ([content("user", {"fileData": {"mimeType": "image/png"}})], "file_data.file_uri"),
        (
            [ASK, content("model", {"text": "y", "thoughtSignature": "bm8="}), ASK],
            "Corrupted thought signature",
        ),
    ],
)
async def test_contents_that_the_provider_refuses(contents, match):
    async with served() as asking:
        answer = await asking.post({"contents": contents, "tools": DECLARED})
        assert answer.status_code == 400
        assert match in answer.json()["error"]["message"]
        assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"


def declared(**function):
    return {"tools": [{"functionDeclarations": [{"name": "f", **function}]}]}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"generationConf": {}}, 'Unknown name "generationConf"'),
        ({"generationConfig": {"candidateCount": 2}}, "Multiple candidates"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "max_output_tokens must be positive"),
        (
            {"generationConfig": {"maxOutputTokens": "x"}},
            "'generation_config.max_output_tokens' (TYPE_INT32)",
        ),
        ({"generationConfig": {"temperature": 3}}, "temperature must be in the range"),
        ({"generationConfig": {"stopSequences": list("abcdef")}}, "at most 5"),
        ({"generationConfig": {"responseMimeType": "image/png"}}, "allowed mimetypes"),
        (
            {"generationConfig": {"responseSchema": {"type": "STRING"}}},
            "only allowed when response_mime_type",
        ),
        (
            {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW", "thinkingBudget": 1}}},
            "only one of thinking budget and thinking level",
        ),
        ({"generationConfig": {"thinkingConfig": {"thinkingLevel": "SOME"}}}, "thinking_level"),
        ({"tools": [{"functionDeclarations": [{"name": "a b"}]}]}, "Invalid function name"),
        (
            {"tools": [{"functionDeclarations": [{"name": "f"}, {"name": "f"}]}]},
            "Duplicate function declaration",
        ),
        (declared(parameters={"type": "OBJECT", "$ref": "x"}), 'Unknown name "$ref"'),
        (
            declared(parameters={"type": "OBJECT", "properties": {"a": {"type": "STRING", "const": 1}}}),
            "Unknown name \"const\" at 'tools[0].function_declarations[0].parameters.properties[0].value'",
        ),
        (declared(parameters={"type": "OBJECT", "properties": []}), "parameters.properties'"),
        (declared(parameters={"type": "STRING", "minLength": "x"}), "TYPE_INT64"),
        (declared(parameters={"type": "OBJECT"}, parametersJsonSchema={}), "only one of parameters"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, "without function_declarations"),
        (
            {
                **declared(),
                "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["g"]}},
            },
            "not declared: g",
        ),
        (
            {**declared(), "toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["f"]}}},
            "only when the function calling mode is ANY",
        ),
    ],
)
async def test_settings_that_the_provider_refuses(options, match):
    async with served() as asking:
        answer = await asking.post({"contents": [ASK], **options})
        assert answer.status_code == 400
        assert match in answer.json()["error"]["message"]


async def test_what_models_before_gemini_3_refuse():
    async with served() as asking:
        shape = {"response_mime_type": "application/json", "tools": tools(TIME)}
        with pytest.raises(errors.ClientError, match="Function calling with a response mime type"):
            await asking.whole("x", model=OLD, **shape)
        assert (await asking.whole("x", **shape)).text
        with pytest.raises(errors.ClientError, match="Thinking level is not supported"):
            await asking.whole("x", model=OLD, thinking_config=types.ThinkingConfig(thinking_level="LOW"))


async def test_responses_may_come_in_contents_of_their_own():
    async with served() as asking:
        contents = [
            ASK,
            content("model", CALL, CALL),
            content("user", RESPONSE),
            content("function", RESPONSE),
        ]
        answer = await asking.post({"contents": contents, "tools": DECLARED})
        text = answer.json()["candidates"][0]["content"]["parts"][0]["text"]
        assert text == "get_time returned: noon\nget_time returned: noon"


async def test_bodies_that_are_no_requests():
    async with served() as asking:
        for body in (b"{", b"[]", b'{"contents": 1}'):
            answer = await asking.post(None, content=body)
            assert answer.status_code == 400
            assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"
        answer = await asking.post({"contents": [ASK]}, f"models/{MODEL}:streamGenerateContent")
        assert (answer.status_code, "alt=sse" in answer.text) == (400, True)


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


FULL = {
    "contents": [
        content("user", {"text": "x"}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}),
        content("model", {"text": "y"}, CALL),
        content("user", RESPONSE, {"text": "call get_time"}),
    ],
    "systemInstruction": {"parts": [{"text": "s"}]},
    "tools": [
        {"functionDeclarations": [{"name": "get_time", "parameters": {"type": "OBJECT", "properties": {}}}]}
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["get_time"]}},
    "generationConfig": {
        "responseMimeType": "application/json",
        "responseSchema": {
            "type": "OBJECT",
            "properties": {"a": {"type": "STRING"}, "b": {"type": "ARRAY", "items": {"type": "INTEGER"}}},
            "required": ["a", "b"],
        },
        "thinkingConfig": {"includeThoughts": True, "thinkingLevel": "LOW"},
        "stopSequences": ["x"],
        "maxOutputTokens": 9,
    },
}


@given(path=st.sampled_from(list(places(FULL))), new=VALUES)
def test_whatever_a_request_holds_it_is_answered_or_refused(path, new):
    dialect = GeminiChatDialect()
    body = json.dumps(changed(FULL, path, new)).encode()
    request = Request(
        b"POST",
        b"/v1beta/models/m:streamGenerateContent",
        b"alt=sse",
        {b"x-goog-api-key": b"k"},
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
        key = "candidates"
        stream = dialect.stream(prompt, speech, 1, stamp=False)
        frames = stream.opening() + b"".join(stream.frame() for _ in range(stream.length)) + stream.closing()
        for line in frames.splitlines():
            assert not line.startswith(b"data: ") or json.loads(line.removeprefix(b"data: "))
    assert json.loads(answer)[key]
