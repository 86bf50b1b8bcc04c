"""Working memory against a provider over HTTP: its counts are learned from, and what is sent is well formed."""

from __future__ import annotations

import pytest
from tests.integration.asking import ask, streamed_and_not

from gossamer import Agent, Message, Session, ToolCall, ToolResult, tool
from gossamer.memory import WorkingMemory
from gossamer.models import AnthropicChat, GeminiChat, ModelRequest, OllamaChat, OpenAIChat, OpenAIResponses
from gossamer.simulator import Simulator

PROSE = (
    "The committee agreed that the new bridge should be opened in the spring, before the rivers rise again. "
)
DIALECTS = [OpenAIChat, OpenAIResponses, AnthropicChat, GeminiChat, OllamaChat]


def model_on(server, dialect):
    root = server.url.removesuffix("/v1")
    url = server.url if dialect in {OpenAIChat, OpenAIResponses} else root
    options = {} if dialect is OllamaChat else {"api_key": "k"}
    return dialect("sim", base_url=url, **options)


def history(questions: int) -> Session:
    session = Session()
    for number in range(questions):
        session.add(Message.user(f"question {number}: {PROSE}"))
        session.add(Message("assistant", (ToolCall("search", f'{{"q": {number}}}', f"call-{number}"),)))
        session.add(Message("tool", (ToolResult(f"call-{number}", "search", PROSE * 150),)))
        session.add(Message.assistant(f"answer {number}"))
    return session


@tool(inline=True)
def search(q: int) -> str:
    """Search."""
    return PROSE


@streamed_and_not
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.__name__)
async def test_a_compacted_view_is_accepted_and_counts_are_learned(dialect, streamed):
    async with Simulator() as server:
        model = model_on(server, dialect)
        memory = WorkingMemory(working_summary_mode="compact", keep_recent_count=4)
        agent = Agent(model, "Be brief.", tools=[search], memory=memory)
        session = history(8)
        for number in range(8):
            result, _ = await ask(agent, f"{number}: {PROSE * 5}", streamed, session=session)
        request = ModelRequest(
            session.messages.part(0, len(session.messages) - 1), "Be brief.", (search.schema,)
        )
        # The tools that read back were sent too, so that a little less is counted here.
        counted = memory.counter.request(request, model)
        assert counted == pytest.approx(result.messages and _last_input(session), rel=0.15)
        assert memory.counter.ratio(model) != 1
        assert "moved out of view" in session.messages[2].parts[0].content


@streamed_and_not
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.__name__)
async def test_a_summarised_view_is_accepted(dialect, streamed):
    async with Simulator() as server:
        memory = WorkingMemory(working_summary_mode="compress", keep_recent_count=5)
        agent = Agent(model_on(server, dialect), tools=[search], memory=memory)
        session = history(12)
        result, _ = await ask(agent, "and now?", streamed, session=session)
        assert session.messages[0].author == "summary"
        assert result.usage.model_calls == 2


def _last_input(session: Session) -> int:
    usages = [record.usage for record in session.journal if getattr(record, "usage", None)]
    return usages[-1].input_tokens
