"""Bad input: a clear 4xx in OpenAI's error shape, nothing half done."""

from __future__ import annotations

import json
import socket

import openai
import pytest
from conftest import ADMIN_KEY, QUESTION, Gateway, raw_chat, read_all

VALID = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"  \n", id="blank"),
        pytest.param(b"{", id="cut-off"),
        pytest.param(VALID + b"x", id="more-behind"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"text"', id="text"),
        pytest.param(b"5", id="number"),
        pytest.param(b"\xef\xbb\xbf" + VALID, id="byte-order-mark"),
        pytest.param(VALID.replace(b'"x"', b'"\xff\xfe"'), id="bad-utf-8"),
        pytest.param(VALID.decode().encode("utf-16"), id="utf-16"),
        pytest.param(VALID.replace(b'"x"', b'"\\ud800"'), id="lone-surrogate"),
        pytest.param(
            VALID.replace(b'"x"', b'"\\ud800"').replace(b"}]", b',"n":' + b"9" * 30 + b"}]"),
            id="surrogate-and-long-number",
        ),
        pytest.param(VALID[:-1] + b',"temperature":NaN}', id="nan"),
        pytest.param(VALID[:-1] + b',"temperature":Infinity}', id="infinity"),
        pytest.param(VALID[:-1] + b',"temperature":1e999}', id="float-too-large"),
        pytest.param(VALID[:-1] + b',"seed":' + b"9" * 5000 + b"}", id="number-of-5000-digits"),
        pytest.param(VALID[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deep"),
        pytest.param(
            VALID[:-1] + b',"s":' + b"1" * 20 + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            id="deep-with-long-number",
        ),
        pytest.param(VALID[:-1] + b",}", id="trailing-comma"),
        pytest.param(b"{'model': 'm'}", id="single-quotes"),
        pytest.param(b'{"model":"m\x00"}', id="raw-control-character"),
        pytest.param(b"model=m&messages=x", id="form"),
        pytest.param(b"\x1f\x8b\x08\x00" + bytes(20), id="compressed"),
    ],
)
def test_body_that_is_no_request_is_a_400(gateway: Gateway, body: bytes) -> None:
    """The message says what is wrong, the shape is OpenAI's, and nothing is sent or recorded."""
    before = gateway.count("decision")
    answer = gateway.http("POST", "/v1/chat/completions", body)
    assert answer.status == 400, answer.body
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.error["type"] == "invalid_request_error" and answer.error["message"]
    assert answer.headers["content-type"] == "application/json" and "x-request-id" in answer.headers
    assert not gateway.upstream.requests and gateway.count("decision") == before


def test_other_content_type_is_read_as_json(gateway: Gateway) -> None:
    """Some clients label their JSON wrongly; the upstream gets it labelled rightly."""
    answer = gateway.http("POST", "/v1/chat/completions", VALID, {"content-type": "text/plain"})
    assert answer.status == 200
    assert gateway.upstream.requests[-1].headers["content-type"] == "application/json"


def test_fifty_megabytes_are_a_413_that_the_client_sees(gateway: Gateway) -> None:
    """The official client reads the refusal instead of a broken connection."""
    with pytest.raises(openai.APIStatusError) as caught:
        gateway.client(timeout=30).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x" * 50_000_000}]
        )
    assert caught.value.status_code == 413 and caught.value.code == "too_large"
    assert "LUKHAS_MAX_BODY_BYTES" in caught.value.message
    assert gateway.chat().status == 200


@pytest.mark.parametrize(
    "path", [pytest.param("/v1/chat/completions", id="governed"), pytest.param("/api/v1/signals", id="control")]
)
def test_chunked_body_over_the_limit_is_a_413(gateway: Gateway, path: str) -> None:
    """Without a declared length the bytes are counted."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\nconnection: close\r\n"
    head += "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    block = b"%x\r\n%b\r\n" % (1_000_000, b" " * 1_000_000)
    with gateway.connect(head.encode()) as conn:
        for _ in range(12):
            conn.sendall(block)
        conn.sendall(b"0\r\n\r\n")
        answer = read_all(conn)
    assert answer.startswith(b"HTTP/1.1 413"), answer[:200]
    assert b'"code":"too_large"' in answer


def test_large_body_on_the_control_plane_is_a_413(gateway: Gateway) -> None:
    """The limit holds on every path that reads a body."""
    answer = gateway.http("POST", "/api/v1/signals", b'{"signals": {}, "x": "' + b"x" * 11_000_000 + b'"}')
    assert answer.status == 413 and answer.json["code"] == "too_large"


def test_large_body_without_a_key_is_a_401(gateway: Gateway) -> None:
    """Who has no key is told so, whatever is sent."""
    answer = gateway.http("POST", "/v1/chat/completions", b"x" * 12_000_000, key="lk_wrong")
    assert answer.status == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("POST", "/v1/completions", 404, id="unlisted"),
        pytest.param("GET", "/v1", 404, id="root"),
        pytest.param("GET", "/v1/", 404, id="root-slash"),
        pytest.param("POST", "/v1/audio/speech", 404, id="another-part"),
        pytest.param("POST", "/v1/chat/completions/x", 404, id="below"),
        pytest.param("GET", "/v1/../v1/models", 404, id="dots"),
        pytest.param("GET", "/v1/%2e%2e/v1/models", 404, id="encoded-dots"),
        pytest.param("GET", "/v1/models/../chat", 400, id="dots-in-a-model"),
        pytest.param("GET", "/v1/models/%2e%2e/files", 400, id="encoded-dots-in-a-model"),
        pytest.param("GET", "/v1/models/..%2ffiles", 400, id="encoded-slash-after-dots"),
        pytest.param("GET", "/v1%2fmodels", 404, id="encoded-slash-in-the-path"),
        pytest.param("GET", "/v1/models%2f..%2ffiles", 400, id="encoded-slashes"),
        pytest.param("POST", "//v1/chat/completions", 404, id="double-slash"),
        pytest.param("POST", "/V1/chat/completions", 404, id="upper-case"),
        pytest.param("GET", "/v1/chat/completions", 405, id="get"),
        pytest.param("DELETE", "/v1/chat/completions", 405, id="delete"),
        pytest.param("OPTIONS", "/v1/chat/completions", 405, id="options"),
        pytest.param("DELETE", "/v1/models/gpt-4o", 405, id="delete-a-model"),
        pytest.param("POST", "/v1/models", 405, id="post-models"),
        pytest.param("BREW", "/v1/models", 405, id="unknown-method"),
    ],
)
def test_path_or_method_that_is_not_served(gateway: Gateway, method: str, path: str, status: int) -> None:
    """Refused in OpenAI's shape, and never proxied."""
    request = f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\nconnection: close\r\n"
    body = VALID if method == "POST" else b""
    raw = gateway.raw(request.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
    if method == "BREW" and raw.startswith(b"HTTP/1.1 400"):
        return  # the HTTP parser knows no such method, and says so itself
    assert raw.startswith(b"HTTP/1.1 %d" % status), raw[:300]
    error = json.loads(raw.partition(b"\r\n\r\n")[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert not gateway.upstream.requests


def test_wrong_method_names_the_right_one(gateway: Gateway) -> None:
    """405 comes with Allow."""
    assert gateway.http("GET", "/v1/chat/completions").headers["allow"] == "POST"
    assert gateway.http("PUT", "/v1/models").headers["allow"] == "GET"


def test_head_is_answered_without_a_body(gateway: Gateway) -> None:
    """A probe by HEAD breaks nothing on its connection."""
    head = f"HEAD /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\nconnection: close\r\n\r\n"
    raw = gateway.raw(head.encode())
    assert raw.startswith(b"HTTP/1.1 405") and raw.endswith(b"\r\n\r\n")


def test_trailing_slash_is_the_same_path(gateway: Gateway) -> None:
    """`base_url` with a slash at its end makes such paths."""
    assert gateway.http("GET", "/v1/models/").status == 200
    assert gateway.http("POST", "/v1/chat/completions/", VALID).status == 200


def test_unknown_model_is_the_upstreams_404(gateway: Gateway) -> None:
    """The gateway keeps no list of models; the upstream's refusal comes through whole."""
    error = {
        "error": {
            "message": "no such model",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
    gateway.upstream.reply(status=404, json=error)
    with pytest.raises(openai.NotFoundError) as caught:
        gateway.client().chat.completions.create(model="gpt-99", messages=QUESTION)
    assert caught.value.code == "model_not_found"


def test_next_call_on_the_same_connection_works_after_a_refusal(gateway: Gateway) -> None:
    """A refused body leaves the connection in order."""
    with gateway.connect(raw_chat(b"{")) as conn:
        assert conn.recv(65_536).startswith(b"HTTP/1.1 400")
        conn.sendall(raw_chat(VALID))
        assert conn.recv(65_536).startswith(b"HTTP/1.1 200")


def test_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    """Two requests in one packet are two calls; the second is not taken for the client's leaving."""
    with gateway.connect(raw_chat(VALID) + raw_chat(VALID, headers="connection: close\r\n")) as conn:
        answers = read_all(conn)
    assert answers.count(b"HTTP/1.1 200") == 2


def test_client_that_half_closes_still_gets_its_answer_or_is_let_go(gateway: Gateway) -> None:
    """Shutting the sending side is a departure to the server; either way nothing hangs."""
    with gateway.connect(raw_chat(VALID, headers="connection: close\r\n")) as conn:
        conn.shutdown(socket.SHUT_WR)
        read_all(conn)
    assert gateway.chat().status == 200
