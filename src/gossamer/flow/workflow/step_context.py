"""What a step may know beside the value that it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from gossamer.context import RunContext
from gossamer.flow.workflow.state import Branch, own_copy, with_fields
from gossamer.session import Session

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    StateT = TypeVar("StateT", default=Any)
else:
    from typing import TypeVar

    StateT = TypeVar("StateT")

__all__ = ["StepContext"]


class StepContext(Generic[StateT]):
    """One attempt at a step, as its function may see it: `async def fetch(url: str, context: StepContext)`.

    Args:
        run: the context of the workflow's run.
        place: where the step stands in the workflow, such as `parallel/search[3]/fetch`.
        attempt: 1, and more where the step is tried again.
        branch: whose state it is.

    Attributes:
        run: the context of the workflow's run.
        place: where the step stands in the workflow.
        attempt: which attempt this is.
    """

    __slots__ = ("_branch", "_own", "attempt", "place", "run")

    def __init__(self, run: RunContext[Any], place: str, attempt: int, branch: Branch) -> None:
        self.run = run
        self.place = place
        self.attempt = attempt
        self._branch = branch
        self._own: Any = None

    @property
    def deps(self) -> Any:
        """What the caller passed as `deps`."""
        return self.run.deps

    @property
    def user(self) -> str | None:
        """On whose behalf the run is made."""
        return self.run.user

    @property
    def session(self) -> Session[Any] | None:
        """The run's session, or None."""
        return self.run.session

    @property
    def key(self) -> str:
        """The same at each attempt at this step, also after a crash, and at no other: for services that do a thing once."""
        return f"{self.run.run_id}/{self.place}"

    @property
    def state(self) -> StateT:
        """A copy of the branch's state, for this attempt alone: what is changed in it counts once the step has finished."""
        if self._own is None:
            self._own = own_copy(self._branch.state)
        return self._own

    def update(self, **fields: Any) -> None:
        """Set fields of the state, also of one that is frozen."""
        self._own = with_fields(self.state, fields)

    def changes(self) -> dict[str, Any] | None:
        """Let what the step changed count, and give the fields; for the workflow itself."""
        return None if self._own is None else self._branch.take(self._own)
