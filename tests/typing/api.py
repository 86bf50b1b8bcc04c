"""The public API as a type checker sees it. Never run; a test lets pyright check it in strict mode.

`assert_type` states a type. An ignore comment states an error: pyright complains where it is not needed.
"""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, assert_type

import msgspec

from gossamer import (
    Agent,
    AgentPool,
    Approve,
    Deny,
    FanoutPipeline,
    HostedTool,
    HumanInput,
    Limits,
    Loop,
    Member,
    Message,
    MessageHub,
    ModelSettings,
    Parallel,
    Result,
    RunContext,
    Runnable,
    RunStream,
    SequentialPipeline,
    Session,
    Step,
    StepContext,
    Team,
    Text,
    Tool,
    Toolkit,
    Workflow,
    WorkflowResult,
    code_mode,
    fanout_pipeline,
    handoff,
    plan_toolkit,
    sequential_pipeline,
    stream_pipeline,
    tool,
)
from gossamer.cache import MultiLevelCache, cached
from gossamer.events import Event, TextDelta, ToolProgress
from gossamer.flow import AgentEvent, MergedStream
from gossamer.guardrails import Guardrail, guardrail
from gossamer.memory import Compaction, WorkingMemory
from gossamer.models import Model, OpenAIChat, ScriptedModel


class Quote(msgspec.Struct):
    amount: float


class Deps:
    name = "deps"


# --- agents and results --------------------------------------------------------------------------------------------

plain: Agent[Deps, str] = Agent("offline")
quoting = Agent[Deps, Quote]("offline", output=Quote)
assert_type(Agent("offline").run_sync("hi").output, str)
assert_type(Agent("offline", output=Quote).run_sync("hi").output, Quote)
model: Model = ScriptedModel(["hello"])
other: Model = OpenAIChat("gpt-5-mini", api_key="k")
Agent(model, instructions="Be brief.", limits=Limits(max_turns=3), settings=ModelSettings(temperature=0))
Agent(7)  # pyright: ignore[reportArgumentType]
Agent("offline", temperature=1)  # pyright: ignore[reportCallIssue]
plain.name = "other"  # pyright: ignore[reportAttributeAccessIssue]


async def runs() -> None:
    assert_type(await plain.run("hi"), Result[str])
    assert_type((await plain.run("hi")).output, str)
    assert_type((await quoting.run("hi")).output, Quote)
    assert_type((await plain.run("hi", output=Quote)).output, Quote)
    assert_type((await plain.run("hi", output=int)).output, int)
    assert_type((await plain.run("hi", output=list[int])).output, list[int])
    assert_type((await plain("hi")).output, str)
    assert_type(plain.run_sync("hi").output, str)
    assert_type(plain.run_sync("hi", output=Quote).output, Quote)
    assert_type(plain.stream("hi", output=Quote), RunStream[Quote])
    assert_type((await plain.resume(Session(), output=Quote)).output, Quote)
    assert_type((await plain.run([Text("look"), Message.user("hi")])).output, str)
    await plain.run(7)  # pyright: ignore[reportArgumentType]
    await plain.run("hi", pending="maybe")  # pyright: ignore[reportArgumentType]


async def streams() -> None:
    async with plain.stream("hi") as stream:
        assert_type(stream, RunStream[str])
        async for event in stream:
            assert_type(event, Event)
            match event:
                case TextDelta(text):
                    assert_type(text, str)
                case ToolProgress(call, _):
                    assert_type(call.name, str)
                case _:
                    pass
    assert_type(stream.result, Result[str])
    async with quoting.stream("hi") as quotes:
        pass
    assert_type(quotes.result.output, Quote)


async def sessions() -> None:
    session = Session(state={"seen": 1})
    assert_type(session, Session[dict[str, int]])
    assert_type(session.state, dict[str, int])
    assert_type(
        (await quoting.resume(session, {"1": Approve(), "2": Deny("no")})).output,
        Quote,
    )
    assert_type(Session.from_export(b"{}"), Session[Any])


# --- tools ---------------------------------------------------------------------------------------------------------


@tool
def convert(amount: float, rate: float = 1.0) -> float:
    return amount * rate


@tool(inline=True, timeout=3.0)
def shout(context: RunContext[Deps], words: str) -> str:
    assert_type(context.deps, Deps)
    return words + context.deps.name


@tool
async def fetch(url: str) -> bytes:
    return url.encode()


@tool
def count(to: int) -> Iterator[int]:
    yield from range(to)


@tool(exclusive=True)
async def watch() -> AsyncIterator[str]:
    yield "a"


assert_type(convert(1.0), float)
assert_type(convert(amount=1.0, rate=2.0), float)
fetched: Coroutine[Any, Any, bytes] = fetch("u")
assert_type(count(3), Iterator[int])
assert_type(watch(), AsyncIterator[str])
assert_type(convert.replace(name="change")(1.0), float)
assert_type(convert.name, str)
convert("one")  # pyright: ignore[reportArgumentType]
convert(1.0, 2.0, 3.0)  # pyright: ignore[reportCallIssue]
convert(amount=1.0, speed=2.0)  # pyright: ignore[reportCallIssue]
tool(inline=True, colour="red")  # pyright: ignore[reportCallIssue]
tool(run_by="nobody")  # pyright: ignore[reportArgumentType]


def unmarked(word: str) -> str:
    return word


every: list[Tool[..., Any]] = [convert, shout, fetch, count, watch, plain.as_tool("ask", "Asks.")]
Agent("offline", tools=every)
Agent("offline", tools=[convert, unmarked])
Agent("offline", tools=(convert,))
Agent("offline", tools=["convert"])  # pyright: ignore[reportArgumentType]


def instructions(context: RunContext[Deps]) -> str:
    return context.deps.name


Agent("offline", instructions=instructions)

mixed: list[str | Message] = ["one", Message.user("two")]
plain.run_sync(["one", Message.user("two")])
plain.run_sync(mixed)
plain.run_sync([1])  # pyright: ignore[reportArgumentType]

models: list[Model] = [OpenAIChat("m"), ScriptedModel(["one"])]

travel = Toolkit("travel", [convert, unmarked], on_clash="rename")
Agent("offline", tools=[travel, convert, HostedTool("web_search")])
Toolkit("travel", on_clash="win")  # pyright: ignore[reportArgumentType]
Toolkit("travel", scope="world")  # pyright: ignore[reportArgumentType]


@guardrail
def polite(context: RunContext, text: str) -> None:
    return None


assert_type(polite, Guardrail)
Agent("offline", guardrails=[polite])
Agent("offline", guardrails=["polite"])  # pyright: ignore[reportArgumentType]
guardrail(on=("everything",))  # pyright: ignore[reportArgumentType]

remembering = WorkingMemory(10_000, working_summary_mode="compact", count_tokens=len)
Agent("offline", memory=remembering)
Agent("offline", memory=[remembering])
Agent("offline", memory="long")  # pyright: ignore[reportArgumentType]
WorkingMemory(working_summary_mode="shrink")  # pyright: ignore[reportArgumentType]


async def fitting(session: Session) -> None:
    async with remembering as memory:
        assert_type(memory, WorkingMemory)
        assert_type(await memory.fit(session), Compaction | None)


one: Runnable = plain
assert_type(handoff(plain, "Knows."), Tool[..., Any])
assert_type(code_mode(quoting, max_steps=10), Agent[Deps, Quote])
code_mode(quoting, "monty")  # pyright: ignore[reportArgumentType]
Approve(remember="forever")  # pyright: ignore[reportArgumentType]


def make_quoting() -> Agent[Any, Quote]:
    return quoting


async def pooled() -> None:
    async with AgentPool(make_quoting) as pool:
        assert_type((await pool.run("x")).output, Quote)


async def read(url: str, context: StepContext[Quote]) -> int:
    assert_type(context.state, Quote)
    return len(url)


counting = Workflow("counting", [read, Parallel({"a": plain, "b": [Step(read, retry=2)]})], output=int)
two: Runnable = counting
assert_type(counting.run_sync("x").output, int)
assert_type(counting.stream("x").result.output, int)
assert_type(Workflow("any", [read]).run_sync("x").output, Any)
assert_type(counting.as_tool("count", "Counts."), Tool[..., Any])
Workflow("w", [read, 3])  # pyright: ignore[reportArgumentType]
Workflow("w", read)  # pyright: ignore[reportArgumentType]
Loop(read, max_iterations="often")  # pyright: ignore[reportArgumentType]
HumanInput(3)  # pyright: ignore[reportArgumentType]


async def worked() -> None:
    result = await counting.run("x")
    assert_type(result, WorkflowResult[int])
    assert_type(result.steps["read"].seconds, float)
    assert_type(counting.visualize(result).svg, str)


cache = MultiLevelCache()


@cached(cache, ttl=60, tags=("quotes",))
async def cached_quote(symbol: str, *, amount: float = 1.0) -> Quote:
    return Quote(amount)


def key_of(symbol: str) -> str:
    return f"sync:{symbol}"


@cached(cache, key=key_of)
def cached_sync(symbol: str) -> list[int]:
    return [len(symbol)]


async def asks_the_cache() -> None:
    assert_type(await cached_quote("A", amount=2.0), Quote)
    assert_type(await cached_sync("A"), list[int])
    await cached_quote.invalidate("A", amount=2.0)
    await cached_quote(1)  # pyright: ignore[reportArgumentType]
    await cached_quote("A", price=1.0)  # pyright: ignore[reportCallIssue]
    await cached_sync.invalidate()  # pyright: ignore[reportCallIssue]


async def together() -> None:
    assert_type(await fanout_pipeline([plain, plain], "x"), list[Result[str]])
    assert_type(await fanout_pipeline([quoting], "x", max_concurrency=2), list[Result[Quote]])
    assert_type(await fanout_pipeline([plain], "x", on_error="collect"), list[Result[str] | Exception])
    assert_type(await fanout_pipeline([one], "x"), list[Result[Any]])
    assert_type((await sequential_pipeline([plain, quoting], "x")).output, Any)
    await fanout_pipeline([plain], on_error="ignore")  # pyright: ignore[reportCallIssue, reportArgumentType]
    await fanout_pipeline(["plain"])  # pyright: ignore[reportCallIssue, reportArgumentType]
    await SequentialPipeline([plain, quoting])(Message.user("x"))
    await FanoutPipeline([plain, quoting], on_error="collect")("x")
    async with stream_pipeline([plain], "x") as stream:
        assert_type(stream, MergedStream[str])
        async for item in stream:
            assert_type(item, AgentEvent)
            assert_type(item.event, Event)
    assert_type(stream.results, list[Result[str]])
    async with MessageHub([plain, one], "x") as hub:
        assert_type(hub, MessageHub)
        assert_type(hub.sessions["plain"], Session[Any])


crew = Team([plain, Member(quoting, "Quotes.")], mode="broadcast", context="shared")
one = crew
one = Team([crew, plain], leader=plain)
assert_type(crew.run_sync("x"), Result[Any])
assert_type(crew.stream("x"), RunStream[Any])
assert_type(crew.as_tool("ask", "Asks all."), Tool[..., Any])
assert_type(handoff(crew, "Knows."), Tool[..., Any])
assert_type(plan_toolkit(on_change=print), Toolkit)
Team([plain], mode="vote")  # pyright: ignore[reportArgumentType]
Team([plain], leader="offline", context="open")  # pyright: ignore[reportArgumentType]
Team(["plain"], mode="broadcast")  # pyright: ignore[reportArgumentType]
