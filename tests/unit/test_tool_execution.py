"""How tool calls run: one and several, well and badly. Order is made by events and barriers, never by sleeping."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import msgspec
import pytest

from gossamer import (
    Agent,
    EndRun,
    GossamerError,
    Hooks,
    Image,
    Message,
    ModelRetry,
    RunContext,
    Session,
    Text,
    ToolCall,
    ToolError,
    tool,
)
from gossamer.events import RunFinished, ToolCallFinished, ToolProgress
from gossamer.models import ScriptedModel

PATIENCE = 20  # seconds before a test that hangs is failed


def agent_of(*tools, calls, answer="done", **options):
    return Agent(ScriptedModel([calls, answer]), tools=tools, **options)


async def results_of(*tools, calls, session=None, **options):
    """Run one turn of calls and give the results."""
    result = await agent_of(*tools, calls=calls, **options).run("go", session=session)
    assert result.output == "done"
    return result.new_messages[2].parts


async def result_of(one, *, session=None, **arguments):
    (result,) = await results_of(one, calls=ToolCall.of(one.name, **arguments), session=session)
    return result


# --- kinds of tools ------------------------------------------------------------------------------------------------


async def answer_async(word: str) -> str:
    await asyncio.sleep(0)
    return f"got {word}"


def answer(word: str) -> str:
    return f"got {word}"


def answer_generator(word: str):
    yield "half"
    return f"got {word}"


async def answer_async_generator(word: str):
    yield "half"
    yield f"got {word}"


class Answering:
    def __init__(self, prefix):
        self.prefix = prefix

    def __call__(self, word: str) -> str:
        return f"{self.prefix} {word}"

    def method(self, word: str) -> str:
        return f"{self.prefix} {word}"

    async def async_method(self, word: str) -> str:
        return f"{self.prefix} {word}"


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (tool(answer), "thread"),
        (tool(inline=True)(answer), "inline"),
        (tool(answer_async), "async"),
        (tool(answer_generator), "generator"),
        (tool(answer_async_generator), "async_generator"),
        (tool(Answering("got")), "thread"),
        (tool(Answering("got").method), "thread"),
        (tool(Answering("got").async_method), "async"),
        (tool(name="coroutine_of_lambda")(lambda word: answer_async(word)), "thread"),
    ],
    ids=lambda value: value.name if not isinstance(value, str) else "",
)
async def test_every_kind_of_callable_is_recognised_and_runs(made, kind):
    assert made.kind == kind
    result = await result_of(made, word="it")
    assert (result.content, result.outcome) == ("got it", "ok")


@pytest.mark.parametrize("generator", [answer_generator, answer_async_generator])
async def test_a_generator_reports_progress_before_its_result(generator):
    agent = agent_of(tool(generator), calls=ToolCall.of(generator.__name__, word="it"))
    seen = []
    async with agent.stream("go") as stream:
        async for event in stream:
            if isinstance(event, ToolProgress):
                seen.append(event.value)
            elif isinstance(event, ToolCallFinished):
                seen.append(event.result.content)
    assert seen in (["half", "got it"], ["half", "got it", "got it"])


async def test_progress_is_told_while_the_tool_still_runs():
    go_on = asyncio.Event()

    @tool
    async def work():
        yield "begun"
        await go_on.wait()
        yield "ended"

    async with agent_of(work, calls=ToolCall.of("work")).stream("go") as stream:
        async for event in stream:
            if isinstance(event, ToolProgress) and event.value == "begun":
                go_on.set()
    assert stream.result.new_messages[2].parts[0].content == "ended"


async def test_the_context_is_filled_in():
    seen = {}

    @tool
    def look(context: RunContext[str], word: str) -> str:
        seen.update(deps=context.deps, user=context.user, call=context.call, state=context.state)
        return word

    session = Session(state={"a": 1})
    call = ToolCall.of("look", word="x")
    result = await agent_of(look, calls=call).run("go", deps="the deps", user="ann", session=session)
    assert result.output == "done"
    assert seen["deps"] == "the deps"
    assert seen["user"] == "ann"
    assert seen["state"] == {"a": 1}
    assert seen["call"].arguments == call.arguments


async def test_context_variables_reach_threads():
    variable = contextvars.ContextVar("variable", default="unset")

    @tool
    def look() -> str:
        return f"{variable.get()} in {threading.current_thread().name}"

    variable.set("set by the caller")
    assert (await result_of(look)).content == "set by the caller in gossamer-tool"


async def test_synchronous_tools_leave_the_loop_free():
    released = threading.Event()

    @tool
    def wait() -> str:
        return "released" if released.wait(PATIENCE) else "nobody came"

    run = asyncio.ensure_future(result_of(wait))
    asyncio.get_running_loop().call_soon(released.set)
    assert (await run).content == "released"


async def test_an_inline_tool_runs_on_the_loop():
    @tool(inline=True)
    def where() -> str:
        return threading.current_thread().name

    assert (await result_of(where)).content == threading.current_thread().name


# --- what tools return ---------------------------------------------------------------------------------------------


class Quote(msgspec.Struct):
    amount: float


class Word(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("text", "text"),
        ("größe", "größe"),
        (Word("text"), "text"),
        (None, ""),
        (7, "7"),
        (True, "true"),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        (Quote(1.5), '{"amount":1.5}'),
        (Image(data=b"x"), (Image(data=b"x"),)),
        ([Text("see"), Image(data=b"x")], (Text("see"), Image(data=b"x"))),
    ],
    ids=repr,
)
async def test_what_a_tool_returns_becomes_content(value, content):
    result = await result_of(tool(name="give", inline=True)(lambda: value))
    assert (result.content, result.outcome) == (content, "ok")


def cyclic():
    items = []
    items.append(items)
    return items


@pytest.mark.parametrize("value", [object(), {("a", "b"): 1}, cyclic(), "half \ud83d of a pair"], ids=type)
@pytest.mark.parametrize("inline", [True, False])
async def test_what_has_no_json_form_is_told_to_the_model(value, inline):
    session = Session()
    result = await result_of(tool(name="give", inline=inline)(lambda: value), session=session)
    assert result.outcome == "error"
    assert "give failed: " in result.content
    assert Session.from_export(session.export()).messages == session.messages


# --- what models get wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "truncated"),
        ('{"amount": 1', "truncated"),
        ("{'amount': 1}", "malformed"),
        ("{}", "missing required field `amount`"),
        ('{"amount": "one"}', "Expected `int`, got `str` - at `$.amount`"),
        ('{"amount": 1, "extra": 2}', "unknown field `extra`"),
        ("[1]", "Expected `object`, got `array`"),
        ("null", "Expected `object`, got `null`"),
        ('{"amount": 1, "extra": ' + "[" * 100_000, "unknown field"),
    ],
    ids=lambda text: text[:30],
)
@pytest.mark.parametrize("inline", [True, False])
async def test_wrong_arguments_are_told_to_the_model(arguments, words, inline):
    called = []

    @tool(inline=inline)
    def pay(amount: int) -> str:
        called.append(amount)
        return "paid"

    (result,) = await results_of(pay, calls=ToolCall("pay", arguments))
    assert result.outcome == "error"
    assert result.content.startswith("Invalid arguments for pay: ")
    assert words in result.content
    assert not called


async def test_a_huge_argument_is_taken_whole():
    @tool
    def measure(text: str) -> int:
        return len(text)

    assert (await result_of(measure, text="x" * 20_000_000)).content == "20000000"


async def test_an_argument_type_that_raises_is_told_to_the_model():
    class Checked(msgspec.Struct):
        code: int

        def __post_init__(self):
            {}[self.code]

    def typed(checked) -> str:
        return "used"

    typed.__annotations__["checked"] = Checked
    result = await result_of(tool(typed), checked={"code": 4})
    assert result.outcome == "error"
    assert "KeyError: 4" in result.content


async def test_arguments_nested_too_deep_are_told_to_the_model():
    def take(data: list) -> str:
        return "taken"

    (result,) = await results_of(
        tool(take), calls=ToolCall("take", '{"data": ' + "[" * 100_000 + "]" * 100_000 + "}")
    )
    assert result.content.startswith("Invalid arguments for take: maximum recursion depth")


async def test_an_unknown_tool_is_told_to_the_model_with_those_there_are():
    results = await results_of(tool(answer), calls=[ToolCall.of("anser"), ToolCall.of("answer", word="x")])
    assert [result.outcome for result in results] == ["error", "ok"]
    assert results[0].content == "There is no tool called 'anser'. Available: answer."
    (result,) = await results_of(calls=ToolCall.of("anser"))
    assert result.content == "There is no tool called 'anser'. Available: none."


async def test_the_model_may_try_again_a_bounded_number_of_times():
    @tool(retries=2, inline=True)
    def fussy(word: str) -> str:
        raise ModelRetry(f"not {word}")

    call = ToolCall.of("fussy", word="this")
    agent = Agent(ScriptedModel([call, call, call, "never said"]), tools=[fussy])
    session = Session()
    with pytest.raises(ToolError, match=r"'fussy' properly 3 times in a row; last: not this"):
        await agent.run("go", session=session)
    outcomes = [
        part.outcome for message in session.messages if message.role == "tool" for part in message.parts
    ]
    assert outcomes == ["error"] * 3


async def test_a_call_that_works_resets_the_count_of_tries():
    @tool(retries=1, inline=True)
    def fussy(word: str) -> str:
        if word == "bad":
            raise ModelRetry("not that")
        return "fine"

    bad, good = ToolCall.of("fussy", word="bad"), ToolCall.of("fussy", word="good")
    agent = Agent(ScriptedModel([bad, good, bad, good, bad, good, "done"]), tools=[fussy])
    assert (await agent.run("go")).output == "done"


# --- what tools get wrong ------------------------------------------------------------------------------------------


def raise_value_error() -> str:
    raise ValueError("out of paper")


async def raise_async() -> str:
    raise ValueError("out of paper")


def raise_in_generator():
    yield 1
    raise ValueError("out of paper")


async def raise_in_async_generator():
    yield 1
    raise ValueError("out of paper")


@pytest.mark.parametrize(
    "made",
    [
        tool(raise_value_error),
        tool(inline=True)(raise_value_error),
        tool(raise_async),
        tool(raise_in_generator),
        tool(raise_in_async_generator),
    ],
    ids=lambda made: made.kind,
)
async def test_a_tool_that_raises_is_told_to_the_model(made):
    result = await result_of(made)
    assert (result.content, result.outcome) == (f"{made.name} failed: ValueError: out of paper", "error")


@pytest.mark.parametrize("inline", [True, False])
async def test_a_tool_that_calls_exit_does_not_end_the_process(inline):
    def leave():
        raise SystemExit(3)

    result = await result_of(tool(inline=inline)(leave))
    assert (result.content, result.outcome) == ("leave failed: SystemExit: 3", "error")


async def test_stop_iteration_of_a_tool_is_an_error_like_others():
    result = await result_of(tool(name="stop")(lambda: next(iter(()))))
    assert result.outcome == "error"


async def test_an_error_text_that_is_no_unicode_leaves_the_session_whole():
    def look() -> str:
        raise OSError("no file bad\udcff.txt")

    session = Session()
    result = await result_of(tool(look), session=session)
    assert result.content == "look failed: OSError: no file bad?.txt"
    assert Session.from_export(session.export()).messages == session.messages


async def test_an_async_tool_that_hangs_is_stopped_by_its_timeout():
    cleaned = []

    @tool(timeout=0.02)
    async def hang() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)
        return "never"

    result = await result_of(hang)
    assert result.outcome == "timeout"
    assert result.content == "hang did not finish within 0.02 seconds and was stopped."
    assert cleaned == [True]


async def test_a_timeout_error_of_the_tool_itself_is_not_taken_for_its_timeout():
    @tool(timeout=PATIENCE)
    async def ask() -> str:
        await asyncio.sleep(0)
        raise TimeoutError("the printer did not answer")

    result = await result_of(ask)
    assert (result.content, result.outcome) == (
        "ask failed: TimeoutError: the printer did not answer",
        "error",
    )


async def test_a_tool_may_use_timeouts_and_tasks_of_its_own():
    @tool(timeout=PATIENCE)
    async def ask() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(asyncio.sleep(0, "second try"))
            return task.result()
        return "never"

    assert (await result_of(ask)).content == "second try"


@pytest.mark.parametrize("inline", [True, False])
async def test_a_tool_error_ends_the_run_and_leaves_its_words(inline):
    def break_down() -> str:
        raise ToolError("the printer burns")

    session = Session()
    agent = agent_of(tool(inline=inline)(break_down), calls=ToolCall.of("break_down"), answer="still here")
    with pytest.raises(ToolError, match="the printer burns"):
        await agent.run("go", session=session)
    (result,) = session.messages[-1].parts
    assert (result.content, result.outcome) == ("the printer burns", "error")
    assert (await agent.run("again", session=session)).output == "still here"


async def test_a_tool_may_end_the_run_with_a_value():
    @tool(inline=True)
    def finish() -> str:
        raise EndRun({"total": 3})

    result = await Agent(ScriptedModel([ToolCall.of("finish")]), tools=[finish]).run("go")
    assert (result.output, result.finish_reason) == ({"total": 3}, "ended_by_tool")
    assert result.messages[-1].parts[0].content == '{"total":3}'


async def test_ending_the_run_lets_the_other_calls_finish():
    @tool
    async def finish() -> str:
        raise EndRun("over")

    calls = [ToolCall.of("finish"), ToolCall.of("answer_async", word="it")]
    result = await Agent(ScriptedModel([calls]), tools=[finish, answer_async]).run("go")
    assert result.output == "over"
    assert [part.content for part in result.messages[-1].parts] == ["over", "got it"]


# --- in the journal, in middleware, in events ----------------------------------------------------------------------


async def test_a_start_is_in_the_journal_before_the_tool_begins():
    seen = []

    @tool(inline=True)
    def look(context: RunContext) -> str:
        seen.extend(type(record).__name__ for record in context.session.journal)
        return "ok"

    session = Session()
    await result_of(look, session=session)
    assert seen == ["RunStartedRecord", "MessageRecord", "MessageRecord", "ToolStartedRecord"]
    kinds = [type(record).__name__ for record in session.journal]
    assert kinds[4:] == ["ToolResultRecord", "MessageRecord", "RunFinishedRecord"]


async def test_usage_counts_the_tools_that_started():
    calls = [ToolCall.of("answer", word="x"), ToolCall.of("answer", wrong=1), ToolCall.of("none")]
    result = await agent_of(tool(answer), calls=calls).run("go")
    assert result.usage.tool_calls == 1
    assert result.usage.model_calls == 2


async def test_middleware_sees_calls_and_results_of_every_kind():
    seen = []
    hooks = Hooks(
        before_tool=lambda _, call: seen.append(call.name),
        after_tool=lambda _, call, result: seen.append(result.outcome),
    )
    calls = [ToolCall.of("answer", word="x"), ToolCall.of("none")]
    await results_of(tool(inline=True)(answer), calls=calls, middleware=[hooks])
    assert sorted(seen) == ["answer", "error", "none", "ok"]


async def test_events_tell_each_finished_call_before_the_end():
    calls = [ToolCall.of("answer", word=word) for word in "ab"]
    async with agent_of(tool(answer), calls=calls).stream("go") as stream:
        events = [event async for event in stream]
    finished = [event.result.content for event in events if isinstance(event, ToolCallFinished)]
    assert sorted(finished) == ["got a", "got b"]
    assert isinstance(events[-1], RunFinished)


async def test_tools_given_to_the_run_replace_those_of_the_agent():
    agent = agent_of(tool(answer), calls=ToolCall.of("other"))
    result = await agent.run("go", tools=[tool(name="other", inline=True)(lambda: "other")])
    assert result.new_messages[2].parts[0].content == "other"


async def test_tools_may_be_a_function_of_the_context():
    def choose(context):
        return [tool(inline=True, name=context.deps)(lambda: "chosen")]

    agent = Agent(ScriptedModel([ToolCall.of("this_one"), "done"]), tools=choose)
    result = await agent.run("go", deps="this_one")
    assert result.new_messages[2].parts[0].content == "chosen"


async def test_two_tools_of_one_name_are_refused():
    with pytest.raises(GossamerError, match=r"two tools are called 'answer'; rename one"):
        await Agent(ScriptedModel(["x"]), tools=[tool(answer), tool(inline=True)(answer)]).run("go")


async def test_the_message_of_results_answers_the_message_of_calls():
    result = await agent_of(tool(answer), calls=ToolCall.of("answer", word="x")).run("go")
    prompt, asked, told, final = result.messages
    assert prompt.role == "user"
    assert told == Message("tool", told.parts, None, told.created)
    assert told.parts[0].call_id == asked.tool_calls[0].id != ""
    assert final.text == "done"
