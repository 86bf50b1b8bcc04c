"""The steps that order others: one after the other, at the same time, one of several, again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, cast

from gossamer.context import CallPaused
from gossamer.errors import LoopLimitError, RouteError, StepInputError, StepOutputError, WorkflowError
from gossamer.flow.workflow.execution import Execution, side_by_side
from gossamer.flow.workflow.leaf import Node
from gossamer.flow.workflow.state import Branch, Merge
from gossamer.flow.workflow.types import Check, name_of

__all__ = ["ConditionNode", "LoopNode", "MapNode", "ParallelNode", "RouterNode", "SequenceNode"]


class SequenceNode(Node):
    """Steps one after the other; those of a list that has no name stand where it does."""

    kind = "steps"
    steps: tuple[Node, ...]

    async def run(self, execution: Execution, value: Any, prefix: str, branch: Branch) -> Any:
        """See `Node.run`."""
        if self.name:
            prefix = f"{prefix}{self.name}/"
        for step in self.steps:
            value = await step.run(execution, value, prefix, branch)
        return value


class _Composite(Node):
    """Steps in a frame: it has a name, and is counted as a whole."""

    async def run(self, execution: Execution, value: Any, prefix: str, branch: Branch) -> Any:
        """See `Node.run`."""
        began = perf_counter()
        tally = execution.tally
        try:
            output = await self.inside(execution, value, prefix + self.name, branch)
        except WorkflowError:
            tally.failures[self.index] += 1
            raise
        except CallPaused:
            tally.waiting[self.index] += 1
            raise
        tally.runs[self.index] += 1
        tally.seconds[self.index] += perf_counter() - began
        return output

    async def inside(self, execution: Execution, value: Any, place: str, branch: Branch) -> Any:
        """Run what is inside."""
        raise NotImplementedError


class ParallelNode(_Composite):
    """Branches at the same time."""

    kind = "parallel"
    branches: Mapping[str, Node]
    merge: Merge | None
    check: Check | None
    max_concurrency: int

    async def inside(self, execution: Execution, value: Any, place: str, branch: Branch) -> Any:
        """See `_Composite.inside`."""
        names, nodes = tuple(self.branches), tuple(self.branches.values())
        forks = [branch.fork() for _ in nodes]
        prefix = f"{place}/"
        given = await side_by_side(
            execution,
            len(nodes),
            self.max_concurrency,
            lambda own, number: nodes[number].run(own, value, prefix, forks[number]),
        )
        _join(branch, dict(zip(names, forks, strict=True)), self.merge, place)
        outputs: Any = dict(zip(names, given, strict=True))
        if self.check is None:
            return outputs
        try:
            return self.check(outputs)
        except ValueError as error:
            raise StepOutputError(
                f"what the branches of {place!r} gave is no {name_of(self.gives)}: {error}", place=place
            ) from error


def _join(branch: Branch, forks: Mapping[str, Branch], merge: Merge | None, place: str) -> None:
    if not any(fork.changed for fork in forks.values()):
        return
    try:
        branch.join(forks, merge, place)
    except WorkflowError:
        raise
    except Exception as error:
        raise WorkflowError(
            f"the merge of {place!r} failed: {type(error).__name__}: {error}", place=place
        ) from error


class ConditionNode(_Composite):
    """One of two ways."""

    kind = "condition"
    test: Node
    then: Node
    otherwise: Node | None

    async def inside(self, execution: Execution, value: Any, place: str, branch: Branch) -> Any:
        """See `_Composite.inside`."""
        prefix = f"{place}/"
        chosen = self.then if await _verdict(self.test, execution, value, prefix, branch) else self.otherwise
        return value if chosen is None else await chosen.run(execution, value, prefix, branch)


async def _verdict(node: Node, execution: Execution, value: Any, prefix: str, branch: Branch) -> bool:
    verdict = await node.run(execution, value, prefix, branch)
    if type(verdict) is not bool:
        place = prefix + node.name
        raise StepOutputError(f"step {place!r} must give True or False, not {verdict!r:.200}", place=place)
    return verdict


class LoopNode(_Composite):
    """Again and again."""

    kind = "loop"
    body: Node
    until: Node | None
    max_iterations: int

    async def inside(self, execution: Execution, value: Any, place: str, branch: Branch) -> Any:
        """See `_Composite.inside`."""
        for iteration in range(self.max_iterations):
            prefix = f"{place}[{iteration}]/"
            value = await self.body.run(execution, value, prefix, branch)
            if self.until is not None and await _verdict(self.until, execution, value, prefix, branch):
                return value
        if self.until is None:
            return value
        raise LoopLimitError(
            f"loop {place!r} ran {self.max_iterations} times, as often as max_iterations allows, and its condition "
            "still says no",
            place=place,
        )


class RouterNode(_Composite):
    """One of several ways."""

    kind = "router"
    choose: Node
    routes: Mapping[str, Node]
    default: Node | None

    async def inside(self, execution: Execution, value: Any, place: str, branch: Branch) -> Any:
        """See `_Composite.inside`."""
        prefix = f"{place}/"
        name = await self.choose.run(execution, value, prefix, branch)
        chosen = self.routes.get(name) if isinstance(name, str) else None
        if chosen is None:
            chosen = self.default
        if chosen is None:
            raise RouteError(
                f"router {place!r} chose {name!r:.200}, and has {', '.join(self.routes)}", place=place
            )
        return await chosen.run(execution, value, prefix, branch)


class MapNode(_Composite):
    """A step for each item."""

    kind = "map"
    body: Node
    merge: Merge | None
    max_concurrency: int
    max_items: int

    async def inside(self, execution: Execution, value: Any, place: str, branch: Branch) -> Any:
        """See `_Composite.inside`."""
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise StepInputError(
                f"map {place!r} takes a list, not {type(value).__name__}: {value!r:.200}",
                place=place,  # pyright: ignore[reportUnknownArgumentType]
            )
        items = cast("Sequence[Any]", value)
        if len(items) > self.max_items:
            raise StepInputError(
                f"map {place!r} is given {len(items):,} items, more than max_items of {self.max_items:,}",
                place=place,
            )
        forks = [branch.fork() for _ in items]
        body = self.body
        outputs = await side_by_side(
            execution,
            len(items),
            self.max_concurrency,
            lambda own, number: body.run(own, items[number], f"{place}[{number}]/", forks[number]),
        )
        _join(branch, {f"[{number}]": fork for number, fork in enumerate(forks)}, self.merge, place)
        return outputs
