"""Which headers cross the gateway, in each direction. Everything not named here stops.

Towards the upstream nothing that identifies the caller to us (authorization, cookies), that speaks to us
(`x-lukhas-*`), or that tells of the caller's network (`x-forwarded-*`, `x-stainless-*`) goes on; back to the caller
nothing that describes the upstream's connection (length, encoding, server) or that could pass for our own word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

# `baggage` stays: it holds free text of the caller's own systems, often about persons.
_TO_UPSTREAM: Final[dict[bytes, str]] = {
    name.encode(): name
    for name in (
        "openai-beta",
        "openai-organization",
        "openai-project",
        "idempotency-key",
        "traceparent",
        "tracestate",
    )
}
_TO_CALLER: Final[dict[str, bytes]] = {
    "content-type": b"content-type",
    "retry-after": b"retry-after",
    "retry-after-ms": b"retry-after-ms",
    "x-should-retry": b"x-should-retry",
    "x-request-id": b"x-upstream-request-id",
}
_TO_CALLER_PREFIXES: Final = ("openai-", "x-ratelimit-")
_MAX_VALUE_CHARS: Final = 8_000


def request_headers(incoming: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """Return the caller's headers that may go upstream, the first of each name.

    Args:
        incoming: raw ASGI headers, names in lower case. A value that is not printable ASCII is dropped.
    """
    kept: dict[str, str] = {}
    for raw_name, raw_value in incoming:
        name = _TO_UPSTREAM.get(raw_name)
        if name is not None and name not in kept:
            value = raw_value.decode("latin-1")
            if _is_plain(value):
                kept[name] = value
    return tuple(kept.items())


def response_headers(upstream: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return the upstream's headers that may go to the caller, as raw ASGI headers.

    Args:
        upstream: headers by lower-case name. A value that is not printable ASCII is dropped.
    """
    kept: list[tuple[bytes, bytes]] = []
    for name, value in upstream.items():
        raw_name = _TO_CALLER.get(name)
        if raw_name is None:
            if not name.startswith(_TO_CALLER_PREFIXES) or not name.isascii():
                continue
            raw_name = name.encode("ascii")
        if _is_plain(value):
            kept.append((raw_name, value.encode("ascii")))
    return kept


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and len(value) <= _MAX_VALUE_CHARS
