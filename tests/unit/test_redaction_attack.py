"""Redaction under attack: canaries under telling names in any spelling and form, and what must not be touched."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lukhas.audit.record import AuditRecord, encode_record
from lukhas.audit.redaction import classify_key, redact, redact_text

CANARY = "Zq7Canary0nE"
WORDS = (
    ("password",), ("passwd",), ("api", "key"), ("access", "token"), ("x", "api", "key"), ("authorization",),
    ("proxy", "authorization"), ("cookie",), ("set", "cookie"), ("email",), ("phone",), ("client", "secret"),
    ("private", "key"), ("refresh", "token"), ("session", "token"), ("ssn",), ("bearer",), ("credentials",), ("iban",),
    ("card", "number"), ("github", "token"), ("db", "password"),
)  # fmt: skip
SEPARATORS = ("", "_", "-", ".", " ", "\u200b", "\u2010", "\u2011", "\u2013", "\u00b7", "\u00a0", "__", "\uff3f")


@st.composite
def telling_names(draw: st.DrawFn) -> str:
    """Draw a telling name in some spelling."""
    words = list(draw(st.sampled_from(WORDS)))
    separator = draw(st.sampled_from(SEPARATORS))
    spelling = draw(st.sampled_from(("lower", "upper", "title", "camel")))
    if spelling == "camel":
        words = [words[0], *(word.title() for word in words[1:])]
    elif spelling != "lower":
        words = [getattr(word, spelling)() for word in words]
    prefix = draw(st.sampled_from(("", "a.b.", "my_", "user-", "headers.")))
    if prefix and separator == "" and len(words) > 1 and spelling in ("lower", "upper"):
        separator = "_"
    return prefix + separator.join(words)


def leaves() -> st.SearchStrategy[Any]:
    plain = st.sampled_from(("hello there", "gpt-4o", "total", "x", "stress 0.7", ""))
    return st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(-1, 1), plain)


def structures(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(("a", "model", "max_tokens", "levels", "k2", "note"))
    return st.recursive(
        inner,
        lambda part: st.one_of(st.lists(part, max_size=3), st.dictionaries(names, part, max_size=3)),
        max_leaves=8,
    )


def plant(name: str, form: int, secret: str) -> Any:
    """Put a secret under a name in one of the forms that it is met in."""
    plain = "".join(c for c in name if c.isascii() and c not in " \t") or name
    forms: tuple[Any, ...] = (
        {name: secret},
        {name: [secret, {"deep": secret}]},
        {"name": name, "value": secret},
        {"key": name, "value": {"x": secret}},
        [[name, secret], ["host", "b"]],
        [(name.encode(), secret.encode()), (b"host", b"b")],
        json.dumps({name: secret, "n": 1}),
        json.dumps({"body": json.dumps({name: f"{secret} and more"})}),
        f"before {json.dumps({'a': {name: secret}})} after",
        json.dumps({name: f'a "quoted" {secret}'})[:-3],
        f"see {json.dumps(json.dumps({name: secret}))}!",
        f"https://example.org/path?a=1&{quote(plain)}={secret}&b=2",
        f"a=1&{quote(plain)}={secret}",
        f"{{'{plain}': '{secret}'}} as Python writes it",
        f"<{plain.replace('.', '_')}>{secret}</{plain.replace('.', '_')}>",
    )
    return forms[form % len(forms)]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(telling_names(), st.integers(0, 14), structures(leaves()), st.sampled_from(("outer", "list", "text")))
def test_redact_canary_under_any_telling_name_never_reaches_the_bytes(
    name: str, form: int, around: Any, place: str
) -> None:
    """Whatever the spelling, the form and the depth, the record's bytes do not hold the secret."""
    planted = plant(name, form, CANARY)
    value = {"outer": {"x": planted, "y": around}, "list": [around, [planted]], "text": {"k2": {"note": planted}}}[
        place
    ]
    record = AuditRecord("note", "aud_1", "t", "k", None, 0, None, None, {"bundle": redact(value)})
    assert CANARY.encode() not in encode_record(record).head, (name, planted)


@settings(max_examples=200, deadline=None)
@given(structures(leaves()))
def test_redact_clean_structure_comes_out_equal(value: Any) -> None:
    """Where there is no secret, nothing changes."""
    assert redact(value) == value
    text = orjson.dumps(value).decode()
    assert redact_text(text) == text


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_redact_text_twice_changes_nothing_more(text: str) -> None:
    """Markers are not secrets, and redacting again finds nothing new in them."""
    once = redact_text(text)
    assert redact_text(once) == once


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"Cookie: sid={CANARY}; theme=dark", id="cookie-header"),
        pytest.param(f"GET / HTTP/1.1\r\nAuthorization: Digest {CANARY}\r\nHost: a\r\n", id="raw-request"),
        pytest.param(f"curl -H 'X-Api-Key: {CANARY}' https://a.example", id="curl"),
        pytest.param(f"tool --password {CANARY} --verbose", id="argument"),
        pytest.param(f"tool --api-key={CANARY}", id="argument-equals"),
        pytest.param(f"export OPENAI_API_KEY={CANARY}", id="environment"),
        pytest.param(f'DB_PASSWORD="{CANARY} with spaces"', id="quoted-environment"),
        pytest.param(f"my API key: {CANARY}", id="spoken"),
        pytest.param(f'{{"api key": "{CANARY}", ', id="name-with-space"),
        pytest.param(f"https://user:p@ss{CANARY}@db.example/x", id="url-at-sign"),
        pytest.param(f"https://{CANARY}aaaabbbbcccc@sentry.example/1", id="url-user"),
        pytest.param(f"redis://:{CANARY}@h:6379/0", id="url-no-user"),
        pytest.param(f'--b\r\nContent-Disposition: form-data; name="password"\r\n\r\n{CANARY}\r\n', id="multipart"),
        pytest.param(f"AccountName=a;AccountKey={CANARY}==;EndpointSuffix=x", id="azure-connection"),
        pytest.param(f"https://a.example/c?sv=1&sig={CANARY}%3D%3Dabc", id="sas"),
        pytest.param(f"password:\n  {CANARY}"[:10] + CANARY, id="yaml"),
        pytest.param(f'"password" => "{CANARY}"', id="ruby"),
        pytest.param(f"p\u0430ssword={CANARY}", id="look-alike"),
        pytest.param(f"-----BEGIN RSA PRIVATE KEY-----\\nMII{CANARY}\\n", id="pem-literal-newline"),
        pytest.param(f"{CANARY}abc\nQUJD\n-----END PRIVATE KEY-----\nrest", id="pem-tail"),
        pytest.param(f"{CANARY}@example.com", id="email"),
        pytest.param(f'"{CANARY} x"@example.com', id="email-quoted"),
        pytest.param(f"to={CANARY}%40example.com", id="email-escaped"),
        pytest.param(f"{CANARY}\uff20example.com", id="email-wide"),
        pytest.param(f"SG.{CANARY}aaaabbbb.ccccdddd{CANARY}eeee", id="sendgrid"),
        pytest.param(f"eyJhbGciOiJkaXIifQ..{CANARY}.cccccc.dddd", id="jwe"),
        pytest.param(f"glpat-{CANARY}aaaabbbb", id="gitlab"),
        pytest.param(f"https://hooks.slack.com/services/T0000000/B0000000/{CANARY}", id="slack-webhook"),
    ],
)
def test_redact_text_with_a_secret_in_context_hides_it(text: str) -> None:
    """Headers, command lines, connection strings, forms and addresses."""
    assert CANARY not in redact_text(text), redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("4111\u00a01111\u00a01111\u00a01111", id="card-no-break-space"),
        pytest.param("4111\u20101111\u20101111\u20101111", id="card-hyphen"),
        pytest.param("3782 822463 10005", id="amex"),
        pytest.param("de89 3704 0044 0532 0130 00", id="iban-lower"),
        pytest.param("AT61 1904 3002 3457 3201", id="iban-then-words"),
        pytest.param("NO93 8601 1117 947", id="iban-short"),
    ],
)
def test_redact_text_with_an_account_number_hides_it(text: str) -> None:
    """Separators, case and what stands behind do not matter."""
    for around in (text, f"pay {text} done today", f"{text}, {text}"):
        assert not any(part in redact_text(around) for part in (text, text[-6:])), redact_text(around)


@pytest.mark.parametrize(
    "text",
    [
        "The tokenizer counts 512 tokens: 300 in, 212 out.",
        "Password: required. Email: see below. Token: none.",
        "The secretary spins the wheel; token: practice makes perfect",
        "max_tokens=2048&total_tokens=10&token_count=3",
        '{"max_tokens": 12, "token_type": "bearer", "n": [1, 2]}',
        "key=value; a:b; x => y; time: 10:30:15",
        "POST /v1/chat/completions?limit=20&after=abc HTTP/1.1",
        "def authorize(author, key): return key == author",
        "sk-learn-based-classification-pipeline",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "Cookie: the recipe has butter in it",
        "line 43, column 18 of policy.yaml; rule max(0.1, 0.7 - 0.6 * x)",
        "tree/0/x001/234.p/17 root hash qL3sTx1Rj7K0aB9e0Qp1u2v3w4x5y6z7A8B9C0D1E2E=",
        "v1.2.3-rc.4+build.567 on 2026-01-02 at 03:04:05.678",
        "https://example.org/@user/post and git@ but no address",
        "temperature: 0.28 -> 0.6 because of stress 0.7",
        "AB12 is no account number, nor is DE00 1234 5678",
    ],
)
def test_redact_text_of_ordinary_text_leaves_it(text: str) -> None:
    """Prose, code, counts, paths and hashes survive."""
    assert redact_text(text) == text


def test_redact_lists_of_field_names_survive() -> None:
    """A list that names fields holds no value."""
    for value in (["email", "name"], {"required": ["email", "phone"]}, ["password", "email", "token"], [["a", "b"]]):
        assert redact(value) == value
    assert redact(["Cookie", f"a={CANARY}", "Host", "x"]) == ["Cookie", "[redacted:secret]", "Host", "x"]


@pytest.mark.parametrize("name", ["x" * 500 + "_password", "api_key" + "x" * 500])
def test_classify_key_of_a_very_long_name_judges_its_ends(name: str) -> None:
    """Padding does not hide a name."""
    assert classify_key(name) is not None


@pytest.mark.parametrize(
    "unit",
    [
        "-", "@", "eyJ", "0", "_", "cookie:", "authorization: a ", "email:", "token:a ", "password='", 'a":', '\\"',
        '"a":"', "[redacted:", "a\u200b", "<a>", "<password>", " --a b", "{", '{"a":', "sk-a", "x=", "%40", "a%40",
        "DE89 ", "de89", '"@', "-----END PRIVATE KEY-----", "://a:b", "key: ", 'name="a"\n', "SG.a", "~", "==",
        "phone: 1",
        "gl", "xox", ":AA", "password:\\", "cookie: a\\", "[[", '"', "api ", "é",
    ],
)  # fmt: skip
def test_redact_text_of_an_adversarial_megabyte_takes_linear_time(unit: str) -> None:
    """Quadratic time would take minutes here."""
    text = (unit * (1_000_000 // len(unit) + 1))[:1_000_000]
    started = time.process_time()
    redact_text(text + "!")
    assert time.process_time() - started < 10
