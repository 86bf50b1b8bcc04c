"""langgraph with langchain-openai: the graph of its quickstart, on a chat model of one's own and on `ChatOpenAI`."""

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
os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"

from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition
from typing_extensions import TypedDict


class AnsweringModel(BaseChatModel):
    """Answers at once; with tools, calls the first one before it answers."""

    calls_tool: bool = False
    seen: int = 0
    asked: float = 0.0
    tool_result: str | None = None

    @property
    def _llm_type(self) -> str:
        return "answering"

    def bind_tools(self, *args: object, **kwargs: object) -> AnsweringModel:
        return self

    def _generate(self, *args: object, **kwargs: object) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, messages: list[BaseMessage], *args: object, **kwargs: object) -> ChatResult:
        self.seen = len(messages)
        self.asked = time.perf_counter()
        last = messages[-1]
        if self.calls_tool and not isinstance(last, ToolMessage):
            call = {"name": "add", "args": {"a": 2, "b": 3}, "id": common.CALL_ID}
            message = AIMessage(content="", tool_calls=[call])
        else:
            self.tool_result = last.content
            message = AIMessage(content=common.REPLY)
        return ChatResult(generations=[ChatGeneration(message=message)])


def build_agent(
    model: BaseChatModel, functions: list | None = None, checkpointer: InMemorySaver | None = None
):
    # The way its quickstart shows; cheaper to build and to run than its deprecated create_react_agent.
    model = model.bind_tools(functions) if functions else model

    async def call_model(state: MessagesState) -> dict:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", call_model)
    graph.add_edge(START, "model")
    if functions:
        graph.add_node("tools", ToolNode(functions))
        graph.add_conditional_edges("model", tools_condition)
        graph.add_edge("tools", "model")
    return graph.compile(checkpointer=checkpointer)


def prompt() -> dict:
    return {"messages": [HumanMessage(common.PROMPT)]}


def create() -> dict:
    model = AnsweringModel()
    return common.created(lambda: build_agent(model))


def create_tools() -> dict:
    model, functions = AnsweringModel(), common.tools()
    return common.created(lambda: build_agent(model, functions))


async def run() -> dict:
    agent = build_agent(AnsweringModel())

    async def once() -> None:
        assert (await agent.ainvoke(prompt()))["messages"][-1].content == common.REPLY

    return {"value": round(await common.cpu_of_awaits(once), 2), "unit": "us"}


async def cache() -> dict:
    model = AnsweringModel(cache=InMemoryCache())
    asked = [HumanMessage(common.PROMPT)]
    assert (await model.ainvoke(asked)).content == common.REPLY
    model.seen = 0

    async def once() -> None:
        assert (await model.ainvoke(asked)).content == common.REPLY

    cost = await common.cpu_of_awaits(once)
    assert model.seen == 0, "the cache was not asked"
    return {"value": round(cost, 2), "unit": "us", "what": "the chat model alone, with InMemoryCache"}


async def run_tool() -> dict:
    model = AnsweringModel(calls_tool=True)
    agent = build_agent(model, [common.add])

    async def once() -> None:
        common.TOOL_CALLS.clear()
        assert (await agent.ainvoke(prompt()))["messages"][-1].content == common.REPLY
        assert common.TOOL_CALLS == [(2, 3)]
        assert model.tool_result == "5"

    return {"value": round(await common.cpu_of_awaits(once), 2), "unit": "us"}


def history(count: int) -> list[BaseMessage]:
    return [AIMessage(f"message {i}") if i % 2 else HumanMessage(f"message {i}") for i in range(count)]


def memory() -> dict:
    messages = add_messages([], history(1_000))
    message = HumanMessage(common.PROMPT, id="extra")
    assert len(add_messages(messages, [message])) == 1_001
    cost = common.cpu_of_calls(lambda: add_messages(messages, [message]))
    what = "the add_messages reducer of the graph's state, without a checkpoint. It has no bound"
    return {"value": round(cost, 2), "unit": "us", "what": what}


async def turns() -> dict:
    model = AnsweringModel()

    async def given(count: int):
        agent, messages = build_agent(model), add_messages([], history(count))

        async def turn() -> tuple[str, int]:
            result = await agent.ainvoke({"messages": [*messages, HumanMessage(common.PROMPT)]})
            return result["messages"][-1].content, model.seen

        return turn

    async def kept(count: int):
        agent = build_agent(model, checkpointer=InMemorySaver())
        config = {"configurable": {"thread_id": "s"}}
        await agent.aupdate_state(config, {"messages": history(count - 2)})

        async def turn() -> tuple[str, int]:
            result = await agent.ainvoke(prompt(), config)
            return result["messages"][-1].content, model.seen

        await turn()
        return turn

    return await common.turn_costs(given, kept)


async def stored_run() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncSqliteSaver.from_conn_string(f"{folder}/langgraph.db") as saver:
            agent = build_agent(AnsweringModel(), checkpointer=saver)

            async def run(session: str) -> str:
                result = await agent.ainvoke(prompt(), {"configurable": {"thread_id": session}})
                return result["messages"][-1].content

            assert await run("first") == common.REPLY
            result = await common.stored_run(run)
            kept = await agent.aget_state({"configurable": {"thread_id": "0-7"}})
            assert len(kept.values["messages"]) == 10
    return result | {"what": "AsyncSqliteSaver, all messages given"}


async def stored_go_on() -> dict:
    model = AnsweringModel()
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncSqliteSaver.from_conn_string(f"{folder}/langgraph.db") as saver:
            agent = build_agent(model, checkpointer=saver)
            config = {"configurable": {"thread_id": "s"}}
            await agent.aupdate_state(config, {"messages": history(10_000)})

            async def turn() -> float:
                result = await agent.ainvoke(prompt(), config)
                assert result["messages"][-1].content == common.REPLY
                assert model.seen > 10_000
                return model.asked

            result = await common.stored_go_on(turn)
    return result | {"what": "AsyncSqliteSaver, all messages given: it has no view"}


def build_model() -> ChatOpenAI:
    client = common.openai_http_client()
    return ChatOpenAI(model=common.MODEL, base_url=common.setting("url"), http_async_client=client)


async def stream() -> dict:
    agent = build_agent(build_model())

    async def run() -> list[str]:
        events = agent.astream(prompt(), stream_mode="messages")
        return [chunk.content async for chunk, _ in events if chunk.content]

    return await common.streamed(run)


async def http() -> dict:
    async def call(agent) -> str:
        return (await agent.ainvoke(prompt()))["messages"][-1].content

    async def fresh() -> str:
        return await call(build_agent(build_model()))

    agent = build_agent(build_model())
    return await common.load(fresh, lambda: call(agent))


def imports() -> dict:
    return common.import_cost(
        "from langgraph.graph import StateGraph\nfrom langgraph.prebuilt import ToolNode\nfrom langchain_openai import ChatOpenAI"
    )


class Number(TypedDict):
    value: int


async def add_one(state: Number) -> dict:
    return {"value": state["value"] + 1}


def chain(steps: int, checkpointer: AsyncSqliteSaver | None = None):
    graph = StateGraph(Number)
    before = START
    for number in range(steps):
        graph.add_node(f"step{number}", add_one)
        graph.add_edge(before, f"step{number}")
        before = f"step{number}"
    return graph.compile(checkpointer=checkpointer)


async def workflow() -> dict:
    steps = int(common.setting("steps", "10"))
    graph = chain(steps)

    async def once() -> None:
        assert (await graph.ainvoke({"value": 0}))["value"] == steps

    return {"value": round(await common.cpu_of_awaits(once) / steps, 2), "unit": "us"}


async def workflow_stored() -> dict:
    steps, runs = int(common.setting("steps", "10")), int(common.setting("runs", "200"))
    best = cpu = float("inf")
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            async with AsyncSqliteSaver.from_conn_string(f"{folder}/graph.db") as saver:
                await saver.setup()
                graph = chain(steps, saver)

                async def once(number: int, graph=graph) -> int:
                    config = {"configurable": {"thread_id": str(number)}}
                    return (await graph.ainvoke({"value": 0}, config, durability="sync"))["value"]

                await once(-1)
                began, used = time.perf_counter(), time.process_time()
                outputs = await asyncio.gather(*(once(number) for number in range(runs)))
                best = min(best, (time.perf_counter() - began) / runs / steps)
                cpu = min(cpu, (time.process_time() - used) / runs / steps)
                assert outputs == [steps] * runs
    what = "AsyncSqliteSaver, durability=sync"
    return {"value": round(cpu * 1e6, 1), "wall": round(best * 1e6, 1), "unit": "us", "what": what}


common.main(
    {
        "create": create,
        "create_tools": create_tools,
        "run": run,
        "run_tool": run_tool,
        "cache": cache,
        "memory": memory,
        "turns": turns,
        "workflow": workflow,
        "workflow_stored": workflow_stored,
        "stored_run": stored_run,
        "stored_go_on": stored_go_on,
        "stream": stream,
        "http": http,
        "import": imports,
    },
    packages=(
        "langgraph",
        "langgraph-checkpoint-sqlite",
        "langgraph-prebuilt",
        "langchain-core",
        "langchain-openai",
        "openai",
        "pydantic",
        "aiohttp",
    ),
)
