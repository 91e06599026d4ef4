"""No answer without a record: the decision before the first byte, the outcome before the last."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from conftest import QUESTION, Gateway, Serve, raw_chat, read_all, wait_until
from sqlalchemy import Connection

from lukhas.errors import StorageUnavailable
from lukhas.storage.writer import GroupCommitWriter
from lukhas.testing import DEFAULT_EVENTS

PLAIN = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
STREAM = PLAIN.replace(b'"m"', b'"m","stream":true')


@contextlib.contextmanager
def paused(writer: GroupCommitWriter) -> Iterator[threading.Event]:
    """Hold the writer's thread in the middle of a transaction until the event is set, or the block ends."""
    held, go = threading.Event(), threading.Event()

    def hold(connection: Connection, payloads: Sequence[None]) -> Sequence[None]:
        held.set()
        go.wait(20)
        return [None] * len(payloads)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(writer.submit_sync, hold, None, 30.0)
        assert held.wait(5)
        try:
            yield go
        finally:
            go.set()
            waiting.result(30)


def run_sql(gateway: Gateway, *statements: str) -> None:
    """Run statements on the writer's own connection."""

    def work(connection: Connection, payloads: Sequence[None]) -> Sequence[None]:
        for statement in statements:
            connection.exec_driver_sql(statement)
        return [None] * len(payloads)

    # What still waits to be written shares a transaction with this, and may fail it once.
    for attempts_left in (2, 1, 0):
        try:
            gateway.runtime.writer.submit_sync(work, None, 10.0)
            return
        except StorageUnavailable:
            if not attempts_left:
                raise


REFUSE_ALL = "CREATE TRIGGER refuse BEFORE INSERT ON audit_record BEGIN SELECT RAISE(ABORT, 'refused'); END"
REFUSE_OUTCOMES = (
    "CREATE TRIGGER refuse BEFORE INSERT ON audit_record WHEN NEW.kind = 'outcome' "
    "BEGIN SELECT RAISE(ABORT, 'refused'); END"
)
ALLOW = "DROP TRIGGER refuse"
HIDE = "ALTER TABLE audit_record RENAME TO hidden"
SHOW = "ALTER TABLE hidden RENAME TO audit_record"


@pytest.mark.parametrize("body", [pytest.param(PLAIN, id="plain"), pytest.param(STREAM, id="stream")])
def test_no_byte_leaves_before_the_decision_is_durable(gateway: Gateway, body: bytes) -> None:
    """The upstream is called at once, its answer waits for the record."""
    with paused(gateway.runtime.writer) as go:
        conn = gateway.connect(raw_chat(body, headers="connection: close\r\n"))
        wait_until(lambda: gateway.upstream.requests)
        conn.settimeout(0.3)
        with pytest.raises(TimeoutError):
            conn.recv(1)
        conn.settimeout(10)
        go.set()
        answer = read_all(conn)
        conn.close()
    assert answer.startswith(b"HTTP/1.1 200")


def test_last_byte_of_a_stream_waits_for_the_outcome(gateway: Gateway) -> None:
    """Everything but the last event is out; `[DONE]` is not, until the outcome is durable."""
    gateway.upstream.reply_events(DEFAULT_EVENTS, between_ms=150)
    with gateway.connect(raw_chat(STREAM, headers="connection: close\r\n")) as conn:
        seen = conn.recv(65_536)
        with paused(gateway.runtime.writer) as go:
            conn.settimeout(1.0)
            with pytest.raises(TimeoutError):
                while True:
                    seen += conn.recv(65_536)
            assert b'"finish_reason":"stop"' in seen and b"[DONE]" not in seen
            audit_id = gateway.last_audit_id()
            assert gateway.document(audit_id)["outcome"] is None
            go.set()
            conn.settimeout(10)
            seen += read_all(conn)
    assert b"data: [DONE]" in seen
    assert gateway.document(audit_id)["outcome"]["status"] == "ok"


@pytest.mark.parametrize(
    ("breaking", "healing"),
    [pytest.param(REFUSE_ALL, ALLOW, id="row-refused"), pytest.param(HIDE, SHOW, id="database-broken")],
)
@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
@pytest.mark.parametrize("delay_ms", [pytest.param(0, id="fast-upstream"), pytest.param(5000, id="slow-upstream")])
def test_call_that_cannot_be_recorded_is_refused(
    gateway: Gateway, breaking: str, healing: str, stream: bool, delay_ms: int
) -> None:
    """503 that must not be retried; a model that still works on it is stopped; afterwards all is well again."""
    run_sql(gateway, breaking)
    try:
        gateway.upstream.reply_events(DEFAULT_EVENTS, delay_ms=delay_ms)
        with pytest.raises(openai.InternalServerError) as caught:
            gateway.client(max_retries=2).chat.completions.create(model="m", messages=QUESTION, stream=stream)
        assert caught.value.status_code == 503 and caught.value.code == "storage_unavailable"
        assert caught.value.response.headers["x-should-retry"] == "false"
        for request in gateway.upstream.requests if delay_ms else []:
            assert request.closed.wait(2)
    finally:
        run_sql(gateway, healing)
        gateway.upstream._replies.clear()  # a call that was refused before it was sent asked for none
    assert gateway.chat().status == 200


def test_database_that_is_broken_is_said_in_readyz(gateway: Gateway) -> None:
    """Not ready while nothing can be recorded, ready again by itself once it can."""
    run_sql(gateway, HIDE)
    try:
        assert gateway.chat().status == 503
        answer = gateway.http("GET", "/readyz", key=None)
        assert answer.status == 503 and answer.json["status"] == "unavailable"
        assert not answer.json["checks"]["database"]["ok"] and answer.json["checks"]["database"]["problem"]
    finally:
        run_sql(gateway, SHOW)
    assert gateway.http("GET", "/readyz", key=None).status == 200


def test_plain_answer_whose_outcome_cannot_be_written_is_withheld(gateway: Gateway) -> None:
    """The model's answer is here, but without its outcome it does not go out."""
    run_sql(gateway, REFUSE_OUTCOMES)
    try:
        answer = gateway.chat()
    finally:
        run_sql(gateway, ALLOW)
    assert answer.status == 503 and b"Hello." not in answer.body
    assert gateway.document(answer.headers["x-lukhas-audit-id"])["outcome"] is None


def test_stream_whose_outcome_cannot_be_written_ends_with_an_error(gateway: Gateway) -> None:
    """What is out is out; instead of `[DONE]` comes an error event, which the official client raises."""
    run_sql(gateway, REFUSE_OUTCOMES)
    try:
        stream = gateway.client().chat.completions.create(model="m", messages=QUESTION, stream=True)
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        raw = gateway.raw(raw_chat(STREAM, headers="connection: close\r\n"))
    finally:
        run_sql(gateway, ALLOW)
    assert caught.value.code == "storage_unavailable"
    assert b"[DONE]" not in raw and b'"code":"storage_unavailable"' in raw


@pytest.fixture
def hasty(serve: Serve) -> Gateway:
    """A gateway that waits half a second for a record, and lets ten rows wait."""
    return serve(writer_deadline_s=0.5, writer_queue_rows=10)


@pytest.mark.parametrize("body", [pytest.param(PLAIN, id="plain"), pytest.param(STREAM, id="stream")])
def test_record_that_is_late_refuses_the_call_in_time(hasty: Gateway, body: bytes) -> None:
    """One deadline, not two, and the decision that is written after all is not left open."""
    with paused(hasty.runtime.writer):
        began = time.monotonic()
        answer = hasty.http("POST", "/v1/chat/completions", body)
        took = time.monotonic() - began
    assert answer.status == 503 and answer.error["code"] == "storage_unavailable", answer.body
    assert answer.headers["x-should-retry"] == "false"
    assert took < 0.95
    # Both records come about after all; the last word is that the caller did not get the answer.
    audit_id = answer.headers["x-lukhas-audit-id"]
    wait_until(lambda: hasty.wait_for(audit_id)["status"] in ("withheld", "failed"))
    assert hasty.chat().status == 200


@pytest.mark.parametrize(
    "fields", [pytest.param({"user": "u"}, id="user"), pytest.param({"lukhas": {"session": "s"}}, id="session")]
)
def test_subject_that_cannot_be_stored_refuses_the_call_in_time(hasty: Gateway, fields: dict[str, Any]) -> None:
    """A vault that hangs does not hang its callers."""
    with paused(hasty.runtime.vault_writer):
        began = time.monotonic()
        answer = hasty.chat(fields)
        took = time.monotonic() - began
        signal = hasty.http("POST", "/api/v1/signals", {"signals": {"stress": 1}, "session": "other"})
    assert answer.status == 503 and answer.error["code"] == "storage_unavailable"
    assert took < 0.95 and not hasty.upstream.requests
    assert signal.status == 503


def test_client_that_leaves_while_the_decision_is_written_is_recorded(gateway: Gateway) -> None:
    """The decision gets its outcome although nobody waits for either any more."""
    before = gateway.count("outcome")
    with paused(gateway.runtime.writer):
        conn = gateway.connect(raw_chat(PLAIN))
        wait_until(lambda: gateway.upstream.requests)
        time.sleep(0.1)
        conn.close()
        time.sleep(0.1)
    wait_until(lambda: gateway.count("outcome") == before + 1)
    assert gateway.document(gateway.last_audit_id())["outcome"]["status"] in ("client_gone", "ok")


def test_denied_call_whose_client_leaves_is_closed(gateway: Gateway) -> None:
    """A refusal that waits for its records leaves no open decision when its client goes."""
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"mcp"}],"tool_choice":"required"}'
    before = gateway.count("outcome")
    with paused(gateway.runtime.writer):
        conn = gateway.connect(raw_chat(body))
        time.sleep(0.1)
        conn.close()
        time.sleep(0.1)
    wait_until(lambda: gateway.count("outcome") == before + 1)


def test_full_queue_is_a_503_that_may_be_retried_unless_the_model_has_answered(hasty: Gateway) -> None:
    """Who finds no place may come again, and called nobody's model; who was admitted is not sent there twice."""
    with ThreadPoolExecutor(30) as pool, paused(hasty.runtime.writer):
        answers = [call.result() for call in [pool.submit(hasty.chat) for _ in range(30)]]
    refused = [answer for answer in answers if answer.error["code"] == "overloaded"]
    admitted = [answer for answer in answers if answer.error["code"] == "storage_unavailable"]
    assert len(refused) >= 20 and len(refused) + len(admitted) == 30
    assert {answer.status for answer in answers} == {503}
    assert len(hasty.upstream.requests) == len(admitted)
    assert {answer.headers["x-should-retry"] for answer in refused} == {"true"}
    assert all("retry-after" in answer.headers for answer in refused)
    assert not any("x-lukhas-audit-id" in answer.headers for answer in refused)
    assert {answer.headers["x-should-retry"] for answer in admitted} == {"false"}
    assert hasty.chat().status == 200


def test_what_breaks_inside_is_a_500_with_a_closed_decision(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw says nothing of itself, and leaves no decision open."""

    async def fail(request: object, **unused: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(gateway.runtime.upstream, "send", fail)
    answer = gateway.chat()
    assert answer.status == 500 and b"secret detail" not in answer.body
    assert answer.headers["x-should-retry"] == "false"
    assert gateway.wait_for(answer.headers["x-lukhas-audit-id"])["error"] == "internal_error"
    assert gateway.runtime.metrics.in_flight.value == 0
