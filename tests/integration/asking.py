"""What the tests of models share: an agent on a server's model, runs streamed and not, answers that call tools."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.server import DONE, call_entry, completion, frame, say, stream

from gossamer import Agent, tool
from gossamer.models import Capabilities, OpenAIChat

streamed_and_not = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


@tool(inline=True)
def convert(amount: float, rate: float) -> float:
    """Convert an amount of money.

    Args:
        amount: in the source currency.
        rate: target units for one source unit.
    """
    return amount * rate


CONVERT = {
    "type": "function",
    "function": {
        "name": "convert",
        "description": "Convert an amount of money.",
        "parameters": {
            "type": "object",
            "properties": {
                "amount": {"type": "number", "description": "in the source currency."},
                "rate": {"type": "number", "description": "target units for one source unit."},
            },
            "required": ["amount", "rate"],
            "additionalProperties": False,
        },
    },
}


def model(server, **options):
    return OpenAIChat("gpt-test", base_url=server.url, api_key="secret", **options)


def agent(server, *, send_thinking=False, capabilities=Capabilities(), **options):
    return Agent(model(server, send_thinking=send_thinking, capabilities=capabilities), **options)


async def ask(agent, prompt, streamed, **options):
    """Run either way, for 20 seconds at most; the result, and the events of a stream."""
    async with asyncio.timeout(20):
        if not streamed:
            return await agent.run(prompt, **options), []
        async with agent.stream(prompt, **options) as running:
            events = [event async for event in running]
    return running.result, events


def reply(streamed, text="ok", **options):
    return stream(*say(text, **options)) if streamed else completion(text, **options)


def calling(streamed, *entries):
    """An answer that calls tools, each call in one piece."""
    if not streamed:
        return completion(None, finish="tool_calls", tool_calls=list(entries))
    pieces = [frame({"tool_calls": [{**entry, "index": place}]}) for place, entry in enumerate(entries)]
    return stream(*pieces, frame({}, finish="tool_calls"), DONE)


TWO = (
    call_entry("a", "convert", '{"amount": 1, "rate": 2}'),
    call_entry("b", "convert", '{"amount": 3, "rate": 4}'),
)


def results_of(request):
    return [message["content"] for message in request.messages if message["role"] == "tool"]


def pieces_of(entries, index_of):
    """Stream calls with their arguments cut into single characters."""
    events = []
    for place, entry in enumerate(entries):
        index = {} if index_of(place) is None else {"index": index_of(place)}
        arguments = entry["function"]["arguments"]
        opening = {**entry, **index, "function": {"name": entry["function"]["name"], "arguments": ""}}
        events.append(frame({"tool_calls": [opening]}))
        events += [frame({"tool_calls": [{**index, "function": {"arguments": c}}]}) for c in arguments]
    return [*events, frame({}, finish="tool_calls"), DONE]
