"""A candidate policy decides beside the one in force: recorded, counted, never applied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Gateway, Serve, wait_until

from lukhas.modulation.policy import policy_id
from lukhas.modulation.policy_reader import read_packaged_text

PACKAGED = read_packaged_text()
CANDIDATE = (
    PACKAGED.replace("max(0.1, 0.7 - 0.6 * x)", "0.1")
    .replace("stress > 0.7", "stress > 0.5")
    .replace('"[retrieval] if x > 0.5 else current"', '"[retrieval] if x > 0.2 else current"')
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "candidate.yaml"
    path.write_text(CANDIDATE, "utf-8")
    return path


def decide(gateway: Gateway, signals: str) -> dict[str, Any]:
    answer = gateway.chat(None, {"x-lukhas-signals": signals})
    assert answer.status == 200
    return gateway.document(answer.headers["x-lukhas-audit-id"])["decision"]


def counts(gateway: Gateway) -> dict[str, float]:
    values = gateway.runtime.metrics.shadow_decisions.values
    return {labels[0]: number for labels, number in values.items()}


def test_shadow_policy_differences_are_recorded_and_not_applied(serve: Serve, file: Path) -> None:
    """The record has what the candidate would have changed; the call and its headers are those of the one in force."""
    gateway = serve(shadow_policy=file)
    record = decide(gateway, "stress=0.6, urgency=0.3")
    assert record["policy"] == policy_id(PACKAGED)
    assert record["shadow"] == {
        "policy": policy_id(CANDIDATE),
        "parameters": {"temperature": 0.1},
        "tools": ["retrieval"],
        "style": "focused",
    }
    assert gateway.sent()["temperature"] == pytest.approx(0.34)
    assert record["parameters"]["temperature"] == pytest.approx(0.34) and record["style"] == "balanced"
    assert counts(gateway) == {"different": 1}


def test_shadow_policy_that_agrees_leaves_nothing(serve: Serve, file: Path) -> None:
    """Where both decide the same the record is as ever, and the count says so."""
    gateway = serve(shadow_policy=file)
    assert "shadow" not in decide(gateway, "novelty=0.9")
    assert counts(gateway) == {"same": 1}
    text = gateway.http("GET", "/metrics", key=None).body.decode()
    assert 'lukhas_shadow_decisions_total{result="same"} 1.0' in text


def test_shadow_policy_unset_costs_nothing(gateway: Gateway) -> None:
    """Without the setting nothing is compared."""
    assert "shadow" not in decide(gateway, "stress=0.6")
    assert counts(gateway) == {}
    assert gateway.http("GET", "/api/v1/policy").json["shadow"] is None


def test_shadow_policy_text_is_stored_as_a_revision(serve: Serve, file: Path) -> None:
    """What a record names can be read; it never was in force."""
    gateway = serve(shadow_policy=file)
    found = gateway.http("GET", f"/api/v1/policy/revisions/{policy_id(CANDIDATE)}").json
    assert found["text"] == CANDIDATE and not found["in_force"]
    assert [event["event"] for event in found["events"]] == ["shadow"]
    body = {"revision": policy_id(CANDIDATE), "reason": "r"}
    assert gateway.http("POST", "/api/v1/policy/rollback", body).status == 409
    gateway.stop()
    gateway = serve(shadow_policy=file)
    assert gateway.http("GET", "/api/v1/policy").json["policy"] == policy_id(PACKAGED)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="missing"),
        pytest.param("version: [", id="no-yaml"),
        pytest.param("version: 1\n", id="incomplete"),
    ],
)
def test_shadow_policy_that_does_not_load_is_reported_and_serving_goes_on(
    serve: Serve, tmp_path: Path, text: str | None
) -> None:
    """Readiness says why; mending the file lets the candidate decide."""
    path = tmp_path / "candidate.yaml"
    if text is not None:
        path.write_text(text, "utf-8")
    gateway = serve(shadow_policy=path)
    ready = gateway.http("GET", "/readyz", key=None)
    assert ready.status == 200 and ready.json["status"] == "degraded"
    assert ready.json["checks"]["shadow_policy"]["problem"]
    assert "shadow" not in decide(gateway, "stress=0.6")
    path.write_text(CANDIDATE, "utf-8")
    wait_until(lambda: gateway.http("GET", "/readyz", key=None).json["status"] == "ok")
    wait_until(lambda: gateway.runtime.shadow.policy is not None)
    assert decide(gateway, "stress=0.6")["shadow"]["policy"] == policy_id(CANDIDATE)


def test_shadow_policy_with_other_signals_and_parameters_decides_by_its_own(serve: Serve, tmp_path: Path) -> None:
    """Signals that it does not declare are left out, parameters of one side alone are differences."""
    path = tmp_path / "candidate.yaml"
    lines = [line for line in PACKAGED.splitlines() if not line.startswith(("  trust:", "  presence_penalty:"))]
    text = "\n".join(lines)
    start = text.index("    temperature: min(1, 0.5 + 0.4 * x)")
    end = text.index("styles:")
    path.write_text(text[:start] + text[end:], "utf-8")
    gateway = serve(shadow_policy=path)
    assert gateway.http("GET", "/readyz", key=None).json["status"] == "ok"
    shadow = decide(gateway, "trust=0.9")["shadow"]
    assert shadow["parameters"]["temperature"] == 0.6 and shadow["parameters"]["presence_penalty"] is None
    assert "failed" not in counts(gateway)


def test_shadow_policy_failure_never_hurts_the_call(serve: Serve, file: Path) -> None:
    """Whatever goes wrong in the candidate is counted, and the call is answered."""
    gateway = serve(shadow_policy=file)

    class Broken:
        policy = gateway.runtime.shadow.policy

        def decide(self, *unused: Any, **more: Any) -> Any:
            raise ZeroDivisionError

    gateway.runtime.shadow._dispatcher = Broken()  # pyright: ignore[reportAttributeAccessIssue]
    record = decide(gateway, "stress=0.6")
    assert record["shadow"] == {"policy": policy_id(CANDIDATE), "failed": "ZeroDivisionError"}
    assert counts(gateway) == {"failed": 1}
