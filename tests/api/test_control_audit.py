"""`/api/v1/audit/{id}`: who may read which record."""

from __future__ import annotations

import pytest
from conftest import Gateway


def test_record_is_readable_by_its_own_its_tenants_auditor_and_admin(gateway: Gateway) -> None:
    """Everybody else sees a 404, the same as for an id that is none of anybody's."""
    own = gateway.key(tenant="acme")
    audit_id = gateway.chat(key=own).headers["x-lukhas-audit-id"]
    path = f"/api/v1/audit/{audit_id}"
    allowed = [own, gateway.key("audit", tenant="acme"), gateway.key("admin", tenant="other")]
    refused = [gateway.key(tenant="acme"), gateway.key("audit", tenant="other"), gateway.key("signals", tenant="other")]
    for key in allowed:
        answer = gateway.http("GET", path, key=key)
        assert answer.status == 200, answer.body
        assert answer.json["decision"]["mode"] == "enforce" and answer.json["outcome"]["status"] == "ok"
        assert len(answer.json["records"]) == 2
    unknown = gateway.http("GET", "/api/v1/audit/aud_01ARZ3NDEKTSV4RRFFQ69G5FAV")
    for key in refused:
        answer = gateway.http("GET", path, key=key)
        assert answer.status == unknown.status == 404
        assert answer.json["code"] == unknown.json["code"] == "not_found"


@pytest.mark.parametrize(
    "audit_id",
    [
        pytest.param("x", id="short"),
        pytest.param("aud_", id="prefix-alone"),
        pytest.param("key_01ARZ3NDEKTSV4RRFFQ69G5FAV", id="another-kind"),
        pytest.param("aud_01ARZ3NDEKTSV4RRFFQ69G5FA", id="one-short"),
        pytest.param("aud_01ARZ3NDEKTSV4RRFFQ69G5FAVV", id="one-long"),
        pytest.param("aud_01arz3ndektsv4rrffq69g5fav", id="lower-case"),
        pytest.param("aud_01ARZ3NDEKTSV4RRFFQ69G5FA'", id="quote"),
        pytest.param("aud_01ARZ3NDEKTSV4RRFFQ69G5FAU", id="letter-outside-the-alphabet"),
        pytest.param("'%20OR%201=1%20--", id="injection"),
        pytest.param("%00", id="nul"),
        pytest.param("a" * 5000, id="endless"),
    ],
)
def test_id_that_is_none_is_a_400(gateway: Gateway, audit_id: str) -> None:
    """Its form is checked before anything is looked up; the error has OpenAI's shape too."""
    answer = gateway.http("GET", f"/api/v1/audit/{audit_id}")
    assert answer.status == 400, answer.body
    assert answer.json["code"] == "invalid_id" and set(answer.error) == {"message", "type", "param", "code"}
    assert answer.error["type"] == "invalid_request_error"


def test_path_with_a_slash_behind_the_id_is_a_404(gateway: Gateway) -> None:
    """No record hides below another."""
    assert gateway.http("GET", "/api/v1/audit/aud_01ARZ3NDEKTSV4RRFFQ69G5FAV/x").status == 404
