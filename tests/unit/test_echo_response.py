"""The upstream that answers the Responses API without a model."""

from typing import Any

import httpx2
import orjson
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from lukhas.openai.echo import LABEL, EchoUpstream
from lukhas.openai.upstream import UpstreamRequest
from lukhas.testing import FrozenClock

TOOL = {"type": "function", "name": "retrieve_knowledge", "parameters": {"type": "object"}}
ITEMS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": [{"type": "input_text", "text": "Hi?"}]},
]


async def call(body: object, path: str = "/responses", method: str = "POST") -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    answer = await EchoUpstream(FrozenClock()).send(UpstreamRequest(method, path, raw))
    return answer.status, orjson.loads(await answer.read(100_000_000))


def client() -> AsyncOpenAI:
    """The official client, with the echo in the place of the network."""

    async def send(request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix("/v1")
        answer = await EchoUpstream().send(UpstreamRequest(request.method, path, request.content))
        return httpx2.Response(answer.status, headers=dict(answer.headers), content=await answer.read(100_000_000))

    transport = httpx2.AsyncClient(transport=httpx2.MockTransport(send))
    return AsyncOpenAI(api_key="none", base_url="http://echo/v1", http_client=transport, max_retries=0)


async def test_echo_response_is_labelled_and_tells_what_arrived() -> None:
    """Nobody can take it for a model's answer, and it parses as OpenAI's type."""
    body = {"model": "m", "input": ITEMS, "temperature": 0.25, "tools": [TOOL], "own_field": {"a": [1]}}
    status, answer = await call(body)
    response = Response.model_validate(answer)
    content = response.output_text
    assert (status, content.splitlines()[0]) == (200, LABEL)
    shown, _, last = content.removeprefix(LABEL).rpartition("\n")
    wanted = {"model": "m", "temperature": 0.25, "tools": ["retrieve_knowledge"], "own_field": {"a": [1]}}
    assert orjson.loads(shown) == wanted
    assert last == "Hi?"
    assert answer["lukhas_echo"] == body
    now_s = FrozenClock().now_ms() // 1000
    assert (response.status, response.temperature, response.created_at) == ("completed", 0.25, now_s)
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


async def test_echo_response_stream_accumulates_to_its_last_event() -> None:
    """The official client takes the full sequence of events, and ends in the response that they add up to."""
    async with client() as openai, openai.responses.stream(model="m", input="Hello " * 30) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 2
    assert "".join(deltas) == final.output_text
    assert final.output_text.rstrip().endswith("Hello")
    assert [event.sequence_number for event in events] == list(range(len(events)))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param(b"{", None, id="not-json"),
        pytest.param({"input": "hi"}, "model", id="no-model"),
        pytest.param({"model": 3, "input": "hi"}, "model", id="number-model"),
        pytest.param({"model": "m"}, "input", id="no-input"),
        pytest.param({"model": "m", "input": 7}, "input", id="number-input"),
        pytest.param({"model": "echo-error-500", "input": 7}, "input", id="input-before-the-wished-error"),
        pytest.param(b'{"model":"m","input":' + b"[" * 500 + b"]" * 500 + b"}", None, id="deep"),
    ],
)
async def test_echo_response_bad_body_is_400(body: object, param: str | None) -> None:
    """A body that the API would refuse is refused, in its shape."""
    status, answer = await call(body)
    assert (status, answer["error"]["param"]) == (400, param)


async def test_echo_response_prompt_needs_neither_model_nor_input() -> None:
    """A stored prompt names its own model."""
    status, answer = await call({"prompt": {"id": "pmpt_1"}})
    assert (status, answer["model"], answer["prompt"]) == (200, "echo-1", {"id": "pmpt_1"})


async def test_echo_response_error_model_answers_its_status() -> None:
    """A model named after a status gives it here too."""
    assert (await call({"model": "echo-error-429", "input": "hi"}))[0] == 429


async def test_echo_response_ids_differ_from_call_to_call() -> None:
    """Two answers are two objects."""
    first, second = (await call({"model": "m", "input": "hi"}))[1], (await call({"model": "m", "input": "hi"}))[1]
    assert first["id"] != second["id"]
    assert first["output"][0]["id"] != second["output"][0]["id"]


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_echo_stored_response_is_not_found(method: str) -> None:
    """Nothing is stored, and it says so."""
    assert (await call(b"{}", "/responses/resp_1", method))[0] == 404
