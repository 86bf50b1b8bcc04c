"""Signs that a text wants to give the model orders that are not its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gossamer.context import RunContext
from gossamer.errors import ArgumentError, GuardrailError
from gossamer.guardrails.base import Guardrail, Place

__all__ = ["prompt_injection"]


def prompt_injection(
    *, threshold: float = 1.0, on: Sequence[Place] = ("input", "result"), name: str = "prompt_injection"
) -> Guardrail:
    """Stop texts that read like an attempt to take the model over.

    A heuristic: it knows common English phrasings, forged role marks and hidden characters, and adds up the weights of
    the signs it finds. It misses what is worded otherwise; limit what tools may do, and add a `judge` where more is at
    stake.

    Args:
        threshold: weights that add up to this stop the run; single plain orders weigh 1, weaker signs a half.
        on: what is checked; results of tools are where strangers' texts come in.
        name: the guardrail's name.

    Raises:
        ArgumentError: the threshold is not above 0.
    """
    if threshold <= 0:
        raise ArgumentError(f"threshold must be above 0, not {threshold}")

    def check(_: RunContext[Any], text: str) -> None:
        found = [(sign, weight) for sign, weight, pattern in _SIGNS if pattern.search(text) is not None]
        if sum(weight for _, weight in found) >= threshold:
            raise GuardrailError(f"it reads like a prompt injection: {', '.join(sign for sign, _ in found)}")

    return Guardrail(name, check, on)


def _sign(name: str, weight: float, pattern: str) -> tuple[str, float, re.Pattern[str]]:
    return name, weight, re.compile(pattern, re.IGNORECASE)


_OLD = r"(?:previous|prior|above|earlier|preceding|foregoing|original|initial|existing|system)"
_ORDERS = r"(?:instructions?|prompts?|rules?|directions?|guidelines?|orders?|messages?|context|constraints?)"

_SIGNS = (
    _sign(
        "an order to ignore what was said before",
        1.0,
        rf"\b(?:ignore|disregard|forget|override|bypass|do not follow|don't follow|stop following)\b[^.\n]{{0,40}}"
        rf"\b(?:{_OLD}|all(?: of)?(?: the| your)?|your|everything)\b[^.\n]{{0,30}}\b(?:{_ORDERS}|above|before)\b",
    ),
    _sign(
        "a question for the system prompt",
        1.0,
        r"\b(?:reveal|show|print|repeat|output|display|leak|tell me|what (?:is|are|were))\b[^.\n]{0,40}"
        r"\b(?:your|the|initial|hidden)\b[^.\n]{0,20}\b(?:system prompt|system message|initial prompt|hidden prompt|"
        r"(?:secret|hidden|original|initial|system) instructions?)\b",
    ),
    _sign(
        "a forged role mark",
        1.0,
        r"<\|(?:im_start|im_end|system|assistant|user|endoftext|eot_id|start_header_id)\|>|\[/?INST\]|<</?SYS>>|"
        r"(?:^|\n)[ \t]*#{2,}[ \t]*(?:system|new instructions?)\s*:|</?(?:system|instructions?)>",
    ),
    _sign(
        "a new role",
        0.5,
        r"\b(?:you are now|from now on,? you(?: are|'re| will| must)|act as|pretend (?:to be|you are)|"
        r"roleplay as|you must now)\b",
    ),
    _sign(
        "a known jailbreak",
        1.0,
        r"\b(?:DAN mode|do anything now|developer mode (?:enabled|on)|jailbreak(?:ed)? mode)\b",
    ),
    _sign(
        "new orders",
        0.5,
        r"\b(?:new|updated|real|actual|important|urgent) (?:system )?(?:instructions?|prompt|orders?)\s*:",
    ),
    _sign(
        "secrecy before the user",
        0.5,
        r"\b(?:do not|don't|never|without) (?:tell|inform|mention|notify|alert|reveal|telling|informing|mentioning)\b"
        r"[^.\n]{0,30}\b(?:the user|anyone|the human|this)\b",
    ),
    _sign(
        "data to be sent away",
        0.5,
        r"\b(?:send|post|forward|exfiltrate|upload|email)\b[^.\n]{0,60}\b(?:api keys?|passwords?|credentials|secrets?|"
        r"tokens?|conversation|chat history|system prompt)\b",
    ),
    # Tags of Unicode's plane 14 spell ASCII without being seen; so do long runs of zero-width characters.
    (
        "hidden characters",
        1.0,
        re.compile("[\U000e0020-\U000e007e]{4,}|[\u200b\u200c\u200d\u2060\ufeff]{8,}"),
    ),
)
