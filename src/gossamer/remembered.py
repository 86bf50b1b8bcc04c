"""Decisions that hold for the rest of a session: under which keys, and for which calls."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from gossamer.messages import ToolCall
from gossamer.records import Answer, Approve, Decision, PendingCall

__all__ = ["RememberedKey", "keys_of", "to_remember"]

# The agent, its tool, and the arguments as JSON in one order; None where the decision holds whatever they are.
RememberedKey: TypeAlias = tuple[str, str, str | None]


def to_remember(pending: PendingCall, decision: Decision) -> RememberedKey | None:
    """Give the key under which a decision about a call is kept; None where it is not to be remembered."""
    if isinstance(decision, Answer) or decision.remember is None:
        return None
    if decision.remember == "tool":
        return pending.agent, pending.call.name, None
    if isinstance(decision, Approve) and decision.args is not None:
        return pending.agent, pending.call.name, _in_order(decision.args)
    return pending.agent, pending.call.name, _in_order_text(pending.call.arguments)


def keys_of(agent: str, call: ToolCall) -> tuple[RememberedKey, RememberedKey]:
    """Give the keys under which a decision may be kept that holds for a call, the narrower one first."""
    return (agent, call.name, _in_order_text(call.arguments)), (agent, call.name, None)


def _in_order(arguments: object) -> str:
    return msgspec.json.encode(arguments, order="sorted").decode()


def _in_order_text(arguments: str) -> str:
    try:
        return _in_order(msgspec.json.decode(arguments))
    except ValueError:  # the call will be handed back for its arguments
        return arguments
