"""Building a workflow: what does not fit is told then, and names the places."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NewType, TypedDict

import msgspec
import pytest

from gossamer import (
    Agent,
    ArgumentError,
    Condition,
    HumanInput,
    Limits,
    Loop,
    Map,
    Parallel,
    Retry,
    Router,
    Step,
    StepContext,
    Workflow,
    tool,
)
from gossamer.errors import StepNameError, StepTypeError, WorkflowCycleError
from gossamer.flow.workflow.types import check_of, fits, item_of, read, store


class Quote(msgspec.Struct):
    amount: float


@dataclasses.dataclass
class Point:
    x: int


class Holder(msgspec.Struct):
    anything: Any


class Alike(msgspec.Struct, eq=False):
    x: int


class Both(TypedDict):
    one: int
    two: str


def to_int(text: str) -> int:
    return int(text)


def to_text(number: int) -> str:
    return str(number)


def both(value: Both) -> int:
    return value["one"]


def untyped(value):
    return value


def quote(text: str) -> Quote:
    return Quote(float(text))


def is_big(number: int) -> bool:
    return number > 10


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([to_int, to_int], "step 'to_int' gives int, and step 'again' takes str"),
        ([to_int, Map(to_text)], "step 'to_int' gives int, and step 'map' takes a list"),
        ([quote, Agent("offline", name="bot")], "step 'quote' gives Quote, and step 'bot' takes"),
        ([to_int, Loop(to_text)], "step 'loop/to_text', in the next round of the loop, gives str"),
        (
            [to_int, Condition(to_text, to_text)],
            "step 'condition/test' decides, and gives str instead of bool",
        ),
        ([to_int, Condition(is_big, to_int)], "step 'to_int' gives int, and step 'condition/then' takes str"),
        (
            [to_int, Router(is_big, {"a": to_text})],
            "step 'router/choose' decides, and gives bool instead of str",
        ),
        (
            [to_int, Parallel([to_text, to_int])],
            "step 'to_int' gives int, and step 'parallel/to_int' takes str",
        ),
        ([Condition(is_big, to_text), to_text], "gives str | int, and step 'to_text' takes int"),
        ([HumanInput("How many?", int), to_int], "step 'human' gives int, and step 'to_int' takes str"),
        ([to_int, Step(to_text, fallback=to_int)], "step 'to_text' gives|takes str"),
        (
            [Parallel({"one": to_int, "three": to_int}, output=Both)],
            "makes a Both, which has no field for branch 'three'",
        ),
        (
            [Parallel({"one": to_int, "two": to_int}, output=Both)],
            "branch 'two' of step 'parallel' gives int, and Both has str there",
        ),
    ],
)
def test_types_that_do_not_fit_are_refused_and_both_steps_are_named(steps, words):
    if steps == [to_int, to_int]:
        steps = [to_int, Step(to_int, name="again")]
    with pytest.raises(StepTypeError, match=words):
        Workflow("w", steps)
    assert issubclass(StepTypeError, ArgumentError)


def test_the_declared_input_and_output_are_checked_too():
    with pytest.raises(
        StepTypeError, match="the input of workflow 'w' gives int, and step 'to_int' takes str"
    ):
        Workflow("w", [to_int], input=int)
    with pytest.raises(StepTypeError, match="step 'to_int' gives int, and str is declared as the output"):
        Workflow("w", [to_int], output=str)
    with pytest.raises(StepTypeError, match="step 'inner' takes str"):
        Workflow("w", [Workflow("inner", [to_int])], input=int)


def test_types_go_through_whatever_is_in_between():
    workflow = Workflow(
        "w",
        [
            to_int,
            Condition(is_big, [to_text, to_int], untyped),
            Router(lambda number: "a", {"a": Step(to_text, name="x"), "b": to_text}),
            Step(to_int, name="back"),
            Loop(lambda number: number + 1, until=is_big),
            Workflow("inner", [untyped]),
            Parallel({"one": Step(to_text, name="t")}),
        ],
    )
    assert workflow.plan.takes is str
    assert workflow.plan.gives == dict[str, Any]
    assert Workflow("w", [Map(to_int)]).plan.gives == list[int]
    assert Workflow("w", [Parallel({"one": to_int, "two": untyped}, output=Both), both]).plan.gives is int
    structured = Agent("offline", name="bot", output=Quote)
    assert Workflow("w", [structured]).plan.gives is Quote


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([to_int, to_int], "two steps are called 'to_int' in the workflow"),
        ([Parallel([to_text, Step(to_int, name="to_text")])], "two steps are called 'to_text' in parallel"),
        ([Step(to_int, name="a/b")], "must not have '/'"),
        ([Step(to_int, name="")], "1 to 100 characters"),
        ([Step(to_int, name="x" * 101)], "1 to 100 characters"),
        ([Step(to_int, name="a\nb")], "must not have"),
        ([Parallel({"a[0]": to_int})], "must not have"),
        ([Loop(Step(to_int, name="until"), until=is_big)], "must not be called 'until'"),
        ([Loop([untyped, Step(to_int, name="until")], until=is_big)], "must not be called 'until'"),
        ([Router(untyped, {"choose": to_int})], "must not be called 'choose'"),
        ([Parallel({1: to_int})], "must be text"),
    ],
)
def test_names_that_cannot_stand_in_a_place_are_refused(steps, words):
    with pytest.raises(StepNameError, match=words):
        Workflow("w", steps)


def test_frames_without_a_name_are_numbered():
    workflow = Workflow("w", [Parallel([untyped]), Loop(untyped), Parallel([untyped]), HumanInput("?")])
    assert [node.name for node in workflow.plan.root.steps] == ["parallel", "loop", "parallel.2", "human"]


def test_steps_inside_themselves_are_a_cycle():
    steps: list = [untyped]
    steps.append(steps)
    with pytest.raises(WorkflowCycleError, match="inside themselves"):
        Workflow("w", steps)
    branches: dict = {}
    branches["a"] = Parallel(branches)
    with pytest.raises(WorkflowCycleError):
        Workflow("w", [Parallel(branches)])
    deep: Any = untyped
    for _ in range(200):
        deep = [deep]
    with pytest.raises(ArgumentError, match="nested more than 100 deep"):
        Workflow("w", [deep])


def generator(value):
    yield value


def two_values(a, b):
    return a


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Workflow("w", []), "there are no steps"),
        (lambda: Workflow("w", untyped), "must be a list"),
        (lambda: Workflow("", [untyped]), "the name of a workflow"),
        (lambda: Workflow("w", [7]), "a step is a function, an agent"),
        (lambda: Workflow("w", [Step([untyped])]), "not list"),
        (lambda: Workflow("w", [generator]), "a generator is no step"),
        (lambda: Workflow("w", [two_values]), "'b' is one more"),
        (lambda: Workflow("w", [Parallel([])]), "no branches"),
        (lambda: Workflow("w", [Parallel(untyped)]), "branches must be"),
        (lambda: Workflow("w", [Parallel([untyped], merge=3)]), "merge must be"),
        (lambda: Workflow("w", [Parallel([untyped], max_concurrency=0)]), "max_concurrency must be"),
        (lambda: Workflow("w", [Loop(untyped, max_iterations=0)]), "max_iterations must be"),
        (lambda: Workflow("w", [Loop(untyped, max_iterations=None)]), "max_iterations must be"),
        (lambda: Workflow("w", [Map(untyped, max_items=0)]), "max_items must be"),
        (lambda: Workflow("w", [Router(untyped, {})]), "routes must be"),
        (lambda: Workflow("w", [Step(untyped, timeout=0)]), "timeout must be"),
        (lambda: Workflow("w", [Step(untyped, timeout=float("nan"))]), "timeout must be"),
        (lambda: Workflow("w", [Step(untyped, retry="often")]), "retry must be"),
        (lambda: Workflow("w", [Step(untyped, retry=0)]), "attempts must be"),
        (lambda: Retry(first_wait=-1), "waits must not be negative"),
        (lambda: Workflow("w", [HumanInput("")]), "question must be"),
        (lambda: Workflow("w", [HumanInput("?", decide_within=-1)]), "decide_within"),
        (lambda: Workflow("w", [untyped], state=[1]), "state must be a dict"),
        (lambda: Workflow("w", [untyped], limits=3), "limits must be a Limits"),
        (lambda: Workflow("w", [untyped]).replace(colour=1), "there is no 'colour'"),
    ],
)
def test_bad_arguments_are_refused_when_it_is_built(build, words):
    with pytest.raises(ArgumentError, match=words):
        build()


def test_a_workflow_is_a_value():
    steps = [untyped]
    workflow = Workflow("w", steps, limits=Limits(max_seconds=3))
    steps.append(to_int)
    assert len(workflow.steps) == 1
    with pytest.raises(AttributeError, match="replace"):
        workflow.name = "x"
    with pytest.raises(AttributeError):
        del workflow.name
    other = workflow.replace(name="x", steps=[untyped, Step(untyped, name="more")])
    assert (other.name, other.limits, workflow.name) == ("x", workflow.limits, "w")
    assert repr(other) == "Workflow('x', 2 steps)"


def test_the_fingerprint_tells_the_shape_and_nothing_else():
    def fingerprint(*steps, **options):
        return Workflow("w", list(steps), **options).plan.fingerprint

    assert fingerprint(to_int) == fingerprint(Step(to_int, retry=3, timeout=2))
    different = {
        fingerprint(to_int),
        fingerprint(to_int, to_text),
        fingerprint(Step(to_int, name="x")),
        fingerprint(Parallel([to_int])),
        fingerprint(Loop(to_int, max_iterations=1)),
        fingerprint(Map(to_int)),
        fingerprint(untyped),
        fingerprint(Agent("offline", name="to_int")),
    }
    assert len(different) == 8


def test_contexts_and_tools_and_partials_are_steps():
    import functools

    def with_context(context: StepContext, value: int) -> int:
        return value

    @tool(inline=True, idempotent=True)
    def double(value: int) -> int:
        """Double."""
        return 2 * value

    def add(value: int, other: int) -> int:
        return value + other

    workflow = Workflow("w", [with_context, double, functools.partial(add, other=3), str])
    assert [node.name for node in workflow.plan.root.steps] == ["with_context", "double", "add", "str"]
    assert workflow.run_sync(2).output == "7"


UserId = NewType("UserId", int)


@pytest.mark.parametrize(
    ("given", "wanted", "fit"),
    [
        (int, int, True),
        (int, float, True),
        (float, int, False),
        (bool, int, True),
        (int, bool, False),
        (Any, int, True),
        (int, Any, True),
        (int, object, True),
        (UserId, int, True),
        (Annotated[int, "x"], int, True),
        (list[int], Sequence[int], True),
        (list[int], list[str], False),
        (list[int], list, True),
        (list, list[int], True),
        (dict[str, int], dict[str, float], True),
        (dict[str, int], dict[int, int], False),
        (tuple[int, str], tuple[int, ...], False),
        (tuple[int, int], tuple[int, ...], True),
        (tuple[int, int], Sequence[int], True),
        (tuple[int], tuple[int, int], False),
        (int | str, int, False),
        (int, int | str, True),
        (int | str, str | int | None, True),
        (None, int | None, True),
        (Literal["a"], str, True),
        (str, Literal["a"], False),
        (Literal["a"], Literal["a", "b"], True),
        (Quote, Quote, True),
        (Quote, Point, False),
        (Both, dict, True),
        (Both, Quote, False),
        ("Forward", int, True),
    ],
)
def test_which_types_fit(given, wanted, fit):
    assert fits(given, wanted) is fit


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (int, 3, 3),
        (float, 3, 3.0),
        (Quote, Quote(1.0), Quote(1.0)),
        (Quote, {"amount": 1.0}, Quote(1.0)),
        (list[Quote], [Quote(1.0)], [Quote(1.0)]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (Quote | Point, Point(1), Point(1)),
        (int | None, None, None),
        (Literal["a"], "a", "a"),
        (Both, {"one": 1, "two": "b"}, {"one": 1, "two": "b"}),
        (type(pytest), pytest, pytest),
    ],
)
def test_values_of_a_type_pass(type_, value, expected):
    checked = check_of(type_)(value)
    assert checked == expected
    assert type(checked) is type(expected)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (int, "3"),
        (int, True),
        (bool, 1),
        (str, b"x"),
        (Quote, 3),
        (Quote, {"amount": "x"}),
        (list[int], [1, "2"]),
        (list[int], "12"),
        (Quote | Point, 3),
        (Literal["a"], "b"),
        (Both, {"one": 1}),
        (list[Point], [3]),
        (None, 3),
        (dict[str, int], {"a": "b"}),
    ],
)
def test_values_of_another_type_are_refused(type_, value):
    with pytest.raises(ValueError, match=r"declared|wanted"):
        check_of(type_)(value)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Any, {"a": [1, "x", None]}),
        (Quote, Quote(2.0)),
        (list[Point], [Point(1)]),
        (dict[int, str], {1: "a"}),
        (tuple[int, ...], (1, 2)),
        (set[int], {1, 2}),
        (bytes, b"\x00\xff"),
        (int, 2**70),
        (Point | Quote, Point(3)),
        (int | None, None),
        (dict[str, Any], {"a": [1, {"b": None}]}),
    ],
)
def test_what_is_stored_comes_back_as_it_was(type_, value):
    again = read(msgspec.json.decode(msgspec.json.encode(store(value, type_))), type_)
    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Any, Quote(2.0)),
        (Any, (1, 2)),
        (dict, {"a": (1, 2)}),
        (dict[str, Any], {"a": {1, 2}}),
        (Holder, Holder((1, 2))),
        (Any, [float("nan")]),
        (Any, float("inf")),
        (Any, {1: "a"}),
        (Any, object()),
        (Any, ["\ud800"]),
        (str, "\ud800"),
        (object, object()),
        (float, float("nan")),
    ],
)
def test_what_would_not_come_back_as_it_was_is_refused(type_, value):
    with pytest.raises(ValueError, match=r"stored|store"):
        store(value, type_)


def test_what_cannot_be_compared_is_stored_too():
    assert read(store(Alike(3), Alike), Alike).x == 3
    [again] = read(store([Alike(3)], list[Alike]), list[Alike])
    assert again.x == 3


def test_the_items_of_a_sequence():
    assert item_of(list[int]) is int
    assert item_of(tuple[int, str]) == int | str
    assert item_of(list) is Any
    assert item_of(Any) is Any
    assert item_of(str) is None
    assert item_of(int) is None
    assert item_of(dict[str, int]) is None
    assert item_of(list[int] | tuple[str, ...]) == int | str


def test_what_an_agent_takes_is_said_in_two_words():
    first = Agent("offline", name="first", output=int)
    with pytest.raises(StepTypeError) as caught:
        Workflow("w", [first, Agent("offline", name="second")])
    assert str(caught.value) == "step 'first' gives int, and step 'second' takes text or messages"
