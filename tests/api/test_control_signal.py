"""`/api/v1/signals`: emitting by scope and right, and seeing what is alive."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from conftest import ADMIN_KEY, Answer, Gateway

_fresh = count()


@pytest.fixture
def session() -> str:
    return f"control-{next(_fresh)}"


def emit(gateway: Gateway, body: dict[str, Any], key: str = ADMIN_KEY) -> Answer:
    return gateway.http("POST", "/api/v1/signals", body, key=key)


def levels(gateway: Gateway, session: str, key: str = ADMIN_KEY) -> dict[str, float]:
    answer = gateway.http("GET", f"/api/v1/signals?session={session}", key=key)
    assert answer.status == 200, answer.body
    return {name: found["level"] for name, found in answer.json["levels"].items()}


def test_emission_counts_for_the_next_call_and_is_on_record(gateway: Gateway, session: str) -> None:
    """Emitted for a session, it decides that session's calls; the receipt names its record."""
    answer = emit(gateway, {"signals": {"alignment_risk": 0.8}, "session": session})
    assert answer.status == 200 and answer.json["scope"] == "session"
    assert answer.json["receipts"][0]["accepted"] and answer.headers["x-request-id"].startswith("req_")
    records = gateway.document(answer.json["audit_id"])["records"]
    assert records[0]["body"]["signals"] == [{"name": "alignment_risk", "level": 0.8, "ttl_ms": None}]
    assert gateway.chat(None, {"X-Lukhas-Session": session}).headers["x-lukhas-safety-mode"] == "strict"


def test_style_inside_its_cooldown_is_not_accepted(gateway: Gateway, session: str) -> None:
    """The receipt says when to come again; the last value holds."""
    emit(gateway, {"signals": {"stress": 0.9}, "session": session})
    receipt = emit(gateway, {"signals": {"stress": 0.3}, "session": session}).json["receipts"][0]
    assert not receipt["accepted"] and 0 < receipt["retry_after_ms"] <= 800
    assert receipt["level"] == pytest.approx(0.9, abs=0.05)
    assert levels(gateway, session)["stress"] == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize(
    ("scopes", "body", "status"),
    [
        pytest.param([], {"signals": {"alignment_risk": 0.9}, "session": "S"}, 200, id="guard-without-scope"),
        pytest.param([], {"signals": {"trust": 1}, "session": "S"}, 403, id="style-without-scope"),
        pytest.param([], {"signals": {"alignment_risk": 1, "trust": 1}, "session": "S"}, 403, id="mixed"),
        pytest.param(["signals"], {"signals": {"trust": 1}, "session": "S"}, 200, id="style-with-scope"),
        pytest.param(["signals"], {"signals": {"stress": 1}, "scope": "tenant"}, 403, id="tenant-without-scope"),
        pytest.param(
            ["signals"], {"signals": {"alignment_risk": 1}, "scope": "tenant"}, 403, id="guard-for-the-tenant"
        ),
        pytest.param(["signals", "signals:tenant"], {"signals": {"stress": 1}, "scope": "tenant"}, 200, id="tenant"),
        pytest.param(["signals:tenant"], {"signals": {"trust": 1}, "scope": "tenant"}, 403, id="tenant-alone"),
        pytest.param(
            ["signals", "signals:tenant"], {"signals": {"stress": 1}, "scope": "everyone"}, 403, id="everyone"
        ),
        pytest.param(["signals"], {"signals": {"stress": 1}}, 200, id="key-by-default"),
        pytest.param(["signals"], {"signals": {"stress": 1}, "user": "U"}, 200, id="user"),
        pytest.param(["audit"], {"signals": {"stress": 1}}, 403, id="another-scope"),
    ],
)
def test_scope_decides_who_may_emit_what(
    gateway: Gateway, session: str, scopes: list[str], body: dict[str, Any], status: int
) -> None:
    """Every right by its own scope; a refused emission is neither recorded nor kept."""
    key = gateway.key(*scopes, tenant=f"tenant-{session}")
    before = gateway.count("signal")
    answer = emit(gateway, {**body, **({"session": session} if "session" in body else {})}, key)
    assert answer.status == status, answer.body
    assert gateway.count("signal") == before + (status == 200)
    if status == 403:
        assert answer.json["code"] == "forbidden" and answer.headers["content-type"] == "application/problem+json"
        assert levels(gateway, session, gateway.key("signals", tenant=f"tenant-{session}")) == {}


def test_emission_for_a_key_is_that_keys_alone(gateway: Gateway) -> None:
    """Another key of the tenant does not see it; one for the tenant it does."""
    tenant = f"tenant-{next(_fresh)}-keys"
    one, other = gateway.key("signals", "signals:tenant", tenant=tenant), gateway.key("signals", tenant=tenant)
    emit(gateway, {"signals": {"alignment_risk": 0.9}}, one)
    assert levels(gateway, "x", one) == {"alignment_risk": pytest.approx(0.9, abs=0.01)}
    assert levels(gateway, "x", other) == {}
    emit(gateway, {"signals": {"alignment_risk": 0.5}, "scope": "tenant"}, one)
    assert levels(gateway, "x", other) == {"alignment_risk": pytest.approx(0.5, abs=0.01)}
    assert levels(gateway, "x", gateway.key("signals", tenant="somebody-else")) == {}


def test_session_of_another_tenant_is_another_session(gateway: Gateway, session: str) -> None:
    """The same name, two tenants: neither reads nor changes the other's."""
    ours, theirs = gateway.key("signals", tenant="ours"), gateway.key("signals", tenant="theirs")
    emit(gateway, {"signals": {"alignment_risk": 0.9}, "session": session}, ours)
    assert levels(gateway, session, theirs) == {}
    assert levels(gateway, session, ours)


def test_reading_levels_needs_the_scope(gateway: Gateway) -> None:
    """What is known of a session is not for every key."""
    assert gateway.http("GET", "/api/v1/signals", key=gateway.key()).status == 403


def test_listing_shows_each_emission_with_its_end(gateway: Gateway, session: str) -> None:
    """Level, source, scope and remaining life; an unknown session has none and is not made."""
    emit(gateway, {"signals": [{"name": "alignment_risk", "level": 0.9, "ttl_ms": 60_000}], "session": session})
    found = gateway.http("GET", f"/api/v1/signals?session={session}").json["emissions"]
    assert [(held["signal"], held["scope"], held["emitted_level"]) for held in found] == [
        ("alignment_risk", "session", 0.9)
    ]
    assert 0 < found[0]["expires_in_ms"] <= 60_000 and found[0]["source"].startswith("api:key_")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"signals": {}}, id="no-signal"),
        pytest.param({"signals": []}, id="empty-list"),
        pytest.param({}, id="nothing"),
        pytest.param({"signals": {"joy": 0.5}}, id="unknown"),
        pytest.param({"signals": {"stress": 2}}, id="level-2"),
        pytest.param({"signals": {"stress": "0.5"}}, id="text"),
        pytest.param({"signals": {"stress": {"level": 0.5, "ts": 5}}}, id="ts"),
        pytest.param({"signals": "stress"}, id="signals-text"),
        pytest.param({"signals": {"stress": 1}, "scope": "world"}, id="scope-unknown"),
        pytest.param({"signals": {"stress": 1}, "scope": "session"}, id="scope-without-session"),
        pytest.param({"signals": {"stress": 1}, "scope": "user", "session": "s"}, id="scope-without-user"),
        pytest.param({"signals": {"stress": 1}, "session": ""}, id="session-empty"),
        pytest.param({"signals": {"stress": 1}, "session": "s" * 257}, id="session-too-long"),
        pytest.param({"signals": {"stress": 1}, "source": "root"}, id="unknown-field"),
        pytest.param([], id="list"),
        pytest.param(None, id="null"),
        pytest.param(b"{", id="cut-off"),
        pytest.param(b'{"signals": {"stress": NaN}}', id="nan"),
        pytest.param(b'{"signals": {"stress": 1}, "session": "\xff"}', id="bad-utf-8"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"", id="no-body"),
        pytest.param(b'{"signals": {"stress": ' + b"1" * 5000 + b"}}", id="number-of-5000-digits"),
        pytest.param(b'{"signals": {"stress": 1}, "session": "\\ud800"}', id="lone-surrogate"),
    ],
)
def test_wrong_emission_is_a_400_as_problem_details(gateway: Gateway, body: Any) -> None:
    """RFC 9457, with the error in OpenAI's shape beside; nothing recorded."""
    before = gateway.count("signal")
    answer = gateway.http("POST", "/api/v1/signals", b"null" if body is None else body)
    assert answer.status == 400, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json
    assert problem["status"] == 400 and problem["code"] and problem["detail"]
    assert problem["type"] == f"urn:lukhas:error:{problem['code']}" and problem["request_id"].startswith("req_")
    assert set(problem["error"]) == {"message", "type", "param", "code"}
    assert gateway.count("signal") == before


@pytest.mark.parametrize(
    "query", [pytest.param("session=", id="empty"), pytest.param("user=" + "u" * 257, id="too-long")]
)
def test_wrong_subject_in_a_query_is_a_400(gateway: Gateway, query: str) -> None:
    """What cannot be a name names nobody."""
    assert gateway.http("GET", f"/api/v1/signals?{query}").status == 400
