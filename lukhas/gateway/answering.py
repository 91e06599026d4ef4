"""From the upstream's answer to what the caller gets: guarded, on record, and only then released."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final, TypeAlias, cast

import msgspec
import orjson

from lukhas.access.meter import Reservation
from lukhas.audit.redaction import redact_text
from lukhas.errors import (
    LukhasError,
    ModerationUnavailable,
    Overloaded,
    StorageUnavailable,
    UpstreamBroken,
    UpstreamError,
)
from lukhas.gateway.discretion import clean_error, pass_headers
from lukhas.gateway.equipment import DIALECTS, Equipment
from lukhas.gateway.governing import INCIDENTS, Governed, list_incidents
from lukhas.gateway.guard import CallGuard, StoppedGuard
from lukhas.gateway.heavy_work import HeavyWork
from lukhas.gateway.object import BLOCKED_CALLS
from lukhas.gateway.recording import CallRecord
from lukhas.gateway.relay import Ended, Relay
from lukhas.moderation.window import StreamWindow
from lukhas.openai.call import Call, Dialect, ObjectRef, replace_values, walk_strings
from lukhas.openai.response_item import read_object_ids
from lukhas.openai.upstream import UpstreamAnswer
from lukhas.openai.wire import AnswerSummary, encode_json, error_body

Headers: TypeAlias = list[tuple[bytes, bytes]]
# A client may be as slow as the upstream, and this much slower.
_TAKE_S: Final = 10.0


class Reply(msgspec.Struct):
    """An answer to release: either `body`, or `events`.

    Attributes:
        events: a streamed answer's bytes, whole events at a time.
        abandon: to be called when the events will not be drained to their end; does nothing after that.
        deadline: by when a client must have taken the events, in s of `time.monotonic()`.
    """

    status: int
    headers: Headers
    body: bytes = b""
    events: AsyncGenerator[bytes, None] | None = None
    abandon: Callable[[], None] = lambda: None
    deadline: float = math.inf


class Answering:
    """Reads, guards and releases answers."""

    def __init__(self, equipment: Equipment, heavy: HeavyWork) -> None:
        self._with = equipment
        self._heavy = heavy

    async def read(
        self, record: CallRecord, answer_headers: Headers, call: Call, governed: Governed, answer: UpstreamAnswer
    ) -> Reply:
        """Read a plain answer, guard it, and return it once its outcome is on record.

        Raises:
            UpstreamError: it could not be read, or is no answer.
            ModerationUnavailable: a required moderator failed; nothing is released.
            StorageUnavailable: the outcome is not on record.
        """
        try:
            body = await answer.read(self._with.settings.max_response_bytes)
        except BaseException:
            answer.abort()
            raise
        guard, answered = governed.guard, governed.answered
        summary = AnswerSummary()
        is_error = answer.status >= 400
        headers = pass_headers(answer)
        value, is_repeated = await self._heavy.run(len(body), _read_object, body)
        status = "upstream_error" if is_error else "ok"
        released: dict[str, Any] = {}
        if value is None:
            if not is_error:
                raise UpstreamBroken("The upstream's answer is not a JSON object.")
            # A proxy's page, or nothing: clients of this surface read errors in one shape.
            body = error_body(
                f"The upstream answered with status {answer.status} and no readable error.",
                kind="upstream_error",
                code=UpstreamError.code,
            )
        else:
            dialect = DIALECTS[call.dialect]
            dialect.summarise(value, summary)
            refs = read_object_ids(value) if call.dialect == "responses" and not is_error else []
            guarded, status = await self._guard(dialect, value, guard, is_error, status, len(body))
            released = value if guarded is None else guarded
            if guarded is not None or is_repeated:
                body = _encode(released)
            await self._claim(record, call, refs, guard, answered)
        if record.capture is not None and call.dialect != "embeddings":
            await record.capture.keep("answer", released or body.decode(), len(body))
        if not answer.headers.get("content-type", "").startswith("application/json"):
            headers = [(b"content-type", b"application/json"), *(h for h in headers if h[0] != b"content-type")]
        await record.end(_outcome(status, answer, summary, len(body), guard))
        await answer.close()
        # The answer may have brought further ones.
        named = [header for header in answer_headers if header[0] != INCIDENTS]
        named += list_incidents(record, is_shadow=self._with.is_shadow)
        return Reply(answer.status, [*_own_limits(headers, record.reservation), *named], body)

    async def _guard(
        self, dialect: Dialect, value: dict[str, Any], guard: CallGuard, is_error: bool, status: str, size_bytes: int
    ) -> tuple[dict[str, Any] | None, str]:
        """Guard a plain answer; return it where it was changed, and how the call ended."""
        if is_error:
            return await self._heavy.run(size_bytes, _guard_error, value, guard), status
        changed = await self._heavy.run(size_bytes, dialect.guard_answer, value, guard)
        if changed and guard.refusal:
            status = "blocked"
        refusal = await self._moderate(guard)
        if refusal is not None and not self._with.is_shadow:
            dialect.guard_answer(value, StoppedGuard(refusal))
            changed, status = True, "blocked"
        return (value if changed else None), status

    async def _moderate(self, guard: CallGuard) -> str | None:
        """Ask the remote moderator about all that the guard lets pass; return why it may not, where it may not.

        Raises:
            ModerationUnavailable: it is required, and failed.
        """
        moderator = self._with.moderator
        if moderator is None or not (texts := list(guard.take_released().values())):
            return None
        try:
            verdicts = await moderator.check(texts, "output")
        except ModerationUnavailable:
            self._with.metrics.moderation_failures.add("output")
            if self._with.settings.moderation_required and not self._with.is_shadow:
                raise
            guard.found.moderator_failed = True
            return None
        flagged = next((verdict for verdict in verdicts if verdict.is_flagged), None)
        if flagged is None:
            return None
        return guard.refuse_whole("moderator", flagged.severity, f"{moderator.name}:{flagged.categories[0][0][:64]}")

    async def open_stream(
        self, record: CallRecord, answer_headers: Headers, call: Call, governed: Governed, answer: UpstreamAnswer
    ) -> Reply:
        """Return the reply of a streamed answer once its decision is on record; its events come as they are drained.

        Raises:
            StorageUnavailable: the decision is not on record.
        """
        try:
            await record.decided()
        except BaseException:
            answer.abort()
            raise
        settings = self._with.settings
        summary, ended = AnswerSummary(), Ended()
        rewriter = DIALECTS[call.dialect].open_stream(governed.guard, summary, call.choices)
        moderator = None if self._with.is_shadow else self._with.moderator
        window = (
            None
            if moderator is None
            else StreamWindow(
                moderator,
                window_chars=settings.moderation_window_chars,
                whole=settings.moderation_stream == "buffer",
            )
        )
        relay = Relay(
            answer,
            rewriter,
            governed.guard,
            summary,
            ended,
            self._heavy,
            limit_bytes=settings.max_response_bytes,
            window=window,
            moderator="" if moderator is None else moderator.name,
            is_required=settings.moderation_required,
            hides_usage=governed.hides_usage,
        )
        headers = [
            *_own_limits(pass_headers(answer), record.reservation),
            *answer_headers,
        ]
        stream = self._stream(record, call, answer, relay, governed)
        return Reply(
            answer.status,
            headers,
            events=stream,
            abandon=lambda: self._abandon(record, answer, relay, governed.guard),
            deadline=record.started + settings.upstream_total_timeout_s + _TAKE_S,
        )

    async def _stream(
        self, record: CallRecord, call: Call, answer: UpstreamAnswer, relay: Relay, governed: Governed
    ) -> AsyncGenerator[bytes, None]:
        ended, guard = relay.ended, governed.guard
        capture = record.capture
        try:
            async with contextlib.aclosing(relay.events()) as events:
                async for chunk in events:
                    if capture is not None:
                        capture.take_released(chunk)
                    yield chunk
            if capture is not None:
                await capture.keep_stream()
            if self._with.is_shadow:
                # Only its end waits for what the moderator would have said.
                await self._moderate(guard)
            outcome = _outcome(ended.status, answer, relay.summary, ended.released_bytes, guard)
            if guard.found.moderator_failed:
                self._with.metrics.moderation_failures.add("output")
            if ended.problem is not None:
                outcome["error"] = ended.problem.code
            try:
                await self._claim(record, call, relay.object_ids(), guard, governed.answered)
                await record.end(outcome)
            except LukhasError as failure:
                # Half an answer is out; its end may not follow unrecorded.
                record.end_unawaited({**outcome, "status": "failed", "error": failure.code})
                yield ended.error_event(failure)
                return
            if ended.last_bytes:
                yield ended.last_bytes
        except (asyncio.CancelledError, GeneratorExit):
            if capture is not None:
                capture.keep_stream_now()
            record.end_unawaited(_outcome("client_gone", answer, relay.summary, ended.released_bytes, guard))
            raise
        finally:
            answer.abort()

    def _abandon(self, record: CallRecord, answer: UpstreamAnswer, relay: Relay, guard: CallGuard) -> None:
        """Close a stream whose generator may never have been started, or stands still at a block nobody takes."""
        if record.capture is not None:
            record.capture.keep_stream_now()
        record.end_unawaited(_outcome("client_gone", answer, relay.summary, relay.ended.released_bytes, guard))
        answer.abort()

    async def _claim(
        self,
        record: CallRecord,
        call: Call,
        refs: Sequence[ObjectRef],
        guard: CallGuard,
        answered: Sequence[str],
    ) -> None:
        """Bind what the upstream has made to the tenant, before its ids leave."""
        if not refs or call.body.get("store") is False:
            return
        blocked = [one["call_id"] for one in guard.found.blocked_calls if one.get("call_id")]
        try:
            async with asyncio.timeout(self._with.settings.writer_deadline_s):
                details = {BLOCKED_CALLS: blocked} if blocked else None
                await self._with.owners.claim(refs, record.key, details, answered=answered)
        except (TimeoutError, StorageUnavailable, Overloaded) as failure:
            if record.may_pass_unrecorded:
                return  # what is nobody's, nobody can fetch
            if not isinstance(failure, TimeoutError):
                raise
            raise StorageUnavailable("The call was refused: what it made could not be recorded in time.") from failure


def _own_limits(headers: Headers, reservation: Reservation | None) -> Headers:
    """Drop the upstream's rate limits where our own apply: a client can only heed one of the two."""
    if reservation is None:
        return headers
    return [header for header in headers if not header[0].startswith(b"x-ratelimit-")]


def _guard_error(value: dict[str, Any], guard: CallGuard) -> dict[str, Any] | None:
    """Guard the texts of an upstream's error: it may quote the request, or what the model wrote."""
    edits: dict[Any, str] = {}
    for path, text in walk_strings(value, skip=lambda _: False):
        channel = guard.open("other")
        released = channel.feed(text)
        released += channel.finish()
        if released != text:
            edits[path] = released
    cleaned = clean_error(replace_values(value, edits))
    return None if cleaned == value else cleaned


def _encode(value: dict[str, Any]) -> bytes:
    try:
        return encode_json(value)
    except RecursionError:
        raise UpstreamBroken("The upstream's answer is nested too deeply.") from None


def _read_object(body: bytes) -> tuple[dict[str, Any] | None, bool]:
    """Return the object that a body holds, and whether it names a member twice: then it holds more than was read."""
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None, False
    if not isinstance(value, dict):
        return None, False
    return cast("dict[str, Any]", value), not _is_as_written(value, body) and _repeats_member(body)


def _is_as_written(value: Any, body: bytes) -> bool:
    try:
        return orjson.dumps(value) == body
    except orjson.JSONEncodeError:
        return False


def _repeats_member(body: bytes) -> bool:
    is_repeated = False

    def collect(pairs: list[tuple[str, Any]]) -> None:
        nonlocal is_repeated
        is_repeated = is_repeated or len({name for name, _ in pairs}) != len(pairs)

    try:
        json.loads(body, object_pairs_hook=collect)
    except (ValueError, RecursionError):
        return True  # what is not sure to be told apart goes out as it was judged
    return is_repeated


def _outcome(
    status: str, answer: UpstreamAnswer, summary: AnswerSummary, size: int, guard: CallGuard
) -> dict[str, Any]:
    outcome: dict[str, Any] = {
        "status": status,
        "http_status": answer.status,
        "attempts": answer.attempts,
        "finish_reasons": [redact_text(reason) for _, reason in sorted(summary.finish_reasons.items())],
        "answer_bytes": size,
    }
    # What the upstream did not say is left out, not null: the record's encoder looks twice at every null.
    if summary.usage is not None:
        outcome["usage"] = {redact_text(name): count for name, count in summary.usage.items()}
    if summary.model is not None:
        outcome["model"] = redact_text(summary.model)
    if found := guard.found.describe():
        outcome["moderation"] = found
    return outcome
