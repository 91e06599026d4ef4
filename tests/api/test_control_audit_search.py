"""`GET /api/v1/audit`: who finds which records, in pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from conftest import Gateway

from lukhas.audit.search_index import SearchIndex

PATH = "/api/v1/audit"


@pytest.fixture(params=["index", "scan"])
def searched(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Iterator[Gateway]:
    """A gateway whose log is searched through an index that has all of it but the newest, or without one."""
    runtime = gateway.runtime
    index = None
    if request.param == "index":
        index = SearchIndex(tmp_path_factory.mktemp("search"), runtime.audit.source)
    runtime.custody.search = index
    yield gateway


def catch_up(gateway: Gateway) -> None:
    """Bring the index, where there is one, to the log's end."""
    if gateway.runtime.custody.search is not None:
        gateway.runtime.custody.search.catch_up()


def found(gateway: Gateway, question: str, key: str) -> list[dict[str, Any]]:
    answer = gateway.http("GET", f"{PATH}?{question}", key=key)
    assert answer.status == 200, answer.body
    assert answer.json["complete"] is True
    return answer.json["records"]


def test_key_finds_its_own_records_auditor_the_tenants_and_admin_all(searched: Gateway) -> None:
    """What somebody else did is not found, whatever is asked for."""
    # One gateway serves all tests of the file.
    kind = "scan" if searched.runtime.custody.search is None else "index"
    here, there = f"here-{kind}", f"there-{kind}"
    one, two, foreign = searched.key(tenant=here), searched.key(tenant=here), searched.key(tenant=there)
    ids = {key: searched.chat(key=key).headers["x-lukhas-audit-id"] for key in (one, two, foreign)}
    catch_up(searched)
    searched.chat(key=foreign)
    auditor, admin = searched.key("audit", tenant=here), searched.key("admin", tenant="x")

    def calls(key: str, more: str = "") -> set[str]:
        return {row["audit_id"] for row in found(searched, f"kind=decision&limit=500{more}", key)}

    assert calls(one) == {ids[one]} and calls(two) == {ids[two]}
    assert calls(auditor) == {ids[one], ids[two]} == calls(auditor, f"&tenant={here}")
    assert calls(admin) > {ids[one], ids[two], ids[foreign]}
    assert calls(admin, f"&tenant={here}") == {ids[one], ids[two]}
    assert found(searched, f"text={ids[foreign]}", one) == found(searched, f"text={ids[foreign]}", auditor) == []
    for key, question in ((one, f"tenant={there}"), (auditor, f"tenant={there}"), (one, "key=key_other")):
        refused = searched.http("GET", f"{PATH}?{question}", key=key)
        assert refused.status == 403 and refused.json["code"] == "forbidden"


def test_pages_put_together_are_the_whole(searched: Gateway) -> None:
    """The cursor in the body and the Link header lead through every record once."""
    key = searched.key(tenant="acme")
    for number in range(4):
        if number == 2:
            catch_up(searched)
        searched.chat(key=key)
    whole = found(searched, "limit=500", key)
    assert len(whole) == 8
    assert [row["index"] for row in whole] == sorted((row["index"] for row in whole), reverse=True)
    rows: list[dict[str, Any]] = []
    path: str | None = f"{PATH}?limit=3&since=1h"
    while path:
        answer = searched.http("GET", path, key=key)
        rows += answer.json["records"]
        link = answer.headers.get("link")
        assert (link is None) == (answer.json["next"] is None)
        path = None if link is None else link[1 : link.index(">")]
    assert rows == whole


def test_filters_find_what_they_name(searched: Gateway) -> None:
    """Kind, model, mode, status, policy and text, alone and together; a name that nothing has finds nothing."""
    key = searched.key(tenant="acme")
    audit_id = searched.chat(key=key).headers["x-lukhas-audit-id"]
    catch_up(searched)
    decision = found(searched, "model=gpt-4o-mini&kind=decision&mode=balanced", key)
    assert [row["audit_id"] for row in decision] == [audit_id] and "gpt-4o-mini" in decision[0]["summary"]
    assert [row["kind"] for row in found(searched, "status=ok", key)] == ["outcome"]
    assert [row["kind"] for row in found(searched, f"text={audit_id}", key)] == ["outcome", "decision"]
    assert [row["kind"] for row in found(searched, f"text={quote('gpt-4o* balanced')}", key)] == ["decision"]
    for nothing in ("model=other", "mode=strict", "until=1h", "since=2999-01-01", "tool=shell", "session=nobody"):
        assert found(searched, nothing, key) == [], nothing


@pytest.mark.parametrize(
    ("question", "param"),
    [
        pytest.param("modle=x", "modle", id="misspelt"),
        pytest.param("model=a&model=b", "model", id="twice"),
        pytest.param("since=yesterday", "since", id="no-time"),
        pytest.param("limit=0", None, id="no-page"),
        pytest.param("limit=501", None, id="too-large"),
        pytest.param("limit=x", None, id="no-number"),
        pytest.param("cursor=abc", "cursor", id="no-cursor"),
        pytest.param("session=sub_1", None, id="no-subject"),
        pytest.param("user=", "user", id="empty-user"),
        pytest.param("tenant=A%20B", "tenant", id="no-tenant"),
        pytest.param("text=" + "x" * 501, "text", id="long-text"),
    ],
)
def test_wrong_parameter_is_a_400_that_names_it(searched: Gateway, question: str, param: str | None) -> None:
    """A filter that is not understood never widens what is found."""
    answer = searched.http("GET", f"{PATH}?{question}")
    assert answer.status == 400, answer.body
    if param is not None:
        assert answer.error["param"] == param


def test_cursor_of_another_key_leads_nowhere(searched: Gateway) -> None:
    """A cursor is bound to its query, the key's own limits among it."""
    one, two = searched.key(tenant="acme"), searched.key(tenant="acme")
    for key in (one, two):
        searched.chat(key=key)
    cursor = searched.http("GET", f"{PATH}?limit=1", key=one).json["next"]
    assert searched.http("GET", f"{PATH}?limit=1&cursor={cursor}", key=one).status == 200
    assert searched.http("GET", f"{PATH}?limit=1&cursor={cursor}", key=two).status == 400


def test_search_without_a_key_is_a_401(searched: Gateway) -> None:
    """Nobody searches anonymously."""
    assert searched.http("GET", PATH, key="").status == 401
