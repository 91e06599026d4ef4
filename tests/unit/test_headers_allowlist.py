"""Which headers cross the gateway."""

import pytest

from lukhas.openai.headers import request_headers, response_headers


@pytest.mark.parametrize(
    "name", ["openai-beta", "openai-organization", "openai-project", "idempotency-key", "traceparent", "tracestate"]
)
def test_request_headers_named_ones_go_upstream(name: str) -> None:
    """Each header that the upstream should see goes on."""
    assert request_headers([(name.encode(), b"v1")]) == ((name, "v1"),)


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "cookie",
        "x-lukhas-signals",
        "x-lukhas-session",
        "x-forwarded-for",
        "x-stainless-os",
        "baggage",
        "host",
        "content-length",
        "content-type",
        "user-agent",
        "connection",
        "openai-betas",
        "x-api-key",
        "forwarded",
    ],
)
def test_request_headers_all_others_stop(name: str) -> None:
    """What identifies the caller, or is the connection's own, never goes upstream."""
    assert request_headers([(name.encode(), b"secret")]) == ()


@pytest.mark.parametrize(
    "value",
    [b"a\r\nx-evil: 1", b"a\nb", b"a\x00b", b"\xff", "ä".encode(), b"x" * 8001, b"\x7f"],
    ids=["crlf", "lf", "nul", "latin", "utf8", "huge", "delete"],
)
def test_request_headers_unprintable_value_is_dropped(value: bytes) -> None:
    """A value that could break the request, or that no header carries, does not go on."""
    assert request_headers([(b"openai-beta", value)]) == ()


def test_request_headers_repeated_name_keeps_the_first() -> None:
    """Of a repeated header one goes on, so that both sides agree on what was said."""
    assert request_headers([(b"idempotency-key", b"1"), (b"idempotency-key", b"2")]) == (("idempotency-key", "1"),)


def test_response_headers_named_ones_go_to_the_caller() -> None:
    """Rate limits, retry advice and the content type go on; the request id under a name of its own."""
    upstream = {
        "content-type": "application/json",
        "openai-processing-ms": "12",
        "x-ratelimit-remaining-requests": "99",
        "retry-after": "1",
        "retry-after-ms": "900",
        "x-should-retry": "false",
        "x-request-id": "req_up",
    }
    kept = dict(response_headers(upstream))
    assert kept.pop(b"x-upstream-request-id") == b"req_up"
    assert kept == {n.encode(): v.encode() for n, v in upstream.items() if n != "x-request-id"}


@pytest.mark.parametrize(
    "name",
    [
        "set-cookie",
        "x-lukhas-audit-id",
        "x-lukhas-policy",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "server",
        "date",
        "connection",
        "location",
        "www-authenticate",
        "access-control-allow-origin",
        "openai-é",
    ],
)
def test_response_headers_all_others_stop(name: str) -> None:
    """Nothing that could pass for the gateway's word, or that describes another connection, reaches the caller."""
    assert response_headers({name: "v"}) == []


@pytest.mark.parametrize("value", ["a\r\nb", "\udcff", "ä"], ids=["crlf", "surrogate", "latin"])
def test_response_headers_unprintable_value_is_dropped(value: str) -> None:
    """An upstream cannot split the caller's response."""
    assert response_headers({"x-ratelimit-limit": value}) == []
