"""The entries of a session's journal, and the decisions that people make about paused runs.

The journal is append-only. What the model sees, the view, is computed from it: message records add to the view,
results of one turn become one tool message when the last of them is there, and view records move the view.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from gossamer.errors import DecodeError
from gossamer.messages import (
    Audio,
    Citation,
    File,
    Image,
    Message,
    ProviderBlock,
    Refusal,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from gossamer.schema import is_array, is_object
from gossamer.usage import Usage

__all__ = [
    "SCHEMA_VERSION",
    "Answer",
    "ApprovalAskedRecord",
    "ApprovalDecidedRecord",
    "ApprovalsForgottenRecord",
    "Approve",
    "CallLostRecord",
    "Decision",
    "Deny",
    "HandoffRecord",
    "MessageRecord",
    "OffloadedRecord",
    "PendingCall",
    "PendingKind",
    "Record",
    "Remember",
    "RunFailedRecord",
    "RunFinishedRecord",
    "RunStartedRecord",
    "StateRecord",
    "StepFailedRecord",
    "StepFinishedRecord",
    "StepStartedRecord",
    "ToolResultRecord",
    "ToolStartedRecord",
    "ToolkitSwitchedRecord",
    "ViewMovedRecord",
    "decode_as",
    "decode_record",
    "encode",
]

SCHEMA_VERSION = 1

PendingKind: TypeAlias = Literal["approval", "question", "caller", "outcome"]


class PendingCall(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """A tool call that waits for a decision.

    Attributes:
        call: the call, arguments as the model wrote them.
        kind: `approval`: may the tool run; `question`: a person answers; `caller`: the caller runs the tool;
            `outcome`: the process ended while a step of a workflow ran: `Approve` runs it again, `Answer` gives its
            output.
        run_id: the run that asked, which may be a run started inside a tool of the run that was resumed.
        agent: the agent of that run.
        tool: tells the tool from others of its name, and from itself once its description or parameters have changed.
        expires: the time, in seconds since the epoch, at which nobody may decide any more; None where there is none.
    """

    call: ToolCall
    kind: PendingKind
    run_id: str
    agent: str = ""
    tool: str = ""
    expires: float | None = None

    @property
    def call_id(self) -> str:
        """The id under which `agent.resume` takes the decision."""
        return self.call.id

    @property
    def expired(self) -> bool:
        """Whether it is too late to decide: the call counts as denied."""
        return self.expires is not None and time() >= self.expires


# Whether a decision holds for the rest of the session: for each call of the tool, or for those with the same arguments.
Remember: TypeAlias = Literal["tool", "arguments"]


class _Decision(
    msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, forbid_unknown_fields=True
):
    """The options that all decisions share."""


class Approve(_Decision, frozen=True, tag="approve"):
    """The tool may run.

    Attributes:
        args: arguments to run with in place of the model's, or None to leave them.
        remember: do not ask again in this session, for this tool or for these arguments.
    """

    args: dict[str, Any] | None = None
    remember: Remember | None = None


class Deny(_Decision, frozen=True, tag="deny"):
    """The tool must not run.

    Attributes:
        reason: the model is told.
        remember: deny in this session from now on, this tool or these arguments.
    """

    reason: str = ""
    remember: Remember | None = None


class Answer(_Decision, frozen=True, tag="answer"):
    """The answer to a question, or the result of a tool that the caller ran.

    Attributes:
        value: text, or anything JSON can hold.
    """

    value: Any


Decision: TypeAlias = Approve | Deny | Answer


class _Record(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    tag_field="type",
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """What all records carry: the run's id and the time in seconds since the epoch."""

    run: str
    at: float = msgspec.field(default_factory=time)


class RunStartedRecord(_Record, frozen=True, gc=False, tag="run_started"):
    """A run began.

    Attributes:
        agent: the agent's name.
        parent: the run that started this one inside a tool, member or step.
        call: the call of the parent in which it was started.
        user: on whose behalf.
        fingerprint: what tells whether the agent has changed since; only in a session that is kept in a store.
    """

    agent: str
    parent: str | None = None
    call: str | None = None
    user: str | None = None
    fingerprint: str = ""


class RunFinishedRecord(_Record, frozen=True, gc=False, tag="run_finished"):
    """A run came to its end, by an answer or by a limit.

    Attributes:
        finish_reason: why.
        usage: what it used.
        output: the answer as JSON data.
    """

    finish_reason: str
    usage: Usage
    output: Any = None


class RunFailedRecord(_Record, frozen=True, gc=False, tag="run_failed"):
    """A run broke off.

    Attributes:
        error: the error's class; `Cancelled` and `Abandoned` (the process died) among them.
        message: its text.
        usage: what the run had used.
    """

    error: str
    message: str = ""
    usage: Usage | None = None


class MessageRecord(_Record, frozen=True, gc=False, tag="message"):
    """Somebody spoke.

    Attributes:
        message: what was said.
        usage: what the model call behind it used.
        interrupted: the model was stopped while it spoke, and this is what had been finished.
        withdrawn: a guardrail stopped it, and it is not in the view.
        repair: the loop asked for an answer to be mended; nobody else said this.
        retrieved: memories put it before the model; nobody said this.
    """

    message: Message
    usage: Usage | None = None
    interrupted: bool = False
    withdrawn: bool = False
    repair: bool = False
    retrieved: bool = False


class ToolStartedRecord(_Record, frozen=True, gc=False, tag="tool_started"):
    """A tool is about to begin; stored before it does."""

    call_id: str


class ToolResultRecord(_Record, frozen=True, gc=False, tag="tool_result"):
    """A call has its result; it never runs again.

    Attributes:
        result: the result.
        ends_run: the tool ended the run with it.
        output: what it ended the run with, as JSON data.
    """

    result: ToolResult
    ends_run: bool = False
    output: Any = None


class ApprovalAskedRecord(_Record, frozen=True, gc=False, tag="approval_asked"):
    """A call waits for a decision."""

    pending: PendingCall


class ApprovalDecidedRecord(_Record, frozen=True, gc=False, tag="approval_decided"):
    """The decision about a call."""

    call_id: str
    decision: Decision


class ApprovalsForgottenRecord(_Record, frozen=True, gc=False, tag="approvals_forgotten"):
    """What was remembered of decisions no longer holds; each call is asked about again."""


class StateRecord(_Record, frozen=True, gc=False, tag="state"):
    """The session's state changed.

    Attributes:
        patch: what was merged into the state, as JSON data.
    """

    patch: dict[str, Any]


class ViewMovedRecord(_Record, frozen=True, gc=False, tag="view_moved"):
    """The view changed: messages at places from `begin` up to `end` left it, `insert` stands in their stead.

    Attributes:
        reason: `window`, `rewind`, `failed`, `guardrail` or `compaction`.
        begin: the first place in the journal that leaves the view.
        end: the place just behind the last.
        insert: messages that take their place.
    """

    reason: str
    begin: int
    end: int
    insert: tuple[Message, ...] = ()


class CallLostRecord(_Record, frozen=True, gc=False, tag="call_lost"):
    """A model call under a limit whose use nobody counted: it was cancelled or broke off, or the provider is silent.

    Attributes:
        most: all that it could have used; counts against the session's limits, not as its usage.
    """

    most: Usage


class HandoffRecord(_Record, frozen=True, gc=False, tag="handoff"):
    """Another agent answers from here on."""

    to: str


class ToolkitSwitchedRecord(_Record, frozen=True, gc=False, tag="toolkit_switched"):
    """A toolkit was switched on or off."""

    toolkit: str
    on: bool


class OffloadedRecord(_Record, frozen=True, gc=False, tag="offloaded"):
    """A text that is too large for the view was kept aside; only in a session that is kept in a store.

    Attributes:
        reference: stands for it in the view.
        text: the text.
    """

    reference: str
    text: str


class StepStartedRecord(_Record, frozen=True, gc=False, tag="step_started"):
    """A step of a workflow is about to begin; stored before it does, unless it may run again anyway.

    Attributes:
        step: its place, such as `parallel/search[3]/fetch`.
    """

    step: str


class StepFinishedRecord(_Record, frozen=True, gc=False, tag="step_finished"):
    """A step of a workflow has its output; it never runs again in this run.

    Attributes:
        step: its place; empty for the run's input, which is kept like an output.
        output: what it returned, as JSON data.
        seconds: how long it took.
        state: the fields of the state that it changed, as JSON data.
    """

    step: str
    output: Any = None
    seconds: float = 0.0
    state: dict[str, Any] | None = None


class StepFailedRecord(_Record, frozen=True, gc=False, tag="step_failed"):
    """An attempt at a step of a workflow failed.

    Attributes:
        step: its place.
        error: the error's class.
        message: its text.
        seconds: how long the attempt took.
    """

    step: str
    error: str
    message: str = ""
    seconds: float = 0.0


Record: TypeAlias = (
    RunStartedRecord
    | RunFinishedRecord
    | RunFailedRecord
    | MessageRecord
    | ToolStartedRecord
    | ToolResultRecord
    | ApprovalAskedRecord
    | ApprovalDecidedRecord
    | StateRecord
    | ViewMovedRecord
    | CallLostRecord
    | HandoffRecord
    | ToolkitSwitchedRecord
    | ApprovalsForgottenRecord
    | OffloadedRecord
    | StepStartedRecord
    | StepFinishedRecord
    | StepFailedRecord
)

_PARTS = (Text, Thinking, Image, Audio, File, ToolCall, ToolResult, Refusal, Citation, ProviderBlock)
_PART_TAGS = frozenset(str(part.__struct_config__.tag) for part in _PARTS)
_ROLES = frozenset(get_args(Role))

# The dialect of parts written by another version of this library, and how such a part begins in JSON.
_UNKNOWN = "gossamer"
_KEPT_PART = b'{"type":"provider_block","dialect":"gossamer"'

# Fields of records and exports whose content is not ours.
_OPAQUE = frozenset(("state", "patch", "output", "offload", "args", "value", "provider"))


def decode_as(data: bytes | str, type_: Any) -> Any:
    """Decode stored JSON into a type made of messages and records.

    A part of an unknown kind, written by a newer version, becomes a `ProviderBlock` and is written back as it
    came. The typed decoder runs first; the tolerant way is taken only where it refuses.

    Args:
        data: JSON.
        type_: the type to decode to.

    Returns:
        A value of that type.

    Raises:
        DecodeError: not JSON, or an unknown field or kind of record, named in the message.
    """
    try:
        return msgspec.json.decode(data, type=type_)
    except (ValueError, RecursionError) as first:
        try:
            return msgspec.convert(_keep_unknown_parts(msgspec.json.decode(data)), type_, str_keys=True)
        except (ValueError, RecursionError) as error:
            reason = error if isinstance(first, msgspec.ValidationError) else first
            raise DecodeError(
                f"cannot read this data as schema version {SCHEMA_VERSION}: {reason}. "
                "It is damaged or was written by another version; read it with the version that wrote it."
            ) from error


_record_decoder = msgspec.json.Decoder(Record)


def decode_record(data: bytes) -> Record:
    """Decode one record, as `decode_as` does. Cost: a third of a microsecond for a short message.

    Raises:
        DecodeError: see `decode_as`.
    """
    try:
        return _record_decoder.decode(data)
    except (ValueError, RecursionError):
        return decode_as(data, Record)


def encode(value: Any) -> bytes:
    """Encode messages and records, alone or inside other things, as JSON for `decode_as`.

    A part of an unknown kind, kept by `decode_as`, is written as it came. Cost: one encoding; a second one only
    where there may be such a part.
    """
    data = msgspec.json.encode(value)
    if _KEPT_PART not in data:
        return data
    return msgspec.json.encode(_restore_unknown_parts(msgspec.json.decode(data)))


def _keep_unknown_parts(value: Any) -> Any:
    """Copy JSON data, wrapping every part of an unknown kind into a `ProviderBlock`."""
    return _copy(value, _wrapped)


def _restore_unknown_parts(value: Any) -> Any:
    """Copy JSON data, taking parts of unknown kinds out of their `ProviderBlock` again."""
    return _copy(value, _unwrapped)


def _copy(value: Any, change: Callable[[Any], Any]) -> Any:
    """Copy JSON data with the parts of its messages changed; what users and providers put there stays as it is."""
    if is_array(value):
        return [_copy(item, change) for item in value]
    if not is_object(value):
        return value
    parts = value.get("parts")
    if value.get("role") in _ROLES and is_array(parts):
        return {**value, "parts": [change(part) for part in parts]}
    return {key: item if key in _OPAQUE else _copy(item, change) for key, item in value.items()}


def _wrapped(part: Any) -> Any:
    if not is_object(part) or part.get("type") in _PART_TAGS:
        return part
    return {"type": "provider_block", "dialect": _UNKNOWN, "raw": part}


def _unwrapped(part: Any) -> Any:
    if part.get("type") == "provider_block" and part.get("dialect") == _UNKNOWN:
        return part["raw"]
    return part
