"""A record in sentences, and decided again, over HTTP."""

from __future__ import annotations

from conftest import Gateway


def test_record_in_words_answers_why(gateway: Gateway) -> None:
    """By a parameter or by the Accept header, and to those alone who may read the record."""
    own = gateway.key("signals", tenant="acme")
    extension = {"signals": [{"name": "stress", "level": 0.9}]}
    audit_id = gateway.chat({"lukhas": extension}, key=own).headers["x-lukhas-audit-id"]
    path = f"/api/v1/audit/{audit_id}"
    answer = gateway.http("GET", f"{path}?format=text", key=own)
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain")
    text = answer.body.decode()
    assert "because stress stood at 0.9" in text and "It ended as ok." in text and "lukhas audit proof" in text
    stranger = gateway.key(tenant="other")
    assert gateway.http("GET", f"{path}?format=text", key=stranger).status == 404
    assert gateway.http("GET", f"{path}?format=html", key=own).status == 400


def test_replay_of_a_call_is_the_same_and_only_its_readers_get_it(gateway: Gateway) -> None:
    """The gateway's own decisions come out as they are on record."""
    own = gateway.key("signals", tenant="acme")
    extension = {"signals": [{"name": "stress", "level": 0.9}, {"name": "alignment_risk", "level": 0.4}]}
    audit_id = gateway.chat({"temperature": 1.1, "lukhas": extension}, key=own).headers["x-lukhas-audit-id"]
    answer = gateway.http("GET", f"/api/v1/audit/{audit_id}/replay", key=own)
    assert answer.status == 200, answer.body
    assert answer.json["same"] is True and answer.json["differences"] == []
    assert gateway.http("GET", f"/api/v1/audit/{audit_id}/replay", key=gateway.key(tenant="other")).status == 404
    assert gateway.http("GET", "/api/v1/audit/aud_01ARZ3NDEKTSV4RRFFQ69G5FAV/replay", key=own).status == 404
