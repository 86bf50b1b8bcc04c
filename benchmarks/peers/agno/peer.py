"""agno: `Agent.arun`, on a model class of one's own and on its `OpenAIChat`."""

# ruff: noqa: E402 - the process is prepared before the rival is imported

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import common

common.prepare()
os.environ["AGNO_TELEMETRY"] = "false"

from agno.agent import Agent
from agno.db.base import SessionType
from agno.db.in_memory import InMemoryDb
from agno.db.sqlite import SqliteDb
from agno.models.base import Model
from agno.models.message import Message
from agno.models.openai import OpenAIChat
from agno.models.response import ModelResponse
from agno.run.agent import RunContentEvent, RunOutput
from agno.run.base import RunStatus
from agno.session import AgentSession
from agno.team import Team
from agno.team.mode import TeamMode
from agno.workflow import Step, StepInput, StepOutput, Workflow


class AnsweringModel(Model):
    """Answers at once; with tools, calls the first one before it answers."""

    def __init__(self, *, calls_tool: bool = False) -> None:
        super().__init__(id="answering")
        self.calls_tool = calls_tool
        self.seen = 0
        self.asked = 0.0

    async def ainvoke(self, messages: list[Message], *args: object, **kwargs: object) -> ModelResponse:
        self.seen = len(messages)
        self.asked = time.perf_counter()
        if self.calls_tool and messages[-1].role != "tool":
            function = {"name": "add", "arguments": common.TOOL_ARGUMENTS}
            call = {"id": common.CALL_ID, "type": "function", "function": function}
            return ModelResponse(role="assistant", tool_calls=[call])
        return ModelResponse(role="assistant", content=common.REPLY)

    def invoke(self, *args: object, **kwargs: object) -> ModelResponse:
        raise NotImplementedError

    def invoke_stream(self, *args: object, **kwargs: object) -> object:
        raise NotImplementedError

    def ainvoke_stream(self, *args: object, **kwargs: object) -> object:
        raise NotImplementedError

    def _parse_provider_response(self, response: object, **kwargs: object) -> ModelResponse:
        raise NotImplementedError

    def _parse_provider_response_delta(self, response: object) -> ModelResponse:
        raise NotImplementedError


def create() -> dict:
    model = AnsweringModel()
    return common.created(lambda: Agent(model=model, telemetry=False))


def create_tools() -> dict:
    model, functions = AnsweringModel(), common.tools()
    return common.created(lambda: Agent(model=model, tools=functions, telemetry=False))


async def run() -> dict:
    agent = Agent(model=AnsweringModel(), telemetry=False)

    async def once() -> None:
        assert (await agent.arun(common.PROMPT)).content == common.REPLY

    return {"value": round(await common.cpu_of_awaits(once), 2), "unit": "us"}


async def run_tool() -> dict:
    agent = Agent(model=AnsweringModel(calls_tool=True), tools=[common.add], telemetry=False)

    async def once() -> None:
        common.TOOL_CALLS.clear()
        result = await agent.arun(common.PROMPT)
        assert result.content == common.REPLY
        assert common.TOOL_CALLS == [(2, 3)]
        assert result.tools[0].result == "5"

    return {"value": round(await common.cpu_of_awaits(once), 2), "unit": "us"}


def conversation(count: int) -> list[Message]:
    roles = ("user", "assistant")
    return [Message(role=roles[i % 2], content=f"message {i}") for i in range(count)]


def conversation_runs(count: int) -> list[RunOutput]:
    messages = conversation(count)
    return [
        RunOutput(run_id=f"run-{i}", agent_id="a", status=RunStatus.completed, messages=messages[i : i + 2])
        for i in range(0, count, 2)
    ]


def memory() -> dict:
    session = AgentSession(session_id="s", runs=conversation_runs(1_000))
    extra = conversation_runs(2)[0]
    extra.run_id = "run-extra"

    def once() -> None:
        session.upsert_run(extra)
        session.runs.pop()

    per_run = common.cpu_of_calls(once)
    session.upsert_run(extra)
    assert len(session.get_messages()) == 1_002
    what = "AgentSession.upsert_run adds a run of two messages; half of it is the value. It has no bound"
    return {"value": round(per_run / 2, 3), "unit": "us", "what": what}


async def turns() -> dict:
    model = AnsweringModel()

    async def given(count: int):
        agent, messages = Agent(model=model, telemetry=False), conversation(count)

        async def turn() -> tuple[str, int]:
            result = await agent.arun([*messages, Message(role="user", content=common.PROMPT)])
            return result.content, model.seen

        return turn

    async def kept(count: int):
        database = InMemoryDb()
        database.upsert_session(AgentSession(session_id="s", agent_id="a", runs=conversation_runs(count - 2)))
        history = {"add_history_to_context": True, "num_history_runs": count, "cache_session": True}
        agent = Agent(id="a", model=model, db=database, session_id="s", telemetry=False, **history)
        await agent.arun(common.PROMPT)

        async def turn() -> tuple[str, int]:
            return (await agent.arun(common.PROMPT)).content, model.seen

        return turn

    return await common.turn_costs(given, kept)


async def stored_run() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        database = SqliteDb(db_file=f"{folder}/agno.db")
        agent = Agent(
            model=AnsweringModel(),
            db=database,
            telemetry=False,
            add_history_to_context=True,
            num_history_runs=50,
        )

        async def run(session: str) -> str:
            return (await agent.arun(common.PROMPT, session_id=session)).content

        assert await run("first") == common.REPLY
        result = await common.stored_run(run)
        kept = database.get_session("0-7", SessionType.AGENT)
        assert len(kept.runs) == 5, len(kept.runs)
    return result | {"what": "SqliteDb, the last 50 runs given"}


async def stored_go_on() -> dict:
    model = AnsweringModel()
    with tempfile.TemporaryDirectory() as folder:
        database = SqliteDb(db_file=f"{folder}/agno.db")
        database.upsert_session(AgentSession(session_id="s", agent_id="a"))
        for index, run in enumerate(conversation_runs(10_000)):
            database.upsert_run(run, "s", run_index=index)
        agent = Agent(
            id="a",
            model=model,
            db=database,
            session_id="s",
            telemetry=False,
            add_history_to_context=True,
            num_history_runs=50,
        )

        async def turn() -> float:
            assert (await agent.arun(common.PROMPT)).content == common.REPLY
            assert 90 <= model.seen <= 110, model.seen
            return model.asked

        result = await common.stored_go_on(turn)
    return result | {"what": "SqliteDb, the last 50 runs given"}


class WaitingModel(AnsweringModel):
    """Answers after a tenth of a second."""

    async def ainvoke(self, messages: list[Message], *args: object, **kwargs: object) -> ModelResponse:
        await asyncio.sleep(0.1)
        return await super().ainvoke(messages, *args, **kwargs)


class LeadingModel(AnsweringModel):
    """Sends the task to all members, then answers."""

    async def ainvoke(self, messages: list[Message], *args: object, **kwargs: object) -> ModelResponse:
        if messages[-1].role == "tool":
            return await super().ainvoke(messages, *args, **kwargs)
        function = {"name": "delegate_task_to_members", "arguments": '{"task": "hello"}'}
        call = {"id": common.CALL_ID, "type": "function", "function": function}
        return ModelResponse(role="assistant", tool_calls=[call])


async def team() -> dict:
    def members(model: AnsweringModel) -> list[Agent]:
        return [
            Agent(name=f"m{number}", id=f"m{number}", model=model, telemetry=False) for number in range(4)
        ]

    def led(agents: list[Agent]) -> Team:
        return Team(members=agents, model=LeadingModel(), mode=TeamMode.broadcast, telemetry=False)

    async def run(one: Team) -> None:
        result = await one.arun(common.PROMPT)
        assert result.content == common.REPLY
        assert len(result.member_responses) == 4, result.member_responses
        assert all(each.content == common.REPLY for each in result.member_responses)

    slow = led(members(WaitingModel()))
    waiting = float("inf")
    for _ in range(7):
        began = time.perf_counter()
        await run(slow)
        waiting = min(waiting, time.perf_counter() - began)
    agents = members(AnsweringModel())
    quick = led(agents)

    async def by_team() -> None:
        await run(quick)

    async def by_gather() -> None:
        await asyncio.gather(*(one.arun(common.PROMPT) for one in agents))

    more = (await common.cpu_of_awaits(by_team) - await common.cpu_of_awaits(by_gather)) / 4
    return {
        "value": round(more, 2),
        "unit": "us",
        "waiting_ms": round(waiting * 1e3, 2),
        "what": "Team.arun, mode broadcast, on a leader that calls delegate_task_to_members; less the members' runs",
    }


def build_model() -> OpenAIChat:
    client = common.openai_http_client()
    params = {"http_client": client} if client else None
    return OpenAIChat(id=common.MODEL, base_url=common.setting("url"), client_params=params)


async def stream() -> dict:
    agent = Agent(model=build_model(), telemetry=False)

    async def run() -> list[str]:
        events = agent.arun(common.PROMPT, stream=True)
        return [
            event.content async for event in events if isinstance(event, RunContentEvent) and event.content
        ]

    return await common.streamed(run)


async def http() -> dict:
    async def fresh() -> str:
        model = build_model()
        result = await Agent(model=model, telemetry=False).arun(common.PROMPT)
        await model.get_async_client().close()
        return result.content

    agent = Agent(model=build_model(), telemetry=False)

    async def shared() -> str:
        return (await agent.arun(common.PROMPT)).content

    return await common.load(fresh, shared)


def imports() -> dict:
    return common.import_cost("from agno.agent import Agent\nfrom agno.models.openai import OpenAIChat")


async def add_one(step_input: StepInput) -> StepOutput:
    before = step_input.previous_step_content
    return StepOutput(content=(0 if before is None else before) + 1)


async def workflow() -> dict:
    steps = int(common.setting("steps", "10"))
    chain = Workflow(
        name="chain",
        steps=[Step(name=f"step{number}", executor=add_one) for number in range(steps)],
        telemetry=False,
    )

    async def once() -> None:
        assert (await chain.arun(input="go")).content == steps

    return {"value": round(await common.cpu_of_awaits(once) / steps, 2), "unit": "us"}


common.main(
    {
        "create": create,
        "create_tools": create_tools,
        "run": run,
        "run_tool": run_tool,
        "memory": memory,
        "turns": turns,
        "workflow": workflow,
        "stored_run": stored_run,
        "stored_go_on": stored_go_on,
        "team": team,
        "stream": stream,
        "http": http,
        "import": imports,
    },
    packages=("agno", "openai", "httpx2", "pydantic", "aiohttp"),
)
