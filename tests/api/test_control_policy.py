"""`/api/v1/policy`: read, replace, roll back, reload, list and compare; all of a change or nothing of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Gateway, Serve, wait_until

from lukhas.modulation.certificate import Certificate
from lukhas.modulation.policy import policy_id
from lukhas.modulation.policy_reader import read_packaged_text

PACKAGED = read_packaged_text()
PATH = "/api/v1/policy"
STRESS = "max(0.1, 0.7 - 0.6 * x)"


def version(number: int) -> str:
    """Return a policy under which stress sends this temperature, in hundredths."""
    return PACKAGED.replace(STRESS, f"{number / 100}")


def certify(result: Any) -> Callable[..., Certificate]:
    """Return a prover that finds this for every policy but the packaged one, which ships its proof."""

    def prove(text: str, *, source: str, deadline_s: float) -> Certificate:
        from hashlib import sha256

        digest = sha256(text.encode()).hexdigest()
        why = ("the time was over",) if result == "not proved" else ()
        return Certificate(1, policy_id(text), digest, result, (), why, "fake", "1", "2026-01-01T00:00:00Z")

    return prove


def put(gateway: Gateway, text: str, tag: str | None = None, reason: str = "a test", **more: Any) -> Answer:
    """Replace the policy in force, or the one that the tag names."""
    tag = gateway.http("GET", PATH).headers["etag"] if tag is None else tag
    headers = {"if-match": tag} if tag else {}
    return gateway.http("PUT", PATH, {"text": text, "reason": reason}, headers, **more)


def temperature(gateway: Gateway) -> float:
    assert gateway.chat(None, {"X-Lukhas-Signals": "stress=0.7"}).status == 200
    return gateway.sent()["temperature"]


def test_policy_replaced_takes_effect_with_its_record(serve: Serve) -> None:
    """The answer names it, the next call is decided by it, and who and why are on record before that."""
    gateway = serve()
    before = gateway.http("GET", PATH)
    answer = put(gateway, version(42), reason="Calmer during the outage.")
    assert answer.status == 200, answer.body
    found = answer.json
    assert found["changed"] and found["policy"] == policy_id(version(42))
    assert answer.headers["etag"] == f'"{found["policy"]}"' != before.headers["etag"]
    assert temperature(gateway) == 0.42
    status = gateway.http("GET", PATH).json
    assert status["text"] == version(42) and status["event"]["why"] == "Calmer during the outage."
    assert status["event"]["who"].startswith("key_") and status["event"]["before"] == before.json["policy"]
    recorded = gateway.everything_recorded()
    assert b"Calmer during the outage." in recorded and f'"before":"{before.json["policy"]}"'.encode() in recorded


def test_policy_survives_a_restart_and_wins_over_the_file(serve: Serve, tmp_path: Path) -> None:
    """What the API set stays in force over restarts, until the file's content changes."""
    file = tmp_path / "policy.yaml"
    file.write_text(version(10), "utf-8")
    gateway = serve(policy=file)
    assert put(gateway, version(20)).status == 200
    gateway.stop()
    gateway = serve(policy=file)
    assert temperature(gateway) == 0.2
    status = gateway.http("GET", PATH).json
    assert status["problem"] is None
    assert status["file"] == {"path": str(file), "policy": policy_id(version(10)), "in_force": False}
    file.touch()  # the same content, written again, is no change
    gateway.stop()
    file.write_text(version(30), "utf-8")
    gateway = serve(policy=file)
    assert temperature(gateway) == 0.3
    assert [event["why"] for event in _events(gateway, version(30))] == [
        "The file had changed when the gateway started."
    ]


def test_policy_file_with_the_content_that_it_had_changes_nothing(serve: Serve, tmp_path: Path) -> None:
    """A deployment that writes the same file again does not undo what was set by the API."""
    file = tmp_path / "policy.yaml"
    file.write_text(version(10), "utf-8")
    gateway = serve(policy=file)
    put(gateway, version(20))
    file.write_text(version(10), "utf-8")
    assert _settled(gateway) == policy_id(version(20))


def test_policy_without_change_stores_no_event(serve: Serve) -> None:
    """Putting what is in force is answered, and is no event."""
    gateway = serve()
    put(gateway, version(20))
    answer = put(gateway, version(20))
    assert answer.status == 200 and not answer.json["changed"]
    assert len(_events(gateway, version(20))) == 1


@pytest.mark.parametrize(
    ("tag", "status", "code"),
    [
        pytest.param("", 428, "precondition_required", id="missing"),
        pytest.param('"pol_00000000000000000000000000"', 412, "precondition_failed", id="another"),
        pytest.param("pol_7", 400, "invalid_request", id="no-quotes"),
        pytest.param('W/"pol_7"', 400, "invalid_request", id="weak"),
        pytest.param(",", 400, "invalid_request", id="empty-list"),
    ],
)
def test_policy_change_names_what_it_replaces(gateway: Gateway, tag: str, status: int, code: str) -> None:
    """Without the right If-Match nothing changes."""
    before = gateway.http("GET", PATH).json["policy"]
    answer = put(gateway, version(20), tag)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert gateway.http("GET", PATH).json["policy"] == before


def test_policy_any_tag_or_one_of_several_will_do(serve: Serve) -> None:
    """`*` takes whatever is there; of a list one must match."""
    gateway = serve()
    assert put(gateway, version(20), "*").status == 200
    tag = gateway.http("GET", PATH).headers["etag"]
    assert put(gateway, version(30), f'"pol_x", {tag}').status == 200


def test_policy_read_again_is_not_sent_again(gateway: Gateway) -> None:
    """If-None-Match with the present tag is a 304."""
    tag = gateway.http("GET", PATH).headers["etag"]
    answer = gateway.http("GET", PATH, headers={"if-none-match": tag})
    assert answer.status == 304 and answer.body == b"" and answer.headers["etag"] == tag
    assert gateway.http("GET", PATH, headers={"if-none-match": '"other"'}).status == 200


def test_policy_concurrent_changes_have_one_winner(serve: Serve) -> None:
    """Of many that were decided on the same state, one takes effect, and the rest are told."""
    gateway = serve()
    tag = gateway.http("GET", PATH).headers["etag"]
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(put(gateway, version(n), tag))) for n in range(11, 19)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    won = [answer for answer in answers if answer.status == 200]
    assert len(answers) == 8 and len(won) == 1
    assert {answer.status for answer in answers} == {200, 412}
    assert gateway.http("GET", PATH).json["policy"] == won[0].json["policy"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("version: [", id="no-yaml"),
        pytest.param(PACKAGED[: len(PACKAGED) // 2], id="half"),
        pytest.param(PACKAGED.replace("1 - 0.85 * x", "1 - 0.85 * y"), id="unknown-name"),
        pytest.param(PACKAGED.replace("1 - 0.85 * x", "0.1 + 0.85 * x"), id="guard-that-loosens"),
        pytest.param("x" * 1_100_000, id="too-large"),
        pytest.param(PACKAGED + "\x00", id="null"),
    ],
)
def test_policy_with_mistakes_changes_nothing_and_is_on_record(serve: Serve, text: str) -> None:
    """The answer lists the mistakes; what is in force stays, and readiness is as before."""
    gateway = serve()
    before = gateway.http("GET", PATH).json["policy"]
    answer = put(gateway, text)
    assert (answer.status, answer.json["code"]) == (422, "policy_invalid")
    assert answer.json["errors"][0]["line"] >= 1
    status = gateway.http("GET", PATH).json
    assert status["policy"] == before
    assert status["refused"]["problem"] and status["refused"]["who"].startswith("key_")
    ready = gateway.http("GET", "/readyz", key=None).json
    assert ready["status"] == "ok" and ready["checks"]["policy"]["refused"]["event"] == "refused"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"text": PACKAGED}, id="no-reason"),
        pytest.param({"text": PACKAGED, "reason": "  "}, id="blank-reason"),
        pytest.param({"text": PACKAGED, "reason": "a\x1b"}, id="unprintable-reason"),
        pytest.param({"text": 7, "reason": "r"}, id="text-is-a-number"),
        pytest.param({"text": PACKAGED, "reason": "r", "more": 1}, id="unknown-field"),
        pytest.param([], id="a-list"),
    ],
)
def test_policy_change_needs_a_text_and_a_reason(gateway: Gateway, body: Any) -> None:
    """Anything else is a 400, and nothing changes."""
    assert gateway.http("PUT", PATH, body, {"if-match": "*"}).status == 400


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("PUT", PATH, {"text": "", "reason": "r"}, id="replace"),
        pytest.param("POST", f"{PATH}/rollback", {"revision": "packaged", "reason": "r"}, id="rollback"),
        pytest.param("POST", f"{PATH}/reload", {}, id="reload"),
    ],
)
def test_policy_change_needs_the_admin_scope(gateway: Gateway, method: str, path: str, body: Any) -> None:
    """The scope `policy` reads; it does not put anything in force."""
    key = gateway.key("policy")
    assert gateway.http(method, path, body, {"if-match": "*"}, key=key).status == 403
    assert gateway.http(method, path, body, {"if-match": "*"}, key=None).status == 401
    assert gateway.http("GET", f"{PATH}/revisions", key=key).status == 200
    assert gateway.http("GET", f"{PATH}/revisions", key=gateway.key()).status == 403


def test_policy_rolled_back_by_a_beginning_of_its_id(serve: Serve) -> None:
    """The former policy decides again, and the event says so."""
    gateway = serve()
    first = put(gateway, version(20)).json["policy"]
    put(gateway, version(30))
    answer = gateway.http("POST", f"{PATH}/rollback", {"revision": first[:12], "reason": "It was better."})
    assert answer.status == 200 and answer.json["policy"] == first
    assert answer.json["event"]["event"] == "rolled_back" and answer.json["event"]["why"] == "It was better."
    assert temperature(gateway) == 0.2
    again = gateway.http("POST", f"{PATH}/rollback", {"revision": first, "reason": "Once more."})
    assert again.status == 200 and not again.json["changed"]
    packaged = gateway.http("POST", f"{PATH}/rollback", {"revision": "packaged", "reason": "Back to the start."})
    assert packaged.json["policy"] == policy_id(PACKAGED)


@pytest.mark.parametrize(
    ("revision", "status"),
    [
        pytest.param("pol_7ZZZZZZZ", 404, id="unknown"),
        pytest.param("", 400, id="empty"),
        pytest.param("pol_%", 400, id="wildcard"),
        pytest.param("../../etc/passwd", 400, id="a-path"),
    ],
)
def test_policy_rollback_to_nothing_is_refused(serve: Serve, revision: str, status: int) -> None:
    """A name that no revision has changes nothing."""
    gateway = serve()
    answer = gateway.http("POST", f"{PATH}/rollback", {"revision": revision, "reason": "r"})
    assert answer.status == status
    stale = gateway.http("POST", f"{PATH}/rollback", {"revision": "packaged", "reason": "r"}, {"if-match": '"pol_1"'})
    assert stale.status == 412


def test_policy_that_was_refused_cannot_be_rolled_back_to(serve: Serve) -> None:
    """Only what was in force once can come back."""
    gateway = serve(policy_proof_timeout_s=5.0, overrides={"prove": certify("refuted")})
    refused = put(gateway, version(20))
    assert (refused.status, refused.json["code"]) == (422, "policy_invalid")
    answer = gateway.http("POST", f"{PATH}/rollback", {"revision": policy_id(version(20)), "reason": "r"})
    assert answer.status == 409


def test_policy_reload_lets_the_file_win_again(serve: Serve, tmp_path: Path) -> None:
    """Asked for, the file takes effect though it has not changed; a broken one does not."""
    file = tmp_path / "policy.yaml"
    file.write_text(version(10), "utf-8")
    gateway = serve(policy=file)
    put(gateway, version(20))
    answer = gateway.http("POST", f"{PATH}/reload", {"reason": "The file is right."})
    assert answer.status == 200 and answer.json["changed"] and temperature(gateway) == 0.1
    assert not gateway.http("POST", f"{PATH}/reload").json["changed"]
    file.unlink()
    gone = gateway.http("POST", f"{PATH}/reload", {})
    assert gone.status == 422 and temperature(gateway) == 0.1


def test_policy_revisions_are_listed_in_pages(serve: Serve) -> None:
    """Every revision once, the newest first, with its newest event."""
    gateway = serve()
    for number in (20, 30, 40):
        put(gateway, version(number))
    seen: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = gateway.http("GET", f"{PATH}/revisions?limit=3{cursor}").json
        seen += page["revisions"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    texts = [PACKAGED, *(version(number) for number in (20, 30, 40))]
    assert sorted(one["policy"] for one in seen) == sorted(map(policy_id, texts))
    assert [one["policy"] for one in seen if one["in_force"]] == [policy_id(version(40))]
    assert all(one["event"]["who"] for one in seen)
    for query in ("limit=0", "limit=101", "limit=x", "cursor=x", "cursor=1", "cursor=%00.a"):
        assert gateway.http("GET", f"{PATH}/revisions?{query}").status == 400


def test_policy_revision_is_read_with_text_proof_and_events(serve: Serve) -> None:
    """The packaged one has its certificate; an unknown one is a 404."""
    gateway = serve(policy_proof_timeout_s=5.0, overrides={"prove": certify("proved")})
    put(gateway, version(20))
    found = gateway.http("GET", f"{PATH}/revisions/{policy_id(version(20))}").json
    assert found["text"] == version(20) and found["in_force"] and found["proof"] == "proved"
    assert found["certificate"]["solver"] == "fake" and found["events"][0]["why"] == "a test"
    assert gateway.http("GET", f"{PATH}/revisions/pol_7ZZZZZZZ").status == 404


def test_policy_diff_is_in_words(serve: Serve) -> None:
    """By id, by 'packaged', and by default against what is in force."""
    gateway = serve()
    put(gateway, version(20))
    found = gateway.http("GET", f"{PATH}/diff?a=packaged").json
    assert any(one["text"].startswith("temperature: for stress 0.20-") for one in found["changes"])
    same = gateway.http("GET", f"{PATH}/diff?a={policy_id(version(20))}&b=current").json
    assert same["same"] and same["changes"] == []
    assert gateway.http("GET", f"{PATH}/diff").status == 400
    assert gateway.http("GET", f"{PATH}/diff?a=pol_7ZZZZZZZ").status == 404


def _events(gateway: Gateway, text: str) -> list[dict[str, Any]]:
    return gateway.http("GET", f"{PATH}/revisions/{policy_id(text)}").json["events"]


def _settled(gateway: Gateway) -> str:
    """Return the policy in force once the watcher has looked at the file's newest state."""
    file = gateway.runtime.succession._file
    wait_until(lambda: file._seen == file._look())
    return gateway.http("GET", PATH).json["policy"]


def test_policy_change_that_cannot_be_recorded_does_not_happen(serve: Serve) -> None:
    """Without a durable event nothing is put in force."""
    gateway = serve()
    gateway.runtime.writer.close(5)
    answer = put(gateway, version(20), "*")
    assert (answer.status, answer.json["code"]) == (503, "storage_unavailable")
    assert gateway.runtime.policies.policy.id == policy_id(PACKAGED)
