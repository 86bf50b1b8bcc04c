"""What can go wrong with an answer, and the seeded dice that decide when."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from gossamer.errors import ArgumentError

__all__ = ["RATE_FAULTS", "Fault", "FaultDice", "RateFault"]

Fault = Literal["reset", "stall", "half_frame", "malformed", "close", "unknown_frame", "error_frame"]
"""A broken answer.

`reset`: the connection is reset (RST). `stall`: nothing more comes, the connection stays open. `half_frame`: half of
a frame comes, then the connection closes. `malformed`: one frame holds invalid JSON, the answer goes on. `close`: the
connection closes between two frames, before the answer is complete. `unknown_frame`: a well-formed frame of a type
that does not exist is put in, the answer goes on; an answer that is not streamed gets a field that does not exist.
`error_frame`: the provider tells of an error of its own in a frame, which ends the answer; an answer that is not
streamed is HTTP 500.
"""

RateFault = Literal["429", "500", "reset", "stall", "half_frame", "malformed", "error_frame"]
"""What an error rate is spread over: two HTTP errors and five broken answers."""

RATE_FAULTS: tuple[RateFault, ...] = (
    "429",
    "500",
    "reset",
    "stall",
    "half_frame",
    "malformed",
    "error_frame",
)


class FaultDice:
    """Decides request by request whether it fails and how; the same seed gives the same sequence.

    Args:
        rate: share of requests that fail, from 0 to 1.
        kinds: what they fail with, each equally often.
        seed: of the random sequence.

    Raises:
        ArgumentError: the rate is outside 0 to 1, or a kind is unknown.
    """

    __slots__ = ("_kinds", "_random", "_rate")

    def __init__(self, rate: float, kinds: Sequence[RateFault], seed: int) -> None:
        if not 0.0 <= rate <= 1.0:
            raise ArgumentError(f"error_rate is {rate!r}; give a share from 0 to 1")
        unknown = [kind for kind in kinds if kind not in RATE_FAULTS]
        if unknown or not kinds:
            raise ArgumentError(f"faults has {unknown or 'nothing'}; choose from {', '.join(RATE_FAULTS)}")
        self._rate = rate
        self._kinds = tuple(kinds)
        self._random = random.Random(seed)  # noqa: S311 - a repeatable sequence is the point

    def roll(self) -> RateFault | None:
        """The fault of the next request, or None. One falsy check where the rate is 0."""
        if not self._rate or self._random.random() >= self._rate:
            return None
        return self._random.choice(self._kinds)
