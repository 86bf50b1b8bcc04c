"""Sessions: the journal, the view computed from it, and who may use one when."""

from __future__ import annotations

import asyncio
import dataclasses

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gossamer import (
    Agent,
    Approve,
    ArgumentError,
    Deny,
    Limits,
    Message,
    RunContext,
    RunPausedError,
    Session,
    SessionBusyError,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    tool,
)
from gossamer.errors import DecodeError
from gossamer.models import ScriptedModel
from gossamer.records import (
    MessageRecord,
    RunFailedRecord,
    RunFinishedRecord,
    RunStartedRecord,
    StateRecord,
    ToolResultRecord,
    ToolStartedRecord,
    ViewMovedRecord,
)


def model(*replies) -> ScriptedModel:
    return ScriptedModel(list(replies))


def texts(messages) -> list[str]:
    return [message.text for message in messages]


@tool(inline=True)
def double(number: int) -> int:
    """Double a number."""
    return number * 2


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


# --- the journal --------------------------------------------------------------------------------------------


async def test_records_come_in_order_and_a_start_before_its_tool():
    session = Session()
    seen = {}

    @tool
    async def look(context: RunContext) -> str:
        seen["kinds"] = [type(record).__name__ for record in session.journal]
        seen["last"] = session.journal[-1]
        seen["call"] = context.call.id
        return "looked"

    agent = Agent(model([ToolCall("look"), ToolCall.of("double", number=1)], "done"), tools=[look, double])
    result = await agent.run("x", session=session, user="ada")
    assert seen["kinds"][:3] == ["RunStartedRecord", "MessageRecord", "MessageRecord"]
    kinds = [type(record).__name__ for record in session.journal]
    assert kinds[0] == "RunStartedRecord"
    assert kinds[-2:] == ["MessageRecord", "RunFinishedRecord"]
    assert {record.run for record in session.journal} == {result.run_id}
    assert (session.journal[0].agent, session.journal[0].user) == ("agent", "ada")
    places = {}
    for place, record in enumerate(session.journal):
        if isinstance(record, ToolStartedRecord):
            places["started", record.call_id] = place
        elif isinstance(record, ToolResultRecord):
            places["result", record.result.call_id] = place
    for call in result.messages[1].tool_calls:
        assert places["started", call.id] < places["result", call.id]
    assert isinstance(session.journal[places["started", seen["call"]]], ToolStartedRecord)
    assert seen["last"] in session.journal
    assert any(
        record.call_id == seen["call"] for record in session.journal if isinstance(record, ToolStartedRecord)
    )
    assert session.journal[-1].finish_reason == "stop"
    usages = [record.usage for record in session.journal if isinstance(record, MessageRecord)]
    assert usages == [None, Usage(model_calls=1), Usage(model_calls=1)]
    assert session.journal[-1].usage == result.usage == Usage(model_calls=2, tool_calls=2)


async def test_deltas_are_no_records():
    session = Session()
    async with Agent(model("many words in one answer")).stream("x", session=session) as stream:
        async for _ in stream:
            pass
    assert [type(record) for record in session.journal] == [
        RunStartedRecord,
        MessageRecord,
        MessageRecord,
        RunFinishedRecord,
    ]


async def test_the_journal_cannot_be_changed_through_what_is_given_out():
    session = Session()
    await Agent(model("a")).run("x", session=session)
    journal = session.journal
    assert isinstance(journal, tuple)
    with pytest.raises(AttributeError):
        journal[0].run = "other"


async def test_any_agent_may_take_part():
    session = Session()
    second = model("two")
    await Agent(model("one"), name="a").run("x", session=session)
    await Agent(second, name="b").run("y", session=session)
    assert texts(second.requests[0].messages) == ["x", "one", "y"]
    assert [record.agent for record in session.journal if isinstance(record, RunStartedRecord)] == ["a", "b"]


# --- the view -----------------------------------------------------------------------------------------------


async def test_the_window_bounds_the_view_and_separates_no_pair():
    scripted = ScriptedModel(
        lambda request: ToolCall.of("double", number=1) if request.messages[-1].role == "user" else "ok"
    )
    agent = Agent(scripted, tools=[double])
    session = Session(window=10)
    for number in range(30):
        await agent.run(f"question {number}", session=session)
        assert valid(session.messages)
    assert len(session.messages) <= 10 + 4
    assert all(len(request.messages) <= 10 + 4 for request in scripted.requests)
    assert all(request.messages[0].role == "user" for request in scripted.requests)
    assert sum(isinstance(record, MessageRecord) for record in session.journal) == 90
    assert any(record.reason == "window" for record in session.journal if isinstance(record, ViewMovedRecord))


@pytest.mark.parametrize("window", [1, 2, 3])
async def test_the_smallest_windows_work(window):
    agent = Agent(
        ScriptedModel(
            lambda request: ToolCall.of("double", number=1) if request.messages[-1].role == "user" else "ok"
        ),
        tools=[double],
    )
    session = Session(window=window)
    for number in range(6):
        assert (await agent.run(str(number), session=session)).output == "ok"
        assert valid(session.messages)


async def test_add_and_rewind_and_branch():
    session = Session(state={"n": 0})
    session.add(Message.user("from elsewhere"))
    session.add(Message.assistant("noted"))
    agent = Agent(model("a", "b", "c", "d"))
    await agent.run("one", session=session)
    session.update(n=1)
    await agent.run("two", session=session)
    branch = session.branch(session.starts[-1], id="fork")
    assert (branch.id, branch.state, texts(branch.messages)[-1]) == ("fork", {"n": 1}, "a")
    before = len(session.journal)
    session.rewind(session.starts[-1])
    assert texts(session.messages) == ["from elsewhere", "noted", "one", "a"]
    assert len(session.journal) == before + 1
    await agent.run("other two", session=session)
    assert texts(session.messages)[-2:] == ["other two", "c"]
    await agent.run("on the branch", session=branch)
    assert texts(branch.messages)[-2:] == ["on the branch", "d"]
    assert "on the branch" not in texts(session.messages)
    session.rewind(0)
    assert len(session.messages) == 0
    whole = session.branch()
    assert whole.id != session.id
    for place in (-1, len(session.journal) + 1):
        with pytest.raises(ArgumentError, match="no place"):
            session.rewind(place)
        with pytest.raises(ArgumentError, match="no place"):
            session.branch(place)


def test_a_turn_that_is_rewound_waits_for_nothing():
    session = Session()
    session.add(Message.user("hi"))
    session.add(Message("assistant", (ToolCall("look", id="1"),)))
    session.rewind(1)
    session.add(Message.user("again"))
    assert texts(session.messages) == ["hi", "again"]


@pytest.mark.parametrize(("name", "value"), [("window", 0), ("when_busy", "sometimes"), ("max_waiting", -1)])
def test_arguments_of_a_session_are_checked(name, value):
    with pytest.raises(ArgumentError, match=name):
        Session(**{name: value})


# --- state --------------------------------------------------------------------------------------------------


class Basket(msgspec.Struct):
    items: list[str] = []
    owner: str = ""


@dataclasses.dataclass
class Counter:
    count: int = 0


async def test_typed_state_is_merged_by_fields_and_kept_in_the_journal():
    session: Session[Basket] = Session(state=Basket(owner="ada"))

    @tool
    async def buy(context: RunContext, item: str) -> str:
        context.session.update(items=[*context.state.items, item])
        return "bought"

    calls = [ToolCall.of("buy", item="tea"), ToolCall.of("buy", item="milk")]
    result = await Agent(model(*calls, "done"), tools=[buy]).run("x", session=session)
    assert session.state == Basket(["tea", "milk"], "ada")
    patches = [record for record in session.journal if isinstance(record, StateRecord)]
    assert [record.patch for record in patches] == [{"items": ["tea"]}, {"items": ["tea", "milk"]}]
    assert {record.run for record in patches} == {result.run_id}
    again = Session.from_export(session.export(), state=Basket())
    assert again.state == session.state
    counter = Session(state=Counter(1))
    counter.update({"count": 5})
    assert counter.state == Counter(5)
    free = Session()
    free.update(a=1)
    free.update({"b": 2}, a=3)
    assert free.state == {"a": 3, "b": 2}


async def test_a_merge_rule_of_ones_own():
    def add(state, patch):
        return state + patch["by"]

    session: Session[int] = Session(state=10, merge=add)
    session.update(by=5)
    session.update(by=7)
    assert session.state == 22
    assert Session.from_export(session.export(), merge=add).state == 22
    assert session.branch(1).state == 15


async def test_a_bad_patch_changes_nothing():
    session = Session(state=Basket(owner="ada"))
    with pytest.raises((ArgumentError, ValueError)):
        session.update(items=5)
    with pytest.raises((ArgumentError, ValueError, TypeError)):
        session.update(owner=object())
    assert session.state == Basket(owner="ada")
    assert session.journal == ()
    assert Session.from_export(session.export(), state=Basket()).state == session.state
    rule_less = Session(state=5)
    with pytest.raises(ArgumentError, match="merge"):
        rule_less.update(a=1)
    assert Session.from_export(rule_less.export()).state == 5


# --- who may use it when ------------------------------------------------------------------------------------


class Gate:
    """An answer that waits, and who asked in which order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = asyncio.Event()

    async def __call__(self, request) -> str:
        self.asked.append(request.messages[-1].text)
        await self.open.wait()
        return f"answer to {request.messages[-1].text}"


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_runs_on_one_session_queue_up_in_order_and_never_mix():
    gate = Gate()
    session = Session()
    agent = Agent(ScriptedModel(gate))
    runs = [asyncio.create_task(agent.run(f"q{number}", session=session)) for number in range(5)]
    await until(lambda: gate.asked)
    for _ in range(10):
        await asyncio.sleep(0)
    assert gate.asked == ["q0"]
    with pytest.raises(SessionBusyError, match="add"):
        session.add(Message.user("in between"))
    with pytest.raises(SessionBusyError, match="rewind"):
        session.rewind(0)
    gate.open.set()
    await asyncio.gather(*runs)
    expected = [text for number in range(5) for text in (f"q{number}", f"answer to q{number}")]
    assert texts(session.messages) == expected
    runs_of = [record.run for record in session.journal]
    assert runs_of == sorted(runs_of, key=runs_of.index)


async def test_a_session_may_refuse_a_second_run():
    gate = Gate()
    session = Session(when_busy="refuse")
    agent = Agent(ScriptedModel(gate))
    first = asyncio.create_task(agent.run("first", session=session))
    await until(lambda: gate.asked)
    with pytest.raises(SessionBusyError, match="held by run"):
        await agent.run("second", session=session)
    with pytest.raises(SessionBusyError):
        async with agent.stream("third", session=session) as stream:
            async for _ in stream:
                pass
    gate.open.set()
    await first
    assert texts(session.messages) == ["first", "answer to first"]
    assert not any(isinstance(record, RunFailedRecord) for record in session.journal)


async def test_the_queue_has_a_limit():
    gate = Gate()
    session = Session(max_waiting=2)
    agent = Agent(ScriptedModel(gate))
    runs = [asyncio.create_task(agent.run(f"q{number}", session=session)) for number in range(3)]
    await until(lambda: gate.asked)
    await asyncio.sleep(0)
    with pytest.raises(SessionBusyError, match="2 runs already wait"):
        await agent.run("one too many", session=session)
    gate.open.set()
    await asyncio.gather(*runs)
    assert len(session.messages) == 6


async def test_a_waiting_run_that_is_cancelled_leaves_the_queue():
    gate = Gate()
    session = Session()
    agent = Agent(ScriptedModel(gate))
    holder = asyncio.create_task(agent.run("holder", session=session))
    await until(lambda: gate.asked)
    waiting = asyncio.create_task(agent.run("waiting", session=session))
    last = asyncio.create_task(agent.run("last", session=session))
    for _ in range(3):
        await asyncio.sleep(0)
    holder.cancel()
    waiting.cancel()
    gate.open.set()
    results = await asyncio.wait_for(asyncio.gather(holder, waiting, last, return_exceptions=True), 5)
    assert isinstance(results[1], asyncio.CancelledError)
    assert results[2].output == "answer to last"
    assert "waiting" not in texts(session.messages)


async def test_cancelled_and_handed_over_in_every_order():
    """The moments of cancelling and of letting go, moved against each other turn by turn of the event loop."""
    for lead in range(-4, 5):
        gate = Gate()
        session = Session()
        agent = Agent(ScriptedModel(gate))
        holder = asyncio.create_task(agent.run("holder", session=session))
        await until(lambda gate=gate: gate.asked)
        waiting = asyncio.create_task(agent.run("waiting", session=session))
        last = asyncio.create_task(agent.run("last", session=session))
        for _ in range(3):
            await asyncio.sleep(0)
        steps = [lambda gate=gate: gate.open.set(), waiting.cancel]
        if lead < 0:
            steps.reverse()
        steps[0]()
        for _ in range(abs(lead)):
            await asyncio.sleep(0)
        steps[1]()
        done = await asyncio.wait_for(asyncio.gather(holder, waiting, last, return_exceptions=True), 5)
        assert done[2].output == "answer to last"
        assert isinstance(done[1], asyncio.CancelledError) or done[1].output == "answer to waiting"
        assert session.unfinished is None


def test_a_session_serves_two_event_loops_one_after_the_other():
    session = Session()
    agent = Agent(ScriptedModel(lambda request: str(len(request.messages))), limits=Limits(max_seconds=60))
    outputs = [asyncio.run(agent.run("x", session=session)).output for _ in range(3)]
    assert outputs == ["1", "3", "5"]
    assert agent.run_sync("x", session=session).output == "7"


def test_a_loop_that_ends_in_the_middle_leaves_the_session_usable(watch):
    watch.patience = 0
    session = Session()

    async def half() -> None:
        gate = Gate()
        agent = Agent(ScriptedModel(gate))
        tasks = [asyncio.create_task(agent.run(text, session=session)) for text in ("a", "b", "c")]
        await until(lambda: gate.asked)
        assert len(tasks) == 3

    asyncio.run(half())
    watch.leaked_tasks.clear()  # left on purpose
    assert session.unfinished is None
    assert asyncio.run(asyncio.wait_for(Agent(model("fine")).run("x", session=session), 5)).output == "fine"
    assert texts(session.messages) == ["x", "fine"]


# --- JSON ---------------------------------------------------------------------------------------------------


async def test_export_and_import_lose_nothing():
    session = Session("ticket-42", window=7, state={"n": 1}, when_busy="refuse", max_waiting=3)

    @tool(max_result_chars=100)
    async def long() -> str:
        return "needle" + "x" * 500

    agent = Agent(model([ToolCall("long"), ToolCall.of("double", number=2)], "done"), tools=[long, double])
    await agent.run("x", session=session)
    session.update(n=2)
    again = Session.from_export(session.export())
    assert (again.id, again.window, again.holding.when_busy, again.holding.max_waiting) == (
        "ticket-42",
        7,
        "refuse",
        3,
    )
    assert again.state == {"n": 2}
    assert again.journal == session.journal
    assert list(again.messages) == list(session.messages)
    assert again.offload.texts == session.offload.texts
    assert again.export() == session.export()
    assert Session.from_export(session.export().decode()).export() == session.export()


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"nonsense", b'{"schema":1,"id":"x","unknown":1}'])
def test_damaged_exports_are_a_typed_error(data):
    with pytest.raises(DecodeError):
        Session.from_export(data)


def test_an_export_of_a_newer_version_is_refused_by_its_version():
    exported = msgspec.json.decode(Session().export())
    exported["schema"] = 99
    with pytest.raises(DecodeError, match="99"):
        Session.from_export(msgspec.json.encode(exported))


# --- any history --------------------------------------------------------------------------------------------


def valid(messages) -> bool:
    """Whether each answer with calls is followed by exactly their results, and no result stands elsewhere."""
    expected: list[str] = []
    for message in messages:
        results = [part.call_id for part in message.parts if isinstance(part, ToolResult)]
        if results != expected:
            return False
        expected = [call.id for call in message.tool_calls] if message.role == "assistant" else []
    return not expected


@tool
async def fail(number: int) -> str:
    """Fail."""
    raise ValueError("no")


class Conversations(RuleBasedStateMachine):
    """Runs, failures, pauses, rewinds and branches in any order: the view is always valid and import is exact."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.session = Session(window=6)
        self.script: list = []
        self.views: list[list] = []
        self.agent = Agent(ScriptedModel(self.reply), tools=[double, fail, pay])

    def teardown(self) -> None:
        self.loop.close()

    def reply(self, request):
        assert valid(request.messages), "the model saw a broken view"
        self.views.append(list(request.messages))
        return self.script.pop(0) if self.script else "an answer"

    def finish(self, coroutine):
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 10))

    @rule(
        turns=st.lists(
            st.lists(st.sampled_from(["double", "fail", "nothing"]), min_size=1, max_size=3), max_size=3
        ),
        ending=st.sampled_from(["answer", "error", "limit", "stop", "pause"]),
        deny=st.booleans(),
    )
    def run(self, turns, ending, deny):
        self.script = [[ToolCall.of(name, number=1) for name in names] for names in turns]
        limits = None
        if ending == "error":
            self.script.append(ValueError("broken"))
        elif ending == "limit":
            limits = Limits(max_turns=max(len(turns), 1))
            self.script.append(ToolCall.of("double", number=1))
        elif ending == "pause":
            self.script.append([ToolCall.of("double", number=1), ToolCall.of("pay", amount=1)])
        was_paused = bool(self.session.pending)
        pending = "deny" if deny else "raise"
        try:
            if ending == "stop":
                self.finish(self.stop_after(len(turns) + 2, pending))
            else:
                self.finish(self.agent.run("question", session=self.session, limits=limits, pending=pending))
        except RunPausedError:
            assert was_paused
            assert not deny
        except ValueError as error:
            if ending != "error":
                raise AssertionError from error

    async def stop_after(self, events, pending):
        async with self.agent.stream("question", session=self.session, pending=pending) as stream:
            async for _ in stream:
                events -= 1
                if not events:
                    break
            return
        await stream.aclose()

    @precondition(lambda self: self.session.pending)
    @rule(approve=st.booleans(), then_pause=st.booleans())
    def resume(self, approve, then_pause):
        decision = Approve() if approve else Deny("no")
        self.script = [ToolCall.of("pay", amount=2)] if then_pause else []
        decisions = {pending.call_id: decision for pending in self.session.pending}
        result = self.finish(self.agent.resume(self.session, decisions))
        assert bool(result.pending) == then_pause

    @precondition(lambda self: not self.session.pending)
    @rule(text=st.text(min_size=1, max_size=5), own=st.booleans())
    def add(self, text, own):
        self.session.add(Message("assistant" if own else "user", (Text(text),)))

    @rule(data=st.data())
    def rewind(self, data):
        self.session.rewind(data.draw(st.integers(0, len(self.session.journal))))

    @rule(data=st.data())
    def branch(self, data):
        self.session = self.session.branch(data.draw(st.integers(0, len(self.session.journal))))
        assert not self.session.pending

    @rule(value=st.integers())
    def update(self, value):
        self.session.update(value=value)

    @rule()
    def move_house(self):
        self.session = Session.from_export(self.session.export())

    @invariant()
    def the_view_is_whole(self):
        assert valid(self.session.messages)

    @invariant()
    def import_is_exact(self):
        again = Session.from_export(self.session.export())
        assert list(again.messages) == list(self.session.messages)
        assert again.state == self.session.state
        assert again.pending == self.session.pending
        assert (again.unfinished is None) == (self.session.unfinished is None)


Conversations.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestConversations = Conversations.TestCase


def test_an_import_takes_the_json_of_an_export_alone():
    with pytest.raises(ArgumentError, match="the JSON that export"):
        Session.from_export({"a": 1})
