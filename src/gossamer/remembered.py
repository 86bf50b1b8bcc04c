"""Decisions that hold for the rest of a session: under which keys, and for which calls."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from gossamer.messages import ToolCall
from gossamer.records import Answer, Approve, Decision, PendingCall

__all__ = ["Remembered", "RememberedKey", "keys_of", "to_remember"]

# The agent, its tool and what tells that one from others of its name, and the arguments as JSON in one order, None
# where the decision holds whatever they are.
RememberedKey: TypeAlias = tuple[str, str, str, str | None]

# A decision, behind its place in the journal.
Remembered: TypeAlias = tuple[int, Decision]


def to_remember(pending: PendingCall, decision: Decision) -> RememberedKey | None:
    """Give the key under which a decision about a call is kept; None where it is not to be remembered."""
    if isinstance(decision, Answer) or decision.remember is None:
        return None
    if decision.remember == "tool":
        arguments = None
    elif isinstance(decision, Approve) and decision.args is not None:
        arguments = _in_order(decision.args)
    else:
        arguments = _text_in_order(pending.call.arguments)
    return pending.agent, pending.call.name, pending.tool, arguments


def keys_of(agent: str, call: ToolCall, tool: str) -> tuple[RememberedKey, RememberedKey]:
    """Give the keys under which a decision may be kept that holds for a call, the narrower one first."""
    return (agent, call.name, tool, _text_in_order(call.arguments)), (agent, call.name, tool, None)


def _in_order(arguments: object) -> str:
    return msgspec.json.encode(arguments, order="sorted").decode()


def _text_in_order(arguments: str) -> str:
    try:
        return _in_order(msgspec.json.decode(arguments))
    except ValueError:  # the call will be handed back for its arguments
        return arguments
