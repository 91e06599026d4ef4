"""Whatever a model writes and however it is cut: nothing blocked leaves, plain and streamed alike."""

from __future__ import annotations

import copy
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from response_scene import (
    BLOCKED,
    REDACTED,
    WordGuard,
    decode,
    encode,
    events_of,
    function_call,
    message,
    reasoning,
    response,
    rewrite,
)

from lukhas.openai.response_answer import guard_response

WORDS = ["a", "SEC", "RET", "SECRET", "PRIV", "ATE", "PRIVATE", " ", "\u00e9", "S", "P", "\n", "\U0001f600"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=6).map("".join)
CUTS = st.lists(st.integers(0, 30), max_size=8)


@st.composite
def items(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Output items of every kind that is treated in its own way, with ids of their own."""
    output: list[dict[str, Any]] = []
    for number in range(draw(st.integers(0, 4))):
        text, other = draw(TEXTS), draw(TEXTS)
        name = draw(st.sampled_from(["good", "bad"]))
        choices: list[dict[str, Any]] = [
            message(text, other, item_id=f"msg_{number}"),
            message(text, item_id=f"msg_{number}"),
            {**message(item_id=f"msg_{number}"), "content": [{"type": "refusal", "refusal": text}]},
            reasoning(text, other, item_id=f"rs_{number}"),
            function_call(name, text, item_id=f"fc_{number}"),
            {"id": f"ct_{number}", "type": "custom_tool_call", "call_id": f"c{number}", "name": name, "input": text},
            {
                "id": f"ws_{number}",
                "type": "web_search_call",
                "status": "completed",
                "action": {"type": "search", "query": text},
            },
            {"id": f"fs_{number}", "type": "file_search_call", "queries": [text], "results": [{"text": other}]},
            {"id": f"mc_{number}", "type": "mcp_call", "name": "n", "arguments": text, "output": other},
            {"id": f"so_{number}", "type": "shell_call_output", "output": [{"stdout": text, "stderr": other}]},
            {"id": f"xx_{number}", "type": "unheard_of", "deep": {"er": [text]}, "note": other},
            {"id": f"yy_{number}", "type": "unheard_of_call", "order": {"text": text}},
        ]
        output.append(draw(st.sampled_from(choices)))
    return output


def gather(events: list[dict[str, Any]]) -> dict[tuple[Any, ...], str]:
    """Join the deltas of every part; a part that begins anew, as a refusal does, begins empty."""
    joined: dict[tuple[Any, ...], str] = {}
    for event in events:
        place = (event.get("output_index"), event.get("content_index"), event.get("summary_index"))
        if event["type"] == "response.content_part.added":
            joined = {key: text for key, text in joined.items() if key[1:] != place}
        if event["type"].endswith(".delta"):
            key = (event["type"].removesuffix(".delta"), *place)
            joined[key] = joined.get(key, "") + event["delta"]
            assert BLOCKED not in joined[key]
            assert REDACTED not in joined[key]
    return joined


@given(items(), CUTS)
@settings(max_examples=400)
def test_stream_ends_in_the_plain_guarded_answer(output: list[dict[str, Any]], cuts: list[int]) -> None:
    """Both forms give the same verdict and the same response; every `.done` says what the deltas before it said."""
    answer = response(output)
    plain = copy.deepcopy(answer)
    outcome = guard_response(plain, WordGuard())
    rewriter, raw = rewrite(events_of(copy.deepcopy(answer), cuts))
    events = decode(raw)
    final = events[-1]["response"]
    # An answer that was stopped has no usage yet.
    assert {**final, "usage": 0} == {**plain, "usage": 0}
    assert (rewriter.is_over, rewriter.is_blocked) == (True, outcome.is_blocked)
    assert rewriter.blocked_calls == outcome.blocked_calls
    assert events[-1]["type"] == f"response.{final['status']}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert BLOCKED.encode() not in raw
    assert REDACTED.encode() not in raw
    for number, event in enumerate(events):
        stem, _, last = event["type"].rpartition(".")
        joined = gather(events[:number]) if last == "done" else {}
        place = (stem, event.get("output_index"), event.get("content_index"), event.get("summary_index"))
        if place in joined:
            field = "text" if stem.endswith("text") else stem.rpartition("_")[2].rpartition(".")[2]
            assert event[field] == joined[place]


@given(items(), CUTS, st.booleans())
@settings(max_examples=200)
def test_stream_without_matches_says_all_that_upstream_said(
    output: list[dict[str, Any]], cuts: list[int], is_named: bool
) -> None:
    """What nothing matches comes out whole, and upstream's own bytes end it."""
    text = orjson.dumps(output).decode().replace(BLOCKED, "harmless").replace(REDACTED, "plain").replace("bad", "good")
    answer = response(orjson.loads(text))
    events = events_of(answer, cuts)
    _, raw = rewrite([encode(event, is_named=is_named) for event in events])
    assert decode(raw)[-1]["response"] == answer
    assert gather(decode(raw)) == gather(events)
    assert (b"event: " in raw) == is_named
    plain = copy.deepcopy(answer)
    assert not guard_response(plain, WordGuard()).is_changed
    assert plain == answer


@given(items(), CUTS)
@settings(max_examples=200)
def test_upstream_that_says_the_least_is_guarded_alike(output: list[dict[str, Any]], cuts: list[int]) -> None:
    """Servers leave out numbers, ids, indices and `event:` lines; nothing blocked leaves all the same."""
    events = events_of(response(output), cuts)
    bare = [
        {name: value for name, value in event.items() if name not in ("sequence_number", "item_id", "output_index")}
        for event in events
    ]
    _, raw = rewrite([encode(event, is_named=False) for event in bare])
    assert BLOCKED.encode() not in raw
    assert REDACTED.encode() not in raw
    assert "sequence_number" not in decode(raw)[-1]
    full = decode(rewrite(events)[1])[-1]
    assert decode(raw)[-1]["response"] == full["response"]


@given(items(), CUTS, st.integers(0, 40))
@settings(max_examples=200)
def test_stream_that_breaks_off_anywhere_releases_nothing_blocked(
    output: list[dict[str, Any]], cuts: list[int], stop: int
) -> None:
    """Where upstream falls silent, the held rest may go, a blocked word and an unjudged call may not."""
    events = events_of(response(output), cuts)
    rewriter, raw = rewrite(events[: min(stop, len(events) - 1)])
    assert BLOCKED.encode() not in raw
    gather(decode(raw))
    last = decode(raw)[-1:]
    assert rewriter.is_blocked == (bool(last) and last[0]["type"] == "response.incomplete")
    assert b'"bad"' not in raw
