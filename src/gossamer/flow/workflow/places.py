"""Places in a workflow: readable paths, each one step of one run, and the paths of the steps themselves."""

from __future__ import annotations

import re

__all__ = ["path_of"]

_NUMBERS = re.compile(r"\[\d+\]|#\d+")


def path_of(place: str) -> str:
    """Give the path of the step at a place: `parallel/search[3]/fetch` is `parallel/search/fetch`."""
    return _NUMBERS.sub("", place)
