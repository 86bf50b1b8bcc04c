"""From the values that a user writes to the tree that runs: names, types and shape are checked here, once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, cast

import msgspec

from gossamer.agent import Agent
from gossamer.errors import ArgumentError, StepNameError, WorkflowCycleError
from gossamer.flow.team import Team
from gossamer.flow.workflow.branching import (
    ConditionNode,
    LoopNode,
    MapNode,
    ParallelNode,
    RouterNode,
    SequenceNode,
)
from gossamer.flow.workflow.callables import read_callable
from gossamer.flow.workflow.function_steps import FunctionNode
from gossamer.flow.workflow.human_steps import HumanNode
from gossamer.flow.workflow.inference import infer
from gossamer.flow.workflow.leaf import Leaf, Node
from gossamer.flow.workflow.runnable_steps import RunnableNode
from gossamer.flow.workflow.steps import Condition, HumanInput, Loop, Map, Parallel, Retry, Router, Step
from gossamer.flow.workflow.types import Named, check_of, name_of, union_of
from gossamer.messages import Message, Part
from gossamer.schema import Output

__all__ = ["Plan", "build"]

_MAX_NAME_CHARS = 100
_MAX_NODES = 10_000

# What an agent may be asked.
_PROMPT = Annotated[
    str | Message | list[str | Part | Message] | tuple[str | Part | Message, ...], Named("text or messages")
]


class Plan(msgspec.Struct, frozen=True, eq=False):
    """A workflow, ready to run.

    Attributes:
        root: the tree.
        nodes: all of it, by index.
        places: the paths of the steps and frames, with their indices.
        takes: the type of the workflow's input.
        gives: the type of its output.
        fingerprint: tells the workflow's shape: names, order and types.
        may_pause: whether a step may have to wait for a person.
        wants_session: whether a run needs a session: to wait, or to try a workflow again where it failed.
    """

    root: SequenceNode
    nodes: tuple[Node, ...]
    places: tuple[tuple[str, int], ...]
    takes: Any
    gives: Any
    fingerprint: str
    may_pause: bool
    wants_session: bool

    @property
    def size(self) -> int:
        """How many nodes there are."""
        return len(self.nodes)

    @property
    def by_path(self) -> dict[str, Node]:
        """The nodes by their places without numbers."""
        return {node.path: node for node in self.nodes if node.path}


def build(name: str, steps: Sequence[Any], takes: Any, gives: Any) -> Plan:
    """Build a workflow.

    Args:
        name: the workflow's, for errors.
        steps: as the user gave them.
        takes: the type of the input that is declared, or None.
        gives: the type of the output that is declared, or None.

    Raises:
        StepNameError: two steps beside each other have one name, or a name cannot stand in a place.
        StepTypeError: a step gives what the next one does not take.
        WorkflowCycleError: a list of steps is in itself.
        ArgumentError: something is no step, or an option is out of range.
    """
    check_name(name, "workflow")
    if not isinstance(steps, list | tuple):
        raise ArgumentError(f"steps of workflow {name!r} must be a list, not {type(steps).__name__}")
    builder = _Builder()
    root = builder.sequence(steps, "", "")
    given = takes if takes is not None else root.takes
    output = infer(root, given, f"the input of workflow {name!r}", output=gives)
    nodes = tuple(builder.nodes)
    shape = [
        (node.kind, node.path, name_of(node.takes), name_of(node.gives), _shape_of(node)) for node in nodes
    ]
    encoded = msgspec.json.encode((shape, name_of(given), name_of(output)), enc_hook=repr)
    may_pause = any(isinstance(node, HumanNode) or _may_pause(node) for node in nodes)
    tries_again = any(
        isinstance(node, RunnableNode) and node.is_workflow and node.attempts > 1 for node in nodes
    )
    return Plan(
        root=root,
        nodes=nodes,
        places=tuple((node.path, node.index) for node in nodes if not isinstance(node, SequenceNode)),
        takes=given,
        gives=output if gives is None else gives,
        fingerprint=hashlib.sha256(encoded).hexdigest()[:16],
        may_pause=may_pause,
        wants_session=may_pause or tries_again,
    )


def check_name(name: Any, what: str) -> None:
    """Check a name that stands in places.

    Raises:
        StepNameError: it is empty, too long, or has a character that places are made with.
    """
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME_CHARS:
        raise StepNameError(
            f"the name of a {what} must be text of 1 to {_MAX_NAME_CHARS} characters, not {name!r:.200}; give it one"
        )
    bad = [character for character in name if character in "/[]#" or not character.isprintable()]
    if bad:
        raise StepNameError(
            f"the name of a {what} must not have {bad[0]!r} in it, which places are made with: {name!r}; give it another"
        )


def _shape_of(node: Node) -> Any:
    if isinstance(node, RunnableNode):
        return node.runnable.name
    return getattr(node, "max_iterations", None)


def _may_pause(node: Node) -> bool:
    if not isinstance(node, RunnableNode):
        return False
    runnable: Any = node.runnable
    if isinstance(runnable, Agent):
        return bool(cast("Any", runnable.tools))
    return getattr(runnable, "may_pause", True) is not False


class _Builder:
    """Makes nodes of values, and numbers them."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.inside: list[int] = []  # what is being built, to find what is in itself

    def sequence(self, steps: Sequence[Any], name: str, prefix: str) -> SequenceNode:
        """Make steps one after the other of a list."""
        node = SequenceNode()
        path = prefix + name
        self._enter(steps, path)
        self._number(node, name, path)
        if not steps:
            raise ArgumentError(f"there are no steps in {path or 'the workflow'}")
        below = f"{path}/" if name else prefix
        node.steps = self._beside(steps, below)
        node.children = tuple(("", step) for step in node.steps)
        node.takes = node.steps[0].takes
        node.gives = node.steps[-1].gives
        self.inside.pop()
        return node

    def _beside(self, steps: Iterable[Any], prefix: str) -> tuple[Node, ...]:
        """Make nodes of steps beside each other, each with a name of its own."""
        made: dict[str, Node] = {}
        counts: dict[str, int] = {}
        for step in steps:
            name = _own_name(step)
            if name is None:  # a frame without a name
                kind = _kind_of(step)
                counts[kind] = counts.get(kind, 0) + 1
                name = kind if counts[kind] == 1 else f"{kind}.{counts[kind]}"
            if name in made:
                raise StepNameError(
                    f"two steps are called {name!r} in {prefix.rstrip('/') or 'the workflow'}; give one of them "
                    "another name, as with Step(…, name=…)",
                    place=prefix + name,
                )
            made[name] = self.node(step, name, prefix)
        return tuple(made.values())

    def node(self, step: Any, name: str, prefix: str) -> Node:
        """Make a node of whatever can be a step."""
        check_name(name, "step")
        path = prefix + name
        if isinstance(step, list | tuple):
            return self.sequence(cast("Sequence[Any]", step), name, prefix)
        if isinstance(step, Parallel):
            return self._parallel(step, name, path)
        if isinstance(step, Condition):
            return self._condition(step, name, path)
        if isinstance(step, Loop):
            return self._loop(step, name, path)
        if isinstance(step, Router):
            return self._router(step, name, path)
        if isinstance(step, Map):
            return self._map(step, name, path)
        if isinstance(step, HumanInput):
            return self._human(step, name, path)
        return self._leaf(step if isinstance(step, Step) else Step(step), name, path)

    # --- leaves -----------------------------------------------------------------------------------------------

    def _leaf(self, step: Step, name: str, path: str, *, decides: bool = False) -> Node:
        do: Any = step.do
        node: Leaf
        if _is_runnable(do):
            runs = RunnableNode()
            runs.runnable = do
            runs.label = do.name
            runs.declare(*_types_of(do))
            if isinstance(getattr(do, "plan", None), Plan):
                runs.kind = "workflow"
            node = runs
        elif callable(do):
            callee = read_callable(do, step.inline or decides, path)
            calls = FunctionNode()
            calls.callee = callee
            calls.label = callee.name
            calls.declare(callee.takes, callee.gives)
            calls.idempotent = step.idempotent or callee.idempotent or decides
            node = calls
        else:
            raise ArgumentError(
                f"{path}: a step is a function, an agent, a team, a workflow, or one of Step, Parallel, Condition, "
                f"Loop, Router, Map and HumanInput, not {type(do).__name__}"
            )
        if step.name is not None:
            node.label = step.name
        self._number(node, name, path)
        self._guard(node, step, path)
        return node

    def _guard(self, node: Leaf, step: Step, path: str) -> None:
        retry = Retry(step.retry) if type(step.retry) is int else step.retry
        if retry is not None and not isinstance(retry, Retry):
            raise ArgumentError(f"{path}: retry must be a number or a Retry, not {retry!r}")
        timeout: Any = step.timeout
        if timeout is not None and (type(timeout) not in {int, float} or not timeout > 0):
            raise ArgumentError(f"{path}: timeout must be seconds above 0, not {timeout!r}")
        node.retry, node.timeout = retry, timeout
        node.attempts = 1 if retry is None else retry.attempts
        if step.fallback is not None:
            fallback: Any = step.fallback
            [node.fallback] = self._beside([fallback], f"{path}/")
            node.children = (("fallback", node.fallback),)
            infer(node.fallback, node.takes, f"step {path!r}")
        node.guarded = retry is not None or node.fallback is not None

    def _human(self, step: HumanInput, name: str, path: str) -> Node:
        node = HumanNode()
        node.human = step
        question: Any = step.question
        if callable(question):
            node.ask = read_callable(question, True, path)
            node.label = step.name or name
            takes = node.ask.takes
        elif isinstance(question, str) and question:
            node.label = step.name or question[:_MAX_NAME_CHARS]
            takes = Any
        else:
            raise ArgumentError(
                f"{path}: question must be text or a function that gives it, not {question!r}"
            )
        if step.decide_within is not None and not step.decide_within > 0:
            raise ArgumentError(f"{path}: decide_within must be seconds above 0, not {step.decide_within!r}")
        node.declare(takes, step.type)
        self._number(node, name, path)
        return node

    # --- frames -----------------------------------------------------------------------------------------------

    def _parallel(self, step: Parallel, name: str, path: str) -> Node:
        node = ParallelNode()
        node.label = step.name or "parallel"
        branches: Any = step.branches
        self._enter(branches, path)
        self._number(node, name, path)
        if isinstance(branches, Mapping):
            node.branches = self._named(cast("Mapping[str, Any]", branches), path)
        elif isinstance(branches, list | tuple):
            made = self._beside(cast("Sequence[Any]", branches), f"{path}/")
            node.branches = {one.name: one for one in made}
        else:
            raise ArgumentError(f"{path}: branches must be a list or a dict, not {type(branches).__name__}")
        self.inside.pop()
        if not node.branches:
            raise ArgumentError(f"{path}: there are no branches")
        node.merge = step.merge
        if node.merge is not None and not callable(node.merge) and not isinstance(node.merge, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(
                f"{path}: merge must be a function, or functions by field, not {node.merge!r}"
            )
        node.max_concurrency = _at_least_one(step.max_concurrency, f"{path}: max_concurrency")
        node.takes = _common(one.takes for one in node.branches.values())
        node.gives = dict[str, Any] if step.output is None else step.output
        node.check = None if step.output is None else check_of(step.output)
        node.children = tuple(("", one) for one in node.branches.values())
        return node

    def _named(self, steps: Mapping[str, Any], path: str) -> dict[str, Node]:
        return {key: self.node(step, key, f"{path}/") for key, step in steps.items()}

    def _role(self, step: Any, role: str, path: str) -> Node:
        """Make a node of what decides: a quick function, unless it is said otherwise."""
        if isinstance(step, Step) or _is_runnable(step) or not callable(step):
            return self.node(step, role, f"{path}/")
        return self._leaf(Step(step), role, f"{path}/{role}", decides=True)

    def _condition(self, step: Condition, name: str, path: str) -> Node:
        node = ConditionNode()
        node.label = step.name or "condition"
        self._enter(step, path)
        self._number(node, name, path)
        node.test = self._role(step.test, "test", path)
        node.then = self.node(step.then, "then", f"{path}/")
        node.otherwise = (
            None if step.otherwise is None else self.node(step.otherwise, "otherwise", f"{path}/")
        )
        self.inside.pop()
        ways = [node.then] if node.otherwise is None else [node.then, node.otherwise]
        node.takes = _common(one.takes for one in (node.test, *ways))
        node.gives = union_of([one.gives for one in ways]) if node.otherwise is not None else Any
        node.children = (("test", node.test), ("yes", node.then))
        if node.otherwise is not None:
            node.children += (("no", node.otherwise),)
        return node

    def _loop(self, step: Loop, name: str, path: str) -> Node:
        node = LoopNode()
        node.label = step.name or "loop"
        self._enter(step, path)
        self._number(node, name, path)
        node.max_iterations = _at_least_one(step.max_iterations, f"{path}: max_iterations")
        node.body = self._body(step.body, path)
        node.until = None if step.until is None else self._role(step.until, "until", path)
        self.inside.pop()
        inside = node.body.steps if isinstance(node.body, SequenceNode) else (node.body,)
        if node.until is not None and any(one.path == node.until.path for one in inside):
            raise StepNameError(f"{path}: the body must not be called 'until'", place=node.until.path)
        node.takes, node.gives = node.body.takes, node.body.gives
        node.children = (("", node.body),) if node.until is None else (("", node.body), ("until", node.until))
        return node

    def _body(self, step: Any, path: str) -> Node:
        if isinstance(step, list | tuple):  # its steps stand in the frame itself
            return self.sequence(cast("Sequence[Any]", step), "", f"{path}/")
        [node] = self._beside([step], f"{path}/")
        return node

    def _router(self, step: Router, name: str, path: str) -> Node:
        node = RouterNode()
        node.label = step.name or "router"
        self._enter(step, path)
        self._number(node, name, path)
        if not isinstance(step.routes, Mapping) or not step.routes:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"{path}: routes must be steps by name, not {step.routes!r:.200}")
        taken = {"choose", "default"} & step.routes.keys()
        if taken:
            raise StepNameError(f"{path}: a route must not be called {min(taken)!r}", place=path)
        node.choose = self._role(step.choose, "choose", path)
        node.routes = self._named(step.routes, path)
        node.default = None if step.default is None else self.node(step.default, "default", f"{path}/")
        self.inside.pop()
        ways = [*node.routes.values(), *([] if node.default is None else [node.default])]
        node.takes = _common(one.takes for one in (node.choose, *ways))
        node.gives = union_of([one.gives for one in ways])
        node.children = (("choose", node.choose), *((one.name, one) for one in ways))
        return node

    def _map(self, step: Map, name: str, path: str) -> Node:
        node = MapNode()
        node.label = step.name or "map"
        self._enter(step, path)
        self._number(node, name, path)
        node.body = self._body(step.body, path)
        self.inside.pop()
        node.merge = step.merge
        node.max_concurrency = _at_least_one(step.max_concurrency, f"{path}: max_concurrency")
        node.max_items = _at_least_one(step.max_items, f"{path}: max_items")
        node.takes = Sequence[node.body.takes]
        node.gives = list[node.body.gives]
        node.children = (("", node.body),)
        return node

    # --- numbers ----------------------------------------------------------------------------------------------

    def _number(self, node: Node, name: str, path: str) -> None:
        node.name, node.path, node.index = name, path, len(self.nodes)
        if not hasattr(node, "label"):
            node.label = name
        node.takes = getattr(node, "takes", Any)
        node.gives = getattr(node, "gives", Any)
        self.nodes.append(node)
        if len(self.nodes) > _MAX_NODES:
            raise ArgumentError(
                f"a workflow has at most {_MAX_NODES:,} steps; make some of them a workflow of their own"
            )

    def _enter(self, value: Any, path: str) -> None:
        if id(value) in self.inside:
            raise WorkflowCycleError(f"the steps at {path!r} are inside themselves", place=path)
        if len(self.inside) >= 100:
            raise ArgumentError(f"{path}: steps are nested more than 100 deep")
        self.inside.append(id(value))


def _own_name(step: Any) -> str | None:
    """Give the name that a step brings along, None for a frame that has none."""
    if isinstance(step, Parallel | Condition | Loop | Router | Map | HumanInput):
        return step.name
    if isinstance(step, list | tuple):
        return None
    do: Any = step
    if isinstance(step, Step):
        if step.name is not None:
            return step.name
        do = step.do
    if _is_runnable(do):
        return str(do.name)
    while isinstance(do, partial):
        do = cast("Any", do.func)
    name = getattr(do, "name", None) or getattr(do, "__name__", None)
    return "lambda" if name == "<lambda>" else str(name or type(do).__name__)


def _kind_of(step: Any) -> str:
    return (
        "steps"
        if isinstance(step, list | tuple)
        else type(step).__name__.lower().replace("humaninput", "human")
    )


def _is_runnable(value: Any) -> bool:
    return (
        not isinstance(value, type)
        and all(callable(getattr(value, method, None)) for method in ("run", "resume", "stream"))
        and isinstance(getattr(value, "name", None), str)
    )


def _types_of(runnable: Any) -> tuple[Any, Any]:
    """What an agent, a workflow or a team takes and gives, as far as it says."""
    plan = getattr(runnable, "plan", None)
    if isinstance(plan, Plan):
        return plan.takes, plan.gives
    if isinstance(runnable, Team):
        members: Any = runnable.members
        if runnable.mode == "route":
            return _PROMPT, union_of([_types_of(one.runnable)[1] for one in members])
        runnable = runnable.agent
    if isinstance(runnable, Agent):
        output = cast("Any", runnable).output
        return _PROMPT, output.type if isinstance(output, Output) else output
    return Any, Any


def _common(types: Iterable[Any]) -> Any:
    """The type that all of several take, where they say the same; Any otherwise."""
    known = [one for one in types if one is not Any]
    return known[0] if known and all(one == known[0] for one in known) else Any


def _at_least_one(number: Any, what: str) -> int:
    if type(number) is not int or number < 1:
        raise ArgumentError(f"{what} must be a number above 0, not {number!r}")
    return number
