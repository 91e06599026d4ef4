"""Keeps secrets and personal data out of what goes to a caller beside a model's answer: errors and headers.

An upstream may quote in them what the request held, or what it was configured with.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

import orjson

from lukhas.audit.redaction import redact, redact_text
from lukhas.errors import UpstreamError
from lukhas.openai.headers import response_headers
from lukhas.openai.sse import event_data
from lukhas.openai.upstream import UpstreamAnswer
from lukhas.openai.wire import encode_json, error_body

Headers = list[tuple[bytes, bytes]]
# What of an object with an error in it is the model's answer, and was guarded as one.
_ANSWER: Final = frozenset(("choices", "response", "output"))


def pass_headers(answer: UpstreamAnswer) -> Headers:
    """Return an upstream's headers that may go to the caller; one that holds a secret or a person's data may not."""
    return [header for header in response_headers(answer.headers) if _is_clean(header[1])]


def join_names(names: Iterable[str], longest: int = 1000) -> bytes:
    """Return names that a caller chose as a header's value, as far as a header can carry them."""
    shown = (redact_text(name) for name in names if name.isascii() and name.isprintable())
    return ", ".join(shown)[:longest].encode("ascii")


def clean_error(value: dict[str, Any]) -> dict[str, Any]:
    """Return an upstream's error without secrets and personal data, in its members' names too."""
    left = {name: held for name, held in value.items() if name in _ANSWER}
    cleaned = cast("dict[str, Any]", redact({name: held for name, held in value.items() if name not in _ANSWER}))
    response: Any = left.get("response")
    if isinstance(response, dict) and "error" in response:
        left["response"] = {**response, "error": redact(cast("dict[str, Any]", response)["error"])}
    return {**cleaned, **left}


def clean_error_body(body: bytes, status: int) -> bytes:
    """Return the body of an upstream's error as it may go to the caller, in the one shape that clients read."""
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        # A proxy's page, or nothing.
        return error_body(
            f"The upstream answered with status {status} and no readable error.",
            kind="upstream_error",
            code=UpstreamError.code,
        )
    given = cast("dict[str, Any]", value)
    cleaned = clean_error(given)
    return body if cleaned == given else encode_json(cleaned)


def clean_event(raw: bytes) -> bytes:
    """Return an event of a stream with an error in it cleaned; any other as it is."""
    data = event_data(raw)
    if data is None or b"error" not in data:
        return raw
    try:
        value: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        return raw
    if not isinstance(value, dict):
        return raw
    given = cast("dict[str, Any]", value)
    cleaned = clean_error(given)
    if cleaned == given:
        return raw
    name = raw[: raw.index(b"\n") + 1] if raw.startswith(b"event:") else b""
    return name + b"data: " + encode_json(cleaned) + b"\n\n"


def _is_clean(value: bytes) -> bool:
    text = value.decode("ascii")
    return redact_text(text) == text
