"""What the tests of the HTTP upstream share: one call, a scripted server, and time that does not pass."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import orjson
import pytest

from lukhas.openai.aiohttp_upstream import AiohttpUpstream
from lukhas.openai.upstream import UpstreamRequest
from lukhas.settings import Secret
from lukhas.testing import FakeUpstream

BODY = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
CALL = UpstreamRequest("POST", "/chat/completions", BODY)
STREAM = UpstreamRequest("POST", "/chat/completions", BODY, stream=True)


class Pauses:
    """Stands in for sleeping: remembers the pauses and lets no time pass."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def server() -> Iterator[FakeUpstream]:
    """Give a scripted server."""
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture
def pauses() -> Pauses:
    """Give the record of pauses between attempts."""
    return Pauses()


@pytest.fixture
async def upstream(server: FakeUpstream, pauses: Pauses) -> AsyncIterator[AiohttpUpstream]:
    """Give an upstream with short deadlines that takes the whole backoff without waiting."""
    made = AiohttpUpstream(
        server.base_url,
        api_key=Secret("sk-upstream"),
        connect_timeout_s=1.0,
        read_timeout_s=0.2,
        total_timeout_s=5.0,
        sleep=pauses,
        draw=lambda: 1.0,
    )
    yield made
    await made.close()
    # Whatever a test did, nothing of it runs on.
    assert asyncio.all_tasks() == {asyncio.current_task()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def wait_for(event: object, timeout_s: float = 2.0) -> bool:
    return await asyncio.to_thread(event.wait, timeout_s)  # type: ignore[attr-defined]
