"""The official `openai` client works unchanged."""

from __future__ import annotations

import openai
import pytest
from conftest import ADMIN_KEY, QUESTION, Gateway

ERROR = {"error": {"message": "No.", "type": "some_error", "param": None, "code": "some_code"}}


def test_chat_by_the_official_client_is_answered(gateway: Gateway) -> None:
    """A plain chat completion comes back as the client's own type."""
    answer = gateway.client().chat.completions.create(model="gpt-4o-mini", messages=QUESTION)
    assert answer.choices[0].message.content == "Hello."
    assert answer.usage is not None and answer.usage.total_tokens == 7


def test_stream_by_the_official_client_yields_each_chunk(gateway: Gateway) -> None:
    """A streamed answer arrives chunk by chunk and ends by itself."""
    stream = gateway.client().chat.completions.create(model="gpt-4o-mini", messages=QUESTION, stream=True)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello."
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_stream_with_usage_hands_the_usage_chunk_on(gateway: Gateway) -> None:
    """A chunk without choices passes, and its counts are in the outcome."""
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    gateway.upstream.reply_events(
        [
            {**base, "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}], "usage": None},
            {**base, "choices": [], "usage": usage},
        ]
    )
    create = gateway.client().chat.completions.create
    chunks = list(create(model="m", messages=QUESTION, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 7
    assert gateway.document(gateway.last_audit_id())["outcome"]["usage"] == usage


def test_tool_call_in_the_answer_reaches_the_client(gateway: Gateway) -> None:
    """An allowed tool is advertised, and the model's call of it comes back."""
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "retrieve_knowledge", "arguments": '{"query":"x"}'},
    }
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": None}
    gateway.upstream.reply(
        json={"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    )
    tool = {"type": "function", "function": {"name": "retrieve_knowledge", "parameters": {"type": "object"}}}
    answer = gateway.client().chat.completions.create(model="m", messages=QUESTION, tools=[tool])
    calls = answer.choices[0].message.tool_calls
    assert calls is not None and calls[0].id == "call_1"
    assert gateway.sent()["tools"] == [tool]


def test_raw_response_shows_the_gateways_headers(gateway: Gateway) -> None:
    """Every header that an answer promises is there, and the client finds the request's id."""
    raw = gateway.client().chat.completions.with_raw_response.create(model="m", messages=QUESTION)
    for name in ("audit-id", "policy", "mode", "safety-mode", "parameters"):
        assert raw.headers[f"x-lukhas-{name}"]
    assert raw.headers["x-lukhas-audit-id"].startswith("aud_")
    assert raw.request_id == raw.headers["x-request-id"]
    assert raw.parse().choices[0].message.content == "Hello."


def test_streaming_response_is_read_line_by_line(gateway: Gateway) -> None:
    """`with_streaming_response` sees the events as they are on the wire, the last one included."""
    create = gateway.client().chat.completions.with_streaming_response.create
    with create(model="m", messages=QUESTION, stream=True) as response:
        lines = [line for line in response.iter_lines() if line]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"


async def test_async_client_chats_and_streams(gateway: Gateway) -> None:
    """The asynchronous client works as the synchronous one."""
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=ADMIN_KEY, max_retries=0) as client:
        answer = await client.chat.completions.create(model="m", messages=QUESTION)
        stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        models = [model.id async for model in client.models.list()]
    assert (answer.choices[0].message.content, text, models) == ("Hello.", "Hello.", ["fake-1"])


def test_models_are_listed_and_retrieved(gateway: Gateway) -> None:
    """The list passes; a model that the upstream does not know is the client's NotFoundError."""
    client = gateway.client()
    assert [model.id for model in client.models.list()] == ["fake-1"]
    gateway.upstream.reply(json={"id": "acme/m 1", "object": "model", "created": 1, "owned_by": "acme"})
    assert client.models.retrieve("acme/m 1").id == "acme/m 1"
    assert gateway.upstream.requests[-1].path == "/v1/models/acme%2Fm%201"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("absent")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(400, openai.BadRequestError, id="400"),
        pytest.param(401, openai.AuthenticationError, id="401"),
        pytest.param(403, openai.PermissionDeniedError, id="403"),
        pytest.param(404, openai.NotFoundError, id="404"),
        pytest.param(409, openai.ConflictError, id="409"),
        pytest.param(413, openai.APIStatusError, id="413"),
        pytest.param(422, openai.UnprocessableEntityError, id="422"),
        pytest.param(429, openai.RateLimitError, id="429"),
        pytest.param(500, openai.InternalServerError, id="500"),
        pytest.param(503, openai.InternalServerError, id="503"),
    ],
)
@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_upstream_error_status_becomes_the_clients_exception(
    gateway: Gateway, status: int, kind: type[openai.APIStatusError], stream: bool
) -> None:
    """What the upstream refuses is refused with its own status and body, and is on record."""
    gateway.upstream.reply(status=status, json=ERROR, headers={"x-should-retry": "false", "x-request-id": "up-1"})
    with pytest.raises(kind) as caught:
        gateway.client().chat.completions.create(model="m", messages=QUESTION, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.body == ERROR["error"]
    assert caught.value.response.headers["x-upstream-request-id"] == "up-1"
    outcome = gateway.document(caught.value.response.headers["x-lukhas-audit-id"])["outcome"]
    assert (outcome["status"], outcome["http_status"]) == ("upstream_error", status)


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_client_timeout_is_its_own_exception(gateway: Gateway, stream: bool) -> None:
    """A client that gives up raises APITimeoutError, and the upstream's call ends with it."""
    gateway.upstream.reply(delay_ms=4000)
    client = gateway.client(timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="m", messages=QUESTION, stream=stream)
    assert gateway.upstream.requests[0].closed.wait(2)


def test_timeout_of_one_call_is_not_sent_on_as_a_field(gateway: Gateway) -> None:
    """`timeout`, extra headers and extra query stay between client and gateway."""
    gateway.client().chat.completions.create(
        model="m", messages=QUESTION, timeout=7, extra_headers={"X-Team": "blue"}, extra_query={"a": "b"}
    )
    received = gateway.upstream.requests[-1]
    assert received.json == {"model": "m", "messages": QUESTION}
    assert received.path == "/v1/chat/completions"
    assert "x-team" not in received.headers


def test_extra_body_carries_the_extension(gateway: Gateway) -> None:
    """`extra_body={"lukhas": ...}` steers the call and does not reach the upstream."""
    raw = gateway.client().chat.completions.with_raw_response.create(
        model="m", messages=QUESTION, extra_body={"lukhas": {"session": "s-extra", "signals": {"alignment_risk": 0.8}}}
    )
    assert raw.headers["x-lukhas-safety-mode"] == "strict"
    assert "lukhas" not in gateway.sent()
    assert gateway.sent()["temperature"] == pytest.approx(0.32)


def test_extra_headers_carry_signals(gateway: Gateway) -> None:
    """`extra_headers` brings signals in as the body does."""
    gateway.client().chat.completions.create(
        model="m", messages=QUESTION, extra_headers={"X-Lukhas-Signals": "stress=0.7"}
    )
    assert gateway.sent()["temperature"] == pytest.approx(0.28)


def test_client_retries_what_says_that_it_may_be_retried(gateway: Gateway) -> None:
    """The upstream is retried here once, then by the client; the client's attempts are calls of their own."""
    for _ in range(2):
        gateway.upstream.reply(status=503, json=ERROR, headers={"retry-after-ms": "1"})
    answer = gateway.client(max_retries=1).chat.completions.create(model="m", messages=QUESTION)
    assert answer.choices[0].message.content == "Hello."
    assert len(gateway.upstream.requests) == 3


def test_client_does_not_retry_what_says_that_it_must_not(gateway: Gateway) -> None:
    """`x-should-retry: false` from the upstream holds for the gateway and for the client behind it."""
    gateway.upstream.reply(status=503, json=ERROR, headers={"x-should-retry": "false"})
    with pytest.raises(openai.InternalServerError):
        gateway.client(max_retries=3).chat.completions.create(model="m", messages=QUESTION)
    assert len(gateway.upstream.requests) == 1


def test_wrong_key_is_an_authentication_error_and_is_not_retried(gateway: Gateway) -> None:
    """401 in OpenAI's shape, before anything reaches the upstream."""
    with pytest.raises(openai.AuthenticationError) as caught:
        gateway.client("lk_wrong", max_retries=2).chat.completions.create(model="m", messages=QUESTION)
    assert caught.value.code == "invalid_api_key"
    assert not gateway.upstream.requests


def test_parsed_completion_with_a_schema_works(gateway: Gateway) -> None:
    """Structured output's request reaches the upstream as the client made it."""
    format_ = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}
    gateway.client().chat.completions.create(model="m", messages=QUESTION, response_format=format_)
    assert gateway.sent()["response_format"] == format_
