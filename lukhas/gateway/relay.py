"""Passes a streamed answer on, event by event, and holds its last one back until the outcome is on record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import msgspec
import orjson

from lukhas.errors import LukhasError, UpstreamBroken, UpstreamError
from lukhas.openai.sse import SseSplitter, event_data, is_done
from lukhas.openai.upstream import UpstreamAnswer
from lukhas.openai.wire import AnswerSummary, error_body

# After its last event an upstream has this long to end the body, so that its connection can be used again.
_TRAILER_WAIT_S: Final = 0.25


class Ended(msgspec.Struct):
    """How a stream ended.

    Attributes:
        status: 'ok', 'upstream_error' (the stream carried an error event), or 'broken'.
        last_bytes: what to release once the outcome is durable.
        released_bytes: what went out before.
    """

    status: str = "broken"
    last_bytes: bytes = b""
    released_bytes: int = 0
    problem: LukhasError | None = None

    def error_event(self, failure: LukhasError) -> bytes:
        """Return an error as the stream's last event; official clients raise it."""
        return b"data: " + error_body(str(failure), kind=_kind(failure), code=failure.code) + b"\n\n"


def _kind(failure: LukhasError) -> str:
    return "upstream_error" if isinstance(failure, UpstreamError) else "server_error"


async def relay_events(answer: UpstreamAnswer, summary: AnswerSummary, ended: Ended) -> AsyncIterator[bytes]:
    """Yield whole events as they come, all but the last one, which is left in `ended.last_bytes`.

    A stream that breaks off, falls silent or ends without `[DONE]` leaves an error event there instead.
    """
    splitter = SseSplitter()
    chunks = answer.chunks()
    has_error = False
    try:
        async for chunk in chunks:
            events = splitter.feed(chunk)
            released: list[bytes] = []
            for raw in events:
                data = event_data(raw)
                if is_done(data):
                    ended.last_bytes = raw
                    break
                has_error = _note(data, summary) or has_error
                released.append(raw)
            if released:
                block = released[0] if len(released) == 1 else b"".join(released)
                ended.released_bytes += len(block)
                yield block
            if ended.last_bytes:
                break
        if not ended.last_bytes:
            rest = splitter.flush()
            if not is_done(event_data(rest)):
                raise UpstreamBroken("The upstream's stream ended without its last event; the answer is incomplete.")
            ended.last_bytes = rest.rstrip(b"\r\n") + b"\n\n"
        else:
            await _finish(chunks)
        ended.status = "upstream_error" if has_error else "ok"
    except UpstreamError as failure:
        ended.problem = failure
        ended.last_bytes = ended.error_event(failure)


def _note(data: bytes | None, summary: AnswerSummary) -> bool:
    """Take an event into the summary; return whether it is an error event."""
    if not data:
        return False
    try:
        value: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    summary.add(value)
    return isinstance(value, dict) and "error" in cast("dict[str, Any]", value)


async def _finish(chunks: AsyncIterator[bytes]) -> None:
    try:
        async with asyncio.timeout(_TRAILER_WAIT_S):
            async for _ in chunks:
                pass  # nothing may follow the last event
    except (TimeoutError, UpstreamError):
        return
