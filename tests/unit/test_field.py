"""Unlisted fields of a request: those that look as if they bore tools are found, all others pass."""

from __future__ import annotations

from typing import Any

import pytest

from lukhas.openai.call import DialectName
from lukhas.openai.field import HOSTED_FIELDS, KNOWN_FIELDS, TOOL_FIELDS, find_unlisted_tool_field

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    "name",
    [
        *("my_tools", "toolset", "Tools", "TOOLS", "tool\u017f", "function_list", "functionCall", "plugin_ids"),
        *(
            "mcpServers",
            "mcp_config",
            "agent",
            "agents_v2",
            "web_access",
            "browser",
            "browsing",
            "deep_research_search",
        ),
        *("retriever", "actions", "action_groups", "skillset", "computer_use", "codeInterpreter", "dataSources"),
        *("google_search_retrieval", "knowledgeBase", "extensions_v2", "rag", "exec", "shell_access"),
    ],
)
def test_field_with_the_name_of_a_tool_is_found(name: str) -> None:
    """However it is spelled: servers read names without regard to case."""
    assert find_unlisted_tool_field("chat", {"model": "m", name: True}) == name
    assert find_unlisted_tool_field("chat", {"model": "m", name: None}) is None


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([TOOL], id="list-of-tools"),
        pytest.param({"a": {"b": [TOOL]}}, id="deep"),
        pytest.param({"tools": []}, id="member-tools"),
        pytest.param({"x": {"Functions": 1}}, id="member-functions"),
        pytest.param([{"type": "web_search_preview_2025_03_11"}], id="hosted-type"),
        pytest.param([{"type": "mcp", "server_url": "https://x"}], id="mcp"),
        pytest.param([{"name": "f", "parameters": {"type": "object"}}], id="name-and-schema"),
        pytest.param([{"name": "f", "input_schema": {}}], id="name-and-input-schema"),
    ],
)
def test_field_with_the_shape_of_a_tool_is_found(value: Any) -> None:
    """Whatever it is called; fields that are known to carry none are not looked into."""
    assert find_unlisted_tool_field("chat", {"extra_stuff": value}) == "extra_stuff"
    assert find_unlisted_tool_field("chat", {"metadata": value, "guided_json": value}) is None


@pytest.mark.parametrize(
    "name",
    [
        *("top_k", "min_p", "repetition_penalty", "new_sampler", "fraction", "transaction_id", "storage", "dragging"),
        *("use_beam_search", "user_defined", "website_id", "paragraphs", "reagent", "apple"),
    ],
)
def test_field_of_another_provider_passes(name: str) -> None:
    """Providers have their own sampling fields, and new ones every month."""
    assert find_unlisted_tool_field("chat", {name: {"a": [1, "b", {"type": "x", "name": "y"}]}}) is None


@pytest.mark.parametrize("dialect", ["chat", "responses", "embeddings", "moderations"])
def test_listed_field_is_never_unlisted(dialect: DialectName) -> None:
    """What is listed is dealt with elsewhere, and no field is in two lists that contradict each other."""
    listed = KNOWN_FIELDS[dialect] | TOOL_FIELDS[dialect] | HOSTED_FIELDS[dialect]
    assert find_unlisted_tool_field(dialect, {name: [TOOL] for name in listed if name != "messages"}) is None
    assert not KNOWN_FIELDS[dialect] & (TOOL_FIELDS[dialect] | HOSTED_FIELDS[dialect])


def test_field_that_offers_tools_elsewhere_is_found_in_a_dialect_without() -> None:
    """Embeddings and moderations know no tools at all."""
    assert find_unlisted_tool_field("embeddings", {"input": "a", "tools": [TOOL]}) == "tools"
    assert find_unlisted_tool_field("moderations", {"input": "a", "prompt_tools": 1}) == "prompt_tools"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param({"role": "system", "tools": [TOOL]}, "messages[1].tools", id="tools"),
        pytest.param({"role": "user", "content": "x", "data": [TOOL]}, "messages[1].data", id="by-shape"),
        pytest.param({"role": "user", "content": "x", "tool_calls": [TOOL], "name": "n"}, None, id="history"),
        pytest.param({"role": "user", "content": "x", "weight": 1, "mood": "good"}, None, id="plain"),
        pytest.param("x", None, id="no-object"),
    ],
)
def test_tools_in_a_message_are_found(message: Any, expected: str | None) -> None:
    """Some servers take tools from a message."""
    assert find_unlisted_tool_field("chat", {"messages": [{"role": "user"}, message]}) == expected
