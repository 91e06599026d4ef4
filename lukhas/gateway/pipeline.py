"""The governed call, step by step: read, sense, decide, apply, record, call, record, release.

Invariant I6 lives here: no byte of an answer leaves before the decision is durable, and the last one leaves only
when the outcome is durable too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, cast

import msgspec
import orjson

from lukhas.access.keys import ApiKey
from lukhas.audit.redaction import redact_text
from lukhas.audit.store import Appended, AuditStore
from lukhas.clock import Clock
from lukhas.errors import InvalidRequest, LukhasError, PolicyDenied, StorageUnavailable, UpstreamBroken, UpstreamError
from lukhas.gateway.enforcement import apply_decision, read_caller
from lukhas.gateway.intake import list_subjects, merge_signals, sense
from lukhas.gateway.policies import PolicyInForce
from lukhas.gateway.recording import CallRecord, Recorder, unrecorded
from lukhas.gateway.relay import Ended, relay_events
from lukhas.gateway.shadow import ShadowPolicy
from lukhas.ids import make_id
from lukhas.modulation.dispatcher import Decision
from lukhas.modulation.policy import Policy
from lukhas.modulation.signals import Signal, parse_signal_body, parse_signal_header
from lukhas.modulation.state import SignalState
from lukhas.openai.capabilities import CapabilityTable
from lukhas.openai.headers import request_headers, response_headers
from lukhas.openai.tooling import NOTHING, Stripped, list_tools
from lukhas.openai.upstream import Upstream, UpstreamAnswer, UpstreamRequest
from lukhas.openai.wire import AnswerSummary, ChatCall, check_subject, encode_json, error_body, parse_chat
from lukhas.telemetry import Metrics
from lukhas.vault.subjects import SubjectKind, SubjectVault

MAX_SIGNAL_HEADER_BYTES: Final = 4096
Headers = list[tuple[bytes, bytes]]


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


class Reply(msgspec.Struct):
    """An answer to release: either `body`, or `events`.

    Attributes:
        events: a streamed answer's bytes, whole events at a time.
        abandon: to be called when the events will not be drained to their end; does nothing after that.
    """

    status: int
    headers: Headers
    body: bytes = b""
    events: AsyncIterator[bytes] | None = None
    abandon: Callable[[], None] = lambda: None


class Pipeline:
    """Runs governed calls.

    Args:
        is_shadow: nothing is applied; everything is recorded as what it would have done.
        record_deadline_s: longest wait for a durable record.
        total_timeout_s: deadline of one whole call.
        max_response_bytes: largest plain answer that is read.
    """

    def __init__(
        self,
        *,
        policies: PolicyInForce,
        shadow: ShadowPolicy,
        state: SignalState,
        vault: SubjectVault,
        audit: AuditStore,
        upstream: Upstream,
        capabilities: CapabilityTable,
        clock: Clock,
        metrics: Metrics,
        is_shadow: bool,
        record_deadline_s: float,
        total_timeout_s: float,
        max_response_bytes: int,
    ) -> None:
        self._policies = policies
        self._shadow = shadow
        self._state = state
        self._vault = vault
        self._upstream = upstream
        self._capabilities = capabilities
        self._clock = clock
        self._metrics = metrics
        self._is_shadow = is_shadow
        self._record_deadline_s = record_deadline_s
        self._recorder = Recorder(audit, clock, metrics, record_deadline_s)
        self._total_timeout_s = total_timeout_s
        self._max_response_bytes = max_response_bytes

    async def chat(self, incoming: Incoming) -> Reply:
        """Run one chat completion.

        Raises:
            LukhasError: the call was refused or failed; `incoming.answer_headers` then hold what is known.
        """
        started = time.monotonic()
        chat = parse_chat(incoming.body)
        session_name, header_signals = _read_headers(incoming.headers)
        if session_name is not None and chat.extension.session not in (None, session_name):
            raise InvalidRequest("X-Lukhas-Session and lukhas.session name different sessions.", param="lukhas.session")
        body_signals = [] if chat.extension.signals is None else parse_signal_body(chat.extension.signals)
        signals = merge_signals(header_signals, body_signals)
        session = await self._resolve(incoming.key, "session", session_name or chat.extension.session)
        user = await self._resolve(incoming.key, "user", chat.end_user)
        call = CallRecord(self._recorder, make_id("aud"), incoming.key, incoming.request_id, session, user, started)
        try:
            request = self._govern(call, incoming, chat, signals)
            self._metrics.decide_seconds.add(time.monotonic() - started)
            answer = await self._send(call, request)
            if answer.status < 400 and _is_stream(answer) != chat.stream:
                # The caller would read an answer of the other kind as an empty one.
                answer.abort()
                raise UpstreamBroken(
                    f"The upstream answered a {'streamed' if chat.stream else 'plain'} call otherwise."
                )
            if chat.stream and answer.status < 400:
                await self._release(call, answer)
                headers = [*response_headers(answer.headers), *incoming.answer_headers]
                summary, ended = AnswerSummary(), Ended()
                stream = self._stream(call, answer, summary, ended)
                return Reply(
                    answer.status,
                    headers,
                    events=stream,
                    abandon=lambda: self._abandon(call, answer, summary, ended),
                )
            return await self._plain(call, incoming, answer)
        except StorageUnavailable as failure:
            # A record is late or failed: waiting for another one would only double the caller's wait.
            call.end_unawaited(_error_outcome(failure))
            raise
        except LukhasError as failure:
            await call.end(_error_outcome(failure))
            raise
        except asyncio.CancelledError:
            call.end_unawaited({"status": "client_gone"})
            raise
        except Exception:
            call.end_unawaited({"status": "failed", "error": LukhasError.code})
            raise

    async def _resolve(self, key: ApiKey, kind: SubjectKind, name: str | None) -> str | None:
        if name is None:
            return None
        known = self._vault.recall(key.tenant, kind, name)
        if known is not None:
            return known
        try:
            async with asyncio.timeout(self._record_deadline_s):
                return await self._vault.resolve(key.tenant, kind, name)
        except TimeoutError as late:
            raise StorageUnavailable(f"The call was refused: its {kind} could not be looked up in time.") from late

    def _govern(
        self, call: CallRecord, incoming: Incoming, chat: ChatCall, signals: Sequence[Signal]
    ) -> UpstreamRequest:
        """Sense, decide, apply, and start writing the decision."""
        key = incoming.key
        active = self._policies.active
        dispatcher = active.dispatcher
        policy = dispatcher.policy
        # Everything that can be wrong with the request is found before its signals are taken in.
        caller = read_caller(chat.body, dispatcher)
        offered = list_tools(chat.body)
        subjects = list_subjects(call.session, call.user, key)
        now_ms = self._clock.now_ms()
        sensed = sense(self._state, subjects, signals, key, policy.signals, self._metrics, now_ms)
        decision = dispatcher.decide(sensed.levels, caller=caller)
        shadow = self._shadow.compare(decision, sensed.levels, caller) if self._shadow.is_on else None
        denial: PolicyDenied | None = None
        body, written, stripped = chat.body, {}, NOTHING
        try:
            applied = apply_decision(chat.body, decision, dispatcher, self._capabilities.find(chat.model))
            written, stripped = applied.written, applied.stripped
            if not self._is_shadow:
                body = applied.body
        except PolicyDenied as refused:
            denial = refused
        self._metrics.decisions.add(decision.safety_mode)
        record: dict[str, Any] = {
            "mode": "shadow" if self._is_shadow else "enforce",
            "dialect": "chat",
            "model": redact_text(chat.model),
            "stream": chat.stream,
            "inputs": {
                "levels": decision.levels,
                "evidence": sensed.evidence,
                "caller": caller,
                "tools": [redact_text(name) for name in offered],
            },
            "policy": decision.policy,
            "parameters": decision.parameters,
            "style": decision.style,
            "touched": decision.touched,
            "trace": decision.trace,
            "written": written,
        }
        if active.certificate is not None:
            record["certificate"] = active.certificate
        if shadow is not None:
            record["shadow"] = shadow
        if sensed.ignored:
            record["inputs"]["ignored"] = sensed.ignored
        if stripped.removed:
            self._metrics.tools_stripped.add(by=len(stripped.removed))
            record["stripped"] = [redact_text(name) for name in stripped.removed]
        if chat.extension.task is not None:
            record["task"] = redact_text(chat.extension.task)
        if denial is not None:
            record["denied"] = redact_text(denial.message)
        call.decide(record)
        # Not before: no caller is given an id that the log will never know.
        incoming.answer_headers += self._answer_headers(call, decision, policy, stripped)
        if denial is not None and not self._is_shadow:
            raise denial
        return UpstreamRequest(
            method="POST",
            path="/chat/completions",
            body=encode_json(body),
            headers=request_headers(incoming.headers),
            stream=chat.stream,
        )

    def _answer_headers(self, call: CallRecord, decision: Decision, policy: Policy, stripped: Stripped) -> Headers:
        if self._is_shadow:
            # An application that follows these headers must not act on what was only thought.
            defaults = policy.defaults
            parameters, mode = dict(defaults), str(defaults["safety_mode"])
        else:
            parameters, mode = decision.parameters, decision.safety_mode
        headers: Headers = [
            (b"x-lukhas-audit-id", call.audit_id.encode()),
            (b"x-lukhas-policy", decision.policy.encode()),
            (b"x-lukhas-mode", b"shadow" if self._is_shadow else b"enforce"),
            (b"x-lukhas-safety-mode", mode.encode()),
            (b"x-lukhas-parameters", orjson.dumps(parameters)),
        ]
        if stripped.removed and not self._is_shadow:
            names = ", ".join(name for name in stripped.removed if name.isascii() and name.isprintable())
            headers.append((b"x-lukhas-tools-stripped", names[:1000].encode("ascii")))
        return headers

    async def _send(self, call: CallRecord, request: UpstreamRequest) -> UpstreamAnswer:
        """Call upstream while the decision is being written; stop where it cannot be."""
        recorded, task = call.decision, asyncio.current_task()
        if recorded is None or task is None:
            raise AssertionError("a call is sent from a task, after its decision was handed to the writer")
        is_sending, is_refused = True, False

        def stop_call(future: asyncio.Future[Appended]) -> None:
            # The model must not work on a call that cannot be recorded.
            nonlocal is_refused
            if is_sending and not future.cancelled() and future.exception() is not None:
                is_refused = True
                task.cancel()

        recorded.add_done_callback(stop_call)
        began = time.monotonic()
        try:
            answer = await self._upstream.send(request, deadline=call.started + self._total_timeout_s)
        except asyncio.CancelledError:
            if is_refused and not task.uncancel():
                raise unrecorded() from recorded.exception()
            raise
        finally:
            is_sending = False
        self._metrics.upstream_seconds.add(time.monotonic() - began)
        self._metrics.upstream_attempts.add(by=answer.attempts)
        return answer

    async def _release(self, call: CallRecord, answer: UpstreamAnswer) -> None:
        """Wait for the decision's record: after this, bytes of a stream may leave."""
        try:
            await call.decided()
        except BaseException:
            answer.abort()
            raise

    async def _plain(self, call: CallRecord, incoming: Incoming, answer: UpstreamAnswer) -> Reply:
        try:
            body = await answer.read(self._max_response_bytes)
        except BaseException:
            answer.abort()
            raise
        summary = AnswerSummary()
        is_error = answer.status >= 400
        headers = response_headers(answer.headers)
        value = _read_object(body)
        if value is None:
            if not is_error:
                raise UpstreamBroken("The upstream's answer is not a JSON object.")
            # A proxy's page, or nothing: clients of this surface read errors in one shape.
            body = error_body(
                f"The upstream answered with status {answer.status} and no readable error.",
                kind="upstream_error",
                code=UpstreamError.code,
            )
        summary.add(value)
        if not answer.headers.get("content-type", "").startswith("application/json"):
            headers = [(b"content-type", b"application/json"), *(h for h in headers if h[0] != b"content-type")]
        await call.end(_outcome("upstream_error" if is_error else "ok", answer, summary, len(body)))
        await answer.close()
        return Reply(answer.status, [*headers, *incoming.answer_headers], body)

    async def _stream(
        self, call: CallRecord, answer: UpstreamAnswer, summary: AnswerSummary, ended: Ended
    ) -> AsyncIterator[bytes]:
        try:
            async for chunk in relay_events(answer, summary, ended):
                yield chunk
            outcome = _outcome(ended.status, answer, summary, ended.released_bytes)
            if ended.problem is not None:
                outcome["error"] = ended.problem.code
            try:
                await call.end(outcome)
            except LukhasError as failure:
                # Half an answer is out; its end may not follow unrecorded.
                yield ended.error_event(failure)
                return
            yield ended.last_bytes
        except (asyncio.CancelledError, GeneratorExit):
            call.end_unawaited(_outcome("client_gone", answer, summary, ended.released_bytes))
            raise
        finally:
            answer.abort()

    def _abandon(self, call: CallRecord, answer: UpstreamAnswer, summary: AnswerSummary, ended: Ended) -> None:
        """Close a stream whose generator may never have been started, or stands still at a block nobody takes."""
        call.end_unawaited(_outcome("client_gone", answer, summary, ended.released_bytes))
        answer.abort()


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


def _read_object(body: bytes) -> dict[str, Any] | None:
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _outcome(status: str, answer: UpstreamAnswer, summary: AnswerSummary, size: int) -> dict[str, Any]:
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
    return outcome


def _error_outcome(failure: LukhasError) -> dict[str, Any]:
    status = "denied" if isinstance(failure, PolicyDenied) else "failed"
    return {"status": status, "error": failure.code}
