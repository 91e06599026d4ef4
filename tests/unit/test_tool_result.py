"""Results of calls that were not allowed: one answer each, ours, and nothing else touched (I4)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lukhas.openai.call import DialectName
from lukhas.openai.tool_result import MESSAGE, Settled, settle_results, unmatched_results

DENIED = "bad"
IDS = st.sampled_from(["c1", "c2", "c3", "c4"])
FUNCTIONS = st.sampled_from(["good", "bad"])


def is_denied(name: str) -> bool:
    return name == DENIED


def call(call_id: str | None, name: str, kind: str = "function") -> dict[str, Any]:
    return {"id": call_id, "type": kind, kind: {"name": name, "arguments": "{}"}}


def assistant(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def tool(call_id: str, content: Any = "theirs") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def item(call_id: str, name: str, kind: str = "function_call") -> dict[str, Any]:
    return {"type": kind, "call_id": call_id, "name": name, "arguments": "{}"}


def output(call_id: str, text: Any = "theirs", kind: str = "function_call_output") -> dict[str, Any]:
    return {"type": kind, "call_id": call_id, "output": text}


USER = {"role": "user", "content": "go on"}
CHAT_MESSAGE = (
    st.just(USER)
    | st.builds(lambda calls: assistant(*calls), st.lists(st.builds(call, IDS, FUNCTIONS), max_size=3))
    | st.builds(tool, IDS)
    | FUNCTIONS.map(lambda name: {"role": "assistant", "function_call": {"name": name, "arguments": ""}})
    | FUNCTIONS.map(lambda name: {"role": "function", "name": name, "content": "theirs"})
    | FUNCTIONS.map(lambda name: {"role": "tool", "name": name, "content": "theirs"})
)
CALL_KIND = st.sampled_from(["function_call", "custom_tool_call"])
RESPONSE_ITEM = (
    st.just(USER)
    | st.builds(item, IDS, FUNCTIONS, CALL_KIND)
    | st.builds(output, IDS, st.just("theirs"), CALL_KIND.map(lambda kind: f"{kind}_output"))
    | st.builds(lambda call_id, name: {**output(call_id), "name": name}, IDS, FUNCTIONS)
)
BODIES = st.tuples(
    st.just("chat"), st.fixed_dictionaries({"messages": st.lists(CHAT_MESSAGE, max_size=8)})
) | st.tuples(
    st.just("responses"),
    st.fixed_dictionaries({}, optional={"input": st.just("hi") | st.lists(RESPONSE_ITEM, max_size=8)}),
)
BLOCKED = st.lists(IDS, max_size=2)


@given(BODIES, BLOCKED)
def test_settling_twice_changes_nothing_more(body: tuple[DialectName, dict[str, Any]], blocked: list[str]) -> None:
    """An application that sends its history again gets the same request; the given one is not changed."""
    dialect, given_body = body
    before = copy.deepcopy(given_body)
    once, settled = settle_results(dialect, given_body, is_denied, blocked)
    assert given_body == before
    assert settled or once is given_body
    assert settle_results(dialect, once, is_denied, blocked)[0] == once


@given(BODIES, BLOCKED)
def test_every_denied_call_has_one_answer_right_behind_it(
    body: tuple[DialectName, dict[str, Any]], blocked: list[str]
) -> None:
    """Ours, in the order of the calls; no result of a denied function is left, and what is allowed stays in order."""
    dialect, given_body = body
    settled_body, settled = settle_results(dialect, given_body, is_denied, blocked)
    field = "messages" if dialect == "chat" else "input"
    after = settled_body.get(field)
    items = after if isinstance(after, list) else []
    text_field = "content" if dialect == "chat" else "output"
    for place, one in enumerate(items):
        expected = list(denied_ids(one, blocked))
        behind = [entry.get("tool_call_id") or entry.get("call_id") for entry in items[place + 1 :]]
        assert behind[: len(expected)] == expected
        for answer in items[place + 1 : place + 1 + len(expected)]:
            assert answer[text_field] == MESSAGE
        is_result = one.get("role") in ("tool", "function") or one.get("type", "").endswith("_output")
        if is_result and one.get("name") == DENIED and one.get("tool_call_id") is None and dialect == "chat":
            assert one["content"] == MESSAGE
    given_items = given_body.get(field)
    theirs = [one for one in items if one.get(text_field) != MESSAGE]
    if isinstance(given_items, list):
        left = iter(given_items)
        assert all(any(one == other for other in left) for one in theirs)
        calls = [one for one in given_items if one.get(text_field) is None or one.get("role") == "user"]
        assert [one for one in items if one.get(text_field) is None or one.get("role") == "user"] == calls
    if dialect == "responses":
        answered = [one.get("call_id") for one in items if one.get("output") == MESSAGE]
        assert set(blocked) <= set(answered)
    assert bool(settled) == (settled_body is not given_body)


def denied_ids(one: dict[str, Any], blocked: list[str]) -> dict[str, None]:
    """Return the ids of an entry's calls that are not allowed, each once."""
    found = [(c["id"], c["function"]["name"]) for c in one.get("tool_calls", [])]
    if one.get("type") in ("function_call", "custom_tool_call"):
        found = [(one["call_id"], one["name"])]
    return dict.fromkeys(call_id for call_id, name in found if name == DENIED or call_id in blocked)


def test_chat_results_are_replaced_added_and_left() -> None:
    """Parallel calls: a duplicate answer goes, a missing one comes, an allowed one stays."""
    history = [
        USER,
        assistant(call("c1", "bad"), call("c2", "good"), call("c3", "bad", "custom")),
        tool("c2"),
        tool("c1", [{"type": "text", "text": "theirs"}]),
        tool("c1"),
        USER,
    ]
    body, settled = settle_results("chat", {"model": "m", "messages": history}, is_denied)
    assert body == {
        "model": "m",
        "messages": [*history[:2], tool("c1", MESSAGE), tool("c3", MESSAGE), tool("c2"), USER],
    }
    assert settled == (Settled("bad", "c1", "replaced"), Settled("bad", "c3", "added"))


def test_chat_ids_that_return_in_each_turn_are_kept_apart() -> None:
    """Some models number their calls anew every time."""
    history = [
        assistant(call("c1", "good")),
        tool("c1", "one"),
        assistant(call("c1", "bad")),
        tool("c1", "two"),
        assistant(call("c1", "good")),
        tool("c1", "three"),
    ]
    body, settled = settle_results("chat", {"messages": history}, is_denied)
    assert [one.get("content") for one in body["messages"]] == [None, "one", None, MESSAGE, None, "three"]
    assert len(settled) == 1


def test_legacy_function_is_settled_by_name() -> None:
    """It has no ids."""
    asked = {"role": "assistant", "content": None, "function_call": {"name": "bad", "arguments": "{}"}}
    result = {"role": "function", "name": "bad", "content": "theirs"}
    ours = {**result, "content": MESSAGE}
    for history in ([asked, result, USER], [asked, USER], [asked, result, result, USER]):
        assert settle_results("chat", {"messages": history}, is_denied)[0]["messages"] == [asked, ours, USER]
    assert settle_results("chat", {"messages": [result]}, is_denied)[0]["messages"] == [ours]


def test_responses_outputs_follow_their_calls() -> None:
    """A custom tool's answer is of its own kind, and a program's call keeps its caller."""
    caller = {"type": "program", "caller_id": "p"}
    items = [item("c1", "bad", "custom_tool_call"), {**item("c2", "bad"), "caller": caller}, item("c3", "good")]
    body, settled = settle_results("responses", {"input": [*items, output("c3"), output("c2")]}, is_denied)
    assert body["input"] == [
        items[0],
        output("c1", MESSAGE, "custom_tool_call_output"),
        items[1],
        {**output("c2", MESSAGE), "caller": caller},
        items[2],
        output("c3"),
    ]
    assert [one.kind for one in settled] == ["added", "replaced"]


@pytest.mark.parametrize(
    ("fields", "rest"),
    [
        pytest.param({"input": "hi"}, [{"role": "user", "content": "hi"}], id="text"),
        pytest.param({"input": [output("c9"), USER, output("c9", "again")]}, [USER], id="own-results"),
        pytest.param({"previous_response_id": "resp_1"}, [], id="no-input"),
    ],
)
def test_blocked_calls_of_a_stored_response_are_answered_first(fields: dict[str, Any], rest: list[Any]) -> None:
    """Upstream's history still holds the call, and a call without an answer is an error there."""
    body, settled = settle_results("responses", fields, is_denied, ["c9", "c9"], "no")
    assert body == {**fields, "input": [output("c9", "no"), *rest]}
    assert [one.call_id for one in settled] == ["c9"]


def test_blocked_custom_call_is_answered_in_its_kind() -> None:
    """The caller's own output says which kind the call was of."""
    own = output("c9", kind="custom_tool_call_output")
    body, _ = settle_results("responses", {"input": [own]}, is_denied, ["c9"])
    assert body["input"] == [output("c9", MESSAGE, "custom_tool_call_output")]


def test_result_that_names_a_denied_function_is_replaced_without_its_call() -> None:
    """With a stored history the call is not at hand, but the name may be."""
    named = {**output("c5"), "name": "bad"}
    body, settled = settle_results("responses", {"input": [named]}, is_denied)
    assert body["input"] == [{**named, "output": MESSAGE}] and settled[0].name == "bad"


@pytest.mark.parametrize(
    "history",
    [
        pytest.param("text", id="text"),
        pytest.param([None, 5, "x", {"role": 3}, {"role": "assistant", "tool_calls": "x"}], id="odd-messages"),
        pytest.param([assistant({"id": 5}, {"id": "c1", "function": {"name": None}})], id="odd-calls"),
        pytest.param([{"type": "function_call", "name": ["bad"], "call_id": {}}], id="odd-items"),
        pytest.param([{"role": "tool"}, {"type": "function_call_output"}], id="results-without-anything"),
    ],
)
def test_what_is_no_call_is_left_alone(history: Any) -> None:
    """Wrong shapes are the upstream's to judge."""
    for dialect, field in (("chat", "messages"), ("responses", "input")):
        body = {field: history}
        assert settle_results(dialect, body, is_denied) == (body, ())
        assert unmatched_results(dialect, body) == ()


def test_results_without_their_call_are_listed_and_left() -> None:
    """The record says how many there were."""
    chat = {"messages": [tool("c1"), assistant(call("c2", "good")), tool("c2"), tool("c1"), tool("c3")]}
    assert unmatched_results("chat", chat) == ("c1", "c3")
    responses = {"input": [item("c2", "good"), output("c2"), output("c4")]}
    assert unmatched_results("responses", responses) == ("c4",)
    assert settle_results("chat", chat, is_denied)[0] is chat
    assert unmatched_results("embeddings", {"input": ["a"]}) == ()
    assert settle_results("embeddings", {"input": ["a"]}, is_denied, ["c1"]) == ({"input": ["a"]}, ())
