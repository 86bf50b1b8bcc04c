"""Workflows that wait for people, fail or break off, and go on: finished steps never run again."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer import (
    Agent,
    Answer,
    Approve,
    Condition,
    Deny,
    HumanInput,
    Limits,
    Loop,
    Map,
    Parallel,
    ResumeError,
    Retry,
    Router,
    RunPausedError,
    Session,
    Step,
    StepContext,
    ToolCall,
    Workflow,
    tool,
)
from gossamer.errors import (
    StepDeniedError,
    StepFailedError,
    StepInputError,
    StepOutcomeError,
    StepOutputError,
    WorkflowChangedError,
)
from gossamer.events import ApprovalNeeded, RunFinished
from gossamer.flow import add_up
from gossamer.models import ScriptedModel
from gossamer.records import RunFinishedRecord, StepFailedRecord, StepFinishedRecord, StepStartedRecord


async def add_one(value: int) -> int:
    return value + 1


def moved(session: Session) -> Session:
    """The session as another process finds it."""
    return Session.from_export(session.export())


def answers(result, *values):
    return {one.call_id: Answer(value) for one, value in zip(result.pending, values, strict=True)}


# --- people -------------------------------------------------------------------------------------------------


async def test_a_question_pauses_the_run_and_its_answer_is_the_output():
    workflow = Workflow(
        "w", [add_one, HumanInput(lambda value: f"Is {value} fine?", bool, name="fine"), Step(str)]
    )
    result = await workflow.run(1)
    assert result.finish_reason == "paused"
    with pytest.raises(RunPausedError):
        _ = result.output
    [waiting] = result.pending
    assert (waiting.kind, waiting.call.name, waiting.agent) == ("question", "fine", "w")
    arguments = msgspec.json.decode(waiting.call.arguments)
    assert arguments == {"step": "fine", "answer": "bool", "question": "Is 2 fine?", "value": 2}
    assert result.steps["fine"].outcome == "waiting"

    session = moved(result.session)
    assert session.pending == (waiting,)
    done = await workflow.resume(session, {waiting.call_id: Answer(True)})
    assert done.output == "True"
    assert done.run_id == result.run_id
    assert len(session.messages) == 0
    with pytest.raises(ResumeError, match="no unfinished run"):
        await workflow.resume(session)


async def test_a_person_may_decide_a_condition_a_loop_and_a_route():
    workflow = Workflow(
        "w",
        [
            Condition(HumanInput("Go?", bool), add_one),
            Loop(add_one, until=HumanInput("Enough?", bool)),
            Router(HumanInput("Where?"), {"up": add_one, "down": Step(lambda value: value - 1)}),
        ],
    )
    result = await workflow.run(1)
    for value in (True, False, True, "down"):
        assert len(result.pending) == 1
        result = await workflow.resume(moved(result.session), answers(result, value))
    assert result.output == 1 + 1 + 2 - 1


async def test_an_answer_of_the_wrong_type_is_refused_and_the_step_still_waits():
    inner = Workflow("inner", [HumanInput("How many?", int, name="count")])
    workflow = Workflow("w", [Map([HumanInput("How much?", int, name="much")]), inner, Step(str)])
    result = await workflow.run(["a", "b"])
    assert len(result.pending) == 2
    session = result.session
    with pytest.raises(ResumeError, match=r"the answer for step 'map\[0\]/much' does not fit"):
        await workflow.resume(session, answers(result, "many", 3))
    assert len(session.pending) == 2
    result = await workflow.resume(session, answers(result, 1, 2))
    with pytest.raises(ResumeError, match="the answer for step 'count' does not fit"):
        await workflow.resume(session, answers(result, "many"))
    with pytest.raises(ResumeError, match="does not wait"):
        await workflow.resume(session, {"nothing": Answer(1)})
    with pytest.raises(ResumeError, match="wants an Answer"):
        await workflow.resume(session, {result.pending[0].call_id: Approve()})
    result = await workflow.resume(session, answers(result, 7))
    assert result.output == "7"


async def test_branches_that_can_go_on_do_and_then_all_wait_together():
    ran = []

    @tool(needs_approval=True, inline=True)
    def pay(amount: int) -> str:
        """Pay."""
        ran.append(f"paid {amount}")
        return "paid"

    agent = Agent(ScriptedModel([ToolCall.of("pay", amount=3), "done"]), name="payer", tools=[pay])

    async def work(value):
        ran.append("worked")
        return value

    workflow = Workflow(
        "w", [Parallel({"ask": HumanInput("Name?"), "agent": agent, "work": [work, add_text]})]
    )
    result = await workflow.run("hi")
    assert sorted(one.kind for one in result.pending) == ["approval", "question"]
    assert ran == ["worked"]

    session = moved(result.session)
    by_kind = {one.kind: one for one in session.pending}
    result = await workflow.resume(session, {by_kind["question"].call_id: Answer("Ada")})
    assert [one.kind for one in result.pending] == ["approval"]
    session = moved(session)
    result = await workflow.resume(session, {result.pending[0].call_id: Approve()})
    assert result.output == {"ask": "Ada", "agent": "done", "work": "hi!"}
    assert ran == ["worked", "paid 3"]
    assert result.usage.model_calls == 2
    assert result.usage.tool_calls == 1
    assert session.usage.model_calls == 2


async def add_text(value: str) -> str:
    return f"{value}!"


async def test_a_person_may_refuse():
    workflow = Workflow("w", [HumanInput("Go?", bool)])
    result = await workflow.run(1)
    with pytest.raises(StepDeniedError, match="step 'human' was not answered: not today") as caught:
        await workflow.resume(result.session, {result.pending[0].call_id: Deny("not today")})
    assert caught.value.place == "human"


async def test_a_question_may_expire():
    workflow = Workflow("w", [HumanInput("Go?", bool, decide_within=0.001)])
    result = await workflow.run(1)
    await asyncio.sleep(0.005)
    with pytest.raises(ResumeError, match="too late"):
        await workflow.resume(result.session, answers(result, True))
    with pytest.raises(StepDeniedError, match="in time"):
        await workflow.resume(result.session)


async def test_a_paused_session_takes_no_other_run():
    workflow = Workflow("w", [HumanInput("Go?", bool)])
    result = await workflow.run(1)
    with pytest.raises(RunPausedError):
        await workflow.run(1, session=result.session)
    with pytest.raises(ResumeError, match="one of 'w', not of 'other'"):
        await Workflow("other", [add_one]).resume(result.session)
    with pytest.raises(ResumeError):
        await Agent("offline").resume(result.session)


async def test_a_stream_tells_of_what_waits():
    workflow = Workflow("w", [Parallel([HumanInput("A?", name="a"), HumanInput("B?", name="b")])])
    events = [event async for event in workflow.stream(1)]
    assert [event.pending.call.name for event in events if isinstance(event, ApprovalNeeded)] == ["a", "b"]
    result = events[-1].result
    stream = workflow.resume_stream(result.session, answers(result, "x", "y"))
    events = [event async for event in stream]
    assert isinstance(events[-1], RunFinished)
    assert stream.result.output == {"a": "x", "b": "y"}


async def test_a_question_inside_an_agents_tool_waits_too():
    asked = Workflow("asking", [HumanInput("Name?")]).as_tool("ask", "Asks.")
    agent = Agent(ScriptedModel([ToolCall.of("ask", prompt="x"), "done"]), tools=[asked])
    result = await agent.run("Go", session=Session())
    assert [one.kind for one in result.pending] == ["question"]
    result = await agent.resume(moved(result.session), answers(result, "Ada"))
    assert result.messages[2].parts[0].content == "Ada"


class Desk:
    """What runs and resumes without being an agent, as a team does."""

    def __init__(self, agent: Agent) -> None:
        self.name = "desk"
        self.agent = agent

    def run(self, prompt=None, /, *, session=None, deps=None, user=None):
        return self.agent.run(f"For {user}: {prompt}", session=session, deps=deps, user=user)

    def stream(self, prompt=None, /, *, session=None, deps=None, user=None):
        return self.agent.stream(f"For {user}: {prompt}", session=session, deps=deps, user=user)

    def resume(self, session, decisions=None, *, deps=None, user=None):
        return self.agent.resume(session, decisions, deps=deps, user=user)


@pytest.mark.parametrize("streamed", [False, True])
async def test_whatever_runs_and_resumes_is_a_step(streamed):
    @tool(needs_approval=True, inline=True)
    def pay(amount: int) -> str:
        """Pay."""
        return "paid"

    def model(request):
        asked = request.messages[0].text
        return f"done: {asked}" if request.messages[-1].role == "tool" else ToolCall.of("pay", amount=3)

    workflow = Workflow("w", [add_text, Desk(Agent(ScriptedModel(model), name="clerk", tools=[pay]))])

    async def drive(start, stream):
        if not streamed:
            return await start()
        events = stream()
        async for _ in events:
            pass
        return events.result

    result = await drive(lambda: workflow.run("hi", user="ada"), lambda: workflow.stream("hi", user="ada"))
    [waiting] = result.pending
    assert (waiting.kind, waiting.agent) == ("approval", "clerk")
    session, decisions = result.session, {waiting.call_id: Approve()}
    result = await drive(
        lambda: workflow.resume(session, decisions), lambda: workflow.resume_stream(session, decisions)
    )
    assert result.output == "done: For ada: hi!"


async def test_a_long_value_is_cut_for_the_question():
    result = await Workflow("w", [HumanInput("Fine?")]).run("x" * 100_000)
    assert len(result.pending[0].call.arguments) < 2000


# --- after a failure ----------------------------------------------------------------------------------------


async def test_a_failed_run_goes_on_with_the_step_that_failed():
    ran: Counter[str] = Counter()
    broken = True

    async def first(value):
        ran["first"] += 1
        return value

    async def shaky(value, context: StepContext):
        ran["shaky"] += 1
        context.state["n"] = context.state.get("n", 0) + 1
        if broken:
            raise OSError("down")
        return value + 1

    workflow = Workflow("w", [first, Step(shaky, retry=Retry(2, first_wait=0)), add_one])
    session = Session()
    with pytest.raises(StepFailedError):
        await workflow.run(1, session=session)
    assert session.unfinished is None
    with pytest.raises(StepFailedError):
        await workflow.resume(session)
    assert ran == {"first": 1, "shaky": 4}
    broken = False
    result = await workflow.resume(moved(session))
    assert result.output == 3
    assert ran == {"first": 1, "shaky": 5}


async def test_a_fallback_that_has_finished_stays_after_a_failure():
    ran: Counter[str] = Counter()
    broken = True

    async def always(value):
        ran["always"] += 1
        raise OSError

    async def instead(value):
        ran["instead"] += 1
        return value

    async def later(value):
        if broken:
            raise OSError
        return value

    workflow = Workflow("w", [Step(always, fallback=instead), later])
    session = Session()
    with pytest.raises(StepFailedError):
        await workflow.run(1, session=session)
    broken = False
    assert (await workflow.resume(session)).output == 1
    assert ran == {"always": 1, "instead": 1}


async def test_a_failed_agent_is_asked_anew_and_its_usage_counts_once():
    agent = Agent(ScriptedModel(["one", OSError("down"), "two"]), name="bot")
    workflow = Workflow("w", [Step(agent, name="a"), Step(agent, name="b")])
    session = Session()
    with pytest.raises(StepFailedError):
        await workflow.run("hi", session=session)
    result = await workflow.resume(session)
    assert result.output == "two"
    assert session.usage.model_calls == 2


async def test_a_run_that_a_limit_stopped_goes_on():
    wait = True

    async def slow(value):
        if wait:
            await asyncio.Event().wait()
        return value

    workflow = Workflow("w", [add_one, Step(slow, idempotent=True)])
    session = Session()
    result = await workflow.run(1, session=session, limits=Limits(max_seconds=0.01))
    assert result.finish_reason == "limit"
    wait = False
    assert (await workflow.resume(session)).output == 2


async def test_there_must_be_something_to_resume():
    workflow = Workflow("w", [add_one])
    with pytest.raises(ResumeError, match="no run to resume"):
        await workflow.resume(Session())
    session = Session()
    await workflow.run(1, session=session)
    with pytest.raises(ResumeError, match="no unfinished run"):
        await workflow.resume(session)
    with pytest.raises(ResumeError, match="decisions are a dict"):
        await workflow.resume(session, [1])
    await Agent("offline").run("hi", session=session)
    with pytest.raises(ResumeError, match="one of 'agent', not of 'w'"):
        await workflow.resume(session)


async def test_a_changed_workflow_is_told():
    session = Session()
    ask = HumanInput("Go?", name="ask")
    result = await Workflow("w", [add_one, ask]).run(1, session=session)
    for changed in (
        [add_one, Step(add_one, name="more"), ask],
        [Step(add_one, name="other"), ask],
        [add_one, HumanInput("Go?", bool, name="ask")],
    ):
        with pytest.raises(WorkflowChangedError, match="has been changed since run"):
            await Workflow("w", changed).resume(session, answers(result, "x"))
    again = Workflow("w", [Step(add_one, retry=3), ask])
    assert (await again.resume(session, answers(result, "x"))).output == "x"


async def test_a_workflow_inside_goes_on_where_it_failed():
    ran: Counter[str] = Counter()
    broken = 3

    async def first(value):
        ran["first"] += 1
        return value

    async def shaky(value):
        nonlocal broken
        ran["shaky"] += 1
        broken -= 1
        if broken >= 0:
            raise OSError("down")
        return value

    inner = Workflow("inner", [first, shaky])
    session = Session()
    workflow = Workflow("w", [inner])
    for _ in range(3):
        with pytest.raises(StepFailedError, match="step 'inner/shaky' failed"):
            await (workflow.resume(session) if ran else workflow.run(1, session=session))
        session = moved(session)
    assert (await workflow.resume(session)).output == 1
    assert ran == {"first": 1, "shaky": 4}

    broken = 2
    ran.clear()
    result = await Workflow("w", [Step(inner, retry=Retry(3, first_wait=0))]).run(1)
    assert result.output == 1
    assert ran == {"first": 1, "shaky": 3}
    assert result.session is not None


@pytest.mark.parametrize("stop", ["cancelled", "limit"])
async def test_what_was_stopped_with_the_run_around_it_goes_on(stop):
    ran: Counter[str] = Counter()
    wait = True

    async def first(value):
        ran["first"] += 1
        return value

    async def model(request):
        ran["asked"] += 1
        if wait:
            await asyncio.Event().wait()
        return "answer"

    agent = Agent(ScriptedModel(model), name="bot")
    workflow = Workflow("w", [Workflow("inner", [first, agent])])
    session = Session()
    if stop == "limit":
        result = await workflow.run("hi", session=session, limits=Limits(max_seconds=0.02))
        assert result.finish_reason == "limit"
    else:
        task = asyncio.ensure_future(workflow.run("hi", session=session))
        while not ran["asked"]:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    wait = False
    result = await workflow.resume(moved(session))
    assert result.output == "answer"
    assert ran == {"first": 1, "asked": 2}


async def test_more_tokens_let_a_stopped_run_go_on():
    agents = [Agent(ScriptedModel(lambda request: "x" * 10), name=name) for name in ("a", "b", "c")]
    workflow = Workflow("w", agents)
    session = Session()
    result = await workflow.run("hi", session=session, limits=Limits(max_tokens=60))
    assert result.finish_reason == "limit"
    result = await workflow.resume(session, limits=Limits(max_tokens=100_000))
    assert result.output == "x" * 10


# --- after a crash ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process dies."""


class Process:
    """Dies at a step's effect: before it or behind it; what the journal had then is what is left."""

    def __init__(self, dies_at: int = -1, *, behind: bool = False) -> None:
        self.dies_at, self.behind = dies_at, behind
        self.effects: list[str] = []
        self.reached = 0
        self.left: bytes | None = None
        self.session: Session | None = None

    def effect(self, line: str) -> None:
        if self.left is not None:
            raise Killed
        dies = self.reached == self.dies_at
        self.reached += 1
        if dies and not self.behind:
            self.die()
        self.effects.append(line)
        if dies:
            self.die()

    def die(self) -> None:
        self.left = self.session.export()
        raise Killed

    async def run(self, workflow: Workflow, value, **options):
        self.session = Session(**options)
        try:
            return await workflow.run(value, session=self.session)
        except Killed:
            return None


def paying(process: Process):
    async def pay(value: int) -> int:
        process.effect("pay")
        return value + 1

    return pay


@pytest.mark.parametrize("behind", [False, True])
async def test_a_person_decides_about_a_step_that_was_cut_off(behind):
    process = Process(0, behind=behind)
    await process.run(Workflow("w", [paying(process), add_one]), 1)
    revived = Process()
    workflow = Workflow("w", [paying(revived), add_one])

    session = Session.from_export(process.left)
    result = await workflow.resume(session)
    [waiting] = result.pending
    assert (waiting.kind, waiting.call.name) == ("outcome", "pay")
    assert revived.effects == []
    assert (await workflow.resume(moved(session), {waiting.call_id: Approve()})).output == 3
    assert revived.effects == ["pay"]
    assert (await workflow.resume(moved(session), {waiting.call_id: Answer(10)})).output == 11
    assert revived.effects == ["pay"]
    with pytest.raises(ResumeError, match="the answer for step 'pay' does not fit"):
        await workflow.resume(moved(session), {waiting.call_id: Answer("x")})
    with pytest.raises(ResumeError, match="leave out args"):
        await workflow.resume(moved(session), {waiting.call_id: Approve({"a": 1})})
    with pytest.raises(StepOutcomeError, match=r"it may not run again\. too dangerous") as caught:
        await workflow.resume(moved(session), {waiting.call_id: Deny("too dangerous")})
    assert caught.value.place == "pay"


async def test_an_approval_to_run_again_holds_once():
    process = Process(0)
    await process.run(Workflow("w", [paying(process)]), 1)
    session = Session.from_export(process.left)
    result = await Workflow("w", [paying(Process())]).resume(session)
    again = Process(0)
    again.session = session
    with pytest.raises(Killed):
        await Workflow("w", [paying(again)]).resume(session, {result.pending[0].call_id: Approve()})
    result = await Workflow("w", [paying(Process())]).resume(Session.from_export(again.left))
    assert [one.kind for one in result.pending] == ["outcome"]


async def test_an_idempotent_step_runs_again_without_a_question():
    process = Process(0, behind=True)
    await process.run(Workflow("w", [Step(paying(process), idempotent=True)]), 1)
    revived = Process()
    result = await Workflow("w", [Step(paying(revived), idempotent=True)]).resume(
        Session.from_export(process.left)
    )
    assert result.output == 2
    assert revived.effects == ["pay"]


async def test_an_agent_goes_on_in_its_own_journal():
    def model(request):
        return "done" if request.messages[-1].role == "tool" else ToolCall.of("look")

    def workflow_of(process):
        @tool(idempotent=True)
        async def look() -> str:
            """Look."""
            process.effect("look")
            return "seen"

        return Workflow(
            "w",
            [Step(add_text, name="before"), Agent(ScriptedModel(model), name="bot", tools=[look]), add_text],
        )

    process = Process(0)
    await process.run(workflow_of(process), "hi")
    revived = Process()
    session = Session.from_export(process.left)
    result = await workflow_of(revived).resume(session)
    assert result.output == "done!"
    assert result.usage.model_calls == 2
    assert session.usage.model_calls == 2


async def test_the_run_of_a_dead_process_is_closed_by_the_next_run():
    process = Process(0)
    await process.run(Workflow("w", [paying(process)]), 1)
    session = Session.from_export(process.left)
    assert (await Workflow("w", [add_one]).run(1, session=session)).output == 2


# --- in a store ---------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Report:
    title: str
    scores: list[float]


async def write(title: str) -> Report:
    return Report(title, [1.0, 2.5])


async def read(report: Report) -> str:
    assert type(report) is Report
    return report.title


async def test_outputs_come_back_from_a_store_in_their_type(tmp_path):
    store = f"sqlite:///{tmp_path}/w.db"
    workflow = Workflow("w", [write, Condition(HumanInput("Fine?", bool), read)])
    session = Session("s", store=store)
    result = await workflow.run("lace", session=session)
    again = Session("s", store=store)
    await again.load()
    result = await workflow.resume(again, {one.call_id: Answer(True) for one in again.pending})
    assert result.output == "lace"
    await again.store.aclose()


async def test_what_a_store_cannot_keep_is_told_and_nothing_runs_on(tmp_path):
    store = f"sqlite:///{tmp_path}/w.db"
    ran = []

    async def untyped(value):
        return Report("x", [])

    async def after(value):
        ran.append(value)

    with pytest.raises(
        StepOutputError, match=r"step 'untyped': .*come back from the store as something else"
    ) as caught:
        await Workflow("w", [untyped, after]).run(1, session=Session("a", store=store))
    assert caught.value.place == "untyped"
    assert ran == []
    with pytest.raises(StepInputError, match="the input of workflow 'w'"):
        await Workflow("w", [Step(lambda value: value)]).run(object(), session=Session("b", store=store))

    async def remember(value, context: StepContext):
        context.state["when"] = (1, 2)
        return value

    with pytest.raises(StepOutputError, match="step 'remember'"):
        session = Session("c", store=store)
        await Workflow("w", [remember]).run(1, session=session)
    await session.store.aclose()


async def test_an_output_that_looks_like_a_message_stays_what_it_is(tmp_path):
    look_alike = {
        "role": "user",
        "parts": [{"type": "provider_block", "dialect": "gossamer", "raw": {"x": 1}}, {"type": "hologram"}],
    }

    async def make(value):
        return look_alike

    workflow = Workflow("w", [make, HumanInput("Go?", bool)])
    session = Session("s", store=f"sqlite:///{tmp_path}/w.db")
    result = await workflow.run(1, session=session)
    kept = [r.output for r in await session.store.read("s", 0, 100) if isinstance(r, StepFinishedRecord)]
    assert kept == [1, look_alike]
    assert result.pending
    await session.store.aclose()


async def test_one_record_before_a_step_and_one_behind_it():
    session = Session()
    await Workflow("w", [add_one, Step(str, idempotent=True), Map(add_one)][:2]).run(1, session=session)
    steps = [
        (type(record).__name__, record.step)
        for record in session.journal
        if isinstance(record, StepStartedRecord | StepFinishedRecord | StepFailedRecord)
    ]
    assert steps == [
        ("StepFinishedRecord", ""),
        ("StepStartedRecord", "add_one"),
        ("StepFinishedRecord", "add_one"),
        ("StepFinishedRecord", "str"),
    ]
    assert isinstance(session.journal[-1], RunFinishedRecord)


# --- random workflows ---------------------------------------------------------------------------------------


class Plan:
    """A random workflow on whole numbers, and what it should come to."""

    def __init__(self, shape) -> None:
        self.shape = shape
        self.count = 0

    def build(self, process: Process) -> Workflow:
        self.count = 0
        return Workflow("w", [self.step(self.shape, process)])

    def leaf(self, kind: str, amount: int, process: Process):
        self.count += 1
        name = f"{kind}{self.count}"

        async def work(value: int, context: StepContext) -> int:
            context.update(total=context.state["total"] + amount)
            process.effect(f"{context.key}={value + amount}")
            if amount % 2:
                await asyncio.sleep(0)
            return value + amount

        return Step(work, name=name, idempotent=kind == "idempotent")

    def step(self, shape, process: Process):
        kind, *rest = shape
        if kind in {"once", "idempotent"}:
            return self.leaf(kind, rest[0], process)
        parts = [self.step(part, process) for part in rest[-1]]
        self.count += 1
        name = f"{kind}{self.count}"
        if kind == "steps":
            return parts
        if kind == "parallel":
            branches = {f"b{number}": part for number, part in enumerate(parts)}
            frame = Parallel(branches, name=name, merge={"total": add_up}, max_concurrency=rest[0])
            return [
                frame,
                Step(
                    lambda outputs: sum(outputs.values()),
                    name=f"sum{self.count}",
                    inline=True,
                    idempotent=True,
                ),
            ]
        if kind == "loop":
            return Loop(parts, name=name, max_iterations=rest[0])
        if kind == "condition":
            return Condition(lambda value: value % 2 == 0, parts[0], parts[1:] or None, name=name)
        if kind == "router":
            routes = {str(number): part for number, part in enumerate(parts)}
            return Router(lambda value: str(value % len(parts)), routes, name=name)
        if kind == "nested":
            return Workflow(name, [*parts], state={"total": 0})
        assert kind == "map"
        items = Step(
            lambda value: list(range(value % 4)), name=f"items{self.count}", inline=True, idempotent=True
        )
        total = Step(sum, name=f"total{self.count}", inline=True, idempotent=True)
        return [items, Map(parts, name=name, merge=add_up, max_concurrency=rest[0]), total]

    def plain(self, shape, value: int) -> tuple[int, int]:
        """What a shape makes of a value, and what it adds to the state; in plain Python."""
        kind, *rest = shape
        if kind in {"once", "idempotent"}:
            return value + rest[0], rest[0]
        parts = rest[-1]
        added = 0
        if kind == "parallel":
            outputs = [self.plain(part, value) for part in parts]
            return sum(one for one, _ in outputs), sum(one for _, one in outputs)
        if kind == "map":
            total = 0
            for item in range(value % 4):
                each = item
                for part in parts:
                    each, more = self.plain(part, each)
                    added += more
                total += each
            return total, added
        if kind == "condition":
            parts = parts[:1] if value % 2 == 0 else parts[1:]
        if kind == "router":
            parts = [parts[value % len(parts)]]
        for _ in range(rest[0] if kind == "loop" else 1):
            for part in parts:
                value, more = self.plain(part, value)
                added += more
        return value, 0 if kind == "nested" else added


LEAVES = st.tuples(st.sampled_from(["once", "idempotent"]), st.integers(0, 9))
SHAPES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(
            st.sampled_from(["steps", "condition", "router", "nested"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.tuples(
            st.sampled_from(["parallel", "loop", "map"]),
            st.integers(1, 3),
            st.lists(inner, min_size=1, max_size=3),
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(shape=SHAPES, value=st.integers(0, 20))
def test_a_random_workflow_comes_to_what_plain_python_comes_to(shape, value):
    plan = Plan(shape)
    expected, added = plan.plain(shape, value)

    async def main():
        workflow = plan.build(Process()).replace(state={"total": 0})
        assert (await workflow.run(value)).output == expected
        session = Session(state={"total": 5})
        assert (await workflow.run(value, session=session)).output == expected
        assert session.state == {"total": 5 + added}
        stream = workflow.stream(value)
        async for _ in stream:
            pass
        assert stream.result.output == expected

    asyncio.run(main())


@settings(max_examples=300, deadline=None)
@given(shape=SHAPES, value=st.integers(0, 20), data=st.data())
def test_a_random_workflow_goes_on_wherever_its_process_dies(shape, value, data):
    plan = Plan(shape)
    expected, added = plan.plain(shape, value)

    async def main():
        effects: Counter[str] = Counter()
        answered = False
        result = session = None
        for _ in range(30):
            process = Process(data.draw(st.integers(0, 12)), behind=data.draw(st.booleans()))
            workflow = plan.build(process)
            if session is None:
                result = await process.run(workflow, value, state={"total": 0})
            else:
                process.session = session
                decisions: dict = {}
                try:
                    result = await workflow.resume(session)
                    while result.pending:
                        decisions = {}
                        done = effects + Counter(process.effects)
                        for one in result.pending:
                            assert one.kind == "outcome"
                            key = one.call_id.rpartition("/outcome.")[0]
                            took_effect = any(line.startswith(f"{key}=") for line in done)
                            answered = answered or took_effect
                            gave = [line.rpartition("=")[2] for line in done if line.startswith(f"{key}=")]
                            decisions[one.call_id] = Answer(int(gave[0])) if took_effect else Approve()
                        result = await workflow.resume(session, decisions)
                except Killed:
                    result = None
            effects += Counter(process.effects)
            if result is not None:
                break
            session = Session.from_export(process.left)
        if result is None:
            return  # it died too often
        assert result.output == expected
        if not answered:  # whoever says what a step gave does not change the state
            assert process.session.state == {"total": added}
        once = {line: count for line, count in effects.items() if line.rsplit("/", 1)[-1].startswith("once")}
        assert max(once.values(), default=1) == 1

    asyncio.run(main())
