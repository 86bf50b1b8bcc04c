"""Scripts and faults: what the simulated model says and how it fails is what was written, and repeats."""

from __future__ import annotations

import asyncio
import collections
import json
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest

from gossamer.errors import ArgumentError
from gossamer.simulator import Script, Simulator
from gossamer.simulator.faults import RATE_FAULTS

EXAMPLE = Path(__file__).parents[2] / "examples" / "simulator_script.json"


@asynccontextmanager
async def asking(simulator):
    """A function that asks and gives the answer's message, or the error's status or type."""
    async with openai.AsyncOpenAI(base_url=simulator.url, api_key="k", max_retries=0, timeout=20) as client:

        async def ask(messages, **options):
            if isinstance(messages, str):
                messages = [{"role": "user", "content": messages}]
            try:
                answer = await client.chat.completions.create(model="m", messages=messages, **options)
            except openai.APIStatusError as error:
                return error.status_code
            except openai.OpenAIError as error:
                return type(error).__name__
            return answer.choices[0].message

        yield ask


async def test_replies_are_given_in_turn_and_start_again():
    async with Simulator(script=Script(["one", {"error": 500}, {"text": "three"}])) as simulator:
        async with asking(simulator) as ask:
            said = [await ask("x") for _ in range(6)]
            assert [getattr(message, "content", message) for message in said] == ["one", 500, "three"] * 2


async def test_the_turn_belongs_to_the_server():
    script = Script(["one", "two"])
    async with Simulator(script=script) as a, Simulator(script=script) as b:
        async with asking(a) as ask_a, asking(b) as ask_b:
            assert [(await ask("x")).content for ask in (ask_a, ask_b, ask_a, ask_b)] == [
                "one",
                "one",
                "two",
                "two",
            ]


async def test_when_matches_text_and_expressions_before_the_sequence():
    script = Script(
        [
            "otherwise",
            {"when": "weather", "text": "sunny"},
            {"when": "/^what (is|are) .*[?]$/", "text": "a question"},
        ]
    )
    async with Simulator(script=script) as simulator, asking(simulator) as ask:
        assert (await ask("the weather?")).content == "sunny"
        assert (await ask("what are they?")).content == "a question"
        assert (await ask("so what are they?")).content == "otherwise"
        assert (await ask("the weather?")).content == "sunny"


async def test_matching_replies_follow_the_turns_of_one_question():
    script = Script(
        [
            {"when": "go", "tool": "step", "arguments": {"n": 1}},
            {
                "when": "go",
                "tools": [{"tool": "step", "arguments": {"n": 2}}, {"tool": "stop", "arguments": "{broken"}],
            },
        ]
    )
    async with Simulator(script=script) as simulator, asking(simulator) as ask:
        messages = [{"role": "user", "content": "go"}]
        called = []
        for _ in range(3):
            message = await ask(messages)
            messages.append(message.model_dump(exclude_none=True))
            for call in message.tool_calls or ():
                called.append((call.function.name, call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": "done"})
        assert called == [("step", '{"n":1}'), ("step", '{"n":2}'), ("stop", "{broken")]
        # The script has no third reply for this question: the default behaviour quotes the results.
        assert message.content == "step returned: done\nstop returned: done"


async def test_a_fault_alone_breaks_the_default_answer():
    async with Simulator(script=Script([{"fault": "malformed", "after": 0}])) as simulator:
        async with openai.AsyncOpenAI(base_url=simulator.url, api_key="k") as client:
            raw = await client.chat.completions.with_raw_response.create(
                model="m", messages=[{"role": "user", "content": "hello"}]
            )
            assert raw.content.startswith(b'{"id":"chatcmpl-')
            with pytest.raises(ValueError):
                json.loads(raw.content)


async def test_a_reply_sets_its_own_pace():
    script = Script([{"text": "slow", "latency": 30}, {"text": "quick", "latency": 0, "tps": 0}])
    async with Simulator(script=script, latency=30, tps=0.01) as simulator, asking(simulator) as ask:
        async with asyncio.timeout(10):
            slow = asyncio.ensure_future(ask("x"))
            while simulator.stats.requests == 0:
                await asyncio.sleep(0)
            assert (await ask("x")).content == "quick"
            assert not slow.done()
            slow.cancel()
            await asyncio.wait([slow])


async def test_the_example_runs_as_written():
    async with Simulator(script=EXAMPLE) as simulator, asking(simulator) as ask:
        messages = [{"role": "user", "content": "How is the weather?"}]
        called = await ask(messages)
        assert called.reasoning_content == "I need the forecast."
        call = called.tool_calls[0]
        assert json.loads(call.function.arguments) == {"city": "Vienna"}
        messages += [
            called.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "sun"},
        ]
        assert (await ask(messages)).content == "It is sunny in Vienna."
        both = await ask("compare Vienna and Graz")
        assert [json.loads(call.function.arguments)["city"] for call in both.tool_calls] == ["Vienna", "Graz"]
        assert (await ask("hi")).content == "Hello! How can I help?"
        assert await ask("hi") == 429
        assert await ask("hi") == "APIConnectionError"
        assert simulator.stats.errors == {"429": 1, "close": 1}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("nonsense", "a script is a JSON list"),
        ('{"text": "x"}', "a script is a JSON list"),
        ("[]", "empty"),
        ('["ok", 5]', "reply 2"),
        ('["ok", {"txt": "x"}]', r"reply 2, .*txt"),
        ('[{"tool": 5}]', r"reply 1, at `\$\[0\]\.tool`: Expected `str \| null`, got `int`"),
        ('[{"fault": "earthquake"}]', "reply 1, .*fault.*earthquake"),
        (
            '["a", {"tools": [{"tool": "t"}, {"arguments": {}}]}]',
            r"reply 2, at `\$\[1\]\.tools\[1\]`.*`tool`",
        ),
        ("[{}]", "reply 1: the reply says nothing"),
        ('[{"when": "x"}]', "reply 1: the reply says nothing"),
        ('[{"text": "x", "error": 500}]', "reply 1: `error` stands alone"),
        ('[{"error": 200}]', "reply 1: `error` is 200"),
        ('[{"text": "x", "retry_after": 1}]', "need `error`"),
        ('[{"text": "x", "code": "quota"}]', "need `error`"),
        ('[{"arguments": {}, "text": "x"}]', "`arguments` needs `tool`"),
        ('[{"tool": "a", "tools": [{"tool": "b"}]}]', "exclude each other"),
        ('[{"text": "x", "after": 1}]', "`after`.*needs `fault`"),
        ('[{"text": "x", "fault": "close", "after": -1}]', "`after` is a number of chunks"),
        ('[{"text": "x", "latency": -1}]', "`latency` is -1"),
        ('["ok", {"text": "x", "when": "/(/"}]', "reply 2: `when` '/\\(/' is not a regular expression"),
        ('[{"text": "x", "when": ""}]', "`when` is empty"),
    ],
)
def test_a_wrong_script_names_the_file_and_the_place(content, says, tmp_path):
    path = tmp_path / "replies.json"
    path.write_text(content)
    with pytest.raises(ArgumentError, match=says) as refused:
        Simulator(script=path)
    assert str(path) in str(refused.value)


def test_a_script_in_code_is_checked_like_a_file():
    with pytest.raises(ArgumentError, match="script: reply 1: the reply says nothing"):
        Script([{}])
    with pytest.raises(ArgumentError, match="not JSON data"):
        Script([{"text": object()}])


async def outcomes(count, **options):
    async with Simulator(**options) as simulator, asking(simulator) as ask:
        said = [await ask("x", timeout=0.2) for _ in range(count)]
        return [getattr(message, "content", message) for message in said], dict(simulator.stats.errors)


async def test_error_rate_is_kept_and_the_seed_repeats_it():
    kinds = ("429", "500", "reset", "half_frame")
    first, errors = await outcomes(400, error_rate=0.3, seed=7, faults=kinds)
    second, _ = await outcomes(400, error_rate=0.3, seed=7, faults=kinds)
    other, _ = await outcomes(400, error_rate=0.3, seed=8, faults=kinds)
    assert first == second
    assert first != other
    counted = collections.Counter(first)
    assert 80 <= 400 - counted["You said: x"] <= 160
    assert set(errors) == set(kinds)
    assert counted[429] == errors["429"]
    assert counted[500] == errors["500"]
    assert counted["APIConnectionError"] == errors["reset"] + errors["half_frame"]


async def test_every_kind_of_fault_comes_by_rate():
    async with Simulator(error_rate=1, seed=1) as simulator:
        async with openai.AsyncOpenAI(base_url=simulator.url, api_key="k", max_retries=0) as client:
            for _ in range(30):
                with pytest.raises(Exception):  # noqa: B017 - each fault has another; the server's count is asserted
                    stream = await client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": "x"}], stream=True, timeout=0.2
                    )
                    async for _ in stream:
                        pass
        assert set(simulator.stats.errors) == set(RATE_FAULTS)
        assert sum(simulator.stats.errors.values()) == simulator.stats.requests == 30


async def test_a_fault_by_rate_does_not_use_up_the_script():
    async with Simulator(script=Script(["one", "two"]), error_rate=0.5, faults=["500"], seed=3) as simulator:
        async with asking(simulator) as ask:
            said = [getattr(message, "content", message) for message in [await ask("x") for _ in range(20)]]
    assert 500 in said
    answers = [each for each in said if each != 500]
    assert answers == (["one", "two"] * 10)[: len(answers)]


def test_a_slip_of_the_pen_is_told_by_line_and_column(tmp_path):
    path = tmp_path / "replies.json"
    path.write_text('[\n  "first",\n  {"text": "x",}\n]')
    with pytest.raises(ArgumentError, match=r"replies\.json: .*at line 3, column 16"):
        Script.load(path)
    path.write_bytes(b'["\xff"]')
    with pytest.raises(ArgumentError, match="not UTF-8"):
        Script.load(path)


def test_a_mark_before_the_text_does_not_matter(tmp_path):
    path = tmp_path / "replies.json"
    path.write_text('["first"]', encoding="utf-8-sig")
    reply = Script.load(path).in_turn(0)
    assert reply is not None
    assert reply.text == "first"
