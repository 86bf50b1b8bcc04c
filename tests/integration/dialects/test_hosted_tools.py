"""Tools that providers run: declared, forced, called in the answer, and sent back, in each dialect over HTTP."""

from __future__ import annotations

import re

import anthropic
import openai
import pytest
from google import genai
from tests.integration.asking import ask
from tests.integration.dialects import anthropic_voice as voice
from tests.integration.dialects.contract import (
    MODELS,
    conversation_of,
    model_of,
    sent,
    simulator,
    streamed_and_not,
)
from tests.integration.server import Server, stream

from gossamer import Agent, HostedTool, Limits, Message, Session, tool
from gossamer.errors import ArgumentError, LimitError
from gossamer.limits import bound_messages
from gossamer.messages import Citation, ProviderBlock, Text
from gossamer.models import (
    AnthropicChat,
    AzureOpenAIChat,
    CachedModel,
    GeminiChat,
    ModelSettings,
    OllamaChat,
    OpenAIChat,
    OpenAIResponses,
)
from gossamer.schema import Output

__all__ = ["sent"]

SEARCH = HostedTool("web_search")
CODE = HostedTool("code_execution")
PAGES = [{"url": "https://a.example", "title": "A"}, {"url": "https://b.example", "title": "B"}]

# Those that run tools on their side, and what they run.
HOSTS = {
    "openai_responses": (SEARCH, CODE),
    "anthropic_chat": (SEARCH, CODE),
    "gemini_chat": (SEARCH, CODE),
    "openai_chat": (SEARCH,),
}
each_host = pytest.mark.parametrize("dialect", HOSTS)


@tool(inline=True)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def blocks_of(message, dialect):
    return [part.raw for part in message.parts if isinstance(part, ProviderBlock) and part.dialect == dialect]


# --- declared -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "hosted", "declared"),
    [
        ("openai_responses", SEARCH, {"type": "web_search"}),
        ("openai_responses", CODE, {"type": "code_interpreter", "container": {"type": "auto"}}),
        (
            "openai_responses",
            HostedTool("code_execution", {"container": "cntr_1"}),
            {"type": "code_interpreter", "container": "cntr_1"},
        ),
        (
            "openai_responses",
            HostedTool("file_search", {"vector_store_ids": ["vs_1"]}),
            {"type": "file_search", "vector_store_ids": ["vs_1"]},
        ),
        ("anthropic_chat", SEARCH, {"type": "web_search_20250305", "name": "web_search"}),
        ("anthropic_chat", CODE, {"type": "code_execution_20250825", "name": "code_execution"}),
        (
            "anthropic_chat",
            HostedTool("web_search", {"type": "web_search_20260318", "max_uses": 2}),
            {"type": "web_search_20260318", "name": "web_search", "max_uses": 2},
        ),
        (
            "anthropic_chat",
            HostedTool("web_fetch_20250910", {"max_uses": 1}),
            {"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 1},
        ),
        ("gemini_chat", SEARCH, {"googleSearch": {}}),
        ("gemini_chat", CODE, {"codeExecution": {}}),
        ("gemini_chat", HostedTool("urlContext"), {"urlContext": {}}),
    ],
)
async def test_a_declaration(dialect, hosted, declared, sent):
    async with simulator() as served:
        model = model_of(dialect, served)
        await Agent(model, tools=[hosted]).run("hi")
        await Agent(model, tools=[hosted, add]).run("hi")
    assert sent[0]["tools"] == [declared]
    assert len(sent[1]["tools"]) == 2
    assert sent[1]["tools"][1] == declared
    assert ("toolConfig" in sent[1]) is (dialect == "gemini_chat")


async def test_the_search_of_chat_completions_is_a_field(sent):
    options = {"search_context_size": "low"}
    async with simulator() as served:
        model = model_of("openai_chat", served)
        await Agent(model, tools=[HostedTool("web_search", options), add]).run("hi")
        await Agent(model, tools=[SEARCH]).run(
            "hi", settings=ModelSettings(tool_choice="web_search", parallel_tool_calls=True)
        )
        await Agent(model, tools=[SEARCH]).run("hi", settings=ModelSettings(tool_choice="none"))
    assert sent[0]["web_search_options"] == options
    assert [one["function"]["name"] for one in sent[0]["tools"]] == ["add"]
    assert sent[1]["web_search_options"] == {}
    assert sent[1].keys().isdisjoint({"tools", "tool_choice", "parallel_tool_calls"})
    assert "web_search_options" not in sent[2]


async def test_what_the_code_printed_is_asked_for(sent):
    async with simulator() as served:
        model = model_of("openai_responses", served)
        await Agent(model, tools=[CODE]).run("hi")
        await Agent(model, tools=[SEARCH]).run("hi")
    assert sent[0]["include"] == ["reasoning.encrypted_content", "code_interpreter_call.outputs"]
    assert sent[1]["include"] == ["reasoning.encrypted_content"]


async def test_other_servers_of_chat_completions_take_types_of_their_own(sent):
    async with simulator() as served:
        model = OpenAIChat("m", base_url=served.url, api_key="k", provider="elsewhere")
        with pytest.raises(Exception, match="Unsupported tool type 'browser'"):
            await Agent(model, tools=[HostedTool("browser", {"depth": 2}), add]).run("hi")
    assert sent[0]["tools"][1] == {"type": "browser", "depth": 2}


@pytest.mark.parametrize(
    ("model", "hosted", "says"),
    [
        (
            OllamaChat("m", base_url="http://127.0.0.1:9"),
            SEARCH,
            "model 'm' (ollama_chat) cannot have the hosted",
        ),
        (
            OpenAIChat("m", api_key="k"),
            CODE,
            "'code_execution': openai does not document it for Chat Completions",
        ),
        (OpenAIChat("m", api_key="k"), HostedTool("mcp"), "use OpenAIResponses"),
        (
            OpenAIChat("m", base_url="http://127.0.0.1:9", provider="mistral", short_call_ids=True),
            SEARCH,
            "mistral does not document it",
        ),
        (
            OpenAIChat("m", base_url="http://127.0.0.1:9", provider="groq"),
            SEARCH,
            "groq does not document it",
        ),
        (
            AzureOpenAIChat("m", base_url="http://127.0.0.1:9", api_key="k"),
            SEARCH,
            "azure does not document it for Chat Completions; leave it out",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
@streamed_and_not
async def test_who_has_no_such_tool_says_so_before_anything_is_sent(model, hosted, says, streamed):
    with pytest.raises(ArgumentError) as caught:
        await ask(Agent(model, tools=[add, hosted]), "hi", streamed)
    assert says in str(caught.value)
    assert repr(hosted.name) in str(caught.value)


async def test_before_gemini_3_they_stand_alone(sent):
    async with simulator() as served:
        model = GeminiChat("gemini-2.5-flash", base_url=served.url.removesuffix("/v1"), api_key="k")
        for options in ({"tools": [SEARCH, add]}, {"tools": [SEARCH], "output": list[int]}):
            with pytest.raises(ArgumentError, match=r"'gemini-2.5-flash' \(gemini_chat\).*before Gemini 3"):
                await Agent(model, **options).run("hi")
        assert sent == []
        assert (await Agent(model, tools=[SEARCH]).run("hi")).output == "You said: hi"
        quiet = ModelSettings(tool_choice="none")
        assert (await Agent(model, tools=[SEARCH, add], settings=quiet).run("hi")).output == "You said: hi"


async def test_a_schema_stands_beside_them(sent):
    for dialect, hosted in HOSTS.items():
        async with simulator() as served:
            agent = Agent(model_of(dialect, served), tools=hosted, output=Output(list[int]))
            assert (await agent.run("hi")).output == []


@pytest.mark.parametrize("wrong", ["", 7, None])
def test_a_name_is_needed(wrong):
    with pytest.raises(ArgumentError, match="name of a hosted tool"):
        HostedTool(wrong)


@pytest.mark.parametrize("wrong", ["x", 7, [("a", 1)], {1: 2}, {"a": object()}, {"a": {"b": {1, object()}}}])
def test_options_are_json(wrong):
    with pytest.raises(ArgumentError, match="options of the hosted tool 'web_search'"):
        HostedTool("web_search", wrong)


def test_options_are_kept_as_they_were():
    options = {"filters": {"allowed_domains": ["a.example"]}}
    hosted = HostedTool("web_search", options)
    options["filters"]["allowed_domains"].append("b.example")
    assert hosted.options == {"filters": {"allowed_domains": ["a.example"]}}


# --- forced -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "hosted", "choice"),
    [
        ("openai_responses", SEARCH, {"type": "web_search"}),
        ("openai_responses", CODE, {"type": "code_interpreter"}),
        ("anthropic_chat", SEARCH, {"type": "tool", "name": "web_search"}),
        ("anthropic_chat", CODE, {"type": "tool", "name": "code_execution"}),
    ],
)
async def test_a_hosted_tool_is_forced_by_its_name(dialect, hosted, choice, sent):
    async with simulator() as served:
        settings = ModelSettings(tool_choice=hosted.name)
        result = await Agent(model_of(dialect, served), tools=[add, hosted], settings=settings).run("hi")
    assert sent[0]["tool_choice"] == choice
    assert result.output.startswith(f"{hosted.name} found: ")
    assert result.usage.tool_calls == 0


async def test_a_remote_server_is_forced_by_its_label(sent):
    hosted = HostedTool("mcp", {"server_label": "docs", "server_url": "https://docs.example"})
    async with simulator() as served:
        settings = ModelSettings(tool_choice="mcp")
        await Agent(model_of("openai_responses", served), tools=[hosted], settings=settings).run("hi")
    assert sent[0]["tool_choice"] == {"type": "mcp", "server_label": "docs"}


async def test_a_tool_of_ones_own_goes_before_a_hosted_one_of_its_name(sent):
    async with simulator() as served:
        settings = ModelSettings(tool_choice="web_search")
        own = add.replace(name="web_search")
        await Agent(model_of("openai_responses", served), tools=[own, SEARCH], settings=settings).run("hi")
    assert sent[0]["tool_choice"] == {"type": "function", "name": "web_search"}


@pytest.mark.parametrize(("choice", "own"), [("web_search", [add]), ("web_search", []), ("required", [])])
async def test_gemini_cannot_be_made_to(choice, own):
    model = GeminiChat("gemini-3-flash", base_url="http://127.0.0.1:9", api_key="k")
    settings = ModelSettings(tool_choice=choice)
    with pytest.raises(ArgumentError, match=f"'web_search'.*tool_choice='{choice}'"):
        await Agent(model, tools=[*own, SEARCH], settings=settings).run("hi")


async def test_none_is_none(sent):
    for dialect, hosted in HOSTS.items():
        async with simulator() as served:
            settings = ModelSettings(tool_choice="none")
            agent = Agent(model_of(dialect, served), tools=hosted, settings=settings)
            result = await agent.run('call web_search {"query": "cats"}')
            assert result.output.startswith("You said"), dialect


# --- called, and sent back ----------------------------------------------------------------------------------


@each_host
@streamed_and_not
async def test_hosted_calls_are_kept_and_sent_back(dialect, streamed, sent):
    script = (
        {
            "thinking": "Hm.",
            "hosted": [
                {"tool": "web_search", "input": {"query": "cats"}, "result": PAGES},
                {"tool": "code_execution", "input": {"code": "print(2 ** 10)"}, "result": "1024\n"},
            ],
            "text": "Käse: 1024 cats.",
        },
        "And that is all.",
    )
    async with simulator(*script) as served:
        agent = Agent(model_of(dialect, served), tools=[*HOSTS[dialect], add])
        session = Session()
        result, _ = await ask(agent, "How many cats?", streamed, session=session)
        assert result.output == "Käse: 1024 cats."
        assert result.usage.tool_calls == 0
        assert result.finish_reason == "stop"
        said = result.messages[1]
        assert not said.tool_calls
        again, _ = await ask(agent, "Sure?", streamed, session=session)
    assert again.output == "And that is all."
    assert [citation.source for citation in said.parts if isinstance(citation, Citation)] == [
        page["url"] for page in PAGES
    ]
    blocks = blocks_of(said, dialect)
    told = "".join(block for _, block in conversation_of(dialect, sent[1]))
    if dialect == "openai_chat":
        assert not blocks
        return
    kinds = [block.get("type") or next(iter(block)) for block in blocks]
    assert kinds == KINDS[dialect]
    if dialect != "openai_responses":
        assert "1024\\n" in told
    for block in blocks:
        assert block in flat(dialect, sent[1])


KINDS = {
    "openai_responses": ["web_search_call", "code_interpreter_call"],
    "anthropic_chat": [
        "server_tool_use",
        "web_search_tool_result",
        "server_tool_use",
        "bash_code_execution_tool_result",
    ],
    "gemini_chat": ["toolCall", "toolResponse", "executableCode", "codeExecutionResult"],
}


def flat(dialect, body):
    """All blocks of a request, as they were sent."""
    if dialect == "openai_responses":
        return body["input"]
    if dialect == "gemini_chat":
        return [part for content in body["contents"] for part in content["parts"]]
    return [block for message in body["messages"] for block in message["content"]]


@each_host
@streamed_and_not
async def test_own_tools_run_beside_hosted_ones(dialect, streamed):
    async with simulator() as served:
        agent = Agent(model_of(dialect, served), tools=[add, SEARCH])
        question = 'call web_search {"query": "cats"}\ncall add {"a": 1, "b": 2}'
        result, events = await ask(agent, question, streamed)
    assert result.output == "add returned: 3"
    assert result.usage.tool_calls == 1
    assert [call.name for message in result.messages for call in message.tool_calls] == ["add"]
    if streamed:
        assert [type(event).__name__ for event in events].count("ToolCallStarted") == 1


async def test_grounding_stays_with_geminis_message():
    async with simulator() as served:
        result = await Agent(model_of("gemini_chat", served), tools=[SEARCH]).run(
            'call web_search {"query": "cats"}'
        )
    metadata = result.messages[1].provider["gemini_chat"]["groundingMetadata"]
    assert metadata["webSearchQueries"] == ["cats"]
    assert not blocks_of(result.messages[1], "gemini_chat")


@streamed_and_not
async def test_events_of_hosted_calls_are_known(streamed, caplog):
    caplog.set_level("DEBUG", "gossamer")
    async with simulator() as served:
        for dialect, hosted in HOSTS.items():
            agent = Agent(model_of(dialect, served), tools=hosted)
            await ask(agent, 'call web_search {}\ncall code_execution {"code": "1"}', streamed)
    assert not [record for record in caplog.records if "unknown kind" in record.getMessage()]


async def test_hosted_calls_are_told_to_another_provider(sent):
    async with simulator() as served:
        session = Session()
        question = 'call web_search {"query": "cats"}'
        await Agent(model_of("anthropic_chat", served), tools=[SEARCH]).run(question, session=session)
        await Agent(model_of("openai_responses", served)).run("And?", session=session)
        await Agent(model_of("anthropic_chat", served), tools=[SEARCH]).run("And?", session=session)
    told = "".join(block for _, block in conversation_of("openai_responses", sent[1]))
    assert "[web_search_tool_result by another provider, not shown]" in told
    assert [block["type"] for block in flat("anthropic_chat", sent[2])[1:3]] == KINDS["anthropic_chat"][:2]


async def test_equal_requests_with_other_hosted_tools_have_other_keys(sent):
    async with simulator() as served:
        model = CachedModel(model_of("openai_responses", served))
        for hosted in ((), (SEARCH,), (CODE,), (HostedTool("web_search", {"search_context_size": "low"}),)):
            await Agent(model, tools=hosted).run("hi")
        assert len(sent) == 4
        await Agent(model, tools=[HostedTool("web_search")]).run("hi")
    assert len(sent) == 4


async def test_a_hosted_tool_counts_in_a_budget(sent):
    async with simulator() as served:
        agent = Agent(model_of("openai_responses", served), tools=[SEARCH])
        result = await agent.run("hi", limits=Limits(max_tokens=9_000))
        assert result.finish_reason == "limit"
        assert not sent
        assert (await agent.run("hi", limits=Limits(max_tokens=12_000))).output == "You said: hi"


async def test_offline_leaves_them_alone():
    result = await Agent("offline", tools=[SEARCH, add]).run("hi")
    assert result.output.startswith("You said: hi")


# --- Anthropic: pauses and containers -----------------------------------------------------------------------

PAUSE = {
    "hosted": [{"tool": "web_search", "input": {"query": "cats"}}],
    "text": "Let me see. ",
    "finish": "pause",
}


@streamed_and_not
async def test_a_paused_answer_goes_on_and_is_one(streamed, sent):
    again = {"hosted": [{"tool": "web_search", "result": PAGES}], "finish": "pause", "text": "Hm. "}
    end = {"hosted": [{"tool": "web_search", "result": PAGES}], "text": "Two cats."}
    async with simulator(PAUSE, again, end, "Yes.") as served:
        agent = Agent(model_of("anthropic_chat", served), tools=[SEARCH, add])
        session = Session()
        result, events = await ask(agent, "How many cats?", streamed, session=session)
        assert (await agent.run("Sure?", session=session)).output == "Yes."
    assert result.output == "Let me see. Hm. Two cats."
    assert len(result.messages) == 2
    assert result.usage.model_calls == 3
    assert [len(body["messages"]) for body in sent] == [1, 2, 2, 3]
    assert sent[1]["messages"][1]["content"][-1]["type"] == "server_tool_use"
    assert (
        sent[2]["messages"][1]["content"][: len(sent[1]["messages"][1]["content"])]
        == sent[1]["messages"][1]["content"]
    )
    assert sent[1]["tools"] == sent[0]["tools"]
    words = [part for part in result.messages[1].parts if isinstance(part, Text)]
    assert [word.text for word in words] == ["Let me see. ", "Hm. ", "Two cats."]
    cited = [part for part in result.messages[1].parts if isinstance(part, Citation)][-1]
    assert result.output[cited.start : cited.end] == "Two cats."
    if streamed:
        heard = "".join(event.text for event in events if type(event).__name__ == "TextDelta")
        assert heard == result.output


@streamed_and_not
async def test_a_pause_without_end_ends(streamed, sent):
    async with simulator(*([PAUSE] * 9), "Then not.") as served:
        agent = Agent(model_of("anthropic_chat", served), tools=[SEARCH])
        session = Session()
        result, _ = await ask(agent, "How many cats?", streamed, session=session)
        assert len(sent) == 9
        assert result.output == "Let me see. " * 9
        # The last call came to nothing, and would be refused in front of a question.
        assert (await agent.run("Sure?", session=session)).output == "Then not."


@streamed_and_not
async def test_each_part_of_a_paused_answer_needs_room(streamed):
    async with simulator(PAUSE, "Two cats.") as served:
        agent = Agent(model_of("anthropic_chat", served), tools=[SEARCH])
        settings = ModelSettings(max_tokens=50)
        result, _ = await ask(
            agent, "How many cats?", streamed, settings=settings, limits=Limits(max_tokens=15_000)
        )
        assert result.finish_reason == "limit"
        with pytest.raises(LimitError):
            _ = result.output
    async with simulator(PAUSE, "Two cats.") as served:
        agent = Agent(model_of("anthropic_chat", served), tools=[SEARCH])
        result, _ = await ask(
            agent, "How many cats?", streamed, settings=settings, limits=Limits(max_tokens=40_000)
        )
        assert result.output == "Let me see. Two cats."


@streamed_and_not
async def test_a_container_lives_on(streamed, sent):
    used = {"hosted": [{"tool": "code_execution", "result": "1\n"}], "text": "One."}
    async with simulator(used, "Still one.", "Yes.") as served:
        agent = Agent(model_of("anthropic_chat", served), tools=[CODE])
        session = Session()
        await ask(agent, "Run it", streamed, session=session)
        await ask(agent, "And now?", streamed, session=session)
        assert "container" not in sent[0]
        assert sent[1]["container"] == "container_simulated"
        told = session.export().decode()
        expired = re.sub(r'"expires_at":"[^"]*"', '"expires_at":"2020-01-01T00:00:00Z"', told)
        assert expired != told
        await ask(agent, "And now?", streamed, session=Session.from_export(expired))
    assert "container" not in sent[2]


@streamed_and_not
@pytest.mark.parametrize(("stop", "stays"), [("tool_use", True), ("max_tokens", False)])
async def test_a_call_without_a_result_waits_for_ours_or_goes(streamed, stop, stays):
    """The provider runs it when it gets our results; without calls of ours it would refuse the next question."""
    open_call = voice.calls("srvtoolu_1", "web_search", '{"query": "cats"}', kind="server_tool_use")
    own = [voice.calls("toolu_1", "add", '{"a": 1, "b": 2}')] if stays else []
    first = voice.answer(streamed, voice.text("Well."), *own, open_call, stop=stop)
    async with Server(first, voice.say(streamed, "Three.")) as served:
        agent = Agent(voice.model(served), tools=[add, SEARCH])
        session = Session()
        result, _ = await ask(agent, "1 + 2?", streamed, session=session)
        if not stays:
            await ask(agent, "And now?", streamed, session=session)
    kinds = [block["type"] for block in served.requests[1].messages[1]["content"]]
    assert kinds == (["text", "tool_use", "server_tool_use"] if stays else ["text"])
    assert bool(blocks_of(session.messages[1], "anthropic_chat")) is stays
    assert result.output == ("Three." if stays else "Well.")


async def test_blocks_of_a_paused_answers_next_part_are_numbered_anew():
    call = voice.calls("srvtoolu_1", "web_search", '{"query": "cats"}', kind="server_tool_use")
    first = voice.answer(True, call, voice.text("One. "), stop="pause_turn")
    loose = [
        voice.event("content_block_delta", index=1, delta={"type": "text_delta", "text": "Two."}),
        voice.event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": "!"}),
    ]
    begin, *_, stop = voice.events()
    found = voice.block(type="web_search_tool_result", tool_use_id="srvtoolu_1", content=[])
    third = voice.answer(True, found)
    paused = voice.event("message_delta", delta={"stop_reason": "pause_turn"}, usage={"output_tokens": 1})
    async with Server(first, stream(begin, *loose, paused, stop), third) as served:
        result, _ = await ask(Agent(voice.model(served), tools=[SEARCH]), "hi", streamed=True)
    said = result.messages[1].parts
    assert [part.text for part in said if isinstance(part, Text)] == ["One. ", "Two."]
    assert [block.get("input") for block in blocks_of(result.messages[1], "anthropic_chat")] == [
        {"query": "cats"},
        None,
    ]


def test_large_blocks_are_bounded_by_their_bytes():
    found = ProviderBlock("anthropic_chat", {"encrypted_content": "x" * 50_000})
    assert bound_messages([Message("assistant", (found,))]) > 50_000
    assert 10_000 <= bound_messages([Message("assistant", (ProviderBlock("a", {}),))]) < 11_000


# --- what providers' own clients make of it -----------------------------------------------------------------


async def test_official_clients_take_the_simulators_hosted_calls():
    question = 'call web_search {"query": "cats"}\ncall code_execution {"code": "print(1)"}'
    async with simulator() as served:
        async with openai.AsyncOpenAI(base_url=served.url, api_key="k") as client:
            tools = [{"type": "web_search"}, {"type": "code_interpreter", "container": {"type": "auto"}}]
            answer = await client.responses.create(model="m", input=question, tools=tools)
            assert [item.type for item in answer.output] == [*KINDS["openai_responses"], "message"]
            async with client.responses.stream(model="m", input=question, tools=tools) as stream:
                kinds = [event.type async for event in stream]
            assert "response.web_search_call.searching" in kinds
            assert "response.code_interpreter_call_code.done" in kinds
        url = served.url.removesuffix("/v1")
        async with anthropic.AsyncAnthropic(base_url=url, api_key="k") as client:
            tools = [
                {"type": "web_search_20250305", "name": "web_search"},
                {"type": "code_execution_20250825", "name": "code_execution"},
            ]
            asked = {"model": "m", "max_tokens": 99, "tools": tools}
            asked["messages"] = [{"role": "user", "content": question}]
            answer = await client.messages.create(**asked)
            assert [block.type for block in answer.content] == [*KINDS["anthropic_chat"], "text"]
            assert answer.container.id == "container_simulated"
            assert answer.usage.server_tool_use.web_search_requests == 1
            async with client.messages.stream(**asked) as stream:
                streamed = await stream.get_final_message()
            assert [block.type for block in streamed.content] == [*KINDS["anthropic_chat"], "text"]
            assert streamed.content[0].input == {"query": "cats"}
            assert streamed.content[-1].citations[0].url == "https://example.org/simulated"
        options = genai.types.HttpOptions(base_url=url)
        client = genai.Client(api_key="k", http_options=options)
        config = genai.types.GenerateContentConfig(
            tools=[
                genai.types.Tool(google_search=genai.types.GoogleSearch()),
                genai.types.Tool(code_execution=genai.types.ToolCodeExecution()),
            ]
        )
        answer = await client.aio.models.generate_content(model="gemini-3", contents=question, config=config)
        parts = answer.candidates[0].content.parts
        assert parts[0].executable_code.code == "print(1)"
        assert parts[1].code_execution_result.output == "simulated\n"
        assert answer.candidates[0].grounding_metadata.web_search_queries == ["cats"]
        await client.aio.aclose()


def test_every_host_is_one_of_the_dialects():
    assert set(HOSTS) | {"ollama_chat"} == set(MODELS)
    assert {OpenAIResponses.dialect, AnthropicChat.dialect, GeminiChat.dialect} < set(HOSTS)
