"""Anthropic Messages: what a model takes, told by its name.

The rules are those of https://platform.claude.com/docs/en/about-claude/models/migration-guide and its pages.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Abilities", "abilities"]

_NAME = re.compile(r"claude-(?:(?P<line>[a-z]+)-)?(?P<major>\d)(?:[-.](?P<minor>\d)(?!\d))?")


class Abilities(NamedTuple):
    """What a model takes.

    Attributes:
        prefill: a request may end with the beginning of the answer.
        system_messages: system messages may stand between the others.
        sampling: temperature and its kin may be set.
        budget: thinking may be enabled with a budget.
        adaptive: thinking may be adaptive.
        disabled: thinking may be turned off.
        between_tools: thinking may be left to the time between tools.
        thinks: whether it thinks where the request does not say.
        shows: whether the text of the thinking is sent where the request does not say.
    """

    prefill: bool = False
    system_messages: bool = True
    sampling: bool = True
    budget: bool = True
    adaptive: bool = True
    disabled: bool = True
    between_tools: bool = True
    thinks: bool = True
    shows: bool = True


@lru_cache(maxsize=256)
def abilities(model: str) -> Abilities:
    """What the model with this name takes; one that is not named like Claude takes everything but prefill."""
    found = _NAME.match(model)
    if found is None:
        return Abilities()
    version = (int(found["major"]), int(found["minor"] or 0))
    line = found["line"]
    return Abilities(
        prefill=version < (4, 6),
        system_messages=version >= (4, 8) and (line, version) != ("sonnet", (5, 0)),
        sampling=version < (4, 7),
        budget=version < (4, 7),
        adaptive=version >= (4, 6),
        disabled=version < (5, 5),
        between_tools=line == "sonnet" and version >= (5, 5),
        thinks=version >= (5, 0),
        shows=version < (4, 7),
    )
