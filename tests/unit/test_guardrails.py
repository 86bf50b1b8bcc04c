"""Guardrails at each place: what they stop, what they replace, what is seen and what is kept."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from tests.unit.talker import drive

from gossamer import (
    Agent,
    Answer,
    Approve,
    ArgumentError,
    EndRun,
    GuardrailError,
    Image,
    Limits,
    Message,
    Middleware,
    ModelRetry,
    ProviderError,
    Refusal,
    Session,
    Text,
    ToolCall,
    Usage,
    disable_metrics,
    enable_metrics,
    tool,
)
from gossamer.events import MessageFinished, RunFailed, TextDelta
from gossamer.guardrails import Guardrail, guardrail
from gossamer.models import ModelResponse, ScriptedModel
from gossamer.records import MessageRecord, RunFailedRecord


@guardrail(on=("input", "output", "call", "result"))
def no_secrets(context, text: str) -> None:
    if "secret" in text:
        raise GuardrailError("it tells a secret")


def masking(*places, **options) -> Guardrail:
    def mask(context, text: str) -> str | None:
        return text.replace("secret", "***") if "secret" in text else None

    return guardrail(on=places, **options)(mask)


def model(*replies) -> ScriptedModel:
    return ScriptedModel(list(replies))


async def events_of(agent: Agent, *arguments, **keywords) -> list:
    seen = []
    async with agent.stream(*arguments, **keywords) as stream:
        try:
            async for event in stream:
                seen.append(event)  # noqa: PERF401 - what came before the error counts
        except GuardrailError as error:
            seen.append(error)
    return seen


def texts(events: list) -> list[str]:
    return [event.text for event in events if isinstance(event, TextDelta)]


both = pytest.mark.parametrize("how", ["run", "stream"])


# --- input --------------------------------------------------------------------------------------------------------


@both
async def test_a_stopped_input_never_reaches_the_model(how):
    answering = model("after")
    agent = Agent(answering, guardrails=[no_secrets])
    session = Session()
    with pytest.raises(GuardrailError, match="'no_secrets' stopped the input: it tells a secret") as caught:
        await drive(agent, how, "a secret", session=session)
    error = caught.value
    assert (error.guardrail, error.place, error.reason) == ("no_secrets", "input", "it tells a secret")
    assert not answering.requests
    assert list(session.messages) == []
    kept = [record.message.text for record in session.journal if isinstance(record, MessageRecord)]
    assert kept == ["a secret"]
    assert [record.error for record in session.journal if isinstance(record, RunFailedRecord)] == [
        "GuardrailError"
    ]
    assert (await drive(agent, how, "hello", session=session)).output == "after"
    assert [message.text for message in session.messages] == ["hello", "after"]


@both
async def test_what_is_replaced_is_all_that_anybody_sees(how):
    answering = model("fine")
    session = Session()
    await drive(Agent(answering, guardrails=[masking("input")]), how, "my secret", session=session)
    assert answering.requests[0].messages[0].text == "my ***"
    assert b"secret" not in session.export()


async def test_guardrails_stand_in_order_and_each_sees_what_the_last_left():
    order = []

    def note(name: str):
        def check(context, text: str) -> str:
            order.append((name, text))
            return text + name

        return Guardrail(name, check)

    answering = model("fine")
    await Agent(answering, guardrails=[note("a"), note("b")]).run("x")
    assert order == [("a", "x"), ("b", "xa")]
    assert answering.requests[0].messages[0].text == "xab"


async def test_parts_and_messages_of_a_prompt():
    answering = model("fine")
    prompt = [
        Message.user("first secret"),
        Message.assistant("my own secret stays"),
        "one secret",
        Image(b"secret", media_type="image/png"),
        "two",
    ]
    await Agent(answering, guardrails=[masking("input")]).run(prompt)
    first, own, last = answering.requests[0].messages
    assert first.text == "first ***"
    assert own.text == "my own secret stays"
    assert [getattr(part, "text", part) for part in last.parts] == ["one ***", prompt[3], "two"]


async def test_a_text_over_several_parts_is_checked_whole():
    def check(context, text: str) -> None:
        if "a\nb" in text:
            raise GuardrailError("together")

    with pytest.raises(GuardrailError, match="together"):
        await Agent(model("x"), guardrails=[Guardrail("whole", check)]).run(["a", "b"])


async def test_a_check_that_breaks_does_not_pass():
    def check(context, text: str) -> None:
        raise KeyError("oops")

    answering = model("x")
    with pytest.raises(KeyError):
        await Agent(answering, guardrails=[Guardrail("broken", check)]).run("x")
    with pytest.raises(ArgumentError, match="'number' gave int"):
        await Agent(answering, guardrails=[Guardrail("number", lambda context, text: 3)]).run("x")
    assert not answering.requests


async def test_a_check_knows_its_run():
    seen = []

    @guardrail
    async def who(context, text: str) -> None:
        seen.append((context.agent, context.user, context.deps, text))

    await Agent(model("x"), name="n", guardrails=[who]).run("hi", user="ada", deps=7)
    assert seen == [("n", "ada", 7, "hi")]


# --- beside the model's call --------------------------------------------------------------------------------------


class Slow:
    """A check, or a model's answer, that waits until it is told, and tells whether it was cancelled."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go = asyncio.Event()
        self.began = asyncio.Event()
        self.cancelled = False
        self.error = error

    async def __call__(self, *_: object):
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error is not None:
            raise self.error

    async def answer(self, request):
        await self()
        return "the answer"

    def beside(self) -> Guardrail:
        return Guardrail("slow", self, beside=True)


@both
async def test_a_check_beside_that_stops_cancels_the_models_call(how):
    answer, check = Slow(), Slow(GuardrailError("no"))
    session = Session()
    agent = Agent(ScriptedModel(answer.answer), guardrails=[check.beside()])
    task = asyncio.create_task(drive(agent, how, "x", session=session))
    await answer.began.wait()
    await check.began.wait()
    check.go.set()
    with pytest.raises(GuardrailError, match="'slow' stopped the input: no"):
        await task
    assert answer.cancelled
    assert list(session.messages) == []


@both
async def test_an_answer_that_comes_first_waits_for_the_check(how):
    answer, check = Slow(), Slow()
    agent = Agent(ScriptedModel(answer.answer), guardrails=[check.beside()])
    task = asyncio.create_task(drive(agent, how, "x"))
    answer.go.set()
    await check.began.wait()
    await answer.began.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    check.go.set()
    assert (await task).output == "the answer"


async def test_nothing_is_seen_of_an_answer_whose_input_is_stopped():
    check = Slow(GuardrailError("no"))
    agent = Agent(model("an answer of several words"), guardrails=[check.beside()])

    async def read():
        return await events_of(agent, "x")

    task = asyncio.create_task(read())
    await check.began.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    check.go.set()
    seen = await task
    assert not texts(seen)
    assert isinstance(seen[-2], RunFailed)
    assert isinstance(seen[-1], GuardrailError)


@both
async def test_a_model_that_fails_cancels_the_checks(how):
    check = Slow()
    agent = Agent(model(ProviderError("down")), guardrails=[check.beside()])
    with pytest.raises(ProviderError):
        await drive(agent, how, "x")
    assert check.cancelled


@both
async def test_cancelling_the_run_cancels_both(how):
    answer, check = Slow(), Slow()
    agent = Agent(ScriptedModel(answer.answer), guardrails=[check.beside()])
    task = asyncio.create_task(drive(agent, how, "x"))
    await answer.began.wait()
    await check.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answer.cancelled
    assert check.cancelled


async def test_several_checks_beside_run_together_and_only_once():
    meeting = asyncio.Barrier(2)
    counts = [0, 0]

    def counting(number: int) -> Guardrail:
        async def check(context, text: str) -> None:
            counts[number] += 1
            async with asyncio.timeout(5):
                await meeting.wait()

        return Guardrail(f"check-{number}", check, beside=True)

    @tool(inline=True)
    def step() -> str:
        """Do a step."""
        return "done"

    agent = Agent(model(ToolCall.of("step"), "done"), tools=[step], guardrails=[counting(0), counting(1)])
    assert (await agent.run("x")).output == "done"
    assert counts == [1, 1]


async def test_a_tool_does_not_start_before_the_checks_have_passed():
    ran = []

    @tool(inline=True)
    def act() -> str:
        """Act."""
        ran.append(True)
        return "done"

    check = Slow(GuardrailError("no"))
    agent = Agent(model(ToolCall.of("act"), "x"), tools=[act], guardrails=[check.beside()])
    task = asyncio.create_task(agent.run("x"))
    await check.began.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    check.go.set()
    with pytest.raises(GuardrailError):
        await task
    assert not ran


async def test_middleware_that_answers_itself_does_not_get_past_a_check_beside():
    class Answering(Middleware):
        async def model(self, context, request, next):
            return ModelResponse(Message.assistant("from the middleware"), Usage())

    stopping = guardrail(name="stop", beside=True)(no_secrets.check)
    agent = Agent(model(), middleware=[Answering()], guardrails=[stopping])
    assert (await agent.run("fine")).output == "from the middleware"
    with pytest.raises(GuardrailError):
        await agent.run("a secret")


async def test_a_cancelled_call_counts_as_all_it_could_have_used():
    answer, check = Slow(), Slow(GuardrailError("no"))
    session = Session(limits=Limits(max_tokens=100_000))
    agent = Agent(ScriptedModel(answer.answer), guardrails=[check.beside()])
    task = asyncio.create_task(agent.run("x", session=session))
    await answer.began.wait()
    await check.began.wait()
    check.go.set()
    with pytest.raises(GuardrailError):
        await task
    assert session.budget.used.total_tokens > 0


async def test_a_check_beside_may_not_replace():
    with pytest.raises(ArgumentError, match="gave another text"):
        await Agent(model("x"), guardrails=[masking("input", beside=True)]).run("secret")


async def test_a_run_that_died_before_its_answer_is_checked_when_it_is_resumed():
    check = guardrail(name="stop", beside=True)(no_secrets.check)
    died = Session()
    with pytest.raises(ProviderError):
        await Agent(model(ProviderError("down"))).run("a secret", session=died)
    crashed = Session()
    for record in died.journal[:2]:  # it started, and the prompt was recorded
        crashed.record(record)
    answering = model("x")
    with pytest.raises(GuardrailError):
        await Agent(answering, guardrails=[check]).resume(crashed)


# --- output -------------------------------------------------------------------------------------------------------


@both
async def test_a_stopped_answer_leaves_the_view_and_stays_in_the_journal(how):
    response = ModelResponse(Message.assistant("the secret is 7"), Usage(5, 5, model_calls=1))
    agent = Agent(model(response, "clean"), guardrails=[no_secrets])
    session = Session()
    with pytest.raises(GuardrailError, match="stopped the output") as caught:
        await drive(agent, how, "tell me", session=session)
    assert caught.value.place == "output"
    assert "7" not in str(caught.value)
    assert list(session.messages) == []
    kept = [record.message.text for record in session.journal if isinstance(record, MessageRecord)]
    assert kept == ["tell me", "the secret is 7"]
    assert session.usage.total_tokens == 10
    again = Session.from_export(session.export())
    assert list(again.messages) == []
    assert (await drive(agent, how, "again", session=again)).output == "clean"


async def test_an_answer_after_tools_leaves_and_what_the_tools_did_stays():
    @tool(inline=True)
    def step() -> str:
        """Do a step."""
        return "done"

    agent = Agent(model(ToolCall.of("step"), "a secret"), tools=[step], guardrails=[no_secrets])
    session = Session()
    with pytest.raises(GuardrailError):
        await agent.run("x", session=session)
    assert [message.role for message in session.messages] == ["user", "assistant", "tool"]


@both
async def test_an_answer_that_is_replaced(how):
    answering = model("my secret", "second")
    agent = Agent(answering, guardrails=[masking("output")])
    session = Session()
    result = await drive(agent, how, "x", session=session)
    assert result.output == "my ***"
    await drive(agent, how, "y", session=session)
    assert answering.requests[1].messages[1].text == "my ***"


async def test_raw_data_of_the_provider_goes_with_what_was_replaced():
    raw = {"openai_responses": {"text": "my secret"}}
    part = Text("my secret", provider=raw)
    answer = ModelResponse(Message("assistant", (part,), provider=raw), Usage())
    session = Session()
    await Agent(model(answer), guardrails=[masking("output")]).run("x", session=session)
    assert b"secret" not in session.export()


async def test_text_beside_calls_is_checked_before_the_tools_start():
    ran = []

    @tool(inline=True)
    def act() -> str:
        """Act."""
        ran.append(True)
        return "done"

    answer = ModelResponse(Message("assistant", (Text("a secret"), ToolCall.of("act"))), Usage())
    session = Session()
    with pytest.raises(GuardrailError):
        await Agent(model(answer), tools=[act], guardrails=[no_secrets]).run("x", session=session)
    assert not ran
    assert list(session.messages) == []


async def test_without_holding_back_deltas_come_at_once_and_the_answer_is_checked_at_its_end():
    seen = await events_of(Agent(model("it is a secret now"), guardrails=[no_secrets]), "x")
    assert "".join(texts(seen)) == "it is a secret now"
    assert not any(isinstance(event, MessageFinished) for event in seen)
    assert isinstance(seen[-1], GuardrailError)


async def test_what_is_held_back_is_seen_once_it_has_passed():
    agent = Agent(model("it is a secret now"), guardrails=[masking("output", hold_back=True)])
    seen = await events_of(agent, "x")
    assert texts(seen) == ["it is a *** now"]
    kinds = [type(event) for event in seen]
    assert kinds.index(TextDelta) < kinds.index(MessageFinished)


async def test_nothing_is_seen_of_an_answer_that_is_held_back_and_stopped():
    stopping = guardrail(on="output", hold_back=True)(no_secrets.check)
    seen = await events_of(Agent(model("it is a secret now"), guardrails=[stopping]), "x")
    assert not texts(seen)
    assert isinstance(seen[-1], GuardrailError)


async def test_a_structured_answer_is_checked_as_its_json():
    class Quote(msgspec.Struct):
        amount: int

    def check(context, text: str) -> None:
        if msgspec.json.decode(text)["amount"] > 9:
            raise GuardrailError("too dear")

    agent = Agent(model('{"amount": 3}', '{"amount": 30}'), guardrails=[Guardrail("price", check, "output")])
    assert (await agent.run("x", output=Quote)).output == Quote(3)
    with pytest.raises(GuardrailError, match="too dear"):
        await agent.run("x", output=Quote)


async def test_nothing_is_kept_of_an_answer_that_broke_off_unchecked():
    class Breaking(ScriptedModel):
        async def stream(self, request):
            yield TextDelta("a sec")
            raise ProviderError("down")

    for guardrails, kept in (([], ["x", "a sec"]), ([no_secrets], [])):
        session = Session()
        with pytest.raises(ProviderError):
            await drive(Agent(Breaking(["x"]), guardrails=guardrails), "stream", "x", session=session)
        assert [message.text for message in session.messages] == kept


# --- tools --------------------------------------------------------------------------------------------------------


@tool
async def echo(words: str) -> str:
    """Say it again."""
    return f"echo: {words}"


def results(result) -> list:
    return [part for message in result.messages if message.role == "tool" for part in message.parts]


@both
async def test_a_stopped_call_does_not_run(how):
    ran = []

    @tool(inline=True)
    def act(words: str) -> str:
        """Act."""
        ran.append(words)
        return words

    session = Session()
    agent = Agent(model(ToolCall.of("act", words="secret")), tools=[act], guardrails=[no_secrets])
    with pytest.raises(GuardrailError, match="stopped the call"):
        await drive(agent, how, "x", session=session)
    assert not ran
    assert [message.role for message in session.messages] == ["user", "assistant", "tool"]


async def test_a_stopped_result_is_not_in_the_view():
    @tool(inline=True)
    def look() -> str:
        """Look."""
        return "the secret of the page"

    session = Session()
    agent = Agent(model(ToolCall.of("look")), tools=[look], guardrails=[no_secrets])
    with pytest.raises(GuardrailError, match="stopped the result"):
        await agent.run("x", session=session)
    assert b"the page" not in session.export()


async def test_calls_and_results_that_are_replaced():
    masked = [masking("call", name="before"), masking("result", name="after")]
    agent = Agent(model(ToolCall.of("echo", words="a secret"), "done"), tools=[echo], guardrails=masked[:1])
    assert results(await agent.run("x"))[0].text == "echo: a ***"
    agent = Agent(model(ToolCall.of("echo", words="a secret"), "done"), tools=[echo], guardrails=masked[1:])
    assert results(await agent.run("x"))[0].text == "echo: a ***"


async def test_a_result_with_media_keeps_them():
    picture = Image(b"x", media_type="image/png")

    @tool(inline=True)
    def look() -> tuple:
        """Look."""
        return ("a secret", picture)

    agent = Agent(model(ToolCall.of("look"), "done"), tools=[look], guardrails=[masking("result")])
    result = results(await agent.run("x"))[0]
    assert [getattr(part, "text", part) for part in result.content] == ["a ***", picture]


async def test_the_model_may_be_told_and_the_run_goes_on():
    def check(context, text: str) -> None:
        if "rm -rf" in text:
            raise ModelRetry("Nothing may be removed.")

    agent = Agent(
        model(ToolCall.of("echo", words="rm -rf /"), ToolCall.of("echo", words="ls"), "done"),
        tools=[echo],
        guardrails=[Guardrail("shell", check, "call")],
    )
    told, done = results(await agent.run("x"))
    assert (told.text, told.outcome) == ("Nothing may be removed.", "error")
    assert done.text == "echo: ls"


async def test_of_several_calls_one_that_is_stopped_cancels_the_others():
    waiting = Slow()

    @tool
    async def wait() -> str:
        """Wait."""
        await waiting()

    agent = Agent(
        model([ToolCall.of("wait"), ToolCall.of("echo", words="secret")]),
        tools=[wait, echo],
        guardrails=[no_secrets],
    )
    session = Session()
    with pytest.raises(GuardrailError):
        await agent.run("x", session=session)
    assert len(session.messages[-1].parts) == 2


async def test_the_guardrail_of_an_inner_agent_tells_the_outer_model():
    inner = Agent(model("never"), name="inner", guardrails=[no_secrets])
    asking = model(ToolCall.of("ask", prompt="a secret"), "I could not.")
    result = await Agent(asking, tools=[inner.as_tool("ask", "Asks.")]).run("x")
    assert result.output == "I could not."
    assert "GuardrailError" in results(result)[0].text


# --- making them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": ""}, "name of a guardrail"),
        ({"check": 3}, "must be a function"),
        ({"check": lambda text: None}, "must take the run's context and a text"),
        ({"on": ()}, "must be some of"),
        ({"on": "everything"}, "must be some of"),
        ({"on": "output", "beside": True}, "only input"),
        ({"hold_back": True}, "only output"),
    ],
)
def test_what_no_guardrail_can_be_made_of(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        Guardrail(**{"name": "g", "check": lambda context, text: None, **arguments})


def test_an_agent_takes_guardrails_alone():
    with pytest.raises(ArgumentError, match="guardrails must be made of Guardrail, not function"):
        Agent("offline", guardrails=[lambda context, text: None])
    with pytest.raises(ArgumentError, match="guardrails must be a list"):
        Agent("offline", guardrails=no_secrets)


async def test_what_was_stopped_is_counted():
    recorder = enable_metrics(CollectorRegistry())
    try:
        with pytest.raises(GuardrailError):
            await Agent(model(), guardrails=[no_secrets]).run("secret")
        labels = {"guardrail": "no_secrets", "place": "input"}
        assert recorder.registry.get_sample_value("gossamer_guardrail_trips_total", labels) == 1
    finally:
        disable_metrics()


# --- ways around --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, 6))
async def test_a_withdrawn_answer_does_not_come_back_after_a_crash(cut):
    session = Session()
    with pytest.raises(GuardrailError):
        await Agent(model("the secret is 7"), guardrails=[no_secrets]).run("x", session=session)
    crashed = Session()
    for record in session.journal[:cut]:
        crashed.record(record)
    assert "secret" not in "".join(message.text for message in crashed.messages)
    if crashed.unfinished is not None:
        agent = Agent(model("clean"), guardrails=[no_secrets])
        assert (await agent.resume(crashed)).output == "clean"


@pytest.mark.parametrize("place", ["output", "result"])
async def test_what_a_tool_ends_the_run_with_is_checked(place):
    @tool(inline=True)
    def stop() -> str:
        """Stop."""
        raise EndRun("my secret")

    agent = Agent(model(ToolCall.of("stop")), tools=[stop], guardrails=[masking(place)])
    assert (await agent.run("x")).output == "my ***"
    stopping = guardrail(name="stop", on=place)(no_secrets.check)
    agent = Agent(model(ToolCall.of("stop")), tools=[stop], guardrails=[stopping])
    with pytest.raises(GuardrailError):
        await agent.run("x")


async def test_the_words_of_a_refusal_are_checked():
    answer = ModelResponse(Message("assistant", (Refusal("no secret"),)), Usage(), "refusal")
    assert (await Agent(model(answer), guardrails=[masking("output")]).run("x")).output == "no ***"


async def test_a_text_in_pieces_is_checked_as_it_reads():
    pieces = ModelResponse(Message("assistant", (Text("my sec"), Text("ret"))), Usage())
    result = await Agent(model(pieces), guardrails=[masking("output")]).run("x")
    assert result.output == "my ***"
    answering = model("fine")
    await Agent(answering, guardrails=[masking("input")]).run([Text("a sec"), Text("ret"), Text(" b")])
    assert answering.requests[0].messages[0].text == "a *** b"


async def test_an_answer_without_a_word_is_checked_too():
    def check(context, text):
        if not text:
            raise GuardrailError("nothing was said")

    empty = ModelResponse(Message("assistant", ()), Usage())
    with pytest.raises(GuardrailError, match="nothing was said"):
        await Agent(model(empty), guardrails=[Guardrail("words", check, "output")]).run("x")


@tool(inline=True, needs_approval=lambda amount: amount > 100)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def replacing(old: str, new: str, *places) -> Guardrail:
    return Guardrail(
        "replacing", lambda context, text: text.replace(old, new) if old in text else None, places
    )


async def test_a_policy_and_a_person_see_a_call_as_it_was_checked():
    for arguments, old, new in (('{"amount":5}', "5", "5000"), ('{"amount":5000 EUR}', " EUR", "")):
        agent = Agent(
            model(ToolCall("pay", arguments, "1"), "done"),
            tools=[pay],
            guardrails=[replacing(old, new, "call")],
        )
        session = Session()
        result = await agent.run("x", session=session)
        assert [pending.call.arguments for pending in result.pending] == ['{"amount":5000}']
        again = Session.from_export(session.export())
        await agent.resume(again, {"1": Approve()})
        assert [part.text for part in again.messages[2].parts] == ["paid 5000"]


async def test_middleware_that_mends_a_call_does_not_get_it_past_the_policy():
    class Mending(Middleware):
        async def tool(self, context, call, next):
            return await next(msgspec.structs.replace(call, arguments='{"amount":5000}'))

    agent = Agent(model(ToolCall("pay", "{broken", "1")), tools=[pay], middleware=[Mending()])
    assert (await agent.run("x")).pending


async def test_tools_of_callers_and_persons_are_checked():
    @tool(run_by="caller")
    def look(url: str) -> str:
        """Look."""

    agent = Agent(model(ToolCall.of("look", url="secret")), tools=[look], guardrails=[no_secrets])
    with pytest.raises(GuardrailError, match="stopped the call"):
        await agent.run("x")
    session = Session()
    agent = Agent(model(ToolCall.of("look", url="x"), "done"), tools=[look], guardrails=[masking("result")])
    paused = await agent.run("x", session=session)
    await agent.resume(session, {paused.pending[0].call_id: Answer("a secret")})
    assert session.messages[2].parts[0].text == "a ***"


async def test_a_call_that_was_refused_stays_refused_after_a_pause():
    ran = []

    @tool(inline=True)
    def act(words: str) -> str:
        """Act."""
        ran.append(words)
        return words

    def check(context, text):
        if "rm" in text:
            raise ModelRetry("Not that.")

    calls = [ToolCall.of("act", words="rm"), ToolCall.of("pay", amount=500)]
    agent = Agent(model(calls, "done"), tools=[act, pay], guardrails=[Guardrail("shell", check, "call")])
    session = Session()
    paused = await agent.run("x", session=session)
    result = await agent.resume(session, {paused.pending[0].call_id: Approve()})
    assert result.output == "done"
    assert not ran
    assert [part.text for part in session.messages[2].parts] == ["Not that.", "paid 500"]


async def test_the_error_of_a_broken_stream_does_not_tell_what_was_held_back():
    class Breaking(ScriptedModel):
        async def stream(self, request):
            yield TextDelta("a sec")
            raise ProviderError("down")

    stopping = guardrail(on="output", hold_back=True)(no_secrets.check)
    with pytest.raises(ProviderError) as caught:
        await drive(Agent(Breaking(["x"]), guardrails=[stopping]), "stream", "x")
    assert caught.value.text == ""


async def test_middleware_sees_what_was_held_back():
    class Silent(Middleware):
        def delta(self, context, delta):
            return None

    agent = Agent(model("plain words"), middleware=[Silent()], guardrails=[masking("output", hold_back=True)])
    assert not texts(await events_of(agent, "x"))


async def test_a_stream_that_is_dropped_while_checks_are_pending_is_cancelled(watch):
    answer, check = Slow(), Slow()
    session = Session()
    agent = Agent(ScriptedModel(answer.answer), guardrails=[check.beside()])
    stream = agent.stream("x", session=session)

    async def read():
        async for _ in stream:
            pass

    task = asyncio.create_task(read())
    await answer.began.wait()
    await check.began.wait()
    stream.cancel()
    await task
    failed = [record.error for record in session.journal if isinstance(record, RunFailedRecord)]
    assert failed == ["Cancelled"]
    assert answer.cancelled
    assert check.cancelled
