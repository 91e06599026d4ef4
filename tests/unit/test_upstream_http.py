"""The upstream over HTTP, against a real server that behaves and misbehaves."""

import asyncio
import gzip
import time
import warnings

import orjson
import pytest
from http_upstream import BODY, CALL, STREAM, Pauses, free_port, pauses, server, upstream, wait_for

from lukhas.errors import SettingsError, UpstreamBroken, UpstreamTimeout
from lukhas.openai.aiohttp_upstream import AiohttpUpstream
from lukhas.openai.upstream import UpstreamRequest
from lukhas.settings import Secret
from lukhas.testing import FakeUpstream

__all__ = ["pauses", "server", "upstream"]  # fixtures


async def test_send_request_carries_body_key_and_allowed_headers_only(
    server: FakeUpstream, upstream: AiohttpUpstream
) -> None:
    """The body arrives as it is, with our key; nothing in the call's headers can replace what is ours."""
    headers = (("openai-beta", "x"), ("Authorization", "Bearer theirs"), ("cookie", "a=b"), ("host", "evil"))
    answer = await upstream.send(UpstreamRequest("POST", "/chat/completions", BODY, headers))
    await answer.read(100_000)
    got = server.requests[0]
    assert (got.method, got.path, got.body) == ("POST", "/v1/chat/completions", BODY)
    assert got.headers["authorization"] == "Bearer sk-upstream"
    assert got.headers["openai-beta"] == "x"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["accept-encoding"] == "identity"
    assert got.headers["host"].startswith("127.0.0.1:")
    assert "cookie" not in got.headers


async def test_send_without_key_sends_no_authorization(server: FakeUpstream) -> None:
    """Local model servers want no key, and get none."""
    upstream = AiohttpUpstream(server.base_url)
    await (await upstream.send(CALL)).read(100_000)
    await upstream.close()
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("key", ["sk a", "sk\n", "sk\u00e9", "sk\x00"])
def test_upstream_key_that_no_header_carries_is_a_settings_error(key: str) -> None:
    """A key with a stray line end is told of at start, and not printed."""
    with pytest.raises(SettingsError, match="LUKHAS_UPSTREAM_API_KEY") as refusal:
        AiohttpUpstream("http://127.0.0.1:1/v1", api_key=Secret(key))
    assert "sk" not in str(refusal.value)


async def test_upstream_key_is_never_shown(upstream: AiohttpUpstream) -> None:
    """Neither the object nor its errors hold the key in print."""
    assert "sk-upstream" not in repr(upstream)


async def test_send_cookie_from_the_upstream_is_not_sent_back(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """What the upstream remembers of one caller does not travel with the next one's call."""
    server.reply(headers={"set-cookie": "who=alice; Path=/"})
    for _ in range(2):
        await (await upstream.send(CALL)).read(100_000)
    assert "cookie" not in server.requests[1].headers


async def test_send_proxy_in_the_environment_is_ignored(
    server: FakeUpstream, upstream: AiohttpUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the settings decide where calls go."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    answer = await upstream.send(CALL)
    await answer.read(100_000)
    assert (answer.status, len(server.requests)) == (200, 1)


async def test_send_one_after_the_other_reuses_the_connection(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """Twenty calls take one connection, plain and streamed alike."""
    for number in range(20):
        answer = await upstream.send(CALL)
        if number % 2:
            await answer.read(100_000)
        else:
            assert b"".join([chunk async for chunk in answer.chunks()])
        await answer.close()
    assert server.connections == 1


async def test_send_large_body_arrives_whole_without_a_warning(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """A body of several megabytes goes out in pieces."""
    body = orjson.dumps({"text": "x" * 5_000_000})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await (await upstream.send(UpstreamRequest("POST", "/chat/completions", body))).read(100_000)
    assert server.requests[0].body == body


async def test_read_repeated_and_large_headers_are_kept(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """Header names come in lower case, and a field of 60 kB is taken."""
    server.reply(headers={"X-RateLimit-Limit": "7", "X-Big": "b" * 60_000})
    answer = await upstream.send(CALL)
    assert answer.headers["x-ratelimit-limit"] == "7"
    assert len(answer.headers["x-big"]) == 60_000
    await answer.read(100_000)


async def test_read_compressed_anyway_is_unpacked_and_bounded(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """An upstream that compresses unasked is understood, and cannot blow up memory with a small body."""
    for _ in range(2):
        server.reply(body=gzip.compress(b" " * 1_000_000), headers={"content-encoding": "gzip"})
    assert await (await upstream.send(CALL)).read(1_000_000) == b" " * 1_000_000
    with pytest.raises(UpstreamBroken, match="larger than"):
        await (await upstream.send(CALL)).read(999_999)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_read_over_the_limit_closes_the_connection(
    server: FakeUpstream, upstream: AiohttpUpstream, declared: bool
) -> None:
    """What is too large is not read to its end."""
    if declared:
        server.reply(body=b"x" * 1_000, ending="stall")
    else:
        server.reply_events([b"x" * 1_000], ending="stall")
    with pytest.raises(UpstreamBroken, match="100 bytes"):
        await (await upstream.send(CALL)).read(100)
    assert await wait_for(server.requests[0].closed)


async def test_chunks_arrive_as_they_are_sent(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """The first event is here while the upstream is still silent about the second."""
    server.reply_events([b"data: 1\n\n"], done=False, ending="stall")
    answer = await upstream.send(STREAM)
    chunks = answer.chunks()
    assert await anext(chunks) == b"data: 1\n\n"
    await chunks.aclose()
    assert await wait_for(server.requests[0].closed)


@pytest.mark.parametrize("ending", ["truncate", "reset"])
async def test_chunks_cut_off_raise_broken_after_what_came(
    server: FakeUpstream, upstream: AiohttpUpstream, ending: str
) -> None:
    """A stream that ends without its last chunk is an error, never a short answer."""
    server.reply_events([b"data: 1\n\n"], done=False, ending=ending)  # type: ignore[arg-type]
    answer = await upstream.send(STREAM)
    with pytest.raises(UpstreamBroken):
        async for _ in answer.chunks():
            pass


async def test_chunks_cut_off_while_nobody_reads_still_give_what_came(
    server: FakeUpstream, upstream: AiohttpUpstream
) -> None:
    """A slow reader gets every byte that arrived before the cut, and then the error."""
    server.reply_events([b"data: 1\n\n"], ending="truncate")
    answer = await upstream.send(STREAM)
    await asyncio.sleep(0.05)  # time for the cut to arrive before the first read
    seen = b""
    with pytest.raises(UpstreamBroken):
        async for chunk in answer.chunks():
            seen += chunk
    assert seen == b"data: 1\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize("ending", ["truncate", "reset"])
async def test_read_cut_off_raises_broken_and_is_not_repeated(
    server: FakeUpstream, upstream: AiohttpUpstream, ending: str
) -> None:
    """A body shorter than declared is an error."""
    server.reply(ending=ending)  # type: ignore[arg-type]
    answer = await upstream.send(CALL)
    with pytest.raises(UpstreamBroken):
        await answer.read(100_000)
    assert len(server.requests) == 1


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_body_silence_raises_timeout_and_closes(
    server: FakeUpstream, upstream: AiohttpUpstream, how: str
) -> None:
    """An upstream that falls silent in the middle is given up after the read timeout."""
    server.reply(ending="stall")
    answer = await upstream.send(CALL)
    with pytest.raises(UpstreamTimeout, match="silent"):
        if how == "plain":
            await answer.read(100_000)
        else:
            _ = [chunk async for chunk in answer.chunks()]
    assert await wait_for(server.requests[0].closed)


async def test_chunks_slow_but_steady_do_not_time_out(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """The read timeout is the longest silence, not the length of the stream."""
    server.reply_events([b"data: 1\n\n"] * 5, between_ms=100)
    answer = await upstream.send(STREAM)
    assert b"".join([chunk async for chunk in answer.chunks()]).count(b"data:") == 6


@pytest.mark.parametrize("where", ["headers", "body"])
async def test_deadline_ends_the_call_wherever_it_is(server: FakeUpstream, where: str) -> None:
    """The total deadline holds for the wait for headers and for the stream."""
    upstream = AiohttpUpstream(server.base_url, read_timeout_s=30)
    server.reply_events([b"data: 1\n\n"], delay_ms=2_000 if where == "headers" else 0, ending="stall")
    begun = time.monotonic()
    with pytest.raises(UpstreamTimeout, match="deadline"):
        answer = await upstream.send(STREAM, deadline=begun + 0.2)
        _ = [chunk async for chunk in answer.chunks()]
    assert time.monotonic() - begun < 1.5
    assert len(server.requests) == 1
    await upstream.close()


async def test_send_deadline_already_over_sends_nothing(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """A call that is too late is not begun."""
    with pytest.raises(UpstreamTimeout) as late:
        await upstream.send(CALL, deadline=time.monotonic() - 1)
    assert (late.value.attempts, server.requests) == (0, [])


async def test_send_silence_before_headers_is_a_timeout_and_is_not_repeated(
    server: FakeUpstream, upstream: AiohttpUpstream, pauses: Pauses
) -> None:
    """A call that was sent may be running still, so it is not sent again."""
    server.reply_raw([], ending="stall")
    with pytest.raises(UpstreamTimeout) as silence:
        await upstream.send(CALL)
    assert (silence.value.attempts, len(server.requests), pauses.taken) == (1, 1, [])


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="closed-without-a-word"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-le"], id="closed-inside-headers"),
        pytest.param([b"SSH-2.0-OpenSSH_9.2\r\n"], id="not-http"),
        pytest.param([b"\x16\x03\x01\x02\x00\x01\x00"], id="tls"),
        pytest.param([b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n"], id="huge-header"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n"], id="two-lengths"),
        pytest.param([b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"], id="upgrade"),
    ],
)
async def test_send_garbage_is_broken_and_is_not_repeated(
    server: FakeUpstream, upstream: AiohttpUpstream, pauses: Pauses, parts: list[bytes]
) -> None:
    """An answer that is none is an upstream error, and the call is not paid twice."""
    server.reply_raw(parts)
    with pytest.raises(UpstreamBroken) as broken:
        answer = await upstream.send(CALL)
        await answer.read(1_000)
    assert (len(server.requests), pauses.taken) == (1, [])
    assert broken.value.attempts in (0, 1)


async def test_send_reset_before_an_answer_is_broken_and_is_not_repeated(
    server: FakeUpstream, upstream: AiohttpUpstream
) -> None:
    """A reset leaves open whether the call was read, so it counts as sent."""
    server.reply_raw([], ending="reset")
    with pytest.raises(UpstreamBroken):
        await upstream.send(CALL)
    assert len(server.requests) == 1


async def test_chunks_garbage_in_chunked_framing_is_broken(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """Framing that is none ends the stream with an error."""
    server.reply_raw([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n"])
    with pytest.raises(UpstreamBroken):
        answer = await upstream.send(STREAM)
        _ = [chunk async for chunk in answer.chunks()]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_send_redirect_is_broken_and_not_followed(
    server: FakeUpstream, upstream: AiohttpUpstream, status: int
) -> None:
    """The caller's text and our key go to the address that was set, and nowhere else."""
    server.reply(status=status, headers={"location": "https://other.example/v1/x?token=s3cret"})
    with pytest.raises(UpstreamBroken, match=r"redirect.*https://other\.example.*LUKHAS_UPSTREAM_BASE_URL") as refusal:
        await upstream.send(CALL)
    assert "s3cret" not in str(refusal.value)
    assert (refusal.value.attempts, len(server.requests)) == (1, 1)


@pytest.mark.parametrize("location", ["/elsewhere", "http://[broken", "", "javascript:alert(1)"])
async def test_send_redirect_to_an_odd_place_is_broken_all_the_same(
    server: FakeUpstream, upstream: AiohttpUpstream, location: str
) -> None:
    """Whatever a redirect names, it is told of without repeating it."""
    server.reply(status=302, headers={"location": location})
    with pytest.raises(UpstreamBroken, match=r"redirect \(302\), which"):
        await upstream.send(CALL)


@pytest.mark.parametrize("moment", ["headers", "plain", "stream"])
async def test_cancel_closes_the_upstream_promptly(
    server: FakeUpstream, upstream: AiohttpUpstream, moment: str
) -> None:
    """When the caller goes away, the model's server sees it within 100 ms, wherever the call was."""
    if moment == "headers":
        server.reply(delay_ms=60_000)
    else:
        server.reply_events([b"data: 1\n\n"], done=False, ending="stall")
    begun = asyncio.Event()

    async def consume() -> None:
        if moment == "headers":
            begun.set()
        answer = await upstream.send(STREAM)
        begun.set()
        if moment == "plain":
            await answer.read(100_000)
        async for _ in answer.chunks():
            pass

    task = asyncio.create_task(consume())
    await begun.wait()
    while not server.requests:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    cancelled_at = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await wait_for(server.requests[0].closed)
    assert (server.requests[0].closed_at or 0) - cancelled_at < 0.1


async def test_cancel_during_a_pause_between_attempts_stops_it(server: FakeUpstream) -> None:
    """A cancelled call makes no further attempt."""
    server.reply(status=503, headers={"retry-after": "9"})
    upstream = AiohttpUpstream(server.base_url)
    task = asyncio.create_task(upstream.send(CALL))
    while not server.requests:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await upstream.close()
    assert len(server.requests) == 1


async def test_abort_unread_answer_closes_the_upstream(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """An answer that nobody wants is not left running."""
    server.reply_events([b"data: 1\n\n"], ending="stall")
    (await upstream.send(STREAM)).abort()
    assert await wait_for(server.requests[0].closed)


async def test_send_more_calls_than_connections_wait_their_turn(server: FakeUpstream) -> None:
    """The limit on connections holds, and nobody is turned away meanwhile."""
    upstream = AiohttpUpstream(server.base_url, max_connections=2)

    async def call() -> int:
        answer = await upstream.send(CALL)
        await answer.read(100_000)
        return answer.status

    assert await asyncio.gather(*(call() for _ in range(20))) == [200] * 20
    assert server.connections <= 2
    await upstream.close()


async def test_check_is_cached_and_counts_answered_calls(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """Readiness probes cost one connection in a while, and none while calls are answered."""
    assert [await upstream.check() for _ in range(10)] == [None] * 10
    while not server.connections:
        await asyncio.sleep(0.005)
    assert (server.connections, server.requests) == (1, [])
    await (await upstream.send(CALL)).read(100_000)
    assert await upstream.check() is None
    assert server.connections == 2


async def test_check_nobody_listens_says_why() -> None:
    """An upstream that is down is named with its reason, and nothing is raised."""
    upstream = AiohttpUpstream(f"http://127.0.0.1:{free_port()}/v1")
    assert await upstream.check()
    await upstream.close()


async def test_send_after_close_opens_a_new_session(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """A closed upstream can be used again, as a restarted application does."""
    await (await upstream.send(CALL)).read(100_000)
    await upstream.close()
    assert (await (await upstream.send(CALL)).read(100_000)).startswith(b"{")
