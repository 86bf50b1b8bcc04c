"""Anthropic's Messages: what is made of every kind of answer, streamed and not, and of what is none."""

from __future__ import annotations

import asyncio
import json
import logging

import anthropic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.asking import ask, convert, streamed_and_not
from tests.integration.dialects.anthropic_voice import (
    MODEL,
    Block,
    agent,
    answer,
    block,
    calls,
    error,
    event,
    events,
    in_packets,
    model,
    say,
    text,
    thinking,
)
from tests.integration.server import LAST_CHUNK, STREAM_HEAD, Close, Server, chunk, http, stream

from gossamer import Agent, Message, ModelRetry, Session, Text, Usage, tool
from gossamer.errors import (
    AuthenticationError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    ModelTimeoutError,
    NotFoundError,
    OutputError,
    OverloadedError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    StreamBrokenError,
)
from gossamer.events import TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.messages import Citation, ProviderBlock, Refusal, Thinking
from gossamer.models import ModelRequest, ModelResponse, Price
from gossamer.view import MessageView

HI = [Message.user("hi")]


async def respond(server, streamed, **options):
    """What the model makes of the server's answer: the response, and the deltas before it."""
    request = ModelRequest(MessageView(HI, 0, 1), **options)
    async with asyncio.timeout(20):
        if not streamed:
            return await model(server).respond(request), []
        deltas = [delta async for delta in model(server).stream(request)]
    assert isinstance(deltas[-1], ModelResponse)
    return deltas[-1], deltas[:-1]


async def heard(raw, streamed=True):
    async with Server(raw) as server:
        return await respond(server, streamed)


# --- blocks -------------------------------------------------------------------------------------------------


@streamed_and_not
async def test_text_in_several_blocks(streamed):
    response, deltas = await heard(answer(streamed, text("Hel", "lo"), text(), text(" wörld 😀")), streamed)
    assert response.message.parts == (Text("Hello"), Text(" wörld 😀"))
    assert response.message.text == "Hello wörld 😀"
    assert response.model == MODEL
    assert response.finish_reason == "stop"
    if streamed:
        assert deltas == [TextDelta("Hel"), TextDelta("lo"), TextDelta(" wörld 😀")]


@streamed_and_not
async def test_thinking_is_kept_with_its_signature_and_goes_back(streamed):
    redacted = block(type="redacted_thinking", data="ENCRYPTED")
    first = answer(
        streamed,
        thinking("Let me ", "think.", signature="SIGNED"),
        redacted,
        thinking(signature="EMPTY"),
        calls("t", "convert", '{"amount": 1, "rate": 2}'),
        stop="tool_use",
    )
    async with Server(first, say(streamed, "two"), say(streamed, "again")) as server:
        session = Session()
        result, seen = await ask(agent(server, tools=[convert]), "go", streamed, session=session)
        thoughts = [
            part for message in result.messages for part in message.parts if isinstance(part, Thinking)
        ]
        assert [(part.text, part.signed) for part in thoughts] == [
            ("Let me think.", True),
            ("", True),
            ("", True),
        ]
        if streamed:
            assert [event.text for event in seen if isinstance(event, ThinkingDelta)] == ["Let me ", "think."]
        # It goes back in the loop and behind it, also from a session that was stored.
        again = Session.from_export(session.export())
        await ask(agent(server, tools=[convert]), "more", streamed, session=again)
    expected = [
        {"type": "thinking", "thinking": "Let me think.", "signature": "SIGNED"},
        {"type": "redacted_thinking", "data": "ENCRYPTED"},
        {"type": "thinking", "thinking": "", "signature": "EMPTY"},
    ]
    for request in server.requests[1:]:
        assert request.messages[1]["content"][:3] == expected


@streamed_and_not
async def test_thinking_without_a_signature_does_not_go_back(streamed):
    async with Server(answer(streamed, thinking("hm", signature=""), text("yes")), say(streamed)) as server:
        session = Session()
        result, _ = await ask(agent(server), "go", streamed, session=session)
        assert Thinking("hm") in result.messages[-1].parts
        await ask(agent(server), "more", streamed, session=session)
    assert [part["type"] for part in server.requests[1].messages[1]["content"]] == ["text"]


@streamed_and_not
async def test_parallel_calls(streamed):
    one, two = '{"amount": 1, "rate": 2.50}', '{"amount": 3, "rate": 4}'
    said = answer(
        streamed, text("Both."), calls("a", "convert", one), calls("b", "convert", two), stop="tool_use"
    )
    response, deltas = await heard(said, streamed)
    _, first, second = response.message.parts
    assert json.loads(first.arguments) == json.loads(one)
    assert json.loads(second.arguments) == json.loads(two)
    assert (first.provider, second.provider) == (
        {"anthropic_chat": {"id": "a"}},
        {"anthropic_chat": {"id": "b"}},
    )
    assert len({first.id, second.id, "a", "b"}) == 4
    assert response.finish_reason == "tool_calls"
    if streamed:
        assert [delta for delta in deltas if isinstance(delta, ToolCallStarted)] == [
            ToolCallStarted(first.id, "convert"),
            ToolCallStarted(second.id, "convert"),
        ]
        for call, arguments in ((first, one), (second, two)):
            pieces = [d.text for d in deltas if isinstance(d, ToolArgumentsDelta) and d.call_id == call.id]
            assert "".join(pieces) == call.arguments == arguments


async def test_calls_whose_pieces_are_mixed():
    frames = [
        event("content_block_start", index=0, content_block={"type": "tool_use", "id": "a", "name": "f"}),
        event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
        event("content_block_start", index=2, content_block={"type": "tool_use", "id": "b", "name": "g"}),
        event("content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": '{"b":'}),
        event("content_block_delta", index=1, delta={"type": "text_delta", "text": "said"}),
        event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"a":1}'}),
        event("content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": "2}"}),
        event("message_delta", delta={"stop_reason": "tool_use"}),
        event("message_stop"),
    ]
    response, _ = await heard(stream(*frames))
    assert [(call.name, call.arguments) for call in response.message.tool_calls] == [
        ("f", '{"a":1}'),
        ("g", '{"b":2}'),
    ]
    assert response.message.text == "said"


@streamed_and_not
async def test_blocks_of_the_providers_own_tools_are_kept_and_go_back(streamed):
    found = [{"type": "web_search_result", "url": "https://example.org", "encrypted_content": "E"}]
    search = calls("srv", "web_search", '{"query": "cats"}', kind="server_tool_use")
    results = block(type="web_search_tool_result", tool_use_id="srv", content=found)
    unheard = block(type="never_heard_of", depth={"a": [1, None]})
    cited = {
        "type": "web_search_result_location",
        "url": "https://example.org",
        "title": "Cats",
        "encrypted_index": "I",
        "cited_text": "purr",
    }
    said = answer(
        streamed, text("I look. "), search, results, unheard, text("Cats ", "purr.", citations=[cited])
    )
    async with Server(said, say(streamed, "yes")) as server:
        session = Session()
        result, _ = await ask(agent(server), "cats?", streamed, session=session)
        again = Session.from_export(session.export())
        await ask(agent(server), "sure?", streamed, session=again)
    assert result.output == "I look. Cats purr."
    raw = [part.raw for part in result.messages[-1].parts if isinstance(part, ProviderBlock)]
    assert raw == [{**search.start, "input": {"query": "cats"}}, results.whole, unheard.whole]
    (source,) = [part for part in result.messages[-1].parts if isinstance(part, Citation)]
    assert (source.source, source.title, source.quote) == ("https://example.org", "Cats", "purr")
    assert result.output[source.start : source.end] == "Cats purr."
    assert server.requests[1].messages[1]["content"] == [
        {"type": "text", "text": "I look. "},
        *raw,
        {"type": "text", "text": "Cats purr.", "citations": [cited]},
    ]


async def test_an_unknown_block_that_comes_in_pieces_is_kept_whole():
    pieces = [{"type": "compaction_delta", "content": word} for word in ("All ", "so far.")]
    pieces += [
        {"type": "compaction_delta", "content": None, "encrypted_content": "E"},
        {"type": "x", "n": [1]},
    ]
    unheard = Block({}, {"type": "compaction", "content": None}, pieces)
    async with Server(answer(True, unheard, text("Go on.")), say(True, "yes")) as server:
        session = Session()
        await ask(agent(server), "go", streamed=True, session=session)
        await ask(agent(server), "more", streamed=True, session=session)
    assert server.requests[1].messages[1]["content"][0] == {
        "type": "compaction",
        "content": "All so far.",
        "encrypted_content": "E",
        "n": [1],
    }


@streamed_and_not
@pytest.mark.parametrize(
    ("raw", "source"),
    [
        ({"type": "char_location", "document_index": 0, "document_title": "Report"}, "Report"),
        ({"type": "page_location", "document_index": 3, "document_title": None}, "document 3"),
        ({"type": "search_result_location", "source": "kb://7", "title": None}, "kb://7"),
        ({"type": "something_new"}, "document "),
    ],
)
async def test_citations_of_every_kind(streamed, raw, source):
    response, _ = await heard(answer(streamed, text("So."), text("It is.", citations=[raw])), streamed)
    cited = response.message.parts[-1]
    assert (cited.source, cited.start, cited.end) == (source, 3, 9)
    assert cited.provider == {"anthropic_chat": raw}


@streamed_and_not
@pytest.mark.parametrize("blocks", [(), (text(),)], ids=["no block", "an empty block"])
async def test_an_empty_answer(streamed, blocks):
    async with Server(answer(streamed, *blocks), say(streamed, "yes")) as server:
        session = Session()
        result, _ = await ask(agent(server), "hi", streamed, session=session)
        assert result.output == ""
        result, _ = await ask(agent(server), "still there?", streamed, session=session)
    assert result.output == "yes"
    assert server.requests[1].messages[1]["content"] == [{"type": "text", "text": "[empty]"}]


# --- ends and counts ----------------------------------------------------------------------------------------


@streamed_and_not
@pytest.mark.parametrize(
    ("stop", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("never_heard_of", "other"),
    ],
)
async def test_reasons_to_stop(streamed, stop, ours):
    response, _ = await heard(say(streamed, "so", stop=stop), streamed)
    assert response.finish_reason == ours
    assert response.message.text == "so"


async def test_a_server_that_ends_a_turn_with_calls():
    response, _ = await heard(answer(True, calls("t", "f", "{}")))
    assert response.finish_reason == "tool_calls"


@streamed_and_not
async def test_a_refusal_says_why_and_is_not_put_into_the_models_mouth(streamed):
    details = {"type": "refusal", "category": "bio", "explanation": "This looks dangerous."}
    refused = say(streamed, "Well", stop="refusal", details=details)
    async with Server(refused, say(streamed, "fine")) as server:
        session = Session()
        result, _ = await ask(agent(server), "make it", streamed, session=session)
        assert result.output == "Well"
        assert result.finish_reason == "refusal"
        (refusal,) = [part for part in result.messages[-1].parts if isinstance(part, Refusal)]
        assert refusal.text == "This looks dangerous."
        await ask(agent(server), "then not", streamed, session=session)
    assert server.requests[1].messages[1]["content"] == [{"type": "text", "text": "Well"}]
    async with Server(answer(streamed, stop="refusal")) as server:
        with pytest.raises(OutputError, match="refus"):
            await ask(agent(server, output=int), "make it", streamed)


@streamed_and_not
async def test_usage_with_the_cache_and_thinking(streamed):
    usage = {
        "input_tokens": 100,
        "cache_read_input_tokens": 1000,
        "cache_creation_input_tokens": 500,
        "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 200},
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 30},
    }
    price = Price(input=1.0, output=10.0, cached=0.1, cache_write=1.25, cache_write_long=2.0)
    async with Server(say(streamed, "ok", usage=usage)) as server:
        request = ModelRequest(MessageView(HI, 0, 1))
        priced = model(server, price=price)
        if streamed:
            response = [delta async for delta in priced.stream(request)][-1]
        else:
            response = await priced.respond(request)
    dollars = (100 * 1 + 1000 * 0.1 + 300 * 1.25 + 200 * 2 + 50 * 10) / 1e6
    assert response.usage == Usage(
        input_tokens=1600,
        output_tokens=50,
        cached_tokens=1000,
        cache_write_tokens=500,
        reasoning_tokens=30,
        model_calls=1,
        cost=response.usage.cost,
    )
    assert response.usage.cost == pytest.approx(dollars)


async def test_known_models_have_a_price_and_others_say_that_they_have_none():
    async with Server(say(False, "ok")) as server:
        known = await Agent(model(server, "claude-sonnet-4-5")).run("hi")
        other = await Agent(model(server, "never-heard-of")).run("hi")
    assert known.usage.cost > 0
    assert known.usage.unpriced_calls == 0
    assert other.usage.unpriced_calls == 1


# --- errors -------------------------------------------------------------------------------------------------


@streamed_and_not
@pytest.mark.parametrize(
    ("status", "kind", "message", "ours"),
    [
        (400, "invalid_request_error", "messages: at least one message is required", InvalidRequestError),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 210000 tokens > 200000 maximum",
            ContextLengthError,
        ),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit",
            ContextLengthError,
        ),
        (401, "authentication_error", "invalid x-api-key", AuthenticationError),
        (402, "billing_error", "no credit", QuotaExceededError),
        (403, "permission_error", "not for you", AuthenticationError),
        (404, "not_found_error", "model: claude-9", NotFoundError),
        (413, "request_too_large", "too large", ContextLengthError),
        (429, "rate_limit_error", "slow down", RateLimitError),
        (500, "api_error", "oops", ProviderError),
        (504, "timeout_error", "took too long", ModelTimeoutError),
        (529, "overloaded_error", "Overloaded", OverloadedError),
        (418, "never_heard_of", "teapot", InvalidRequestError),
    ],
)
async def test_errors(streamed, status, kind, message, ours):
    async with Server(error(status, kind, message, "retry-after: 3", "request-id: req_7")) as server:
        with pytest.raises(ours) as caught:
            await ask(agent(server), "hi", streamed)
    assert type(caught.value) is ours
    assert caught.value.status == status
    assert caught.value.request_id == "req_7"
    assert caught.value.retry_after == 3
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "ours"),
    [
        ("overloaded_error", OverloadedError),
        ("rate_limit_error", RateLimitError),
        ("api_error", ProviderError),
        ("invalid_request_error", InvalidRequestError),
        ("never_heard_of", ProviderError),
    ],
)
async def test_an_error_in_the_middle_of_a_stream(kind, ours):
    frames = list(events(text("so", " far")))[:5]
    failure = event("error", error={"type": kind, "message": "not now"})
    async with Server(stream(*frames, failure)) as server:
        with pytest.raises(ours, match="not now"):
            await ask(agent(server), "hi", streamed=True)


async def test_an_error_with_the_status_of_a_success():
    said = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    for streamed in (False, True):
        async with Server(http(said)) as server:
            with pytest.raises(OverloadedError, match="busy"):
                await ask(agent(server), "hi", streamed)


@streamed_and_not
@pytest.mark.parametrize(
    "said",
    [
        http(b"<html>Bad gateway</html>", kind="text/html"),
        http(b""),
        http(b"[]"),
        http(b'{"type": "message"}'),
        http(b'{"content": 5}'),
        http(b'{"content": [5]}'),
        http(b'{"content": [{"type": "text", "text": 5}]}'),
        http(b'{"content": ' + b"[" * 100_000),
        http(b'{"content": [], "usage": "many"}'),
    ],
    ids=range(9),
)
async def test_answers_that_are_none(streamed, said):
    async with Server(said) as server:
        with pytest.raises(InvalidResponseError):
            await ask(agent(server), "hi", streamed)


@pytest.mark.parametrize(
    "said",
    [
        b"data: {not JSON\n\n",
        b"data: []\n\n",
        b'data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 5}}\n\n',
        b'data: {"type": "content_block_delta", "index": "0"}\n\n',
        b'data: {"type": "content_block_start", "index": 0, "content_block": 5}\n\n',
        b'data: {"type": "content_block_start", "index": 0}\n\n',
        b"data: \xff\xfe\n\n",
    ],
    ids=range(7),
)
async def test_events_that_are_none(said):
    async with Server(stream(*list(events(text("so")))[:4], said)) as server:
        with pytest.raises(InvalidResponseError):
            await ask(agent(server), "hi", streamed=True)


async def test_unknown_events_are_passed_over_and_counted(caplog):
    frames = [
        event("never_heard_of", index=0, delta={"more": 1}),
        *list(events(text("fi", "ne")))[:4],
        event("content_block_delta", index=0, delta={"type": "new_delta", "more": [1]}),
        event("content_block_delta", index=7, delta={"type": "input_json_delta", "partial_json": "{"}),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": ""}),
        *list(events(text("fi", "ne")))[4:],
    ]
    with caplog.at_level(logging.DEBUG, logger="gossamer"):
        response, _ = await heard(stream(*frames))
    assert response.message.parts == (Text("fine"),)
    told = " ".join(record.getMessage() for record in caplog.records)
    for kind in ("never_heard_of", "new_delta", "input_json_delta"):
        assert kind in told


# --- the official client ------------------------------------------------------------------------------------


@streamed_and_not
async def test_the_official_client_reads_these_answers_alike(streamed):
    """What the answers of these tests look like is none of our inventions."""
    cited = {
        "type": "char_location",
        "cited_text": "it is so",
        "document_index": 0,
        "document_title": "Report",
        "start_char_index": 0,
        "end_char_index": 8,
    }
    said = (
        thinking("Let me ", "see."),
        block(type="redacted_thinking", data="ENCRYPTED"),
        text("So it ", "is.", citations=[cited]),
        calls("srv", "web_search", '{"query": "cats"}', kind="server_tool_use"),
        calls("toolu_1", "convert", '{"amount": 20, "rate": 1.1}'),
    )
    asked = {"model": "claude-test", "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]}
    async with Server(answer(streamed, *said, stop="tool_use")) as server:
        ours, _ = await respond(server, streamed)
        async with anthropic.AsyncAnthropic(
            base_url=f"http://127.0.0.1:{server.port}", api_key="k", max_retries=0
        ) as client:
            if streamed:
                async with client.messages.stream(**asked) as stream_:
                    theirs = await stream_.get_final_message()
            else:
                theirs = await client.messages.create(**asked)
    thought, redacted, words, source, search, call = ours.message.parts
    assert [part.type for part in theirs.content] == [
        "thinking",
        "redacted_thinking",
        "text",
        "server_tool_use",
        "tool_use",
    ]
    first, second, third, fourth, fifth = theirs.content
    assert (thought.text, thought.provider["anthropic_chat"]["signature"]) == (
        first.thinking,
        first.signature,
    )
    assert redacted.provider["anthropic_chat"] == {"data": second.data}
    assert (words.text, source.quote) == (third.text, third.citations[0].cited_text)
    assert search.raw["input"] == fourth.input
    assert (call.name, json.loads(call.arguments)) == (fifth.name, fifth.input)
    assert theirs.stop_reason == "tool_use"
    assert (ours.usage.input_tokens, ours.usage.output_tokens) == (
        theirs.usage.input_tokens,
        theirs.usage.output_tokens,
    )


# --- cuts ---------------------------------------------------------------------------------------------------

WORDY = (thinking("Hm ", "é."), text("Grüße ", "😀", " done"), calls("t", "convert", '{"amount": 1}'))


async def test_an_answer_cut_at_every_byte_is_the_same():
    body = b"".join(events(*WORDY, stop="tool_use"))
    expected, deltas = await heard(stream(body))

    async def speak(connection, request):
        await connection.send(STREAM_HEAD, *(chunk(body[n : n + 1]) for n in range(len(body))), LAST_CHUNK)

    response, seen = await heard(speak)
    assert response.message.text == expected.message.text == "Grüße 😀 done"
    assert response.message.tool_calls[0].arguments == '{"amount": 1}'
    assert response.usage == expected.usage
    assert [type(delta) for delta in seen] == [type(delta) for delta in deltas]


async def test_each_event_in_a_packet_of_its_own():
    response, deltas = await heard(in_packets(text(*"abc")))
    assert response.message.text == "abc"
    assert deltas == [TextDelta("a"), TextDelta("b"), TextDelta("c")]


async def test_a_stream_that_ends_anywhere_tells_what_arrived():
    frames = list(events(text("one ", "two ", "three")))
    ends = len(frames) - 2  # with the reason to stop, all is said
    for count in range(ends + 2):
        async with Server(Close(stream(*frames[:count]) if count else STREAM_HEAD + LAST_CHUNK)) as server:
            if count > ends:
                assert (await respond(server, streamed=True))[0].message.text == "one two three"
                continue
            with pytest.raises(StreamBrokenError) as caught:
                await respond(server, streamed=True)
        assert caught.value.text == "".join(["one ", "two ", "three"][: max(count - 3, 0)])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_stream_broken_at_any_byte_is_a_typed_error(data):
    body = b"".join(events(*WORDY, stop="tool_use"))
    stop = data.draw(st.integers(0, body.index(b'"message_delta"') - 1))

    async def main():
        async with Server(Close(STREAM_HEAD + chunk(body[:stop] or b"\n"))) as server:
            with pytest.raises(StreamBrokenError) as caught:
                await respond(server, streamed=True)
        assert "Grüße 😀 done".startswith(caught.value.text)

    asyncio.run(main())


@given(st.lists(st.text(min_size=1), max_size=8))
@settings(max_examples=25, deadline=None)
def test_any_text_arrives(pieces):
    async def main():
        response, _ = await heard(answer(True, text(*pieces)))
        assert response.message.text == "".join(pieces)

    asyncio.run(main())


# --- in the loop --------------------------------------------------------------------------------------------


@streamed_and_not
async def test_a_failed_call_is_marked_as_an_error(streamed):
    @tool(inline=True)
    def never() -> str:
        """Fail."""
        raise ModelRetry("try something else")

    async with Server(
        answer(streamed, calls("t", "never", "{}"), stop="tool_use"), say(streamed, "ok")
    ) as server:
        await ask(agent(server, tools=[never]), "go", streamed)
    (result,) = server.requests[1].messages[-1]["content"]
    assert result["is_error"] is True
    assert "try something else" in result["content"]


async def test_broken_arguments_go_back_in_an_object():
    broken = answer(True, calls("t", "convert", '{"amount": '), stop="tool_use")
    async with Server(broken, say(True, "sorry")) as server:
        await ask(agent(server, tools=[convert]), "go", streamed=True)
    called, (result,) = (message["content"] for message in server.requests[1].messages[1:])
    assert called[0]["input"] == {"_raw": '{"amount": '}
    assert result["tool_use_id"] == called[0]["id"] == "t"
    assert result["is_error"] is True


async def test_an_account_without_credit_is_no_wrong_request():
    words = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
    async with Server(error(400, "invalid_request_error", words)) as server:
        with pytest.raises(QuotaExceededError, match="waiting does not help"):
            await agent(server).run("hi")
