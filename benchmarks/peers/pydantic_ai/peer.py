"""pydantic-ai: `Agent.run` and `Agent.run_stream`, on a model class of one's own and on its `OpenAIChatModel`."""

# ruff: noqa: E402 - the process is prepared before the rival is imported

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import common

common.prepare()

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import InMemoryConversationStore
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class AnsweringModel(Model):
    """Answers at once; with tools, calls the first one before it answers."""

    def __init__(self, *, calls_tool: bool = False) -> None:
        super().__init__()
        self.calls_tool = calls_tool
        self.seen = 0
        self.tool_result: object = None

    @property
    def model_name(self) -> str:
        return "answering"

    @property
    def system(self) -> str:
        return "answering"

    async def request(self, messages: list[ModelMessage], *args: object) -> ModelResponse:
        self.seen = len(messages)
        last = messages[-1].parts[-1]
        if self.calls_tool and not isinstance(last, ToolReturnPart):
            return ModelResponse(parts=[ToolCallPart("add", common.TOOL_ARGUMENTS, common.CALL_ID)])
        self.tool_result = getattr(last, "content", None)
        return ModelResponse(parts=[TextPart(common.REPLY)])


def create() -> dict:
    model = AnsweringModel()
    return common.created(lambda: Agent(model))


def create_tools() -> dict:
    model, functions = AnsweringModel(), common.tools()
    return common.created(lambda: Agent(model, tools=functions))


async def run() -> dict:
    agent = Agent(AnsweringModel())

    async def once() -> None:
        assert (await agent.run(common.PROMPT)).output == common.REPLY

    return {"value": round(await common.cpu_of_awaits(once), 2), "unit": "us"}


async def run_tool() -> dict:
    model = AnsweringModel(calls_tool=True)
    agent = Agent(model, tools=[common.add])

    async def once() -> None:
        common.TOOL_CALLS.clear()
        assert (await agent.run(common.PROMPT)).output == common.REPLY
        assert common.TOOL_CALLS == [(2, 3)]
        assert model.tool_result == 5

    return {"value": round(await common.cpu_of_awaits(once), 2), "unit": "us"}


def request_of(text: str) -> ModelRequest:
    return ModelRequest(parts=[UserPromptPart(text)])


def history(count: int) -> list[ModelMessage]:
    return [
        ModelResponse(parts=[TextPart(f"message {i}")]) if i % 2 else request_of(f"message {i}")
        for i in range(count)
    ]


async def memory() -> dict:
    async def prepare():
        store, conversation = InMemoryConversationStore(), Conversation(messages=history(1_000))
        await store.save(conversation)
        message = request_of(common.PROMPT)

        async def once() -> None:
            conversation.messages.append(message)
            assert len(await store.save(conversation)) == 1

        return once

    what = "append to Conversation.messages and InMemoryConversationStore.save. It has no bound"
    return {"value": round(await common.cpu_of_adds(prepare), 2), "unit": "us", "what": what}


async def turns() -> dict:
    model = AnsweringModel()
    agent = Agent(model)

    async def given(count: int):
        messages = history(count)

        async def turn() -> tuple[str, int]:
            result = await agent.run(common.PROMPT, message_history=messages)
            return result.output, model.seen

        return turn

    async def kept(count: int):
        store, conversation = InMemoryConversationStore(), Conversation(messages=history(count - 2))
        await store.save(conversation)

        async def turn() -> tuple[str, int]:
            loaded = await store.load(conversation.conversation_id)
            result = await agent.run(common.PROMPT, conversation=loaded)
            await store.save(result)
            return result.output, model.seen

        await turn()
        return turn

    return await common.turn_costs(given, kept)


def build_model() -> OpenAIChatModel:
    client = common.openai_http_client()
    if client is None:
        return OpenAIChatModel(common.MODEL, provider=OpenAIProvider(base_url=common.setting("url")))
    openai_client = AsyncOpenAI(base_url=common.setting("url"), http_client=client)
    return OpenAIChatModel(common.MODEL, provider=OpenAIProvider(openai_client=openai_client))


async def stream() -> dict:
    async with Agent(build_model()) as agent:

        async def run() -> list[str]:
            async with agent.run_stream(common.PROMPT) as result:
                return [text async for text in result.stream_text(delta=True, debounce_by=None)]

        return await common.streamed(run)


async def http() -> dict:
    async def fresh() -> str:
        async with Agent(build_model()) as agent:
            return (await agent.run(common.PROMPT)).output

    async with Agent(build_model()) as agent:

        async def shared() -> str:
            return (await agent.run(common.PROMPT)).output

        return await common.load(fresh, shared)


def imports() -> dict:
    return common.import_cost(
        "from pydantic_ai import Agent\nfrom pydantic_ai.models.openai import OpenAIChatModel"
    )


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
    packages=("pydantic-ai-slim", "openai", "httpx2", "pydantic", "aiohttp"),
)
