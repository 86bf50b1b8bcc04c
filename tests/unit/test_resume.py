"""Pausing and resuming: decisions, crashes, other processes; nothing that ran runs again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap

import pytest

from gossamer import (
    Agent,
    Answer,
    Approve,
    ArgumentError,
    Deny,
    GossamerError,
    LimitError,
    Limits,
    PendingCall,
    ResumeError,
    RunPausedError,
    Session,
    ToolCall,
    Usage,
    tool,
)
from gossamer.models import ScriptedModel
from gossamer.records import (
    ApprovalAskedRecord,
    ApprovalDecidedRecord,
    RunFailedRecord,
    ToolResultRecord,
    ToolStartedRecord,
)


def model(*replies) -> ScriptedModel:
    return ScriptedModel(list(replies))


class Bank:
    """Tools that write down what they did."""

    def __init__(self) -> None:
        self.done: list = []

        @tool(needs_approval=True)
        async def pay(amount: int) -> str:
            self.done.append(("pay", amount))
            return f"paid {amount}"

        @tool(needs_approval=lambda amount, to: amount > 100)
        async def send(amount: int, to: str = "bob") -> str:
            self.done.append(("send", amount, to))
            return f"sent {amount}"

        @tool
        async def look(what: str = "account") -> str:
            self.done.append(("look", what))
            return "100 euros"

        @tool(run_by="person")
        async def ask(question: str) -> str:
            raise AssertionError("a person answers")

        @tool(run_by="caller")
        async def render(page: str) -> str:
            raise AssertionError("the caller runs this")

        self.tools = [pay, send, look, ask, render]


def contents(result) -> list[str]:
    return [part.content for message in result.messages if message.role == "tool" for part in message.parts]


def outcomes(result) -> list[str]:
    return [part.outcome for message in result.messages if message.role == "tool" for part in message.parts]


async def test_approve():
    bank = Bank()
    scripted = model(ToolCall.of("pay", amount=5), "done")
    agent = Agent(scripted, tools=bank.tools)
    session = Session()
    paused = await agent.run("x", session=session)
    assert paused.finish_reason == "paused"
    assert paused.session is session
    (pending,) = paused.pending
    assert (pending.kind, pending.call.name, pending.run_id) == ("approval", "pay", paused.run_id)
    assert session.pending == paused.pending
    with pytest.raises(RunPausedError, match="pay") as caught:
        _ = paused.output
    assert caught.value.pending == paused.pending
    assert bank.done == []
    assert not any(isinstance(record, ToolStartedRecord) for record in session.journal)
    result = await agent.resume(session, {pending.call_id: Approve()})
    assert result.output == "done"
    assert result.run_id == paused.run_id
    assert result.usage == Usage(model_calls=2, tool_calls=1)
    assert bank.done == [("pay", 5)]
    assert contents(result) == ["paid 5"]
    assert [type(record) for record in session.journal if "pproval" in type(record).__name__] == [
        ApprovalAskedRecord,
        ApprovalDecidedRecord,
    ]
    assert len(scripted.requests) == 2


async def test_a_run_without_a_session_is_given_one_where_tools_may_pause():
    bank = Bank()
    agent = Agent(model(ToolCall.of("pay", amount=5), "done"), tools=bank.tools)
    paused = await agent.run("x")
    result = await agent.resume(paused.session, {paused.pending[0].call_id: Approve()})
    assert result.output == "done"
    assert [message.role for message in result.messages] == ["user", "assistant", "tool", "assistant"]


async def test_approve_with_edited_arguments():
    bank = Bank()
    agent = Agent(model(ToolCall.of("pay", amount=500), "done"), tools=bank.tools)
    paused = await agent.run("x")
    result = await agent.resume(paused.session, {paused.pending[0].call_id: Approve({"amount": 50})})
    assert bank.done == [("pay", 50)]
    assert contents(result) == ["paid 50"]
    assert result.messages[1].tool_calls[0].arguments == '{"amount":500}'


async def test_deny_tells_the_model_why():
    bank = Bank()
    agent = Agent(model(ToolCall.of("pay", amount=500), "as you wish"), tools=bank.tools)
    paused = await agent.run("x")
    result = await agent.resume(paused.session, {paused.pending[0].call_id: Deny("too much")})
    assert bank.done == []
    assert outcomes(result) == ["denied"]
    assert "too much" in contents(result)[0]
    assert result.output == "as you wish"
    assert result.usage.tool_calls == 0


async def test_answers_to_questions_and_results_of_tools_that_the_caller_ran():
    bank = Bank()
    calls = [ToolCall.of("ask", question="Which?"), ToolCall.of("render", page="home")]
    agent = Agent(model(calls, "done"), tools=bank.tools)
    paused = await agent.run("x")
    assert [pending.kind for pending in paused.pending] == ["question", "caller"]
    ask, render = (pending.call_id for pending in paused.pending)
    result = await agent.resume(paused.session, {ask: Answer("the blue one"), render: Answer({"ok": True})})
    assert contents(result) == ["the blue one", '{"ok":true}']
    assert outcomes(result) == ["ok", "ok"]


async def test_calls_that_need_no_decision_run_first_and_only_once():
    bank = Bank()
    calls = [
        ToolCall.of("pay", amount=1),
        ToolCall.of("look"),
        ToolCall.of("send", amount=5, to="al"),
        ToolCall.of("send", amount=500, to="al"),
    ]
    agent = Agent(model(calls, "done"), tools=bank.tools)
    paused = await agent.run("x")
    assert sorted(bank.done) == [("look", "account"), ("send", 5, "al")]
    assert [pending.call.name for pending in paused.pending] == ["pay", "send"]
    assert [message.role for message in paused.messages] == ["user"]
    first, second = (pending.call_id for pending in paused.pending)
    again = await agent.resume(paused.session, {second: Approve()})
    assert [pending.call_id for pending in again.pending] == [first]
    assert again.session.pending == again.pending
    assert bank.done[2:] == [("send", 500, "al")]
    still = await agent.resume(paused.session)
    assert still.pending == again.pending
    result = await agent.resume(paused.session, {first: Approve()})
    assert contents(result) == ["paid 1", "100 euros", "sent 5", "sent 500"]
    assert len(bank.done) == 4
    assert result.usage == Usage(model_calls=2, tool_calls=4)
    asked = [record for record in paused.session.journal if isinstance(record, ApprovalAskedRecord)]
    assert len(asked) == 2


async def test_a_condition_on_the_arguments_may_be_async_and_bad_arguments_go_back_to_the_model():
    asked = []

    async def costly(amount: int) -> bool:
        await asyncio.sleep(0)
        asked.append(amount)
        return amount > 10

    @tool(needs_approval=costly)
    async def buy(amount: int) -> str:
        return f"bought {amount}"

    calls = [ToolCall("buy", '{"amount": "x"}'), ToolCall.of("buy", amount=3)]
    agent = Agent(model(calls, ToolCall.of("buy", amount=30), "done"), tools=[buy])
    paused = await agent.run("x")
    assert asked == [3, 30]
    assert outcomes(paused) == ["error", "ok"]
    assert len(paused.pending) == 1


async def test_the_calls_of_a_paused_turn_are_not_in_the_view_until_they_have_results():
    bank = Bank()
    agent = Agent(model(ToolCall.of("pay", amount=5), "done"), tools=bank.tools)
    paused = await agent.run("x")
    assert [message.role for message in paused.messages] == ["user"]
    result = await agent.resume(paused.session, {paused.pending[0].call_id: Approve()})
    assert [message.role for message in result.messages] == ["user", "assistant", "tool", "assistant"]


# --- what is refused ----------------------------------------------------------------------------------------


async def paused_session():
    bank = Bank()
    calls = [ToolCall.of("pay", amount=5), ToolCall.of("ask", question="?"), ToolCall.of("render", page="p")]
    agent = Agent(model(calls, "done", "more"), tools=bank.tools, name="cashier")
    paused = await agent.run("x", session=Session())
    return bank, agent, paused.session, [pending.call_id for pending in paused.pending]


async def test_decisions_that_do_not_fit_are_refused_and_change_nothing():
    bank, agent, session, (pay, ask, render) = await paused_session()
    cases = [
        ({"nonsense": Approve()}, "'nonsense' does not wait"),
        ({pay: Approve(), "nonsense": Approve()}, "'nonsense'"),
        ({pay: Answer("yes")}, "wants Approve or Deny"),
        ({ask: Approve()}, "wants an Answer"),
        ({render: Approve()}, "wants an Answer"),
        ({pay: "yes"}, "not str"),
        ({pay: True}, "not bool"),
        ({pay: Approve}, "not StructMeta"),
        ({ask: Answer(object())}, "JSON"),
        ({pay: Approve({"amount": object()})}, "JSON"),
        ({pay: Approve("all of it")}, "args"),
    ]
    before = session.export()
    for decisions, message in cases:
        with pytest.raises(ResumeError, match=message):
            await agent.resume(session, decisions)
        assert session.export() == before
    result = await agent.resume(session, {pay: Approve(), ask: Answer("a"), render: Deny("no")})
    assert result.output == "done"
    assert outcomes(result) == ["ok", "ok", "denied"]
    assert bank.done == [("pay", 5)]


async def test_resuming_twice_is_refused_also_at_the_same_time():
    bank, agent, session, (pay, ask, render) = await paused_session()
    decisions = {pay: Approve(), ask: Answer("a"), render: Answer("r")}
    results = await asyncio.gather(
        agent.resume(session, decisions), agent.resume(session, decisions), return_exceptions=True
    )
    assert results[0].output == "done"
    assert isinstance(results[1], ResumeError)
    with pytest.raises(ResumeError, match="no unfinished run"):
        await agent.resume(session, decisions)
    assert bank.done == [("pay", 5)]
    assert (await agent.run("next", session=session)).output == "more"


async def test_another_agent_may_not_resume():
    _, agent, session, (pay, *_) = await paused_session()
    before = session.export()
    with pytest.raises(ResumeError, match="agent 'cashier', not of 'clerk'"):
        await agent.replace(name="clerk").resume(session, {pay: Approve()})
    assert session.export() == before


async def test_a_fresh_session_has_nothing_to_resume():
    session = Session()
    with pytest.raises(ResumeError, match="no unfinished run"):
        await Agent(model("x")).resume(session)
    with pytest.raises(ArgumentError, match="session"):
        await Agent(model("x")).resume("chat-1")
    assert session.journal == ()


async def test_running_on_a_paused_session_raises_or_denies_as_told():
    bank, agent, session, calls = await paused_session()
    before = session.export()
    with pytest.raises(RunPausedError, match="resume") as caught:
        await agent.run("hello?", session=session)
    assert [pending.call_id for pending in caught.value.pending] == calls
    with pytest.raises(RunPausedError):
        async with agent.stream("hello?", session=session) as stream:
            async for _ in stream:
                pass
    assert session.export() == before
    result = await agent.run("never mind", session=session, pending="deny")
    assert result.output == "done"
    assert outcomes(result) == ["denied"] * 3
    assert bank.done == []
    assert session.pending == ()
    assert [message.role for message in session.messages] == [
        "user",
        "assistant",
        "tool",
        "user",
        "assistant",
    ]
    with pytest.raises(ResumeError):
        await agent.resume(session, {calls[0]: Approve()})


async def test_a_failure_after_the_approved_tool_ran_does_not_run_it_again():
    bank = Bank()
    agent = Agent(
        model(ToolCall.of("pay", amount=5), ValueError("the model is down"), "I see it was paid"),
        tools=bank.tools,
    )
    paused = await agent.run("x")
    with pytest.raises(ValueError, match="down"):
        await agent.resume(paused.session, {paused.pending[0].call_id: Approve()})
    result = await agent.run("and?", session=paused.session)
    assert result.output == "I see it was paid"
    assert bank.done == [("pay", 5)]
    assert contents(result) == ["paid 5"]


async def test_limits_go_on_from_where_they_stood():
    bank = Bank()
    replies = [[ToolCall.of("look"), ToolCall.of("pay", amount=5)], ToolCall.of("look"), "never"]
    agent = Agent(model(*replies), tools=bank.tools, limits=Limits(max_tool_calls=2))
    paused = await agent.run("x")
    assert paused.usage.tool_calls == 1
    result = await agent.resume(paused.session, {paused.pending[0].call_id: Approve()})
    assert result.stopped.limit == "max_tool_calls"
    assert bank.done == [("look", "account"), ("pay", 5)]
    turns = Agent(model(ToolCall.of("pay", amount=5), "never"), tools=bank.tools, limits=Limits(max_turns=1))
    paused = await turns.run("x")
    result = await turns.resume(paused.session, {paused.pending[0].call_id: Approve()})
    with pytest.raises(LimitError, match="max_turns"):
        _ = result.output


async def test_streaming_a_resumed_run():
    bank = Bank()
    agent = Agent(model(ToolCall.of("pay", amount=5), "all done"), tools=bank.tools)
    paused = await agent.run("x")
    async with agent.resume_stream(paused.session, {paused.pending[0].call_id: Approve()}) as stream:
        kinds = [type(event).__name__ async for event in stream]
    assert kinds[0] == "RunStarted"
    assert kinds[1] == "ToolCallFinished"
    assert kinds[-1] == "RunFinished"
    assert stream.result.output == "all done"


# --- another process ----------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
from gossamer import Agent, Approve, Session, ToolCall, tool
from gossamer.models import ScriptedModel

@tool(needs_approval=True)
async def pay(amount: int) -> str:
    print("PAYING", amount)
    return f"paid {amount}"

@tool
async def look() -> str:
    print("LOOKING")
    return "100"

async def begin(path):
    calls = [ToolCall.of("look"), ToolCall.of("pay", amount=5)]
    agent = Agent(ScriptedModel([calls]), tools=[pay, look])
    session = Session("s1", state={"n": 0})
    session.update(n=3)
    await agent.run("please", session=session)
    open(path, "wb").write(session.export())

async def go_on(path):
    session = Session.from_export(open(path, "rb").read())
    agent = Agent(ScriptedModel(["thank you"]), tools=[pay, look])
    (pending,) = session.pending
    result = await agent.resume(session, {pending.call_id: Approve()})
    assert session.state == {"n": 3}
    print(result.output, [part.content for part in result.messages[2].parts], result.usage.tool_calls)

asyncio.run({"begin": begin, "go_on": go_on}[sys.argv[1]](sys.argv[2]))
"""


def test_a_session_paused_here_is_resumed_in_another_process(tmp_path):
    path = str(tmp_path / "session.json")
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))

    def start(what: str) -> str:
        done = subprocess.run(
            [sys.executable, str(program), what, path],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert start("begin") == "LOOKING\n"
    assert start("go_on") == "PAYING 5\nthank you ['100', 'paid 5'] 2\n"


# --- after a crash ------------------------------------------------------------------------------------------


class Crash:
    """A run whose process dies while its tools run: what was stored by then, and what ran."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.exported = b""
        self.session = Session(state={"step": 0})
        self.die = asyncio.Event()
        self.live_on = asyncio.Event()
        self.live_on.set()

        async def work(name: str) -> str:
            self.begun.append(name)
            if name.startswith("slow"):
                await self.live_on.wait()
            return f"{name} done"

        self.tools = [
            tool(name="once")(work),
            tool(name="again", idempotent=True)(work),
            tool(name="alone", exclusive=True)(work),
            tool(name="asking", needs_approval=True)(work),
        ]

    async def crash(self, calls) -> Session:
        """Run until every tool that can begin has begun, and take what a store would hold at that moment."""
        self.live_on.clear()
        agent = Agent(model(calls), tools=self.tools)
        task = asyncio.create_task(agent.run("go", session=self.session))
        for _ in range(20):
            await asyncio.sleep(0)
        exported = self.session.export()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        self.live_on.set()
        self.begun.clear()
        return Session.from_export(exported)


CALLS = [
    ToolCall.of("once", name="quick"),
    ToolCall.of("once", name="slow"),
    ToolCall.of("again", name="slow again"),
    ToolCall.of("alone", name="late"),
    ToolCall.of("asking", name="asked"),
]


async def test_resuming_after_a_crash_runs_nothing_twice_that_may_not_run_twice():
    crash = Crash()
    session = await crash.crash(CALLS)
    assert session.unfinished is not None
    assert session.messages[-1].role == "user"
    scripted = model("I will look into it")
    agent = Agent(scripted, tools=crash.tools)
    paused = await agent.resume(session)
    assert sorted(crash.begun) == ["late", "slow again"]
    result = await agent.resume(session, {paused.pending[0].call_id: Approve()})
    assert sorted(crash.begun) == ["asked", "late", "slow again"]
    assert outcomes(result) == ["ok", "unknown", "ok", "ok", "ok"]
    assert contents(result)[0] == "quick done"
    assert "unknown" in contents(result)[1]
    assert contents(result)[2:] == ["slow again done", "late done", "asked done"]
    assert result.output == "I will look into it"
    starts = [record.call_id for record in session.journal if isinstance(record, ToolStartedRecord)]
    once = {call.id for call in result.messages[1].tool_calls if call.name != "again"}
    assert all(starts.count(call_id) == 1 for call_id in once)


async def test_running_after_a_crash_closes_the_broken_run_and_answers():
    crash = Crash()
    session = await crash.crash(CALLS)
    scripted = model("on we go")
    result = await Agent(scripted, tools=crash.tools, name="another").run("are you there?", session=session)
    assert result.output == "on we go"
    assert crash.begun == []
    assert outcomes(result) == ["ok", "unknown", "unknown", "not_run", "not_run"]
    assert [message.role for message in scripted.requests[0].messages] == [
        "user",
        "assistant",
        "tool",
        "user",
    ]
    failed = [record for record in session.journal if isinstance(record, RunFailedRecord)]
    assert [record.error for record in failed] == ["Abandoned"]
    with pytest.raises(ResumeError):
        await Agent(scripted, tools=crash.tools).resume(session)


async def test_a_crash_before_the_model_answered_asks_it_again():
    session = Session()
    never = asyncio.Event()

    async def hang(request):
        await never.wait()

    task = asyncio.create_task(Agent(ScriptedModel(hang)).run("hello", session=session))
    for _ in range(5):
        await asyncio.sleep(0)
    exported = session.export()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    resumed = Session.from_export(exported)
    scripted = model("hi")
    assert (await Agent(scripted).resume(resumed)).output == "hi"
    assert [message.text for message in scripted.requests[0].messages] == ["hello"]
    abandoned = Session.from_export(exported)
    assert (await Agent(model("yes")).run("still there?", session=abandoned)).output == "yes"
    assert [message.text for message in abandoned.messages] == ["still there?", "yes"]


async def test_a_crash_after_the_last_result_goes_on_with_the_model():
    crash = Crash()

    async def die(request):
        if len(request.messages) == 1:
            return ToolCall.of("once", name="quick")
        crash.exported = crash.session.export()
        raise SystemError("gone")

    with pytest.raises(SystemError):
        await Agent(ScriptedModel(die), tools=crash.tools).run("go", session=crash.session)
    session = Session.from_export(crash.exported)
    crash.begun.clear()
    result = await Agent(model("fine"), tools=crash.tools).resume(session)
    assert (result.output, crash.begun) == ("fine", [])
    assert result.usage == Usage(model_calls=2, tool_calls=1)


async def test_every_moment_of_a_run_may_be_its_last():
    """The journal cut after each record, resumed: no tool that is not idempotent starts a second time."""
    crash = Crash()
    calls = [CALLS[0], CALLS[3]]
    agent = Agent(model(calls, ToolCall.of("once", name="second"), "end"), tools=crash.tools)
    await agent.run("go", session=crash.session)
    import msgspec

    whole = msgspec.json.decode(crash.session.export())
    for length in range(1, len(whole["journal"])):
        cut = {**whole, "journal": whole["journal"][:length]}
        session = Session.from_export(msgspec.json.encode(cut))
        started = [record.call_id for record in session.journal if isinstance(record, ToolStartedRecord)]
        stored = {record.result.call_id for record in session.journal if isinstance(record, ToolResultRecord)}
        crash.begun.clear()
        result = await Agent(ScriptedModel(lambda request: "end"), tools=crash.tools).resume(session)
        assert result.output == "end"
        begun = [record.call_id for record in session.journal if isinstance(record, ToolStartedRecord)]
        assert len(begun) == len(set(begun))
        assert len(crash.begun) == len(begun) - len(started)
        lost = [
            part
            for message in result.messages
            for part in message.parts
            if getattr(part, "outcome", "") == "unknown"
        ]
        assert {part.call_id for part in lost} == set(started) - stored
        assert list(Session.from_export(session.export()).messages) == list(result.messages)


async def test_pending_calls_are_plain_data():
    _, _, session, calls = await paused_session()
    assert all(isinstance(pending, PendingCall) for pending in session.pending)
    again = Session.from_export(session.export())
    assert [pending.call_id for pending in again.pending] == calls
    assert again.pending == session.pending
    assert issubclass(ResumeError, GossamerError)
