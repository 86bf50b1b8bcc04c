"""Plans: what is to be done, item by item, kept in a session and changed through tools."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from gossamer.context import RunContext
from gossamer.errors import ArgumentError, PlanError
from gossamer.schema import is_object
from gossamer.session import Session
from gossamer.telemetry.logging import logger
from gossamer.tools.function import Tool, tool
from gossamer.tools.toolkit import Toolkit

__all__ = ["OnPlanChange", "Plan", "PlanChange", "PlanItem", "plan_of", "plan_toolkit"]

ItemStatus: TypeAlias = Literal["open", "doing", "done", "dropped"]
Outcome: TypeAlias = Literal["done", "abandoned"]

_MOST_CHARS = 2_000
_MARKS = {"open": " ", "doing": "~", "done": "x", "dropped": "-"}

Line: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=_MOST_CHARS)]


class PlanItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing to be done.

    Attributes:
        id: its number in the plan, from 1; never given twice.
        text: what is to be done.
        status: `open`, `doing`, `done` or `dropped`.
        assignee: who does it, "" where nobody was told to.
        note: what came of it so far.
    """

    id: int
    text: Line
    status: ItemStatus = "open"
    assignee: str = ""
    note: Annotated[str, msgspec.Meta(max_length=_MOST_CHARS)] = ""


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is to be done. A value: each change makes a new one.

    Attributes:
        goal: what it is for.
        items: the items, in the order in which they were added.
        outcome: None while it is under way, then `done` or `abandoned`.
        summary: what came of it.
    """

    goal: Line
    items: tuple[PlanItem, ...] = ()
    outcome: Outcome | None = None
    summary: Annotated[str, msgspec.Meta(max_length=_MOST_CHARS)] = ""

    def __str__(self) -> str:
        """The plan as a model reads it."""
        lines = [f"Plan: {self.goal}"]
        for item in self.items:
            whose = f" ({item.assignee})" if item.assignee else ""
            note = f": {item.note}" if item.note else ""
            lines.append(f"[{_MARKS[item.status]}] {item.id}. {item.text}{whose}{note}")
        if self.outcome is not None:
            lines.append(f"Finished, {self.outcome}. {self.summary}".rstrip())
        return "\n".join(lines)

    def item(self, number: int) -> PlanItem:
        """Give an item by its number.

        Raises:
            PlanError: there is none of that number.
        """
        for item in self.items:
            if item.id == number:
                return item
        known = ", ".join(str(item.id) for item in self.items) or "none"
        raise PlanError(f"the plan has no item {number}; it has {known}")


class PlanChange(msgspec.Struct, frozen=True):
    """What hooks are told.

    Attributes:
        kind: what was done to the plan.
        plan: the plan as it is now.
        items: the numbers of the items that were added or changed.
        agent: the name of the agent that did it.
        run_id: the run in which it did.
    """

    kind: Literal["created", "revised", "updated", "finished"]
    plan: Plan
    items: tuple[int, ...]
    agent: str
    run_id: str


# Told of each change, once it is in the session. What it raises is logged, and changes nothing.
OnPlanChange: TypeAlias = Callable[[PlanChange], Awaitable[None] | None]


class NewText(msgspec.Struct, frozen=True):
    """An item that is to say something else.

    Attributes:
        item: its number.
        text: what is to be done instead.
    """

    item: int
    text: Line


def plan_of(session: Session[Any], name: str = "plan") -> Plan | None:
    """Give the plan that a session keeps, or None. O(items).

    Args:
        session: the session.
        name: the name of the toolkit.

    Raises:
        PlanError: what the state holds under that name is no plan.
    """
    state = session.state
    kept = state.get(name) if is_object(state) else getattr(state, name, None)
    if kept is None or isinstance(kept, Plan):
        return kept
    try:
        return msgspec.convert(kept, Plan)
    except msgspec.ValidationError as error:
        raise PlanError(f"what session {session.id!r} keeps as {name!r} is no plan: {error}") from error


def plan_toolkit(
    name: str = "plan",
    *,
    on_change: OnPlanChange | Sequence[OnPlanChange] = (),
    max_items: int = 50,
) -> Toolkit:
    """Make a toolkit with which an agent keeps a plan: `Agent(…, tools=[plan_toolkit()])`.

    The plan is kept in the session's state, so that it survives exports, stores and other processes; `plan_of` reads
    it. Agents inside one another that have the toolkit share the plan of the one furthest in that keeps one. A change is made
    in one step, so that none of another agent is lost.

    Args:
        name: names the toolkit, and the field of the state; plans of different names are apart.
        on_change: told of each change: one function or several, sync or async.
        max_items: most items of a plan, dropped ones included.

    Returns:
        The toolkit: `create_plan`, `revise_plan`, `update_plan_item`, `finish_plan` and `view_plan`.

    Raises:
        ArgumentError: an argument cannot be used.
    """
    hooks = (on_change,) if callable(on_change) else tuple(on_change)
    if not all(callable(hook) for hook in hooks):
        raise ArgumentError("on_change must be a function of a PlanChange, or a list of such")
    if max_items < 1:
        raise ArgumentError(f"max_items must be at least 1, not {max_items}")
    book = _Book(name, hooks, max_items)

    async def create_plan(context: RunContext[Any], goal: Line, items: list[Line]) -> str:
        """Begin a plan.

        Args:
            context: the run.
            goal: what it is for.
            items: what is to be done, one step each, in order.
        """
        return await book.create(context, goal, items)

    async def revise_plan(
        context: RunContext[Any],
        add: list[Line] = [],  # noqa: B006 - a default of the tool's schema, never changed
        drop: list[int] = [],  # noqa: B006 - as above
        reword: list[NewText] = [],  # noqa: B006 - as above
        goal: Line | None = None,
    ) -> str:
        """Change what the plan holds.

        Args:
            context: the run.
            add: further items.
            drop: numbers of items that are not needed any more.
            reword: items that are to say something else.
            goal: what the plan is for now, where that has changed.
        """
        return await book.revise(context, add, drop, reword, goal)

    async def update_plan_item(
        context: RunContext[Any],
        item: int,
        status: ItemStatus | None = None,
        note: str | None = None,
        assignee: str | None = None,
    ) -> str:
        """Tell how an item of the plan stands.

        Args:
            context: the run.
            item: its number.
            status: open, doing, done or dropped.
            note: what came of it so far, in a sentence or two.
            assignee: who does it.
        """
        return await book.update(context, item, status, note, assignee)

    async def finish_plan(context: RunContext[Any], outcome: Outcome, summary: str = "") -> str:
        """Finish the plan, once nothing of it is left to do, or where it is given up.

        Args:
            context: the run.
            outcome: done or abandoned.
            summary: what came of it.
        """
        return await book.finish(context, outcome, summary)

    def view_plan(context: RunContext[Any]) -> str:
        """See the plan as it stands."""
        return str(book.read(context)[1] or "There is no plan.")

    tools: list[Tool[..., Any]] = [
        tool(create_plan),
        tool(revise_plan),
        tool(update_plan_item),
        tool(finish_plan),
        tool(inline=True, idempotent=True)(view_plan),
    ]
    tools = [one.replace(needs_session=True) for one in tools]
    return Toolkit(name, tools, description="A plan: what is to be done, item by item.")


class _Book:
    """Reads and writes the plan of one name, in whichever session keeps it."""

    __slots__ = ("hooks", "max_items", "name")

    def __init__(self, name: str, hooks: tuple[OnPlanChange, ...], max_items: int) -> None:
        self.name = name
        self.hooks = hooks
        self.max_items = max_items

    def read(self, context: RunContext[Any]) -> tuple[Session[Any], Plan | None]:
        """Give the plan of the run or of the nearest one around it that has one, and the session that keeps it."""
        around: RunContext[Any] | None = context
        while around is not None:
            if around.session is not None:
                plan = plan_of(around.session, self.name)
                if plan is not None:
                    return around.session, plan
            around = around.parent
        return context.session, None

    async def create(self, context: RunContext[Any], goal: str, items: list[str]) -> str:
        session, plan = self.read(context)
        if plan is not None and plan.outcome is None:
            raise PlanError("a plan is under way; revise it, or finish it first")
        made = tuple(PlanItem(number, text) for number, text in enumerate(items, 1))
        return await self._write(context, session, Plan(goal, made), "created", [item.id for item in made])

    async def revise(
        self,
        context: RunContext[Any],
        add: list[str],
        drop: list[int],
        reword: list[NewText],
        goal: str | None,
    ) -> str:
        session, plan = self._under_way(context)
        changed = {number: {"status": "dropped"} for number in drop}
        for new in reword:
            changed.setdefault(new.item, {})["text"] = new.text
        for number in changed:
            plan.item(number)
        items = [
            msgspec.structs.replace(item, **changed[item.id]) if item.id in changed else item
            for item in plan.items
        ]
        added = [PlanItem(number, text) for number, text in enumerate(add, len(items) + 1)]
        plan = Plan(goal or plan.goal, (*items, *added))
        return await self._write(context, session, plan, "revised", [*changed, *[item.id for item in added]])

    async def update(
        self,
        context: RunContext[Any],
        number: int,
        status: ItemStatus | None,
        note: str | None,
        assignee: str | None,
    ) -> str:
        session, plan = self._under_way(context)
        old = plan.item(number)
        new = msgspec.structs.replace(
            old,
            status=status or old.status,
            note=old.note if note is None else note[:_MOST_CHARS],
            assignee=old.assignee if assignee is None else assignee[:_MOST_CHARS],
        )
        plan = msgspec.structs.replace(plan, items=tuple(new if item is old else item for item in plan.items))
        return await self._write(context, session, plan, "updated", [number])

    async def finish(self, context: RunContext[Any], outcome: Outcome, summary: str) -> str:
        session, plan = self._under_way(context)
        left = [str(item.id) for item in plan.items if item.status in {"open", "doing"}]
        if left and outcome == "done":
            raise PlanError(f"items {', '.join(left)} are not done; do them, drop them, or abandon the plan")
        plan = msgspec.structs.replace(plan, outcome=outcome, summary=summary[:_MOST_CHARS])
        return await self._write(context, session, plan, "finished", [])

    def _under_way(self, context: RunContext[Any]) -> tuple[Session[Any], Plan]:
        session, plan = self.read(context)
        if plan is None:
            raise PlanError("there is no plan; create one first")
        if plan.outcome is not None:
            raise PlanError(f"the plan is finished ({plan.outcome}); create a new one")
        return session, plan

    async def _write(
        self, context: RunContext[Any], session: Session[Any], plan: Plan, kind: Any, items: list[int]
    ) -> str:
        """Keep a plan, with nothing awaited since it was read, and tell the hooks."""
        if len(plan.items) > self.max_items:
            raise PlanError(
                f"a plan has at most {self.max_items} items; this one would have {len(plan.items)}"
            )
        session.update({self.name: plan})
        if plan_of(session, self.name) != plan:
            raise ArgumentError(
                f"the state of session {session.id!r} has no field {self.name!r} that takes a plan; give it one, "
                "such as `plan: Plan | None = None`, or let the state be a dict"
            )
        if self.hooks:
            change = PlanChange(kind, plan, tuple(items), context.agent, context.run_id)
            for hook in self.hooks:
                await _tell(hook, change)
        return str(plan)


async def _tell(hook: OnPlanChange, change: PlanChange) -> None:
    try:
        told = hook(change)
        if inspect.isawaitable(told):
            await told
    except Exception as error:  # noqa: BLE001 - a hook's failure is the hook's own
        logger.warning("a hook of a plan failed: %s: %s", type(error).__name__, error)
