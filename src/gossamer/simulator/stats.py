"""What the simulator counts."""

from __future__ import annotations

import msgspec

__all__ = ["DialectStats", "SimulatorStats"]


class DialectStats(msgspec.Struct):
    """What was asked in one wire format.

    Attributes:
        requests: to the model, refused ones included.
        streamed: the part of them that was answered by a stream.
        prompt_tokens: in the requests.
        completion_tokens: in whole answers, and in streams that came to their end.
        errors: requests that were refused or failed, and faults.
    """

    requests: int = 0
    streamed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    errors: int = 0


class SimulatorStats(msgspec.Struct):
    """What the simulator did so far.

    Attributes:
        requests: requests answered or refused, those for models, statistics and health included.
        connections: open at the moment.
        streams: answers being streamed at the moment.
        streams_peak: the most at one time.
        chunks: frames with a token sent.
        prompt_tokens: in the requests to the model.
        cached_tokens: the part of them in prefixes seen before.
        completion_tokens: in whole answers, and in streams that came to their end.
        embeddings: vectors made.
        disconnects: connections that clients closed in the middle of an answer.
        errors: number by kind: an HTTP status, or the name of a fault.
        dialects: what was asked in each wire format, by its name.
    """

    requests: int = 0
    connections: int = 0
    streams: int = 0
    streams_peak: int = 0
    chunks: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    embeddings: int = 0
    disconnects: int = 0
    errors: dict[str, int] = {}
    dialects: dict[str, DialectStats] = {}

    def of(self, dialect: str) -> DialectStats:
        """The counts of one wire format, made at its first request."""
        counts = self.dialects.get(dialect)
        if counts is None:
            counts = self.dialects[dialect] = DialectStats()
        return counts

    def count_error(self, kind: str) -> None:
        """Count one error."""
        self.errors[kind] = self.errors.get(kind, 0) + 1
