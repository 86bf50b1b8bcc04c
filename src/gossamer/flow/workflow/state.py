"""What the steps of a run remember together: each branch has its own state, and branches are merged where they join."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import msgspec

from gossamer.errors import ArgumentError, MergeConflictError
from gossamer.flow.workflow.types import store
from gossamer.session_data import merge_state

__all__ = ["Branch", "Merge", "MergeField", "add_up", "join_lists", "take_last"]

# Gives the one value of a field that several branches changed: out of the value before them, and theirs, in order.
MergeField: TypeAlias = Callable[[Any, Sequence[Any]], Any]

# One for every field, or one for each field that may be changed by several branches.
Merge: TypeAlias = MergeField | Mapping[str, MergeField]

_ABSENT: Any = object()


class Branch:
    """The state of one branch of a run. The value is never changed, only replaced.

    Args:
        state: the value that it begins with: a dict, a dataclass or a Struct.

    Attributes:
        state: the value now.
        changed: the fields that the branch has changed since it began, with their values.
    """

    __slots__ = ("changed", "state")

    def __init__(self, state: Any) -> None:
        self.state = state
        self.changed: dict[str, Any] = {}

    def fork(self) -> Branch:
        """Give a branch that begins where this one is."""
        return Branch(self.state)

    def take(self, state: Any) -> dict[str, Any]:
        """Take over what a step made of its copy of the state.

        Returns:
            The fields that it changed, with their values.

        Raises:
            ValueError: it deleted a field, or made something else of the state.
        """
        if type(state) is not type(self.state):
            raise ValueError(
                f"the state is {type(self.state).__name__}, and a step made it {type(state).__name__}"
            )
        before, after = _fields(self.state), _fields(state)
        gone = before.keys() - after.keys()
        if gone:
            raise ValueError(f"a step deleted {sorted(gone)} of the state; set it to None instead")
        changes = {
            name: value
            for name, value in after.items()
            if (old := before.get(name, _ABSENT)) is _ABSENT or old != value or type(old) is not type(value)
        }
        if changes:
            self.state = state
            self.changed |= changes
        return changes

    def take_stored(self, patch: dict[str, Any]) -> None:
        """Take over what a step changed, as it stands in the journal."""
        self.state = merge_state(self.state, patch, None)
        after = _fields(self.state)
        self.changed |= {name: after[name] for name in patch}

    def stored(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Give changes as JSON data.

        Raises:
            ValueError: a field has no JSON form, or would not come back as it is.
        """
        hints = {} if type(self.state) is dict else _hints(type(self.state))
        return {name: store(value, hints.get(name, Any)) for name, value in changes.items()}

    def join(self, branches: Mapping[str, Branch], merge: Merge | None, place: str) -> None:
        """Take over what branches changed that began here.

        Raises:
            MergeConflictError: two of them changed one field in different ways, and there is no merge for it.
        """
        joined: dict[str, Any] = {}
        for name in dict.fromkeys(field for branch in branches.values() for field in branch.changed):
            theirs = {key: branch.changed[name] for key, branch in branches.items() if name in branch.changed}
            values = list(theirs.values())
            if len(values) == 1 or (
                merge is None
                and all(value == values[0] and type(value) is type(values[0]) for value in values)
            ):
                joined[name] = values[0]
                continue
            one = merge if merge is None or callable(merge) else merge.get(name)
            if one is None:
                raise MergeConflictError(
                    f"{place}: branches {', '.join(map(repr, theirs))} changed field {name!r} of the state; say how "
                    f"they go together, as with merge={{{name!r}: add_up}}",
                    place=place,
                    field=name,
                    branches=tuple(theirs),
                )
            joined[name] = one(_fields(self.state).get(name), values)
        if joined:
            self.state = with_fields(self.state, joined)
            self.changed |= joined


def with_fields(state: Any, changes: Mapping[str, Any]) -> Any:
    """Give a state with other values of some fields.

    Raises:
        ArgumentError: it has no such field.
    """
    if type(state) is dict:
        return {**cast("dict[str, Any]", state), **changes}
    unknown = changes.keys() - _fields(state).keys()
    if unknown:
        raise ArgumentError(f"the state, {type(state).__name__}, has no field {sorted(unknown)}")
    if isinstance(state, msgspec.Struct):
        return msgspec.structs.replace(state, **changes)
    return dataclasses.replace(state, **changes)


def own_copy(state: Any) -> Any:
    """Give a copy that shares nothing that can be changed."""
    return copy.deepcopy(state)


def check_state(state: Any) -> None:
    """Check that something can be a workflow's state.

    Raises:
        ArgumentError: it cannot.
    """
    if type(state) is not dict and not isinstance(state, msgspec.Struct) and not _is_dataclass(state):
        raise ArgumentError(
            f"state must be a dict, or an instance of a dataclass or a Struct, not {type(state).__name__}"
        )


def _is_dataclass(state: Any) -> bool:
    return dataclasses.is_dataclass(state) and not isinstance(state, type)


def _fields(state: Any) -> dict[str, Any]:
    if type(state) is dict:
        return cast("dict[str, Any]", state)
    if isinstance(state, msgspec.Struct):
        return {name: getattr(state, name) for name in state.__struct_fields__}
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _hints(type_: Any) -> dict[str, Any]:
    import typing

    return typing.get_type_hints(type_, include_extras=True)


# --- merges -------------------------------------------------------------------------------------------------


def add_up(before: Any, values: Sequence[Any]) -> Any:
    """Add what each branch added: of a count that was 2, branches with 3 and 5 make 6."""
    start = before or 0
    return start + sum(value - start for value in values)


def join_lists(before: Any, values: Sequence[Any]) -> list[Any]:
    """Put behind a list what each branch put behind it.

    Raises:
        ValueError: a branch changed what was there before.
    """
    start: list[Any] = list(before or [])
    joined = list(start)
    for value in values:
        if list(value[: len(start)]) != start:
            raise ValueError("join_lists joins what branches appended, and one changed what was there before")
        joined += value[len(start) :]
    return joined


def take_last(before: Any, values: Sequence[Any]) -> Any:  # noqa: ARG001 - as every merge
    """Take the value of the last branch, in the order in which they are declared."""
    return values[-1]
