"""What a stream yields: the model's deltas as they come, and the events of the run around them.

Deltas are made by models and passed on as they are, so a streamed chunk costs one object.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from gossamer.messages import Message, ToolCall, ToolResult
from gossamer.records import PendingCall
from gossamer.usage import Usage

__all__ = [
    "ApprovalNeeded",
    "Compacted",
    "Delta",
    "Event",
    "HandoffEvent",
    "InnerEvent",
    "MessageFinished",
    "OutputDelta",
    "OutputRestarted",
    "RunFailed",
    "RunFinished",
    "RunStarted",
    "StepFailed",
    "StepFinished",
    "StepStarted",
    "TextDelta",
    "ThinkingDelta",
    "ToolArgumentsDelta",
    "ToolCallFinished",
    "ToolCallStarted",
    "ToolProgress",
    "UsageUpdated",
]


class Event(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    """The base of everything that a stream yields."""


class TextDelta(Event, frozen=True, gc=False, tag="text_delta"):
    """The next piece of the answer."""

    text: str


class ThinkingDelta(Event, frozen=True, gc=False, tag="thinking_delta"):
    """The next piece of the model's thinking."""

    text: str


class ToolCallStarted(Event, frozen=True, gc=False, tag="tool_call_started"):
    """The model began to write a call."""

    call_id: str
    name: str


class ToolArgumentsDelta(Event, frozen=True, gc=False, tag="tool_arguments_delta"):
    """The next piece of a call's arguments, as JSON text."""

    call_id: str
    text: str


class OutputRestarted(Event, frozen=True, gc=False, tag="output_restarted"):
    """The answer is written anew: what was shown of it is void, its text, its thinking and its calls.

    Comes before a structured answer is mended, and where a model that may restart begins again after a stream that
    broke.

    Attributes:
        reason: what was wrong: what did not fit, as the model was told, or how the stream broke.
    """

    reason: str


Delta: TypeAlias = TextDelta | ThinkingDelta | ToolCallStarted | ToolArgumentsDelta | OutputRestarted


class RunStarted(Event, frozen=True, gc=False, tag="run_started"):
    """The run began."""

    run_id: str
    agent: str


class MessageFinished(Event, frozen=True, gc=False, tag="message_finished"):
    """The model finished a message."""

    message: Message


class UsageUpdated(Event, frozen=True, gc=False, tag="usage_updated"):
    """What the run has used so far."""

    usage: Usage


class ToolProgress(Event, frozen=True, gc=False, tag="tool_progress"):
    """A tool that is a generator yielded an interim value."""

    call: ToolCall
    value: Any


class ToolCallFinished(Event, frozen=True, gc=False, tag="tool_call_finished"):
    """A tool has its result."""

    call: ToolCall
    result: ToolResult


class ApprovalNeeded(Event, frozen=True, gc=False, tag="approval_needed"):
    """The run is about to pause until somebody decides about this call."""

    pending: PendingCall


class HandoffEvent(Event, frozen=True, gc=False, tag="handoff"):
    """Another agent answers from here on."""

    to: str


class InnerEvent(Event, frozen=True, gc=False, tag="inner"):
    """An event of a run inside this one: of an agent used as a tool, a member of a team, or a step of a workflow.

    Attributes:
        path: what leads from this run to that one, outermost first: names of agents, places of steps.
        run_id: that run.
        event: its event.
    """

    path: tuple[str, ...]
    run_id: str
    event: Any


class Compacted(Event, frozen=True, gc=False, tag="compacted"):
    """The working memory moved what the model sees, before it is asked.

    Attributes:
        tokens_before: of the request as it would have been, instructions and tools included.
        tokens_after: of the request as it is now.
        shortened: tool messages that were moved out of view.
        summarised: messages that summaries stand for now.
    """

    tokens_before: int
    tokens_after: int
    shortened: int
    summarised: int


class OutputDelta(Event, frozen=True, gc=False, tag="output_delta"):
    """A structured answer has grown.

    Comes each time the text grew by a sixteenth, so that reading `partial` of every event costs linear time
    in the length of the answer.

    Attributes:
        text: the JSON received so far.
    """

    text: str

    @property
    def partial(self) -> Any:
        """The answer so far as plain data, parsed when it is read; None before the first value."""
        import jiter

        try:
            return jiter.from_json(self.text.encode(), partial_mode="trailing-strings")
        except ValueError:
            return None


class StepStarted(Event, frozen=True, gc=False, tag="step_started"):
    """A step of a workflow begins.

    Attributes:
        place: where it stands, such as `parallel/search[3]/fetch`.
        attempt: 1, and more where it is tried again.
    """

    place: str
    attempt: int = 1


class StepFinished(Event, frozen=True, gc=False, tag="step_finished"):
    """A step of a workflow has its output.

    Attributes:
        place: see `StepStarted`.
        output: what it returned.
        seconds: how long it took.
    """

    place: str
    output: Any
    seconds: float


class StepFailed(Event, frozen=True, gc=False, tag="step_failed"):
    """An attempt at a step of a workflow failed; it may be tried again, or its fallback takes its place.

    Attributes:
        place: see `StepStarted`.
        error: the error's class.
        message: its text.
        seconds: how long the attempt took.
    """

    place: str
    error: str
    message: str
    seconds: float


class RunFinished(Event, frozen=True, gc=False, tag="run_finished"):
    """The run came to its end; always the last event of a run that did not fail.

    Attributes:
        result: the same `Result` as `stream.result`.
    """

    result: Any


class RunFailed(Event, frozen=True, gc=False, tag="run_failed"):
    """The run failed; the stream raises the same error next."""

    error: str
    message: str
