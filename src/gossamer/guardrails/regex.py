"""Regular expressions that must not match, or whose matches are replaced."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gossamer.context import RunContext
from gossamer.errors import ArgumentError, GuardrailError
from gossamer.guardrails.base import Guardrail, Place

__all__ = ["regex"]


def regex(
    *patterns: str | re.Pattern[str],
    replace: str | None = None,
    on: Sequence[Place] = ("input",),
    hold_back: bool = False,
    name: str = "regex",
) -> Guardrail:
    """Stop texts in which a pattern is found, or replace what it finds.

    Cost: one search a pattern. Write patterns that cannot run away: the search holds up the event loop.

    Args:
        *patterns: regular expressions, as text or compiled with flags.
        replace: what to put in place of what was found, groups as in `re.sub`; None stops the run.
        on: what is checked.
        hold_back: see `Guardrail`; what is replaced in answers must be held back on streams, or it has been seen.
        name: the guardrail's name.

    Raises:
        ArgumentError: no pattern, or one that is no regular expression.
    """
    if not patterns:
        raise ArgumentError("a regex guardrail needs a pattern")
    try:
        compiled = [re.compile(pattern) for pattern in patterns]
        if replace is not None:
            for pattern in compiled:
                pattern.sub(replace, "")  # raises where it refers to a group that is not there
    except (re.error, TypeError) as error:
        raise ArgumentError(f"a pattern of guardrail {name!r} is no regular expression: {error}") from error

    def stop(_: RunContext[Any], text: str) -> None:
        for pattern in compiled:
            if pattern.search(text) is not None:
                raise GuardrailError(f"the pattern {pattern.pattern!r} was found")

    def change(_: RunContext[Any], text: str) -> str | None:
        assert replace is not None
        changes = 0
        for pattern in compiled:
            text, count = pattern.subn(replace, text)
            changes += count
        return text if changes else None

    return Guardrail(name, stop if replace is None else change, on, hold_back=hold_back)
