"""A run whose process dies after any record goes on from there: law 2, at every point of a run with two tools."""

import pytest

from gossamer import Agent, Session, ToolCall, tool
from gossamer.models import ModelRequest, ScriptedModel
from gossamer.records import MessageRecord, Record, RunStartedRecord, ToolResultRecord, ToolStartedRecord


class Recorder(Session):
    """A session that keeps what a crash right behind each record would have left."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[tuple[Record, bytes]] = []

    def record(self, record: Record) -> None:
        super().record(record)
        self.left.append((record, self.export()))


def reply(request: ModelRequest):
    last = request.messages[-1]
    if last.role == "tool":
        return " ".join(f"{part.name}:{part.outcome}" for part in last.parts)
    return [ToolCall("charge", id="call-charge"), ToolCall("look", id="call-look")]


async def crashes(agent: Agent) -> list[tuple[Record, bytes]]:
    session = Recorder()
    await agent.run("Charge, then look", session=session)
    return [(record, data) for record, data in session.left if not isinstance(record, RunStartedRecord)]


@pytest.fixture
def ran() -> list[str]:
    return []


@pytest.fixture
def agent(ran: list[str]) -> Agent:
    @tool(inline=True)
    def charge() -> str:
        ran.append("charge")
        return "charged"

    @tool(inline=True, idempotent=True)
    def look() -> str:
        ran.append("look")
        return "looked"

    return Agent(ScriptedModel(reply), tools=[charge, look])


async def test_resume_after_a_crash_at_every_record(agent: Agent, ran: list[str]) -> None:
    points = await crashes(agent)
    ran.clear()
    resumed = 0
    for record, data in points:
        session = Session.from_export(data)
        if session.unfinished is None:
            continue
        before = [kept for kept in session.journal if isinstance(kept, ToolStartedRecord | ToolResultRecord)]
        started = {kept.call_id for kept in before if isinstance(kept, ToolStartedRecord)}
        settled = {kept.result.call_id for kept in before if isinstance(kept, ToolResultRecord)}
        ran.clear()
        result = await agent.resume(session)
        resumed += 1

        assert ("charge" in ran) == ("call-charge" not in started), f"after {record}"
        assert ("look" in ran) == ("call-look" not in settled), f"after {record}"
        outcome = "unknown" if "call-charge" in started - settled else "ok"
        assert result.output == f"charge:{outcome} look:ok"
        assert [message.role for message in session.messages] == ["user", "assistant", "tool", "assistant"]
        assert (result.usage.model_calls, result.usage.tool_calls) == (2, 2)
        assert session.unfinished is None
    assert resumed == 7


async def test_the_answer_that_was_stored_is_not_asked_for_again(agent: Agent) -> None:
    points = await crashes(agent)
    data = [data for record, data in points if isinstance(record, MessageRecord)][-1]
    model = ScriptedModel([])
    result = await agent.replace(model=model).resume(Session.from_export(data))
    assert result.output == "charge:ok look:ok"
    assert len(model.requests) == 0


async def test_a_new_prompt_after_a_crash_closes_the_broken_run(agent: Agent, ran: list[str]) -> None:
    for record, data in await crashes(agent):
        session = Session.from_export(data)
        ran.clear()
        result = await agent.run("Again", session=session)
        assert ran == ["charge", "look"], f"after {record}"
        assert result.output == "charge:ok look:ok"
        calls = [call.id for message in session.messages for call in message.tool_calls]
        results = [
            part.call_id for message in session.messages if message.role == "tool" for part in message.parts
        ]
        assert calls == results
