"""Guardrails: checks of what goes in, comes out, and passes between a model and its tools."""

from __future__ import annotations

from gossamer.guardrails.base import Check, Guardrail, Place, guardrail
from gossamer.guardrails.injection import prompt_injection
from gossamer.guardrails.judge import judge
from gossamer.guardrails.length import length
from gossamer.guardrails.pii import PersonalData, pii
from gossamer.guardrails.regex import regex

__all__ = [
    "Check",
    "Guardrail",
    "PersonalData",
    "Place",
    "guardrail",
    "judge",
    "length",
    "pii",
    "prompt_injection",
    "regex",
]
