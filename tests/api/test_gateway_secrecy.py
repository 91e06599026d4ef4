"""Records, logs and metrics hold no prompt, no name of a person, and no secret, wherever one is put."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from conftest import ADMIN_KEY, Gateway

PROMPT = "canary-prompt-4711"
PERSON = "canary.person@example.com"
SESSION = "canary-session-4711"
SECRET = "sk-proj-CANARYcanaryCANARYcanary0123456789abcdefABCDEF"
CARD = "4111 1111 1111 1111"
EVERYTHING = (PROMPT, PERSON, SESSION, SECRET, CARD)


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": PROMPT, "parameters": {"title": SECRET}}}


BODIES: dict[str, dict[str, Any]] = {
    "messages": {
        "messages": [
            {"role": "system", "content": PROMPT + SECRET, "name": PERSON},
            {"role": "user", "content": [{"type": "text", "text": f"{PROMPT} {CARD}"}]},
        ]
    },
    "subjects": {"user": PERSON, "safety_identifier": PERSON, "lukhas": {"session": SESSION, "user": PERSON}},
    "unknown-fields": {PROMPT: {SECRET: [PERSON]}, "metadata": {"k": SECRET, PERSON: CARD}, "prediction": PROMPT},
    "model": {"model": f"ft:{SECRET}:{PERSON}"},
    "tools": {"tools": [function(SECRET), function(PERSON), {"type": f"mcp_{SECRET}"}]},
    "custom-tools": {"tools": [{"type": "custom", "custom": {"name": PERSON}}], "functions": [{"name": SECRET}]},
    "forced-tool": {
        "tools": [function(SECRET)],
        "tool_choice": {"type": "function", "function": {"name": SECRET}},
    },
    "stop": {"stop": [SECRET, PERSON], "seed": 5, "response_format": {"type": PROMPT}},
    "task": {"lukhas": {"task": PERSON, "session": SESSION, "signals": {"stress": 0.7}}},
    "effort": {"reasoning_effort": SECRET, "verbosity": PERSON},
    "wrong-field": {"lukhas": {SECRET: 1}},
    "wrong-signal": {"lukhas": {"signals": {SECRET: 1}}},
}


@pytest.mark.parametrize("fields", [pytest.param(value, id=name) for name, value in BODIES.items()])
@pytest.mark.parametrize("signals", [pytest.param("", id="calm"), pytest.param("alignment_risk=0.9", id="risky")])
def test_what_a_caller_sends_stays_out_of_records_logs_and_metrics(
    gateway: Gateway, fields: dict[str, Any], signals: str
) -> None:
    """A canary in each field there is, and in the headers, is found nowhere afterwards."""
    headers = {
        "X-Lukhas-Session": SESSION,
        "cookie": f"a={SECRET}",
        "user-agent": PERSON,
        "x-forwarded-for": PROMPT,
        "idempotency-key": SECRET,
        **({"X-Lukhas-Signals": signals} if signals else {}),
    }
    with structlog.testing.capture_logs() as logs:
        for stream in (False, True):
            answer = gateway.chat({**fields, "stream": stream}, headers)
            assert answer.status in (200, 400, 403), answer.body
    recorded = gateway.everything_recorded().decode()
    metrics = gateway.http("GET", "/metrics").body.decode()
    for canary in EVERYTHING:
        assert canary not in recorded and canary not in str(logs) and canary not in metrics
    assert ADMIN_KEY not in recorded


def test_what_an_upstream_says_stays_out_of_records(gateway: Gateway) -> None:
    """Its text is not recorded; names it gives (model, reasons, counts) are redacted."""
    answer = {
        "id": SECRET,
        "model": f"m {PERSON}",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": PROMPT}, "finish_reason": SECRET}],
        "usage": {SECRET: 5, "total_tokens": 1, PERSON: 2},
        "system_fingerprint": PROMPT,
    }
    gateway.upstream.reply(json=answer)
    gateway.upstream.reply_events([answer])
    gateway.upstream.reply(json={"error": {"message": PROMPT + SECRET}}, status=400, headers={"x-request-id": PERSON})
    gateway.upstream.reply_raw([b"HTTP/1.1 302 x\r\nlocation: http://" + PROMPT.encode() + b"/x\r\n\r\n"])
    with structlog.testing.capture_logs() as logs:
        statuses = [gateway.chat({"stream": number == 1}).status for number in range(4)]
    assert statuses == [200, 200, 400, 502]
    recorded = gateway.everything_recorded().decode()
    for canary in EVERYTHING:
        assert canary not in recorded and canary not in str(logs)


def test_control_plane_keeps_names_out_of_records(gateway: Gateway) -> None:
    """Emissions are recorded under `sub_...` ids."""
    body = {"signals": {"alignment_risk": 0.9}, "session": SESSION, "user": PERSON}
    answer = gateway.http("POST", "/api/v1/signals", body)
    assert answer.status == 200
    gateway.http("GET", f"/api/v1/signals?session={SESSION}&user={PERSON}")
    recorded = gateway.everything_recorded().decode()
    assert SESSION not in recorded and PERSON not in recorded
    assert gateway.document(answer.json["audit_id"])["session"].startswith("sub_")


def test_what_breaks_inside_is_logged_without_what_was_sent(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log names the error; the prompt that met it is not in the event."""

    def fail(*unused: object, **also: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(gateway.runtime.pipeline._governor, "govern", fail)
    with structlog.testing.capture_logs() as logs:
        answer = gateway.chat(BODIES["messages"])
    assert answer.status == 500 and [entry["event"] for entry in logs] == ["request_failed"]
    assert PROMPT not in str({name: value for name, value in logs[0].items() if name != "exc_info"})


def test_written_logs_hold_no_local_variables(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """A traceback in the log, in either format, shows code and not the prompt that stood in a variable."""
    import logging

    from lukhas.cli.log import configure_logging
    from lukhas.settings import Settings

    before = logging.getLogger().handlers, logging.getLogger().level, structlog.get_config()
    try:
        for form in ("json", "console"):
            configure_logging(Settings(log_format=form))
            log = structlog.get_logger("of-a-test")
            try:
                secret_local = PROMPT
                raise RuntimeError(f"broken {len(secret_local)}")
            except RuntimeError:
                log.exception("request_failed")
        written = capfd.readouterr().err
    finally:
        logging.getLogger().handlers, level, config = before
        logging.getLogger().setLevel(level)
        structlog.configure(**config)
    assert written.count("request_failed") == 2 and "RuntimeError" in written
    assert PROMPT not in written
