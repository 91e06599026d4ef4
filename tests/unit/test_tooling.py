"""Stripping tools: for every request, what is left was allowed, and nothing else changed (I4)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lukhas.errors import InvalidRequest
from lukhas.openai.tooling import NOTHING, list_tools, strip_tools

NAMES = ("a", "b", "c")
FUNCTION = st.sampled_from(NAMES).map(lambda name: {"type": "function", "function": {"name": name}})
CUSTOM = st.sampled_from(NAMES).map(lambda name: {"type": "custom", "custom": {"name": name}})
HOSTED = st.sampled_from(("mcp", "file_search")).map(lambda kind: {"type": kind})
TOOL = FUNCTION | CUSTOM | HOSTED
CHOICE = (
    st.sampled_from(["auto", "none", "required", "any", None])
    | TOOL
    | st.builds(
        lambda mode, tools: {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}},
        st.sampled_from(["auto", "required"]),
        st.lists(TOOL, max_size=3),
    )
)
BODY = st.fixed_dictionaries(
    {"model": st.just("m")},
    optional={
        "tools": st.none() | st.lists(TOOL, max_size=4),
        "functions": st.none() | st.lists(st.sampled_from(NAMES).map(lambda n: {"name": n}), max_size=3),
        "web_search_options": st.none() | st.just({}),
        "tool_choice": CHOICE,
        "parallel_tool_calls": st.booleans(),
    },
)


def name_of(tool: dict[str, Any]) -> str:
    return tool.get("function", tool.get("custom", tool)).get("name") or tool["type"]


@given(BODY, st.sets(st.sampled_from([*NAMES, "mcp", "file_search", "web_search_options"])))
def test_stripping_leaves_what_is_allowed_and_nothing_else(body: dict[str, Any], allowed: set[str]) -> None:
    """No tool outside the allowlist is left anywhere, allowed ones stay in order, and the request is not changed."""
    before = copy.deepcopy(body)
    kept, stripped = strip_tools(body, allowed.__contains__, allowed.__contains__)
    assert body == before
    for field in ("tools", "functions"):
        left = [name_of(tool) for tool in kept.get(field) or []]
        assert left == [name_of(tool) for tool in body.get(field) or [] if name_of(tool) in allowed]
    assert kept.get("web_search_options") is None or "web_search_options" in allowed
    assert set(stripped.removed) == set(stripped.offered) - allowed
    if not stripped.removed:
        assert kept == body
    if stripped.forced is not None:
        assert stripped.forced in stripped.removed
    elif stripped.removed:
        choice = kept.get("tool_choice")
        entries = choice["allowed_tools"]["tools"] if isinstance(choice, dict) and "allowed_tools" in choice else []
        assert not {name_of(tool) for tool in entries} & set(stripped.removed)
        if not kept.get("tools") and not kept.get("functions"):
            assert not {"tool_choice", "parallel_tool_calls"} & set(kept)


def test_request_without_tools_is_handed_back_itself() -> None:
    """The usual case costs nothing."""
    body: dict[str, Any] = {"model": "m", "tools": None, "tool_choice": {"odd": 1}}
    kept, stripped = strip_tools(body, lambda _: False, lambda _: False)
    assert kept is body and stripped is NOTHING


def test_responses_style_allowed_tools_are_narrowed() -> None:
    """The choice may hold its tools directly."""
    tools = [{"type": "function", "function": {"name": name}} for name in "ab"]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": name} for name in "ab"]}
    kept, stripped = strip_tools({"tools": tools, "tool_choice": choice}, "b".__eq__, "b".__eq__)
    assert kept["tool_choice"]["tools"] == [{"type": "function", "name": "b"}] and stripped.removed == ("a",)


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param({"type": "allowed_tools"}, id="bare"),
        pytest.param([1], id="list"),
        pytest.param({"function": "b"}, id="odd"),
    ],
)
def test_odd_choice_is_the_upstreams_to_judge(choice: Any) -> None:
    """What forces nothing that can be read is handed on while tools are left."""
    tools = [{"type": "function", "function": {"name": name}} for name in "ab"]
    kept, stripped = strip_tools({"tools": tools, "tool_choice": choice}, "b".__eq__, "b".__eq__)
    assert kept["tool_choice"] == choice and stripped.forced is None


def test_list_tools_names_each_and_refuses_the_unreadable() -> None:
    """In order, hosted ones by type."""
    assert list_tools({"tools": [{"type": "mcp"}], "functions": [{"name": "a"}], "web_search_options": {}}) == (
        "mcp",
        "a",
        "web_search_options",
    )
    with pytest.raises(InvalidRequest):
        list_tools({"tools": [{"type": ""}]})
