"""The contract of models: every dialect through the same cases, on real sockets against the simulator."""

from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest
from tests.integration.asking import ask, convert
from tests.integration.dialects.contract import (
    DIALECTS,
    conversation_of,
    each_dialect,
    model_of,
    sent,
    simulator,
    streamed_and_not,
)

from gossamer import Agent, Limits, Message, Session, Text, ToolCall, tool
from gossamer.errors import (
    ArgumentError,
    AuthenticationError,
    ContextLengthError,
    InvalidRequestError,
    InvalidResponseError,
    ModelConnectionError,
    ModelTimeoutError,
    NotFoundError,
    OutputError,
    OverloadedError,
    ProviderError,
    RateLimitError,
    StreamBrokenError,
)
from gossamer.events import TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.messages import File, Image, Thinking, ToolResult
from gossamer.models import (
    AnthropicChat,
    Capabilities,
    FallbackModel,
    GeminiChat,
    ModelRequest,
    ModelSettings,
    RetryModel,
)
from gossamer.view import EncodedMessages, MessageView

__all__ = ["sent"]

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
TWO_CALLS = 'call convert {"amount": 2, "rate": 3}\ncall convert {"amount": 4, "rate": 5}'


class Quote(msgspec.Struct):
    """A price."""

    amount: float
    currency: str


# --- answers ------------------------------------------------------------------------------------------------


@each_dialect
@streamed_and_not
async def test_text(dialect, streamed):
    async with simulator() as server:
        result, events = await ask(
            Agent(model_of(dialect, server), "Be brief."), "Tëst 😀 of\nlines", streamed
        )
    assert result.output == "You said: Tëst 😀 of\nlines"
    assert result.finish_reason == "stop"
    assert result.usage.input_tokens > 0
    assert result.usage.output_tokens > 0
    assert result.usage.model_calls == 1
    if streamed:
        texts = [event.text for event in events if isinstance(event, TextDelta)]
        assert len(texts) > 1
        assert "".join(texts) == result.output


@each_dialect
@streamed_and_not
async def test_an_empty_reply(dialect, streamed):
    async with simulator({"text": ""}, "again") as server:
        agent = Agent(model_of(dialect, server))
        session = Session()
        result, _ = await ask(agent, "hi", streamed, session=session)
        assert result.output == ""
        # What said nothing must not make the next request invalid.
        result, _ = await ask(agent, "well?", streamed, session=session)
    assert result.output == "again"


@each_dialect
@streamed_and_not
async def test_parallel_tools(dialect, streamed, sent):
    async with simulator() as server:
        result, events = await ask(Agent(model_of(dialect, server), tools=[convert]), TWO_CALLS, streamed)
    assert result.output == "convert returned: 6.0\nconvert returned: 20.0"
    calls = [part for message in result.messages for part in message.parts if isinstance(part, ToolCall)]
    assert [msgspec.json.decode(call.arguments) for call in calls] == [
        {"amount": 2, "rate": 3},
        {"amount": 4, "rate": 5},
    ]
    assert len({call.id for call in calls}) == 2
    assert result.usage.model_calls == 2
    assert len(sent) == 2
    if streamed:
        started = [event for event in events if isinstance(event, ToolCallStarted)]
        assert [event.call_id for event in started] == [call.id for call in calls]
        for call in calls:
            pieces = [
                event.text
                for event in events
                if isinstance(event, ToolArgumentsDelta) and event.call_id == call.id
            ]
            assert msgspec.json.decode("".join(pieces)) == msgspec.json.decode(call.arguments)


@each_dialect
@streamed_and_not
async def test_a_forced_tool_is_forced_once(dialect, streamed):
    async with simulator() as server:
        agent = Agent(
            model_of(dialect, server), tools=[convert], settings=ModelSettings(tool_choice="convert")
        )
        result, _ = await ask(agent, 'call convert {"amount": 1, "rate": 2}', streamed)
    if dialect != "ollama_chat":  # which knows no choice of tools
        assert result.usage.tool_calls == 1
    assert result.finish_reason == "stop"


@each_dialect
@streamed_and_not
@pytest.mark.parametrize("native", [True, False], ids=["native", "by tool"])
async def test_structured_output(dialect, streamed, native):
    options = {"capabilities": Capabilities(native_schema=native)}
    replies = () if native else ({"tool": "final_answer", "arguments": {"amount": 0.0, "currency": "text"}},)
    async with simulator(*replies) as server:
        agent = Agent(model_of(dialect, server, **options), output=Quote)
        result, _ = await ask(agent, "a quote", streamed)
    assert result.output == Quote(0.0, "text")
    assert not result.messages[-1].tool_calls


@each_dialect
@streamed_and_not
async def test_an_answer_that_never_fits(dialect, streamed):
    async with simulator("no JSON", "nor this") as server:
        agent = Agent(model_of(dialect, server), output=Quote)
        with pytest.raises(OutputError) as caught:
            await ask(agent, "a quote", streamed)
    assert caught.value.text == "nor this"


@each_dialect
@streamed_and_not
async def test_thinking_goes_back_in_its_tool_loop(dialect, streamed):
    # The simulator refuses a loop whose signed thinking is missing or changed, as the providers do.
    replies = (
        {
            "when": "convert",
            "thinking": "I should convert.",
            "tool": "convert",
            "arguments": {"amount": 2, "rate": 3},
        },
        {"when": "convert", "thinking": "Now I know.", "text": "six"},
        {"when": "more", "text": "and more"},
    )
    async with simulator(*replies) as server:
        agent = Agent(model_of(dialect, server), tools=[convert], settings=ModelSettings(thinking="high"))
        session = Session()
        result, events = await ask(agent, "convert it", streamed, session=session)
        assert result.output == "six"
        thoughts = [
            part.text for message in result.messages for part in message.parts if isinstance(part, Thinking)
        ]
        assert thoughts == ["I should convert.", "Now I know."]
        if streamed:
            shown = "".join(event.text for event in events if isinstance(event, ThinkingDelta))
            assert shown == "I should convert.Now I know."
        result, _ = await ask(agent, "more", streamed, session=session)
        assert result.output == "and more"
        # The journal keeps what belongs to the provider, through JSON and back.
        again = Session.from_export(session.export())
        result, _ = await ask(agent, "more", streamed, session=again)
    assert result.output == "and more"


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
@pytest.mark.parametrize(
    ("kind", "name", "has_effort"),
    [
        (AnthropicChat, "claude-3-7-sonnet-20250219", False),
        (AnthropicChat, "claude-sonnet-4-20250514", False),
        (AnthropicChat, "claude-haiku-4-5-20251001", False),
        (AnthropicChat, "claude-sonnet-4-6", True),
        (AnthropicChat, "claude-haiku-5-5", True),
        (GeminiChat, "gemini-2.5-flash", False),
        (GeminiChat, "gemini-3.8-flash", True),
    ],
)
async def test_a_word_for_thinking_fits_every_model(kind, name, has_effort, effort, sent):
    """Older models think on a budget of tokens alone; the simulator refuses what each one does not take."""
    reply = {"thinking": "Hm.", "text": "so"}
    async with simulator(reply) as server:
        model = kind(name, base_url=server.url.removesuffix("/v1"), api_key="k")
        result = await Agent(model, settings=ModelSettings(thinking=effort)).run("hi")
    assert result.output == "so"
    assert [part.text for part in result.messages[-1].parts if isinstance(part, Thinking)] == ["Hm."]
    assert (effort in str(sent[0]).lower()) is has_effort


@each_dialect
@streamed_and_not
async def test_media(dialect, streamed, sent):
    prompt = [Text("Look:"), Image(data=PNG), File(data=b"%PDF-1.7 x", name="a.pdf")]
    async with simulator() as server:
        result, _ = await ask(Agent(model_of(dialect, server)), prompt, streamed)
    assert result.output == "You said: Look:" or dialect == "ollama_chat"
    assert "iVBORw0KGgo" in str(sent[0])
    if dialect == "ollama_chat":  # takes no documents, and says so to the model
        assert "application/pdf" in str(sent[0])
    else:
        assert "JVBERi0xLjcgeA==" in str(sent[0])


@each_dialect
@streamed_and_not
async def test_a_tools_picture_reaches_the_model(dialect, streamed, sent):
    @tool(inline=True)
    def draw() -> Image:
        """Draw."""
        return Image(data=PNG)

    async with simulator({"tool": "draw"}, "nice") as server:
        result, _ = await ask(Agent(model_of(dialect, server), tools=[draw]), "draw", streamed)
    assert result.output == "nice"
    assert "iVBORw0KGgo" in str(sent[1])


@each_dialect
@streamed_and_not
async def test_cached_tokens_are_counted(dialect, streamed):
    async with simulator() as server:
        settings = ModelSettings(prompt_cache="5m") if dialect == "anthropic_chat" else None
        agent = Agent(model_of(dialect, server), "Be brief. " * 50, settings=settings)
        session = Session()
        first, _ = await ask(agent, "one " * 100, streamed, session=session)
        second, _ = await ask(agent, "two", streamed, session=session)
    assert first.usage.cached_tokens == 0
    if dialect != "ollama_chat":  # which does not tell
        assert 0 < second.usage.cached_tokens < second.usage.input_tokens
    assert second.usage.input_tokens > first.usage.input_tokens


@each_dialect
@streamed_and_not
@pytest.mark.parametrize(
    ("finish", "ours"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("refusal", "refusal")],
)
async def test_stop_reasons(dialect, streamed, finish, ours):
    async with simulator({"text": "so far", "finish": finish}) as server:
        result, _ = await ask(Agent(model_of(dialect, server)), "hi", streamed)
    unknown = {
        ("openai_chat", "refusal"),  # a part of its own there, not a reason
        ("anthropic_chat", "content_filter"),
        ("gemini_chat", "refusal"),
        ("ollama_chat", "content_filter"),
        ("ollama_chat", "refusal"),
        ("openai_responses", "refusal"),
    }
    if (dialect, finish) not in unknown:
        assert result.finish_reason == ours
    if (dialect, finish, streamed) != (
        "gemini_chat",
        "content_filter",
        False,
    ):  # which then takes it all back
        assert result.output == "so far"


@each_dialect
@streamed_and_not
async def test_max_tokens_cut_the_answer(dialect, streamed):
    async with simulator() as server:
        agent = Agent(model_of(dialect, server), settings=ModelSettings(max_tokens=20))
        result, _ = await ask(agent, "one two three four five six " * 5, streamed)
    assert result.finish_reason == "length"
    assert result.usage.output_tokens == 20


@each_dialect
async def test_a_token_limit_is_hard(dialect):
    async with simulator(chunks=10_000) as server:
        agent = Agent(model_of(dialect, server), limits=Limits(max_tokens=500))
        result = await agent.run("hello")
    assert result.finish_reason == "length"
    assert result.usage.total_tokens <= 500


# --- failures -----------------------------------------------------------------------------------------------


@each_dialect
@streamed_and_not
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, NotFoundError),
        (413, ContextLengthError),
        (429, RateLimitError),
        (500, ProviderError),
        (503, OverloadedError),
    ],
)
async def test_errors_of_the_provider(dialect, streamed, status, kind):
    async with simulator({"error": status, "retry_after": 1.5, "message": "not now"}) as server:
        with pytest.raises(kind) as caught:
            await ask(Agent(model_of(dialect, server)), "hi", streamed)
    error = caught.value
    assert type(error) is kind
    assert error.status == status
    assert "not now" in str(error)
    if status == 429:
        assert error.retry_after == pytest.approx(1.5, abs=0.51)


@each_dialect
@pytest.mark.parametrize("fault", ["reset", "close", "half_frame"])
async def test_a_stream_that_breaks_tells_what_arrived(dialect, fault):
    async with simulator({"text": "one two three four five six", "fault": fault, "after": 3}) as server:
        session = Session()
        with pytest.raises(StreamBrokenError) as caught:
            await ask(Agent(model_of(dialect, server)), "hi", streamed=True, session=session)
        assert caught.value.text
        assert "one two three four five six".startswith(caught.value.text)
        # The session goes on, and what was finished stays in it.
        assert session.messages[-1].text == caught.value.text


@each_dialect
@pytest.mark.parametrize("fault", ["reset", "close", "half_frame"])
async def test_a_whole_answer_that_breaks(dialect, fault):
    async with simulator({"text": "one two three", "fault": fault}) as server:
        with pytest.raises((ModelConnectionError, StreamBrokenError)):
            await Agent(model_of(dialect, server)).run("hi")


@each_dialect
@streamed_and_not
async def test_malformed_json(dialect, streamed):
    async with simulator({"text": "one two three", "fault": "malformed"}) as server:
        with pytest.raises(InvalidResponseError):
            await ask(Agent(model_of(dialect, server)), "hi", streamed)


@each_dialect
@streamed_and_not
async def test_silence(dialect, streamed):
    async with simulator({"text": "one two three", "fault": "stall"}) as server:
        agent = Agent(model_of(dialect, server), settings=ModelSettings(timeout=0.05))
        with pytest.raises((ModelTimeoutError, StreamBrokenError)):
            await ask(agent, "hi", streamed)


@each_dialect
async def test_an_unknown_frame_is_passed_over(dialect):
    async with simulator({"text": "one two three four", "fault": "unknown_frame", "after": 2}) as server:
        result, _ = await ask(Agent(model_of(dialect, server)), "hi", streamed=True)
    assert result.output == "one two three four"


@each_dialect
async def test_cancelling_a_stream_closes_its_connection(dialect):
    async with simulator(chunks=10_000, tps=1000) as server:
        agent = Agent(model_of(dialect, server))
        async with agent.stream("hi") as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    break
        async with asyncio.timeout(10):
            while server.stats.streams:
                await asyncio.sleep(0.01)
        assert server.stats.disconnects == 1


# --- history ------------------------------------------------------------------------------------------------


@each_dialect
@streamed_and_not
async def test_any_history_is_taken(dialect, streamed):
    """Whatever a user put together, and the provider checks: neighbours of one role, a system message in the middle."""
    session = Session()
    session.add(Message.user("one", author="Ann B."))
    session.add(Message.user("two"))
    session.add(Message.assistant("three"))
    session.add(Message.assistant(""))
    session.add(Message.system("From now on in French."))
    async with simulator() as server:
        result, _ = await ask(
            Agent(model_of(dialect, server), "Be brief."), "four", streamed, session=session
        )
    assert "four" in result.output


@each_dialect
async def test_a_view_may_begin_with_an_answer(dialect):
    session = Session()
    session.add(Message.assistant("Welcome!"))
    async with simulator() as server:
        result = await Agent(model_of(dialect, server)).run("thanks", session=session)
    assert "thanks" in result.output


@each_dialect
async def test_arguments_that_are_no_json_go_back_and_stay_sayable(dialect):
    replies = (
        {"when": "go", "tool": "convert", "arguments": "{broken"},
        {"when": "go", "tool": "convert", "arguments": {"amount": 2, "rate": 3}},
        {"when": "go", "text": "six"},
    )
    if dialect in {"gemini_chat", "ollama_chat"}:
        pytest.skip("arguments are objects on this wire, never text")
    async with simulator(*replies) as server:
        result = await Agent(model_of(dialect, server), tools=[convert]).run("go")
    assert result.output == "six"
    outcomes = [
        part.outcome for message in result.messages for part in message.parts if isinstance(part, ToolResult)
    ]
    assert outcomes == ["error", "ok"]


@each_dialect
async def test_the_beginning_of_a_request_stays_as_it_was(dialect, sent):
    """A provider's prompt cache goes by the beginning: it may only grow at the end, cache marks apart."""
    replies = (
        {"when": "first", "thinking": "Hm.", "tool": "convert", "arguments": {"amount": 2, "rate": 3}},
        {"when": "first", "text": "six"},
        {"when": "second", "tool": "convert", "arguments": {"amount": 4, "rate": 5}},
        {"when": "second", "text": "twenty"},
        {"when": "third", "text": "done"},
    )
    settings = ModelSettings(prompt_cache="5m") if dialect == "anthropic_chat" else None
    async with simulator(*replies) as server:
        agent = Agent(model_of(dialect, server), "Be brief.", tools=[convert], settings=settings)
        session = Session()
        for question in ("first", "second", "third"):
            await agent.run(question, session=session)
    assert len(sent) == 5
    said = [conversation_of(dialect, body) for body in sent]
    for earlier, later in itertools.pairwise(said):
        assert later[: len(earlier)] == earlier
        assert len(later) > len(earlier)
    for body in sent[1:]:
        fixed = {
            key: value
            for key, value in body.items()
            if key in {"tools", "system", "instructions", "systemInstruction"}
        }
        assert fixed == {key: sent[0][key] for key in fixed}


@each_dialect
async def test_each_message_is_encoded_once(dialect, monkeypatch):
    encoded = []
    bodies = EncodedMessages.bodies

    def count(self, messages, start, stop, encode):
        def counted(message, previous):
            encoded.append(message)
            return encode(message, previous)

        return bodies(self, messages, start, stop, counted)

    monkeypatch.setattr(EncodedMessages, "bodies", count)
    async with simulator() as server:
        agent = Agent(model_of(dialect, server), tools=[convert])
        session = Session()
        for number in range(10):
            await agent.run(f"question {number}", session=session)
        await agent.run(TWO_CALLS, session=session)
    assert len(session.messages) == 24
    # Every message but the last answer has been sent.
    assert len(encoded) == 23
    assert encoded == list(session.messages[:23])


# --- two providers in one session ---------------------------------------------------------------------------

PAIRS = [(one, other) for one in DIALECTS for other in DIALECTS if one != other]


@pytest.mark.parametrize(("one", "other"), PAIRS)
async def test_a_session_moves_between_providers_and_back(one, other, sent):
    replies = (
        {
            "when": "first",
            "thinking": "Hm.",
            "text": "Let me see.",
            "tools": [
                {"tool": "convert", "arguments": {"amount": 2, "rate": 3}},
                {"tool": "convert", "arguments": {"amount": 4, "rate": 5}},
            ],
        },
        {"when": "first", "thinking": "Aha.", "text": "6 and 20"},
        {"when": "second", "thinking": "More.", "tool": "convert", "arguments": {"amount": 1, "rate": 7}},
        {"when": "second", "text": "7"},
        {"when": "third", "text": "bye"},
    )
    settings = ModelSettings(thinking="high")
    async with simulator(*replies) as server:
        first = Agent(model_of(one, server), tools=[convert], settings=settings)
        second = Agent(model_of(other, server), tools=[convert], settings=settings)
        session = Session()
        await first.run([Text("first"), Image(data=PNG)], session=session)
        result = await second.run("second", session=session)
        assert result.output == "7"
        result = await first.run("third", session=session)
        assert result.output == "bye"
        assert (await second.run("third", session=session)).output == "bye"
    # Both were told all that was said, by whomever.
    for body in sent[-2:]:
        whole = str(body)
        for words in ("Let me see.", "6 and 20", "6.0", "20.0", "7.0", "second", "third", "iVBORw0KGgo"):
            assert words in whole
    # And what belongs to one provider went to it alone.
    for body, dialect in zip(sent, (one, one, other, other, one, other), strict=True):
        assert "Hm." not in str(body) or dialect == one or "thinking" not in str(body)


@each_dialect
async def test_a_tools_picture_that_cannot_be_shown_is_told(dialect, sent):
    """Nobody could mend it: as an error it would end every run from then on."""

    @tool(inline=True)
    def draw() -> Image:
        """Draw."""
        return Image(data=b"II*\0", media_type="image/tiff")

    async with simulator({"tool": "draw"}, "nice") as server:
        agent = Agent(model_of(dialect, server), tools=[draw])
        if dialect.startswith("openai"):  # only OpenAI itself is known to refuse it
            pytest.skip("another server may take it")
        assert (await agent.run("draw")).output == "nice"
    assert "image/tiff, that this provider cannot show" in str(sent[1])


@each_dialect
@pytest.mark.parametrize("data", [b"", b"II*\0"], ids=["empty", "type"])
async def test_a_users_picture_that_cannot_be_shown_is_refused(dialect, data):
    async with simulator() as server:
        model = model_of(dialect, server)
        if dialect.startswith("openai"):
            pytest.skip("another server may take it")
        with pytest.raises(ArgumentError, match="image"):
            await Agent(model).run([Image(data=data, media_type="image/tiff")])


@each_dialect
async def test_two_system_messages_beside_instructions(dialect, sent):
    session = Session()
    session.add(Message.system("Speak French."))
    session.add(Message.system("Be polite."))
    async with simulator() as server:
        await Agent(model_of(dialect, server), "Be brief.").run("hi", session=session)
    said = str(sent[0])
    places = [said.index(words) for words in ("Speak French.", "Be polite.", "hi'")]
    assert places == sorted(places)
    assert "Be brief." in said


@each_dialect
async def test_text_that_is_none(dialect):
    """Half of a character, as a careless `errors="surrogateescape"` leaves it."""
    async with simulator() as server:
        model = model_of(dialect, server)
        late = Message("tool", (ToolResult("gone", "convert", "\udc80"),))
        for messages, instructions in (
            ([Message.user("\ud800")], None),
            ([Message.user("hi")], "Be \udc80 brief."),
            ([late, Message.user("hi")], None),
        ):
            request = ModelRequest(MessageView(messages, 0, len(messages)), instructions)
            with pytest.raises(ArgumentError, match="no text"):
                await model.respond(request)
        encodings = {}
        view = MessageView([Message.user("hi"), late, Message.user("ho")], 1, 3, encodings)
        with pytest.raises(ArgumentError, match="no text"):
            await model.respond(ModelRequest(view))


@each_dialect
async def test_calls_and_results_that_lost_each_other(dialect, sent):
    """As a middleware that trims without care leaves them."""
    call = ToolCall("convert", '{"amount":1,"rate":2}', "a")
    messages = [
        Message("assistant", (Text("one"), call, msgspec.structs.replace(call, arguments="{}"))),
        Message("tool", (ToolResult("a", "convert", "two"), ToolResult("z", "gone", "three"))),
        Message.user("four"),
        Message("tool", (ToolResult("a", "convert", "five"),)),
        Message("assistant", (call,)),
    ]
    async with simulator() as server:
        await model_of(dialect, server).respond(ModelRequest(MessageView(messages, 0, 5)))
        before = sent[0]
        await model_of(dialect, server).respond(ModelRequest(MessageView(messages, 0, 5)))
    assert sent[1] == before
    said = str(before)
    places = [said.index(words) for words in ("one", "'two'", "no result", "three", "four", "five")]
    assert places == sorted(places)
    assert said.count("no result") == 2


@pytest.mark.parametrize("dialect", ["anthropic_chat", "gemini_chat"])
async def test_a_tool_that_there_is_not_by_a_name_that_cannot_be(dialect, sent):
    replies = ({"when": "go", "tool": "convért it!", "arguments": {}}, {"when": "go", "text": "done"})
    async with simulator(*replies) as server:
        result = await Agent(model_of(dialect, server), tools=[convert]).run("go")
    assert result.output == "done"
    assert ("conv_rt_it_" if dialect == "anthropic_chat" else "convért it!") in str(sent[1])


@each_dialect
@pytest.mark.parametrize("wrap", [None, RetryModel, FallbackModel])
async def test_a_limit_ends_as_a_limit_however_little_is_left(dialect, wrap):
    """OpenAI's Responses refuses to be asked for fewer than 16 tokens."""
    outcomes = set()
    async with simulator(chunks=10_000) as server:
        model = model_of(dialect, server)
        model = wrap(model) if wrap else model
        for left in range(1, 60, 3):
            result = await Agent(model, limits=Limits(max_tokens=left)).run("hi")
            outcomes.add(result.finish_reason)
            assert result.usage.total_tokens <= left
    assert "length" in outcomes
    assert len(outcomes) == 2
