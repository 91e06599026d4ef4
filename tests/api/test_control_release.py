"""`/api/v1/signals/release` and `/api/v1/incidents`: who may let whom go, what it leaves on record, what others see."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from conftest import ADMIN_KEY, Answer, Gateway, Serve, wait_until

from lukhas.access.ring import ApiKey
from lukhas.audit.store import AuditRecord
from lukhas.cli.main import app as command_line
from lukhas.gateway.intake import list_subjects
from lukhas.gateway.tightening import tighten
from lukhas.gateway.violation import Violation
from lukhas.ids import make_id

_fresh = count()


@pytest.fixture
def session() -> str:
    return f"release-{next(_fresh)}"


def violate(gateway: Gateway, secret: str, *, session: str | None = None, times: int = 1) -> str:
    """Let a call of a key violate gravely, as the pipeline does; return the last incident's id."""
    runtime = gateway.runtime
    key: ApiKey = runtime.authenticate(secret)

    async def commit() -> str:
        sub = None if session is None else await runtime.vault.resolve(key.tenant, "session", session)
        violation = Violation(make_id("inc"), "input", "injection", "injection.x", "high", "block", details={"n": 1})
        now_ms = runtime.clock.now_ms()
        subjects = list_subjects(sub, None, key)
        raised = tighten(runtime.state, runtime.policies.policy, subjects, [violation], key, now_ms)
        audit_id = make_id("aud")
        rows = runtime.incidents.make_rows([violation], raised, audit_id, key, sub, None)
        body = {"status": "denied"}
        record = AuditRecord("outcome", audit_id, key.tenant, key.key_id, None, now_ms, sub, None, body)
        await runtime.incidents.append(record, rows)
        return violation.incident_id

    return [asyncio.run(commit()) for _ in range(times)][-1]


def release(gateway: Gateway, body: Any, key: str = ADMIN_KEY) -> Answer:
    return gateway.http("POST", "/api/v1/signals/release", body, key=key)


def mode(gateway: Gateway, session: str, key: str = ADMIN_KEY) -> str:
    return gateway.chat(None, {"X-Lukhas-Session": session}, key=key).headers["x-lukhas-safety-mode"]


def test_release_of_a_session_is_on_record_and_counts_at_once(gateway: Gateway, session: str) -> None:
    """Violations and explicit emissions go alike; the record says who, why, and what was dropped."""
    violate(gateway, ADMIN_KEY, session=session)
    gateway.http("POST", "/api/v1/signals", {"signals": {"alignment_risk": 0.9}, "session": session})
    assert mode(gateway, session) == "strict"
    answer = release(gateway, {"session": session, "reason": "false alarm, see ticket; mail ada@example.com"})
    assert answer.status == 200, answer.body
    assert {one["source"].split(":")[0] for one in answer.json["released"]} == {"violation", "api"}
    assert answer.json["levels"] == [{"scope": "session", "signal": "alignment_risk", "level": 0.0}]
    assert mode(gateway, session) == "balanced"
    record = gateway.document(answer.json["audit_id"])["records"][0]
    assert record["kind"] == "signal" and record["session"].startswith("sub_")
    body = record["body"]
    assert body["event"] == "released" and body["count"] == 2 and "[redacted:email]" in body["reason"]
    assert sorted(round(one["emitted_level"], 6) for one in body["released"]) == [0.8, 0.9]
    again = release(gateway, {"session": session, "reason": "once more"})
    assert again.status == 200 and again.json["released"] == [] and again.json["audit_id"] is None


def test_release_by_incident_frees_each_subject_that_it_raised(gateway: Gateway, session: str) -> None:
    """Also the key that it had widened to; the incident says when."""
    secret = gateway.key(tenant="release-widened")
    incident_id = violate(gateway, secret, session=session, times=2)
    assert mode(gateway, "somebody-else", secret) == "strict"
    answer = release(gateway, {"incident": incident_id, "reason": "a mistake of the rule"})
    assert answer.status == 200, answer.body
    assert {one["scope"] for one in answer.json["levels"]} == {"session", "key"}
    assert mode(gateway, "somebody-else", secret) == mode(gateway, session, secret) == "balanced"
    stored = gateway.http("GET", f"/api/v1/incidents/{incident_id}").json
    assert stored["released_ms"] is not None and all(one["released_ms"] for one in stored["raised"])
    record = gateway.document(answer.json["audit_id"])["records"][0]
    assert record["tenant"] == "release-widened" and record["body"]["incident"] == incident_id


def test_release_survives_a_restart(serve: Serve, tmp_path: Path) -> None:
    """What violations raised comes back with the next start; what was released does not."""
    options = {"data_dir": tmp_path / "kept"}
    first = serve(**options)
    violate(first, ADMIN_KEY, session="kept")
    violate(first, ADMIN_KEY, session="freed")
    release(first, {"session": "freed", "reason": "it was us"})
    first.stop()
    second = serve(**options)
    assert mode(second, "kept") == "strict" and mode(second, "freed") == "balanced"


def test_release_at_the_command_line_reaches_a_running_gateway(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`lukhas incident release` counts there within a second, and the incident is shown as released."""
    from typer.testing import CliRunner

    gateway = serve(data_dir=tmp_path / "data")
    incident_id = violate(gateway, ADMIN_KEY, session="by-command")
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    runner = CliRunner()
    shown = runner.invoke(command_line, ["incident", "show", incident_id])
    assert shown.exit_code == 0 and "injection.x" in shown.output
    done = runner.invoke(command_line, ["incident", "release", incident_id, "--reason", "checked by hand"])
    assert done.exit_code == 0 and "On record as aud_" in done.output, done.output
    wait_until(lambda: mode(gateway, "by-command") == "balanced")
    again = runner.invoke(command_line, ["incident", "release", incident_id, "--reason", "once more", "--json"])
    assert again.exit_code == 0 and '"released": []' in again.output
    listed = runner.invoke(command_line, ["incident", "list"])
    assert incident_id in listed.output
    assert runner.invoke(command_line, ["incident", "show", "inc_nothing"]).exit_code == 2
    assert runner.invoke(command_line, ["incident", "release", incident_id, "--reason", " "]).exit_code == 2


@pytest.mark.parametrize(
    ("scopes", "body", "status"),
    [
        pytest.param(["signals"], {"session": "S"}, 403, id="without-the-scope"),
        pytest.param(["signals:release"], {"session": "S"}, 200, id="session"),
        pytest.param(["signals:release"], {"user": "U"}, 200, id="user"),
        pytest.param(["signals:release"], {"scope": "key"}, 200, id="key"),
        pytest.param(["signals:release"], {"scope": "tenant"}, 403, id="tenant"),
        pytest.param(["signals:release", "signals:tenant"], {"scope": "tenant"}, 200, id="tenant-with-scope"),
        pytest.param(["signals:release", "signals:tenant"], {"scope": "everyone"}, 403, id="everyone"),
        pytest.param(["admin"], {"scope": "everyone"}, 200, id="everyone-admin"),
        pytest.param(["admin"], {}, 400, id="nobody"),
        pytest.param(["admin"], {"scope": "session"}, 400, id="session-unnamed"),
        pytest.param(["admin"], {"scope": "galaxy"}, 400, id="no-scope"),
        pytest.param(["admin"], {"session": ""}, 400, id="empty-session"),
        pytest.param(["admin"], {"session": "x" * 257}, 400, id="long-session"),
        pytest.param(["admin"], {"session": "S", "signal": "stress"}, 400, id="a-style"),
        pytest.param(["admin"], {"session": "S", "signal": "nonsense"}, 400, id="unknown-signal"),
        pytest.param(["admin"], {"session": "S", "levels": 1}, 400, id="unknown-field"),
        pytest.param(["admin"], {"session": "S", "reason": ""}, 400, id="empty-reason"),
        pytest.param(["admin"], {"session": "S", "reason": "x" * 501}, 400, id="long-reason"),
        pytest.param(["admin"], {"session": "S", "reason": None}, 400, id="null-reason"),
        pytest.param(["admin"], {"incident": "inc_x"}, 400, id="no-incident-id"),
        pytest.param(["admin"], {"incident": "inc_01M83K4Y0902T8TCAN7K67HX25"}, 404, id="unknown-incident"),
        pytest.param(
            ["admin"], {"incident": "inc_01M83K4Y0902T8TCAN7K67HX25", "session": "S"}, 400, id="incident-and-session"
        ),
    ],
)
def test_release_is_checked(gateway: Gateway, scopes: list[str], body: dict[str, Any], status: int) -> None:
    """Rights and shape; a refusal says which."""
    answer = release(gateway, {"reason": "because", **body}, gateway.key(*scopes, tenant="release-checked"))
    assert answer.status == status, answer.body


def test_release_without_a_reason_is_refused(gateway: Gateway, session: str) -> None:
    """Nothing is relaxed silently."""
    violate(gateway, ADMIN_KEY, session=session)
    assert release(gateway, {"session": session}).status == 400
    assert mode(gateway, session) == "strict"


def test_incidents_of_another_tenant_do_not_exist(gateway: Gateway, session: str) -> None:
    """Neither listed, nor read, nor released; an admin key sees all."""
    theirs = violate(gateway, gateway.key(tenant="release-theirs"), session=session)
    ours = violate(gateway, gateway.key(tenant="release-ours"), session=session)
    key = gateway.key("audit", "signals:release", tenant="release-ours")
    listed = gateway.http("GET", "/api/v1/incidents", key=key).json
    assert [one["incident_id"] for one in listed["incidents"]] == [ours] and listed["next"] is None
    assert gateway.http("GET", f"/api/v1/incidents/{theirs}", key=key).status == 404
    assert release(gateway, {"incident": theirs, "reason": "not mine"}, key).status == 404
    release(gateway, {"session": session, "reason": "ours only"}, key)
    assert mode(gateway, session, gateway.key(tenant="release-theirs")) == "strict"
    everything = gateway.http("GET", "/api/v1/incidents").json["incidents"]
    assert {theirs, ours} <= {one["incident_id"] for one in everything}


def test_incident_that_raised_its_tenant_needs_the_tenants_scope(gateway: Gateway) -> None:
    """Who may not emit for the tenant may not release it either."""
    incident_id = violate(gateway, gateway.key(tenant="release-wide"), times=2)
    body = {"incident": incident_id, "reason": "because"}
    assert release(gateway, body, gateway.key("signals:release", tenant="release-wide")).status == 403
    both = gateway.key("signals:release", "signals:tenant", tenant="release-wide")
    assert release(gateway, body, both).status == 200


def test_incidents_are_listed_in_pages(gateway: Gateway, session: str) -> None:
    """Newest first; the cursor goes on where the page ended."""
    secret = gateway.key("audit", tenant=f"paged-{session}")
    ids = [violate(gateway, secret, session=session) for _ in range(3)]
    first = gateway.http("GET", "/api/v1/incidents?limit=2", key=secret).json
    rest = gateway.http("GET", f"/api/v1/incidents?cursor={first['next']}", key=secret).json
    found = [one["incident_id"] for one in [*first["incidents"], *rest["incidents"]]]
    assert found == ids[::-1] and rest["next"] is None
    assert first["incidents"][0]["details"] == {"n": 1} and first["incidents"][0]["severity"] == "high"
    none = gateway.http("GET", "/api/v1/incidents?category=tool", key=secret).json
    assert none == {"incidents": [], "next": None}


@pytest.mark.parametrize(
    ("path", "scopes", "status"),
    [
        pytest.param("", [], 403, id="list-without-scope"),
        pytest.param("", ["signals:release"], 200, id="list-to-release"),
        pytest.param("?limit=0", ["audit"], 400, id="no-limit"),
        pytest.param("?limit=501", ["audit"], 400, id="past-the-limit"),
        pytest.param("?cursor=nonsense", ["audit"], 400, id="cursor"),
        pytest.param("?cursor=1.inc_x", ["audit"], 400, id="cursor-id"),
        pytest.param("?since_ms=-1", ["audit"], 400, id="since"),
        pytest.param("?since_ms=99999999999999999999", ["audit"], 400, id="huge-since"),
        pytest.param("?tool=%00", ["audit"], 200, id="null-character"),
        pytest.param("/inc_x", ["audit"], 400, id="no-id"),
        pytest.param("/inc_01M83K4Y0902T8TCAN7K67HX25", [], 403, id="read-without-scope"),
    ],
)
def test_incident_queries_are_checked(gateway: Gateway, path: str, scopes: list[str], status: int) -> None:
    """Rights and shape of what is asked."""
    answer = gateway.http("GET", f"/api/v1/incidents{path}", key=gateway.key(*scopes, tenant="queries"))
    assert answer.status == status, answer.body
