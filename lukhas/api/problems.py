"""From an error to an answer: HTTP statuses are assigned here and nowhere else.

Two shapes: OpenAI's on `/v1`, and RFC 9457 problem details on the control plane. A problem carries an `error` member
in OpenAI's shape too, so that one client can read both.
"""

from __future__ import annotations

import math
from typing import Any, Final, cast

import orjson

from lukhas import errors
from lukhas.audit.redaction import redact_text
from lukhas.modulation.yaml_source import Mistake

STATUS: Final[dict[type[errors.LukhasError], int]] = {
    errors.LukhasError: 500,
    errors.ConfigurationError: 500,
    errors.PolicyError: 422,
    errors.InvalidRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.PreconditionFailed: 412,
    errors.TooLarge: 413,
    errors.LimitReached: 429,
    errors.PreconditionRequired: 428,
    errors.UpstreamError: 502,
    errors.UpstreamTimeout: 504,
    errors.UnavailableError: 503,
    errors.IntegrityError: 500,
}

_OPENAI_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    502: "upstream_error",
    504: "upstream_error",
}

Headers = list[tuple[bytes, bytes]]


def status_of(error: errors.LukhasError) -> int:
    """Return the HTTP status of an error: that of the nearest class in its tree."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 500


def retry_headers(error: errors.LukhasError) -> Headers:
    """Return the headers that tell a client whether to try again.

    Official OpenAI clients retry 409 and 5xx by themselves unless `x-should-retry` says otherwise: a refusal that
    stays a refusal, or a call that may already have cost money, must not be repeated blindly.
    """
    if isinstance(error, (errors.Overloaded, errors.ShuttingDown)):
        return [(b"retry-after", b"1"), (b"x-should-retry", b"true")]
    if isinstance(error, errors.LimitReached):
        wait = f"{max(1, math.ceil(error.retry_after_s))}".encode()
        # A client that waits for tomorrow inside one call would only look hung.
        again = b"false" if isinstance(error, errors.BudgetExhausted) else b"true"
        return [(b"retry-after", wait), (b"x-should-retry", again), *error.headers]
    if isinstance(error, errors.UpstreamUnreachable):
        return [(b"x-should-retry", b"true")]
    if isinstance(error, errors.Unauthenticated):
        return [(b"www-authenticate", b"Bearer"), (b"x-should-retry", b"false")]
    return [(b"x-should-retry", b"false")]


def describe(error: errors.LukhasError) -> dict[str, Any]:
    """Return an error in OpenAI's shape."""
    kind = _OPENAI_TYPES.get(status_of(error), "server_error")
    # A message may name what the caller sent, and errors are logged by clients as nothing else is.
    param = None if error.param is None else redact_text(error.param)
    return {"message": redact_text(str(error)), "type": kind, "param": param, "code": error.code}


def openai_error(error: errors.LukhasError) -> tuple[int, bytes]:
    """Return status and body of an error on `/v1`."""
    return status_of(error), orjson.dumps({"error": describe(error)})


def problem(error: errors.LukhasError, request_id: str) -> tuple[int, bytes]:
    """Return status and body of an error on the control plane, as RFC 9457 problem details."""
    status = status_of(error)
    body: dict[str, Any] = {
        "type": f"urn:lukhas:error:{error.code}",
        "title": error.code.replace("_", " ").capitalize(),
        "status": status,
        "detail": redact_text(str(error)),
        "code": error.code,
        "request_id": request_id,
        "errors": _details(error),
        "error": describe(error),
    }
    return status, orjson.dumps(body)


def _details(error: errors.LukhasError) -> list[dict[str, Any]]:
    if isinstance(error, errors.PolicyError):
        return [
            {"path": m.path, "line": m.place.line, "column": m.place.column, "message": m.message}
            for m in cast("tuple[Mistake, ...]", error.mistakes)
        ]
    return [] if error.param is None else [{"path": redact_text(error.param), "message": redact_text(error.message)}]


def unexpected() -> errors.LukhasError:
    """Return what is answered where something broke that nobody foresaw; the log has the rest."""
    return errors.LukhasError("Something went wrong inside the gateway; its log has the details.")
