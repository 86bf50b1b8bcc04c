"""What a turn costs in encoding: each message once, the provider's prefix unchanged, the memory bounded."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from tests.integration.asking import TWO, agent, ask, calling, convert, reply, streamed_and_not
from tests.integration.server import Server, completion

from gossamer import Agent, Session
from gossamer.messages import Image, Message, Text
from gossamer.models import OpenAIChat, openai_chat_request


@pytest.fixture
def encoded(monkeypatch):
    """Every message that was encoded, in order."""
    seen = []
    for name in ("_encode_message", "_encode_in_tool_loop"):
        original = getattr(openai_chat_request, name)

        def count(message, previous, original=original):
            seen.append(message)
            return original(message, previous)

        monkeypatch.setattr(openai_chat_request, name, count)
    return seen


def prefix_of(request):
    """The request up to the end of its messages: what a provider's prompt cache goes by."""
    raw = request.raw
    return raw[raw.index(b'"messages":[') : raw.index(b"]", raw.rindex(b'"role"'))]


@streamed_and_not
async def test_each_message_is_encoded_once_and_the_prefix_stays(streamed, encoded):
    session = Session()
    turns = 30
    answers = [reply(streamed, f"answer {n}") for n in range(turns)]
    async with Server(*answers) as server:
        asking = agent(server, instructions="Be brief.")
        for turn in range(turns):
            await ask(asking, f"question {turn}", streamed, session=session)
    # The last answer was never sent; everything else once, whatever the turn.
    assert len(encoded) == 2 * turns - 1
    assert len({id(message) for message in encoded}) == len(encoded)
    requests = [prefix_of(request) for request in server.requests]
    for earlier, later in pairwise(requests):
        assert later.startswith(earlier)
    assert [message["content"] for message in server.requests[-1].messages[-3:]] == [
        f"question {turns - 2}",
        f"answer {turns - 2}",
        f"question {turns - 1}",
    ]


@pytest.mark.parametrize("with_session", [True, False], ids=["session", "no session"])
async def test_a_tool_loop_encodes_each_message_once(with_session, encoded):
    rounds = 20
    answers = [calling(False, TWO[n % 2]) for n in range(rounds)]
    session = Session() if with_session else None
    async with Server(*answers, completion("done")) as server:
        result = await agent(server, tools=[convert]).run("go", session=session)
    assert result.output == "done"
    assert len(encoded) == 1 + 2 * rounds
    requests = [prefix_of(request) for request in server.requests]
    for earlier, later in pairwise(requests):
        assert later.startswith(earlier)


async def test_thinking_costs_one_more_encoding_and_keeps_the_prefix_inside_its_loop(encoded):
    entry = TWO[0]
    thoughtful = completion(None, finish="tool_calls", tool_calls=[entry], reasoning_content="hm")
    session = Session()
    async with Server(
        thoughtful, thoughtful, completion("one"), completion("two"), completion("three")
    ) as server:
        asking = agent(server, tools=[convert], send_thinking=True)
        for question in ("a", "b", "c"):
            await asking.run(question, session=session)
    requests = [prefix_of(request) for request in server.requests]
    assert requests[1].startswith(requests[0])
    assert requests[2].startswith(requests[1])
    # Between runs the thinking leaves, once; from then on the prefix stays.
    assert not requests[3].startswith(requests[2])
    assert requests[4].startswith(requests[3])
    assert max(encoded.count(message) for message in encoded) <= 2


async def test_a_full_window_encodes_only_what_is_new(encoded):
    session = Session(window=20)
    async with Server(completion("ok")) as server:
        asking = agent(server)
        for turn in range(100):
            await asking.run(f"question {turn}", session=session)
    assert len(encoded) == 199
    sizes = [len(request.messages) for request in server.requests]
    assert max(sizes) <= 22
    moves = sum(later < earlier for earlier, later in pairwise(sizes))
    # The window moves by a quarter at a time, so that the prefix holds in between.
    assert 0 < moves <= 200 // 5


async def test_two_agents_share_what_a_session_has_encoded(encoded):
    session = Session()
    async with Server(completion("ok")) as server:
        for _ in range(3):
            await agent(server, instructions="one").run("hi", session=session)
            await agent(server, instructions="two").run("hi", session=session)
    assert len(encoded) == 11
    assert server.requests[-1].messages[0] == {"role": "system", "content": "two"}


async def test_after_a_rewind_a_failure_and_a_branch_the_messages_are_right():
    session = Session()
    async with Server(
        completion("one"), completion("two"), completion("three"), completion("four")
    ) as server:
        asking = agent(server)
        await asking.run("a", session=session)
        await asking.run("b", session=session)
        session.rewind(session.starts[-1])
        await asking.run("c", session=session)
        branch = session.branch()
        await asking.run("d", session=branch)
    said = [[message["content"] for message in request.messages] for request in server.requests]
    assert said == [["a"], ["a", "one", "b"], ["a", "one", "c"], ["a", "one", "c", "three", "d"]]


async def test_the_memory_of_encoded_messages_is_bounded():
    """Media are encoded for the request and not kept: 24 MiB of pictures are 32 MiB of base64."""
    session = Session()
    for number in range(6):
        picture = Image(data=b"\x89PNG\r\n\x1a\n" + bytes([number]) * (4 << 20))
        session.add(Message.user(Text(f"picture {number}"), picture))
    sizes = []

    async def answer(connection, request):
        sizes.append(len(request.raw))
        await connection.send(completion("seen"))

    async with Server(answer) as server:
        asking = agent(server)
        await asking.run("warm up")
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(2):
                await asking.run("what is there?", session=session)
                server.requests.clear()
            kept = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
    assert all(size > 32 << 20 for size in sizes[1:])
    assert kept < 16 << 20


async def test_tools_are_encoded_once_for_all_runs(monkeypatch):
    count = 0
    original = openai_chat_request._tool_object

    def counting(*arguments, **options):
        nonlocal count
        count += 1
        return original(*arguments, **options)

    monkeypatch.setattr(openai_chat_request, "_tool_object", counting)
    openai_chat_request._encode_tools.cache_clear()
    async with Server(completion("ok")) as server:
        asking = Agent(OpenAIChat("gpt-test", base_url=server.url), tools=[convert])
        for _ in range(5):
            await asking.run("hi")
        await asking.replace(instructions="Be brief.").run("hi")
    assert count == 1
    assert [len(request.body["tools"]) for request in server.requests] == [1] * 6
