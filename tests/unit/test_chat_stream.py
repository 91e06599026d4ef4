"""Streamed chat answers, event by event: what passes, what waits, what ends a choice, what cannot be read."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from chat_scene import DONE, ENVELOPE, MARK, WHY, FakeGuard, event, piece, run

from lukhas.errors import UpstreamBroken
from lukhas.openai import chat_choice, chat_stream
from lukhas.openai.chat_stream import ChatRewriter
from lukhas.openai.wire import AnswerSummary

START = piece({"role": "assistant", "content": ""})
STOP = piece({}, reason="stop")


def call(arguments: str = "{}", name: str = "search", index: int | None = 0, **fields: Any) -> bytes:
    place = {} if index is None else {"index": index}
    entry = {**place, "id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}, **fields}
    return piece({"tool_calls": [entry]})


def test_chat_stream_unchanged_event_keeps_its_bytes() -> None:
    """What was neither held nor changed is not written anew: blanks, order and numbers stay."""
    odd = b'data: {"choices" : [{"index":0,"delta":{"content":"word"}}], "n": 1e2,"obfuscation":"aX"}\n\n'
    rewriter = ChatRewriter(FakeGuard(), AnswerSummary())
    assert [*rewriter.take(START), *rewriter.take(odd), *rewriter.take(odd)] == [START, odd, odd]


@pytest.mark.parametrize("name", ["content", "reasoning_content", "reasoning", "refusal", "anything"])
def test_chat_stream_held_tail_comes_before_the_finish(name: str) -> None:
    """A tail that could become a match waits, and goes out where the choice ends without one."""
    rewriter = ChatRewriter(FakeGuard(), AnswerSummary())
    rewriter.take(START)
    assert not rewriter.take(piece({name: "SEC"}))
    (out,) = rewriter.take(piece({name: "OND SE"}))
    assert json.loads(out[6:])["choices"][0]["delta"] == {name: "SECOND "}
    assert rewriter.take(STOP) == []
    tail, finish = rewriter.flush()
    assert json.loads(tail[6:])["choices"][0]["delta"] == {name: "SE"}
    assert json.loads(finish[6:])["choices"][0]["finish_reason"] == "stop"


def test_chat_stream_block_ends_its_choice_at_once() -> None:
    """The text before the match, the refusal, the finish, and nothing more; nothing need be read any more."""
    stream = run([START, piece({"content": "so SEC"}), piece({"content": "RET more"}), STOP, DONE], choices=1)
    choices = [chunk["choices"][0] for chunk in stream.chunks]
    assert [(one["delta"], one["finish_reason"]) for one in choices[1:]] == [
        ({"content": "so "}, None),
        ({"refusal": WHY}, None),
        ({}, "content_filter"),
    ]
    assert stream.rewriter.is_blocked and stream.rewriter.is_over and stream.last == DONE
    assert stream.summary.finish_reasons == {0: "content_filter"}


def test_chat_stream_block_leaves_other_choices_alone() -> None:
    """A choice that was asked for and has not come yet is waited for."""
    events = [piece({"content": "SECRET"}), piece({"content": "fine"}, 1), piece({"content": "gone"}), STOP]
    stream = run([*events, piece({}, 1, "stop"), event([], usage={"total_tokens": 3}), DONE], choices=2)
    assert stream.choice(0)["reasons"] == ["content_filter"] and "content" not in stream.choice(0)["delta"]
    assert stream.choice(1)["delta"]["content"] == "fine" and stream.choice(1)["reasons"] == ["stop"]
    assert stream.chunks[-1]["usage"] == {"total_tokens": 3} == stream.summary.usage
    assert not stream.rewriter.is_blocked and b"gone" not in b"".join(stream.events)


def _nested(depth: int) -> bytes:
    return b'data: {"x":' + b"[" * depth + b"]" * depth + b',"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"data: {\n\n", id="not-json"),
        pytest.param(b"data: [1]\n\n", id="no-object"),
        pytest.param(b'data: {"choices":"x"}\n\n', id="choices-no-list"),
        pytest.param(b'data: {"choices":[5]}\n\n', id="choice-no-object"),
        pytest.param(b'data: {"choices":[{"delta":"text"}]}\n\n', id="delta-no-object"),
        pytest.param(b'data: {"choices":[{"delta":{"content":"\xf0\x9f"}}]}\n\n', id="half-a-character"),
        pytest.param(b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n', id="half-a-pair"),
        pytest.param(piece({"content": 5}), id="content-number"),
        pytest.param(piece({"refusal": True}), id="refusal-truth"),
        pytest.param(event([{"index": "0", "delta": {}}]), id="index-text"),
        pytest.param(event([{"index": True, "delta": {}}]), id="index-truth"),
        pytest.param(event([{"index": -1, "delta": {}}]), id="index-negative"),
        pytest.param(event([{"index": 128, "delta": {}}]), id="index-huge"),
        pytest.param(event([{"index": 0, "delta": {}, "finish_reason": 7}]), id="finish-number"),
        pytest.param(piece({"tool_calls": {}}), id="calls-no-list"),
        pytest.param(piece({"tool_calls": ["x"]}), id="call-no-object"),
        pytest.param(call(index=4096), id="call-index-huge"),
        pytest.param(piece({"tool_calls": [{"index": "0"}]}), id="call-index-text"),
        pytest.param(piece({"tool_calls": [{"index": 0, "function": "f"}, {"index": 0, "function": {}}]}), id="mixed"),
        pytest.param(piece({"function_call": "f"}), id="function-call-no-object"),
    ],
)
def test_chat_stream_unreadable_event_is_broken(bad: bytes) -> None:
    """What cannot be read cannot be guarded, so it is not passed on."""
    rewriter = ChatRewriter(FakeGuard(), AnswerSummary())
    rewriter.take(START)
    with pytest.raises(UpstreamBroken):
        rewriter.take(bad)


@pytest.mark.parametrize("depth", [200, 500, 1020])
def test_chat_stream_deep_event_passes_or_is_broken(depth: int) -> None:
    """However deep the nesting, no other error comes of it."""
    rewriter = ChatRewriter(FakeGuard(), AnswerSummary())
    try:
        for _ in range(3):
            assert list(rewriter.take(_nested(depth))) == [_nested(depth)]
    except UpstreamBroken:
        assert depth > 200


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b": SECRET\n\n", b":\n\n", id="comment"),
        pytest.param(b": keep-alive\n\n", b": keep-alive\n\n", id="keep-alive"),
        pytest.param(b":\r\n\r\n", b":\r\n\r\n", id="comment-crlf"),
        pytest.param(b"\n", b":\n\n", id="empty-line"),
        pytest.param(b"event: ping\n\n", b"event: ping\n\n", id="named-without-data"),
        pytest.param(b"event: a SECRET\n\n", b":\n\n", id="name-of-many-words"),
        pytest.param(b"data:\n\n", b":\n\n", id="empty-data"),
        pytest.param(b"SECRET: x\n\n", b":\n\n", id="unknown-field"),
    ],
)
def test_chat_stream_event_without_data_says_nothing(raw: bytes, expected: bytes) -> None:
    """Known keep-alives pass; what any other comment says does not."""
    assert list(ChatRewriter(FakeGuard(), AnswerSummary()).take(raw)) == [expected]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(START.replace(b"\n", b"\r\n"), id="crlf"),
        pytest.param(START.replace(b"\n", b"\r"), id="cr"),
        pytest.param(START.replace(b"data: ", b"data:"), id="no-blank"),
        pytest.param(b"event: message\nid: 7\nretry: 10\n" + START, id="other-fields"),
        pytest.param(b"\xef\xbb\xbf" + START, id="byte-order-mark"),
        pytest.param(START.replace(b',"choices"', b'\ndata: ,"choices"'), id="two-data-lines"),
    ],
)
def test_chat_stream_other_framing_keeps_its_bytes(raw: bytes) -> None:
    """Every form of the event-stream format is read, and left as it is where nothing is changed."""
    rewriter = ChatRewriter(FakeGuard(), AnswerSummary())
    assert list(rewriter.take(raw)) == [raw]
    held = raw.replace(b'"content":""', b'"content":"a SEC"')
    (out,) = rewriter.take(held)
    assert b'"content":"a "' in out and b"SEC" not in out and out.endswith(b"\n\n")


def test_chat_stream_comment_beside_data_is_emptied() -> None:
    """The data pass, the comment's text does not."""
    (out,) = ChatRewriter(FakeGuard(), AnswerSummary()).take(b": SECRET\n" + START)
    assert out.startswith(b":\ndata: {") and json.loads(out[8:]) == json.loads(START[6:])


def test_chat_stream_error_event_passes_guarded() -> None:
    """An error's message is text that a model's input may have got into."""
    rewriter = ChatRewriter(FakeGuard(), AnswerSummary())
    plain = b'data: {"error":{"message":"Too busy.","type":"server_error","code":null}}\n\n'
    assert list(rewriter.take(plain)) == [plain] and rewriter.has_error
    (blocked,) = rewriter.take(b'data: {"error":{"message":"SECRET","code":500}}\n\n')
    assert json.loads(blocked[6:]) == {"error": {"message": WHY, "type": "upstream_error"}}
    (text,) = rewriter.take(b'data: {"error":"HIDDEN"}\n\n')
    assert json.loads(text[6:]) == {"error": MARK}


@pytest.mark.parametrize(
    ("events", "reason", "refusal", "names"),
    [
        pytest.param([call()], "tool_calls", None, ["search"], id="allowed"),
        pytest.param([call(name="forbidden")], "content_filter", "A call of function was blocked.", [], id="blocked"),
        pytest.param(
            [call(name="forbidden"), call(index=1, id="call_2")],
            "tool_calls",
            "A call of function was blocked.",
            ["search"],
            id="one-of-two",
        ),
        pytest.param(
            [call(name="forbidden"), call("{", index=1, id="call_2")],
            "content_filter",
            "A call of function was blocked.",
            [],
            id="both-said-once",
        ),
        pytest.param(
            [piece({"content": "Hm."}), call(name="forbidden")],
            "stop",
            "A call of function was blocked.",
            [],
            id="text-is-left",
        ),
        pytest.param([call('{"q": 1'), call("}", "")], "tool_calls", None, ["search"], id="in-pieces"),
        pytest.param([call('{"q": 1'), call("}", "search")], "tool_calls", None, ["search"], id="name-repeated"),
        pytest.param([call(id="a"), call(id="b")], "tool_calls", None, ["search", "search"], id="all-at-index-0"),
        pytest.param([call(index=None)], "tool_calls", None, ["search"], id="no-index"),
        pytest.param([call(x={"y": "SECRET"})], "content_filter", WHY, [], id="match-in-unknown-member"),
        pytest.param([call('{"q": "SEC'), call('RET"}', "")], "content_filter", None, [], id="match-over-pieces"),
    ],
)
def test_chat_stream_tool_call_is_judged_whole(
    events: list[bytes], reason: str, refusal: str | None, names: list[str]
) -> None:
    """Each call is released as one chunk or answered by one sentence, before the finish."""
    rewriter = ChatRewriter(FakeGuard(), AnswerSummary())
    assert all(b"tool_calls" not in out for one in [START, *events] for out in rewriter.take(one))
    stream = run([START, *events, piece({}, reason="tool_calls"), DONE])
    whole = stream.choice()
    assert whole["reasons"] == [reason] and stream.summary.finish_reasons == {0: reason}
    assert [one["function"]["name"] for one in whole["delta"].get("tool_calls", {}).values()] == names
    if refusal is not None or not names:
        assert whole["delta"]["refusal"] == (refusal or "A call of function was blocked.")


@pytest.mark.parametrize(
    ("delta", "kind", "name", "arguments"),
    [
        pytest.param(
            {"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": "select"}}]},
            "custom",
            "sql",
            "select",
            id="custom",
        ),
        pytest.param({"function_call": {"name": "f", "arguments": "{}"}}, "function", "f", "{}", id="older-form"),
        pytest.param(
            {"tool_calls": [{"index": 0, "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]},
            "function",
            "f",
            '{"a":1}',
            id="arguments-as-object",
        ),
    ],
)
def test_chat_stream_other_call_forms_are_judged(delta: dict[str, Any], kind: str, name: str, arguments: str) -> None:
    """Each form of a call reaches the guard, and the caller gets it as it came."""
    stream = run([START, piece(delta), piece({}, reason="tool_calls"), DONE])
    (judged,) = stream.guard.judged
    assert (judged.kind, judged.name, judged.arguments) == (kind, name, arguments)
    released = next(c["choices"][0]["delta"] for c in stream.chunks if len(c["choices"][0]["delta"]) == 1)
    assert released == delta


def test_chat_stream_hosted_call_is_judged_by_its_type() -> None:
    """A call of a type that nobody knows is one of a tool that the provider runs."""
    delta = {"tool_calls": [{"index": 0, "id": "c", "type": "web_search", "query": "x"}]}
    (judged,) = run([START, piece(delta), DONE]).guard.judged
    assert (judged.kind, judged.name) == ("hosted", "web_search") and '"x"' in judged.arguments


def test_chat_stream_without_finish_releases_what_is_whole() -> None:
    """A clean end decides: held text goes out, a call is judged by what there is of it."""
    stream = run([START, piece({"content": "a SE"}), call('{"q"'), DONE])
    delta = stream.choice()["delta"]
    assert delta["content"] == "a SE" and "tool_calls" not in delta and delta["refusal"]


def test_chat_stream_broken_off_releases_finished_choices_only() -> None:
    """Without the last event, text and calls of a choice that upstream had not finished are half of something."""
    stream = run([START, piece({"content": "a SE"}), call()])
    assert stream.last == b"" and stream.choice()["delta"]["content"] == "a "
    assert "tool_calls" not in stream.choice()["delta"] and stream.choice()["reasons"] == []
    stream = run([START, piece({"content": "a SE"}), call(), STOP])
    assert stream.last == b"" and stream.choice()["delta"]["content"] == "a SE"
    assert list(stream.choice()["delta"]["tool_calls"]) == [0] and stream.choice()["reasons"]


def test_chat_stream_finish_reason_in_every_chunk_ends_nothing_early() -> None:
    """Some upstreams name one all along, or an empty one; the last one counts, and comes once and last."""
    events = [piece({"content": part}, reason=reason) for part, reason in (("a", ""), ("b S", "stop"), ("EC", "stop"))]
    stream = run([*events, piece({"content": "RET"}, reason="length"), DONE])
    assert stream.choice()["delta"]["content"] == "ab " and stream.choice()["reasons"] == ["content_filter"]
    stream = run([*events, DONE])
    assert stream.choice()["delta"]["content"] == "ab SEC" and stream.choice()["reasons"] == ["stop"]


def test_chat_stream_text_behind_the_end_is_broken() -> None:
    """After the usage event a choice has ended; more of it would have been judged in two halves."""
    rewriter = ChatRewriter(FakeGuard(), AnswerSummary())
    released = [out for one in (START, STOP, event([])) for out in rewriter.take(one)]
    assert [json.loads(one[6:])["choices"][:1] for one in released][-1] == []
    assert rewriter.take(piece({})) == []
    with pytest.raises(UpstreamBroken):
        rewriter.take(piece({"content": "more"}))


def test_chat_stream_usage_survives_beside_held_text() -> None:
    """Counts in a chunk whose text waits, and in the chunk that finishes, are passed on once."""
    usage = {"total_tokens": 2}
    held = event([{"index": 0, "delta": {"content": "SEC"}, "finish_reason": "stop"}], usage=usage)
    stream = run([START, held, DONE])
    assert [chunk["usage"] for chunk in stream.chunks if chunk.get("usage")] == [
        usage
    ] and stream.summary.usage == usage
    assert stream.choice()["delta"]["content"] == "SEC"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"annotations": [{"url_citation": {"title": "SECRET"}}]}, id="annotation"),
        pytest.param({"reasoning_details": [{"text": "SEC"}, {"text": "RET"}]}, id="over-list-entries"),
        pytest.param({"content": [{"type": "text", "text": "SECRET"}]}, id="content-parts"),
        pytest.param({"id": "a SECRET of id"}, id="odd-id"),
        pytest.param({"role": "the SECRET"}, id="odd-role"),
        pytest.param({"deep": {"er": [[["SECRET"]]]}}, id="deep"),
        pytest.param({"audio": {"note": "SECRET"}}, id="beside-a-transcript"),
    ],
)
def test_chat_stream_match_in_any_member_ends_the_choice(fields: dict[str, Any]) -> None:
    """No field goes round the guard: in the delta, and in the choice itself."""
    for one in (piece(fields), piece({}, **{k: v for k, v in fields.items() if k != "role"})):
        if one == piece({}):
            continue
        stream = run([START, one, STOP, DONE])
        assert stream.choice()["reasons"] == ["content_filter"]
        assert b"SECRET" not in b"".join(stream.events) and b"SEC" not in b"".join(stream.events)


def test_chat_stream_clean_details_come_whole_before_the_finish() -> None:
    """What waits to be judged as a whole is released as it came, in order."""
    details = [{"reasoning_details": [{"type": "reasoning.text", "text": text}]} for text in ("one ", "two S")]
    stream = run([START, *(piece(one) for one in details), STOP, DONE])
    deltas = [chunk["choices"][0]["delta"] for chunk in stream.chunks]
    assert deltas[1:] == [*details, {}]


def test_chat_stream_envelope_text_waits_for_the_end() -> None:
    """A string beside the choices that the server is not known to write is judged like any other."""
    one = event([{"index": 0, "delta": {"content": "a"}}], note="a note", provider="Some Provider")
    stream = run([one, one, event([], other="SECRET"), DONE])
    assert [chunk.get("note") for chunk in stream.chunks] == [None, None]
    assert b"SECRET" not in b"".join(stream.events)
    stream = run([one, one, DONE])
    assert [chunk.get("note") for chunk in stream.chunks] == [None, None, "a note"]
    assert stream.chunks[0]["provider"] == "Some Provider"


def test_chat_stream_repeated_whole_answer_is_left_out() -> None:
    """An answer so far that stands beside its next piece would have to be held whole each time."""
    one = event([{"index": 0, "delta": {"content": "a"}, "message": {"content": "SECRET"}, "finish_reason": None}])
    stream = run([one, STOP, DONE])
    assert stream.choice()["delta"]["content"] == "a" and stream.choice()["reasons"] == ["stop"]
    assert b"SECRET" not in b"".join(stream.events)


@pytest.mark.parametrize("admits", [True, False])
def test_chat_stream_audio_passes_where_it_is_admitted(admits: bool) -> None:
    """Audio that no moderator hears is asked about once; where it may not pass, the choice ends."""
    chunks = [piece({"audio": {"id": "audio_1", "data": "UklG"}}), piece({"audio": {"data": "AAAA"}})]
    stream = run([START, *chunks, STOP, DONE], FakeGuard(admits_media=admits))
    assert stream.guard.media == ["audio"]
    assert stream.choice()["reasons"] == (["stop"] if admits else ["content_filter"])
    assert (b"UklG" in b"".join(stream.events)) is admits


def test_chat_stream_image_is_media_not_text() -> None:
    """A picture that is written out is no text."""
    images = {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,SECRET"}}]}
    stream = run([START, piece(images), STOP, DONE])
    assert stream.guard.media == ["image"] and stream.choice()["delta"]["images"] == images["images"]


def test_chat_stream_stop_ends_every_choice() -> None:
    """A moderator that judges later ends what this guard has let pass, finished or not."""
    rewriter = ChatRewriter(FakeGuard(), summary := AnswerSummary(), 2)
    for one in (START, piece({"content": "a S"}), piece({"content": "b"}, 1), piece({}, 1, "stop")):
        rewriter.take(one)
    ending = [json.loads(one[6:])["choices"][0] for one in rewriter.stop("No.")]
    assert [(one["index"], one["delta"], one["finish_reason"]) for one in ending] == [
        (0, {"refusal": "No."}, None),
        (0, {}, "content_filter"),
        (1, {"refusal": "No."}, None),
        (1, {}, "content_filter"),
    ]
    assert rewriter.is_over and rewriter.is_blocked and rewriter.end() == DONE and rewriter.flush() == ()
    assert rewriter.take(START) == () and summary.finish_reasons == {0: "content_filter", 1: "content_filter"}


def test_chat_stream_stop_before_anything_came_ends_what_was_asked_for() -> None:
    """The caller gets an ending for each answer."""
    ending = ChatRewriter(FakeGuard(), AnswerSummary(), 2).stop("No.")
    assert [json.loads(one[6:])["choices"][0]["index"] for one in ending] == [0, 0, 1, 1]


def test_chat_stream_more_than_can_be_held_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that waits to be judged grows without bound."""
    monkeypatch.setattr(chat_choice, "MAX_HELD_CHARS", 100)
    monkeypatch.setattr(chat_stream, "MAX_HELD_CHARS", 100)
    for one in (call("x" * 30), piece({"parts": ["x" * 30]})):
        rewriter = ChatRewriter(FakeGuard(), AnswerSummary())
        with pytest.raises(UpstreamBroken):
            for _ in range(9):
                rewriter.take(one)
    rewriter = ChatRewriter(FakeGuard(), AnswerSummary())
    with pytest.raises(UpstreamBroken):
        for number in range(9):
            rewriter.take(b"data: " + orjson.dumps({**ENVELOPE, "choices": [], "note": f"{number} " * 20}) + b"\n\n")


def test_chat_stream_flush_twice_says_it_once() -> None:
    """Whoever asks again gets nothing."""
    rewriter = ChatRewriter(FakeGuard(), AnswerSummary())
    rewriter.take(piece({"content": "SEC"}))
    rewriter.take(DONE)
    assert len(rewriter.flush()) == 1 and rewriter.flush() == ()


def test_chat_stream_usual_events_of_other_servers_keep_their_bytes() -> None:
    """Changing times, filters' verdicts and empty members beside the delta cost a token no rewriting."""
    verdict = {"content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}, "stop_reason": None}
    events = [
        event(
            [{"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None, **verdict}], created=n
        )
        for n, word in enumerate(("one", "two", "three SE", "VEN"))
    ]
    rewriter = ChatRewriter(FakeGuard(), AnswerSummary())
    assert [list(rewriter.take(one)) for one in events[:2]] == [[one] for one in events[:2]]
    (held,) = rewriter.take(events[2])
    assert json.loads(held[6:])["choices"][0] | verdict == json.loads(held[6:])["choices"][0]
    assert json.loads(held[6:])["created"] == 2
    changed = event([{"index": 0, "delta": {"content": "x"}, "content_filter_results": {"note": "SECRET"}}])
    assert b"SECRET" not in b"".join([*rewriter.take(changed), *rewriter.flush()])


def test_chat_stream_many_kinds_of_text_are_broken() -> None:
    """Each kind is a run of its own, and a run costs memory."""
    rewriter = ChatRewriter(FakeGuard(), AnswerSummary())
    with pytest.raises(UpstreamBroken):
        for number in range(100):
            rewriter.take(piece({f"kind_{number}": "a"}))


@pytest.mark.parametrize("word", ["SECRET", "HIDDEN", "SEVEN"])
@pytest.mark.parametrize("is_split", [False, True])
def test_chat_stream_match_among_many_details_is_found(word: str, is_split: bool) -> None:
    """Whether it stands in one of many strings or over two of them."""
    texts = [*(f"text {n} " for n in range(20)), *([word[:3], word[3:]] if is_split else [word]), " end"]
    stream = run([START, *(piece({"details": [{"text": text}]}) for text in texts), STOP, DONE])
    assert stream.choice()["reasons"] == ["content_filter" if word == "SECRET" else "stop"]
    released = "".join(one["text"] for one in stream.choice()["delta"].get("details", []))
    expected = "" if word == "SECRET" else "".join(texts).replace("HIDDEN", MARK)
    assert released == expected


@pytest.mark.parametrize(
    ("raw", "last"),
    [
        pytest.param(b"data:[DONE]\r\n\r\n", b"data:[DONE]\r\n\r\n", id="as-it-came"),
        pytest.param(b": SECRET\ndata: [DONE]\n\n", DONE, id="with-a-comment"),
    ],
)
def test_chat_stream_last_event_is_the_upstreams(raw: bytes, last: bytes) -> None:
    """It is for the end, and what came after it is not read."""
    rewriter = ChatRewriter(FakeGuard(), AnswerSummary())
    assert rewriter.end() == b"" and rewriter.take(raw) == () and rewriter.is_over and rewriter.end() == last
    assert not rewriter.is_blocked and rewriter.take(START) == ()
