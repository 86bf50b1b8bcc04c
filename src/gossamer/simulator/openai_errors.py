"""How OpenAI refuses a request; the same for each of its APIs."""

from __future__ import annotations

import msgspec

from gossamer.simulator.dialect import RequestError

__all__ = ["bad", "below_minimum", "error_body", "invalid"]

_KINDS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is not valid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", None, "You are not allowed to use this model."),
    404: ("invalid_request_error", "not_found", "Not found."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    503: ("server_error", None, "The engine is currently overloaded, please try again later."),
}
_CLIENT_KIND = ("invalid_request_error", None, "The request failed.")
_SERVER_KIND = (
    "server_error",
    None,
    "The server had an error while processing your request. Sorry about that!",
)


def error_body(status: int, message: str = "", param: str | None = None, code: str | None = None) -> bytes:
    """An error body; what is not given is the usual for this status."""
    kind, usual_code, usual = _KINDS.get(status, _CLIENT_KIND if status < 500 else _SERVER_KIND)
    error = {"message": message or usual, "type": kind, "param": param, "code": code or usual_code}
    return msgspec.json.encode({"error": error})


def bad(message: str, param: str | None = None, code: str | None = None) -> RequestError:
    """A request that is refused with 400."""
    return RequestError(400, message, param=param, code=code)


def below_minimum(name: str, value: int, least: int) -> RequestError:
    """A number that is too small."""
    return bad(
        f"Invalid '{name}': expected a value >= {least}, got {value}.", name, "integer_below_min_value"
    )


def invalid(error: msgspec.ValidationError, where: str = "") -> RequestError:
    """A field of the wrong type, or one that is missing.

    Args:
        error: as the decoder tells it.
        where: the place of what was decoded in the whole body, for example "messages[3]".
    """
    detail, _, path = str(error).partition(" - at `$")
    param = (where + path.rstrip("`")).lstrip(".") or None
    if detail.startswith("Object missing required field "):
        name = detail.rpartition(" ")[2].strip("`")
        param = f"{param}.{name}" if param else name
        return bad(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    subject = f"'{param}'" if param else "the request"
    return bad(f"Invalid value for {subject}: {detail}.", param, "invalid_value")
