"""The upstream that answers without a model."""

from typing import Any

import orjson
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from lukhas.openai.echo import LABEL, EchoUpstream
from lukhas.openai.sse import SseSplitter, event_data
from lukhas.openai.upstream import UpstreamRequest
from lukhas.testing import FrozenClock

MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}]
TOOL = {"type": "function", "function": {"name": "retrieve_knowledge", "parameters": {"type": "object"}}}


async def call(body: object, path: str = "/chat/completions", method: str = "POST") -> tuple[int, bytes]:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    answer = await EchoUpstream(FrozenClock()).send(UpstreamRequest(method, path, raw))
    return answer.status, await answer.read(100_000_000)


async def stream(body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await EchoUpstream().send(UpstreamRequest("POST", "/chat/completions", orjson.dumps(body), stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    splitter = SseSplitter()
    data = [event_data(event) async for chunk in answer.chunks() for event in splitter.feed(chunk)]
    assert data.pop() == b"[DONE]"
    return [orjson.loads(text) for text in data if text is not None]


async def test_echo_content_is_labelled_and_tells_what_arrived() -> None:
    """Nobody can take the answer for a model's: it says so, then gives the parameters and the last user text."""
    body = {"model": "m", "messages": MESSAGES, "temperature": 0.25, "tools": [TOOL], "own_field": {"a": [1]}}
    status, raw = await call(body)
    answer = orjson.loads(raw)
    completion = ChatCompletion.model_validate(answer, strict=True)
    content = completion.choices[0].message.content or ""
    assert (status, content.splitlines()[0]) == (200, LABEL)
    shown, _, last = content.removeprefix(LABEL).rpartition("\n")
    assert orjson.loads(shown) == {
        "model": "m",
        "temperature": 0.25,
        "tools": ["retrieve_knowledge"],
        "own_field": {"a": [1]},
    }
    assert last == "Hello?"
    assert answer["lukhas_echo"] == body
    assert completion.created == FrozenClock().now_ms() // 1000
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


async def test_echo_stream_joins_to_the_plain_content() -> None:
    """Streamed pieces, joined, are the plain answer, in several chunks, with one finish for each choice."""
    body = {"model": "m", "messages": MESSAGES, "n": 2, "stream": True}
    chunks = await stream(body)
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
    plain = orjson.loads((await call({**body, "stream": False}))[1])["choices"][0]["message"]["content"]
    for index in (0, 1):
        pieces = [c["delta"].get("content", "") for chunk in chunks for c in chunk["choices"] if c["index"] == index]
        assert len([p for p in pieces if p]) > 1
        assert "".join(pieces) == plain.replace('"stream": false', '"stream": true')
    finishes = [c["index"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"] == "stop"]
    assert sorted(finishes) == [0, 1]
    assert chunks[-1]["lukhas_echo"] == body
    assert all("usage" not in chunk for chunk in chunks)


async def test_echo_stream_with_usage_ends_in_a_usage_chunk() -> None:
    """`include_usage` adds a last chunk without choices, and a null in all others, as OpenAI does."""
    chunks = await stream(
        {"model": "m", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    )
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert chunks[-1]["lukhas_echo"]["model"] == "m"
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_echo_plain_n_choices_are_all_there() -> None:
    """As many choices come back as were asked for."""
    answer = orjson.loads((await call({"model": "m", "messages": MESSAGES, "n": 3}))[1])
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "last"),
    [
        pytest.param("line 1\nline 2", "line 1\nline 2", id="lines"),
        pytest.param(
            [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}], "a\nb", id="parts"
        ),
        pytest.param("h\u00e9 \U0001f600", "h\u00e9 \U0001f600", id="unicode"),
        pytest.param(None, "}", id="null"),
        pytest.param(7, "}", id="number"),
    ],
)
async def test_echo_last_user_text_of_any_shape_is_shown(content: object, last: str) -> None:
    """Text parts are joined, and what is no text is left out."""
    answer = orjson.loads((await call({"model": "m", "messages": [{"role": "user", "content": content}]}))[1])
    assert answer["choices"][0]["message"]["content"].endswith(last)


@pytest.mark.parametrize(
    "tools",
    [pytest.param([7, None, {}, {"type": "web_search"}, {"function": 3}], id="odd"), pytest.param("x", id="text")],
)
async def test_echo_odd_tools_do_not_break_it(tools: object) -> None:
    """Whatever passes the gateway is answered."""
    assert (await call({"model": "m", "messages": MESSAGES, "tools": tools}))[0] == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param(b"{", None, id="not-json"),
        pytest.param(b"", None, id="empty"),
        pytest.param([1], None, id="list"),
        pytest.param({"messages": MESSAGES}, "model", id="no-model"),
        pytest.param({"model": "", "messages": MESSAGES}, "model", id="empty-model"),
        pytest.param({"model": 3, "messages": MESSAGES}, "model", id="number-model"),
        pytest.param({"model": "m"}, "messages", id="no-messages"),
        pytest.param({"model": "m", "messages": []}, "messages", id="empty-messages"),
        pytest.param({"model": "m", "messages": "hi"}, "messages", id="text-messages"),
        pytest.param({"model": "m", "messages": MESSAGES, "n": 0}, "n", id="n-0"),
        pytest.param({"model": "m", "messages": MESSAGES, "n": True}, "n", id="n-true"),
        pytest.param({"model": "m", "messages": MESSAGES, "n": 10**9}, "n", id="n-huge"),
        pytest.param(b'{"model":"m","messages":' + b"[" * 500 + b"]" * 500 + b"}", None, id="deep"),
    ],
)
async def test_echo_bad_body_is_400_in_openai_shape(body: object, param: str | None) -> None:
    """A body that no model API would take is refused like OpenAI refuses it."""
    status, raw = await call(body)
    error = orjson.loads(raw)["error"]
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"]


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503, 599])
async def test_echo_error_model_answers_its_status(status: int) -> None:
    """A model named after a status gives it, so that error handling can be tried."""
    got, raw = await call({"model": f"echo-error-{status}", "messages": MESSAGES})
    assert got == status
    assert orjson.loads(raw)["error"]["code"] == "echo_error"


@pytest.mark.parametrize("model", ["echo-error-200", "echo-error-600", "echo-error-4290", "echo-error-", "any-model"])
async def test_echo_other_models_answer_200(model: str) -> None:
    """Every other name is a model."""
    assert (await call({"model": model, "messages": MESSAGES}))[0] == 200


async def test_echo_models_list_and_single_are_openai_models() -> None:
    """The model list and each of its entries have OpenAI's shape."""
    status, raw = await call(b"", "/models", "GET")
    listed = orjson.loads(raw)
    assert (status, listed["object"]) == (200, "list")
    for entry in listed["data"]:
        model = Model.model_validate(entry, strict=True)
        assert model.owned_by == "lukhas-echo"
        assert orjson.loads((await call(b"", f"/models/{model.id}", "GET"))[1]) == entry
    assert {"echo-1", "gpt-4o-mini"} <= {entry["id"] for entry in listed["data"]}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/models/nope"), ("POST", "/models"), ("GET", "/chat/completions"), ("POST", "/files"), ("GET", "/")],
)
async def test_echo_unknown_path_is_404_in_openai_shape(method: str, path: str) -> None:
    """What it does not know it says so."""
    status, raw = await call(b"", path, method)
    assert status == 404
    assert set(orjson.loads(raw)["error"]) == {"message", "type", "param", "code"}
