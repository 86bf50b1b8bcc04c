"""Chat Completions: what is asked, byte for byte, and what is made of every kind of answer, streamed and not."""

from __future__ import annotations

import base64
import json

import msgspec
import openai
import pytest
from tests.integration.asking import (
    CONVERT,
    TWO,
    agent,
    ask,
    calling,
    convert,
    pieces_of,
    reply,
    results_of,
    streamed_and_not,
)
from tests.integration.server import DONE, Server, call_entry, completion, frame, say, stream

from gossamer import Agent, Limits, Message, Price, Session, Text, ToolCall, Usage, tool
from gossamer.errors import ArgumentError, OutputError
from gossamer.events import OutputDelta, TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.messages import Audio, Citation, File, Image, Refusal, Thinking
from gossamer.models import Capabilities, ModelSettings, OpenAIChat
from gossamer.simulator import Simulator


class Quote(msgspec.Struct):
    """A price."""

    amount: float
    currency: str


# --- what is asked ------------------------------------------------------------------------------------------


async def test_smallest_request_byte_for_byte():
    async with Server(completion("hello")) as server:
        assert (await agent(server).run("hi")).output == "hello"
    request = server.requests[0]
    assert request.raw == b'{"model":"gpt-test","messages":[{"role":"user","content":"hi"}]}'
    assert request.target == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["content-type"] == "application/json"


async def test_smallest_streamed_request_byte_for_byte():
    async with Server(stream(*say("hel", "lo"))) as server:
        result, events = await ask(agent(server), "hi", streamed=True)
    assert result.output == "hello"
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["hel", "lo"]
    assert server.requests[0].raw == (
        b'{"model":"gpt-test","stream":true,"stream_options":{"include_usage":true},'
        b'"messages":[{"role":"user","content":"hi"}]}'
    )


@streamed_and_not
async def test_a_tool_loop_and_its_requests(streamed):
    entry = call_entry("call_theirs", "convert", '{"amount": 20, "rate": 1.1}')
    async with Server(calling(streamed, entry), reply(streamed, "22 it is")) as server:
        result, _ = await ask(
            agent(server, instructions="Be brief.", tools=[convert]), "20 at 1.1?", streamed
        )
    assert result.output == "22 it is"
    call = next(part for message in result.messages for part in message.parts if isinstance(part, ToolCall))
    first, second = server.requests
    opening = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "20 at 1.1?"}]
    asked = {"model": "gpt-test", "messages": opening, "tools": [CONVERT]}
    if streamed:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    sent = first.body
    sent["tools"][0]["function"].pop("strict", None)
    assert sent == asked
    function = {"name": "convert", "arguments": '{"amount": 20, "rate": 1.1}'}
    assert second.messages == [
        *opening,
        {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call.id, "content": "22.0"},
    ]


async def test_media_parts():
    png, wav, pdf = b"\x89PNG\r\n\x1a\nbytes", b"RIFF\0\0\0\0WAVEfmt ", b"%PDF-1.7 bytes"
    prompt = [
        Text("Look:"),
        Image(data=png),
        Image(url="https://example.org/cat.jpg"),
        Audio(data=wav),
        Audio(data=b"ID3bytes"),
        File(data=pdf, name="report.pdf"),
        File(url="https://example.org/paper.pdf"),
    ]
    async with Server(completion("seen")) as server:
        await agent(server).run(prompt)

    def encoded(data):
        return base64.b64encode(data).decode()

    content = server.requests[0].messages[0]["content"]
    assert content[:6] == [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded(png)}"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.jpg"}},
        {"type": "input_audio", "input_audio": {"data": encoded(wav), "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": encoded(b"ID3bytes"), "format": "mp3"}},
        {
            "type": "file",
            "file": {"filename": "report.pdf", "file_data": f"data:application/pdf;base64,{encoded(pdf)}"},
        },
    ]
    # Chat Completions takes no documents by URL: the model is told of the one it cannot see.
    assert content[6]["type"] == "text"
    assert "https://example.org/paper.pdf" in content[6]["text"]


async def test_media_from_files(tmp_path):
    path = tmp_path / "scan.pdf"
    path.write_bytes(b"%PDF-1.4 scanned")
    async with Server(completion("read")) as server:
        await agent(server).run([Text("read"), File.from_path(path)])
    file = server.requests[0].messages[0]["content"][1]["file"]
    assert file["filename"] == "scan.pdf"
    assert (
        base64.b64decode(file["file_data"].removeprefix("data:application/pdf;base64,")) == path.read_bytes()
    )


async def test_a_tools_picture_follows_its_result():
    @tool(inline=True)
    def draw() -> Image:
        """Draw."""
        return Image(data=b"\x89PNG\r\n\x1a\nx")

    async with Server(calling(False, call_entry("a", "draw", "{}")), completion("nice")) as server:
        await agent(server, tools=[draw]).run("draw")
    result, shown = server.requests[1].messages[-2:]
    assert result["role"] == "tool"
    assert isinstance(result["content"], str)
    assert shown["role"] == "user"
    assert shown["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")


async def test_author_names_are_made_fit():
    session = Session()
    session.add(Message.user("hello", author="Ann Lee (ops)"))
    async with Server(completion("hi")) as server:
        await agent(server).run("and?", session=session)
    assert server.requests[0].messages == [
        {"role": "user", "content": "hello", "name": "Ann_Lee__ops_"},
        {"role": "user", "content": "and?"},
    ]


@pytest.mark.parametrize(
    ("provider", "longest"), [("openai", "max_completion_tokens"), ("vllm", "max_tokens")]
)
async def test_settings_become_fields_and_headers(provider, longest):
    settings = ModelSettings(
        temperature=0.5,
        top_p=0.9,
        max_tokens=100,
        stop=["END"],
        seed=7,
        parallel_tool_calls=False,
        thinking="low",
        extra_body={"logit_bias": {"5": -100}, "service_tier": "flex"},
        extra_headers={"X-Trace": "abc", "Authorization": "Bearer other"},
    )
    async with Server(completion("ok")) as server:
        await agent_of(server, provider).run("hi", settings=settings)
    request = server.requests[0]
    assert request.body == {
        "model": "gpt-test",
        "temperature": 0.5,
        "top_p": 0.9,
        longest: 100,
        "stop": ["END"],
        "seed": 7,
        "reasoning_effort": "low",
        "logit_bias": {"5": -100},
        "service_tier": "flex",
        "messages": [{"role": "user", "content": "hi"}],
    }
    assert request.headers["x-trace"] == "abc"
    assert request.headers["authorization"] == "Bearer other"


async def test_thinking_is_switched_off_by_one_word_everywhere():
    async with Server(completion("ok")) as server:
        await agent(server).run("hi", settings=ModelSettings(thinking="off"))
    assert server.requests[0].body["reasoning_effort"] == "none"


def agent_of(server, provider):
    return Agent(OpenAIChat("gpt-test", base_url=server.url, api_key="k", provider=provider))


async def test_a_header_with_a_line_break_is_refused():
    async with Server(completion("ok")) as server:
        with pytest.raises(ArgumentError, match="X-Bad"):
            await agent(server).run("hi", settings=ModelSettings(extra_headers={"X-Bad": "a\r\nB: c"}))
    assert server.requests == []


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("required", "required"),
        ("auto", "auto"),
        ("convert", {"type": "function", "function": {"name": "convert"}}),
    ],
)
async def test_a_forced_call_is_forced_once(choice, sent):
    entry = call_entry("a", "convert", '{"amount": 1, "rate": 2}')
    async with Server(calling(False, entry), completion("2")) as server:
        await agent(server, tools=[convert], settings=ModelSettings(tool_choice=choice)).run("hi")
    first, second = server.requests
    assert first.body["tool_choice"] == sent
    assert "tool_choice" not in second.body


async def test_no_tools_stays_no_tools():
    async with Server(completion("fine")) as server:
        await agent(server, tools=[convert], settings=ModelSettings(tool_choice="none")).run("hi")
    assert server.requests[0].body["tool_choice"] == "none"


# --- structured output --------------------------------------------------------------------------------------


@streamed_and_not
async def test_native_schema(streamed):
    async with Server(reply(streamed, '{"amount": 2.5, "currency": "EUR"}')) as server:
        result, events = await ask(agent(server, output=Quote), "price?", streamed)
    assert result.output == Quote(2.5, "EUR")
    asked = server.requests[0].body["response_format"]
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["name"] == "Quote"
    assert asked["json_schema"]["strict"] is True
    assert asked["json_schema"]["schema"]["required"] == ["amount", "currency"]
    assert "tools" not in server.requests[0].body
    if streamed:
        assert [event.partial for event in events if isinstance(event, OutputDelta)][-1] == {
            "amount": 2.5,
            "currency": "EUR",
        }


@streamed_and_not
async def test_schema_through_a_tool(streamed):
    entry = call_entry("a", "final_answer", '{"amount": 2.5, "currency": "EUR"}')
    through_a_tool = Capabilities(native_schema=False)
    answers = [calling(streamed, entry), reply(streamed, "welcome")]
    session = Session()
    async with Server(*answers) as server:
        asking = agent(server, output=Quote, capabilities=through_a_tool)
        result, _ = await ask(asking, "price?", streamed, session=session)
        await ask(asking, "thanks", streamed, session=session, output=str)
    assert result.output == Quote(2.5, "EUR")
    assert result.finish_reason == "stop"
    body = server.requests[0].body
    assert "response_format" not in body
    assert [each["function"]["name"] for each in body["tools"]] == ["final_answer"]
    assert body["tool_choice"] == "required"
    # In the conversation it is an answer like any other: no call is left without a result.
    assert server.requests[1].messages[1] == {
        "role": "assistant",
        "content": '{"amount": 2.5, "currency": "EUR"}',
    }


async def test_schema_through_a_tool_streams_partial_objects():
    pieces = pieces_of([call_entry("a", "final_answer", '{"amount": 2.5, "currency": "EUR"}')], lambda _: 0)
    async with Server(stream(*pieces)) as server:
        asking = agent(server, output=Quote, capabilities=Capabilities(native_schema=False))
        result, events = await ask(asking, "price?", streamed=True)
    assert result.output == Quote(2.5, "EUR")
    partial = [event.partial for event in events if isinstance(event, OutputDelta)]
    assert {"amount": 2.5} in partial
    assert partial[-1] == {"amount": 2.5, "currency": "EUR"}
    # The tool is the dialect's own business, not a call that somebody would wait to see finished.
    assert not any(isinstance(event, ToolCallStarted | ToolArgumentsDelta) for event in events)


@streamed_and_not
async def test_schema_through_a_tool_beside_others(streamed):
    call = call_entry("a", "convert", '{"amount": 1, "rate": 2.5}')
    final = call_entry("b", "final_answer", '{"amount": 2.5, "currency": "EUR"}')
    async with Server(calling(streamed, call), calling(streamed, final)) as server:
        asking = agent(server, output=Quote, tools=[convert], capabilities=Capabilities(native_schema=False))
        result, _ = await ask(asking, "price?", streamed)
    assert result.output == Quote(2.5, "EUR")
    assert results_of(server.requests[1]) == ["2.5"]


@streamed_and_not
async def test_an_answer_that_does_not_fit_is_repaired_once(streamed):
    async with Server(
        reply(streamed, "two fifty"), reply(streamed, '{"amount": 2, "currency": "EUR"}')
    ) as server:
        result, _ = await ask(agent(server, output=Quote), "price?", streamed)
    assert result.output == Quote(2, "EUR")
    assert server.requests[1].messages[1] == {"role": "assistant", "content": "two fifty"}
    assert server.requests[1].messages[2]["role"] == "user"


# --- thinking -----------------------------------------------------------------------------------------------


@streamed_and_not
@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
async def test_thinking_is_kept_apart(key, streamed):
    if streamed:
        answer = stream(frame({"content": "", key: "hm "}), frame({key: "yes"}), *say("42"))
    else:
        answer = completion("42", **{key: "hm yes"})
    async with Server(answer) as server:
        result, events = await ask(agent(server), "hi", streamed)
    assert result.output == "42"
    assert result.messages[-1].parts == (Thinking("hm yes"), Text("42"))
    if streamed:
        assert [event.text for event in events if isinstance(event, ThinkingDelta)] == ["hm ", "yes"]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
async def test_thinking_and_text_in_one_frame(key):
    answer = stream(frame({"content": "4", key: "hm"}), *say("2"))
    async with Server(answer) as server:
        result, _ = await ask(agent(server), "hi", streamed=True)
    assert result.messages[-1].parts == (Thinking("hm"), Text("42"))


@streamed_and_not
async def test_content_as_a_list_of_parts(streamed):
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "42"},
    ]
    answer = stream(frame({"content": content}), *say()) if streamed else completion(content)
    async with Server(answer) as server:
        result, _ = await ask(agent(server), "hi", streamed)
    assert result.messages[-1].parts == (Thinking("hm"), Text("42"))


@streamed_and_not
@pytest.mark.parametrize("wanted", [True, False], ids=["wanted", "not wanted"])
async def test_thinking_goes_back_only_where_wanted_and_in_its_tool_loop(wanted, streamed):
    entry = {**TWO[0]}
    if streamed:
        thoughtful = stream(
            frame({"reasoning_content": "I must convert"}),
            frame({"tool_calls": [{**entry, "index": 0}]}),
            frame({}, finish="tool_calls"),
            DONE,
        )
    else:
        thoughtful = completion(
            None, finish="tool_calls", tool_calls=[entry], reasoning_content="I must convert"
        )
    session = Session()
    async with Server(thoughtful, reply(streamed), reply(streamed)) as server:
        asking = agent(server, tools=[convert], send_thinking=wanted)
        await ask(asking, "hi", streamed, session=session)
        await ask(asking, "again", streamed, session=session)
    inside, later = (request.messages[1] for request in server.requests[1:])
    assert inside.get("reasoning_content") == ("I must convert" if wanted else None)
    assert "reasoning_content" not in later
    assert later["tool_calls"] == inside["tool_calls"]


# --- refusals, ends, usage ----------------------------------------------------------------------------------


@streamed_and_not
async def test_a_refusal(streamed):
    if streamed:
        answer = stream(
            frame({"refusal": "I will "}), frame({"refusal": "not."}), frame({}, finish="stop"), DONE
        )
    else:
        answer = completion(None, refusal="I will not.")
    session = Session()
    async with Server(answer, answer, reply(streamed)) as server:
        asking = agent(server)
        result, _ = await ask(asking, "hi", streamed, session=session)
        assert result.finish_reason == "refusal"
        assert result.messages[-1].parts == (Refusal("I will not."),)
        with pytest.raises(OutputError, match="I will not"):
            await ask(asking, "hi", streamed, output=Quote)
        await ask(asking, "why?", streamed, session=session)
    assert server.requests[2].messages[1] == {"role": "assistant", "refusal": "I will not."}


@streamed_and_not
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("eos_token", "other"),
    ],
)
async def test_finish_reasons(theirs, ours, streamed):
    async with Server(reply(streamed, finish=theirs)) as server:
        result, _ = await ask(agent(server), "hi", streamed)
    assert result.finish_reason == ours
    assert result.output == "ok"


OPENAI_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 30,
    "total_tokens": 130,
    "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 20},
}
DEEPSEEK_USAGE = {"prompt_tokens": 100, "completion_tokens": 30, "prompt_cache_hit_tokens": 64}
BARE_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 30,
    "prompt_tokens_details": None,
    "completion_tokens_details": {"reasoning_tokens": None},
}


@streamed_and_not
@pytest.mark.parametrize(
    ("sent", "cached", "reasoning"),
    [(OPENAI_USAGE, 64, 20), (DEEPSEEK_USAGE, 64, 0), (BARE_USAGE, 0, 0)],
    ids=["openai", "deepseek", "bare"],
)
async def test_usage(sent, cached, reasoning, streamed):
    if streamed:
        *said, done = say("ok")
        answer = stream(*said, frame(usage=sent), done)
    else:
        answer = completion("ok", usage=sent)
    async with Server(answer) as server:
        result, _ = await ask(agent(server), "hi", streamed)
    assert result.usage == Usage(
        input_tokens=100,
        output_tokens=30,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
        model_calls=1,
        unpriced_calls=1,
    )
    assert result.model == "gpt-test-2025"


async def test_a_server_that_counts_nothing():
    async with Server(completion("ok")) as server:
        assert (await agent(server).run("hi")).usage == Usage(model_calls=1, unpriced_calls=1)
        free = await Agent(OpenAIChat("gpt-test", base_url=server.url, price=Price(0))).run("hi")
        assert free.usage == Usage(model_calls=1)


async def test_a_token_limit_caps_the_answer():
    async with Server(completion("ok", usage=OPENAI_USAGE)) as server:
        await agent(server).run("hi", limits=Limits(max_tokens=1000))
    assert 0 < server.requests[0].body["max_completion_tokens"] < 1000


# --- the same program elsewhere -----------------------------------------------------------------------------


@streamed_and_not
async def test_text_and_usage_are_those_of_the_official_client(streamed):
    prompts = ["hello there", "a longer question, with 1 number and an emoji 👋"]
    async with Simulator() as simulator, openai.AsyncOpenAI(api_key="k", base_url=simulator.url) as client:
        asking = Agent(OpenAIChat("gpt-test", base_url=simulator.url, api_key="k"), instructions="Be brief.")
        for prompt in prompts:
            said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
            # Asked first by the one, then by the other, so cached tokens differ; both count the same in all.
            answer = await client.chat.completions.create(model="gpt-test", messages=said)
            result, _ = await ask(asking, prompt, streamed)
            assert result.output == answer.choices[0].message.content
            assert result.usage.input_tokens == answer.usage.prompt_tokens
            assert result.usage.output_tokens == answer.usage.completion_tokens


async def test_a_tool_program_is_that_of_the_official_client():
    prompt = 'call convert {"amount": 20, "rate": 1.1}'
    async with Simulator() as simulator, openai.AsyncOpenAI(api_key="k", base_url=simulator.url) as client:
        asking = Agent(OpenAIChat("gpt-test", base_url=simulator.url, api_key="k"), tools=[convert])
        result = await asking.run(prompt)
        said = [{"role": "user", "content": prompt}]
        sent, received = 0, 0
        while True:
            answer = await client.chat.completions.create(model="gpt-test", messages=said, tools=[CONVERT])
            sent += answer.usage.prompt_tokens
            received += answer.usage.completion_tokens
            message = answer.choices[0].message
            if not message.tool_calls:
                break
            said.append(message.model_dump(exclude_none=True))
            for call in message.tool_calls:
                value = json.loads(call.function.arguments)
                content = json.dumps(value["amount"] * value["rate"])
                said.append({"role": "tool", "tool_call_id": call.id, "content": content})
    assert result.output == message.content
    assert result.usage.output_tokens == received
    assert result.usage.tool_calls == 1
    assert result.usage.input_tokens > 0
    assert sent > 0


@streamed_and_not
async def test_citations_of_a_search(streamed):
    cited = {
        "type": "url_citation",
        "url_citation": {"url": "https://a.org", "title": "A", "start_index": 0, "end_index": 5},
    }
    if streamed:
        events = [frame({"content": "found"}), frame({"content": " it", "annotations": [cited]})]
        first = stream(*events, frame({}, finish="stop"), DONE)
    else:
        first = completion("found it", annotations=[cited])
    async with Server(first, reply(streamed)) as server:
        session = Session()
        result, _ = await ask(agent(server), "search", streamed, session=session)
        await ask(agent(server), "more", streamed, session=session)
    text, citation = result.messages[-1].parts
    assert text.text == result.output == "found it"
    assert citation == Citation("https://a.org", "A", "found", 0, 5, {"openai_chat": cited})
    assert server.requests[1].messages[1] == {"role": "assistant", "content": "found it"}


async def test_parallel_calls_are_spoken_of_only_where_there_is_a_tool():
    @tool(inline=True)
    def look() -> str:
        """Look."""
        return "seen"

    settings = ModelSettings(parallel_tool_calls=False)
    async with Simulator() as simulator:
        model = OpenAIChat("m", base_url=simulator.url, api_key="k")
        assert (await Agent(model).run("hi", settings=settings)).output == "You said: hi"
        result = await Agent(model, tools=[look]).run("call look", settings=settings)
        assert result.output == "look returned: seen"
    async with Server(completion("ok"), completion("ok")) as server:
        await agent(server).run("hi", settings=settings)
        await agent(server, tools=[look]).run("hi", settings=settings)
    assert ["parallel_tool_calls" in each.body for each in server.requests] == [False, True]
