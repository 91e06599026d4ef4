"""Shadow mode: nothing is applied, everything is recorded as what it would have done."""

from __future__ import annotations

import json

import pytest
from conftest import QUESTION, Gateway, Serve

EXEC = {"type": "function", "function": {"name": "exec_code"}}
RISK = {"X-Lukhas-Signals": "alignment_risk=0.9"}


@pytest.fixture
def shadow(serve: Serve) -> Gateway:
    return serve(mode="shadow")


def test_shadow_changes_nothing_and_records_everything(shadow: Gateway) -> None:
    """Request and answer pass as they are; the record says what would have been."""
    fields = {"temperature": 2, "tools": [EXEC], "stop": ["x"]}
    answer = shadow.chat(fields, RISK)
    assert shadow.sent() == {"model": "gpt-4o-mini", "messages": QUESTION, **fields}
    decision = shadow.document(answer.headers["x-lukhas-audit-id"])["decision"]
    assert decision["mode"] == "shadow" and decision["style"] == "strict"
    assert decision["written"]["temperature"] == pytest.approx(0.235)
    assert decision["stripped"] == ["exec_code"]


def test_shadow_headers_say_so_and_show_nothing_to_act_on(shadow: Gateway) -> None:
    """An application that follows the headers keeps the defaults."""
    answer = shadow.chat({"tools": [EXEC]}, RISK)
    assert answer.headers["x-lukhas-mode"] == "shadow"
    assert answer.headers["x-lukhas-safety-mode"] == "balanced"
    assert json.loads(answer.headers["x-lukhas-parameters"])["temperature"] == 0.6
    assert "x-lukhas-tools-stripped" not in answer.headers


def test_shadow_lets_a_forced_tool_pass_and_records_the_denial(shadow: Gateway) -> None:
    """What enforce mode would have refused is on record, and the call goes through."""
    choice = {"type": "function", "function": {"name": "exec_code"}}
    answer = shadow.chat({"tools": [EXEC], "tool_choice": choice})
    assert answer.status == 200 and shadow.sent()["tool_choice"] == choice
    document = shadow.document(answer.headers["x-lukhas-audit-id"])
    assert "exec_code" in document["decision"]["denied"] and document["outcome"]["status"] == "ok"


def test_shadow_still_removes_the_extension(shadow: Gateway) -> None:
    """The body field is ours in either mode."""
    shadow.chat({"lukhas": {"session": "s", "signals": {"stress": 0.9}}})
    assert shadow.sent() == {"model": "gpt-4o-mini", "messages": QUESTION}
