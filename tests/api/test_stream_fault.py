"""Streams that break, at either end: what the caller sees, what is on record, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import openai
import orjson
import pytest
from conftest import ADMIN_KEY, QUESTION, Answer, Gateway, Serve, start_gateway, wait_until

from lukhas.access.limit import NO_LIMITS, Holder, Limits
from lukhas.errors import StorageUnavailable
from lukhas.gateway import answering
from lukhas.openai.chat_stream import ChatRewriter
from lukhas.openai.sse import SseSplitter, event_data
from lukhas.testing import FakeUpstream

sys.path.insert(0, str(Path(__file__).parents[1] / "fault"))
import broken_upstream as broken

PATHS: Final = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}
READ_TIMEOUT_S, TOTAL_TIMEOUT_S, LIMIT_BYTES = 0.3, 1.0, 24_000_000
CHUNKED: Final = b"HTTP/1.1 200 Broken\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WHOLE: Final = "".join(broken.WORDS)
# By kind: how the call ends on record, the error's code that its caller reads, and the text that the caller has then.
ENDS: Final[dict[str, tuple[str, str | None, str]]] = {
    "ok": ("ok", None, WHOLE),
    "stall": ("broken", "upstream_timeout", "The heron "),
    "reset": ("broken", "upstream_broken", "The heron "),
    "truncate": ("broken", "upstream_broken", "The heron stands "),
    "truncate-held": ("broken", "upstream_broken", "so "),
    "holds": ("broken", "upstream_timeout", "so "),
    "garbage-bytes": ("broken", "upstream_broken", ""),
    "garbage-json": ("broken", "upstream_broken", "The heron "),
    "deep-json": ("broken", "upstream_broken", ""),
    "half-character-in-a-chunk": ("ok", None, "ü€𝄞" * 9),
    "half-character-at-the-end": ("broken", "upstream_broken", "The heron "),
    "invalid-utf-8": ("broken", "upstream_broken", "The heron "),
    "line-of-2-mb": ("ok", None, WHOLE),
    "line-of-20-mb": ("broken", "upstream_broken", ""),
    "mixed-line-ends": ("ok", None, WHOLE),
    "comments": ("ok", None, WHOLE),
    "comments-only": ("broken", "upstream_broken", ""),
    "event-lines": ("ok", None, WHOLE),
    "byte-order-mark": ("ok", None, WHOLE),
    "no-end": ("broken", "upstream_broken", WHOLE),
    "no-end-held": ("broken", "upstream_broken", "so "),
    "no-end-of-a-call": ("broken", "upstream_broken", ""),
    "end-twice": ("ok", None, WHOLE),
    "data-behind-the-end": ("ok", None, WHOLE),
    "empty": ("broken", "upstream_broken", ""),
    "gzip": ("ok", None, WHOLE),
    "gzip-that-is-none": ("broken", "upstream_broken", ""),
    "error-only": ("upstream_error", "busy", ""),
    "error-in-the-middle": ("upstream_error", "busy", "The heron "),
    "tiny-chunks": ("ok", None, "a heron " * 40),
    "byte-by-byte": ("ok", None, "The "),
    "unfinished-call": ("broken", "upstream_broken", ""),
    "finish-twice": ("ok", None, WHOLE),
    "usage-twice": ("ok", None, WHOLE),
    "goes-on-behind-a-block": ("blocked", None, "so "),
    "never-ends": ("broken", "upstream_timeout", "on "),
    "fills-a-window": ("broken", "upstream_timeout", "a heron stands still. " * 25),
    "large": ("ok", None, "a heron stands still. " * 1200),
}
BEFORE_THE_HEAD: Final = {
    "stall-head": (504, "upstream_timeout"),
    "slow-head": (504, "upstream_timeout"),
    "reset-head": (502, "upstream_broken"),
    "wrong-type": (502, "upstream_broken"),
}
both_dialects = pytest.mark.parametrize("dialect", PATHS)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with short deadlines, whose every call is reserved for."""
    with FakeUpstream() as upstream:
        options = {
            "upstream_read_timeout_s": READ_TIMEOUT_S,
            "upstream_total_timeout_s": TOTAL_TIMEOUT_S,
            "upstream_max_retries": 0,
            "max_response_bytes": LIMIT_BYTES,
        }
        gateway = start_gateway(tmp_path_factory.mktemp("limited"), upstream, options)
        limits = Limits(concurrent_calls=1, tokens_per_day=10**9)
        gateway.runtime.limits.change(Holder("tenant", "default"), limits, expected=NO_LIMITS)
        yield gateway
        gateway.stop()


@pytest.fixture
def live(limited: Gateway) -> Iterator[Gateway]:
    """The same, which every test leaves with nothing in flight and nothing reserved."""
    limited.upstream.requests.clear()
    limited.relax()
    yield limited
    limited.upstream._replies.clear()
    wait_until(lambda: limited.runtime.metrics.in_flight.value == 0)
    assert _used(limited, "concurrent_calls") == 0


def _used(gateway: Gateway, name: str) -> int:
    held = gateway.runtime.meter.standings(Holder("tenant", "default"))
    return next(one.used for one in held if one.name == name)


def script(gateway: Gateway, dialect: str, kind: str) -> None:
    """Let the upstream's next answer break by a kind."""
    one = broken.KINDS[kind](dialect, random.Random(kind))
    reply(gateway, one.parts, one.ending, one.head)


def reply(gateway: Gateway, parts: Sequence[bytes | float], ending: str, head: bytes | None = None) -> None:
    """Let the upstream's next answer be these parts of a stream."""
    if ending == "forever":
        parts, ending = [*parts, *parts[-2:] * 500], "stall"
    between_ms = max([round(part * 1000) for part in parts if isinstance(part, float)], default=0)
    raw = [part for part in parts if isinstance(part, bytes)]
    if head is None:
        raw = [CHUNKED, *(b"%x\r\n%b\r\n" % (len(part), part) for part in raw)]
        raw += [b"0\r\n\r\n"] if ending == "complete" else []
    elif head:
        raw = [head, *raw]
    endings: Any = {"cut": "truncate", "complete": "truncate"}
    gateway.upstream.reply_raw(raw, between_ms=min(between_ms, 50), ending=endings.get(ending, ending))


def ask(gateway: Gateway, dialect: str, *, stream: bool = True, key: str = ADMIN_KEY) -> Answer:
    """Call, and read to the end."""
    body: dict[str, Any] = {"model": "gpt-4o-mini", "stream": stream}
    body |= {"messages": QUESTION} if dialect == "chat" else {"input": "What is a heron?"}
    return gateway.http("POST", PATHS[dialect], body, key=key)


def connect(gateway: Gateway, dialect: str) -> socket.socket:
    """Call, and leave reading to the test."""
    body: dict[str, Any] = {"model": "gpt-4o-mini", "stream": True}
    body |= {"messages": QUESTION} if dialect == "chat" else {"input": "What is a heron?"}
    raw = orjson.dumps(body)
    head = f"POST {PATHS[dialect]} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\n"
    return gateway.connect(head.encode() + b"content-length: %d\r\n\r\n" % len(raw) + raw)


def events_of(body: bytes) -> list[dict[str, Any]]:
    """Return the JSON objects of a stream's events."""
    splitter = SseSplitter(10**9)
    data = [event_data(raw) for raw in (*splitter.feed(body), splitter.flush())]
    return [orjson.loads(text) for text in data if text is not None and text.strip() not in (b"[DONE]", b"")]


def text_of(events: Sequence[dict[str, Any]]) -> str:
    """Return the answer's text as a client adds it up."""
    found: list[Any] = []
    for event in events:
        choices: Any = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            found.append((choice.get("delta") or {}).get("content"))
        if event.get("type") == "response.output_text.delta":
            found.append(event["delta"])
    return "".join(one for one in found if isinstance(one, str))


def code_of(events: Sequence[dict[str, Any]]) -> str | None:
    """Return the code of the error that a stream ends with, if it does."""
    last = events[-1] if events else {}
    error: Any = last.get("error") or (last if last.get("type") == "error" else {})
    return error.get("code")


def outcome_of(gateway: Gateway, answer: Answer) -> dict[str, Any]:
    return gateway.wait_for(answer.headers["x-lukhas-audit-id"])


@both_dialects
@pytest.mark.parametrize("kind", ENDS)
def test_broken_stream_ends_as_its_kind_says(live: Gateway, dialect: str, kind: str) -> None:
    """The caller has what came before the break, reads one error or the regular end, and the record says the same."""
    status, code, text = ENDS[kind]
    script(live, dialect, kind)
    answer = ask(live, dialect)
    events = events_of(answer.body)
    assert answer.status == 200
    assert code_of(events) == code
    seen = text_of(events)
    assert seen.replace(text, "") == "" if kind == "never-ends" else seen == text
    assert sum("error" in event or event.get("type") == "error" for event in events) == (code is not None)
    outcome = outcome_of(live, answer)
    assert outcome["status"] == status
    assert outcome.get("error") == (code if status == "broken" else None)
    assert outcome["answer_bytes"] > 0 or not text
    request = live.upstream.requests[-1]
    if kind in ("stall", "holds", "fills-a-window", "never-ends", "goes-on-behind-a-block"):
        assert request.closed.wait(2), "the upstream was let go"
    if status == "ok" and kind != "byte-by-byte":
        assert outcome["usage"]["total_tokens"] == 12


@both_dialects
@pytest.mark.parametrize("kind", BEFORE_THE_HEAD)
def test_break_before_the_head_is_an_http_error(live: Gateway, dialect: str, kind: str) -> None:
    """Nothing has been released yet, so the caller gets a status, with the call's id."""
    status, code = BEFORE_THE_HEAD[kind]
    script(live, dialect, kind)
    answer = ask(live, dialect)
    assert (answer.status, answer.error["code"]) == (status, code)
    outcome = outcome_of(live, answer)
    assert (outcome["status"], outcome["error"]) == ("failed", code)


@pytest.mark.parametrize(
    ("dialect", "value"),
    [
        pytest.param(dialect, value, id=f"{dialect}-{json.dumps(value)[:70]}")
        for dialect in PATHS
        for value in broken.SHAPES[dialect]
    ],
)
def test_event_of_a_wrong_shape_breaks_no_more_than_its_stream(live: Gateway, dialect: str, value: Any) -> None:
    """Whatever JSON comes, the caller reads an end or one error, and nothing fails inside the gateway."""
    begun = broken.begin_stream(dialect, broken.WORDS[:2])
    reply(live, [*begun, broken.sse(value), *broken.whole_stream(dialect)[-1:]], "complete")
    answer = ask(live, dialect)
    assert "The heron " in text_of(events_of(answer.body))
    assert outcome_of(live, answer)["status"] in ("ok", "broken", "upstream_error")


@both_dialects
@pytest.mark.parametrize("kind", ["stall", "reset", "garbage-json", "no-end", "never-ends", "empty"])
def test_official_client_raises_where_a_stream_breaks(live: Gateway, dialect: str, kind: str) -> None:
    """The error event is the client's own exception, with the code on it."""
    script(live, dialect, kind)
    client = live.client()
    with pytest.raises(openai.APIError) as caught:
        if dialect == "chat":
            list(client.chat.completions.create(model="m", messages=QUESTION, stream=True))
        else:
            list(client.responses.create(model="m", input="What is a heron?", stream=True))
    assert caught.value.code == ENDS[kind][1]


@pytest.mark.parametrize("kind", ["flood", "pours"])
@both_dialects
def test_stream_longer_than_an_answer_may_be_is_cut(serve: Serve, dialect: str, kind: str) -> None:
    """An upstream that goes on for ever is let go, whatever it sends, and the caller is told why."""
    live = serve(max_response_bytes=1_000_000)
    script(live, dialect, kind)
    answer = ask(live, dialect)
    assert b"larger than 1000000 bytes" in answer.body
    assert len(answer.body) < 1_100_000
    assert outcome_of(live, answer)["status"] == "broken"
    assert live.upstream.requests[0].closed.wait(2)


@both_dialects
@pytest.mark.parametrize("cut_at", range(1, 5))
def test_events_before_garbage_reach_the_caller_however_they_were_cut(live: Gateway, dialect: str, cut_at: int) -> None:
    """What a caller sees depends on what was sent, not on how its bytes were packed."""
    raw = b"".join([*broken.begin_stream(dialect, broken.WORDS[:3]), b"data: {oops\n\n"])
    places = [len(raw) * part // cut_at for part in range(cut_at + 1)]
    reply(live, [raw[a:b] for a, b in itertools.pairwise(places)], "complete")
    assert text_of(events_of(ask(live, dialect).body)) == "The heron stands "


@pytest.mark.parametrize("ending", ["reset", "stall", "cut"])
@both_dialects
def test_usage_that_came_before_the_break_is_on_record_and_settled(live: Gateway, dialect: str, ending: str) -> None:
    """What the upstream had counted is what the budget is charged."""
    if dialect == "chat":
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        parts = [*broken.begin_stream("chat"), broken.chat_piece({}, usage=usage), 0.02]
    else:
        usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
        answer = {"id": "resp_1", "object": "response", "status": "in_progress", "output": [], "usage": usage}
        event = broken.sse({"type": "response.in_progress", "response": answer})
        parts = [*broken.begin_stream("responses"), event, 0.02]
    reply(live, parts, ending)
    before = _used(live, "tokens_per_day")
    outcome = outcome_of(live, ask(live, dialect))
    assert (outcome["status"], outcome["usage"]) == ("broken", usage)
    assert _used(live, "tokens_per_day") == before + 7


def test_break_without_usage_leaves_what_was_reserved(live: Gateway) -> None:
    """The model may have worked, so what was held for the call stays counted; the call itself is given back."""
    script(live, "chat", "reset")
    before = _used(live, "tokens_per_day")
    assert "usage" not in outcome_of(live, ask(live, "chat"))
    assert _used(live, "tokens_per_day") > before + 1000
    assert _used(live, "concurrent_calls") == 0


LEAVING: Final = {
    "before-the-head": "slow-head",
    "after-the-first-event": "stall",
    "with-a-reset": "stall",
    "while-text-is-held": "holds",
    "in-an-endless-stream": "never-ends",
    "without-reading": "pours",
}


@both_dialects
@pytest.mark.parametrize("moment", LEAVING)
def test_client_that_leaves_lets_the_upstream_go(serve: Serve, dialect: str, moment: str) -> None:
    """Within 200 ms: the upstream sees the close, and the record says who left; no task is left."""
    live = serve()
    before = _tasks(live)
    script(live, dialect, LEAVING[moment])
    conn = connect(live, dialect)
    request = wait_until(lambda: live.upstream.requests and live.upstream.requests[0])
    if moment in ("before-the-head", "without-reading"):
        wait_until(lambda: live.count("decision"))
        time.sleep(0.1)
    else:
        got = b""
        while (b"so " if moment == "while-text-is-held" else b"data: ") not in got:
            got += conn.recv(65_536)
        assert b"lk_" not in got
    if moment == "with-a-reset":
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    left_at = time.monotonic()
    conn.close()
    assert request.closed.wait(2) and request.closed_at - left_at < 0.2
    assert live.wait_for(live.last_audit_id())["status"] == "client_gone"
    wait_until(lambda: _tasks(live) <= before)
    assert live.runtime.metrics.in_flight.value == 0


def _tasks(gateway: Gateway) -> int:
    loop = gateway.runtime._tasks[0].get_loop()

    async def count() -> int:
        return len(asyncio.all_tasks())

    return asyncio.run_coroutine_threadsafe(count(), loop).result(5)


def test_client_that_stays_and_reads_nothing_is_left_at_the_deadline(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its upstream is let go, its outcome written, and its reservation ended; only its own connection waits."""
    monkeypatch.setattr(answering, "_TAKE_S", 0.2)
    live = serve(upstream_total_timeout_s=0.5)
    script(live, "chat", "pours")
    conn = connect(live, "chat")
    audit_id = wait_until(lambda: live.count("decision") and live.last_audit_id())
    assert live.wait_for(audit_id)["status"] == "client_gone"
    assert live.upstream.requests[0].closed.wait(2)
    assert live.runtime.metrics.in_flight.value == 0
    conn.close()


def test_slow_client_holds_its_upstream_back_and_gets_everything(live: Gateway) -> None:
    """Back-pressure reaches the upstream, so that little is kept here; what comes in time comes whole."""
    script(live, "chat", "large")
    conn = connect(live, "chat")
    raw = b""
    while part := conn.recv(50_000):
        raw += part
        if raw.endswith(b"0\r\n\r\n"):
            break
        time.sleep(0.01)
    conn.close()
    assert raw.count(b"a heron stands still. ") >= 1190 and b"[DONE]" in raw


@pytest.fixture
def moderated(serve: Serve) -> Iterator[tuple[Gateway, FakeUpstream]]:
    """A gateway under a remote moderator."""
    with FakeUpstream() as moderator:
        live = serve(moderation_url=moderator.base_url, upstream_read_timeout_s=READ_TIMEOUT_S, upstream_max_retries=0)
        yield live, moderator


PASSED: Final = {"id": "modr_1", "model": "m", "results": [{"flagged": False, "categories": {}}]}


@both_dialects
def test_client_that_leaves_while_a_window_is_asked_ends_both_calls(
    moderated: tuple[Gateway, FakeUpstream], dialect: str
) -> None:
    """Neither the model nor the moderator works on for nobody, and nothing of the window is out."""
    live, moderator = moderated
    moderator.reply(json=PASSED)
    moderator.reply(json=PASSED, delay_ms=8000)
    script(live, dialect, "fills-a-window")
    conn = connect(live, dialect)
    asked = wait_until(lambda: len(moderator.requests) == 2 and moderator.requests[1])
    conn.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        assert b"heron" not in conn.recv(65_536)
    conn.close()
    assert asked.closed.wait(2) and live.upstream.requests[0].closed.wait(2)
    assert live.wait_for(live.last_audit_id())["status"] == "client_gone"
    assert live.runtime.metrics.in_flight.value == 0


@both_dialects
@pytest.mark.parametrize("kind", ["stall", "reset", "truncate", "no-end", "garbage-json"])
def test_window_that_was_not_asked_about_stays_here_when_its_stream_breaks(
    moderated: tuple[Gateway, FakeUpstream], dialect: str, kind: str
) -> None:
    """Text that no moderator has seen is not released by a break."""
    live, moderator = moderated
    moderator.reply(json=PASSED)
    script(live, dialect, kind)
    events = events_of(ask(live, dialect).body)
    assert text_of(events) == "" and len(moderator.requests) == 1
    assert code_of(events) == ENDS[kind][1]


def test_failure_nobody_foresaw_ends_the_stream_with_an_error(live: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is told, the outcome says failed and not that the client left, the upstream is let go."""

    def fail(*unused: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(ChatRewriter, "take", fail)
    script(live, "chat", "stall")
    answer = ask(live, "chat")
    assert code_of(events_of(answer.body)) == "internal_error"
    outcome = outcome_of(live, answer)
    assert (outcome["status"], outcome["error"]) == ("failed", "internal_error")
    assert live.upstream.requests[-1].closed.wait(2)


def test_answer_whose_objects_cannot_be_stored_is_on_record_as_failed(
    live: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last event, which would make its id known, stays here."""

    async def claim(*unused: object, **more: object) -> None:
        raise StorageUnavailable("The disk is full.")

    monkeypatch.setattr(live.runtime.owners, "claim", claim)
    script(live, "responses", "ok")
    answer = ask(live, "responses")
    events = events_of(answer.body)
    assert code_of(events) == "storage_unavailable" and events[-2]["type"] != "response.completed"
    outcome = outcome_of(live, answer)
    assert (outcome["status"], outcome["error"]) == ("failed", "storage_unavailable")


@pytest.mark.parametrize(
    ("body", "ending"),
    [
        pytest.param(b'{"id": "resp_1", "object": "response", "output": [', "complete", id="json-cut-off"),
        pytest.param(b'{"id": "resp_1", "output": []}', "truncate", id="body-cut-off"),
        pytest.param(b'{"id": "resp_1", "output": []}', "reset", id="body-reset"),
        pytest.param(b'{"id": "\xff\xfe"}', "complete", id="not-utf-8"),
        pytest.param(b"[]", "complete", id="list"),
        pytest.param(b"\x00" * 1000, "complete", id="garbage"),
        pytest.param(b"[" * 100_000, "complete", id="deep"),
    ],
)
@both_dialects
def test_plain_answer_that_breaks_is_a_502_and_leaves_nothing(
    live: Gateway, dialect: str, body: bytes, ending: Any
) -> None:
    """A plain answer has no half: the caller gets an error and nothing of it."""
    live.upstream.reply(body=body, ending=ending)
    answer = ask(live, dialect, stream=False)
    assert (answer.status, answer.error["code"]) == (502, "upstream_broken")
    assert outcome_of(live, answer)["status"] == "failed"
