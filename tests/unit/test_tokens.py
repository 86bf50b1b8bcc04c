"""Token counts: estimates for any script, a tokenizer where there is one, ratios learned from what providers count."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from gossamer import (
    Agent,
    Audio,
    File,
    HostedTool,
    Image,
    Message,
    Session,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    tool,
)
from gossamer.memory import TokenCounter, WorkingMemory, counted_with, tokenizers
from gossamer.memory.tokens import estimate
from gossamer.messages import ProviderBlock
from gossamer.models import ModelRequest, ModelResponse, OpenAIChat, ScriptedModel

PROSE = (
    "The committee agreed that the new bridge should be opened in the spring, before the rivers rise again. "
)


def pairs_of_letters() -> tiktoken.Encoding:
    """A real encoding with ranks of its own: bytes, and each pair of small letters."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    letters = "abcdefghijklmnopqrstuvwxyz"
    for first in letters:
        for second in letters:
            ranks[(first + second).encode()] = len(ranks)
    return tiktoken.Encoding(
        "pairs", pat_str=r"\w+|\W", mergeable_ranks=ranks, special_tokens={"<|end|>": 2_000}
    )


@pytest.fixture
def no_tokenizers(monkeypatch):
    """Each test begins as a process does that has loaded none."""
    monkeypatch.setattr(tokenizers, "_loaded", {})
    monkeypatch.setattr(tokenizers, "_refused", set())


async def until_loaded() -> None:
    """Wait for the threads that load."""
    for thread in threading.enumerate():
        if thread.name.startswith("tokenizer of"):
            await asyncio.to_thread(thread.join, 10)


# --- estimates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("", 0, 0),
        ("a", 1, 1),
        (PROSE * 10, 190, 270),  # 19 words: about 20 tokens
        ('{"id": 17, "names": ["a", "b"], "ok": true}' * 10, 150, 260),
        ("今天天气很好我们去公园散步吧" * 10, 90, 180),
        ("Сегодня хорошая погода, пойдём гулять. " * 10, 90, 220),
        ("😀" * 10, 10, 40),
        ("\ud800 half of a pair", 3, 9),
    ],
)
def test_estimates_are_of_the_right_size(text, least, most):
    assert least <= estimate(text) <= most


@given(st.text(), st.text())
def test_estimates_add_up_and_stay_within_a_token_a_byte(one, other):
    size = len(one.encode("utf-8", "replace"))
    assert (one != "") <= estimate(one) <= size
    assert abs(estimate(one + other) - estimate(one) - estimate(other)) <= 1


def test_media_count_by_kind():
    counter = TokenCounter()
    picture = Image(data=b"\x89PNG\r\n\x1a\n" + bytes(10_000_000))
    assert counter.messages([Message.user(picture)]) == 1_004
    document = File(data=b"%PDF-" + bytes(600_000))
    assert 5_000 < counter.messages([Message.user(document)]) < 20_000
    assert counter.messages([Message.user(File(data=bytes(10**8)))]) == 20_004
    assert counter.messages([Message.user(Audio(data=bytes(200_000)))]) == 154
    assert counter.messages([Message.user(Audio(url="http://x/a.wav"))]) == 1_504


def test_calls_results_instructions_and_tools_count():
    counter = TokenCounter()
    call = Message("assistant", (ToolCall("search", f'{{"q": "{PROSE}"}}', "1"),))
    told = Message("tool", (ToolResult("1", "search", (Text(PROSE), Image(url="http://x/a.png"))),))
    assert counter.messages([call]) > estimate(PROSE)
    assert counter.messages([told]) > estimate(PROSE) + 1_000

    @tool
    def search(q: str) -> str:
        """Search."""

    plain = counter.request(ModelRequest([call, told]))
    assert counter.request(ModelRequest([call, told], PROSE)) == plain + estimate(PROSE)
    assert counter.request(ModelRequest([call, told], PROSE, (search.schema,))) > plain + estimate(PROSE) + 20


# --- tokenizers ---------------------------------------------------------------------------------------------


def test_a_tokenizer_counts_exactly_also_very_long_texts():
    count = counted_with(pairs_of_letters())
    assert count("abcd ef") == 4
    assert count("<|end|>") == 6  # the text that it is, no special token
    assert count("ab " * 100_000) == pytest.approx(200_000, abs=6)  # where it is cut, a pair may be


def test_a_function_of_the_users_counts():
    counter = TokenCounter(len)
    assert counter.text("abc") == 3
    assert counter.messages([Message.user("abc")]) == 7


async def test_a_tokenizer_is_loaded_in_the_background(monkeypatch, no_tokenizers):
    gate = threading.Event()

    def get_encoding(name):
        assert name == "o200k_base"
        assert threading.current_thread() is not threading.main_thread()
        gate.wait(10)
        return pairs_of_letters()

    monkeypatch.setattr(tiktoken, "get_encoding", get_encoding)
    counter = TokenCounter()
    model = OpenAIChat("gpt-4o", base_url="http://127.0.0.1:9", api_key="k")
    assert counter.text("abcdabcdabcd", model) == estimate("abcdabcdabcd")  # nothing waits for it
    gate.set()
    await until_loaded()
    assert counter.text("abcdabcdabcd", model) == 6


async def test_a_view_is_counted_anew_once_its_tokenizer_is_there(monkeypatch, no_tokenizers):
    gate = threading.Event()
    monkeypatch.setattr(tiktoken, "get_encoding", lambda _: gate.wait(10) and pairs_of_letters())
    memory = WorkingMemory()
    model = OpenAIChat("gpt-4o", base_url="http://127.0.0.1:9", api_key="k")
    session = Session()
    session.add(Message.user("abcd" * 100))
    instructions = "abcd" * 50
    before = (await memory.tally(session, model)).around(instructions, (), None)
    assert before == estimate(instructions) + 4
    gate.set()
    await until_loaded()
    tally = await memory.tally(session, model)
    assert tally.sums[-1] == 204
    assert tally.around(instructions, (), None) == 104


async def test_one_that_cannot_be_loaded_is_told_once_and_estimated(monkeypatch, no_tokenizers, caplog):
    def get_encoding(name):
        raise OSError("no network")

    monkeypatch.setattr(tiktoken, "get_encoding", get_encoding)
    counter = TokenCounter()
    with caplog.at_level(logging.WARNING, "gossamer"):
        for name in ("gpt-4o", "gpt-4o", "gpt-4o-mini"):
            model = OpenAIChat(name, base_url="http://127.0.0.1:9", api_key="k")
            counter.text("abc", model)
            await until_loaded()
            assert counter.text(PROSE, model) == estimate(PROSE)
    assert caplog.text.count("cannot be loaded: OSError: no network") == 1


async def test_models_of_others_have_no_tokenizer(monkeypatch, no_tokenizers):
    def get_encoding(name):
        raise AssertionError(name)

    monkeypatch.setattr(tiktoken, "get_encoding", get_encoding)
    counter = TokenCounter()
    for model in (OpenAIChat("llama-9", base_url="http://127.0.0.1:9", api_key="k"), ScriptedModel([])):
        assert counter.tokenizer(model) is estimate
        await until_loaded()
        assert counter.tokenizer(model) is estimate


async def test_without_tiktoken_tokens_are_estimated(monkeypatch, no_tokenizers):
    monkeypatch.setattr(tokenizers, "_is_installed", lambda: False)
    model = OpenAIChat("gpt-4o", base_url="http://127.0.0.1:9", api_key="k")
    assert TokenCounter().tokenizer(model) is estimate
    assert not tokenizers._loaded


async def test_a_slow_tokenizer_does_not_block_the_loop():
    threads = set()

    def count(text):
        threads.add(threading.current_thread())
        time.sleep(0.2)  # long enough for the watch on the loop
        return len(text)

    session = Session()
    session.add(Message.user("abc" * 10_000))
    memory = WorkingMemory(count_tokens=count)
    tally = await memory.tally(session, None)
    assert tally.sums[-1] == 30_004
    assert threading.main_thread() not in threads


# --- learning -----------------------------------------------------------------------------------------------


def test_a_ratio_converges_and_is_bounded():
    counter = TokenCounter()
    model, other = ScriptedModel([]), OpenAIChat("llama", base_url="http://127.0.0.1:9", api_key="k")
    assert counter.ratio(model) == 1
    counter.learn(model, 100_000, 150_000)
    assert counter.ratio(model) == pytest.approx(1.5, rel=0.01)  # the first answer's whole
    for _ in range(20):
        counter.learn(model, 100_000, 130_000)
    assert counter.ratio(model) == pytest.approx(1.3, rel=0.01)
    assert counter.text(PROSE, model) == round(estimate(PROSE) * counter.ratio(model))
    assert counter.ratio(other) == 1
    counter.learn(other, 100, 100_000)
    assert counter.ratio(other) == 4
    counter.learn(other, 0, 10)
    counter.learn(other, 10, 0)
    assert counter.ratio(other) == 4


async def test_what_a_provider_adds_to_each_request_is_not_taken_for_a_ratio():
    """Hundreds of tokens around a tool make five of a greeting's; a long result behind it is not five times as long."""

    @tool(inline=True)
    def read() -> str:
        """Read the report."""
        return PROSE * 280  # about 6,000 tokens

    def reply(request):
        used = Usage(TokenCounter().request(request) + 400, 1, model_calls=1)
        if len(request.messages) == 1:
            return ModelResponse(Message("assistant", (ToolCall("read", "{}", "1"),)), used)
        return ModelResponse(Message.assistant("It is long."), used)

    result = await Agent(ScriptedModel(reply), tools=[read], memory=WorkingMemory()).run("hi")
    assert result.output == "It is long."


async def test_runs_learn_from_what_the_provider_counts():
    def reply(request):
        words = sum(len(message.text.split()) for message in request.messages)
        return ModelResponse(Message.assistant("yes"), Usage(words * 2, 1, model_calls=1))

    memory = WorkingMemory(1_000_000)
    model = ScriptedModel(reply)
    agent = Agent(model, memory=memory)
    session = Session()
    for _ in range(12):
        await agent.run(PROSE * 500, session=session)
    request = model.requests[-1]
    counted = sum(len(message.text.split()) for message in request.messages) * 2
    assert memory.counter.request(request, model) == pytest.approx(counted, rel=0.03)


async def test_nothing_is_learned_from_what_hosted_tools_have_read():
    """A provider counts what its own search found as input, which is many times what was sent."""

    def reply(request):
        if request.messages[-1].text == "search":
            found = Message("assistant", (ProviderBlock("scripted", {"searched": "x"}), Text("found")))
            return ModelResponse(found, Usage(50_000, 1, model_calls=1))
        return ModelResponse(
            Message.assistant("yes"), Usage(TokenCounter().request(request) * 2, 1, model_calls=1)
        )

    memory = WorkingMemory()
    model = ScriptedModel(reply)
    agent = Agent(model, tools=[HostedTool("web_search")], memory=memory)
    session = Session()
    await agent.run(PROSE * 200, session=session)
    before = memory.counter.ratio(model)
    assert 1.5 < before < 2
    await agent.run("search", session=session)
    assert memory.counter.ratio(model) == before


async def test_the_budget_is_in_tokens_as_the_provider_counts_them():
    """A provider that counts twice as many tokens has the memory act at half of the text."""

    def acted_at(factor):
        def reply(request):
            counted = TokenCounter().request(request)
            return ModelResponse(Message.assistant("yes"), Usage(int(counted * factor), 1, model_calls=1))

        model = ScriptedModel(reply)
        memory = WorkingMemory(20_000, model=ScriptedModel(lambda _: "a summary"))
        return Agent(model, memory=memory)

    sizes = []
    for factor in (1, 2):
        agent = acted_at(factor)
        session = Session()
        while not any(message.author == "summary" for message in session.messages):
            size = TokenCounter().messages(session.messages)
            await agent.run(PROSE * 20, session=session)
        sizes.append(size)
    assert sizes[0] == pytest.approx(2 * sizes[1], rel=0.1)
