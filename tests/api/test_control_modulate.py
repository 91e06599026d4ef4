"""`/api/v1/modulate` and `/api/v1/policy`: looking without touching."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import QUESTION, Gateway


def test_preview_decides_as_the_gateway_would(gateway: Gateway) -> None:
    """The request that it shows is the one that the upstream receives."""
    request = {
        "model": "gpt-4o-mini",
        "messages": QUESTION,
        "temperature": 2,
        "tools": [{"type": "mcp"}],
        "seed": 2**70,
    }
    preview = gateway.http("POST", "/api/v1/modulate", {"signals": {"alignment_risk": 0.3}, "request": request})
    assert preview.status == 200, preview.body
    gateway.chat(request, {"X-Lukhas-Signals": "alignment_risk=0.3"})
    assert preview.json["request"] == gateway.sent()
    assert preview.json["stripped"] == ["mcp"] and preview.json["parameters"]["temperature"] == pytest.approx(0.745)
    assert preview.json["policy"] == gateway.runtime.policies.policy.id and preview.json["trace"]


def test_preview_leaves_no_trace_of_itself(gateway: Gateway) -> None:
    """Nothing is sent, emitted or recorded."""
    before = gateway.runtime.audit.head()
    answer = gateway.http("POST", "/api/v1/modulate", {"signals": {"stress": 0.7, "novelty": 0.9}, "model": "o3"})
    assert answer.status == 200 and answer.json["model"] == "o3"
    assert set(answer.json) >= {"policy", "parameters", "style", "tools", "trace", "levels", "written"}
    assert gateway.runtime.audit.head() == before and not gateway.upstream.requests


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param({}, 200, id="nothing-is-calm"),
        pytest.param({"signals": {"joy": 1}}, 400, id="unknown-signal"),
        pytest.param({"signals": {"stress": 2}}, 400, id="level-2"),
        pytest.param({"request": {"messages": []}}, 400, id="no-messages"),
        pytest.param({"request": {"temperature": "hot"}}, 400, id="wrong-type"),
        pytest.param({"model": 5}, 400, id="model-number"),
        pytest.param({"model": ""}, 400, id="model-empty"),
        pytest.param({"unknown": 1}, 400, id="unknown-field"),
        pytest.param({"request": {"tools": [{"type": "mcp"}], "tool_choice": "required"}}, 403, id="denied"),
        pytest.param({"request": {"lukhas": {"signals": {"stress": 1}}}}, 200, id="extension-is-not-read"),
    ],
)
def test_preview_refuses_as_the_gateway_would(gateway: Gateway, body: dict[str, Any], status: int) -> None:
    """The same errors, as problem details."""
    answer = gateway.http("POST", "/api/v1/modulate", body)
    assert answer.status == status, answer.body
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json" and answer.json["status"] == status


def test_preview_of_a_deeply_nested_request_is_answered(gateway: Gateway) -> None:
    """Depth is no reason to fail inside."""
    nested: Any = 1
    for _ in range(400):
        nested = [nested]
    answer = gateway.http("POST", "/api/v1/modulate", {"request": {"metadata": nested}})
    assert answer.status in (200, 400), answer.body


def test_policy_is_read_with_its_scope(gateway: Gateway) -> None:
    """Id, text and hash; not for every key."""
    answer = gateway.http("GET", "/api/v1/policy", key=gateway.key("policy"))
    assert answer.status == 200 and answer.json["policy"].startswith("pol_")
    assert answer.json["text"].startswith("# The packaged policy") and len(answer.json["sha256"]) == 64
    assert gateway.http("GET", "/api/v1/policy", key=gateway.key()).status == 403
