"""Guarded chat answers: plain or streamed, cut anywhere, spread over choices and fields, the verdict is one."""

from __future__ import annotations

import json
from typing import Any

from chat_scene import BLOCKED, DONE, REDACTED, FakeGuard, event, piece, release, run
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from lukhas.openai.chat import ChatDialect

WORDS = st.lists(
    st.sampled_from(["S", "SE", "SEC", "RET", "SECRET", "HID", "DEN", "HIDDEN", "word ", "é", "\U0001f600", '"', "\n"]),
    max_size=6,
).map("".join)
FIELDS = ("content", "reasoning_content", "refusal", "note", "transcript", "title")
CALL = st.tuples(
    st.sampled_from(["search", "forbidden"]),
    st.one_of(WORDS.map(lambda text: json.dumps({"q": text})), st.sampled_from(["{", "[]", ""])),
)
CHOICE = st.fixed_dictionaries(
    {}, optional={**{name: WORDS.filter(bool) for name in FIELDS}, "calls": st.lists(CALL, min_size=1, max_size=3)}
)
USAGE = {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}
CHOICES = st.lists(CHOICE, min_size=1, max_size=3)


def plain(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """Write choices as a plain answer."""
    written: list[dict[str, Any]] = []
    for index, choice in enumerate(choices):
        message: dict[str, Any] = {"role": "assistant", "content": choice.get("content")}
        for name in ("reasoning_content", "refusal", "note"):
            if name in choice:
                message[name] = choice[name]
        if "transcript" in choice:
            message["audio"] = {"id": "audio_1", "transcript": choice["transcript"]}
        if "title" in choice:
            message["annotations"] = [{"type": "url_citation", "url_citation": {"title": choice["title"]}}]
        if "calls" in choice:
            message["tool_calls"] = [
                {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for n, (name, arguments) in enumerate(choice["calls"])
            ]
        reason = "tool_calls" if "calls" in choice else "stop"
        written.append({"index": index, "message": message, "logprobs": None, "finish_reason": reason})
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": written, "usage": USAGE}


@st.composite
def streamed(draw: st.DrawFn, choices: list[dict[str, Any]]) -> list[bytes]:
    """Write choices as a stream: every text cut anywhere, the pieces of all fields and choices in any order."""
    queues: list[list[tuple[int, dict[str, Any], str | None]]] = []
    for index, choice in enumerate(choices):
        runs: list[list[dict[str, Any]]] = []
        for name in FIELDS:
            if name not in choice:
                continue
            if name == "title":
                runs.append([{"annotations": [{"type": "url_citation", "url_citation": {"title": choice[name]}}]}])
                continue
            parts = _cut(draw, choice[name])
            runs.append([{"audio": {"transcript": p}} if name == "transcript" else {name: p} for p in parts])
        for number, (name, arguments) in enumerate(choice.get("calls", [])):
            first = {"index": number, "id": f"call_{number}", "type": "function", "function": {"name": name}}
            rest = [{"index": number, "function": {"arguments": part}} for part in _cut(draw, arguments)]
            runs.append([{"tool_calls": [one]} for one in (first, *rest)])
        merged: list[tuple[int, dict[str, Any], str | None]] = [(index, {"role": "assistant", "content": ""}, None)]
        merged += [(index, delta, None) for delta in _interleave(draw, runs)]
        merged.append((index, {}, "tool_calls" if "calls" in choice else "stop"))
        queues.append(merged)
    events = [piece(delta, index, reason) for index, delta, reason in _interleave(draw, queues)]
    return [*events, event([], usage=USAGE), DONE]


def _cut(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.sets(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def _interleave(draw: st.DrawFn, queues: list[list[Any]]) -> list[Any]:
    queues = [list(queue) for queue in queues if queue]
    merged: list[Any] = []
    while queues:
        chosen = draw(st.integers(0, len(queues) - 1)) if len(queues) > 1 else 0
        merged.append(queues[chosen].pop(0))
        queues = [queue for queue in queues if queue]
    return merged


def _texts(choice: dict[str, Any]) -> list[str]:
    return [choice[name] for name in FIELDS if name in choice]


@settings(max_examples=100)
@given(st.data(), CHOICES)
def test_chat_answer_plain_and_streamed_have_one_verdict(data: st.DataObject, choices: list[dict[str, Any]]) -> None:
    """The same fields end with the same text, calls, refusal and finish reason, whichever way they came."""
    answer = plain(choices)
    ChatDialect().guard_answer(answer, FakeGuard())
    stream = run(data.draw(streamed(choices)), choices=len(choices))
    for index, given_choice in enumerate(choices):
        message = answer["choices"][index]["message"]
        whole = stream.choice(index)
        assert whole["reasons"] == [answer["choices"][index]["finish_reason"]]
        assert stream.summary.finish_reasons[index] == answer["choices"][index]["finish_reason"]
        is_blocked = any(release(text)[1] for text in _texts(given_choice))
        if is_blocked:
            assert message["content"] is None and "tool_calls" not in message and "audio" not in message
            assert whole["delta"]["refusal"].endswith(message["refusal"]) and "tool_calls" not in whole["delta"]
            continue
        delta = whole["delta"]
        assert (delta.get("content") or None) == message["content"]
        for name in ("reasoning_content", "note", "refusal", "annotations"):
            assert delta.get(name) == message.get(name)
        assert delta.get("audio", {}).get("transcript") == message.get("audio", {}).get("transcript")
        assert list(delta.get("tool_calls", {})) == list(range(len(message.get("tool_calls", []))))
        assert list(delta.get("tool_calls", {}).values()) == message.get("tool_calls", [])


@settings(max_examples=100)
@given(st.data(), CHOICES)
def test_chat_stream_releases_no_part_of_a_match(data: st.DataObject, choices: list[dict[str, Any]]) -> None:
    """What has gone out of a field, after any event, is the beginning of what may be released of its whole text."""
    stream = run(data.draw(streamed(choices)), choices=len(choices))
    joined = b"".join(stream.events)
    assert BLOCKED.encode() not in joined and REDACTED.encode() not in joined
    for index, given_choice in enumerate(choices):
        delta = stream.choice(index).get("delta", {})
        for name in ("content", "reasoning_content", "note"):
            assert release(given_choice.get(name, ""))[0].startswith(delta.get(name, ""))
        said = delta.get("audio", {}).get("transcript", "")
        assert release(given_choice.get("transcript", ""))[0].startswith(said)


@settings(max_examples=60)
@given(st.data(), CHOICES)
def test_chat_stream_without_match_is_whole(data: st.DataObject, choices: list[dict[str, Any]]) -> None:
    """Without a match every text arrives as it was sent, with its finish reason and the usage."""
    clean = [
        {
            name: value.replace("S", "s").replace("H", "h")
            if isinstance(value, str)
            else [("search", json.dumps({"n": n})) for n, _ in enumerate(value)]
            for name, value in choice.items()
        }
        for choice in choices
    ]
    stream = run(data.draw(streamed(clean)), choices=len(clean))
    answer = plain(clean)
    for index, choice in enumerate(clean):
        whole = stream.choice(index)
        delta = whole["delta"]
        for name in ("content", "reasoning_content", "note", "refusal"):
            assert delta.get(name, "") == choice.get(name, "")
        message = answer["choices"][index]["message"]
        assert delta.get("annotations") == message.get("annotations")
        assert list(delta.get("tool_calls", {}).values()) == message.get("tool_calls", [])
        assert whole["reasons"] == ["tool_calls" if "calls" in choice else "stop"]
    assert stream.chunks[-1]["usage"] == USAGE == stream.summary.usage
    assert stream.last == DONE and not stream.rewriter.is_blocked


@settings(max_examples=100)
@given(st.data(), CHOICES)
def test_chat_stream_is_read_by_the_official_client(data: st.DataObject, choices: list[dict[str, Any]]) -> None:
    """The client's own accumulator takes every chunk, and its completion holds what ours does."""
    opening = event([{"index": n, "delta": {"role": "assistant"}, "finish_reason": None} for n in range(len(choices))])
    events = [opening, *data.draw(streamed([{**choice, "title": ""} for choice in choices]))]
    stream = run([one.replace(b'"role":"assistant",', b"") for one in events[1:]], choices=len(choices))
    stream.events.insert(0, opening)
    state = ChatCompletionStreamState()
    for chunk in stream.chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    snapshot = state.current_completion_snapshot
    for choice in snapshot.choices:
        whole = stream.choice(choice.index)
        assert [choice.finish_reason] == whole["reasons"]
        assert (choice.message.content or "") == whole["delta"].get("content", "")
        calls = choice.message.tool_calls or []
        assert [call.function.name for call in calls] == [
            call["function"]["name"] for call in whole["delta"].get("tool_calls", {}).values()
        ]
