"""`/api/v1/audit/export`: every record verbatim, for an admin key."""

from __future__ import annotations

import json

import pytest
from conftest import Gateway


def test_export_streams_every_tenants_records_verbatim(gateway: Gateway) -> None:
    """Lines are the stored bytes in the log's order; a range is contiguous and said in a header."""
    for tenant in ("acme", "other"):
        gateway.chat(key=gateway.key(tenant=tenant))
    admin = gateway.key("admin")
    answer = gateway.http("GET", "/api/v1/audit/export", key=admin)
    assert answer.status == 200 and answer.headers["content-type"].startswith("application/x-ndjson")
    records = [json.loads(line) for line in answer.body.splitlines()]
    assert [int(record["tree"]["index"]) for record in records] == list(range(len(records)))
    assert {"acme", "other"} <= {record["tenant"] for record in records}
    part = gateway.http("GET", "/api/v1/audit/export?from=1&to=3", key=admin)
    assert part.headers["x-lukhas-audit-range"] == "1-3"
    assert part.body.splitlines() == answer.body.splitlines()[1:3]
    assert gateway.http("GET", "/api/v1/audit/export?until=1970-01-02", key=admin).body in (b"", "")


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("from=-1", id="negative"),
        pytest.param("from=x", id="no-number"),
        pytest.param("from=3&to=1", id="turned-round"),
        pytest.param("to=999999", id="past-the-end"),
        pytest.param("since=yesterday", id="no-time"),
    ],
)
def test_export_of_what_cannot_be_is_a_400(gateway: Gateway, query: str) -> None:
    """The mistake is told before the first byte."""
    gateway.chat()
    assert gateway.http("GET", f"/api/v1/audit/export?{query}", key=gateway.key("admin")).status == 400


def test_export_needs_an_admin_key(gateway: Gateway) -> None:
    """A tenant's auditor reads its own records one by one, not everybody's."""
    assert gateway.http("GET", "/api/v1/audit/export", key=gateway.key("audit", tenant="acme")).status == 403
