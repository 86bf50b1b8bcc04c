"""The scripted model: every kind of reply, one cursor for all runs."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gossamer import Agent, ArgumentError, Message, ModelError, Text, Thinking, ToolCall, Usage
from gossamer.errors import ScriptExhaustedError
from gossamer.events import TextDelta, ThinkingDelta, ToolArgumentsDelta, ToolCallStarted
from gossamer.models import Model, ModelRequest, ModelResponse, ScriptedModel
from gossamer.view import MessageView

REQUEST = ModelRequest(MessageView([]))


async def both(reply):
    """What a reply becomes, whole and streamed."""
    whole = await ScriptedModel([reply]).respond(REQUEST)
    items = [item async for item in ScriptedModel([reply]).stream(REQUEST)]
    assert isinstance(items[-1], ModelResponse)
    return whole, items[-1], items[:-1]


async def test_text_is_streamed_word_by_word():
    whole, last, deltas = await both("one  two\nthree ")
    assert whole.message.text == last.message.text == "one  two\nthree "
    assert "".join(delta.text for delta in deltas) == "one  two\nthree "
    assert len(deltas) == 3
    assert whole.usage == Usage(model_calls=1)
    assert (whole.finish_reason, whole.model) == ("stop", "scripted")


async def test_calls_get_ids_and_stream_as_name_and_arguments():
    for reply in (ToolCall.of("a", x=1), [ToolCall.of("a", x=1)], (ToolCall.of("a", x=1),)):
        whole, last, deltas = await both(reply)
        assert whole.finish_reason == "tool_calls"
        (call,) = last.message.tool_calls
        assert call.id
        assert deltas == [ToolCallStarted(call.id, "a"), ToolArgumentsDelta(call.id, '{"x":1}')]
    whole, _, _ = await both([ToolCall("a"), ToolCall("b", id="mine")])
    first, second = whole.message.tool_calls
    assert first.id not in {"", "mine"}
    assert second.id == "mine"


async def test_deltas_are_joined_to_a_message():
    reply = [
        ThinkingDelta("h"),
        TextDelta("a"),
        ThinkingDelta("m"),
        TextDelta("b"),
        ToolCallStarted("1", "x"),
        ToolCallStarted("2", "y"),
        ToolArgumentsDelta("1", '{"n":'),
        ToolArgumentsDelta("1", "1}"),
    ]
    whole, last, deltas = await both(reply)
    assert deltas == reply
    assert whole.message.parts == last.message.parts
    assert whole.message.parts == (
        Thinking("hm"),
        Text("ab"),
        ToolCall("x", '{"n":1}', "1"),
        ToolCall("y", "{}", "2"),
    )


async def test_whole_responses_and_errors():
    response = ModelResponse(Message.assistant("a b"), Usage(input_tokens=3, model_calls=1), "length", "m-1")
    whole, last, deltas = await both(response)
    assert whole is response
    assert last is response
    assert [delta.text for delta in deltas] == ["a ", "b"]
    for error in (ValueError("x"), ModelError("down", status=500)):
        with pytest.raises(type(error)) as caught:
            await both(error)
        assert caught.value is error


@pytest.mark.parametrize("reply", [5, None, {"a": 1}, object()])
async def test_a_reply_of_another_kind_is_refused(reply):
    with pytest.raises(ArgumentError, match=r"a reply is a str.*not " + type(reply).__name__):
        await ScriptedModel([reply]).respond(REQUEST)


@pytest.mark.parametrize("reply", ["hello", ToolCall("a"), ModelResponse(Message.assistant("a"), Usage())])
def test_one_reply_without_a_list_is_refused(reply):
    with pytest.raises(ArgumentError, match="into a list"):
        ScriptedModel(reply)


async def test_functions_of_the_request_sync_and_async():
    async def slow(request):
        await asyncio.sleep(0)
        return f"async {request.messages[-1].text}"

    assert (await Agent(ScriptedModel(lambda request: request.messages[-1].text)).run("hi")).output == "hi"
    assert (await Agent(ScriptedModel(slow)).run("hi")).output == "async hi"


async def test_a_script_used_up_says_so():
    model = ScriptedModel(["a", "b"])
    agent = Agent(model)
    assert [(await agent.run("x")).output for _ in range(2)] == ["a", "b"]
    for _ in range(2):
        with pytest.raises(ScriptExhaustedError, match=r"2 replies and was asked for number [34]"):
            await agent.run("x")


def test_the_cursor_gives_each_reply_once_across_threads():
    model = ScriptedModel([str(number) for number in range(200)])
    agent = Agent(model)
    outputs: list[str] = []

    def work():
        outputs.extend(asyncio.run(gather()))

    async def gather():
        return [result.output for result in await asyncio.gather(*(agent.run("x") for _ in range(50)))]

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs, key=int) == [str(number) for number in range(200)]


async def test_requests_are_kept_up_to_a_bound():
    model = ScriptedModel(lambda request: "a")
    agent = Agent(model)
    for number in range(1005):
        await agent.run(str(number))
    assert len(model.requests) == 1000
    assert model.requests[-1].messages[0].text == "1004"
    assert isinstance(model, Model)
