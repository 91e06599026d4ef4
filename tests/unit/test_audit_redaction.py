"""Redaction by key name and by value pattern."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lukhas.audit.redaction import classify_key, redact, redact_text
from lukhas.ids import make_id

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabc\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        pytest.param("sk-" + "a1B2" * 12, "key", id="openai"),
        pytest.param("sk-proj-" + "a1_B2-" * 10, "key", id="openai-project"),
        pytest.param("sk-ant-api03-" + "aB3_" * 20, "key", id="anthropic"),
        pytest.param("AKIAIOSFODNN7EXAMPLE", "key", id="aws"),
        pytest.param("ghp_" + "a1B2" * 9, "key", id="github"),
        pytest.param("github_pat_" + "a1B2" * 15, "key", id="github-pat"),
        pytest.param("xoxb-123456789012-abcdefABCDEF", "key", id="slack"),
        pytest.param("AIza" + "Sy1_-" * 7, "key", id="google"),
        pytest.param("sk_live_" + "a1B2" * 6, "key", id="stripe"),
        pytest.param("lk_" + "a1B2-_" * 7, "key", id="ours"),
        pytest.param(JWT, "jwt", id="jwt"),
        pytest.param(PEM, "private_key", id="pem"),
        pytest.param(PEM[:60], "private_key", id="pem-cut-off"),
        pytest.param("alice.b+c@mail.example.co.uk", "email", id="email"),
        pytest.param("jürgen@exämple.de", "email", id="email-unicode"),
        pytest.param("4111 1111 1111 1111", "card", id="visa"),
        pytest.param("5500-0000-0000-0004", "card", id="mastercard"),
        pytest.param("378282246310005", "card", id="amex"),
        pytest.param("DE89 3704 0044 0532 0130 00", "iban", id="iban"),
        pytest.param("GB82WEST12345698765432", "iban", id="iban-bare"),
        pytest.param("+1 (415) 555-2671", "phone", id="phone"),
        pytest.param("+442071838750", "phone", id="phone-bare"),
        pytest.param("415-555-2671", "phone", id="phone-us"),
        pytest.param("078-05-1120", "ssn", id="ssn"),
    ],
)
def test_redact_text_with_a_secret_replaces_it(secret: str, kind: str) -> None:
    """The secret goes, the text around it stays, wherever it stands."""
    for text in (secret, f"see {secret} now", f"({secret}),\n", f'"{secret}"'):
        redacted = redact_text(text)
        assert secret not in redacted
        assert redacted == text.replace(secret, f"[redacted:{kind}]") or kind == "private_key"
        assert f"[redacted:{kind}]" in redacted


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Authorization: Bearer abc123.def456-ghi", id="bearer"),
        pytest.param("authorization: basic dXNlcjpwYXNzd29yZA==", id="basic"),
        pytest.param("postgresql://lukhas:abc123@db:5432/x", id="url"),
        pytest.param("password=abc123-long", id="assigned"),
        pytest.param('{"api_key": "abc123-long"}', id="json-text"),
    ],
)
def test_redact_text_with_credentials_in_context_hides_them(text: str) -> None:
    """What only its surroundings give away goes too."""
    redacted = redact_text(text)
    assert "[redacted:" in redacted
    assert "abc123" not in redacted and "dXNlcjpw" not in redacted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpt-4o-mini-2024-07-18",
        "2026-01-02T03:04:05.678Z",
        "2026-01-02 03:04:05+00:00",
        "1767323045678",
        "1767323045678901",
        "550e8400-e29b-41d4-a716-446655440000",
        "41111111-1111-4111-8111-111111111111",
        "0.4111111111111111",
        "3.141592653589793",
        "aud_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "4111 1111 1111 1112",
        "192.168.100.200:8080",
        "Basic configuration and bearer authentication",
        "npm package left-pad@1.3.0",
        "@decorator and a @ b",
        "task-oriented risk-averse disk-encryption-at-rest",
        "sk-learn",
        "DE00 3704 0044 0532 0130 00",
        "order 123-456 of 1000000000 tokens, max_tokens=2048",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "https://example.org:8080/a?b=c#d",
        "the secret of success: practice",
        "token",
        "日本語のテキスト",
        "temperature 1 - 0.85x; top_p max(0.2, 1 - 0.8x)",
    ],
)
def test_redact_text_without_secrets_leaves_it(text: str) -> None:
    """Times, ids, numbers, prose and model names survive."""
    assert redact_text(text) == text


@pytest.mark.parametrize("prefix", ["aud", "req", "pol", "key", "sub", "inc"])
def test_redact_text_of_own_ids_leaves_them(prefix: str) -> None:
    """The log's own identifiers stay readable, whatever their random part holds."""
    for _ in range(300):
        name = make_id(prefix)
        assert redact_text(name) == name


@given(st.uuids(), st.integers(0, 2**63), st.floats(allow_nan=False, allow_infinity=False), st.datetimes())
def test_redact_text_of_plain_values_leaves_them(one: Any, two: int, three: float, four: Any) -> None:
    """No UUID, float or time of the world looks like a secret."""
    for value in (str(one), repr(three), four.isoformat(), four.isoformat() + "Z"):
        assert redact_text(value) == value
    assert redact({"id": two, "at": three}) == {"id": two, "at": three}


@pytest.mark.parametrize(
    "name",
    [
        "password", "Password", "PASSWD", "user_password", "passwordHash", "secret", "client_secret", "clientSecret",
        "apikey", "api_key", "API-KEY", "x-api-key", "X_Api_Key", "openaiApiKey", "access_token", "refreshToken",
        "authorization", "Proxy-Authorization", "cookie", "Set-Cookie", "email", "E-Mail", "customer_email", "phone",
        "phoneNumber", "ssn", "SSN", "credit_card", "cardNumber", "iban", "private_key", "token",
    ],
)  # fmt: skip
def test_redact_under_a_telling_key_replaces_the_whole_value(name: str) -> None:
    """Case and separators do not matter, nor what the value is."""
    for value in ("x", 12345, ["a", {"b": 1}], {"deep": "x"}, b"x", 1.5):
        found = redact({"outer": [{name: value}]})["outer"][0]
        assert list(found) == [name]
        assert found[name].startswith("[redacted:"), found
    assert redact({name: None, "n": 1}) == {name: None, "n": 1}


@pytest.mark.parametrize(
    "name",
    ["max_tokens", "token_count", "tokens", "author", "key_id", "key", "tenant", "model", "secretary", "phonetic",
     "next_page_token", "temperature", "cookies_enabled", "emailed", "pinned", "authority", "session", ""],
)  # fmt: skip
def test_classify_key_of_ordinary_names_is_none(name: str) -> None:
    """Names that only resemble a telling one are left alone."""
    assert classify_key(name) is None


def test_redact_secret_in_a_key_and_at_depth_is_found() -> None:
    """Keys are text too, and two that become the same are both kept."""
    value = {"alice@example.com": 1, "bob@example.com": 2, "list": [({"x": ["call +442071838750"]},)]}
    assert redact(value) == {
        "[redacted:email]": 1,
        "[redacted:email]#2": 2,
        "list": [[{"x": ["call [redacted:phone]"]}]],
    }


def test_redact_odd_values_gives_plain_json() -> None:
    """Bytes are read as text, cycles end, and nothing raises."""
    cycle: dict[str, Any] = {"n": float("nan"), "b": b"mail a@example.com", "s": "\ud800", "o": object()}
    cycle["again"] = cycle
    assert redact(cycle) == {
        "n": "[nan]",
        "b": "mail [redacted:email]",
        "s": "\\ud800",
        "o": "[object:object]",
        "again": "[cycle]",
    }


def test_redact_twice_changes_nothing_more() -> None:
    """A marker is not itself a secret."""
    once = redact({"a": f"{PEM} {JWT} a@example.com password=abcdefgh", "email": "x", "c": "4111111111111111"})
    assert redact(once) == once


@pytest.mark.parametrize(
    "unit",
    [
        "a", "1", " ", "@", "a@", "a@b.", "eyJ", "eyJaaaaaaaa.", "-eyJ", "sk-", "lk_", "ghp_", "AKIA", "xoxb-",
        "Bearer ", "-----BEGIN PRIVATE KEY-----", "-----BEGIN A", "1 ", "1-", "+1", "(1", "4111 ", "DE89 ", "://", "://a:",
        "password=",
        "password", "a.", "é", "=:", "basic a", "1.", "+1 .", "AB12", "%20bearer%20",
    ],
)  # fmt: skip
def test_redact_text_of_adversarial_megabytes_takes_linear_time(unit: str) -> None:
    """No text of a megabyte makes a pattern backtrack: quadratic time would take minutes here."""
    text = (unit * (1_000_000 // len(unit) + 1))[:1_000_000]
    started = time.process_time()
    redact_text(text + "!")
    assert time.process_time() - started < 8
