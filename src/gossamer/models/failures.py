"""What a failed model call means: whether the provider may charge for it, and whether asking again can help."""

from __future__ import annotations

from gossamer.errors import (
    CircuitOpenError,
    ConnectError,
    InvalidResponseError,
    ModelConnectionError,
    ModelError,
    ModelTimeoutError,
    OverloadedError,
    PoolTimeoutError,
    ProviderError,
    QueueFullError,
    QuotaExceededError,
    RateLimitError,
    StreamBrokenError,
    TooLargeError,
    WireError,
)

__all__ = ["is_ill", "is_passing", "may_have_cost"]

_ILL = (ModelConnectionError, ModelTimeoutError, OverloadedError, ProviderError, StreamBrokenError)
_PASSING = (*_ILL, RateLimitError, InvalidResponseError)
_LASTING = (QuotaExceededError, QueueFullError, CircuitOpenError)


def may_have_cost(error: BaseException) -> bool:
    """Whether the provider may charge for the call that failed so: it was at work, and its answer got lost.

    A call that was refused, or never left, costs nothing.
    """
    if not isinstance(error, ModelError) or isinstance(error.__cause__, ConnectError | PoolTimeoutError):
        return False
    if isinstance(error, ModelConnectionError):  # broken under the request, or not made at all
        return isinstance(error.__cause__, WireError)
    return bool(error.text) or isinstance(error, StreamBrokenError | ModelTimeoutError | InvalidResponseError)


def is_passing(error: ModelError) -> bool:
    """Whether asking again can help: what failed was the connection, the provider's health or a full minute.

    Never for a key, a request or a model that is refused, nor where it is our own side that holds back.
    """
    if not isinstance(error, _PASSING) or isinstance(error, _LASTING):
        return False
    if isinstance(error, InvalidResponseError):  # too large, or a redirect: the next answer will be the same
        return not isinstance(error.__cause__, TooLargeError) and error.status is None
    return True


def is_ill(error: ModelError) -> bool:
    """Whether the failure says that the provider is ill: not reached, silent, broken off, overloaded or failing.

    That all connections of our own were in use says nothing about it.
    """
    return isinstance(error, _ILL) and not isinstance(error.__cause__, PoolTimeoutError)
