"""`GET /api/v1/policy/sensitivity`: the data that the dashboard draws."""

from __future__ import annotations

from typing import Any

import pytest

from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy_reader import load_policy
from lukhas.modulation.sensitivity import measure_sensitivity

PATH = "/api/v1/policy/sensitivity"


def test_sensitivity_lines_are_those_of_the_policy_in_force(gateway: Any) -> None:
    """One line per signal, equal to what the library measures."""
    answer = gateway.http("GET", f"{PATH}?parameter=temperature")
    expected = measure_sensitivity(Dispatcher(load_policy()), "temperature")
    assert answer.status == 200
    assert answer.json["policy"] == expected.policy
    assert answer.json["bounds"] == [0.0, 1.0]
    assert [line["values"] for line in answer.json["lines"]] == [line.values for line in expected.lines]
    assert answer.headers["x-request-id"].startswith("req_")


def test_sensitivity_of_two_signals_is_a_plane(gateway: Any) -> None:
    """With x and y the plane comes with both lines."""
    found = gateway.http("GET", f"{PATH}?parameter=tools&x=urgency&y=alignment_risk").json
    assert [line["signal"] for line in found["lines"]] == ["urgency", "alignment_risk"]
    assert found["plane"]["values"][0][0] == ["retrieval", "browser"]
    assert found["plane"]["values"][50][50] == ["retrieval"]


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        pytest.param("", 400, "query.parameter", id="no-parameter"),
        pytest.param("?parameter=nope", 400, "parameter", id="unknown-parameter"),
        pytest.param("?parameter=top_p&x=nope", 400, "x", id="unknown-signal"),
        pytest.param("?parameter=top_p&y=stress", 400, "x", id="second-without-first"),
        pytest.param("?parameter=top_p&x=stress&y=stress", 400, "y", id="twice"),
        pytest.param("?parameter=gr%C3%B6%C3%9Fe%00", 400, "parameter", id="unicode-and-null"),
    ],
)
def test_sensitivity_wrong_query_is_a_problem(gateway: Any, query: str, status: int, param: str) -> None:
    """Each mistake names the field at fault."""
    answer = gateway.http("GET", PATH + query)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert [one["path"] for one in answer.json["errors"]] == [param]


def test_sensitivity_needs_the_scope_policy(gateway: Any) -> None:
    """Without a key 401, with a key of other scopes 403, with the scope 200."""
    query = f"{PATH}?parameter=top_p"
    assert gateway.http("GET", query, key=None).status == 401
    assert gateway.http("GET", query, key=gateway.key("signals")).status == 403
    assert gateway.http("GET", query, key=gateway.key("policy")).status == 200
