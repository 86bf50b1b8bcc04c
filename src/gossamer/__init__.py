"""Gossamer: AI agents whose own cost is close to nothing: per agent, per run, per token and per connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gossamer import errors as errors
    from gossamer import events as events
    from gossamer import models as models
    from gossamer.agent import Agent
    from gossamer.context import RunContext
    from gossamer.delegation import Runnable
    from gossamer.errors import (
        ArgumentError,
        AuthenticationError,
        CassetteError,
        CircuitOpenError,
        ConnectError,
        ContentFilterError,
        ContextBudgetError,
        ContextLengthError,
        DecodeError,
        EndRun,
        GossamerError,
        GuardrailError,
        InvalidRequestError,
        InvalidResponseError,
        LimitError,
        MCPBusyError,
        MCPConnectionError,
        MCPError,
        MCPTimeoutError,
        MCPToolError,
        MemberError,
        MemoryNotEnteredError,
        ModelConnectionError,
        ModelError,
        ModelRetry,
        ModelTimeoutError,
        NestingError,
        NoConsensusError,
        NotFoundError,
        OutputError,
        OverloadedError,
        PlanError,
        PoolExhaustedError,
        PoolTimeoutError,
        ProtocolError,
        ProviderError,
        QueueFullError,
        QuotaExceededError,
        RateLimitError,
        ReadTimeoutError,
        ResumeError,
        RunPausedError,
        ScriptExhaustedError,
        SessionBusyError,
        SessionError,
        SteeringError,
        StreamBrokenError,
        TooLargeError,
        ToolError,
        ToolkitError,
        WireError,
    )
    from gossamer.flow.delegating import Member
    from gossamer.flow.handoff import handoff
    from gossamer.flow.plan import Plan, PlanChange, PlanItem, plan_of, plan_toolkit
    from gossamer.flow.team import Team
    from gossamer.limits import Limits
    from gossamer.messages import (
        Audio,
        Citation,
        File,
        Image,
        Message,
        Part,
        ProviderBlock,
        Refusal,
        Text,
        Thinking,
        ToolCall,
        ToolResult,
    )
    from gossamer.middleware import Hooks, Middleware
    from gossamer.models.base import ModelSettings, Price
    from gossamer.pool import AgentPool
    from gossamer.records import Answer, Approve, Deny, PendingCall
    from gossamer.result import Result
    from gossamer.schema import HostedTool, Output
    from gossamer.session import Session
    from gossamer.stream import RunStream
    from gossamer.telemetry import disable_metrics, enable_metrics, setup_logger
    from gossamer.tools.function import Tool, tool
    from gossamer.tools.toolkit import Toolkit
    from gossamer.usage import Usage

__version__ = "0.1.0"

# Where each public name lives. `import gossamer` loads none of it; the first use of a name loads its module.
_HOMES = {
    "gossamer.agent": ("Agent",),
    "gossamer.context": ("RunContext",),
    "gossamer.errors": (
        "ArgumentError",
        "AuthenticationError",
        "CassetteError",
        "CircuitOpenError",
        "ConnectError",
        "ContentFilterError",
        "ContextBudgetError",
        "ContextLengthError",
        "DecodeError",
        "EndRun",
        "GossamerError",
        "GuardrailError",
        "InvalidRequestError",
        "InvalidResponseError",
        "LimitError",
        "MCPBusyError",
        "MCPConnectionError",
        "MCPError",
        "MCPTimeoutError",
        "MCPToolError",
        "MemberError",
        "MemoryNotEnteredError",
        "ModelConnectionError",
        "ModelError",
        "ModelRetry",
        "ModelTimeoutError",
        "NestingError",
        "NoConsensusError",
        "NotFoundError",
        "OutputError",
        "OverloadedError",
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
        "RunPausedError",
        "ScriptExhaustedError",
        "SessionBusyError",
        "SessionError",
        "SteeringError",
        "StreamBrokenError",
        "TooLargeError",
        "ToolError",
        "ToolkitError",
        "WireError",
    ),
    "gossamer.delegation": ("Runnable",),
    "gossamer.flow.handoff": ("handoff",),
    "gossamer.flow.delegating": ("Member",),
    "gossamer.flow.plan": ("Plan", "PlanChange", "PlanItem", "plan_of", "plan_toolkit"),
    "gossamer.flow.team": ("Team",),
    "gossamer.limits": ("Limits",),
    "gossamer.messages": (
        "Audio",
        "Citation",
        "File",
        "Image",
        "Message",
        "Part",
        "ProviderBlock",
        "Refusal",
        "Text",
        "Thinking",
        "ToolCall",
        "ToolResult",
    ),
    "gossamer.middleware": ("Hooks", "Middleware"),
    "gossamer.models.base": ("ModelSettings", "Price"),
    "gossamer.pool": ("AgentPool",),
    "gossamer.records": ("Answer", "Approve", "Deny", "PendingCall"),
    "gossamer.result": ("Result",),
    "gossamer.schema": ("HostedTool", "Output"),
    "gossamer.session": ("Session",),
    "gossamer.stream": ("RunStream",),
    "gossamer.telemetry": ("disable_metrics", "enable_metrics", "setup_logger"),
    "gossamer.tools.function": ("Tool", "tool"),
    "gossamer.tools.toolkit": ("Toolkit",),
    "gossamer.usage": ("Usage",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_FOLDERS = ("errors", "events", "models")

__all__ = [
    "Agent",
    "AgentPool",
    "Answer",
    "Approve",
    "ArgumentError",
    "Audio",
    "AuthenticationError",
    "CassetteError",
    "CircuitOpenError",
    "Citation",
    "ConnectError",
    "ContentFilterError",
    "ContextBudgetError",
    "ContextLengthError",
    "DecodeError",
    "Deny",
    "EndRun",
    "File",
    "GossamerError",
    "GuardrailError",
    "Hooks",
    "HostedTool",
    "Image",
    "InvalidRequestError",
    "InvalidResponseError",
    "LimitError",
    "Limits",
    "MCPBusyError",
    "MCPConnectionError",
    "MCPError",
    "MCPTimeoutError",
    "MCPToolError",
    "Member",
    "MemberError",
    "MemoryNotEnteredError",
    "Message",
    "Middleware",
    "ModelConnectionError",
    "ModelError",
    "ModelRetry",
    "ModelSettings",
    "ModelTimeoutError",
    "NestingError",
    "NoConsensusError",
    "NotFoundError",
    "Output",
    "OutputError",
    "OverloadedError",
    "Part",
    "PendingCall",
    "Plan",
    "PlanChange",
    "PlanError",
    "PlanItem",
    "PoolExhaustedError",
    "PoolTimeoutError",
    "Price",
    "ProtocolError",
    "ProviderBlock",
    "ProviderError",
    "QueueFullError",
    "QuotaExceededError",
    "RateLimitError",
    "ReadTimeoutError",
    "Refusal",
    "Result",
    "ResumeError",
    "RunContext",
    "RunPausedError",
    "RunStream",
    "Runnable",
    "ScriptExhaustedError",
    "Session",
    "SessionBusyError",
    "SessionError",
    "SteeringError",
    "StreamBrokenError",
    "Team",
    "Text",
    "Thinking",
    "TooLargeError",
    "Tool",
    "ToolCall",
    "ToolError",
    "ToolResult",
    "Toolkit",
    "ToolkitError",
    "Usage",
    "WireError",
    "disable_metrics",
    "enable_metrics",
    "errors",
    "events",
    "handoff",
    "models",
    "plan_of",
    "plan_toolkit",
    "setup_logger",
    "tool",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOME_OF:
        value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
        return value
    if name in _FOLDERS:
        return import_module(f"gossamer.{name}")
    raise AttributeError(f"module 'gossamer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
