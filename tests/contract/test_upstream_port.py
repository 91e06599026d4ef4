"""What every upstream promises, run against each of them."""

import asyncio
import time
from collections.abc import AsyncIterator

import orjson
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from lukhas.errors import InvalidRequest, UpstreamBroken
from lukhas.openai.aiohttp_upstream import AiohttpUpstream
from lukhas.openai.echo import EchoUpstream
from lukhas.openai.sse import SseSplitter, event_data, is_done
from lukhas.openai.upstream import Upstream, UpstreamRequest, make_upstream
from lukhas.settings import Settings
from lukhas.testing import DEFAULT_ANSWER, FakeUpstream

MESSAGES = [{"role": "user", "content": "Hello?"}]


@pytest.fixture(params=["echo", "http"])
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[Upstream]:
    """Give each upstream in turn; the HTTP one with a real server behind it."""
    if request.param == "echo":
        yield EchoUpstream()
        return
    with FakeUpstream() as server:
        http = AiohttpUpstream(server.base_url)
        yield http
        await http.close()


def ask(**fields: object) -> UpstreamRequest:
    body = {"model": "gpt-4o-mini", "messages": MESSAGES, **fields}
    return UpstreamRequest("POST", "/chat/completions", orjson.dumps(body), stream=bool(fields.get("stream")))


async def test_upstream_plain_call_answers_a_chat_completion(upstream: Upstream) -> None:
    """A plain call gives status, lower-case headers, one attempt, and a body in OpenAI's shape."""
    answer = await upstream.send(ask(), deadline=time.monotonic() + 5)
    assert (answer.status, answer.attempts) == (200, 1)
    assert answer.headers["content-type"].startswith("application/json")
    completion = ChatCompletion.model_validate_json(await answer.read(1_000_000), strict=True)
    assert completion.choices[0].finish_reason == "stop"
    assert completion.choices[0].message.content
    await answer.close()


async def test_upstream_stream_call_answers_events_and_done(upstream: Upstream) -> None:
    """A streamed call gives chunks whose events are in OpenAI's shape and end in [DONE]."""
    answer = await upstream.send(ask(stream=True))
    splitter = SseSplitter()
    events = [event async for chunk in answer.chunks() for event in splitter.feed(chunk)]
    assert splitter.flush() == b""
    data = [found for event in events if (found := event_data(event)) is not None]
    assert is_done(data[-1])
    chunks = [ChatCompletionChunk.model_validate_json(text) for text in data[:-1]]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    await answer.close()


async def test_upstream_missing_thing_is_an_answer_not_an_exception(upstream: Upstream) -> None:
    """An error status comes back as an answer with OpenAI's error shape."""
    answer = await upstream.send(UpstreamRequest("GET", "/models/no-such-model"))
    assert answer.status == 404
    assert "message" in orjson.loads(await answer.read(10_000))["error"]


async def test_upstream_answer_over_the_limit_is_broken(upstream: Upstream) -> None:
    """A body longer than the reader allows is refused."""
    answer = await upstream.send(ask())
    with pytest.raises(UpstreamBroken, match="20 bytes"):
        await answer.read(20)
    answer.abort()


async def test_upstream_answer_closed_twice_and_unread_is_quiet(upstream: Upstream) -> None:
    """Closing and aborting may come in any order, any number of times."""
    answer = await upstream.send(ask())
    answer.abort()
    await answer.close()
    answer.abort()
    await answer.close()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "chat",
        "/a b",
        "/a\r\nX: 1",
        "/a\x00",
        "/\u00e4",
        "/models/../admin",
        "/models/%2E%2e/x",
        "/..",
        "/a#b",
        "/a\n",
    ],
)
async def test_upstream_unsafe_path_is_refused(upstream: Upstream, path: str) -> None:
    """A path that would break out of the request line or of the base URL is never sent."""
    with pytest.raises(InvalidRequest):
        await upstream.send(UpstreamRequest("GET", path))


async def test_upstream_check_reachable_says_none(upstream: Upstream) -> None:
    """A reachable upstream has no complaint."""
    assert await upstream.check() is None


async def test_upstream_many_calls_at_once_all_answer(upstream: Upstream) -> None:
    """Calls do not disturb each other."""
    answers = await asyncio.gather(*(upstream.send(ask()) for _ in range(40)))
    bodies = await asyncio.gather(*(answer.read(1_000_000) for answer in answers))
    assert all(orjson.loads(body)["object"] == DEFAULT_ANSWER["object"] for body in bodies)


async def test_upstream_close_twice_is_quiet(upstream: Upstream) -> None:
    """Closing may be repeated."""
    await upstream.close()
    await upstream.close()


@pytest.mark.parametrize(("url", "name"), [("echo", "echo"), ("http://127.0.0.1:9/v1", "http")])
async def test_make_upstream_follows_the_setting(url: str, name: str) -> None:
    """The base URL alone decides which upstream is made, and no connection is opened for it."""
    made = make_upstream(Settings(upstream_base_url=url))
    assert made.name == name
    await made.close()
