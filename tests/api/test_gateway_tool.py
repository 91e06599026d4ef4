"""Tools in a request: what is stripped, what is refused, and what stays."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from conftest import QUESTION, Gateway


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


RETRIEVE, OPEN, EXEC, OWN = map(function, ("retrieve_knowledge", "open_url", "exec_code", "send_money"))
FILES, CODE, CUSTOM = (
    {"type": "file_search"},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "custom", "custom": {"name": "open_url"}},
)


@pytest.mark.parametrize(
    ("fields", "kept", "removed"),
    [
        pytest.param({"tools": [RETRIEVE, OPEN]}, {"tools": [RETRIEVE, OPEN]}, [], id="allowed"),
        pytest.param({"tools": [OPEN, EXEC, RETRIEVE]}, {"tools": [OPEN, RETRIEVE]}, ["exec_code"], id="one-class"),
        pytest.param({"tools": [OWN]}, {}, ["send_money"], id="unknown-is-denied"),
        pytest.param({"tools": [FILES, CODE]}, {"tools": [FILES]}, ["code_interpreter"], id="hosted"),
        pytest.param({"tools": [{"type": "brand_new"}]}, {}, ["brand_new"], id="hosted-of-tomorrow"),
        pytest.param({"tools": [CUSTOM]}, {"tools": [CUSTOM]}, [], id="custom"),
        pytest.param(
            {"functions": [{"name": "exec_code"}, {"name": "open_url"}], "function_call": "auto"},
            {"functions": [{"name": "open_url"}], "function_call": "auto"},
            ["exec_code"],
            id="legacy-functions",
        ),
        pytest.param({"web_search_options": {}}, {}, ["web_search_options"], id="web-search-options"),
        pytest.param(
            {"tools": [EXEC], "tool_choice": "auto", "parallel_tool_calls": True},
            {},
            ["exec_code"],
            id="steering-fields-go-with-the-last-tool",
        ),
        pytest.param(
            {"tools": [EXEC, OPEN], "tool_choice": "required", "parallel_tool_calls": False},
            {"tools": [OPEN], "tool_choice": "required", "parallel_tool_calls": False},
            ["exec_code"],
            id="required-with-one-left",
        ),
        pytest.param(
            {
                "tools": [EXEC, OPEN],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [EXEC, OPEN]}},
            },
            {
                "tools": [OPEN],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [OPEN]}},
            },
            ["exec_code"],
            id="allowed-tools-narrowed",
        ),
        pytest.param(
            {
                "tools": [EXEC, OPEN],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [EXEC]}},
            },
            {"tools": [OPEN], "tool_choice": "none"},
            ["exec_code"],
            id="allowed-tools-emptied-frees-no-other",
        ),
        pytest.param({"tools": [EXEC, EXEC]}, {}, ["exec_code", "exec_code"], id="twice"),
        pytest.param({"tools": [function("EXEC_CODE")]}, {}, ["EXEC_CODE"], id="other-case-is-another-tool"),
    ],
)
def test_tools_are_stripped_by_class(
    gateway: Gateway, fields: dict[str, Any], kept: dict[str, Any], removed: list[str]
) -> None:
    """What the allowlist does not hold is not advertised; the answer and the record name it."""
    answer = gateway.chat(fields)
    assert answer.status == 200, answer.body
    assert gateway.sent() == {"model": "gpt-4o-mini", "messages": QUESTION, **kept}
    assert answer.headers.get("x-lukhas-tools-stripped", "") == ", ".join(removed)
    assert gateway.document(answer.headers["x-lukhas-audit-id"])["decision"].get("stripped", []) == removed


def test_risk_narrows_the_tools_further(gateway: Gateway) -> None:
    """alignment_risk above 0.7 leaves retrieval alone."""
    answer = gateway.chat({"tools": [RETRIEVE, OPEN]}, {"X-Lukhas-Signals": "alignment_risk=0.8"})
    assert gateway.sent()["tools"] == [RETRIEVE]
    assert answer.headers["x-lukhas-tools-stripped"] == "open_url"


@pytest.mark.parametrize(
    ("fields", "name", "advice"),
    [
        pytest.param(
            {"tools": [EXEC], "tool_choice": {"type": "function", "function": {"name": "exec_code"}}},
            "exec_code",
            "parameters.tools.default",
            id="function",
        ),
        pytest.param(
            {"tools": [OWN], "tool_choice": {"type": "function", "function": {"name": "send_money"}}},
            "send_money",
            "under a tool class",
            id="unknown-function",
        ),
        pytest.param(
            {"functions": [{"name": "exec_code"}], "function_call": {"name": "exec_code"}},
            "exec_code",
            "parameters.tools.default",
            id="legacy-function-call",
        ),
        pytest.param(
            {"tools": [EXEC, OWN], "tool_choice": "required"}, "exec_code", "parameters", id="required-with-none-left"
        ),
        pytest.param(
            {"tools": [CODE], "tool_choice": {"type": "code_interpreter"}},
            "code_interpreter",
            "parameters",
            id="hosted",
        ),
        pytest.param(
            {
                "tools": [EXEC],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [EXEC]}},
            },
            "exec_code",
            "parameters",
            id="allowed-tools-required-with-none-left",
        ),
        pytest.param(
            {
                "tools": [EXEC, OPEN],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [EXEC]}},
            },
            "exec_code",
            "parameters",
            id="allowed-tools-required-with-none-of-them-left",
        ),
    ],
)
def test_forced_tool_that_is_not_allowed_is_a_403(
    gateway: Gateway, fields: dict[str, Any], name: str, advice: str
) -> None:
    """The refusal names the tool and what would allow it, is recorded, and nothing goes upstream."""
    with pytest.raises(openai.PermissionDeniedError) as caught:
        gateway.client(max_retries=2).chat.completions.create(model="m", messages=QUESTION, extra_body=fields)
    assert caught.value.code == "policy_denied" and caught.value.type == "permission_error"
    assert name in caught.value.message and advice in caught.value.message and "lukhas policy" in caught.value.message
    assert not gateway.upstream.requests
    headers = caught.value.response.headers
    assert headers["x-should-retry"] == "false"
    document = gateway.document(headers["x-lukhas-audit-id"])
    assert name in document["decision"]["denied"]
    assert document["outcome"]["status"] == "denied"


def test_forced_tool_that_is_allowed_passes(gateway: Gateway) -> None:
    """Forcing what may be called is the caller's business."""
    choice = {"type": "function", "function": {"name": "open_url"}}
    gateway.chat({"tools": [OPEN, EXEC], "tool_choice": choice})
    assert gateway.sent()["tool_choice"] == choice and gateway.sent()["tools"] == [OPEN]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"tools": {}}, id="object"),
        pytest.param({"tools": "exec_code"}, id="text"),
        pytest.param({"tools": ["exec_code"]}, id="list-of-text"),
        pytest.param({"tools": [None]}, id="list-of-null"),
        pytest.param({"tools": [{}]}, id="without-type"),
        pytest.param({"tools": [{"type": 5}]}, id="type-number"),
        pytest.param({"tools": [{"type": "function"}]}, id="without-function"),
        pytest.param({"tools": [{"type": "function", "function": {}}]}, id="without-name"),
        pytest.param({"tools": [{"type": "function", "function": {"name": 5}}]}, id="name-number"),
        pytest.param({"tools": [{"type": "custom", "custom": None}]}, id="custom-null"),
        pytest.param({"functions": [{"description": "no name"}]}, id="legacy-without-name"),
        pytest.param({"functions": 5}, id="legacy-number"),
        pytest.param({"tools": [{"type": "function", "name": "open_url", "function": "exec_code"}]}, id="name-beside"),
    ],
)
def test_malformed_tools_are_a_400(gateway: Gateway, fields: dict[str, Any]) -> None:
    """What cannot be read cannot be judged, so it does not pass."""
    before = gateway.count("decision")
    answer = gateway.chat(fields, {"X-Lukhas-Signals": "stress=0.7", "X-Lukhas-Session": "malformed"})
    assert answer.status == 400 and answer.error["type"] == "invalid_request_error", answer.body
    assert not gateway.upstream.requests and gateway.count("decision") == before
    assert gateway.http("GET", "/api/v1/signals?session=malformed").json["levels"] == {}


def test_odd_tool_names_do_not_break_the_headers(gateway: Gateway) -> None:
    """A line end or an emoji in a tool's name stays out of the header, and the tool is stripped all the same."""
    answer = gateway.chat({"tools": [function("a\r\nx-evil: 1"), function("\u00fc\U0001f426"), function("plain")]})
    assert answer.headers["x-lukhas-tools-stripped"] == "plain"
    assert "x-evil" not in answer.headers and "tools" not in gateway.sent()


def test_five_hundred_tools_fit_the_header_and_the_record(gateway: Gateway) -> None:
    """Long lists are cut where they are shown, not where they are stripped."""
    answer = gateway.chat({"tools": [function(f"tool_number_{number}_{'x' * 40}") for number in range(500)]})
    assert answer.status == 200 and "tools" not in gateway.sent()
    assert len(answer.headers["x-lukhas-tools-stripped"]) <= 1000
    assert len(gateway.document(answer.headers["x-lukhas-audit-id"])["records"]) == 2
