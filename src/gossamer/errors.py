"""Every error Gossamer raises. All are `GossamerError`; each says what happened and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "AddressRefusedError",
    "ArgumentError",
    "AuthenticationError",
    "CacheBusyError",
    "CacheError",
    "CacheUnavailableError",
    "CacheValueError",
    "CassetteError",
    "CircuitOpenError",
    "CodeError",
    "ConnectError",
    "ContentFilterError",
    "ContextBudgetError",
    "ContextLengthError",
    "DecodeError",
    "EndRun",
    "FanoutError",
    "GossamerError",
    "GuardrailError",
    "InvalidRequestError",
    "InvalidResponseError",
    "LimitError",
    "LoopLimitError",
    "MCPBusyError",
    "MCPConnectionError",
    "MCPError",
    "MCPTimeoutError",
    "MCPToolError",
    "MemberError",
    "MemoryNotEnteredError",
    "MergeConflictError",
    "ModelConnectionError",
    "ModelError",
    "ModelRetry",
    "ModelTimeoutError",
    "NestingError",
    "NoConsensusError",
    "NotFoundError",
    "OutputError",
    "OverloadedError",
    "PipelineError",
    "PlanError",
    "PoolExhaustedError",
    "PoolTimeoutError",
    "ProtocolError",
    "ProviderError",
    "QueueFullError",
    "QuotaExceededError",
    "RateLimitError",
    "ReadTimeoutError",
    "ResumeError",
    "RouteError",
    "RunPausedError",
    "SandboxBusyError",
    "SandboxCallsError",
    "SandboxClosedError",
    "SandboxCpuError",
    "SandboxCrashedError",
    "SandboxDiskError",
    "SandboxError",
    "SandboxFileError",
    "SandboxFileSizeError",
    "SandboxLimitError",
    "SandboxMemoryError",
    "SandboxOutputError",
    "SandboxProcessError",
    "SandboxTimeoutError",
    "SandboxUnavailableError",
    "ScriptExhaustedError",
    "ServiceError",
    "SessionBusyError",
    "SessionChangedError",
    "SessionError",
    "SessionLostError",
    "SteeringError",
    "StepDeniedError",
    "StepFailedError",
    "StepInputError",
    "StepNameError",
    "StepOutcomeError",
    "StepOutputError",
    "StepTimeoutError",
    "StepTypeError",
    "StoreBusyError",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
    "StoreUnavailableError",
    "StoreVersionError",
    "StreamBrokenError",
    "TooLargeError",
    "ToolError",
    "ToolkitError",
    "WireError",
    "WorkflowChangedError",
    "WorkflowCycleError",
    "WorkflowError",
]


class GossamerError(Exception):
    """The root of every error that Gossamer raises on its own account."""


class ArgumentError(GossamerError, ValueError, TypeError):
    """An argument is unknown, of the wrong type or out of range; the message names it."""


class DecodeError(GossamerError, ValueError):
    """Stored or exported data cannot be read: damaged, foreign, or of a newer schema version."""


# --- the wire -----------------------------------------------------------------------------------------------


class WireError(GossamerError):
    """A request failed below the level of any provider's protocol."""


class ConnectError(WireError):
    """No connection could be made: name not resolved, refused, TLS or proxy handshake failed."""


class AddressRefusedError(ConnectError):
    """The host has no address that may be connected to; nothing was sent."""


class ReadTimeoutError(WireError):
    """The server went silent for longer than the read timeout, or the total time ran out."""


class PoolTimeoutError(WireError):
    """Every connection to the host is in use and none came free in time."""


class ProtocolError(WireError):
    """The peer broke HTTP or closed the connection in the middle of an answer."""


class TooLargeError(WireError):
    """A header, a line or a body is larger than the bound that was set for it."""


# --- caches -------------------------------------------------------------------------------------------------


class CacheError(GossamerError):
    """A cache could not do what it was asked for; what it holds is still right."""


class CacheUnavailableError(CacheError):
    """The server of a cache cannot be reached, refuses to answer, or did not answer in time."""


class CacheBusyError(CacheError):
    """As many callers as a cache lets wait are waiting already; ask again later."""


class CacheValueError(CacheError, ValueError):
    """A value, or an argument that a key is made of, has no form in msgpack or not the type it should have."""


# --- models -------------------------------------------------------------------------------------------------


class ModelError(GossamerError):
    """A model call failed.

    Attributes:
        provider: who was asked, for example `openai`.
        status: the HTTP status, or None where no answer came.
        retry_after: seconds that the provider asked to wait, or None.
        request_id: the provider's id of the request, where it gave one.
        body: the first part of the provider's answer, as text.
        text: what had arrived of an answer that was being streamed.
        attempts: how many times the model was asked, by a `RetryModel`.
        texts: the places of the texts that were not embedded, where an embedder failed.
    """

    attempts: int = 1
    texts: range = range(0)

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        body: str = "",
        text: str = "",
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.status = status
        self.retry_after = retry_after
        self.request_id = request_id
        self.body = body
        self.text = text


class AuthenticationError(ModelError):
    """The key is missing, wrong or not allowed to use this model."""


class RateLimitError(ModelError):
    """Too many requests or tokens; `retry_after` says how long to wait where the provider told."""


class QuotaExceededError(RateLimitError):
    """The account has no credit or quota left: waiting does not help."""


class QueueFullError(RateLimitError):
    """More calls wait at a `RateLimitedModel` than may; it has not asked the provider."""


class CircuitOpenError(ModelError):
    """A `CircuitBreakerModel` did not ask, as the provider has failed too often in a row.

    `retry_after` says when it asks again; it is None while a trial call is under way.
    """


class ContextLengthError(ModelError):
    """The request is longer than the model's context window."""


class ContentFilterError(ModelError):
    """The provider refused to process the request or to finish the answer on grounds of its content."""


class OverloadedError(ModelError):
    """The provider has no capacity at the moment (503, 529)."""


class NotFoundError(ModelError):
    """The model or the endpoint does not exist at this provider."""


class InvalidRequestError(ModelError):
    """The provider refused the request as malformed (other 4xx)."""


class ProviderError(ModelError):
    """The provider failed on its side (5xx)."""


class ModelTimeoutError(ModelError):
    """The model did not answer in time."""


class ModelConnectionError(ModelError):
    """The provider could not be reached."""


class InvalidResponseError(ModelError):
    """The provider answered with something that is not its own protocol."""


class StreamBrokenError(ModelError):
    """A stream ended before the answer was complete; `text` holds what had arrived."""


class ScriptExhaustedError(ModelError):
    """A `ScriptedModel` was asked more often than its script has answers."""


# --- tools --------------------------------------------------------------------------------------------------


class ToolError(GossamerError):
    """A tool failed in a way that the model cannot mend; it ends the run."""


class ToolkitError(GossamerError):
    """A toolkit could not be opened, or what it held open has broken."""


class ServiceError(GossamerError):
    """A service that a toolkit asks could not be reached, refused the request, or answered with something else.

    Attributes:
        service: its name.
        status: the HTTP status, or None where no answer came.
        retry_after: seconds that the service asked to wait, or None.
    """

    def __init__(
        self, message: str, *, service: str = "", status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.service = service
        self.status = status
        self.retry_after = retry_after


class MCPError(ToolkitError):
    """An MCP server refused a request, or answered with something that is not the protocol.

    Attributes:
        server: the name of the `MCPServer`.
        code: the protocol's number of the error, or None where the server did not send one.
    """

    def __init__(self, message: str, *, server: str = "", code: int | None = None) -> None:
        super().__init__(message)
        self.server = server
        self.code = code


class MCPConnectionError(MCPError):
    """An MCP server could not be started or reached, or the connection broke while it was asked."""


class MCPTimeoutError(MCPError):
    """An MCP server did not answer in time; it has been told that nobody waits any more."""


class MCPBusyError(MCPError):
    """More calls wait for an MCP server than may; this one was not sent."""


class MCPToolError(MCPError):
    """The tool of an MCP server said that it failed; the message is what it said."""


class ModelRetry(GossamerError):  # noqa: N818 - raised by tools as a signal, read as a sentence
    """Raised by a tool to hand the call back to the model: its message tells what to do better."""


class EndRun(GossamerError):  # noqa: N818 - raised by tools as a signal, read as a sentence
    """Raised by a tool to end the run at once.

    Attributes:
        output: becomes the output of the run.
    """

    def __init__(self, output: Any = None) -> None:
        super().__init__("the run was ended by a tool")
        self.output = output


# --- runs and sessions --------------------------------------------------------------------------------------


class LimitError(GossamerError):
    """A limit stopped the run; raised when the output of such a run is read.

    Attributes:
        limit: the field of `Limits` that was reached.
        allowed: its value.
        used: what was used, or what the next call could have used, when it stopped.
    """

    def __init__(self, message: str, *, limit: str, allowed: float, used: float) -> None:
        super().__init__(message)
        self.limit = limit
        self.allowed = allowed
        self.used = used


class RunPausedError(GossamerError):
    """The run waits for decisions; go on with `agent.resume(session, {call_id: ...})`.

    Attributes:
        pending: the calls that wait, as `PendingCall`.
    """

    def __init__(self, message: str, *, pending: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.pending = tuple(pending)


class ContextBudgetError(GossamerError):
    """What must stay in view exceeds the budget of a working memory; the model was not asked.

    Attributes:
        tokens: about how many it has.
        allowed: the budget.
    """

    def __init__(self, message: str, *, tokens: int, allowed: int) -> None:
        super().__init__(message)
        self.tokens = tokens
        self.allowed = allowed


class MemoryNotEnteredError(GossamerError):
    """A memory was used directly, outside `async with`."""


class MemoryOwnerError(GossamerError):
    """It is not known whose memories are meant: personal ones belong to a user, others to an agent."""


class OutputError(GossamerError):
    """The model's answer does not fit the output type, also after one repair.

    Attributes:
        text: the raw text of the last answer.
    """

    def __init__(self, message: str, *, text: str) -> None:
        super().__init__(message)
        self.text = text


class GuardrailError(GossamerError):
    """A guardrail stopped the run.

    Attributes:
        guardrail: its name.
        reason: what it found, without what it found it in.
        place: what it looked at: `input`, `output`, `call` or `result`.
    """

    def __init__(self, message: str, *, guardrail: str = "", reason: str = "", place: str = "") -> None:
        super().__init__(message)
        self.guardrail = guardrail
        self.reason = reason
        self.place = place


class SteeringError(GossamerError):
    """A message cannot be put into a run: it is over or has not begun, or too many wait already."""


class PoolExhaustedError(GossamerError):
    """No agent of an `AgentPool` came free in time, or too many wait for one."""


class SessionError(GossamerError):
    """A session cannot be used in this way."""


class SessionBusyError(SessionError):
    """Another run holds the session, or the run's own ancestor does."""


class ResumeError(SessionError):
    """There is nothing to resume, the call is unknown, or the session belongs to another agent."""


class SessionLostError(SessionError):
    """Another process holds the session by now, or it was deleted: what was not stored yet is refused."""


class SessionChangedError(SessionError):
    """A session was changed elsewhere since it was loaded, so that what was added here does not fit any more."""


# --- workflows ----------------------------------------------------------------------------------------------


class WorkflowError(GossamerError):
    """A workflow is not well built, or could not go on.

    Attributes:
        place: where in the workflow, such as `parallel/search[3]/fetch`; empty where it is about the whole.
        steps: what became of each step of the run that it ended, as in `WorkflowResult.steps`.
    """

    def __init__(self, message: str, *, place: str = "") -> None:
        super().__init__(message)
        self.place = place
        self.steps: Mapping[str, Any] = {}


class StepNameError(WorkflowError, ArgumentError):
    """Two steps beside each other have one name, or a name cannot stand in a place."""


class StepTypeError(WorkflowError, ArgumentError):
    """What a step returns is not what the next one takes, as both declare it; found when the workflow is built."""


class WorkflowCycleError(WorkflowError, ArgumentError):
    """A workflow is a step of itself, or is run inside one of its own steps."""


class StepFailedError(WorkflowError):
    """A step raised an error, which is this one's `__cause__`, and nothing was left to try."""


class StepTimeoutError(StepFailedError):
    """A step took longer than its timeout and was stopped."""


class StepInputError(WorkflowError):
    """A value is not what a step, or the workflow, takes."""


class StepOutputError(WorkflowError):
    """A step returned something of another type than it declares, or something that cannot be stored."""


class LoopLimitError(WorkflowError):
    """A loop has run as often as `max_iterations` allows, and its condition still says no."""


class RouteError(WorkflowError):
    """A router named a branch that it does not have."""


class MergeConflictError(WorkflowError):
    """Parallel branches changed a field of the state in different ways, and no merge is declared for it.

    Attributes:
        field: the field.
        branches: the names of the branches.
    """

    def __init__(
        self, message: str, *, place: str = "", field: str = "", branches: Sequence[str] = ()
    ) -> None:
        super().__init__(message, place=place)
        self.field = field
        self.branches = tuple(branches)


class StepDeniedError(WorkflowError):
    """A person refused to answer a step's question, or nobody did in time."""


class StepOutcomeError(WorkflowError):
    """The process ended while a step ran, whether it took effect is unknown, and it may not run again."""


class WorkflowChangedError(WorkflowError):
    """A workflow is not the one any more that began the run, or what was stored does not fit it."""


# --- agents together ----------------------------------------------------------------------------------------


class PipelineError(GossamerError):
    """An agent of a pipeline failed; the error that it failed with is the cause.

    Attributes:
        results: what the agents gave until then, in their order; None for those that gave nothing.
        errors: the errors by the place of the agent, the one that ended the pipeline first.
    """

    def __init__(
        self, message: str, *, results: Sequence[Any] = (), errors: Mapping[int, Exception] | None = None
    ) -> None:
        super().__init__(message)
        self.results = list(results)
        self.errors = dict(errors or {})


class FanoutError(PipelineError):
    """An agent of a fan-out failed, or of a merged stream."""


# --- agents together ----------------------------------------------------------------------------------------


class NestingError(ToolError):
    """Too many runs would be inside one another: somebody delegates to one of those around it."""


class MemberError(GossamerError):
    """A member of a team failed, and the team cannot go on without it; what the others did is in the session.

    Attributes:
        team: the team's name.
        member: the member's.
    """

    def __init__(self, message: str, *, team: str = "", member: str = "") -> None:
        super().__init__(message)
        self.team = team
        self.member = member


class NoConsensusError(GossamerError):
    """The members of a team did not come to agree within its rounds.

    Attributes:
        answers: what each said in the last round, by name.
    """

    def __init__(self, message: str, *, answers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.answers = dict(answers or {})


class PlanError(GossamerError):
    """A plan cannot be changed in this way: there is none, it is finished, or it has no such item."""


# --- stores -------------------------------------------------------------------------------------------------


class StoreError(GossamerError):
    """A store could not do what it was asked; what it had acknowledged before is safe."""


class StoreBusyError(StoreError):
    """The store is locked by another process, or too much waits for it; asking again later may help."""


class StoreFullError(StoreError):
    """There is no room on the disk for what was to be written."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached, opened or written: a lost connection, a missing folder, no permission."""


class StoreDamagedError(StoreError):
    """The database is damaged, or is not one of Gossamer's."""


class StoreVersionError(StoreError):
    """The database was made by a newer version of Gossamer."""


# --- sandboxes ----------------------------------------------------------------------------------------------


class SandboxError(GossamerError):
    """Code in a sandbox did not come to its end.

    Attributes:
        stdout: what it had written until then, as far as it is known.
        stderr: the same.
    """

    def __init__(self, message: str, *, stdout: str = "", stderr: str = "") -> None:
        super().__init__(message)
        self.stdout = stdout
        self.stderr = stderr


class CodeError(SandboxError):
    """The code is no Python, or it raised; the session goes on.

    Attributes:
        kind: the name of the exception's class, such as `ValueError`; as the code says, which nobody has checked.
        traceback: as Python would show it.
    """

    def __init__(
        self, message: str, *, kind: str = "", traceback: str = "", stdout: str = "", stderr: str = ""
    ) -> None:
        super().__init__(message, stdout=stdout, stderr=stderr)
        self.kind = kind
        self.traceback = traceback


class SandboxLimitError(SandboxError):
    """Code in a sandbox came to a limit.

    Attributes:
        limit: its name in `SandboxLimits`.
        allowed: its value.
    """

    def __init__(
        self, message: str, *, limit: str = "", allowed: float = 0, stdout: str = "", stderr: str = ""
    ) -> None:
        super().__init__(message, stdout=stdout, stderr=stderr)
        self.limit = limit
        self.allowed = allowed


class SandboxTimeoutError(SandboxLimitError):
    """It took too long; the session is closed."""


class SandboxCpuError(SandboxLimitError):
    """It used too much processor time; the session is closed."""


class SandboxMemoryError(SandboxLimitError):
    """It wanted more memory than it may have."""


class SandboxProcessError(SandboxLimitError):
    """It wanted more processes or threads than it may have."""


class SandboxFileSizeError(SandboxLimitError):
    """It wrote a file that is too large."""


class SandboxDiskError(SandboxLimitError):
    """Its files together are too large, or too many."""


class SandboxOutputError(SandboxLimitError):
    """It wrote too much to stdout and stderr, or gave back too much."""


class SandboxCallsError(SandboxLimitError):
    """It called functions of the host too often."""


class SandboxUnavailableError(SandboxError, ToolError):
    """This machine cannot have this sandbox; nothing has run. The message says why, and how to get it.

    No model can mend that, so that it ends the run of a tool that needs the sandbox.
    """


class SandboxBusyError(SandboxError):
    """No place in the sandbox was free in time, or too many wait for one."""


class SandboxClosedError(SandboxError):
    """The session or its sandbox was closed, before or during the run."""


class SandboxCrashedError(SandboxError):
    """The process in which the code ran died; the session is closed, and the sandbox goes on."""


class SandboxFileError(SandboxError):
    """There is no such file in the session, or it cannot be read."""


# --- testing ------------------------------------------------------------------------------------------------


class CassetteError(GossamerError):
    """A cassette has no answer to a request, cannot be read, or is missing; no model was asked."""
