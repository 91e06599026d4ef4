"""Upstreams that misbehave: an honest error each time, on record, and nothing sent twice that may have arrived."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import openai
import pytest
from conftest import QUESTION, Gateway, Serve, raw_chat

from lukhas.testing import DEFAULT_ANSWER, DEFAULT_EVENTS

STREAM = b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def outcome_of(gateway: Gateway, headers: Any) -> dict[str, Any]:
    return gateway.document(headers["x-lukhas-audit-id"])["outcome"]


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
@pytest.mark.parametrize(
    "script",
    [
        pytest.param({"parts": []}, id="closes-without-an-answer"),
        pytest.param({"parts": [], "ending": "reset"}, id="resets-without-an-answer"),
        pytest.param({"parts": [b"\x16\x03\x01 garbage\r\n\r\n"]}, id="is-no-http"),
        pytest.param({"parts": [HEAD[:20]]}, id="head-cut-off"),
        pytest.param(
            {"parts": [b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/v1\r\ncontent-length: 0\r\n\r\n"]},
            id="redirects",
        ),
        pytest.param({"parts": [HEAD + b"content-length: 0\r\n\r\n"]}, id="empty-body"),
        pytest.param({"parts": [HEAD + b'content-length: 50\r\n\r\n{"id": "c", "choi']}, id="body-cut-off"),
        pytest.param({"parts": [HEAD + b'content-length: 50\r\n\r\n{"id"'], "ending": "reset"}, id="body-reset"),
        pytest.param({"parts": [HEAD + b'content-length: 8\r\n\r\n{"id": "']}, id="json-cut-off"),
        pytest.param({"parts": [HEAD + b"content-length: 5\r\n\r\n\xff\xfe\x00ab"]}, id="garbage"),
        pytest.param({"parts": [HEAD + b"content-length: 4\r\n\r\nnull"]}, id="json-that-is-no-answer"),
        pytest.param(
            {"parts": [b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>"]}, id="page"
        ),
    ],
)
def test_broken_answer_is_a_502_and_is_not_sent_again(gateway: Gateway, script: dict[str, Any], stream: bool) -> None:
    """What was sent may have been acted upon: one attempt, code upstream_broken, an outcome that says so."""
    gateway.upstream.reply_raw(**script)
    with pytest.raises(openai.InternalServerError) as caught:
        gateway.client(max_retries=2).chat.completions.create(model="m", messages=QUESTION, stream=stream)
    assert caught.value.status_code == 502 and caught.value.code == "upstream_broken"
    assert caught.value.type == "upstream_error"
    assert len(gateway.upstream.requests) == 1
    outcome = outcome_of(gateway, caught.value.response.headers)
    assert (outcome["status"], outcome["error"]) == ("failed", "upstream_broken")


@pytest.mark.parametrize(
    ("events", "more"),
    [
        pytest.param(DEFAULT_EVENTS, {"done": False}, id="without-done"),
        pytest.param(DEFAULT_EVENTS[:2], {"done": False, "ending": "truncate"}, id="cut-off"),
        pytest.param(DEFAULT_EVENTS[:2], {"done": False, "ending": "reset"}, id="reset"),
        pytest.param([b'data: {"id": "c", "choi'], {"done": False}, id="cut-in-an-event"),
        pytest.param([], {"done": False}, id="no-event-at-all"),
        pytest.param([b"x" * 100_000], {"done": False}, id="endless-garbage"),
    ],
)
def test_stream_that_does_not_end_properly_ends_with_an_error(
    gateway: Gateway, events: Any, more: dict[str, Any]
) -> None:
    """No `[DONE]` is made up; the official client raises, and the outcome says broken."""
    gateway.upstream.reply_events(events, **more)
    stream = gateway.client().chat.completions.create(model="m", messages=QUESTION, stream=True)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "upstream_broken"
    outcome = outcome_of(gateway, stream.response.headers)
    assert (outcome["status"], outcome["error"]) == ("broken", "upstream_broken")


def test_broken_stream_says_neither_done_nor_less_than_it_had(gateway: Gateway) -> None:
    """On the wire: all the text there was, one error event, the body's regular end."""
    gateway.upstream.reply_events(DEFAULT_EVENTS, done=False)
    raw = gateway.raw(raw_chat(STREAM, headers="connection: close\r\n"))
    events = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith(b"data: ")]
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1]) == "Hello."
    assert events[-1]["error"]["code"] == "upstream_broken"
    assert b"[DONE]" not in raw and raw.endswith(b"0\r\n\r\n")


def test_error_event_inside_a_stream_is_handed_on(gateway: Gateway) -> None:
    """The upstream's own words reach the client, and the outcome counts it as the upstream's error."""
    error = {"error": {"message": "overloaded", "type": "server_error", "code": "busy"}}
    gateway.upstream.reply_events([DEFAULT_EVENTS[0], error])
    gateway.upstream.reply_events([DEFAULT_EVENTS[0], error])
    stream = gateway.client().chat.completions.create(model="m", messages=QUESTION, stream=True)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "busy"
    # The client above leaves at the error; this one reads to the end.
    answer = gateway.chat({"stream": True})
    assert outcome_of(gateway, answer.headers)["status"] == "upstream_error"


def _pieces(*texts: str) -> list[dict[str, Any]]:
    choice = DEFAULT_EVENTS[1]["choices"][0]
    return [{**DEFAULT_EVENTS[1], "choices": [{**choice, "delta": {"content": text}}]} for text in texts]


def test_events_arrive_as_they_are_made(gateway: Gateway) -> None:
    """What no rule can match any more is not held back: it is here long before the last event is sent."""
    gateway.upstream.reply_events(
        [*DEFAULT_EVENTS[:1], *_pieces("One ", "two ", "three "), *DEFAULT_EVENTS[3:]], between_ms=100
    )
    began = time.monotonic()
    stream = iter(gateway.client().chat.completions.create(model="m", messages=QUESTION, stream=True))
    next(stream)
    assert next(stream).choices[0].delta.content
    first = time.monotonic() - began
    rest = list(stream)
    assert first < 0.4 < time.monotonic() - began and len(rest) >= 2


def test_comments_and_odd_line_ends_pass(gateway: Gateway) -> None:
    """Keep-alive comments, CRLF and events in pieces are the upstream's style, and stay."""
    chunk = json.dumps(DEFAULT_EVENTS[1]).encode()
    pieces = [b": keep-alive\n\n", b"data: " + chunk[:30], chunk[30:] + b"\r\n\r", b"\n", b"data:[DONE]\r\n\r\n"]
    gateway.upstream.reply_events(pieces, done=False)
    raw = gateway.raw(raw_chat(STREAM, headers="connection: close\r\n"))
    assert b": keep-alive\n\n" in raw and b"data:[DONE]\r\n\r\n" in raw and b'"content":"Hel"' in raw


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(502, b"<html><body>Bad gateway <script>alert(1)</script></body></html>", id="page"),
        pytest.param(500, b"", id="empty"),
        pytest.param(404, b"not found", id="text"),
        pytest.param(400, b'{"detail": "cut', id="json-cut-off"),
    ],
)
def test_error_page_becomes_an_error_in_openais_shape(gateway: Gateway, status: int, body: bytes, stream: bool) -> None:
    """Whatever a proxy in between writes, a client reads one shape; the status stays."""
    gateway.upstream.reply(status=status, body=body, headers={"content-type": "text/html", "x-should-retry": "false"})
    answer = gateway.chat({"stream": stream})
    assert answer.status == status and answer.headers["content-type"] == "application/json"
    assert answer.error["type"] == "upstream_error" and str(status) in answer.error["message"]
    assert b"<script>" not in answer.body
    assert answer.headers["x-should-retry"] == "false"
    outcome = outcome_of(gateway, answer.headers)
    assert (outcome["status"], outcome["http_status"]) == ("upstream_error", status)


@pytest.mark.parametrize(
    ("status", "headers"),
    [pytest.param(429, {"retry-after": "0"}, id="429"), pytest.param(503, {"retry-after-ms": "1"}, id="503")],
)
@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_refusal_of_the_moment_is_tried_again(
    gateway: Gateway, status: int, headers: dict[str, str], stream: bool
) -> None:
    """429 and 5xx come back with an answer on the second attempt, and the record counts both."""
    gateway.upstream.reply(status=status, json={"error": {"message": "later"}}, headers=headers)
    answer = gateway.chat({"stream": stream})
    assert answer.status == 200 and b"lo." in answer.body
    assert outcome_of(gateway, answer.headers)["attempts"] == 2
    first, second = gateway.upstream.requests
    assert first.body == second.body


def test_long_retry_after_is_the_callers_to_wait_for(gateway: Gateway) -> None:
    """The header reaches the caller; the gateway does not sit on the call."""
    gateway.upstream.reply(status=429, json={"error": {"message": "later"}}, headers={"retry-after": "60"})
    answer = gateway.chat()
    assert answer.status == 429 and answer.headers["retry-after"] == "60"


@pytest.mark.parametrize(
    "stream", [pytest.param(False, id="stream-for-a-plain-call"), pytest.param(True, id="json-for-a-stream-call")]
)
def test_answer_of_the_other_kind_is_a_502(gateway: Gateway, stream: bool) -> None:
    """A client that cannot read what came would see an empty answer and no error."""
    if stream:
        gateway.upstream.reply(json=DEFAULT_ANSWER)
    else:
        gateway.upstream.reply_events(DEFAULT_EVENTS)
    with pytest.raises(openai.InternalServerError) as caught:
        gateway.client().chat.completions.create(model="m", messages=QUESTION, stream=stream)
    assert caught.value.status_code == 502 and caught.value.code == "upstream_broken"


def test_answer_without_content_type_is_read_as_json(gateway: Gateway) -> None:
    """Small servers forget the header; what they say is still an answer, and is labelled for the client."""
    body = json.dumps(DEFAULT_ANSWER).encode()
    gateway.upstream.reply_raw(
        [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body]
    )
    answer = gateway.client().chat.completions.create(model="m", messages=QUESTION)
    assert answer.choices[0].message.content == "Hello."


def test_headers_of_the_upstream_that_pose_as_ours_are_dropped(gateway: Gateway) -> None:
    """Neither our names, nor cookies, nor the connection's own headers come through; limits do."""
    gateway.upstream.reply(
        headers={
            "x-lukhas-audit-id": "aud_forged",
            "X-Lukhas-Safety-Mode": "creative",
            "set-cookie": "a=b",
            "server": "upstream/1",
            "x-ratelimit-remaining-requests": "7",
            "openai-processing-ms": "12",
            "x-request-id": "req_forged",
            "access-control-allow-origin": "*",
        }
    )
    answer = gateway.chat()
    assert answer.headers["x-lukhas-safety-mode"] == "balanced"
    assert gateway.document(answer.headers["x-lukhas-audit-id"])
    assert answer.headers["x-request-id"] != "req_forged"
    assert answer.headers["x-upstream-request-id"] == "req_forged"
    assert answer.headers["x-ratelimit-remaining-requests"] == "7" and answer.headers["openai-processing-ms"] == "12"
    assert not {"set-cookie", "server", "access-control-allow-origin"} & set(answer.headers)


def test_headers_of_the_caller_that_identify_it_stop_here(gateway: Gateway) -> None:
    """The caller's key, cookies and words to us never go upstream; trace context does."""
    gateway.chat(
        None,
        {
            "cookie": "session=abc",
            "x-lukhas-session": "s",
            "x-lukhas-signals": "stress=0.5",
            "x-lukhas-anything": "1",
            "x-api-key": "k",
            "api-key": "k",
            "x-forwarded-for": "10.1.2.3",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        },
    )
    headers = gateway.upstream.requests[-1].headers
    assert "traceparent" in headers
    assert not {"authorization", "cookie", "x-api-key", "api-key", "x-forwarded-for"} & set(headers)
    assert not [name for name in headers if name.startswith("x-lukhas")]


@pytest.fixture
def strict(serve: Serve) -> Gateway:
    """Short deadlines and a small answer limit."""
    return serve(
        upstream_read_timeout_s=0.3, upstream_total_timeout_s=1.0, upstream_max_retries=1, max_response_bytes=2000
    )


def test_silence_before_the_head_is_a_504(strict: Gateway) -> None:
    """The read deadline holds, once: what was sent is not sent again."""
    strict.upstream.reply(delay_ms=5000)
    answer = strict.chat()
    assert answer.status == 504 and answer.error["code"] == "upstream_timeout"
    assert len(strict.upstream.requests) == 1 and strict.upstream.requests[0].closed.wait(1)


def test_silence_inside_a_plain_answer_is_a_504(strict: Gateway) -> None:
    """Half an answer is none."""
    strict.upstream.reply(ending="stall")
    answer = strict.chat()
    assert answer.status == 504 and outcome_of(strict, answer.headers)["error"] == "upstream_timeout"


def test_silence_inside_a_stream_ends_it_with_an_error(strict: Gateway) -> None:
    """What arrived is out; the end is an error event with the timeout's code."""
    strict.upstream.reply_events(DEFAULT_EVENTS[:2], done=False, ending="stall")
    answer = strict.chat({"stream": True})
    assert answer.status == 200 and b'"code":"upstream_timeout"' in answer.body and b"[DONE]" not in answer.body
    assert outcome_of(strict, answer.headers)["status"] == "broken"


def test_stream_past_its_total_deadline_ends_with_an_error(strict: Gateway) -> None:
    """An upstream that trickles for ever does not hold the call for ever."""
    strict.upstream.reply_events([DEFAULT_EVENTS[1]] * 100, between_ms=100)
    began = time.monotonic()
    answer = strict.chat({"stream": True})
    assert time.monotonic() - began < 2 and b'"code":"upstream_timeout"' in answer.body


def test_huge_plain_answer_is_a_502(strict: Gateway) -> None:
    """The limit holds with and without a declared length."""
    strict.upstream.reply(json={"padding": "x" * 5000})
    strict.upstream.reply_events([b"x" * 900] * 10, done=False, headers={"content-type": "application/json"})
    for _ in range(2):
        answer = strict.chat()
        assert answer.status == 502 and "larger" in answer.error["message"]


def test_upstream_that_is_not_there_is_a_502_that_may_be_retried(serve: Serve) -> None:
    """Connection refused: surely not sent, said by code, and readyz says degraded while governed calls go on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    gateway = serve(upstream_base_url=f"http://127.0.0.1:{port}/v1", upstream_max_retries=1)
    with pytest.raises(openai.InternalServerError) as caught:
        gateway.client().chat.completions.create(model="m", messages=QUESTION)
    assert caught.value.status_code == 502 and caught.value.code == "upstream_unreachable"
    assert caught.value.response.headers["x-should-retry"] == "true"
    assert str(port) not in caught.value.message
    ready = gateway.http("GET", "/readyz", key=None)
    assert ready.status == 200 and ready.json["status"] == "degraded" and not ready.json["checks"]["upstream"]["ok"]
    assert gateway.http("GET", "/v1/models").status == 502
