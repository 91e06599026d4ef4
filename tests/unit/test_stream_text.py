"""The text of a stream, put together again from its events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lukhas.openai.stream_text import StreamText


def join(*events: Any, most: int = 10_000) -> StreamText:
    text = StreamText(most)
    for event in events:
        text.take(event if isinstance(event, bytes) else b"data: " + json.dumps(event).encode() + b"\n\n")
    return text


def chat(delta: Any, index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta}]}


def test_take_chat_joins_each_choice_and_call() -> None:
    """Content, reasoning and arguments are runs of their own, by choice and by call; names are not doubled."""
    call = {"index": 1, "id": "c1", "function": {"name": "find", "arguments": '{"q":'}}
    more = {"index": 1, "id": "c1", "function": {"name": "find", "arguments": "1}"}}
    found = join(
        chat({"role": "assistant", "content": "a"}),
        chat({"content": "x", "reasoning_content": "r"}, 1),
        chat({"role": "assistant", "content": "b", "tool_calls": [call]}),
        chat({"tool_calls": [more]}),
        b"data: [DONE]\n\n",
    ).runs
    assert found["choices.0.content"] == "ab" and found["choices.1.content"] == "x"
    assert found["choices.1.reasoning_content"] == "r" and found["choices.0.role"] == "assistant"
    assert found["choices.0.tool_calls.1.function.arguments"] == '{"q":1}'
    assert found["choices.0.tool_calls.1.function.name"] == "find"


def test_take_responses_joins_deltas_once() -> None:
    """The pieces count, not the events that say all of it again."""
    place = {"output_index": 0, "content_index": 2}
    found = join(
        {"type": "response.output_item.added", "output_index": 1, "item": {"type": "function_call", "name": "find"}},
        {"type": "response.output_text.delta", "delta": "a", **place},
        {"type": "response.output_text.delta", "delta": "b", **place},
        {"type": "response.output_text.done", "text": "ab", **place},
        {"type": "response.function_call_arguments.delta", "delta": "{}", "output_index": 1},
        {"type": "response.completed", "response": {"output": [{"text": "ab"}]}},
    ).runs
    assert found == {
        "output.1.name": "find",
        "output.0.2.output_text": "ab",
        "output.1.function_call_arguments": "{}",
    }


def test_take_past_the_limit_stops() -> None:
    """Memory is bounded, whatever a stream sends, also by names that it makes up."""
    text = join(*[chat({"content": "x" * 100})] * 50, most=1_000)
    assert text.is_full and 900 < sum(map(len, text.runs.values())) <= 1_000
    named = join(*[chat({f"name{n}": "x"}) for n in range(1_000)], most=1_000)
    assert named.is_full and sum(len(k) + len(v) for k, v in named.runs.items()) <= 1_020


@pytest.mark.parametrize(
    "event",
    [
        b"data: nonsense\n\n",
        b": comment\n\n",
        b"data: [1]\n\n",
        {"choices": "x"},
        {"choices": [1, {"delta": 5}, {"index": "y", "delta": {"content": None}}]},
        {"type": "response.output_text.delta", "delta": 5},
        {"type": 5},
    ],
)
def test_take_of_odd_events_is_nothing(event: Any) -> None:
    """What has another shape holds no text, and breaks nothing."""
    assert join(event).runs == {}


def test_take_of_a_split_event_waits_for_its_end() -> None:
    """Where blocks are cut does not matter."""
    raw = b"data: " + json.dumps(chat({"content": "whole"})).encode() + b"\n\n"
    text = StreamText(100)
    for byte in raw:
        text.take(bytes([byte]))
    assert text.runs == {"choices.0.content": "whole"}
