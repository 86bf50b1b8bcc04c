"""One agent after another: what is handed on, what ends a pipeline, and what its result holds."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gossamer import (
    Agent,
    ArgumentError,
    Image,
    LimitError,
    Limits,
    Message,
    PipelineError,
    RunPausedError,
    SequentialPipeline,
    Text,
    Thinking,
    ToolCall,
    Usage,
    sequential_pipeline,
    tool,
)
from gossamer.events import MessageFinished, RunFinished, TextDelta
from gossamer.models import ModelResponse, ScriptedModel


class Draft(msgspec.Struct):
    title: str


def echo(name: str, **more) -> Agent:
    return Agent(ScriptedModel(lambda request: f"{name}({request.messages[-1].text})"), name=name, **more)


@tool(needs_approval=True)
def publish() -> str:
    """Publish."""
    return "published"


async def test_each_is_asked_what_the_one_before_it_answered():
    writer, critic, editor = echo("writer"), echo("critic"), echo("editor")
    result = await sequential_pipeline([writer, critic, editor], "lace")
    assert result.output == "editor(critic(writer(lace)))"
    assert result.agent == "editor"
    (asked,) = critic.model.requests[0].messages
    assert (asked.role, asked.author, asked.text) == ("user", "writer", "writer(lace)")


@pytest.mark.parametrize(
    "msg", ["hello", None, Message.user("hello", author="ann"), [Text("one"), Message.user("two")]]
)
async def test_without_agents_the_output_is_the_input(msg):
    result = await sequential_pipeline([], msg)
    assert result.output is msg
    assert result.usage == Usage()
    assert (len(result.messages) == 0) is (msg is None)
    assert result.run_id


async def test_without_a_prompt_the_first_starts_from_its_instructions():
    first = Agent(ScriptedModel(lambda request: f"{request.instructions} {len(request.messages)}"), "Sing.")
    assert (await sequential_pipeline([first, echo("critic")])).output == "critic(Sing. 0)"


async def test_the_result_counts_what_all_used():
    result = await sequential_pipeline([echo("a"), echo("b"), echo("c")], "x")
    assert result.usage.model_calls == 3
    assert [message.author for message in result.new_messages] == ["b", None]


async def test_structured_answers_are_handed_on_as_json():
    writer = Agent(ScriptedModel(['{"title": "Lace"}']), name="writer", output=Draft)
    assert (await sequential_pipeline([writer, echo("critic")], "x")).output == 'critic({"title":"Lace"})'


async def test_media_are_handed_on_and_thinking_is_not():
    image = Image(data=b"\x89PNG\r\n\x1a\n", media_type="image/png")
    said = Message("assistant", (Thinking("hm", signed=True), Text("look", {"x": {"id": 1}}), image))
    painter = Agent(ScriptedModel([ModelResponse(said, Usage(), "stop", "m")]), name="painter")
    critic = echo("critic")
    await sequential_pipeline([painter, critic], "x")
    assert critic.model.requests[0].messages[0].parts == (Text("look"), image)


async def test_an_error_says_whose_it_is_and_keeps_the_results_so_far():
    failing = Agent(ScriptedModel([ValueError("no ink")]), name="critic")
    never = echo("editor")
    with pytest.raises(PipelineError, match="'critic', step 2 of 3, failed: ValueError: no ink") as caught:
        await sequential_pipeline([echo("writer"), failing, never], "x")
    assert [result.output for result in caught.value.results] == ["writer(x)"]
    assert list(caught.value.errors) == [1]
    assert isinstance(caught.value.__cause__, ValueError)
    assert not never.model.requests


async def test_an_agent_that_says_nothing_leaves_nothing_to_be_asked():
    silent = Agent(ScriptedModel([""]), name="silent")
    with pytest.raises(PipelineError, match="'silent', step 1 of 2, said nothing that 'critic'") as caught:
        await sequential_pipeline([silent, echo("critic")], "x")
    assert len(caught.value.results) == 1
    assert (await sequential_pipeline([Agent(ScriptedModel([""]))], "x")).output == ""


async def test_a_pause_ends_the_pipeline_with_the_result_that_says_so():
    writer = Agent(ScriptedModel([ToolCall.of("publish"), "It is out."]), name="writer", tools=[publish])
    critic = echo("critic")
    result = await sequential_pipeline([echo("idea"), writer, critic], "x")
    assert result.finish_reason == "paused"
    assert result.usage.model_calls == 2
    with pytest.raises(RunPausedError):
        _ = result.output
    assert not critic.model.requests


async def test_a_limit_ends_the_pipeline_with_the_result_that_says_so():
    @tool(inline=True)
    def look() -> str:
        """Look."""
        return "x"

    writer = Agent(
        ScriptedModel(lambda request: ToolCall.of("look")), tools=[look], limits=Limits(max_turns=2)
    )
    critic = echo("critic")
    result = await sequential_pipeline([writer, critic], "x")
    with pytest.raises(LimitError):
        _ = result.output
    assert not critic.model.requests


async def test_cancelled_it_cancels_the_agent_that_runs():
    begun, stopped = asyncio.Event(), []

    async def wait(request):
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append(1)
            raise

    work = asyncio.ensure_future(sequential_pipeline([echo("a"), Agent(ScriptedModel(wait))], "x"))
    await begun.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert stopped == [1]


async def test_a_pipeline_is_a_value_that_can_be_called_again_and_again():
    pipeline = SequentialPipeline([echo("a"), echo("b")])
    assert (await pipeline("x")).output == (await pipeline.run("x")).output == "b(a(x))"


async def test_one_stream_for_all():
    async with SequentialPipeline([echo("a"), echo("b")]).stream("x") as stream:
        events = [item async for item in stream]
    assert [result.output for result in stream.results] == ["a(x)", "b(a(x))"]
    spoken = [(item.agent, item.place, item.message) for item in events if isinstance(item.event, TextDelta)]
    assert spoken == [("a", 0, 0), ("b", 1, 0)]
    assert [item.agent for item in events if item.last] == ["a", "b"]
    assert [type(item.event) for item in events if item.last] == [MessageFinished] * 2
    finished = [place for place, item in enumerate(events) if isinstance(item.event, RunFinished)]
    assert all(item.agent == "b" for item in events[finished[0] + 1 :])


async def test_a_stream_raises_its_error_at_the_end():
    failing = Agent(ScriptedModel([ValueError("no")]), name="critic")
    stream = SequentialPipeline([echo("a"), failing, echo("c")]).stream("x")
    seen = set()
    with pytest.raises(PipelineError, match="'critic', step 2 of 3") as caught:
        async for item in stream:
            seen.add(item.agent)
    assert seen == {"a", "critic"}
    assert [result.output for result in caught.value.results] == ["a(x)"]


@pytest.mark.parametrize(("agents", "msg"), [("agents", "x"), ([7], "x"), ([echo("a")], "")])
async def test_wrong_arguments(agents, msg):
    with pytest.raises(ArgumentError):
        await sequential_pipeline(agents, msg)
