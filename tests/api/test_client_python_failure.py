"""The official Python client where things go wrong: errors, limits, retries, timeouts, and leaving early."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Any

import client_scene
import openai
import pytest
import upstream_shape as shape
from client_scene import ADMIN_KEY, FORBIDDEN, Scene
from conftest import QUESTION, wait_until

stage, scene = client_scene.stage(), client_scene.scene()
ASK: dict[str, Any] = {"model": "gpt-4.1-mini", "messages": QUESTION}
DENIED: dict[str, Any] = {
    "model": "gpt-4.1-mini",
    "messages": [{"role": "user", "content": f"Sell me a {FORBIDDEN}, please."}],
}
STATUSES = [
    pytest.param(400, openai.BadRequestError, "invalid_request_error", "context_length_exceeded", id="400"),
    pytest.param(401, openai.AuthenticationError, "invalid_request_error", "invalid_api_key", id="401"),
    pytest.param(403, openai.PermissionDeniedError, "invalid_request_error", "unsupported_country", id="403"),
    pytest.param(404, openai.NotFoundError, "invalid_request_error", "model_not_found", id="404"),
    pytest.param(409, openai.ConflictError, "invalid_request_error", None, id="409"),
    pytest.param(422, openai.UnprocessableEntityError, "invalid_request_error", None, id="422"),
    pytest.param(429, openai.RateLimitError, "insufficient_quota", "insufficient_quota", id="429"),
    pytest.param(500, openai.InternalServerError, "server_error", None, id="500"),
    pytest.param(503, openai.InternalServerError, "server_error", "overloaded", id="503"),
]


@pytest.mark.parametrize("surface", ["chat", "responses", "embeddings"])
@pytest.mark.parametrize(("status", "kind", "type_", "code"), STATUSES)
def test_upstream_error_keeps_its_class_and_body(
    scene: Scene, surface: str, status: int, kind: type[openai.APIStatusError], type_: str, code: str | None
) -> None:
    """On every surface, an error of the upstream is the client's own exception, with message, type and code."""
    body = shape.error("The upstream says no.", type_, code, "model")
    scene.refuse(status, body, x_request_id="req_up_7")
    client = scene.gateway.client()
    with pytest.raises(kind) as caught:
        if surface == "chat":
            client.chat.completions.create(**ASK)
        elif surface == "responses":
            client.responses.create(model="m", input="Hi", stream=True)
        else:
            client.embeddings.create(model="m", input="Hi")
    assert (caught.value.status_code, caught.value.body) == (status, body["error"])
    assert (caught.value.type, caught.value.code, caught.value.param) == (type_, code, "model")
    assert caught.value.request_id == caught.value.response.headers["x-request-id"]
    assert caught.value.response.headers["x-upstream-request-id"] == "req_up_7"


def test_proxys_page_instead_of_an_error_is_readable(scene: Scene) -> None:
    """An HTML page of a proxy in between becomes an error in OpenAI's shape."""
    scene.upstream.reply(status=502, body=b"<html>Bad gateway</html>", headers={"content-type": "text/html"})
    with pytest.raises(openai.InternalServerError) as caught:
        scene.gateway.client().chat.completions.create(**ASK)
    assert caught.value.type == "upstream_error" and "502" in caught.value.message


@pytest.mark.parametrize(
    "ending", [pytest.param("reset", id="reset"), pytest.param("truncate", id="closed-without-an-answer")]
)
def test_upstream_that_drops_the_call_is_a_502_and_asked_once(scene: Scene, ending: Any) -> None:
    """The call may have reached the model, so neither the gateway nor the client repeats it."""
    scene.upstream.reply_raw([], ending=ending)
    with pytest.raises(openai.InternalServerError) as caught:
        scene.gateway.client(max_retries=2).chat.completions.create(**ASK)
    assert caught.value.status_code == 502 and caught.value.code == "upstream_broken"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert scene.calls == 1


def test_gateway_that_is_not_there_is_a_connection_error() -> None:
    """Nothing listens: the client's own error, after its retries."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="lk_x", max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.models.list()


@pytest.mark.parametrize("surface", ["chat", "responses"])
def test_error_event_in_a_stream_is_raised_with_its_body(scene: Scene, surface: str) -> None:
    """What came before it was read; the error has the upstream's message and code."""
    body = shape.error("The server had an error.", "server_error", "server_error")
    client = scene.gateway.client()
    seen: list[Any] = []
    if surface == "chat":
        scene.upstream.reply_events([*shape.chat_chunks("A ", "grey ")[:-1], body], done=False)
        stream: Any = client.chat.completions.create(**ASK, stream=True)
    else:
        events = shape.response_events([shape.message("A grey ")])[:6]
        scene.upstream.reply_events([*shape.encode_events(events), body], done=False)
        stream = client.responses.create(model="m", input="Hi", stream=True)
    with pytest.raises(openai.APIError) as caught:
        for event in stream:
            seen.append(event)
    assert len(seen) >= 3
    assert caught.value.message == "The server had an error." and caught.value.code == "server_error"
    assert scene.last_outcome()["status"] == "upstream_error"


@pytest.mark.parametrize("ending", [pytest.param("reset", id="reset"), pytest.param("truncate", id="cut")])
@pytest.mark.parametrize("surface", ["chat", "responses"])
def test_stream_that_breaks_off_is_an_error_and_never_a_short_answer(scene: Scene, surface: str, ending: Any) -> None:
    """A client that reads to the end learns that the answer is not whole."""
    client = scene.gateway.client()
    if surface == "chat":
        scene.upstream.reply_events(shape.chat_chunks("A ", "grey ")[:-1], done=False, ending=ending)
        stream: Any = client.chat.completions.create(**ASK, stream=True)
    else:
        events = shape.encode_events(shape.response_events([shape.message("A grey ")])[:6])
        scene.upstream.reply_events(events, done=False, ending=ending)
        stream = client.responses.create(model="m", input="Hi", stream=True)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "upstream_broken"
    assert scene.last_outcome()["status"] == "broken"


def test_stream_without_its_last_event_is_an_error(scene: Scene) -> None:
    """The body ends in order, but [DONE] never came."""
    scene.stream_chat("A ", "grey ", "heron.", done=False)
    with pytest.raises(openai.APIError, match="incomplete"):
        list(scene.gateway.client().chat.completions.create(**ASK, stream=True))


@pytest.mark.parametrize("surface", ["chat", "responses", "chat-stream"])
def test_denied_input_is_a_403_and_never_retried(scene: Scene, surface: str) -> None:
    """Five retries allowed, none made; nothing reached the upstream, and the incident is named."""
    client = scene.gateway.client(max_retries=5)
    before = scene.gateway.count("decision")
    with pytest.raises(openai.PermissionDeniedError) as caught:
        if surface == "responses":
            client.responses.create(model="m", input=DENIED["messages"][0]["content"])
        else:
            client.chat.completions.create(**DENIED, stream=surface == "chat-stream")
    assert scene.gateway.count("decision") - before == 1, "it was retried"
    assert scene.calls == 0
    assert caught.value.type == "permission_error" and "forbidden-bird" in caught.value.message
    headers = caught.value.response.headers
    assert headers["x-should-retry"] == "false" and headers["x-lukhas-incidents"].startswith("inc_")
    assert scene.outcome(headers["x-lukhas-audit-id"])["status"] == "denied"


@pytest.mark.parametrize(
    ("make", "param"),
    [
        pytest.param(lambda c: c.chat.completions.create(model="m", messages=[]), "messages", id="no-messages"),
        pytest.param(lambda c: c.chat.completions.create(model="", messages=QUESTION), "model", id="no-model"),
        pytest.param(lambda c: c.responses.create(model="m", input=5), "input", id="input-number"),
        pytest.param(
            lambda c: c.chat.completions.create(**ASK, extra_body={"lukhas": {"session": 5}}),
            "lukhas.session",
            id="extension",
        ),
    ],
)
def test_wrong_request_is_a_400_that_names_the_field(scene: Scene, make: Any, param: str) -> None:
    """The gateway's own refusals read as OpenAI's do."""
    with pytest.raises(openai.BadRequestError) as caught:
        make(scene.gateway.client(max_retries=3))
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", param)
    assert scene.calls == 0


def test_wrong_key_is_a_401_on_every_resource(scene: Scene) -> None:
    """Chat, responses, embeddings, moderations and models refuse alike."""
    client: Any = scene.gateway.client("lk_wrong", max_retries=2)
    for ask in (
        lambda: client.chat.completions.create(**ASK),
        lambda: client.responses.create(model="m", input="Hi"),
        lambda: client.responses.retrieve("resp_1"),
        lambda: client.embeddings.create(model="m", input="Hi"),
        lambda: client.moderations.create(input="Hi"),
        lambda: client.models.list(),
    ):
        with pytest.raises(openai.AuthenticationError) as caught:
            ask()
        assert caught.value.code == "invalid_api_key"
    assert scene.calls == 0


def test_unserved_resource_is_a_404(scene: Scene) -> None:
    """What this gateway does not serve is said so, and not proxied."""
    client = scene.gateway.client(max_retries=2)
    for ask in (
        lambda: client.completions.create(model="m", prompt="Hi"),
        lambda: client.files.list(),
        lambda: client.images.generate(prompt="Hi"),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    assert scene.calls == 0


def test_limit_is_a_429_with_the_headers_that_clients_read(scene: Scene) -> None:
    """Remaining and reset count down; past the limit comes RateLimitError with Retry-After."""
    client = scene.gateway.client(scene.limited_key(requests_per_minute=2))
    left = []
    for _ in range(2):
        scene.answer(shape.chat("Hi."), headers={"x-ratelimit-remaining-requests": "9999"})
        raw = client.chat.completions.with_raw_response.create(**ASK)
        left.append(raw.headers["x-ratelimit-remaining-requests"])
    assert left == ["1", "0"]
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**ASK)
    headers = caught.value.response.headers
    assert 0 < int(headers["retry-after"]) <= 60
    assert headers["x-ratelimit-limit-requests"] == "2" and headers["x-ratelimit-remaining-requests"] == "0"
    assert caught.value.type == "rate_limit_error" and caught.value.code == "rate_limit_exceeded"
    assert scene.calls == 2


def test_call_over_the_limit_of_calls_at_once_waits_and_then_succeeds(scene: Scene) -> None:
    """The client's own retry heeds Retry-After, and passes once the first stream is over."""
    client = scene.gateway.client(scene.limited_key(concurrent_calls=1), max_retries=2)
    scene.stream_chat("A ", "heron.", between_ms=50)
    stream = client.chat.completions.create(**ASK, stream=True)
    next(stream)
    scene.answer(shape.chat("Now."))
    began = time.monotonic()
    raw = client.chat.completions.with_raw_response.create(**ASK)
    assert raw.parse().choices[0].message.content == "Now." and raw.retries_taken == 1
    assert time.monotonic() - began >= 0.9
    stream.close()


def test_budget_that_is_spent_is_not_waited_for(scene: Scene) -> None:
    """Only tomorrow helps, so the client is told not to retry."""
    client = scene.gateway.client(scene.limited_key(tokens_per_day=1), max_retries=3)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**ASK)
    assert caught.value.code == "insufficient_quota" and caught.value.response.headers["x-should-retry"] == "false"
    assert scene.calls == 0


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_client_retries_what_openai_would_have_it_retry(scene: Scene, status: int) -> None:
    """The upstream's pause reaches the client, which comes again and succeeds."""
    scene.refuse(status, retry_after_ms="5", retry_after="1")
    scene.answer(shape.chat("At last."))
    raw = scene.gateway.client(max_retries=1).chat.completions.with_raw_response.create(**ASK)
    assert raw.parse().choices[0].message.content == "At last."
    assert raw.retries_taken == 1 and scene.calls == 2


@pytest.mark.parametrize(
    ("status", "header", "calls"),
    [
        pytest.param(503, "false", 1, id="must-not"),
        pytest.param(400, "true", 3, id="must"),
        pytest.param(400, None, 1, id="client-error"),
        pytest.param(500, None, 3, id="server-error"),
    ],
)
def test_should_retry_header_is_obeyed(scene: Scene, status: int, header: str | None, calls: int) -> None:
    """`x-should-retry` of the upstream comes through, and counts more than the status."""
    fields = {"retry_after_ms": "1", **({} if header is None else {"x_should_retry": header})}
    for _ in range(calls):
        scene.refuse(status, **fields)
    with pytest.raises(openai.APIStatusError):
        scene.gateway.client(max_retries=2).chat.completions.create(**ASK)
    assert scene.calls == calls


def test_each_retry_is_a_call_of_its_own_on_record(scene: Scene) -> None:
    """Two attempts, two audit ids, two outcomes."""
    before = scene.gateway.count("decision")
    scene.refuse(500, retry_after_ms="1")
    scene.answer(shape.chat("Yes."))
    raw = scene.gateway.client(max_retries=1).chat.completions.with_raw_response.create(**ASK)
    assert scene.outcome(raw.headers["x-lukhas-audit-id"])["status"] == "ok"
    assert scene.gateway.count("decision") - before == 2


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_timeout_ends_the_upstreams_call(scene: Scene, stream: bool) -> None:
    """APITimeoutError for the caller, a closed connection for the upstream, client_gone on record."""
    scene.upstream.reply(delay_ms=4000)
    with pytest.raises(openai.APITimeoutError):
        scene.gateway.client(timeout=0.7).chat.completions.create(**ASK, stream=stream)
    assert scene.upstream.requests[0].closed.wait(2)
    assert scene.last_outcome()["status"] == "client_gone"


def test_timeout_is_retried_by_the_client(scene: Scene) -> None:
    """The second attempt is answered."""
    scene.upstream.reply(delay_ms=4000)
    scene.answer(shape.chat("Sooner."))
    answer = scene.gateway.client(timeout=1.0, max_retries=1).chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "Sooner." and scene.calls == 2


def test_breaking_out_of_a_stream_closes_the_upstream(scene: Scene) -> None:
    """The connection is closed at once, and the outcome is client_gone."""
    scene.stream_chat("A ", "grey ", ending="stall", done=False)
    with scene.gateway.client().chat.completions.create(**ASK, stream=True) as stream:
        for chunk in stream:
            if chunk.choices[0].delta.content:
                break
    assert scene.upstream.requests[0].closed.wait(2)
    assert scene.last_outcome()["status"] == "client_gone"


def test_leaving_the_stream_helper_closes_the_upstream(scene: Scene) -> None:
    """So does the end of the helper's `with`, on the Responses surface."""
    events = shape.encode_events(shape.response_events([shape.message("A grey heron.")])[:6])
    scene.upstream.reply_events(events, done=False, ending="stall")
    with scene.gateway.client().responses.stream(model="m", input="Hi") as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                break
    assert scene.upstream.requests[0].closed.wait(2)
    assert scene.last_outcome()["status"] == "client_gone"


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
async def test_cancelled_task_closes_the_upstream(scene: Scene, stream: bool) -> None:
    """`task.cancel()` in the middle of a plain call, or of a stream."""
    if stream:
        scene.stream_chat("A ", ending="stall", done=False)
    else:
        scene.upstream.reply(delay_ms=4000)

    async def ask(client: openai.AsyncOpenAI) -> None:
        if not stream:
            await client.chat.completions.create(**ASK)
            return
        async for _ in await client.chat.completions.create(**ASK, stream=True):
            pass

    async with openai.AsyncOpenAI(base_url=scene.gateway.base_url, api_key=ADMIN_KEY, max_retries=0) as client:
        task = asyncio.ensure_future(ask(client))
        await asyncio.to_thread(wait_until, lambda: scene.calls)
        await asyncio.sleep(0.1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert await asyncio.to_thread(scene.upstream.requests[0].closed.wait, 2)
    assert (await asyncio.to_thread(scene.last_outcome))["status"] == "client_gone"


def test_next_call_of_the_client_works_after_each_kind_of_failure(scene: Scene) -> None:
    """Errors, denials and departures leave the client's connections in order."""
    client = scene.gateway.client()
    scene.refuse(500)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**ASK)
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(**DENIED)
    scene.gateway.relax()
    scene.stream_chat("A ", ending="stall", done=False)
    with client.chat.completions.create(**ASK, stream=True) as stream:
        next(stream)
    scene.answer(shape.chat("Still here."))
    assert client.chat.completions.create(**ASK).choices[0].message.content == "Still here."
