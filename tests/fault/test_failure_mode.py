"""What docs/reference/failure-modes.md promises of the upstream, the moderation API, the databases and the clock.

One gateway goes through every fault in turn, and has to serve again by itself after each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from live_gateway import ModerationServer, locked, metric, moved_away, ready, start_gateway, wait_until

from lukhas.testing import DEFAULT_EVENTS, FakeUpstream, FrozenClock

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n"


class Scene:
    """A gateway with everything it depends on within reach of a test."""

    def __init__(self, gateway: Any, moderation: ModerationServer, clock: FrozenClock) -> None:
        self.gateway, self.moderation, self.clock = gateway, moderation, clock

    def outcome(self, answer: Any) -> dict[str, Any]:
        return self.gateway.wait_for(answer.headers["x-lukhas-audit-id"])

    def is_well(self) -> bool:
        return ready(self.gateway)[1] == "ok" and self.gateway.chat().status == 200


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    moderation, clock = ModerationServer(), FrozenClock()
    with FakeUpstream() as upstream, pytest.MonkeyPatch.context() as patch:
        patch.setattr("lukhas.gateway.runtime.MODERATOR_EVERY_S", 0.1)
        options = {
            "moderation_url": moderation.base_url,
            "moderation_timeout_s": 0.3,
            "writer_deadline_s": 0.5,
            "upstream_read_timeout_s": 0.4,
            "upstream_max_retries": 0,
        }
        gateway = start_gateway(tmp_path_factory.mktemp("faults") / "data", upstream, options, clock=clock)
        yield Scene(gateway, moderation, clock)
        gateway.stop()
    moderation.stop()


@pytest.fixture
def scene(made: Scene) -> Iterator[Scene]:
    """The one gateway; after each fault it has to be well by itself, with no call left open."""
    made.gateway.upstream.requests.clear()
    yield made
    wait_until(made.is_well)
    assert metric(made.gateway, "lukhas_calls_in_flight") == 0


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        pytest.param({"parts": []}, 502, "upstream_broken", id="closes"),
        pytest.param({"parts": [], "ending": "reset"}, 502, "upstream_broken", id="resets"),
        pytest.param({"parts": [b"garbage\r\n\r\n"]}, 502, "upstream_broken", id="garbage"),
        pytest.param({"parts": [PLAIN + b"{"]}, 502, "upstream_broken", id="cut-off"),
        pytest.param({"parts": [], "ending": "stall"}, 504, "upstream_timeout", id="hangs"),
        pytest.param({"parts": [PLAIN + b"{"], "ending": "stall"}, 504, "upstream_timeout", id="hangs-inside"),
    ],
)
def test_upstream_fault_is_told_once_and_the_next_call_is_answered(
    scene: Scene, script: dict[str, Any], status: int, code: str
) -> None:
    """The model may have worked: no second attempt, no word to try again, an outcome that says why."""
    before = metric(scene.gateway, 'lukhas_calls_total{result="failed"}')
    scene.gateway.upstream.reply_raw(**script)
    answer = scene.gateway.chat()
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.headers["x-should-retry"] == "false"
    assert (scene.outcome(answer)["status"], scene.outcome(answer)["error"]) == ("failed", code)
    assert metric(scene.gateway, 'lukhas_calls_total{result="failed"}') == before + 1
    assert len(scene.gateway.upstream.requests) == 1


def test_upstream_error_status_comes_through(scene: Scene) -> None:
    """What the upstream refuses is its own word, on record as such."""
    scene.gateway.upstream.reply(status=500, json={"error": {"message": "m", "type": "t", "param": None, "code": "c"}})
    answer = scene.gateway.chat()
    assert (answer.status, answer.error["code"]) == (500, "c")
    assert scene.outcome(answer)["status"] == "upstream_error"


@pytest.mark.parametrize("mode", ["down", "hang", "garbage", "error"])
def test_moderation_api_that_fails_stops_calls_before_the_upstream(scene: Scene, mode: str) -> None:
    """503, nothing sent, on record, not ready; it is asked again without any caller, and then all is well."""
    failures = metric(scene.gateway, 'lukhas_moderation_failures_total{point="input"}')
    if mode == "down":
        scene.moderation.stop()
    scene.moderation.mode = mode
    answer = scene.gateway.chat()
    assert (answer.status, answer.error["code"]) == (503, "moderation_unavailable")
    assert answer.headers["x-should-retry"] == "false"
    assert not scene.gateway.upstream.requests
    assert scene.outcome(answer)["error"] == "moderation_unavailable"
    decision = scene.gateway.document(answer.headers["x-lukhas-audit-id"])["decision"]
    assert decision["moderation"]["moderator"] == "failed"
    assert metric(scene.gateway, 'lukhas_moderation_failures_total{point="input"}') == failures + 1
    assert ready(scene.gateway) == (503, "unavailable", {"moderation"})
    scene.moderation.mode = "pass"
    if mode == "down":
        scene.moderation.start()
    wait_until(lambda: ready(scene.gateway) == (200, "ok", set()))


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_moderation_api_that_fails_at_the_answer_releases_nothing_unread(scene: Scene, stream: bool) -> None:
    """The model's words are here, nobody has judged them, so nobody gets them."""
    if stream:
        scene.gateway.upstream.reply_events(DEFAULT_EVENTS, delay_ms=200)
    else:
        scene.gateway.upstream.reply(delay_ms=200)
    answered = scene.moderation.answered
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(scene.gateway.chat, {"stream": stream})
        wait_until(lambda: scene.moderation.answered > answered)
        scene.moderation.mode = "error"
        answer = call.result()
    scene.moderation.mode = "pass"
    assert b"Hello" not in answer.body and b"moderation_unavailable" in answer.body
    assert b"[DONE]" not in answer.body
    assert answer.status == (200 if stream else 503)
    assert scene.outcome(answer)["error"] == "moderation_unavailable"


def test_moderation_api_that_flags_the_input_denies_the_call(scene: Scene) -> None:
    """403 with the incident's id; the incident is stored, counted, and has tightened the session."""
    scene.moderation.mode, scene.moderation.only = "flag", "heron"
    answer = scene.gateway.chat(headers={"x-lukhas-session": "flagged-input"})
    scene.moderation.mode = "pass"
    assert (answer.status, answer.error["code"]) == (403, "moderation_denied")
    assert answer.headers["x-should-retry"] == "false" and not scene.gateway.upstream.requests
    incident = scene.gateway.http("GET", f"/api/v1/incidents/{answer.headers['x-lukhas-incidents']}").json
    assert (incident["point"], incident["category"], incident["action"]) == ("input", "moderator", "block")
    assert _risk(scene, "flagged-input") > 0
    assert ready(scene.gateway)[1] == "ok"


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_moderation_api_that_flags_the_answer_withholds_it(scene: Scene, stream: bool) -> None:
    """200 with a refusal in the dialect's own form, and an incident."""
    scene.moderation.mode, scene.moderation.only = "flag", "Hello"
    answer = scene.gateway.chat({"stream": stream}, {"x-lukhas-session": f"flagged-output-{stream}"})
    scene.moderation.mode = "pass"
    assert answer.status == 200 and b"content_filter" in answer.body and b"Hello" not in answer.body
    assert scene.outcome(answer)["status"] == "blocked"
    assert len(scene.outcome(answer)["incidents"]) == 1
    assert _risk(scene, f"flagged-output-{stream}") > 0


def test_database_locked_by_another_process_refuses_calls_in_time(scene: Scene) -> None:
    """503 within the writer's deadline, said in readiness while it lasts; the records that waited come about."""
    with locked(scene.gateway.runtime.database.path):
        began = time.monotonic()
        answer = scene.gateway.chat()
        took_s = time.monotonic() - began
        assert (answer.status, answer.error["code"]) == (503, "storage_unavailable")
        assert answer.headers["x-should-retry"] == "false"
        assert took_s < 2
        wait_until(lambda: ready(scene.gateway)[:2] == (503, "unavailable"))
    assert scene.outcome(answer)["status"] in ("failed", "withheld")


def test_database_that_is_gone_refuses_calls_until_it_is_back(scene: Scene) -> None:
    """A file that was taken away is not written to, and no empty one takes its place."""
    path = scene.gateway.runtime.database.path
    known = scene.gateway.chat().headers["x-lukhas-audit-id"]
    with moved_away(path):
        answer = scene.gateway.chat()
        assert (answer.status, answer.error["code"]) == (503, "storage_unavailable")
        assert ready(scene.gateway)[0] == 503 and "database" in ready(scene.gateway)[2]
        assert not path.exists()
        assert scene.gateway.http("GET", f"/api/v1/audit/{known}").status == 503
    wait_until(scene.is_well)
    assert scene.gateway.http("GET", f"/api/v1/audit/{known}").status == 200


def test_vault_that_is_gone_stops_calls_of_new_subjects_only(scene: Scene) -> None:
    """Who is known, and who names nobody, is served; readiness says that something is missing."""
    assert scene.gateway.chat({"user": "known"}).status == 200
    with moved_away(scene.gateway.runtime.database.path.with_name("vault.db")):
        answer = scene.gateway.chat({"user": "new"})
        assert (answer.status, answer.error["code"]) == (503, "storage_unavailable")
        assert answer.headers["x-should-retry"] == "false"
        assert scene.gateway.chat({"user": "known"}).status == 200
        assert scene.gateway.chat().status == 200
        assert ready(scene.gateway) == (503, "unavailable", {"vault"})
    wait_until(lambda: scene.gateway.chat({"user": "new"}).status == 200)


def test_clock_that_steps_back_lengthens_what_is_tightened(scene: Scene) -> None:
    """A violation holds at least as long as it should; nothing that was raised is lost."""
    scene.moderation.mode, scene.moderation.only = "flag", "heron"
    scene.gateway.chat(headers={"x-lukhas-session": "back"})
    scene.moderation.mode = "pass"
    raised = _risk(scene, "back")
    scene.clock.step_back(3_600_000)
    try:
        assert _risk(scene, "back") == raised
        assert scene.gateway.chat().status == 200
    finally:
        scene.clock.advance(3_600_000)
    assert _risk(scene, "back") == raised


def test_clock_that_jumps_ahead_ends_what_is_tightened_and_keys(scene: Scene) -> None:
    """Signals and keys end by the wall clock: what a jump passes over is over."""
    scene.moderation.mode, scene.moderation.only = "flag", "heron"
    scene.gateway.chat(headers={"x-lukhas-session": "ahead"})
    scene.moderation.mode = "pass"
    key = scene.gateway.key(expires_ms=scene.clock.now_ms() + 60_000)
    assert scene.gateway.chat(key=key).status == 200
    scene.clock.advance(7 * 86_400_000)
    assert _risk(scene, "ahead") == 0
    assert scene.gateway.chat(key=key).error["code"] == "invalid_api_key"
    assert scene.gateway.chat().status == 200


def test_clock_that_steps_back_gives_no_second_budget(scene: Scene) -> None:
    """What was used stays used: a day or a minute does not begin anew because the clock says so."""
    key = scene.gateway.key()
    key_id = scene.gateway.runtime.keys.ring.authenticate(key, scene.clock.now_ms()).key_id
    limits = {"limits": {"requests_per_minute": 2, "requests_per_day": 3}, "reason": "a test"}
    path = f"/api/v1/limits/keys/{key_id}"
    assert scene.gateway.http("PUT", path, limits, {"if-match": "*"}).status == 200
    assert [scene.gateway.chat(key=key).status for _ in range(3)] == [200, 200, 429]
    scene.clock.step_back(7_200_000)
    assert scene.gateway.chat(key=key).status == 429
    scene.clock.advance(7_200_000 + 61_000)
    assert [scene.gateway.chat(key=key).status for _ in range(2)] == [200, 429]


def test_limits_that_cannot_be_read_keep_the_last_good_ones(scene: Scene) -> None:
    """A row that is no limit changes nothing but the state, which says so until it is mended."""
    runtime = scene.gateway.runtime
    key = scene.gateway.key()
    key_id = runtime.keys.ring.authenticate(key, scene.clock.now_ms()).key_id
    limits = {"limits": {"requests_per_minute": 1}, "reason": "a test"}
    assert scene.gateway.http("PUT", f"/api/v1/limits/keys/{key_id}", limits, {"if-match": "*"}).status == 200
    bump = "UPDATE revision SET number = number + 1 WHERE topic = 'limits'"
    _run(runtime, "INSERT INTO limit_rule (holder, document, changed_ms) VALUES ('tenant:x', '{', 1)", bump)
    try:
        wait_until(lambda: ready(scene.gateway) == (200, "degraded", {"limits"}))
        assert [scene.gateway.chat(key=key).status for _ in range(2)] == [200, 429]
    finally:
        _run(runtime, "DELETE FROM limit_rule WHERE holder = 'tenant:x'", bump)


def _risk(scene: Scene, session: str) -> float:
    found = scene.gateway.http("GET", f"/api/v1/signals?session={session}").json
    return found["levels"].get("alignment_risk", {"level": 0})["level"]


def _run(runtime: Any, *statements: str) -> None:
    def work(connection: Any, payloads: Any) -> list[None]:
        for statement in statements:
            connection.exec_driver_sql(statement)
        return [None] * len(payloads)

    runtime.writer.submit_sync(work, None, 10.0)


@pytest.fixture
def lenient(tmp_path: Path) -> Iterator[Scene]:
    moderation, clock = ModerationServer(), FrozenClock()
    with FakeUpstream() as upstream:
        options = {"moderation_url": moderation.base_url, "moderation_required": False, "moderation_timeout_s": 0.3}
        gateway = start_gateway(tmp_path / "data", upstream, options, clock=clock)
        yield Scene(gateway, moderation, clock)
        gateway.stop()
    moderation.stop()


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_moderation_api_that_is_not_required_may_fail_on_record(lenient: Scene, stream: bool) -> None:
    """Calls pass by the rules alone, both records say so, and the gateway is ready but degraded."""
    lenient.moderation.mode = "error"
    answer = lenient.gateway.chat({"stream": stream})
    assert answer.status == 200 and b"Hello" in answer.body
    document = lenient.gateway.document(answer.headers["x-lukhas-audit-id"])
    assert document["decision"]["moderation"]["moderator"] == "failed"
    assert document["outcome"]["moderation"]["moderator"] == "failed"
    assert ready(lenient.gateway) == (200, "degraded", {"moderation"})
