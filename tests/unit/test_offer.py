"""Stripping tools: for every request of every dialect, what is left was allowed, and nothing else changed (I4)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lukhas.errors import InvalidRequest
from lukhas.openai.call import DialectName
from lukhas.openai.offer import NOTHING, list_tools, strip_tools

NAMES = ("a", "b", "c", "A", "\u0430")
HOSTED_NAMES = ("mcp", "file_search", "web_search", "tool_search", "programmatic_tool_calling", "brand_new")
FIELDS = ("web_search_options", "plugins", "search_parameters")
EVERY = (*NAMES, *HOSTED_NAMES, *FIELDS, "prompt", "functions")
ANY_NAME = st.sampled_from(NAMES)
HOSTED = st.sampled_from(HOSTED_NAMES).map(lambda kind: {"type": kind})
FLAT = st.builds(lambda kind, name: {"type": kind, "name": name}, st.sampled_from(["function", "custom"]), ANY_NAME)
NESTED = FLAT.map(lambda tool: {"type": tool["type"], tool["type"]: {"name": tool["name"]}})
NAMESPACE = st.lists(FLAT, max_size=3).map(lambda tools: {"type": "namespace", "name": "space", "tools": tools})


def choices(tool: st.SearchStrategy[dict[str, Any]], nested: bool) -> st.SearchStrategy[Any]:
    """Return what `tool_choice` may be, narrowing a list in the dialect's own form among it."""

    def allow(mode: str, tools: list[dict[str, Any]]) -> dict[str, Any]:
        inner = {"mode": mode, "tools": tools}
        return {"type": "allowed_tools", **({"allowed_tools": inner} if nested else inner)}

    words = st.sampled_from(["auto", "none", "required", "any", "a", None])
    return words | tool | st.builds(allow, st.sampled_from(["auto", "required"]), st.lists(tool, max_size=3))


CHAT_TOOL = NESTED | HOSTED
CHAT = st.fixed_dictionaries(
    {"model": st.just("m")},
    optional={
        "tools": st.none() | st.lists(CHAT_TOOL, max_size=4),
        "functions": st.none() | st.lists(ANY_NAME.map(lambda name: {"name": name}), max_size=3),
        "function_call": st.sampled_from(["auto", "none"]) | ANY_NAME.map(lambda name: {"name": name}),
        "tool_choice": choices(CHAT_TOOL, nested=True),
        "parallel_tool_calls": st.booleans(),
        **{field: st.sampled_from([None, False, [], {}, [{"id": "web"}], True]) for field in FIELDS},
    },
)
RESPONSES_TOOL = FLAT | HOSTED | NAMESPACE
ITEM = (
    st.just({"role": "user", "content": "hello"})
    | st.builds(
        lambda kind, tools: {"type": kind, "tools": tools},
        st.sampled_from(["additional_tools", "tool_search_output"]),
        st.lists(RESPONSES_TOOL, max_size=3),
    )
    | st.just({"type": "mcp_list_tools", "server_label": "s", "tools": [{"name": "rm"}]})
    | st.just({"type": "mcp_approval_response", "approval_request_id": "x", "approve": True})
)
RESPONSES = st.fixed_dictionaries(
    {"model": st.just("m")},
    optional={
        "input": st.just("hello") | st.lists(ITEM, max_size=4),
        "tools": st.none() | st.lists(RESPONSES_TOOL, max_size=4),
        "tool_choice": choices(FLAT | HOSTED, nested=False),
        "prompt": st.none() | st.just({"id": "pmpt_1"}),
        "parallel_tool_calls": st.booleans(),
        "max_tool_calls": st.just(3),
        "include": st.lists(
            st.sampled_from(["file_search_call.results", "web_search_call.action.sources"]), max_size=2
        ),
        **{field: st.sampled_from([None, False, [], {}, True]) for field in (*FIELDS, "functions")},
    },
)
ALLOWED = st.sets(st.sampled_from(EVERY))


def nest(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


def name_of(tool: dict[str, Any]) -> str:
    return tool.get("function", tool.get("custom", tool)).get("name") or tool["type"]


def listed(tools: Any) -> Iterator[dict[str, Any]]:
    """Yield the tools of a list, those inside a namespace too."""
    for tool in tools or []:
        if tool.get("type") == "namespace":
            yield from tool["tools"]
        else:
            yield tool


def advertised(dialect: DialectName, body: dict[str, Any]) -> list[str]:
    """Return every tool that a request lets the model use, wherever it stands."""
    found = [name_of(tool) for tool in listed(body.get("tools"))]
    if dialect == "chat":
        found += [tool["name"] for tool in body.get("functions") or []]
    elif body.get("functions"):
        found.append("functions")
    for item in body["input"] if isinstance(body.get("input"), list) else []:
        kind = item.get("type", "")
        if kind in ("additional_tools", "tool_search_output"):
            found += [name_of(tool) for tool in listed(item["tools"])]
        elif kind == "mcp_list_tools" or item.get("approve"):
            found.append("mcp")
    return found + [field for field in FIELDS if body.get(field) not in (None, False, [])]


def chosen(body: dict[str, Any]) -> list[str]:
    """Return every tool that a request's choice names."""
    found: list[str] = []
    for choice in (body.get("tool_choice"), body.get("function_call")):
        if isinstance(choice, dict):
            inner = choice.get("allowed_tools", choice)
            found += [name_of(tool) for tool in inner.get("tools", [choice])]
    return found


BODIES = st.tuples(st.just("chat"), CHAT) | st.tuples(st.just("responses"), RESPONSES)


@given(BODIES, ALLOWED)
def test_stripping_leaves_what_is_allowed_and_nothing_else(
    given_body: tuple[DialectName, dict[str, Any]], allowed: set[str]
) -> None:
    """No tool outside the allowlist is left anywhere, allowed ones stay in order, and the request is not changed."""
    dialect, body = given_body
    before = copy.deepcopy(body)
    kept, stripped = strip_tools(dialect, body, allowed.__contains__, allowed.__contains__)
    assert body == before
    assert advertised(dialect, kept) == [name for name in advertised(dialect, body) if name in allowed]
    assert set(stripped.removed) == set(stripped.offered) - allowed
    assert set(stripped.kept_functions) <= allowed
    functions = {name for name in stripped.kept_functions if name in NAMES}
    assert functions == {name for name in advertised(dialect, kept) if name in NAMES}
    if not stripped.removed:
        assert kept == body
    if stripped.forced is not None:
        assert stripped.forced in stripped.removed
        return
    assert set(chosen(kept)) <= allowed
    assert kept.get("tool_choice") not in stripped.removed
    assert kept.get("prompt") is None or "prompt" in allowed
    tools = [*(kept.get("tools") or []), *(kept.get("functions") or [] if dialect == "chat" else [])]
    items = kept["input"] if isinstance(kept.get("input"), list) else []
    if stripped.removed and not tools and not any(item.get("tools") for item in items):
        assert not {"tool_choice", "function_call", "parallel_tool_calls", "max_tool_calls"} & set(kept)


@given(BODIES)
def test_empty_allowlist_advertises_nothing(given_body: tuple[DialectName, dict[str, Any]]) -> None:
    """Denied by default: nothing is left, or the request is refused."""
    dialect, body = given_body
    kept, stripped = strip_tools(dialect, body, lambda _: False, lambda _: False)
    assert advertised(dialect, kept) == [] and stripped.kept_functions == {}
    assert stripped.forced is not None or (chosen(kept) == [] and kept.get("prompt") is None)


@given(BODIES)
def test_listing_names_what_stripping_offers(given_body: tuple[DialectName, dict[str, Any]]) -> None:
    """Both read the same places."""
    dialect, body = given_body
    names = list_tools(dialect, body)
    for name in advertised(dialect, body):
        assert name in names


def test_request_without_tools_is_handed_back_itself() -> None:
    """The usual case costs nothing."""
    body: dict[str, Any] = {"model": "m", "tools": None, "tool_choice": {"odd": 1}, "input": [{"role": "user"}, 3]}
    for dialect in ("chat", "responses", "embeddings", "moderations"):
        kept, stripped = strip_tools(dialect, body, lambda _: False, lambda _: False)
        assert kept is body and stripped is NOTHING


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param({"type": "allowed_tools"}, id="bare"),
        pytest.param([1], id="list"),
        pytest.param({"function": "b"}, id="odd"),
        pytest.param({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": 5}}, id="odd-list"),
    ],
)
def test_odd_choice_is_the_upstreams_to_judge(choice: Any) -> None:
    """What forces nothing that can be read is handed on while tools are left."""
    tools = [{"type": "function", "function": {"name": name}} for name in "ab"]
    kept, stripped = strip_tools("chat", {"tools": tools, "tool_choice": choice}, "b".__eq__, "b".__eq__)
    assert kept["tool_choice"] == choice and stripped.forced is None


@pytest.mark.parametrize(
    ("choice", "forced"),
    [
        pytest.param({"type": "function", "name": "b", "function": {"name": "a"}}, "a", id="two-names"),
        pytest.param({"type": "web_search"}, "web_search", id="hosted-that-is-not-offered"),
        pytest.param({"type": "mcp", "server_label": "s", "name": "b"}, "mcp", id="mcp"),
        pytest.param("a", "a", id="bare-name"),
        pytest.param({"type": "function", "name": "space"}, "space", id="function-named-as-a-namespace"),
        pytest.param({"type": "namespace", "name": "space"}, None, id="namespace"),
        pytest.param({"type": "namespace", "name": "gone"}, "gone", id="namespace-that-is-gone"),
        pytest.param(
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "a"}]},
            "a",
            id="allowed-tools-with-none-left",
        ),
    ],
)
def test_choice_of_a_denied_tool_is_forced(choice: Any, forced: str | None) -> None:
    """However the choice is written, and whether or not the tool is offered."""
    inner = [{"type": "function", "name": name} for name in "ab"]
    tools = [
        {"type": "namespace", "name": "space", "tools": inner},
        {"type": "namespace", "name": "gone", "tools": inner[:1]},
    ]
    _, stripped = strip_tools("responses", {"tools": tools, "tool_choice": choice}, "b".__eq__, "b".__eq__)
    assert stripped.forced == forced


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        pytest.param("chat", {"tools": [{"type": ""}]}, id="empty-type"),
        pytest.param("chat", {"tools": {"type": "function"}}, id="no-list"),
        pytest.param("chat", {"tools": [{"type": "function", "function": {"name": ""}}]}, id="empty-name"),
        pytest.param("chat", {"tools": [{"type": "function", "function": {"name": 5}}]}, id="name-of-another-type"),
        pytest.param("chat", {"tools": [{"type": "function", "name": "b", "function": {"name": "a"}}]}, id="two-names"),
        pytest.param("chat", {"tools": [{"type": "function", "name": "b"}]}, id="name-beside"),
        pytest.param("chat", {"tools": [{"type": "custom", "function": {"name": "b"}}]}, id="other-member"),
        pytest.param("chat", {"functions": ["a"]}, id="text"),
        pytest.param("responses", {"tools": [{"type": "namespace", "name": "x"}]}, id="namespace-without-tools"),
        pytest.param("responses", {"tools": [{"type": "namespace", "tools": []}]}, id="namespace-without-name"),
        pytest.param(
            "responses",
            {"tools": [{"type": "namespace", "name": "x", "tools": [{"type": "namespace", "name": "y", "tools": []}]}]},
            id="namespace-in-a-namespace",
        ),
        pytest.param("chat", {"functions": [{"name": "a", "parameters": nest(5_000)} for _ in "ab"]}, id="deep-twice"),
        pytest.param("responses", {"input": [{"type": "additional_tools", "tools": "a"}]}, id="item"),
        pytest.param("responses", {"tools": [{"type": "function", "name": "a", "parameters": [1]}]}, id="parameters"),
    ],
)
def test_what_cannot_be_read_is_refused(dialect: DialectName, body: dict[str, Any]) -> None:
    """A tool that nobody can name cannot be judged."""
    with pytest.raises(InvalidRequest):
        list_tools(dialect, body)


def test_kept_functions_have_the_schemas_of_their_calls() -> None:
    """The call moment needs them: none for free text, an object for a function that takes nothing."""
    schema = {"type": "object", "properties": {"x": {"type": "string"}}}
    chat = {
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": schema}},
            {"type": "function", "function": {"name": "bare"}},
            {"type": "custom", "custom": {"name": "c"}},
        ],
        "functions": [{"name": "old", "parameters": schema}],
    }
    _, stripped = strip_tools("chat", chat, lambda _: True, lambda _: True)
    assert stripped.kept_functions == {"f": schema, "bare": {"type": "object"}, "c": None, "old": schema}
    inner = {"type": "function", "name": "f", "parameters": schema}
    flat = {"tools": [inner, {"type": "namespace", "name": "crm", "tools": [{**inner, "parameters": None}]}]}
    _, stripped = strip_tools("responses", flat, lambda _: True, lambda _: True)
    assert stripped.kept_functions == {"f": {"anyOf": [schema, {"type": "object"}]}}


def test_servers_are_named_for_the_record() -> None:
    """Which MCP server was offered is not to be seen from the type."""
    tools = [{"type": "mcp", "server_label": "wiki", "server_url": "https://example.com", "authorization": "secret"}]
    _, stripped = strip_tools("responses", {"tools": tools}, lambda _: True, lambda _: False)
    assert stripped.servers == ("wiki",) and stripped.removed == ("mcp",)


def test_approval_of_a_denied_server_is_turned_into_a_refusal() -> None:
    """Upstream would else carry out what it asked for earlier."""
    item = {"type": "mcp_approval_response", "approval_request_id": "r", "approve": True}
    kept, _ = strip_tools("responses", {"input": [item]}, lambda _: True, lambda _: False)
    assert kept["input"] == [{**item, "approve": False}] and item["approve"] is True


def test_search_output_stays_without_its_tools() -> None:
    """It answers a call, so it may be empty but not away; a list of additional tools goes."""
    tools = [{"type": "function", "name": "a"}]
    items = [{"type": kind, "call_id": "x", "tools": tools} for kind in ("tool_search_output", "additional_tools")]
    kept, stripped = strip_tools("responses", {"input": items}, lambda _: False, lambda _: False)
    assert kept["input"] == [{**items[0], "tools": []}] and stripped.removed == ("a", "a")


def test_include_of_a_tool_that_is_gone_goes_too() -> None:
    """What is asked of the others stays."""
    body = {
        "tools": [{"type": "file_search"}, {"type": "web_search"}],
        "include": ["file_search_call.results", "web_search_call.action.sources"],
    }
    kept, _ = strip_tools("responses", body, lambda _: False, "web_search".__eq__)
    assert kept == {"tools": [{"type": "web_search"}], "include": ["web_search_call.action.sources"]}


def test_empty_namespace_offers_nothing_and_stays() -> None:
    """Only what is taken out may go; a list that was empty is the upstream's to judge."""
    empty = {"type": "namespace", "name": "space", "tools": []}
    full = {"type": "namespace", "name": "other", "tools": [{"type": "function", "name": "a"}]}
    kept, stripped = strip_tools("responses", {"tools": [empty, full]}, lambda _: False, lambda _: False)
    assert kept["tools"] == [empty] and stripped.removed == ("a",)
