"""`POST /api/v1/policy/verify`: a certificate for a policy that does not take effect."""

from __future__ import annotations

import pytest
from conftest import Gateway

from lukhas.modulation import prover
from lukhas.modulation.certificate import Certificate
from lukhas.modulation.policy_reader import load_policy, read_packaged_text

pytest.importorskip("z3", reason="the solver is not installed (extra verify)")

PATH = "/api/v1/policy/verify"


def test_verify_policy_in_force_is_proved(gateway: Gateway) -> None:
    """Without a text it is the policy in force; the answer is its certificate with the hash."""
    answer = gateway.http("POST", PATH, {})
    assert answer.status == 200, answer.body
    document = answer.json
    assert (document["result"], document["policy"]) == ("proved", load_policy().id)
    assert len(document["hash"]) == 64
    stored = gateway.runtime.revisions.find_certificate(document["policy"])
    assert stored is not None and stored.result == "proved"


def test_verify_certificate_hashes_to_what_the_answer_says(gateway: Gateway) -> None:
    """A reader can check the hash from the answer itself."""
    document = gateway.http("POST", PATH, {}).json
    found = document.pop("hash")
    for statement in document["statements"]:
        statement.pop("in_words")
    import orjson

    assert Certificate.decode(orjson.dumps(document)).hash == found


def test_verify_refuted_policy_has_its_counterexample_and_changes_nothing(gateway: Gateway) -> None:
    """A refuted policy is an answer, not an error; what is in force stays."""
    text = read_packaged_text().replace("temperature: 1 - 0.85 * x", "temperature: 0.2 + 0.5 * x")
    before = gateway.runtime.policies.policy.id
    answer = gateway.http("POST", PATH, {"text": text})
    assert answer.status == 200
    assert answer.json["result"] == "refuted"
    examples = [s for s in answer.json["statements"] if s["result"] == "refuted"]
    assert all(s["counterexample"]["confirmed"] and s["in_words"] for s in examples)
    assert gateway.runtime.policies.policy.id == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param({"text": "version: 1"}, 422, id="not-a-policy"),
        pytest.param({"text": 7}, 400, id="not-a-text"),
        pytest.param({"timeout_s": 0}, 400, id="no-time"),
        pytest.param({"timeout_s": 1e9}, 400, id="too-long"),
        pytest.param({"policy": "x"}, 400, id="unknown-field"),
        pytest.param(b"{", 400, id="not-json"),
    ],
)
def test_verify_wrong_body_is_refused(gateway: Gateway, body: object, status: int) -> None:
    """Each wrong body has the status of its kind."""
    assert gateway.http("POST", PATH, body).status == status


def test_verify_needs_admin(gateway: Gateway) -> None:
    """A proof is costly: neither a reader of policies nor nobody may ask for one."""
    assert gateway.http("POST", PATH, {}, key=gateway.key("policy")).status == 403
    assert gateway.http("POST", PATH, {}, key=None).status == 401


def test_verify_beside_another_proof_is_busy(gateway: Gateway) -> None:
    """One proof at a time: the second is told to come back, and does not wait."""
    with prover._one_at_a_time:
        answer = gateway.http("POST", PATH, {})
    assert answer.status == 503
    assert answer.error["code"] == "overloaded"


def test_verify_without_time_is_not_proved(gateway: Gateway) -> None:
    """What is not decided in time is not proved, and the reason is there."""
    document = gateway.http("POST", PATH, {"timeout_s": 0.1}).json
    assert document["result"] == "not proved"
    assert document["warnings"]
