"""Liveness, readiness, metrics, unknown paths, and the end of a process."""

from __future__ import annotations

import threading
import time

import pytest
import structlog
from conftest import ADMIN_KEY, Gateway, Serve, raw_chat, read_all, wait_until
from prometheus_client.parser import text_string_to_metric_families

from lukhas.errors import StorageUnavailable
from lukhas.testing import DEFAULT_EVENTS

STREAM = b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}'


def test_health_is_answered_without_a_key(gateway: Gateway) -> None:
    """Probes have none."""
    assert gateway.http("GET", "/healthz", key=None).json == {"status": "ok"}
    ready = gateway.http("GET", "/readyz", key=None)
    assert ready.status == 200 and ready.json["ready"] and ready.json["status"] == "ok"
    assert set(ready.json["checks"]) >= {"database", "vault", "keys", "policy", "upstream"}


def test_metrics_parse_and_count_calls(gateway: Gateway) -> None:
    """The text is Prometheus' own format, and a call shows in it."""

    def samples() -> dict[str, float]:
        text = gateway.http("GET", "/metrics", key=None).body.decode()
        families = text_string_to_metric_families(text)
        return {f"{s.name}{sorted(s.labels.items())}": s.value for family in families for s in family.samples}

    before = samples()
    gateway.chat()
    after = samples()
    grown = {name for name, value in after.items() if value > before.get(name, 0)}
    assert any("calls" in name and "ok" in name for name in grown), grown


def test_metrics_need_a_key_off_loopback(serve: Serve) -> None:
    """Listening beyond this machine, numbers are for those who may see them."""
    gateway = serve(host="0.0.0.0")
    assert gateway.http("GET", "/metrics", key=None).status == 401
    assert gateway.http("GET", "/metrics", key=gateway.key()).status == 403
    assert gateway.http("GET", "/metrics", key=gateway.key("metrics")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", "/", 404, id="root"),
        pytest.param("GET", "/api/v1/nothing", 404, id="unknown"),
        pytest.param("GET", "/api/v2/signals", 404, id="version"),
        pytest.param("DELETE", "/api/v1/signals", 405, id="method"),
        pytest.param("POST", "/healthz", 405, id="post-health"),
    ],
)
def test_unknown_path_is_a_problem(gateway: Gateway, method: str, path: str, status: int) -> None:
    """Problem details, with the request's id."""
    answer = gateway.http(method, path)
    assert answer.status == status and answer.json["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_openapi_describes_the_control_plane(gateway: Gateway) -> None:
    """The document is served and names its paths."""
    assert "/api/v1/signals" in gateway.http("GET", "/openapi.json").json["paths"]


def test_what_breaks_inside_the_control_plane_is_a_500(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A problem without the detail of what broke."""

    def fail(*unused: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(gateway.runtime.audit, "read_document", fail)
    with structlog.testing.capture_logs() as logs:
        answer = gateway.http("GET", "/api/v1/audit/aud_01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert [entry["event"] for entry in logs] == ["request_failed"]
    assert answer.status == 500 and answer.json["code"] == "internal_error" and b"secret" not in answer.body


def test_keys_that_cannot_be_refreshed_are_said_in_readyz(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls go on with the keys that are known; the state is degraded, and mends by itself."""
    gateway = serve()
    keys = gateway.runtime.keys
    right = keys.refresh_if_changed

    def fail() -> bool:
        raise StorageUnavailable("The database cannot be read.")

    monkeypatch.setattr(keys, "refresh_if_changed", fail)
    wait_until(lambda: not gateway.http("GET", "/readyz", key=None).json["checks"]["keys"]["ok"])
    assert gateway.chat().status == 200
    monkeypatch.setattr(keys, "refresh_if_changed", right)
    wait_until(lambda: gateway.http("GET", "/readyz", key=None).json["checks"]["keys"]["ok"])


def test_draining_refuses_new_calls_and_ends_running_ones(serve: Serve) -> None:
    """A running stream is heard to its end and recorded; a new call is told to come again elsewhere."""
    gateway = serve()
    gateway.upstream.reply_events(DEFAULT_EVENTS, between_ms=200)
    got: list[bytes] = []
    conn = gateway.connect(raw_chat(STREAM, headers="connection: close\r\n"))
    reading = threading.Thread(target=lambda: got.append(read_all(conn)))
    reading.start()
    wait_until(lambda: gateway.upstream.requests)
    gateway.runtime.is_draining = True
    refused = gateway.chat()
    assert refused.status == 503 and refused.error["code"] == "shutting_down"
    assert refused.headers["x-should-retry"] == "true"
    assert gateway.http("GET", "/v1/models").status == 503
    assert gateway.http("POST", "/api/v1/signals", {"signals": {"stress": 1}}).status == 503
    ready = gateway.http("GET", "/readyz", key=None)
    assert ready.status == 503 and ready.json["draining"]
    audit_id = gateway.last_audit_id()
    gateway.server.should_exit = True
    reading.join(10)
    conn.close()
    gateway.thread.join(10)
    assert b"data: [DONE]" in got[0]
    from lukhas.storage.engine import open_database

    database = open_database(gateway.runtime.settings.sqlalchemy_url)
    try:
        with database.reading() as connection:
            query = f"SELECT kind FROM audit_record WHERE audit_id = '{audit_id}' ORDER BY leaf_index"
            assert connection.exec_driver_sql(query).scalars().all() == ["decision", "outcome"]
    finally:
        database.close()


def test_decision_without_an_outcome_is_closed_at_the_next_start(serve: Serve, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """What a crash left open is said to be lost, once."""
    first = serve(data_dir=tmp_path / "again")
    record = first.runtime.make_record("decision", {"mode": "enforce"})
    first.runtime.audit.append_sync(record)
    first.stop()
    second = serve(data_dir=tmp_path / "again")
    assert second.runtime.lost == 1
    assert second.document(record.audit_id)["outcome"] == {"status": "lost"}
    second.stop()
    third = serve(data_dir=tmp_path / "again")
    assert third.runtime.lost == 0 and len(third.document(record.audit_id)["records"]) == 2


def test_second_server_on_one_data_directory_is_refused(serve: Serve) -> None:
    """Two writers of one state would contradict each other."""
    from lukhas.errors import ConfigurationError

    first = serve()
    with pytest.raises(ConfigurationError):
        serve()
    assert first.chat().status == 200


def test_model_list_survives_an_upstream_that_dies_in_the_middle(gateway: Gateway) -> None:
    """The read of the list is honest too."""
    gateway.upstream.reply(json={"object": "list", "data": []}, ending="truncate")
    answer = gateway.http("GET", "/v1/models")
    assert answer.status == 502 and answer.error["code"] == "upstream_broken"
    began = time.monotonic()
    assert gateway.http("GET", "/v1/models", headers={"authorization": f"Bearer {ADMIN_KEY}"}).status == 200
    assert time.monotonic() - began < 5
