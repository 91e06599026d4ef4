"""What the upstream over HTTP tries again, and what it does not."""

import asyncio
import time

import orjson
import pytest
from http_upstream import BODY, CALL, Pauses, free_port, pauses, server, upstream

from lukhas.errors import UpstreamBroken, UpstreamUnreachable
from lukhas.openai.aiohttp_upstream import AiohttpUpstream
from lukhas.testing import FakeUpstream

__all__ = ["pauses", "server", "upstream"]  # fixtures


async def test_send_nobody_listens_is_unreachable_after_its_retries(pauses: Pauses) -> None:
    """A refused connection was surely not sent: it is tried again, with growing pauses, then told of."""
    upstream = AiohttpUpstream(f"http://127.0.0.1:{free_port()}/v1", sleep=pauses, draw=lambda: 1.0)
    with pytest.raises(UpstreamUnreachable) as refusal:
        await upstream.send(CALL)
    await upstream.close()
    assert (refusal.value.attempts, pauses.taken) == (3, [0.25, 0.5])


async def test_send_unknown_host_is_unreachable(pauses: Pauses) -> None:
    """A name that does not resolve was surely not sent either."""
    upstream = AiohttpUpstream("http://no-such-host.invalid/v1", max_retries=0, sleep=pauses)
    with pytest.raises(UpstreamUnreachable):
        await upstream.send(CALL)
    await upstream.close()


async def test_send_connect_that_hangs_is_unreachable_in_time(pauses: Pauses) -> None:
    """A full accept queue is given up after the connect timeout, and counts as not sent."""
    with FakeUpstream(accepting=False) as deaf:
        upstream = AiohttpUpstream(deaf.base_url, connect_timeout_s=0.1, max_retries=1, sleep=pauses)
        begun = time.monotonic()
        with pytest.raises(UpstreamUnreachable) as refusal:
            await upstream.send(CALL)
        assert (await upstream.check() or "").startswith("no connection within")
        assert time.monotonic() - begun < 2
        await upstream.close()
    assert refusal.value.attempts == 2


async def test_send_plain_http_server_behind_https_is_unreachable(server: FakeUpstream) -> None:
    """A handshake that does not come about was surely not sent."""
    upstream = AiohttpUpstream(server.base_url.replace("http:", "https:"), max_retries=0, connect_timeout_s=0.2)
    with pytest.raises(UpstreamUnreachable):
        await upstream.send(CALL)
    await upstream.close()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 529])
async def test_send_passing_error_is_repeated_until_it_passes(
    server: FakeUpstream, upstream: AiohttpUpstream, pauses: Pauses, status: int
) -> None:
    """429 and 5xx are tried again, the same body on the same connection."""
    for _ in range(2):
        server.reply(status=status, json={"error": {"message": "later"}})
    answer = await upstream.send(CALL)
    await answer.read(100_000)
    assert (answer.status, answer.attempts, pauses.taken) == (200, 3, [0.25, 0.5])
    assert [request.body for request in server.requests] == [BODY] * 3


async def test_send_lasting_error_is_handed_back_with_its_body(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """When the retries are used up, the caller sees what the upstream said last."""
    for number in range(3):
        server.reply(status=503, json={"error": {"message": f"no {number}"}})
    answer = await upstream.send(CALL)
    assert (answer.status, answer.attempts) == (503, 3)
    assert orjson.loads(await answer.read(1_000)) == {"error": {"message": "no 2"}}


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        pytest.param({"retry-after": "1"}, [1.0], id="seconds"),
        pytest.param({"retry-after-ms": "20"}, [0.02], id="ms"),
        pytest.param({"retry-after": "60"}, [], id="too-long"),
        pytest.param({"retry-after": "6"}, [], id="past-the-deadline"),
        pytest.param({"x-should-retry": "false"}, [], id="told-not-to"),
    ],
)
async def test_send_429_follows_the_upstreams_advice(
    server: FakeUpstream, upstream: AiohttpUpstream, pauses: Pauses, headers: dict[str, str], taken: list[float]
) -> None:
    """The upstream's pause is taken if it is short; else its 429 goes back at once, headers and all."""
    server.reply(status=429, json={"error": {}}, headers=headers)
    answer = await upstream.send(CALL)
    assert pauses.taken == taken
    assert answer.status == (200 if taken else 429)
    if not taken:
        assert headers.items() <= dict(answer.headers).items()
    await answer.read(100_000)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
async def test_send_final_error_is_not_repeated(server: FakeUpstream, upstream: AiohttpUpstream, status: int) -> None:
    """What the caller must change is handed back at once."""
    server.reply(status=status, json={"error": {}})
    answer = await upstream.send(CALL)
    assert (answer.status, answer.attempts, len(server.requests)) == (status, 1, 1)
    await answer.read(1_000)


async def test_send_failing_then_silent_tells_the_last(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """A retry may end in another way than the first attempt, and that is what is told."""
    server.reply(status=500)
    server.reply_raw([])
    with pytest.raises(UpstreamBroken) as broken:
        await upstream.send(CALL)
    assert broken.value.attempts == 2


async def test_send_connection_closed_while_idle_is_noticed(server: FakeUpstream, upstream: AiohttpUpstream) -> None:
    """A connection that the server closed between two calls is replaced, not used."""
    server.reply(keep=False)
    await (await upstream.send(CALL)).read(100_000)
    await asyncio.sleep(0.05)  # the server's FIN needs a turn of the loop to be seen
    answer = await upstream.send(CALL)
    await answer.read(100_000)
    assert (answer.attempts, server.connections) == (1, 2)
