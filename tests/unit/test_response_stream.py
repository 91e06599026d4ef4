"""How a streamed Responses answer is guarded, event by event."""

from __future__ import annotations

import copy
from typing import Any

import httpx2
import orjson
import pytest
from openai import OpenAI
from pydantic import BaseModel
from response_scene import (
    BLOCKED,
    MARK,
    REDACTED,
    REFUSAL,
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

from lukhas.errors import UpstreamBroken
from lukhas.openai.call import StreamRewriter
from lukhas.openai.response_answer import guard_response, join_output_text
from lukhas.openai.response_stream import ResponseRewriter
from lukhas.openai.wire import AnswerSummary

CUTS = (2, 5, 9, 14)


def fresh(guard: WordGuard | None = None) -> tuple[ResponseRewriter, AnswerSummary]:
    summary = AnswerSummary()
    return ResponseRewriter(guard or WordGuard(), summary), summary


def client_of(raw: bytes) -> OpenAI:
    """The official client, with a stream in the place of the network."""

    def send(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=raw)

    transport = httpx2.Client(transport=httpx2.MockTransport(send))
    return OpenAI(api_key="none", base_url="http://gateway/v1", http_client=transport, max_retries=0)


def test_rewriter_satisfies_its_protocol() -> None:
    """It can stand wherever a stream is guarded."""
    rewriter: StreamRewriter = fresh()[0]
    assert (rewriter.is_over, rewriter.is_blocked, rewriter.has_error) == (False, False, False)


@pytest.mark.parametrize("is_named", [True, False])
def test_unchanged_text_passes_byte_for_byte(is_named: bool) -> None:
    """Where nothing is held or changed, upstream's own bytes go on, its spacing and numbers included."""
    answer = response([reasoning("think"), message("one two three", "four")])
    raws = [encode(event, is_named=is_named) for event in events_of(answer, CUTS)]
    raws[4] = raws[4].replace(b'":', b'":  ')
    _, out = rewrite(raws)
    assert out == b"".join(raws)


def test_last_event_waits_for_the_record() -> None:
    """Nothing of the last event is released before `end` is asked for it, and nothing follows it."""
    rewriter, summary = fresh()
    *events, last = [encode(event) for event in events_of(response([message("text")]))]
    for event in events:
        assert list(rewriter.take(event)) == [event]
        assert not rewriter.is_over
    assert not rewriter.take(last)
    assert rewriter.is_over
    assert not rewriter.take(encode({"type": "response.created", "response": {}}))
    assert not rewriter.flush()
    assert rewriter.end() == last
    assert (summary.finish_reasons, summary.model) == ({0: "completed"}, "gpt-4o-mini")
    assert summary.usage == {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}


def test_stream_that_breaks_off_has_no_last_event() -> None:
    """What is held of a text that was cut stays here, and no ending is made up."""
    events = events_of(response([message("one SEC")]), (4,))[:6]
    rewriter, out = rewrite(events)
    texts = [event["delta"] for event in decode(out) if event["type"] == "response.output_text.delta"]
    assert "".join(texts) == "one "
    assert (rewriter.is_over, rewriter.end()) == (False, b"")


def test_blocked_text_is_closed_by_a_refusal() -> None:
    """The part is replaced at its place, the item is closed, and the answer ends as incomplete."""
    rewriter, out = rewrite(events_of(response([message(f"one {BLOCKED} two"), function_call("f", "{}")]), (6, 8)))
    kinds = [event["type"] for event in decode(out)]
    assert kinds[4:] == [
        "response.output_text.delta",
        "response.content_part.added",
        "response.refusal.delta",
        "response.refusal.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    last = decode(out)[-1]["response"]
    assert last["output"][0]["content"] == [{"type": "refusal", "refusal": REFUSAL}]
    assert (last["status"], last["incomplete_details"], last["usage"]) == (
        "incomplete",
        {"reason": "content_filter"},
        None,
    )
    assert rewriter.is_blocked


def test_blocked_call_is_answered_once_and_the_others_go_on() -> None:
    """Of a blocked call nothing leaves but a refusal in its place; the stream goes on behind it."""
    answer = response([function_call("bad", '{"a": 1}'), function_call("good", '{"b": 2}', item_id="fc_2")])
    rewriter, out = rewrite(events_of(answer, CUTS))
    assert b'{\\"a\\"' not in out
    assert b"call_fc_1" not in out
    assert out.count(b'"type":"response.refusal.done"') == 1
    assert [event["delta"] for event in decode(out) if event["type"].endswith("arguments.delta")] == ['{"b": 2}']
    assert decode(out)[-1]["type"] == "response.completed"
    assert (rewriter.is_blocked, rewriter.blocked_calls) == (False, ["call_fc_1"])


def test_call_arguments_are_held_until_whole() -> None:
    """Not one event of a call leaves before it was judged."""
    rewriter, _ = fresh()
    events = [encode(event) for event in events_of(response([function_call("good", '{"a": 1}')]), CUTS)]
    begun = [b"".join(rewriter.take(event)) for event in events[:2]]
    assert all(begun)
    done = next(number for number, event in enumerate(events) if b"output_item.done" in event)
    assert [b"".join(rewriter.take(event)) for event in events[2:done]] == [b""] * (done - 2)
    kinds = [event["type"].removeprefix("response.") for event in decode(b"".join(rewriter.take(events[done])))]
    assert kinds == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]


@pytest.mark.parametrize("name", ["good", "bad"])
def test_call_that_upstream_never_says_is_done(name: str) -> None:
    """Some servers end a call with its arguments; it is judged by the last event at the latest."""
    answer = response([function_call(name, "{}")])
    events = [event for event in events_of(answer, CUTS) if event["type"] != "response.output_item.done"]
    _, out = rewrite(events)
    plain = copy.deepcopy(answer)
    guard_response(plain, WordGuard())
    assert decode(out)[-1]["response"] == plain
    events[-1]["response"] = {**answer, "output": []}
    _, out = rewrite(events)
    assert (b"arguments.delta" in out) == (name == "good")
    assert (b"response.refusal.done" in out) == (name == "bad")


def test_shell_commands_are_held_and_released_whole() -> None:
    """Each command of a shell call comes in one piece, judged; what it printed comes with the item."""
    item = {
        "id": "sh_1",
        "type": "shell_call",
        "call_id": "c",
        "status": "completed",
        "action": {"commands": ["ls -l"]},
    }
    at = {"output_index": 0, "command_index": 0}
    begun = {**item, "status": "in_progress", "action": {"commands": []}}
    head, tail = events_of(response([item]))[:2], events_of(response([item]))[-1]

    def stream(command: str) -> bytes:
        whole = {**item, "action": {"commands": [command]}}
        return rewrite(
            [
                *head,
                {"type": "response.output_item.added", "output_index": 0, "item": begun},
                {"type": "response.shell_call_command.added", **at, "command": ""},
                *({"type": "response.shell_call_command.delta", **at, "delta": piece} for piece in command),
                {"type": "response.shell_call_command.done", **at, "command": command},
                {"type": "response.output_item.done", "output_index": 0, "item": whole},
                {**tail, "response": {**tail["response"], "output": [whole]}},
            ]
        )[1]

    deltas = [event["delta"] for event in decode(stream("ls -l")) if event["type"].endswith("command.delta")]
    assert deltas == ["ls -l"]
    assert b"SEC" not in stream(f"cat {BLOCKED}")


def test_item_begun_with_all_its_content_leaks_nothing() -> None:
    """A server that tells everything at the beginning tells the guard first."""
    for item in (message(f"a {BLOCKED}"), reasoning(BLOCKED), function_call("good", BLOCKED)):
        events = events_of(response([item]))
        events[2] = {**events[2], "item": item}
        assert BLOCKED.encode() not in rewrite(events)[1]


def test_part_begun_with_text_is_one_run_with_its_deltas() -> None:
    """A match that begins in the part and ends in a delta is seen."""
    events = events_of(response([message(f"SEC{'RET'}")]), (3,))
    added = next(event for event in events if event["type"] == "response.content_part.added")
    added["part"] = {**added["part"], "text": "SEC"}
    events = [event for event in events if event.get("delta") != "SEC"]
    _, out = rewrite(events)
    assert b"RET" not in out
    assert b"response.incomplete" in out


def test_done_text_that_differs_from_its_deltas_is_judged_anew() -> None:
    """The whole text is what the caller will keep, so it is what must be clean."""
    events = events_of(response([message("harmless")]))
    for event in events:
        if event["type"] == "response.output_text.done":
            event["text"] = f"a {BLOCKED}"
    rewriter, out = rewrite(events)
    assert BLOCKED.encode() not in out
    assert rewriter.is_blocked


def test_delta_after_its_end_is_refused() -> None:
    """A run that has ended cannot be guarded on."""
    events = events_of(response([message("text")]))
    delta = next(event for event in events if event["type"] == "response.output_text.delta")
    done = next(number for number, event in enumerate(events) if event["type"] == "response.output_text.done")
    with pytest.raises(UpstreamBroken):
        rewrite([*events[: done + 1], delta])


def test_numbers_stay_dense_where_events_are_held() -> None:
    """A caller can tell that it missed nothing, whatever was held, merged or replaced; upstream's start is kept."""
    events = events_of(response([message("one SEC two"), function_call("good", "{}")]), range(20))
    shifted = [{**event, "sequence_number": event["sequence_number"] + 7} for event in events]
    numbers = [event["sequence_number"] for event in decode(rewrite(shifted)[1])]
    assert numbers == list(range(7, 7 + len(numbers)))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"data: {\n\n", id="not-json"),
        pytest.param(b"data: [1]\n\n", id="list"),
        pytest.param(b'data: {"a": 1}\n\n', id="no-type"),
        pytest.param(b'data: {"type": 7}\n\n', id="number-type"),
        pytest.param(b'data: {"type": "two words"}\n\n', id="sentence-type"),
        pytest.param(b'data: {"type": "x\\ny"}\n\n', id="line-in-type"),
        pytest.param(b'data: {"type": "response.created"}\n\n', id="no-response"),
        pytest.param(b'data: {"type": "response.completed", "response": 7}\n\n', id="number-response"),
        pytest.param(b'data: {"type": "response.completed", "response": {"output": "SECRET"}}\n\n', id="text-output"),
        pytest.param(b'event: x\ndata: {"type": \xff}\n\n', id="not-utf-8"),
    ],
)
def test_unreadable_event_is_refused(raw: bytes) -> None:
    """What cannot be read cannot be guarded, and is not passed on."""
    with pytest.raises(UpstreamBroken):
        fresh()[0].take(raw)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b": SECRET\n\n", id="comment"),
        pytest.param(b"event: SECRET\n\n", id="name-alone"),
        pytest.param(b"id: SECRET\nretry: 1\n\n", id="id-alone"),
        pytest.param(b'event: SECRET\ndata: {"type":"response.queued","response":{"id":"r"}}\n\n', id="other-name"),
        pytest.param(b': SECRET\ndata: {"type":"response.queued","response":{"id":"r"}}\n\n', id="comment-beside"),
        pytest.param(b'data: {"type":"response.queued",\r\ndata: "response":{"id":"r"}}\r\n\r\n', id="two-lines"),
    ],
)
def test_event_with_anything_beside_its_data_is_written_anew(raw: bytes) -> None:
    """Comments and names are texts too, and no client reads them: only the data goes on."""
    out = b"".join(fresh()[0].take(raw))
    assert BLOCKED.encode() not in out
    assert out.endswith(b"\n\n")
    assert b"\r" not in out


@pytest.mark.parametrize("name", ["output_index", "content_index", "item_id", "obfuscation", "sequence_number"])
@pytest.mark.parametrize("value", [None, [BLOCKED], {"a": BLOCKED}, f"a {BLOCKED} b", 1.5, True], ids=str)
def test_usual_field_of_another_form_is_left_out(name: str, value: Any) -> None:
    """An index that is a list, or an id that is a sentence, is no way round the guard, and no accident either."""
    events = events_of(response([message("one two")]), (3,))
    events[4][name] = events[5][name] = value
    _, out = rewrite(events)
    assert BLOCKED.encode() not in out
    assert "".join(event.get("delta", "") for event in decode(out)) == "one two"


def test_error_event_is_the_last_one() -> None:
    """An error is kept for the end like any other last event, its text guarded."""
    for event in (
        {"type": "error", "code": "c", "message": f"a {REDACTED}", "param": None, "sequence_number": 0},
        {"type": "error", "message": BLOCKED},
        {"error": {"message": BLOCKED}},
    ):
        rewriter, _ = fresh()
        assert not rewriter.take(b"data: " + orjson.dumps(event) + b"\n\n")
        assert (rewriter.is_over, rewriter.has_error) == (True, True)
        assert BLOCKED.encode() not in rewriter.end()
        assert REDACTED.encode() not in rewriter.end()
        assert b"message" in rewriter.end()


def test_done_marker_ends_a_stream_without_a_last_event() -> None:
    """Some servers say `[DONE]` and nothing more."""
    rewriter, out = rewrite([*map(encode, events_of(response([message("one SEC")]))[:5]), b"data: [DONE]\n\n"])
    assert rewriter.is_over
    assert out.endswith(b"data: [DONE]\n\n")
    assert decode(out)[-1]["delta"].endswith("SEC")


def test_unknown_events_are_read_as_runs_of_text() -> None:
    """What nobody has heard of is guarded all the same, over its events; the held rest comes out at the end."""
    news = [{"type": "response.news", "piece": piece, "more": {"at": ["x"]}} for piece in ("one SE", "CRE", "T")]
    rewriter, out = rewrite(news)
    assert b"SE" not in out.partition(b"response.output_item")[0].replace(b"SECRET", b"")
    assert rewriter.is_blocked
    rewriter, out = rewrite([*news[:2], b"data: [DONE]\n\n"])
    assert "".join(event["piece"] for event in decode(out)) == "one SECRE"
    assert not rewriter.is_blocked


@pytest.mark.parametrize("admits", [True, False])
def test_sound_passes_where_media_may_and_its_words_are_text(admits: bool) -> None:
    """Sound no moderator can hear; what it says in writing is guarded."""
    events = [{"type": "response.audio.delta", "delta": "UklGRg=="}, {"type": "response.audio.done"}]
    _, out = rewrite(events, WordGuard(admits_media=admits))
    assert (b"UklGRg" in out) == admits
    words = [{"type": "response.audio.transcript.delta", "delta": piece} for piece in ("ab SEC", "RE", "!")]
    words.append({"type": "response.audio.transcript.done"})
    _, out = rewrite(words)
    assert "".join(event.get("delta", "") for event in decode(out)) == "ab SECRE!"
    assert decode(out)[-1]["type"] == "response.audio.transcript.done"


@pytest.mark.parametrize("after", range(1, 10))
def test_stop_ends_the_stream_at_any_moment(after: int) -> None:
    """A moderator that comes later ends the answer: one refusal, one last event, no word of what was stopped."""
    rewriter, summary = fresh()
    for event in events_of(response([message("first word", "second"), function_call("good", "{}")]), (5,))[:after]:
        rewriter.take(encode(event))
    out = b"".join(rewriter.stop("Stopped later.")) + rewriter.end()
    events = decode(out)
    assert [event["type"] for event in events][-2:] == ["response.output_item.done", "response.incomplete"]
    assert b"word" not in out
    assert [part["refusal"] for part in events[-1]["response"]["output"][0]["content"]] == ["Stopped later."]
    assert (rewriter.is_over, rewriter.is_blocked) == (True, True)
    assert summary.finish_reasons == {0: "content_filter"}
    assert not rewriter.take(encode(events[-1]))


def test_objects_are_named_as_upstream_tells_them() -> None:
    """What a stream made upstream is known even where the stream breaks off."""
    code = {"id": "ci_1", "type": "code_interpreter_call", "status": "completed", "code": "x", "container_id": "cntr_1"}
    events = events_of(response([code], conversation={"id": "conv_1"}))
    rewriter, _ = rewrite(events[:-1])
    assert (rewriter.response_id, rewriter.conversation_id) == ("resp_1", "conv_1")
    found = {(one.kind, one.id) for one in rewriter.objects}
    assert found == {("response", "resp_1"), ("conversation", "conv_1"), ("item", "ci_1"), ("container", "cntr_1")}


@pytest.mark.parametrize(
    "output",
    [
        pytest.param([reasoning("think"), message("one two", "three"), function_call("good", '{"a":1}')], id="clean"),
        pytest.param([message(f"one {REDACTED} two"), function_call("good", REDACTED)], id="redacted"),
        pytest.param([function_call("bad", "{}"), message("text")], id="blocked-call"),
        pytest.param([], id="empty"),
    ],
)
def test_official_client_accumulates_the_plain_guarded_answer(output: list[dict[str, Any]]) -> None:
    """Its accumulator takes every event, and ends in the response that a plain call would have got."""
    answer = response(output)
    raw = rewrite(events_of(answer, CUTS))[1]
    with client_of(raw).responses.stream(model="m", input="hi") as stream:
        final = stream.get_final_response()
    plain = copy.deepcopy(answer)
    guard_response(plain, WordGuard())
    assert final.output_text == join_output_text(plain["output"])
    assert [item.type for item in final.output] == [item["type"] for item in plain["output"]]
    assert final.to_dict(mode="json").items() >= {"status": "completed", "id": "resp_1"}.items()


@pytest.mark.parametrize(
    "output",
    [
        pytest.param([message(f"one {BLOCKED}"), message("never", item_id="msg_2")], id="text"),
        pytest.param([reasoning(f"one {BLOCKED}"), message("never")], id="reasoning"),
        pytest.param([{**message(), "content": [{"type": "refusal", "refusal": BLOCKED}]}], id="refusal"),
        pytest.param([function_call("bad", "{}")], id="only-call"),
        pytest.param([{"id": "x_1", "type": "unheard_of", "note": BLOCKED}], id="unknown-item"),
    ],
)
def test_official_client_reads_a_blocked_stream_to_its_end(output: list[dict[str, Any]]) -> None:
    """No block leaves the client's accumulator in a state that it does not know."""
    raw = rewrite(events_of(response(output), CUTS))[1]
    with client_of(raw).responses.stream(model="m", input="hi") as stream:
        last = list(stream)[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "content_filter"
    assert BLOCKED not in last.response.to_json()


def test_official_client_does_not_stumble_over_half_a_structured_answer() -> None:
    """A text that was stopped is never called done, since clients parse what is done."""

    class Point(BaseModel):
        x: str

    raw = rewrite(events_of(response([message('{"x": "SECRET"}')]), CUTS))[1]
    with client_of(raw).responses.stream(model="m", input="hi", text_format=Point) as stream:
        kinds = [event.type for event in stream]
    assert kinds[-1] == "response.incomplete"


def test_redacted_text_is_the_same_in_all_its_places() -> None:
    """Five events repeat a text; all say what was released."""
    out = rewrite(events_of(response([message(f"one {REDACTED} two")]), range(30)))[1]
    assert REDACTED.encode() not in out
    assert out.count(f"one {MARK} two".encode()) == 4
