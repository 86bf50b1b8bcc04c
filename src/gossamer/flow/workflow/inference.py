"""Which types go through a workflow: what each step gives against what the next one takes."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from gossamer.errors import StepTypeError
from gossamer.flow.workflow.branching import (
    ConditionNode,
    LoopNode,
    MapNode,
    ParallelNode,
    RouterNode,
    SequenceNode,
)
from gossamer.flow.workflow.leaf import Leaf, Node
from gossamer.flow.workflow.types import fits, item_of, name_of, union_of

__all__ = ["infer"]


def infer(node: Node, given: Any, giver: str, output: Any = None) -> Any:
    """Follow a type through a node.

    Args:
        node: the node.
        given: the type that it is given.
        giver: what gives it, for errors.
        output: the type that is declared for what it gives, or None.

    Returns:
        The type that it gives; Any where that is not known.

    Raises:
        StepTypeError: a step gives what the next one does not take; the error names both.
    """
    gives, last = _infer(node, given, giver)
    if output is not None and not fits(gives, output):
        raise StepTypeError(
            f"{last} gives {name_of(gives)}, and {name_of(output)} is declared as the output", place=node.path
        )
    if not isinstance(node, Leaf):  # a leaf keeps what it says itself: that is what its records hold
        node.gives = gives
    return gives


def _infer(node: Node, given: Any, giver: str) -> tuple[Any, str]:
    """Give the type that a node gives, and what gives it."""
    here = f"step {node.path!r}"
    if isinstance(node, SequenceNode):
        for step in node.steps:
            given = infer(step, given, giver)
            giver = f"step {step.path!r}"
        return given, giver
    if isinstance(node, ParallelNode):
        outputs = {name: infer(branch, given, giver) for name, branch in node.branches.items()}
        if node.check is not None:
            _check_fields(node, outputs)
        return node.gives, here
    if isinstance(node, ConditionNode):
        _decides(node.test, given, giver, bool)
        ways = [infer(node.then, given, giver)]
        ways.append(given if node.otherwise is None else infer(node.otherwise, given, giver))
        return union_of(ways), here
    if isinstance(node, RouterNode):
        _decides(node.choose, given, giver, str)
        ways = [infer(one, given, giver) for one in node.routes.values()]
        if node.default is not None:
            ways.append(infer(node.default, given, giver))
        return union_of(ways), here
    if isinstance(node, LoopNode):
        gives = infer(node.body, given, giver)
        if node.max_iterations > 1:
            infer(node.body, gives, f"step {node.body.path!r}, in the next round of the loop,")
        if node.until is not None:
            _decides(node.until, gives, f"step {node.body.path!r}", bool)
        return gives, here
    if isinstance(node, MapNode):
        item = item_of(given)
        if item is None:
            raise StepTypeError(f"{giver} gives {name_of(given)}, and {here} takes a list", place=node.path)
        each = infer(node.body, item, f"an item of what {giver} gives")
        return (list if each is Any else list[each]), here
    if not fits(given, node.takes):
        raise StepTypeError(
            f"{giver} gives {name_of(given)}, and {here} takes {name_of(node.takes)}", place=node.path
        )
    gives = node.gives
    if isinstance(node, Leaf) and node.fallback is not None:
        gives = union_of([gives, infer(node.fallback, given, giver)])
        return gives, here
    return gives, here


def _decides(node: Node, given: Any, giver: str, wanted: type) -> None:
    gives = infer(node, given, giver)
    if not fits(gives, wanted):
        raise StepTypeError(
            f"step {node.path!r} decides, and gives {name_of(gives)} instead of {name_of(wanted)}",
            place=node.path,
        )


def _check_fields(node: ParallelNode, outputs: Mapping[str, Any]) -> None:
    """Check that what branches give fits the fields of what is made of it."""
    try:
        fields = typing.get_type_hints(node.gives)
    except (NameError, TypeError):
        return
    for name, gives in outputs.items():
        if name not in fields:
            raise StepTypeError(
                f"step {node.path!r} makes a {name_of(node.gives)}, which has no field for branch {name!r}",
                place=node.path,
            )
        if not fits(gives, fields[name]):
            raise StepTypeError(
                f"branch {name!r} of step {node.path!r} gives {name_of(gives)}, and {name_of(node.gives)} has "
                f"{name_of(fields[name])} there",
                place=node.path,
            )
