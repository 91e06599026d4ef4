"""Without signals a request reaches the upstream equal to what was sent; with them only what they touch changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import QUESTION, Gateway

FIELDS: dict[str, Any] = {
    "unknown-field": {
        "text": "z\u00fc\u00dfe Gr\u00fc\u00dfe \U0001f426 \u0000 \u2028",
        "nested": [None, {"a": None}, [], {}],
    },
    "big-int": {"seed": 2**63 - 1, "unsigned": 2**64 - 1, "huge": 2**70, "negative": -(2**80), "metadata": [10**30]},
    "floats": {"a": 0.1, "b": 1e-300, "c": 1.7976931348623157e308, "d": 0.30000000000000004, "e": -0.0, "f": 5e-324},
    "empty-tools": {"tools": []},
    "no-tools": {"tools": None, "tool_choice": None, "functions": None, "parallel_tool_calls": None},
    "tool-choice-alone": {"tool_choice": "none", "parallel_tool_calls": False},
    "choices": {"n": 3, "logprobs": True, "top_logprobs": 5, "logit_bias": {"50256": -100}},
    "audio": {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
    "metadata": {"metadata": {"team": "blue", "": ""}, "store": True, "service_tier": "flex", "seed": 7},
    "caller-parameters": {
        "temperature": 2,
        "top_p": 1,
        "max_tokens": 1,
        "frequency_penalty": -2,
        "presence_penalty": 2.0,
    },
    "both-limits": {"max_tokens": 5000, "max_completion_tokens": 9000},
    "null-parameters": {"temperature": None, "top_p": None, "max_tokens": None, "stop": None, "stream": None},
    "stop": {"stop": ["a", "b", "c", "d"]},
    "effort": {"reasoning_effort": "minimal", "verbosity": "low"},
    "effort-of-another-provider": {"reasoning_effort": "ultra", "verbosity": "terse"},
    "prediction": {"prediction": {"type": "content", "content": "x" * 10_000}},
    "empty-names": {"": "", "user": None, "safety_identifier": None},
}
MESSAGES: list[Any] = [
    {"role": "developer", "content": "Be kind."},
    {
        "role": "user",
        "name": "ana",
        "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "data:,"}}],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "open_url", "arguments": "{"}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": ""},
    {"role": "made-up", "anything": [1, 2.5, {"deep": {"er": None}}]},
]


@pytest.mark.parametrize("fields", [pytest.param(value, id=name) for name, value in FIELDS.items()])
def test_request_without_signals_arrives_equal(gateway: Gateway, fields: dict[str, Any]) -> None:
    """Known and unknown fields, nulls, numbers of any size and any text arrive as they were sent."""
    body = {"model": "gpt-4o-mini", "messages": MESSAGES, **fields}
    answer = gateway.chat(body)
    assert answer.status == 200, answer.body
    assert gateway.sent() == body
    assert json.dumps(gateway.sent(), sort_keys=True) == json.dumps(body, sort_keys=True)


def test_request_with_an_empty_extension_loses_only_that(gateway: Gateway) -> None:
    """`lukhas` is removed, also where it says nothing."""
    for extension in ({}, None, {"session": "s", "signals": {}}, {"signals": []}, {"task": "summary"}):
        answer = gateway.chat({"lukhas": extension, "seed": 5})
        assert answer.status == 200, answer.body
        assert gateway.sent() == {"model": "gpt-4o-mini", "messages": QUESTION, "seed": 5}


def test_request_nested_two_hundred_levels_deep_arrives(gateway: Gateway) -> None:
    """What the gateway can read it can write: depth is the upstream's to judge."""
    nested: Any = "x"
    for _ in range(600):
        nested = [nested]
    answer = gateway.chat({"metadata": nested})
    assert answer.status == 200, answer.body
    assert gateway.sent()["metadata"] == nested


def test_duplicate_keys_arrive_as_they_were_judged(gateway: Gateway) -> None:
    """Of a key that stands twice, the value that was governed is the one that the upstream sees."""
    raw = b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":0.1,"temperature":2,"model":"n"}'
    answer = gateway.http("POST", "/v1/chat/completions", raw, {"X-Lukhas-Signals": "alignment_risk=1"})
    assert answer.status == 200
    body = gateway.upstream.requests[-1].body
    assert body.count(b'"temperature"') == 1 and body.count(b'"model"') == 1
    assert gateway.sent()["temperature"] == pytest.approx(0.15)


def test_stress_changes_only_what_stress_maps(gateway: Gateway) -> None:
    """Everything else, seeds and penalties and stop sequences included, stays as it was sent."""
    body = {"model": "gpt-4o-mini", "messages": MESSAGES, "seed": 2**70, "stop": ["x"], "presence_penalty": 1, "n": 2}
    gateway.chat(body, {"X-Lukhas-Signals": "stress=0.7"})
    changed = {"temperature": 0.28, "top_p": 0.55, "max_tokens": 980}
    sent = gateway.sent()
    assert {name: sent.pop(name) for name in changed} == pytest.approx(changed)
    assert sent == body


@pytest.mark.parametrize(
    ("model", "signals", "fields", "expected"),
    [
        pytest.param("gpt-4o", "stress=0.7", {"temperature": 0.1}, {"temperature": 0.1}, id="caller-is-tighter"),
        pytest.param("gpt-4o", "stress=0.7", {"temperature": 1.5}, {"temperature": 0.28}, id="caller-is-looser"),
        pytest.param("gpt-4o", "alignment_risk=0.3", {"temperature": 2.0}, {"temperature": 0.745}, id="guard-caps"),
        pytest.param("gpt-4o", "alignment_risk=0.3", {"temperature": 2}, {"temperature": 0.745}, id="guard-caps-whole"),
        pytest.param("gpt-4o", "stress=0.7", {"max_tokens": 100}, {"max_tokens": 100}, id="caller-is-shorter"),
        pytest.param("gpt-4o", "stress=0.7", {"max_tokens": 9000}, {"max_tokens": 980}, id="caller-is-longer"),
        pytest.param(
            "gpt-4o",
            "stress=0.7",
            {"max_tokens": 5000, "max_completion_tokens": 9000},
            {"max_tokens": 980, "max_completion_tokens": 980},
            id="both-spellings-too-long",
        ),
        pytest.param(
            "gpt-4o",
            "stress=0.7",
            {"max_tokens": 50, "max_completion_tokens": 9000},
            {"max_tokens": 50, "max_completion_tokens": 980},
            id="one-spelling-too-long",
        ),
        pytest.param("gpt-4o", "stress=0.7", {"temperature": None}, {"temperature": 0.28}, id="null-is-no-value"),
        pytest.param("gpt-4o", "urgency=0.05", {"temperature": 0.9}, {"temperature": 0.9}, id="below-its-minimum"),
        pytest.param("o3-mini", "stress=0.7", {}, {"max_completion_tokens": 980}, id="o3-takes-the-limit-only"),
        pytest.param(
            "gpt-5",
            "ambiguity=1",
            {},
            {"reasoning_effort": "high"},
            id="gpt-5-takes-effort-as-a-word",
        ),
        pytest.param("openai/o3", "stress=0.7", {"max_tokens": 10}, {"max_tokens": 10}, id="prefix-of-a-provider"),
        pytest.param("gpt-5", "urgency=1", {}, {"reasoning_effort": "low", "max_completion_tokens": 400}, id="urgency"),
    ],
)
def test_signal_writes_these_parameters(
    gateway: Gateway, model: str, signals: str, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    """The caller may be tighter than the decision, never looser, in the model's own fields and words."""
    answer = gateway.chat({"model": model, **fields}, {"X-Lukhas-Signals": signals})
    assert answer.status == 200, answer.body
    sent = {name: value for name, value in gateway.sent().items() if name in expected}
    assert sent == {
        name: pytest.approx(value) if isinstance(value, float) else value for name, value in expected.items()
    }


def test_model_without_temperature_gets_none_and_the_trace_says_so(gateway: Gateway) -> None:
    """What a model refuses is left out, with a line in the trace."""
    answer = gateway.chat({"model": "o3"}, {"X-Lukhas-Signals": "stress=0.7"})
    assert set(gateway.sent()) == {"model", "messages", "max_completion_tokens"}
    trace = gateway.document(answer.headers["x-lukhas-audit-id"])["decision"]["trace"]
    left_out = {step["parameter"] for step in trace if "does not take it" in step["rule"]}
    assert left_out >= {"temperature", "top_p"}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"temperature": "hot"}, id="temperature-text"),
        pytest.param({"temperature": True}, id="temperature-bool"),
        pytest.param({"temperature": [0.5]}, id="temperature-list"),
        pytest.param({"top_p": {}}, id="top_p-object"),
        pytest.param({"max_tokens": 10.5}, id="max_tokens-fraction"),
        pytest.param({"max_tokens": "100"}, id="max_tokens-text"),
        pytest.param({"max_tokens": -(10**40)}, id="max_tokens-endless"),
        pytest.param({"max_completion_tokens": False}, id="max_completion_tokens-bool"),
        pytest.param({"temperature": 10**60}, id="temperature-endless"),
        pytest.param({"stream": "yes"}, id="stream-text"),
        pytest.param({"stream": 1}, id="stream-number"),
        pytest.param({"model": None}, id="model-null"),
        pytest.param({"model": ""}, id="model-empty"),
        pytest.param({"model": 5}, id="model-number"),
        pytest.param({"messages": []}, id="messages-empty"),
        pytest.param({"messages": "hi"}, id="messages-text"),
        pytest.param({"messages": ["hi"]}, id="messages-of-text"),
        pytest.param({"messages": [{"content": "no role"}]}, id="message-without-role"),
        pytest.param({"messages": [None]}, id="message-null"),
        pytest.param({"lukhas": "stress"}, id="lukhas-text"),
        pytest.param({"lukhas": {"sesion": "typo"}}, id="lukhas-unknown-field"),
        pytest.param({"lukhas": {"session": ""}}, id="session-empty"),
        pytest.param({"lukhas": {"session": 5}}, id="session-number"),
        pytest.param({"lukhas": {"session": "s" * 257}}, id="session-too-long"),
        pytest.param({"user": 5}, id="user-number"),
        pytest.param({"reasoning_effort": ["high"]}, id="effort-list"),
    ],
)
@pytest.mark.parametrize("signals", [pytest.param("", id="without"), pytest.param("stress=0.7", id="with-stress")])
def test_wrong_type_is_a_400_and_leaves_nothing(gateway: Gateway, fields: dict[str, Any], signals: str) -> None:
    """OpenAI's error shape, nothing sent upstream, no decision recorded."""
    before = gateway.count("decision")
    answer = gateway.chat(fields, {"X-Lukhas-Signals": signals} if signals else None)
    assert answer.status == 400, answer.body
    assert answer.error["type"] == "invalid_request_error" and answer.error["message"]
    assert answer.error["param"]
    assert not gateway.upstream.requests and gateway.count("decision") == before
    assert answer.headers["x-request-id"].startswith("req_")


def test_empty_user_names_nobody(gateway: Gateway) -> None:
    """Applications send an empty user for anonymous visitors; it reaches the upstream and is no subject."""
    answer = gateway.chat({"user": ""})
    assert answer.status == 200, answer.body
    assert gateway.sent()["user"] == ""
    assert gateway.document(answer.headers["x-lukhas-audit-id"])["end_user"] is None
