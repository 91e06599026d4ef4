"""How a whole Responses answer is guarded."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from response_scene import (
    BLOCKED,
    MARK,
    REDACTED,
    REFUSAL,
    WordGuard,
    decode,
    events_of,
    function_call,
    message,
    reasoning,
    response,
    rewrite,
)

from lukhas.errors import UpstreamBroken
from lukhas.openai.call import CallVerdict, ToolCall
from lukhas.openai.response import ResponseDialect, read_object_ids
from lukhas.openai.response_answer import guard_response
from lukhas.openai.wire import AnswerSummary

SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
IMAGE = {"id": "ig_1", "type": "image_generation_call", "status": "completed", "result": "iVBORw0KGgo="}


def guarded(answer: dict[str, Any], guard: WordGuard | None = None) -> dict[str, Any]:
    plain = copy.deepcopy(answer)
    ResponseDialect().guard_answer(plain, guard or WordGuard())
    return plain


def refusal_of(item: dict[str, Any]) -> str:
    (part,) = item["content"]
    assert part["type"] == "refusal"
    return part["refusal"]


def test_guard_blocked_text_becomes_a_refusal_and_ends_the_answer() -> None:
    """The text goes, what came before it stays, what comes after it goes, and the response says why it stops."""
    answer = response([message("fine"), message(f"a {BLOCKED} b", item_id="msg_2"), function_call("f", "{}")])
    plain = guarded(answer)
    assert plain["output"][0] == answer["output"][0]
    assert refusal_of(plain["output"][1]) == REFUSAL
    assert plain["output"][1]["status"] == "incomplete"
    assert len(plain["output"]) == 2
    assert (plain["status"], plain["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    assert plain["usage"] == answer["usage"]


def test_guard_redacted_text_stays_in_its_place() -> None:
    """A redaction changes the text alone."""
    plain = guarded(response([message(f"a {REDACTED} b")]))
    assert plain["output"][0]["content"][0]["text"] == f"a {MARK} b"
    assert plain["status"] == "completed"


def test_guard_blocked_reasoning_ends_the_answer_with_a_refusal_behind_it() -> None:
    """Reasoning has no refusals, so one message follows; its hidden form goes too."""
    item = {**reasoning("fine", f"a {BLOCKED}"), "encrypted_content": "gAAAA"}
    plain = guarded(response([item, message("never")]))
    assert [part["text"] for part in plain["output"][0]["summary"]] == ["fine", "a "]
    assert "encrypted_content" not in plain["output"][0]
    assert refusal_of(plain["output"][1]) == REFUSAL
    assert len(plain["output"]) == 2
    assert plain["status"] == "incomplete"


@pytest.mark.parametrize("others", [[], [message("text")], [function_call("good", "{}", item_id="fc_2")], [SEARCH]])
def test_guard_blocked_call_is_replaced_at_its_place(others: list[dict[str, Any]]) -> None:
    """One answer for each blocked call; the response is incomplete only where nothing else is left."""
    plain = guarded(response([function_call("bad", "{}"), *others]))
    assert refusal_of(plain["output"][0]) == "The call of bad was blocked."
    assert plain["output"][1:] == others
    assert plain["status"] == ("completed" if others else "incomplete")
    assert guard_response(response([function_call("bad", "{}")]), WordGuard()).blocked_calls == ["call_fc_1"]


@pytest.mark.parametrize(
    ("item", "tools", "call"),
    [
        pytest.param(
            function_call("f", '{"a":1}'), [], ToolCall("function", "f", '{"a":1}', "call_fc_1"), id="function"
        ),
        pytest.param(
            {"type": "custom_tool_call", "id": "i", "call_id": "c", "name": "n", "input": "free text"},
            [],
            ToolCall("custom", "n", "free text", "c"),
            id="custom",
        ),
        pytest.param(SEARCH, [], ToolCall("hosted", "web_search", "", "ws_1"), id="web-search"),
        pytest.param(
            SEARCH,
            [{"type": "web_search_preview"}],
            ToolCall("hosted", "web_search_preview", "", "ws_1"),
            id="web-search-as-offered",
        ),
        pytest.param(
            {"type": "file_search_call", "id": "i", "queries": ["q"]},
            [],
            ToolCall("hosted", "file_search", '{"queries":["q"]}', "i"),
            id="file-search",
        ),
        pytest.param(
            {"type": "code_interpreter_call", "id": "i", "code": "print()", "container_id": "cntr_1"},
            [],
            ToolCall("hosted", "code_interpreter", "print()", "i"),
            id="code",
        ),
        pytest.param(
            {"type": "computer_call", "id": "i", "call_id": "c", "action": {"type": "wait"}},
            [],
            ToolCall("hosted", "computer_use", "", "c"),
            id="computer",
        ),
        pytest.param(
            {"type": "mcp_call", "id": "i", "name": "n", "server_label": "s", "arguments": "{}"},
            [],
            ToolCall("hosted", "mcp", "{}", "i"),
            id="mcp",
        ),
        pytest.param(
            {"type": "mcp_approval_request", "id": "i", "name": "n", "server_label": "s", "arguments": "{}"},
            [],
            ToolCall("hosted", "mcp", "{}", "i"),
            id="mcp-approval",
        ),
        pytest.param(
            {"type": "mcp_list_tools", "id": "i", "server_label": "s", "tools": []},
            [],
            ToolCall("hosted", "mcp", "", "i"),
            id="mcp-list",
        ),
        pytest.param(
            {"type": "local_shell_call", "id": "i", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}},
            [],
            ToolCall("hosted", "local_shell", "", "c"),
            id="local-shell",
        ),
        pytest.param(
            {"type": "shell_call", "id": "i", "call_id": "c", "action": {"commands": ["ls"]}},
            [],
            ToolCall("hosted", "shell", "", "c"),
            id="shell",
        ),
        pytest.param(
            {"type": "apply_patch_call", "id": "i", "call_id": "c", "operation": {"type": "delete_file", "path": "p"}},
            [],
            ToolCall("hosted", "apply_patch", "", "c"),
            id="patch",
        ),
        pytest.param(IMAGE, [], ToolCall("hosted", "image_generation", "", "ig_1"), id="image"),
        pytest.param({"type": "new_call", "id": "i", "x": "y"}, [], ToolCall("hosted", "new", "y", "i"), id="unknown"),
    ],
)
def test_guard_call_is_judged_under_the_name_of_its_tool(
    item: dict[str, Any], tools: list[dict[str, Any]], call: ToolCall
) -> None:
    """A function goes by its name, a hosted tool by the type that the request would give it."""
    guard = WordGuard()
    guarded(response([item], tools=tools), guard)
    (seen,) = guard.calls
    assert (seen.kind, seen.name, seen.call_id) == (call.kind, call.name, call.call_id)
    assert seen.arguments == call.arguments or (not call.arguments and orjson.loads(seen.arguments or "{}") is not None)


def test_guard_redacted_arguments_go_back_into_their_place() -> None:
    """Structured arguments are judged as JSON and come back as what they were."""
    search = {**SEARCH, "action": {"type": "search", "query": REDACTED}}
    plain = guarded(response([function_call("good", REDACTED), search]))
    assert plain["output"][0]["arguments"] == MARK
    assert plain["output"][1]["action"] == {"type": "search", "query": MARK}


def test_guard_arguments_that_lose_their_form_are_blocked() -> None:
    """What can no longer be put back does not pass half."""

    class Breaker(WordGuard):
        def judge(self, call: ToolCall) -> CallVerdict:
            return CallVerdict(True, "no JSON any more")

    assert refusal_of(guarded(response([SEARCH]), Breaker())["output"][0]) == REFUSAL


@pytest.mark.parametrize("admits", [True, False])
def test_guard_picture_passes_where_media_may(admits: bool) -> None:
    """What no moderator can read follows the setting; the answer goes on either way."""
    inner = {"type": "image", "url": "data:image/png;base64,AAAA"}
    code = {"id": "ci_1", "type": "code_interpreter_call", "code": "x", "container_id": "c", "outputs": [inner]}
    answer = response([IMAGE, code, message("text")])
    guard = WordGuard(admits_media=admits)
    plain = guarded(answer, guard)
    assert (plain == answer) == admits
    assert plain["output"][2] == answer["output"][2]
    assert plain["status"] == "completed"
    _, raw = rewrite(events_of(answer), WordGuard(admits_media=admits))
    assert decode(raw)[-1]["response"] == plain
    assert (b"iVBOR" in raw) == admits


@pytest.mark.parametrize("status", ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"])
def test_guard_stored_answer_in_any_state(status: str) -> None:
    """A response that is fetched later is guarded alike; one that failed stays failed."""
    plain = guarded(response([message(BLOCKED)], status=status, error={"code": "x", "message": f"of {BLOCKED}"}))
    assert BLOCKED not in str(plain)
    assert plain["status"] == (status if status in ("failed", "cancelled") else "incomplete")
    assert plain["error"]["message"] == REFUSAL
    empty = response([], status=status)
    assert guarded(empty) == empty


def test_guard_request_repeated_in_the_answer_passes() -> None:
    """What the caller sent, and what the policy's style added, is no part of the answer."""
    mine = {"instructions": BLOCKED, "tools": [{"type": "custom", "description": BLOCKED}], "metadata": {"k": BLOCKED}}
    answer = response([message("text")], **mine, prompt={"id": "p", "variables": {"v": BLOCKED}})
    assert guarded(answer) == answer
    assert guarded({**answer, "unheard_of": [BLOCKED]})["unheard_of"] is None


def test_guard_output_text_follows_the_output() -> None:
    """Servers that add the joined text add what was released."""
    assert guarded(response([message(f"a {REDACTED}")], output_text=f"a {REDACTED}"))["output_text"] == f"a {MARK}"
    assert guarded(response([message(BLOCKED)], output_text=BLOCKED))["output_text"] == ""
    assert guarded(response([], output_text=BLOCKED))["output_text"] == ""


@pytest.mark.parametrize(("token", "kept"), [("text", True), (BLOCKED, False), (REDACTED, False)])
@pytest.mark.parametrize("rank", ["chosen", "alternative"])
def test_guard_logprobs_say_no_more_than_the_text(token: str, kept: bool, rank: str) -> None:
    """The tokens, and the alternatives read one after the other, are texts like any other."""
    halves = [token[:3], token[3:]] if rank == "alternative" else ["te", "xt"]
    entries = [
        {"token": chosen, "logprob": -0.1, "bytes": [1], "top_logprobs": [{"token": half, "logprob": -0.1}]}
        for chosen, half in zip([token[:3], token[3:]] if rank == "chosen" else ["te", "xt"], halves, strict=True)
    ]
    item = message("text")
    item["content"][0]["logprobs"] = entries
    answer = response([item])
    plain = guarded(answer)
    assert token == "text" or token not in str(plain)
    if kept:
        assert plain == answer
    elif plain["output"][0]["content"][0]["type"] == "output_text":
        assert plain["output"][0]["content"][0]["logprobs"] == []


@pytest.mark.parametrize(
    "output", [7, "text", {"a": 1}, [7], [None], [BLOCKED], [{}], [{"type": 7}], [{"type": "message", "content": 7}]]
)
def test_guard_output_of_odd_shape_is_guarded_or_refused(output: Any) -> None:
    """Nothing odd slips by, and nothing odd is an accident."""
    answer = {**response([]), "output": output}
    try:
        plain = guarded(answer)
    except UpstreamBroken:
        assert not isinstance(output, list)
        return
    assert BLOCKED not in str(plain)


def test_guard_deep_answer_is_refused() -> None:
    """What is nested past all sense cannot be guarded, and is not passed on."""
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    with pytest.raises(UpstreamBroken):
        guard_response(response([{"type": "unheard_of", "deep": deep}]), WordGuard())


def test_summarise_reads_status_usage_and_model() -> None:
    """The record says how the answer ended and what it used."""
    summary = AnswerSummary()
    ResponseDialect().summarise(guarded(response([message(BLOCKED)])), summary)
    assert summary.finish_reasons == {0: "content_filter"}
    assert summary.usage == {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
    assert summary.model == "gpt-4o-mini"
    odd = AnswerSummary()
    ResponseDialect().summarise({"status": 7, "usage": [], "model": {}}, odd)
    assert odd == AnswerSummary()


def test_read_object_ids_names_what_the_answer_made() -> None:
    """Each object once, so that it can be bound to its tenant."""
    output = [
        message("a"),
        {"id": "ci_1", "type": "code_interpreter_call", "container_id": "cntr_1"},
        {"id": "sh_1", "type": "shell_call", "environment": {"type": "container_reference", "container_id": "cntr_1"}},
        {"type": "message"},
        "odd",
    ]
    found = read_object_ids(response(output, conversation={"id": "conv_1"}))
    assert [(one.kind, one.id) for one in found] == [
        ("response", "resp_1"),
        ("conversation", "conv_1"),
        ("item", "msg_1"),
        ("item", "ci_1"),
        ("container", "cntr_1"),
        ("item", "sh_1"),
    ]
    assert read_object_ids({"output": 7, "conversation": 7, "id": None}) == []
