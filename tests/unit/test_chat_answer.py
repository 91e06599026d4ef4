"""Plain chat answers: what passes, what ends a choice, what cannot be read; and what the record says of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from chat_scene import MARK, WHY, FakeGuard

from lukhas.errors import UpstreamBroken
from lukhas.openai.chat import ChatDialect
from lukhas.openai.wire import AnswerSummary


def answer(message: dict[str, Any], reason: str | None = "stop", **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason, **fields}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


def guard(value: dict[str, Any], judge: FakeGuard | None = None) -> bool:
    return ChatDialect().guard_answer(value, judge or FakeGuard())


def function(name: str = "search", arguments: Any = "{}", **fields: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


CLEAN = [
    pytest.param({"content": "Hello"}, id="text"),
    pytest.param({"content": None}, id="null"),
    pytest.param({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, id="parts"),
    pytest.param({"content": "", "refusal": "No.", "annotations": []}, id="refusal"),
    pytest.param({"content": None, "tool_calls": [function()]}, id="call"),
    pytest.param({"content": None, "function_call": {"name": "f", "arguments": "{}"}}, id="older-call"),
    pytest.param({"content": None, "tool_calls": []}, id="no-calls"),
    pytest.param({"content": None, "tool_calls": [function(extra={"signature": "abc"})]}, id="call-with-more"),
    pytest.param({"content": None, "tool_calls": [function(arguments={"a": 1})]}, id="arguments-as-object"),
    pytest.param({"content": None, "audio": {"id": "audio_1", "data": "UklG", "transcript": "a"}}, id="audio"),
]


@pytest.mark.parametrize("message", CLEAN)
def test_chat_answer_without_match_is_unchanged(message: dict[str, Any]) -> None:
    """And the guard says so, so that the bytes can go as they came."""
    value = answer(message)
    before = copy.deepcopy(value)
    assert not guard(value) and value == before


BLOCKED = [
    pytest.param({"content": "a SECRET"}, {}, id="content"),
    pytest.param({"content": [{"text": "a SEC"}, {"text": "RET"}]}, {}, id="over-parts"),
    pytest.param({"content": "a", "reasoning_content": "SECRET"}, {}, id="reasoning"),
    pytest.param({"content": "a", "refusal": "SECRET"}, {}, id="refusal"),
    pytest.param({"content": "a", "audio": {"transcript": "SECRET"}}, {}, id="transcript"),
    pytest.param({"content": "a", "unheard": {"of": ["SECRET"]}}, {}, id="unknown-member"),
    pytest.param({"content": "a"}, {"text": "SECRET"}, id="beside-the-message"),
    pytest.param({"content": "a", "id": "my SECRET is"}, {}, id="odd-id"),
    pytest.param({"content": "a", "role": "a SECRET"}, {}, id="odd-role"),
]


@pytest.mark.parametrize(("message", "fields"), BLOCKED)
def test_chat_answer_with_blocked_text_ends_its_choice(message: dict[str, Any], fields: dict[str, Any]) -> None:
    """Only the refusal is left of it; its calls are not even judged, and another choice goes on."""
    value = answer({**message, "tool_calls": [function()]}, "tool_calls", **fields)
    other = {"index": 1, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "length"}
    value["choices"].append(dict(other))
    judge = FakeGuard()
    assert guard(value, judge) and judge.judged == []
    ended = {"role": "assistant", "content": None, "refusal": WHY}
    assert value["choices"] == [
        {"index": 0, "message": ended, "logprobs": None, "finish_reason": "content_filter"},
        other,
    ]


def test_chat_answer_redaction_stays_in_its_place() -> None:
    """Only the match is replaced; over a seam the parts' text is joined in the first."""
    value = answer({"content": "a HIDDEN b", "parts": [{"text": "HID"}, {"text": "DEN!"}]})
    assert guard(value)
    assert value["choices"][0]["message"]["content"] == f"a {MARK} b"
    assert value["choices"][0]["message"]["parts"] == [{"text": f"{MARK}!"}, {"text": ""}]
    assert value["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("message", "names", "reason", "refusal"),
    [
        pytest.param({"tool_calls": [function("forbidden")]}, [], "content_filter", True, id="only-one"),
        pytest.param({"tool_calls": [function("forbidden"), function()]}, ["search"], "tool_calls", True, id="of-two"),
        pytest.param({"content": "Hm.", "tool_calls": [function("forbidden")]}, [], "stop", True, id="text-is-left"),
        pytest.param({"tool_calls": [function(arguments="{")]}, [], "content_filter", True, id="no-json"),
        pytest.param({"tool_calls": [function(arguments={"a": "SECRET"})]}, [], "content_filter", True, id="object"),
        pytest.param({"tool_calls": [{"type": "function"}]}, [], "content_filter", True, id="without-function"),
        pytest.param({"tool_calls": [function(note="SECRET")]}, [], "content_filter", True, id="match-beside"),
        pytest.param({"tool_calls": [function(custom={"name": "x"})]}, ["search"], "tool_calls", False, id="two-forms"),
        pytest.param(
            {"function_call": {"name": "forbidden", "arguments": "{}"}}, [], "content_filter", True, id="older"
        ),
    ],
)
def test_chat_answer_blocked_call_gets_one_answer(
    message: dict[str, Any], names: list[str], reason: str, refusal: bool
) -> None:
    """It is gone from the message, which says why; what else is allowed goes out."""
    value = answer({"content": None, **message}, "tool_calls")
    assert guard(value)
    choice = value["choices"][0]
    assert [call["function"]["name"] for call in choice["message"].get("tool_calls", [])] == names
    assert "function_call" not in choice["message"] and choice["finish_reason"] == reason
    assert ("refusal" in choice["message"]) is refusal
    assert all("custom" not in call for call in choice["message"].get("tool_calls", []))


def test_chat_answer_redacted_arguments_reach_the_caller() -> None:
    """As the guard gives them back."""
    value = answer({"content": None, "tool_calls": [function(arguments='{"q": "HIDDEN"}')]}, "tool_calls")
    assert guard(value)
    (call,) = value["choices"][0]["message"]["tool_calls"]
    assert call == function(arguments=f'{{"q": "{MARK}"}}')


@pytest.mark.parametrize("admits", [True, False])
def test_chat_answer_media_pass_where_they_are_admitted(admits: bool) -> None:
    """The guard is asked once for each kind."""
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,SECRET"}}
    value = answer({"content": "a", "images": [url, url], "audio": {"data": "SECRET"}})
    judge = FakeGuard(admits_media=admits)
    assert guard(value, judge) is not admits and judge.media == (["image", "audio"] if admits else ["image"])
    assert value["choices"][0]["finish_reason"] == ("stop" if admits else "content_filter")


def test_chat_answer_beside_its_choices_is_guarded() -> None:
    """What belongs to no choice goes, and ends none."""
    value = {**answer({"content": "a"}), "note": "SECRET", "x": {"y": "HIDDEN"}, "error": {"message": "SECRET"}}
    assert guard(value)
    assert value["note"] is None and value["x"] == {"y": MARK}
    assert value["error"] == {"message": WHY, "type": "upstream_error"}
    assert value["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"choices": {}}, id="choices-no-list"),
        pytest.param({"choices": ["x"]}, id="choice-no-object"),
        pytest.param({"choices": [{"message": "x"}]}, id="message-no-object"),
        pytest.param(answer({"content": 5}), id="content-number"),
        pytest.param(answer({"tool_calls": {}}), id="calls-no-list"),
        pytest.param(answer({"tool_calls": ["x"]}), id="call-no-object"),
        pytest.param(answer({"function_call": "x"}), id="function-call-no-object"),
    ],
)
def test_chat_answer_that_cannot_be_read_is_broken(value: dict[str, Any]) -> None:
    """What cannot be read cannot be guarded."""
    with pytest.raises(UpstreamBroken):
        guard(value)


@pytest.mark.parametrize("value", [{}, {"choices": None}, {"choices": []}, {"choices": [{}]}])
def test_chat_answer_without_message_passes(value: dict[str, Any]) -> None:
    """There is nothing to guard."""
    assert not guard(value)


def test_chat_answer_is_summarised_as_released() -> None:
    """The record says what the caller got."""
    value = {**answer({"content": "SECRET"}), "usage": {"total_tokens": 3, "details": {}}}
    guard(value)
    summary = AnswerSummary()
    ChatDialect().summarise(value, summary)
    assert summary.finish_reasons == {0: "content_filter"} and summary.usage == {"total_tokens": 3}
    assert summary.model == "m"
