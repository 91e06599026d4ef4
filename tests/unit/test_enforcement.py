"""Applying a decision: for every request and every signal, limits hold and nothing else changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lukhas.errors import InvalidRequest, PolicyDenied
from lukhas.gateway.enforcement import Applied, apply_decision, read_caller
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy_reader import load_policy
from lukhas.openai.capabilities import load_capabilities

DISPATCHER = Dispatcher(load_policy(None))
CAPABILITIES = load_capabilities()
MESSAGES = [{"role": "user", "content": "Hi"}]
LEVELS = st.dictionaries(
    st.sampled_from(sorted(DISPATCHER.policy.signals)), st.floats(0, 1, allow_nan=False), max_size=6
)
CALLER = st.fixed_dictionaries(
    {"model": st.sampled_from(["gpt-4o", "gpt-5", "o3-mini", "other"]), "messages": st.just(MESSAGES)},
    optional={
        "temperature": st.none() | st.floats(-1, 3),
        "top_p": st.none() | st.floats(0, 1),
        "max_tokens": st.none() | st.integers(1, 10_000),
        "max_completion_tokens": st.none() | st.integers(1, 10_000),
        "reasoning_effort": st.sampled_from(["minimal", "low", "medium", "high"]),
        "presence_penalty": st.floats(-2, 2),
        "anything": st.just({"x": None}),
    },
)


def apply(body: dict[str, Any], levels: dict[str, float]) -> Applied:
    decision = DISPATCHER.decide(levels, caller=read_caller(body, DISPATCHER))
    return apply_decision(body, decision, DISPATCHER, CAPABILITIES.find(body["model"]))


@given(CALLER, LEVELS)
def test_applied_request_is_never_looser_than_the_callers(body: dict[str, Any], levels: dict[str, float]) -> None:
    """Every spelling of a lower-is-tighter parameter stays at or below what the caller sent; unknown fields stay."""
    before = copy.deepcopy(body)
    applied = apply(body, levels)
    assert body == before
    for name in ("temperature", "top_p", "max_tokens", "max_completion_tokens"):
        if body.get(name) is not None:
            assert applied.body[name] <= body[name]
    assert applied.body.get("anything") == body.get("anything")
    assert applied.body["model"] == body["model"]
    assert set(applied.body) - set(body) <= set(applied.written) | {"stop"}


@given(CALLER, st.floats(0.05, 1))
def test_risk_caps_every_spelling_that_is_sent(body: dict[str, Any], risk: float) -> None:
    """Whichever field the upstream reads, the guard's cap holds in it."""
    sent = apply(body, {"alignment_risk": risk}).body
    if sent.get("temperature") is not None:
        assert sent["temperature"] <= 1 - 0.85 * risk + 1e-9
    if sent.get("top_p") is not None:
        assert sent["top_p"] <= max(0.2, 1 - 0.8 * risk) + 1e-9


@pytest.mark.parametrize("unlimited", [-1, 0])
def test_limit_that_means_none_is_capped_where_a_signal_limits(unlimited: int) -> None:
    """Some servers read -1 as unlimited, so it is no tighter than what a signal asks for."""
    body = {"model": "other", "messages": MESSAGES, "max_tokens": unlimited}
    assert apply(body, {"stress": 1.0}).body["max_tokens"] == 800
    assert apply(body, {}).body["max_tokens"] == unlimited


@given(CALLER)
def test_calm_request_is_equal(body: dict[str, Any]) -> None:
    """Without signals nothing is written."""
    applied = apply(body, {})
    assert applied.body == body and not applied.written


def test_foreign_effort_is_an_error_only_where_it_is_touched() -> None:
    """A word that cannot be compared cannot be limited."""
    body = {"model": "other", "messages": MESSAGES, "reasoning_effort": "ultra"}
    assert apply(body, {"stress": 0.9}).body["reasoning_effort"] == "ultra"
    with pytest.raises(InvalidRequest):
        apply(body, {"alignment_risk": 0.9})


def test_denial_of_a_long_name_does_not_repeat_it() -> None:
    """The message stays readable whatever the caller put there."""
    tool = {"type": "function", "function": {"name": "x" * 500}}
    with pytest.raises(PolicyDenied) as caught:
        apply({"model": "m", "messages": MESSAGES, "tools": [tool], "tool_choice": tool}, {})
    assert "x" * 65 not in str(caught.value) and "the named tool" in str(caught.value)
