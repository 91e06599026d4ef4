"""The governed call, step by step: read, check, decide, apply, record, call, guard, record, release.

Invariant I6 lives here: no byte of an answer leaves before the decision is durable, and the last one leaves only
when the outcome is durable too.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

from lukhas.access.keys import ApiKey
from lukhas.access.meter import Reservation, bound_tokens, estimate_tokens
from lukhas.audit.redaction import redact_text
from lukhas.audit.store import Appended
from lukhas.errors import (
    InvalidRequest,
    LimitReached,
    LukhasError,
    Overloaded,
    PolicyDenied,
    StorageUnavailable,
    UpstreamBroken,
    UpstreamUnreachable,
)
from lukhas.gateway.answering import Answering, Headers, Reply
from lukhas.gateway.capture import ContentCapture
from lukhas.gateway.checking import check_ahead
from lukhas.gateway.enforcement import count_prompt_bytes, wish_output
from lukhas.gateway.equipment import Equipment
from lukhas.gateway.governing import Checked, Governed, Governor
from lukhas.gateway.heavy_work import HEAVY_BYTES, HeavyWork
from lukhas.gateway.intake import merge_signals
from lukhas.gateway.recording import CallRecord, Recorder, unrecorded
from lukhas.gateway.unrecorded import UnrecordedCalls
from lukhas.ids import make_id
from lukhas.modulation.signals import Signal, parse_signal_body, parse_signal_header
from lukhas.openai.call import Call, Dialect
from lukhas.openai.field import find_unlisted_tool_field
from lukhas.openai.headers import request_headers
from lukhas.openai.upstream import UpstreamAnswer, UpstreamRequest
from lukhas.openai.wire import check_subject, encode_json
from lukhas.vault.subjects import SubjectKind

MAX_SIGNAL_HEADER_BYTES: Final = 4096
# No call of today's models uses as many; a counter that went wrong must not use up a day's budget.
_MOST_TOKENS: Final = 100_000_000
_MOST_UNSTORED: Final = 50_000
_AGAIN_S: Final = 0.25
_UNRECORDED: Final = (b"x-lukhas-unrecorded", b"true")
_TOO_DEEP: Final = "The request is nested too deeply."


class Incoming(msgspec.Struct):
    """One authenticated request.

    Attributes:
        headers: raw, names in lower case.
        answer_headers: what every answer to it carries, errors too; the pipeline adds to it as it learns.
    """

    request_id: str
    key: ApiKey
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    answer_headers: Headers


class Operation(msgspec.Struct, frozen=True):
    """What is done with a call, where it is not a new one: an answer that is fetched, cancelled or deleted later."""

    name: str
    method: str
    path: str


CREATE: Final = Operation("create", "POST", "")


class Pipeline:
    """Runs governed calls.

    Attributes:
        limited: by key, the calls that a limit has refused since the last summary; they are not recorded one by one.
        unrecorded: what counts the calls that pass unrecorded, where that is allowed.
    """

    def __init__(self, equipment: Equipment) -> None:
        self.limited: Counter[str] = Counter()
        self._with = equipment
        self._governor = Governor(equipment)
        self._heavy = HeavyWork()
        self._answering = Answering(equipment, self._heavy)
        settings = equipment.settings
        self._capture = (
            ContentCapture(settings, equipment.vault, equipment.clock, equipment.metrics, self._heavy)
            if settings.audit_content
            else None
        )
        self._record_deadline_s = deadline_s = settings.writer_deadline_s
        self.unrecorded = UnrecordedCalls(
            settings.data_dir,
            equipment.audit,
            equipment.clock,
            equipment.metrics,
            deadline_s,
            is_open=settings.audit_on_failure == "open",
        )
        self._recorder = Recorder(
            equipment.audit,
            equipment.incidents,
            equipment.clock,
            equipment.metrics,
            deadline_s,
            self.unrecorded if self.unrecorded.is_open else None,
        )
        # Names that the vault could not store yet keep their ids, and what was raised for them, until it can.
        self._unstored: dict[tuple[str, SubjectKind, str], str] = {}

    async def run(self, incoming: Incoming, dialect: Dialect) -> Reply:
        """Run one new call.

        Raises:
            LukhasError: the call was refused or failed; `incoming.answer_headers` then hold what is known.
        """
        call = await self._heavy.run(len(incoming.body), self._read, incoming.body, dialect)
        return await self._run(incoming, call, CREATE)

    async def operate(self, incoming: Incoming, call: Call, operation: Operation) -> Reply:
        """Fetch, cancel or delete what an earlier call has made, under the same guards.

        Raises:
            LukhasError: as `run`.
        """
        return await self._run(incoming, call, operation)

    def _read(self, body: bytes, dialect: Dialect) -> Call:
        try:
            call = dialect.parse(body)
            unlisted = None if self._with.is_shadow else find_unlisted_tool_field(call.dialect, call.body)
        except RecursionError:
            raise InvalidRequest(_TOO_DEEP) from None
        if unlisted is not None:
            raise InvalidRequest(
                f"'{redact_text(unlisted[:64])}' looks like a field that carries tools, and this gateway does not "
                "know it: what cannot be judged is refused.",
                param=redact_text(unlisted[:64]),
            )
        return call

    async def _run(self, incoming: Incoming, call: Call, operation: Operation) -> Reply:
        started = time.monotonic()
        key = incoming.key
        session_name, header_signals = _read_headers(incoming.headers)
        if session_name is not None and call.extension.session not in (None, session_name):
            raise InvalidRequest("X-Lukhas-Session and lukhas.session name different sessions.", param="lukhas.session")
        body_signals = [] if call.extension.signals is None else parse_signal_body(call.extension.signals)
        signals = merge_signals(header_signals, body_signals)
        reservation = self._reserve(incoming, call, operation)
        if reservation is not None:
            incoming.answer_headers += reservation.headers()
        try:
            session = await self._resolve(key, "session", session_name or call.extension.session)
            user = await self._resolve(key, "user", call.end_user)
            checked = await check_ahead(self._with, call, key.tenant)
            record = CallRecord(
                self._recorder, make_id("aud"), key, incoming.request_id, session, user, started, reservation
            )
        except BaseException:
            if reservation is not None:
                reservation.release()
            raise
        record.on_close = lambda outcome: self._close(record, outcome)
        record.on_unrecorded = lambda: incoming.answer_headers.append(_UNRECORDED)
        return await self._carry_out(record, incoming, call, signals, checked, operation)

    async def _carry_out(
        self,
        record: CallRecord,
        incoming: Incoming,
        call: Call,
        signals: Sequence[Signal],
        checked: Checked,
        operation: Operation,
    ) -> Reply:
        try:
            if self._capture is not None:
                session, user, size = record.session, record.user, len(incoming.body)
                record.capture = await self._capture.open(record.audit_id, record.key, session, user, call, size)
            if len(incoming.body) >= HEAVY_BYTES:
                screened = await self._heavy.run(len(incoming.body), self._governor.screen_ahead, call)
                checked = msgspec.structs.replace(checked, screened=screened)
            governed = self._governor.govern(record, call, signals, checked, operation=operation.name)
            # Not before: no caller is given an id that the log will never know.
            incoming.answer_headers += governed.headers
            self._with.metrics.decide_seconds.add(time.monotonic() - record.started)
            if governed.denial is not None and (checked.is_access or not self._with.is_shadow):
                raise governed.denial
            answer = await self._send(record, _make_request(incoming, call, governed, operation))
            if answer.status < 400 and operation is CREATE and _is_stream(answer) != call.stream:
                # The caller would read an answer of the other kind as an empty one.
                answer.abort()
                raise UpstreamBroken(
                    f"The upstream answered a {'streamed' if call.stream else 'plain'} call otherwise."
                )
            if call.stream and answer.status < 400:
                return await self._answering.open_stream(record, incoming.answer_headers, call, governed, answer)
            return await self._answering.read(record, incoming.answer_headers, call, governed, answer)
        except StorageUnavailable as failure:
            # A record is late or failed: waiting for another one would only double the caller's wait.
            record.end_unawaited(_error_outcome(failure))
            raise
        except LukhasError as failure:
            await record.end(_error_outcome(failure))
            raise
        except asyncio.CancelledError:
            record.end_unawaited({"status": "client_gone"})
            raise
        except Exception:
            record.end_unawaited({"status": "failed", "error": LukhasError.code})
            raise
        finally:
            if record.decision is None and record.reservation is not None:
                record.reservation.release()

    def _reserve(self, incoming: Incoming, call: Call, operation: Operation) -> Reservation | None:
        """Reserve what the call may use.

        Raises:
            LimitReached: a limit of the key or its tenant does not hold it.
            InvalidRequest: it asks for a number of answers that servers read in different ways.
        """
        meter = self._with.meter
        if not meter.is_limited(incoming.key):
            return None
        count: Any = call.body.get("n") if call.dialect == "chat" else None
        if count is not None and type(count) is not int:
            # A server that reads "50" or 50.0 as 50 would answer more often than is reserved.
            raise InvalidRequest("'n' must be a whole number.", param="n")
        size = count_prompt_bytes(call, len(incoming.body))
        # A style may add words of its own.
        styles = self._with.policies.policy.styles.values()
        size += max((len(f"{style.preamble}{style.prefix}".encode()) for style in styles), default=0)
        try:
            return meter.reserve(
                incoming.key,
                estimate_tokens(size),
                wants_output=wish_output(call) if operation is CREATE else 0,
                most_tokens=bound_tokens(size, len(call.texts)),
                choices=call.choices,
            )
        except LimitReached:
            self.limited[incoming.key.key_id] += 1
            raise

    def _close(self, record: CallRecord, outcome: dict[str, Any]) -> None:
        """Settle what was reserved, and tell the sensors how the call went."""
        reservation = record.reservation
        if reservation is not None:
            if record.was_sent:
                reservation.settle(_count_tokens(outcome.get("usage")))
            else:
                reservation.release()
        if record.incidents:
            outcome["incidents"] = list(record.incidents)
        for finding in outcome.get("moderation", {}).get("findings", ()):
            self._with.metrics.findings.add("output", finding["category"], finding["action"])
        if record.observation is not None:
            record.observation.is_violation = bool(record.incidents)
            self._with.sensors.learn(record.observation)

    async def _resolve(self, key: ApiKey, kind: SubjectKind, name: str | None) -> str | None:
        if name is None:
            return None
        known = self._with.vault.recall(key.tenant, kind, name)
        if known is not None:
            return known
        wish = self._unstored.get((key.tenant, kind, name)) if self._unstored else None
        # One that failed before is asked for again, and not waited for.
        patience_s = self._record_deadline_s if wish is None else min(self._record_deadline_s, _AGAIN_S)
        try:
            async with asyncio.timeout(patience_s):
                found = await self._with.vault.resolve(key.tenant, kind, name, wish=wish)
        except (TimeoutError, StorageUnavailable, Overloaded) as failure:
            if self.unrecorded.is_open:
                return self._name_for_now(key.tenant, kind, name)
            if not isinstance(failure, TimeoutError):
                raise
            raise StorageUnavailable(f"The call was refused: its {kind} could not be looked up in time.") from failure
        if wish is not None:
            self._unstored.pop((key.tenant, kind, name), None)
        return found

    def _name_for_now(self, tenant: str, kind: SubjectKind, name: str) -> str:
        unstored = self._unstored
        if len(unstored) >= _MOST_UNSTORED:
            del unstored[next(iter(unstored))]
        return unstored.setdefault((tenant, kind, name), make_id("sub"))

    async def _send(self, call: CallRecord, request: UpstreamRequest) -> UpstreamAnswer:
        """Call upstream while the decision is being written; stop where it cannot be."""
        recorded, task = call.decision, asyncio.current_task()
        if recorded is None or task is None:
            raise AssertionError("a call is sent from a task, after its decision was handed to the writer")
        # Where the call may pass unrecorded, nothing stops it.
        is_sending, is_refused = not call.may_pass_unrecorded, False

        def stop_call(future: asyncio.Future[Appended]) -> None:
            # The model must not work on a call that cannot be recorded.
            nonlocal is_refused
            if is_sending and not future.cancelled() and future.exception() is not None:
                is_refused = True
                task.cancel()

        recorded.add_done_callback(stop_call)
        began = time.monotonic()
        load = self._with.load
        load.begin()
        ok = False
        try:
            call.was_sent = True
            answer = await self._with.upstream.send(
                request, deadline=call.started + self._with.settings.upstream_total_timeout_s
            )
            ok = answer.status < 500 and answer.status != 429
        except UpstreamUnreachable:
            call.was_sent = False
            raise
        except asyncio.CancelledError:
            if is_refused and not task.uncancel():
                raise unrecorded() from recorded.exception()
            raise
        finally:
            is_sending = False
            load.end(time.monotonic() - began, ok)
        self._with.metrics.upstream_seconds.add(time.monotonic() - began)
        self._with.metrics.upstream_attempts.add(by=answer.attempts)
        return answer


def _make_request(incoming: Incoming, call: Call, governed: Governed, operation: Operation) -> UpstreamRequest:
    try:
        body = encode_json(governed.body) if operation.method == "POST" and operation is CREATE else b""
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP) from None
    return UpstreamRequest(
        method=operation.method,
        path=operation.path or call.upstream_path,
        body=body,
        headers=request_headers(incoming.headers),
        stream=call.stream,
    )


def _count_tokens(usage: object) -> int | None:
    if not isinstance(usage, dict):
        return None
    counts = cast("dict[str, int]", usage)
    if any(not 0 <= count <= _MOST_TOKENS for count in counts.values()):
        return None  # a counter that went wrong; what was reserved stays counted
    if "total_tokens" in counts:
        return counts["total_tokens"]
    parts = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
    known = [counts[name] for name in parts if name in counts]
    return sum(known) if known else None


def _read_headers(headers: Sequence[tuple[bytes, bytes]]) -> tuple[str | None, list[Signal]]:
    session: str | None = None
    signals: list[Signal] = []
    for name, value in headers:
        if name == b"x-lukhas-session":
            try:
                text = value.decode("utf-8")
            except UnicodeDecodeError:
                raise InvalidRequest("X-Lukhas-Session is not UTF-8 text.", param="X-Lukhas-Session") from None
            if session not in (None, text):
                raise InvalidRequest("X-Lukhas-Session stands twice.", param="X-Lukhas-Session")
            session = check_subject(text, "X-Lukhas-Session")
        elif name == b"x-lukhas-signals":
            if len(value) > MAX_SIGNAL_HEADER_BYTES:
                raise InvalidRequest("X-Lukhas-Signals is too long.", param="X-Lukhas-Signals")
            if value.strip():
                signals = merge_signals(signals, parse_signal_header(value.decode("latin-1")))
    return session, signals


def _is_stream(answer: UpstreamAnswer) -> bool:
    return answer.headers.get("content-type", "").lower().startswith("text/event-stream")


def _error_outcome(failure: LukhasError) -> dict[str, Any]:
    status = "denied" if isinstance(failure, PolicyDenied) else "failed"
    return {"status": status, "error": failure.code}
