"""`/api/v1/limits`: who may use how much, changed with a reason, and what calls then see."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest
from conftest import QUESTION, Answer, Gateway, Serve

PATH = "/api/v1/limits"


@pytest.fixture
def tenant() -> str:
    """Give each test a tenant of its own in the gateway that they share."""
    return f"tenant-{uuid4().hex[:12]}"


def path_of(gateway: Gateway, secret: str) -> str:
    """Return the path of a key's limits."""
    return f"{PATH}/keys/{gateway.runtime.keys.ring.authenticate(secret, gateway.runtime.clock.now_ms()).key_id}"


def put(
    gateway: Gateway, path: str, limits: Any, reason: str = "a test", tag: str | None = None, **more: Any
) -> Answer:
    tag = gateway.http("GET", path).headers["etag"] if tag is None else tag
    headers = {"if-match": tag} if tag else {}
    return gateway.http("PUT", path, {"limits": limits, "reason": reason}, headers, **more)


def test_limits_put_hold_at_once_with_their_record(gateway: Gateway, tenant: str) -> None:
    """The answer shows them, the next call is counted, and who and why are on record."""
    secret = gateway.key(tenant=tenant)
    path = path_of(gateway, secret)
    before = gateway.http("GET", path)
    assert before.json["limits"]["requests_per_minute"] is None and before.json["usage"] == {}
    answer = put(gateway, path, {"requests_per_minute": 2}, reason="Trial customer.")
    assert answer.status == 200, answer.body
    assert answer.json["changed"] and answer.headers["etag"] != before.headers["etag"]
    (record,) = gateway.document(answer.json["audit_id"])["records"]
    assert (record["kind"], record["tenant"]) == ("limit", tenant)
    assert record["body"]["reason"] == "Trial customer."
    assert record["body"]["after"]["requests_per_minute"] == 2
    assert gateway.chat(key=secret).status == 200
    usage = gateway.http("GET", path).json["usage"]["requests_per_minute"]
    assert (usage["limit"], usage["used"], usage["remaining"]) == (2, 1, 1)
    assert 0 < usage["resets_in_s"] <= 60


def test_limit_reached_is_429_with_the_headers_clients_read(gateway: Gateway, tenant: str) -> None:
    """The refusal has OpenAI's shape, says when to come back, and reaches no upstream."""
    secret = gateway.key(tenant=tenant)
    assert put(gateway, f"{PATH}/tenants/{tenant}", {"requests_per_minute": 1}).status == 200
    first = gateway.chat(key=secret)
    assert first.status == 200
    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    calls = len(gateway.upstream.requests)
    refused = gateway.chat(key=secret)
    assert refused.status == 429
    assert refused.error["code"] == "rate_limit_exceeded" and refused.error["type"] == "rate_limit_error"
    assert "tenant's limit of 1 requests per minute" in refused.error["message"]
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(gateway.upstream.requests) == calls
    with pytest.raises(openai.RateLimitError):
        gateway.client(secret).chat.completions.create(model="gpt-4o-mini", messages=QUESTION)


def test_upstreams_own_limits_give_way_to_ours(gateway: Gateway, tenant: str) -> None:
    """A client can heed one set of headers: where a limit of ours holds it is ours, else the upstream's."""
    secret = gateway.key(tenant=tenant)
    body = gateway.chat(key=secret).json
    for ours, expected in ((False, "777"), (True, "5")):
        if ours:
            assert put(gateway, path_of(gateway, secret), {"requests_per_minute": 5}).status == 200
        gateway.upstream.reply(json=body, headers={"x-ratelimit-limit-requests": "777"})
        assert gateway.chat(key=secret).headers["x-ratelimit-limit-requests"] == expected


def test_budget_is_never_overspent_by_parallel_calls(gateway: Gateway, tenant: str) -> None:
    """Twenty calls at once: what they were let through for fits the budget, and the rest is told to wait."""
    secret = gateway.key(tenant=tenant)
    path = path_of(gateway, secret)
    assert put(gateway, path, {"tokens_per_day": 300}).status == 200
    ready = threading.Barrier(20)

    def call(_: int) -> Answer:
        ready.wait()
        return gateway.chat({"max_tokens": 20}, key=secret)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(call, range(20)))
    assert {answer.status for answer in answers} <= {200, 429}
    passed = sum(answer.status == 200 for answer in answers)
    assert passed >= 1
    used = gateway.http("GET", path).json["usage"]["tokens_per_day"]["used"]
    assert used == 7 * passed <= 300


def test_budget_caps_what_a_call_may_produce(gateway: Gateway, tenant: str) -> None:
    """A call that names no maximum gets one, no larger than what the budget leaves."""
    secret = gateway.key(tenant=tenant)
    assert put(gateway, path_of(gateway, secret), {"tokens_per_day": 500}).status == 200
    assert gateway.chat(key=secret).status == 200
    sent = gateway.sent()
    cap = sent.get("max_completion_tokens") or sent.get("max_tokens")
    assert 0 < cap < 500


def test_calls_at_once_are_free_after_a_stream(gateway: Gateway, tenant: str) -> None:
    """A stream holds its place until its end, and gives it back then."""
    secret = gateway.key(tenant=tenant)
    assert put(gateway, path_of(gateway, secret), {"concurrent_calls": 1}).status == 200
    client = gateway.client(secret)
    for _ in range(3):
        stream = client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == "Hello."


def test_call_that_never_left_costs_nothing(gateway: Gateway, tenant: str) -> None:
    """A call refused for another reason gives its request back."""
    secret = gateway.key(tenant=tenant)
    path = path_of(gateway, secret)
    assert put(gateway, path, {"requests_per_minute": 1, "tokens_per_day": 1000}).status == 200
    for _ in range(3):
        assert gateway.chat({"temperature": "hot"}, key=secret).status == 400
    usage = gateway.http("GET", path).json["usage"]
    assert {name: one["used"] for name, one in usage.items()} == {"requests_per_minute": 0, "tokens_per_day": 0}


@pytest.mark.parametrize(
    ("limits", "param"),
    [
        pytest.param({"requests_per_minute": 0}, "requests_per_minute", id="zero"),
        pytest.param({"tokens_per_day": -5}, "tokens_per_day", id="negative"),
        pytest.param({"tokens_per_day": 1.5}, "tokens_per_day", id="fraction"),
        pytest.param({"tokens_per_day": True}, "tokens_per_day", id="boolean"),
        pytest.param({"tokens_per_day": "5"}, "tokens_per_day", id="text"),
        pytest.param({"tokens_per_day": 10**30}, "tokens_per_day", id="enormous"),
        pytest.param({"tokens": 5}, "limits", id="unknown"),
        pytest.param([], "limits", id="a-list"),
    ],
)
def test_limits_put_wrong_changes_nothing(gateway: Gateway, tenant: str, limits: Any, param: str) -> None:
    """A wrong limit is 400 with its name, and what held before holds on."""
    path = f"{PATH}/tenants/{tenant}"
    answer = put(gateway, path, limits)
    assert answer.status == 400, answer.body
    assert answer.json["errors"][0]["path"] == param
    assert set(gateway.http("GET", path).json["limits"].values()) == {None}


def test_limits_put_needs_reason_tag_and_admin(gateway: Gateway, tenant: str) -> None:
    """No reason, no or a stale If-Match, or a lesser key: nothing is changed."""
    path = f"{PATH}/tenants/{tenant}"
    stale = gateway.http("GET", path).headers["etag"]
    assert put(gateway, path, {"concurrent_calls": 1}, reason="  ").status == 400
    assert put(gateway, path, {"concurrent_calls": 1}, tag="").status == 428
    assert put(gateway, path, {"concurrent_calls": 1}, key=gateway.key("policy", tenant=tenant)).status == 403
    assert put(gateway, path, {"concurrent_calls": 1}, tag=stale).status == 200
    assert put(gateway, path, {"concurrent_calls": 2}, tag=stale).status == 412
    again = put(gateway, path, {"concurrent_calls": 1})
    assert again.status == 200 and again.json["changed"] is False and again.json["audit_id"] is None
    assert put(gateway, path, {}, tag="*").json["changed"]


def test_limits_are_read_by_their_own_key_and_by_admin(gateway: Gateway, tenant: str) -> None:
    """A key sees what holds for itself; another's, and everybody's, only an admin."""
    mine, other = gateway.key(tenant=tenant), gateway.key(tenant=tenant)
    assert gateway.http("GET", path_of(gateway, mine), key=mine).status == 200
    for path in (path_of(gateway, other), f"{PATH}/tenants/{tenant}", PATH):
        assert gateway.http("GET", path, key=mine).status == 403
        assert gateway.http("GET", path).status == 200
    put(gateway, f"{PATH}/tenants/{tenant}", {"concurrent_calls": 3})
    assert tenant in [one.get("tenant") for one in gateway.http("GET", PATH).json["limits"]]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("keys/key_00000000000000000000000000", 404, id="unknown-key"),
        pytest.param("keys/acme", 400, id="no-key-id"),
        pytest.param("tenants/Not%20A%20Tenant", 400, id="no-tenant"),
        pytest.param("planets/mars", 400, id="no-holder"),
    ],
)
def test_limits_of_nobody_are_refused(gateway: Gateway, path: str, status: int) -> None:
    """What cannot have limits has none, to read or to set."""
    assert gateway.http("GET", f"{PATH}/{path}").status == status
    assert put(gateway, f"{PATH}/{path}", {"concurrent_calls": 1}, tag="*").status == status


def test_limits_of_a_started_gateway_know_todays_usage(serve: Serve, tmp_path: Path) -> None:
    """A restart gives nobody a new day."""
    first = serve(data_dir=tmp_path / "kept")
    secret = first.key(tenant="acme")
    path = path_of(first, secret)
    assert put(first, path, {"tokens_per_day": 1000, "requests_per_day": 10}).status == 200
    assert first.chat(key=secret).status == 200
    before = first.http("GET", path).json
    first.stop()
    after = serve(data_dir=tmp_path / "kept").http("GET", path).json
    assert {name: one["used"] for name, one in after["usage"].items()} == {"requests_per_day": 1, "tokens_per_day": 7}
    assert after["limits"] == before["limits"]
