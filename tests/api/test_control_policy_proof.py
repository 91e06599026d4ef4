"""A new policy is proved before it takes effect: what is refuted never does, what is not proved says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Gateway, Serve, wait_until
from typer.testing import CliRunner

from lukhas.cli.main import app
from lukhas.errors import PolicyError, SettingsError
from lukhas.modulation.certificate import Certificate, Statement, packaged_certificate
from lukhas.modulation.policy import policy_id
from lukhas.modulation.policy_reader import read_packaged_text
from lukhas.settings import load_settings

PACKAGED = read_packaged_text()
PATH = "/api/v1/policy"
STRESS = "max(0.1, 0.7 - 0.6 * x)"


def version(number: int) -> str:
    return PACKAGED.replace(STRESS, f"{number / 100}")


class FakeProver:
    """Finds what a test says, and counts how often it is asked."""

    def __init__(self, result: Any = "proved") -> None:
        self.result = result
        self.asked: list[str] = []
        self.gate: threading.Event | None = None

    def __call__(self, text: str, *, source: str, deadline_s: float) -> Certificate:
        self.asked.append(policy_id(text))
        if self.gate is not None:
            assert self.gate.wait(20)
        digest = sha256(text.encode()).hexdigest()
        statements = (Statement("tighten:a:b", "a only tightens b", self.result),)
        why = ("the solver's time was over",) if self.result == "not proved" else ()
        return Certificate(
            1, policy_id(text), digest, self.result, statements, why, "fake", "1", "2026-01-01T00:00:00Z"
        )


@pytest.fixture
def prover() -> FakeProver:
    return FakeProver()


@pytest.fixture
def prove(serve: Serve, prover: FakeProver) -> Callable[..., Gateway]:
    """Start gateways that prove with the fake."""

    def start(**options: Any) -> Gateway:
        return serve(overrides={"prove": prover}, policy_proof_timeout_s=30.0, **options)

    return start


def put(gateway: Gateway, text: str) -> Answer:
    return gateway.http("PUT", PATH, {"text": text, "reason": "a test"}, {"if-match": "*"})


def decision(gateway: Gateway) -> dict[str, Any]:
    return gateway.document(gateway.chat().headers["x-lukhas-audit-id"])["decision"]


def test_proof_packaged_policy_needs_no_solver(prove: Callable[..., Gateway], prover: FakeProver) -> None:
    """Its certificate ships with it, and stands in each decision, even where proofs are required."""
    gateway = prove(policy_require_proof=True)
    assert prover.asked == []
    assert gateway.http("GET", PATH).json["proof"] == "proved"
    assert decision(gateway)["certificate"] == packaged_certificate().hash


def test_proof_certificate_stands_in_each_decision(prove: Callable[..., Gateway]) -> None:
    """Decision, status and stored certificate have the same hash."""
    gateway = prove()
    answer = put(gateway, version(20))
    assert answer.json["proof"] == "proved"
    found = gateway.runtime.revisions.find_certificate(policy_id(version(20)))
    assert found is not None
    assert decision(gateway)["certificate"] == found.hash == answer.json["certificate"]


def test_proof_is_made_once_and_reused(prove: Callable[..., Gateway], prover: FakeProver, tmp_path: Path) -> None:
    """A restart, a rollback and the way back need no solver."""
    file = tmp_path / "policy.yaml"
    file.write_text(version(10), "utf-8")
    gateway = prove(policy=file)
    put(gateway, version(20))
    gateway.http("POST", f"{PATH}/rollback", {"revision": policy_id(version(10)), "reason": "r"})
    put(gateway, version(20))
    gateway.stop()
    gateway = prove(policy=file, policy_require_proof=True)
    assert gateway.http("GET", PATH).json["policy"] == policy_id(version(20))
    assert prover.asked == [policy_id(version(10)), policy_id(version(20))]


def test_proof_refuted_policy_never_takes_effect(prove: Callable[..., Gateway], prover: FakeProver) -> None:
    """Neither by the API nor by anything else; the certificate that refutes it is kept."""
    gateway = prove()
    prover.result = "refuted"
    answer = put(gateway, version(20))
    assert answer.status == 422 and "a only tightens b" in answer.json["detail"]
    assert gateway.http("GET", PATH).json["policy"] == policy_id(PACKAGED)
    found = gateway.http("GET", f"{PATH}/revisions/{policy_id(version(20))}").json
    assert found["proof"] == "refuted" and found["events"][0]["event"] == "refused"
    assert put(gateway, version(20)).status == 422
    assert len(prover.asked) == 1


def test_proof_refuted_file_keeps_the_last_good(
    prove: Callable[..., Gateway], prover: FakeProver, tmp_path: Path
) -> None:
    """Readiness says what does not hold."""
    file = tmp_path / "policy.yaml"
    file.write_text(version(10), "utf-8")
    gateway = prove(policy=file)
    prover.result = "refuted"
    file.write_text(version(20), "utf-8")
    ready = wait_until(lambda: (r := gateway.http("GET", "/readyz", key=None).json)["status"] == "degraded" and r)
    assert "a only tightens b" in ready["checks"]["policy"]["problem"]
    assert decision(gateway)["policy"] == policy_id(version(10))


def test_proof_refuted_file_at_the_first_start_serves_nothing(
    prove: Callable[..., Gateway], prover: FakeProver, tmp_path: Path
) -> None:
    """There is no last good one to keep."""
    file = tmp_path / "policy.yaml"
    file.write_text(version(10), "utf-8")
    prover.result = "refuted"
    with pytest.raises(PolicyError, match="refuted"):
        prove(policy=file)


def test_proof_timeout_loads_as_not_proved(prove: Callable[..., Gateway], prover: FakeProver) -> None:
    """It takes effect, and everybody who asks is told."""
    prover.result = "not proved"
    gateway = prove()
    answer = put(gateway, version(20))
    assert answer.status == 200 and answer.json["proof"] == "not proved"
    assert answer.json["warnings"] == ["the solver's time was over"]
    assert gateway.http("GET", "/readyz", key=None).json["checks"]["policy"]["proof"] == "not proved"
    assert gateway.http("GET", PATH).json["proof"] == "not proved"


def test_proof_required_refuses_what_is_not_proved(
    prove: Callable[..., Gateway], prover: FakeProver, tmp_path: Path
) -> None:
    """At the start and at a reload; the message says what to do."""
    prover.result = "not proved"
    gateway = prove(policy_require_proof=True)
    answer = put(gateway, version(20))
    assert answer.status == 422 and "LUKHAS_POLICY_REQUIRE_PROOF" in answer.json["detail"]
    assert "lukhas-pwm[verify]" in answer.json["detail"]
    gateway.stop()
    file = tmp_path / "policy.yaml"
    file.write_text(version(30), "utf-8")
    with pytest.raises(PolicyError, match="the solver's time was over"):
        prove(policy=file, policy_require_proof=True)
    prover.result = "proved"
    assert prove(policy=file, policy_require_proof=True).http("GET", PATH).json["proof"] == "proved"


def test_proof_required_later_refuses_what_stands_unproved(
    prove: Callable[..., Gateway], prover: FakeProver, tmp_path: Path
) -> None:
    """Turning the requirement on asks for the missing proof before anything is served."""
    file = tmp_path / "policy.yaml"
    file.write_text(version(10), "utf-8")
    prover.result = "not proved"
    prove(policy=file).stop()
    with pytest.raises(PolicyError, match="is not proved"):
        prove(policy=file, policy_require_proof=True)
    prover.result = "proved"
    assert prove(policy=file, policy_require_proof=True).http("GET", PATH).json["proof"] == "proved"


def test_proof_reload_tries_again(prove: Callable[..., Gateway], prover: FakeProver, tmp_path: Path) -> None:
    """Once the solver is there, a reload turns 'not proved' into 'proved'."""
    file = tmp_path / "policy.yaml"
    file.write_text(version(10), "utf-8")
    prover.result = "not proved"
    gateway = prove(policy=file)
    prover.result = "proved"
    answer = gateway.http("POST", f"{PATH}/reload", {})
    assert answer.json["proof"] == "proved" and answer.json["changed"]
    assert gateway.http("GET", PATH).json["proof"] == "proved"


def test_proof_of_one_policy_does_not_delay_calls_or_a_rollback(
    prove: Callable[..., Gateway], prover: FakeProver
) -> None:
    """While one is proved, calls are answered and a rollback takes effect; the late one is told."""
    gateway = prove()
    first = put(gateway, version(20)).json["policy"]
    tag = gateway.http("GET", PATH).headers["etag"]
    prover.gate = threading.Event()
    late: list[Answer] = []
    thread = threading.Thread(
        target=lambda: late.append(
            gateway.http("PUT", PATH, {"text": version(30), "reason": "slow"}, {"if-match": tag})
        )
    )
    thread.start()
    wait_until(lambda: len(prover.asked) == 2)
    assert decision(gateway)["policy"] == first
    back = gateway.http("POST", f"{PATH}/rollback", {"revision": "packaged", "reason": "now"})
    assert back.status == 200 and decision(gateway)["policy"] == policy_id(PACKAGED)
    prover.gate.set()
    thread.join(20)
    assert late[0].status == 412
    assert gateway.http("GET", PATH).json["policy"] == policy_id(PACKAGED)


def test_proof_file_that_was_overtaken_is_refused(
    prove: Callable[..., Gateway], prover: FakeProver, tmp_path: Path
) -> None:
    """A file whose proof ends after a rollback does not undo it."""
    file = tmp_path / "policy.yaml"
    file.write_text(version(10), "utf-8")
    gateway = prove(policy=file)
    prover.gate = threading.Event()
    file.write_text(version(20), "utf-8")
    wait_until(lambda: len(prover.asked) == 2)
    gateway.http("POST", f"{PATH}/rollback", {"revision": "packaged", "reason": "now"})
    prover.gate.set()
    status = wait_until(lambda: (s := gateway.http("GET", PATH).json)["refused"] and s)
    assert status["policy"] == policy_id(PACKAGED) and "came first" in status["problem"]


def test_proof_running_does_not_hold_up_the_stop(
    prove: Callable[..., Gateway], prover: FakeProver, tmp_path: Path
) -> None:
    """A gateway that is told to stop does not wait for the solver."""
    file = tmp_path / "policy.yaml"
    file.write_text(version(10), "utf-8")
    gateway = prove(policy=file)
    prover.gate = threading.Event()
    file.write_text(version(20), "utf-8")
    wait_until(lambda: len(prover.asked) == 2)
    gateway.stop()
    prover.gate.set()
    prover.gate = None
    assert prove(policy=file).http("GET", PATH).json["policy"] == policy_id(version(20))


def test_proof_rollback_elsewhere_that_this_gateway_refuses_is_undone(
    prove: Callable[..., Gateway], prover: FakeProver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the database is what is in force, so a restart serves."""
    prover.result = "not proved"
    gateway = prove()
    unproved = put(gateway, version(20)).json["policy"]
    gateway.http("POST", f"{PATH}/rollback", {"revision": "packaged", "reason": "r"})
    gateway.stop()
    gateway = prove(policy_require_proof=True)
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(gateway.runtime.settings.data_dir))
    monkeypatch.setenv("LUKHAS_POLICY_PROOF_TIMEOUT_S", "0")
    assert CliRunner().invoke(app, ["policy", "rollback", unproved, "--reason", "r"]).exit_code == 0
    status = wait_until(lambda: (s := gateway.http("GET", PATH).json)["event"]["why"].startswith("Kept: ") and s)
    assert status["policy"] == policy_id(PACKAGED) and unproved in status["refused"]["problem"]
    assert decision(gateway)["policy"] == policy_id(PACKAGED)
    gateway.stop()
    assert prove(policy_require_proof=True).http("GET", PATH).json["policy"] == policy_id(PACKAGED)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("true", True, id="true"),
        pytest.param("On", True, id="on"),
        pytest.param("0", False, id="zero"),
        pytest.param("", False, id="empty-is-unset"),
        pytest.param("maybe", None, id="neither"),
    ],
)
def test_proof_setting_is_a_plain_switch(text: str, expected: bool | None) -> None:
    """A word that is neither yes nor no is refused, rather than taken for no."""
    variables = {"LUKHAS_POLICY_REQUIRE_PROOF": text}
    if expected is None:
        with pytest.raises(SettingsError, match="must be true or false"):
            load_settings(variables)
    else:
        assert load_settings(variables).settings.policy_require_proof is expected
