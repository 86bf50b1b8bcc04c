"""Metrics through prometheus_client's own registry: what is counted, and nothing while they are off."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from gossamer import (
    Agent,
    Limits,
    Message,
    Price,
    ToolCall,
    Usage,
    disable_metrics,
    enable_metrics,
    tool,
)
from gossamer.models import ModelResponse, ScriptedModel
from gossamer.telemetry import metrics


@pytest.fixture
def registry():
    registry = CollectorRegistry()
    enable_metrics(registry)
    yield registry
    disable_metrics()


@tool(inline=True)
def double(number: int) -> int:
    """Double a number."""
    if number < 0:
        raise ValueError("negative")
    return number * 2


def answer(text: str) -> ModelResponse:
    usage = Usage(input_tokens=100, output_tokens=20, cached_tokens=40, model_calls=1)
    return ModelResponse(Message.assistant(text), usage)


async def read(stream):
    async with stream:
        async for _ in stream:
            pass


def value(registry, name: str, **labels) -> float:
    return registry.get_sample_value(name, labels) or 0.0


async def test_runs_models_and_tools_are_counted(registry):
    calls = [ToolCall.of("double", number=1), ToolCall.of("double", number=-1), ToolCall("missing")]
    agent = Agent(ScriptedModel([calls, answer("done")]), name="bob", tools=[double])
    await agent.run("x")
    run = "gossamer_agent_run_duration_seconds"
    assert value(registry, "gossamer_agent_creations_total") == 1
    assert value(registry, f"{run}_count", agent="bob", outcome="stop") == 1
    assert value(registry, f"{run}_sum", agent="bob", outcome="stop") > 0
    assert value(registry, "gossamer_model_call_duration_seconds_count", model="scripted") == 2
    assert value(registry, "gossamer_tokens_total", model="scripted", kind="input") == 100
    assert value(registry, "gossamer_tokens_total", model="scripted", kind="output") == 20
    assert value(registry, "gossamer_tokens_total", model="scripted", kind="cached") == 40
    tools = "gossamer_tool_call_duration_seconds_count"
    assert value(registry, tools, tool="double", outcome="ok") == 1
    assert value(registry, tools, tool="double", outcome="error") == 1
    assert value(registry, tools, tool="unknown", outcome="error") == 1
    assert value(registry, tools, tool="missing", outcome="error") == 0


async def test_a_single_inline_tool_is_counted_too(registry):
    await Agent(ScriptedModel([ToolCall.of("double", number=1), "a"]), tools=[double]).run("x")
    name = "gossamer_tool_call_duration_seconds"
    assert value(registry, f"{name}_count", tool="double", outcome="ok") == 1


async def test_streams_note_their_first_delta(registry):
    agent = Agent(ScriptedModel([answer("one two"), answer("three")]))
    await read(agent.stream("x"))
    await agent.run("x")
    assert value(registry, "gossamer_model_first_token_seconds_count", model="scripted") == 1
    name = "gossamer_model_call_duration_seconds_count"
    assert value(registry, name, model="scripted") == 2


async def test_money_is_counted_with_and_without_limits(registry):
    model = ScriptedModel([answer("a"), answer("b")], price=Price(input=1.0, output=10.0, cached=0.5))
    agent = Agent(model)
    one = (60 * 1.0 + 40 * 0.5 + 20 * 10.0) / 1e6
    await agent.run("x")
    assert value(registry, "gossamer_cost_dollars_total", model="scripted") == pytest.approx(one)
    await agent.run("x", limits=Limits(max_cost=1))
    assert value(registry, "gossamer_cost_dollars_total", model="scripted") == pytest.approx(2 * one)


@pytest.mark.parametrize("how", ["run", "stream"])
async def test_failures_and_stopped_runs_are_told_apart(registry, how):
    agent = Agent(ScriptedModel([ValueError("x"), "never"]), name="bob")
    with pytest.raises(ValueError, match="x"):
        await (agent.run("x") if how == "run" else read(agent.stream("x")))
    assert value(registry, "gossamer_errors_total", kind="ValueError") == 1
    name = "gossamer_model_call_duration_seconds_count"
    assert value(registry, name, model="scripted") == 0
    await agent.run("x", limits=Limits(max_tokens=1))
    name = "gossamer_agent_run_duration_seconds_count"
    assert value(registry, name, agent="bob", outcome="limit") == 1


async def test_off_counts_nothing_and_on_again_starts_anew():
    assert metrics.recorder is None
    await Agent(ScriptedModel(["a"])).run("x")
    first = CollectorRegistry()
    enable_metrics(first)
    try:
        assert value(first, "gossamer_agent_creations_total") == 0
        assert enable_metrics(CollectorRegistry()).registry is first
        Agent("offline")
        assert value(first, "gossamer_agent_creations_total") == 1
    finally:
        disable_metrics()
    disable_metrics()
    assert b"gossamer" not in generate_latest(first)
    enable_metrics(first)
    try:
        assert value(first, "gossamer_agent_creations_total") == 0
        Agent("offline")
        assert value(first, "gossamer_agent_creations_total") == 1
    finally:
        disable_metrics()


async def test_the_default_registry_and_the_text_format():
    enable_metrics()
    try:
        await Agent(ScriptedModel(["a"]), name="bob").run("x")
        text = generate_latest(REGISTRY).decode()
        assert 'gossamer_agent_run_duration_seconds_count{agent="bob",outcome="stop"} 1.0' in text
    finally:
        disable_metrics()
    assert b"gossamer_agent" not in generate_latest(REGISTRY)


async def test_labels_are_bounded(registry):
    for number in range(1200):
        await Agent(ScriptedModel(["a"]), name=f"agent-{number}").run("x")
    name = "gossamer_agent_run_duration_seconds_count"
    samples = [sample for metric in registry.collect() for sample in metric.samples if sample.name == name]
    assert len(samples) <= 1001
    assert sum(sample.value for sample in samples) == 1200
    assert value(registry, name, agent="other", outcome="stop") >= 200
