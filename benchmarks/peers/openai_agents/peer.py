"""openai-agents: `Runner.run` and `Runner.run_streamed`, on a model class of one's own and on chat completions."""

# ruff: noqa: E402 - the process is prepared before the rival is imported

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import common

common.prepare()
os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"

from agents import (
    Agent,
    Model,
    ModelResponse,
    OpenAIChatCompletionsModel,
    OpenAIProvider,
    RunConfig,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from agents.usage import Usage
from openai import AsyncOpenAI
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
)

set_tracing_disabled(True)
UNTRACED = RunConfig(tracing_disabled=True)


class AnsweringModel(Model):
    """Answers at once; with tools, calls the first one before it answers."""

    def __init__(self, *, calls_tool: bool = False) -> None:
        self.calls_tool = calls_tool
        self.seen = 0
        self.tool_result: object = None

    async def get_response(self, system_instructions: object, input: object, *args: object, **kwargs: object):  # noqa: A002 - it is called by this name
        items = [{"role": "user", "content": input}] if isinstance(input, str) else input
        self.seen = len(items)
        last = items[-1]
        if self.calls_tool and last.get("type") != "function_call_output":
            output = ResponseFunctionToolCall(
                arguments=common.TOOL_ARGUMENTS, call_id=common.CALL_ID, name="add", type="function_call"
            )
        else:
            self.tool_result = last.get("output")
            text = ResponseOutputText(annotations=[], text=common.REPLY, type="output_text")
            output = ResponseOutputMessage(
                id="message", content=[text], role="assistant", status="completed", type="message"
            )
        return ModelResponse(output=[output], usage=Usage(), response_id=None)

    def stream_response(self, *args: object, **kwargs: object) -> object:
        raise NotImplementedError


def create() -> dict:
    model = AnsweringModel()
    return common.created(lambda: Agent(name="agent", model=model))


def create_tools() -> dict:
    model, functions = AnsweringModel(), common.tools()
    return common.created(
        lambda: Agent(name="agent", model=model, tools=[function_tool(function) for function in functions])
    )


async def run() -> dict:
    agent = Agent(name="agent", model=AnsweringModel())

    async def once() -> None:
        assert (await Runner.run(agent, common.PROMPT, run_config=UNTRACED)).final_output == common.REPLY

    return {"value": round(await common.cpu_of_awaits(once), 2), "unit": "us"}


async def run_tool() -> dict:
    model = AnsweringModel(calls_tool=True)
    agent = Agent(name="agent", model=model, tools=[function_tool(common.add)])

    async def once() -> None:
        common.TOOL_CALLS.clear()
        assert (await Runner.run(agent, common.PROMPT, run_config=UNTRACED)).final_output == common.REPLY
        assert common.TOOL_CALLS == [(2, 3)]
        assert model.tool_result == "5"

    return {"value": round(await common.cpu_of_awaits(once), 2), "unit": "us"}


def history(count: int) -> list[dict]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": f"message {i}"} for i in range(count)]


async def memory() -> dict:
    sessions = []

    async def prepare():
        session = SQLiteSession("s")
        sessions.append(session)
        await session.add_items(history(1_000))

        async def once() -> None:
            await session.add_items([{"role": "user", "content": common.PROMPT}])

        return once

    cost = await common.cpu_of_adds(prepare)
    assert len(await sessions[-1].get_items()) == 1_051
    for session in sessions:
        session.close()
    what = "SQLiteSession.add_items, in memory (sqlite in a thread), the kind it comes with. It has no bound"
    return {"value": round(cost, 2), "unit": "us", "what": what}


async def turns() -> dict:
    model = AnsweringModel()
    agent = Agent(name="agent", model=model)

    async def given(count: int):
        messages = history(count)

        async def turn() -> tuple[str, int]:
            items = [*messages, {"role": "user", "content": common.PROMPT}]
            return (await Runner.run(agent, items, run_config=UNTRACED)).final_output, model.seen

        return turn

    async def kept(count: int):
        session = SQLiteSession("s")
        await session.add_items(history(count - 2))

        async def turn() -> tuple[str, int]:
            result = await Runner.run(agent, common.PROMPT, session=session, run_config=UNTRACED)
            return result.final_output, model.seen

        await turn()
        return turn

    return await common.turn_costs(given, kept)


def build_model() -> Model:
    client, url = common.openai_http_client(), common.setting("url")
    if client is None:
        # Its own provider keeps one HTTP client for every model it makes.
        return OpenAIProvider(base_url=url, api_key="sk-none", use_responses=False).get_model(common.MODEL)
    return OpenAIChatCompletionsModel(common.MODEL, AsyncOpenAI(base_url=url, http_client=client))


async def stream() -> dict:
    agent = Agent(name="agent", model=build_model())

    async def run() -> list[str]:
        result = Runner.run_streamed(agent, common.PROMPT, run_config=UNTRACED)
        pieces = [
            event.data.delta
            async for event in result.stream_events()
            if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent)
        ]
        assert result.final_output == "".join(pieces)
        return pieces

    return await common.streamed(run)


async def http() -> dict:
    async def call(agent: Agent) -> str:
        return (await Runner.run(agent, common.PROMPT, run_config=UNTRACED)).final_output

    async def fresh() -> str:
        return await call(Agent(name="agent", model=build_model()))

    agent = Agent(name="agent", model=build_model())
    return await common.load(fresh, lambda: call(agent))


def imports() -> dict:
    return common.import_cost("from agents import Agent, Runner, OpenAIChatCompletionsModel")


common.main(
    {
        "create": create,
        "create_tools": create_tools,
        "run": run,
        "run_tool": run_tool,
        "memory": memory,
        "turns": turns,
        "stream": stream,
        "http": http,
        "import": imports,
    },
    packages=("openai-agents", "openai", "httpx2", "pydantic", "aiohttp"),
)
