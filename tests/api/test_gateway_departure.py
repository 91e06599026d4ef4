"""Clients that leave in the middle: the upstream is let go, the outcome is recorded, nothing stays behind."""

from __future__ import annotations

import asyncio
import time

import pytest
from conftest import Gateway, raw_chat, wait_until

from lukhas.testing import DEFAULT_EVENTS

PLAIN = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
STREAM = PLAIN.replace(b'"m"', b'"m","stream":true')


def _tasks(gateway: Gateway) -> int:
    loop = gateway.runtime._tasks[0].get_loop()

    async def count() -> int:
        return len(asyncio.all_tasks())

    return asyncio.run_coroutine_threadsafe(count(), loop).result(5)


@pytest.mark.parametrize(
    ("body", "has_begun"),
    [
        pytest.param(PLAIN, False, id="plain"),
        pytest.param(STREAM, True, id="stream"),
        pytest.param(STREAM, False, id="stream-before-its-head"),
    ],
)
def test_client_that_leaves_ends_the_upstreams_call(gateway: Gateway, body: bytes, has_begun: bool) -> None:
    """Within 200 ms the upstream sees the close; the outcome says client_gone, and no task is left."""
    before, decisions = _tasks(gateway), gateway.count("decision")
    if has_begun:
        gateway.upstream.reply_events(DEFAULT_EVENTS[:2], done=False, ending="stall")
    else:
        gateway.upstream.reply(delay_ms=8000)
    conn = gateway.connect(raw_chat(body))
    request = wait_until(lambda: gateway.upstream.requests and gateway.upstream.requests[0])
    if has_begun:
        assert b"200 OK" in conn.recv(65_536)
    # The upstream may see the call before its decision is durable.
    audit_id = wait_until(lambda: gateway.count("decision") > decisions and gateway.last_audit_id())
    left_at = time.monotonic()
    conn.close()
    assert request.closed.wait(2)
    assert request.closed_at - left_at < 0.2
    assert gateway.wait_for(audit_id)["status"] == "client_gone"
    wait_until(lambda: _tasks(gateway) <= before)
    assert gateway.runtime.metrics.in_flight.value == 0


def test_client_that_reads_nothing_and_leaves_is_recorded(gateway: Gateway) -> None:
    """A stream that stands still because nobody reads it ends when its client does, and says what was released."""
    choice = {**DEFAULT_EVENTS[1]["choices"][0], "delta": {"content": "so it goes on. " * 7_000}}
    event = {**DEFAULT_EVENTS[1], "choices": [choice]}
    gateway.upstream.reply_events([event] * 400)
    conn = gateway.connect(raw_chat(STREAM))
    assert conn.recv(1024)
    assert conn.recv(1024)  # its head comes at once, its first event when that is judged
    audit_id = wait_until(lambda: gateway.upstream.requests and gateway.last_audit_id())
    time.sleep(0.2)  # the buffers between us fill up
    conn.close()
    outcome = gateway.wait_for(audit_id)
    assert outcome["status"] == "client_gone" and outcome["answer_bytes"] > 100_000
    assert gateway.upstream.requests[0].closed.wait(2)


def test_client_that_leaves_while_sending_its_body_calls_nobody(gateway: Gateway) -> None:
    """Half a request is none."""
    before = gateway.count("decision")
    conn = gateway.connect(raw_chat(PLAIN)[:-5])
    time.sleep(0.05)
    conn.close()
    assert gateway.chat().status == 200
    assert gateway.count("decision") == before + 1 and len(gateway.upstream.requests) == 1


def test_hundred_clients_that_leave_at_once_leave_nothing(gateway: Gateway) -> None:
    """Every outcome is recorded once, and the gateway answers the next caller."""
    before = _tasks(gateway)
    decisions, outcomes = gateway.count("decision"), gateway.count("outcome")
    for _ in range(100):
        gateway.upstream.reply(delay_ms=8000)
    conns = [gateway.connect(raw_chat(PLAIN if number % 2 else STREAM)) for number in range(100)]
    wait_until(lambda: len(gateway.upstream.requests) == 100)
    for conn in conns:
        conn.close()
    wait_until(lambda: gateway.count("outcome") == outcomes + 100)
    assert gateway.count("decision") == decisions + 100
    wait_until(lambda: _tasks(gateway) <= before)
    assert gateway.chat().status == 200
