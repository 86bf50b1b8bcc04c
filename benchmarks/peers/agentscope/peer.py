"""agentscope: `Agent.reply` and `Agent.reply_stream`, on a model class of one's own and on its `OpenAIChatModel`.

Its agent holds the conversation, so every concurrent run has an agent of its own; they share the model.
"""

# ruff: noqa: E402 - the process is prepared before the rival is imported

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import common

# aiohttp is one of agentscope's own dependencies.
common.prepare(hide_aiohttp=False)

from agentscope.agent import Agent, ContextConfig, InjectionConfig, ModelConfig, ReActConfig
from agentscope.credential import OpenAICredential
from agentscope.event import TextBlockDeltaEvent
from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import AssistantMsg, Msg, TextBlock, ToolCallBlock, ToolResultBlock, UserMsg
from agentscope.model import ChatModelBase, ChatResponse, OpenAIChatModel, StructuredResponse
from agentscope.permission import PermissionBehavior, PermissionDecision
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, Toolkit

# What an agent builds for itself unless it is given: shared here.
# The current time and the like, added to the context before each call, is an extra and off.
SHARED = {
    "context_config": ContextConfig(),
    "model_config": ModelConfig(),
    "react_config": ReActConfig(),
    "injection_config": InjectionConfig(inject_runtime_state=False),
}
NO_TOOLS = Toolkit()
ALLOWED = PermissionDecision(behavior=PermissionBehavior.ALLOW, message="allowed")


class AnsweringModel(ChatModelBase):
    """Answers at once; with tools, calls the first one before it answers."""

    def __init__(self, *, calls_tool: bool = False) -> None:
        # The context is so wide that it is never compressed.
        credential, parameters = OpenAICredential(api_key="none"), self.Parameters()
        super().__init__(credential, "answering", parameters, stream=False, context_size=10**9)
        self.formatter = OpenAIChatFormatter()
        self.calls_tool = calls_tool
        self.seen = 0
        self.tool_result: object = None

    async def _call_api(self, model_name: str, messages: list[Msg], **kwargs: object) -> ChatResponse:
        self.seen = len(messages)
        last = messages[-1].content[-1]
        if self.calls_tool and not isinstance(last, ToolResultBlock):
            call = ToolCallBlock(id=common.CALL_ID, name="add", input=common.TOOL_ARGUMENTS)
            return ChatResponse(content=[call], is_last=True)
        if self.calls_tool:
            self.tool_result = last.output[0].text
        return ChatResponse(content=[TextBlock(text=common.REPLY)], is_last=True)


def build_agent(
    model: ChatModelBase, functions: list | None = None, state: AgentState | None = None
) -> Agent:
    toolkit = (
        Toolkit(tools=[FunctionTool(f, permission=ALLOWED) for f in functions]) if functions else NO_TOOLS
    )
    return Agent("agent", "", model, toolkit=toolkit, state=state, **SHARED)


def text_of(message: Msg) -> str:
    return "".join(block.text for block in message.content if isinstance(block, TextBlock))


async def ask(agent: Agent) -> str:
    return text_of(await agent.reply(UserMsg("user", common.PROMPT)))


def create() -> dict:
    model = AnsweringModel()
    return common.created(lambda: build_agent(model))


def create_tools() -> dict:
    model, functions = AnsweringModel(), common.tools()
    return common.created(lambda: build_agent(model, functions))


async def run() -> dict:
    agent = build_agent(AnsweringModel())

    async def once() -> None:
        agent.state.context.clear()
        assert await ask(agent) == common.REPLY

    return {"value": round(await common.cpu_of_awaits(once), 2), "unit": "us"}


async def run_tool() -> dict:
    model = AnsweringModel(calls_tool=True)
    agent = build_agent(model, [common.add])

    async def once() -> None:
        common.TOOL_CALLS.clear()
        agent.state.context.clear()
        assert await ask(agent) == common.REPLY
        assert common.TOOL_CALLS == [(2, 3)]
        assert model.tool_result == "5"

    return {"value": round(await common.cpu_of_awaits(once), 2), "unit": "us"}


def history(count: int) -> list[Msg]:
    makers = (UserMsg, AssistantMsg)
    return [makers[i % 2](("user", "agent")[i % 2], f"message {i}") for i in range(count)]


async def memory() -> dict:
    agents = []

    async def prepare():
        agent = build_agent(AnsweringModel(), state=AgentState(context=history(1_000)))
        agents.append(agent)
        message = UserMsg("user", common.PROMPT)

        async def once() -> None:
            await agent.observe(message)

        return once

    cost = await common.cpu_of_adds(prepare)
    assert len(agents[-1].state.context) == 1_051
    what = "Agent.observe on AgentState.context. It has no bound of its own; compression comes with the next call"
    return {"value": round(cost, 3), "unit": "us", "what": what}


async def turns() -> dict:
    model = AnsweringModel()

    async def kept(count: int):
        agent = build_agent(model, state=AgentState(context=history(count - 2)))

        async def turn() -> tuple[str, int]:
            return await ask(agent), model.seen

        await turn()
        return turn

    return await common.turn_costs(kept=kept)


class SummarisingModel(AnsweringModel):
    """Its context is so narrow that a history of 1,000 is compressed; a summary lies ready."""

    def __init__(self) -> None:
        super().__init__()
        self.context_size = 20_000
        self.asked = 0

    async def generate_structured_output(self, messages: list[Msg], *args: object, **kwargs: object):
        self.asked = len(messages)
        names = ContextConfig().summary_schema["properties"]
        return StructuredResponse(content=dict.fromkeys(names, "nothing"))


def searches(count: int) -> list[Msg]:
    """So many messages as Gossamer counts them: a question, a call and its result in one here, an answer."""
    result = "the bridge opens in the spring, before the rivers rise. " * 180
    messages = []
    for number in range(count // 4):
        call = ToolCallBlock(id=f"call-{number}", name="search", input="{}")
        gave = ToolResultBlock(id=f"call-{number}", name="search", output=result)
        messages += [
            UserMsg("user", f"question {number}"),
            AssistantMsg("agent", [call, gave]),
            AssistantMsg("agent", f"answer {number}"),
        ]
    return messages


async def compress() -> dict:
    model = SummarisingModel()
    best = float("inf")
    for _ in range(common.REPEATS):
        agent = build_agent(model, state=AgentState(context=searches(1_000)))
        gc.collect()
        start = time.process_time()
        await agent.compress_context()
        best = min(best, time.process_time() - start)
        assert model.asked > 700
        assert len(agent.state.context) < 30
        assert "nothing" in str(agent.state.summary)
    return {"value": round(best * 1e6, 1), "unit": "us"}


def build_model(*, stream: bool) -> OpenAIChatModel:
    client = common.openai_http_client()
    return OpenAIChatModel(
        credential=OpenAICredential(api_key="sk-none", base_url=common.setting("url")),
        model=common.MODEL,
        stream=stream,
        client_kwargs={"http_client": client} if client else None,
    )


async def stream() -> dict:
    model = build_model(stream=True)

    async def run() -> list[str]:
        events = build_agent(model).reply_stream(UserMsg("user", common.PROMPT))
        return [event.delta async for event in events if isinstance(event, TextBlockDeltaEvent)]

    return await common.streamed(run)


async def http() -> dict:
    async def fresh() -> str:
        model = build_model(stream=False)
        text = await ask(build_agent(model))
        await model.client.close()
        return text

    model = build_model(stream=False)
    return await common.load(fresh, lambda: ask(build_agent(model)))


def imports() -> dict:
    return common.import_cost(
        "from agentscope.agent import Agent\nfrom agentscope.model import OpenAIChatModel\nimport openai"
    )


common.main(
    {
        "create": create,
        "create_tools": create_tools,
        "run": run,
        "run_tool": run_tool,
        "memory": memory,
        "compress": compress,
        "turns": turns,
        "stream": stream,
        "http": http,
        "import": imports,
    },
    packages=("agentscope", "openai", "httpx2", "pydantic", "aiohttp"),
)
