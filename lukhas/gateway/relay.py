"""Passes a streamed answer on through its guard, and holds its last event back until the outcome is on record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final, cast

import msgspec
import orjson
import structlog

from lukhas.errors import LukhasError, ModerationUnavailable, UpstreamBroken, UpstreamError
from lukhas.gateway.discretion import clean_event
from lukhas.gateway.guard import CallGuard
from lukhas.gateway.heavy_work import HEAVY_BYTES, HeavyWork
from lukhas.moderation.window import StreamWindow
from lukhas.openai.call import ObjectRef, StreamRewriter
from lukhas.openai.sse import SseSplitter, event_data
from lukhas.openai.upstream import UpstreamAnswer
from lukhas.openai.wire import AnswerSummary, error_body

log = structlog.get_logger("lukhas.relay")

# After its last event an upstream has this long to end the body, so that its connection can be used again.
_TRAILER_WAIT_S: Final = 0.25
# Text in a stream is followed character by character: of so much it takes some 50 ms.
_LONG_EVENT_BYTES: Final = 8_192
# Events that are judged in one go, some 20 us each: a stream that comes all at once does not keep others waiting.
_TOGETHER: Final = 16


class Ended(msgspec.Struct):
    """How a stream ended.

    Attributes:
        status: 'ok', 'blocked' (the guard ended every choice), 'upstream_error' (the stream carried an error event),
            'broken' (by the upstream), or 'failed' (here).
        last_bytes: what to release once the outcome is durable.
        released_bytes: what went out before.
        problem: why it did not end as it should.
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


class Relay:
    """One streamed answer on its way to the caller.

    Args:
        limit_bytes: largest answer; some of it is kept until the end, and an upstream may go on for ever.
        window: where a remote moderator must see the text before the caller does.
        hides_usage: the caller did not ask for the usage event, so it is read and not passed on.
    """

    def __init__(
        self,
        answer: UpstreamAnswer,
        rewriter: StreamRewriter,
        guard: CallGuard,
        summary: AnswerSummary,
        ended: Ended,
        heavy: HeavyWork,
        *,
        limit_bytes: int,
        window: StreamWindow | None = None,
        moderator: str = "",
        is_required: bool = True,
        hides_usage: bool = False,
    ) -> None:
        self.ended = ended
        self.summary = summary
        self._answer = answer
        self._heavy = heavy
        self._taken_bytes = 0
        self._rewriter = rewriter
        self._guard = guard
        self._is_required = is_required
        self._window = window
        self._moderator = moderator
        self._hides_usage = hides_usage
        self._limit_bytes = limit_bytes
        self._broken: UpstreamBroken | None = None

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yield what may be released as it comes, all but the last event, which is left in `ended.last_bytes`.

        A stream that breaks off, falls silent or ends without its last event leaves an error event there instead. What
        is still held then stays here: it was never judged as a whole.
        """
        ended, rewriter = self.ended, self._rewriter
        chunks = self._answer.chunks()
        splitter = SseSplitter()
        left_bytes = self._limit_bytes
        taken = 0
        try:
            async for chunk in chunks:
                left_bytes -= len(chunk)
                if left_bytes < 0:
                    raise UpstreamBroken(
                        f"The upstream's answer is larger than {self._limit_bytes} bytes.",
                        hint="LUKHAS_MAX_RESPONSE_BYTES sets the largest answer.",
                    )
                events = splitter.feed(chunk)
                for at in range(0, len(events), _TOGETHER):
                    released = await self._take_heavy(events[at : at + _TOGETHER])
                    if self._window is not None:
                        released = await self._check(released, is_last=False)
                    if released:
                        block = released[0] if len(released) == 1 else b"".join(released)
                        ended.released_bytes += len(block)
                        yield block
                    if self._broken is not None:
                        raise self._broken
                    if rewriter.is_over:
                        break
                    taken += _TOGETHER if at + _TOGETHER < len(events) else len(events) - at
                    if taken >= _TOGETHER:
                        # What was yielded is written when the loop turns, and others want their turn too.
                        taken = 0
                        await asyncio.sleep(0)
                if rewriter.is_over:
                    break
            released = []
            if not rewriter.is_over and event_data(rest := splitter.flush()) is not None:
                # The last event's empty line is missing; that the body is whole, the transport has checked.
                released = await self._take_heavy([rest.rstrip(b"\r\n") + b"\n\n"])
            if ended.status != "blocked":
                if self._broken is None:
                    # What is held until the end may be as large as all that came.
                    released += await self._heavy.run(self._taken_bytes, rewriter.flush)
                if self._window is not None:
                    is_judged = rewriter.is_over or rewriter.has_error
                    released = await self._check(released, is_last=True) if is_judged else []
            if released:
                block = b"".join(released)
                ended.released_bytes += len(block)
                yield block
            if self._broken is not None:
                raise self._broken
            last = ended.last_bytes or rewriter.end()
            if not last and not rewriter.has_error:
                raise UpstreamBroken("The upstream's stream ended without its last event; the answer is incomplete.")
            ended.last_bytes = clean_event(last) if rewriter.has_error else last
            if ended.status != "blocked":
                ended.status = "blocked" if rewriter.is_blocked else "upstream_error" if rewriter.has_error else "ok"
            if ended.status != "blocked":
                await _finish(chunks)
        except UpstreamError as failure:
            ended.status, ended.problem = "broken", failure
            ended.last_bytes = ended.error_event(failure)
        except LukhasError as failure:
            # What could not be judged is not released: the moderator failed, or a rule took too long.
            ended.status, ended.problem = "failed", failure
            ended.last_bytes = ended.error_event(failure)
        except Exception as failure:  # the edge: half an answer is out, and its caller is told that it ends here
            log.exception("stream_failed", kind=type(failure).__name__)
            ended.status = "failed"
            ended.problem = LukhasError("Something went wrong inside the gateway; its log has the details.")
            ended.last_bytes = ended.error_event(ended.problem)
        finally:
            # Not only when the outcome is on record: an upstream that goes on is stopped at once.
            self._answer.abort()
            await chunks.aclose()

    def object_ids(self) -> list[ObjectRef]:
        """Return the ids of what the upstream has made for this answer."""
        return list(self._rewriter.objects)

    async def _take_heavy(self, events: list[bytes]) -> list[bytes]:
        """Take some events; a large one, whose text comes in one piece, on a thread."""
        size = sum(map(len, events))
        self._taken_bytes += size
        is_long = size >= _LONG_EVENT_BYTES and max(map(len, events)) >= _LONG_EVENT_BYTES
        return await self._heavy.run(HEAVY_BYTES if is_long else size, self._take, events)

    def _take(self, events: list[bytes]) -> list[bytes]:
        rewriter = self._rewriter
        released: list[bytes] = []
        for raw in events:
            if self._hides_usage and self._is_usage(raw):
                continue
            try:
                released += rewriter.take(raw)
            except UpstreamBroken as failure:
                # Whatever came before it in the same chunk goes out: how upstream's bytes were cut must not matter.
                self._broken = failure
                break
            if rewriter.is_over:
                break
        return [clean_event(one) for one in released] if rewriter.has_error else released

    def _is_usage(self, raw: bytes) -> bool:
        """Take in the event that only reports usage, which the gateway asked for and the caller did not."""
        if b'"usage"' not in raw:
            return False
        try:
            value: Any = orjson.loads(event_data(raw) or b"")
        except orjson.JSONDecodeError:
            return False
        if not isinstance(value, dict):
            return False
        event = cast("dict[str, Any]", value)
        if event.get("choices") != [] or not isinstance(event.get("usage"), dict):
            return False
        noted = AnswerSummary()
        noted.add(event)
        self.summary.usage = noted.usage
        return True

    async def _check(self, released: list[bytes], *, is_last: bool) -> list[bytes]:
        """Pass events through the remote moderator's window."""
        window = self._window
        if window is None:
            return released
        texts = list(self._guard.take_released().items())
        for run, text in texts[:-1]:
            window.push([], text, run)
        run, text = texts[-1] if texts else (0, "")
        window.push(released, text, run)
        if not is_last and not window.ready():
            return []
        try:
            passed, verdict = await window.drain(is_last)
        except ModerationUnavailable:
            self._guard.found.moderator_failed = True
            if self._is_required:
                raise
            return await window.release_unchecked()
        if verdict is None or not verdict.is_flagged:
            return passed
        name = verdict.categories[0][0][:64]
        refusal = self._guard.refuse_whole("moderator", verdict.severity, f"{self._moderator}:{name}")
        passed += self._rewriter.stop(refusal)
        self.ended.status = "blocked"
        self.ended.last_bytes = self._rewriter.end()
        return passed


async def _finish(chunks: AsyncGenerator[bytes, None]) -> None:
    try:
        async with asyncio.timeout(_TRAILER_WAIT_S):
            async for _ in chunks:
                pass  # nothing may follow the last event
    except (TimeoutError, UpstreamError):
        return
