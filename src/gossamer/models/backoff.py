"""How long to wait before asking again."""

from __future__ import annotations

import random

__all__ = ["wait_before_retry"]


def wait_before_retry(attempts: int, asked: float | None, first_wait: float, longest_wait: float) -> float:
    """Give the seconds to wait before the next attempt.

    Args:
        attempts: how many have failed, at least 1.
        asked: seconds that the provider asked to wait, or None.
        first_wait: the longest wait after the first attempt, in seconds; it doubles with each further one.
        longest_wait: the longest wait of all.

    Returns:
        What the provider asked for and a random part of the growing wait on top, so that many callers do not come back
        at the same moment.
    """
    longest = min(first_wait * 2.0 ** min(attempts - 1, 64), longest_wait)
    jitter = random.uniform(0.0, longest)  # noqa: S311 - spreads the load, guards nothing
    return min((asked or 0.0) + jitter, longest_wait)
