"""The two records of a governed call: the decision before the first byte, the outcome before the last (I6)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from lukhas.access.meter import Reservation
from lukhas.access.ring import ApiKey
from lukhas.audit.store import Appended, AuditRecord, AuditStore
from lukhas.clock import Clock
from lukhas.errors import LukhasError, Overloaded, StorageUnavailable
from lukhas.gateway.capture import CallCapture
from lukhas.gateway.incident import IncidentRow, IncidentStore
from lukhas.gateway.sensors import Observation
from lukhas.gateway.unrecorded import UnrecordedCalls
from lukhas.gateway.violation import Violation
from lukhas.telemetry import Metrics

_LOOK_EVERY_S: Final = 0.25
# The wait is over, the write is not: unlike a failed write, it may still come about.
_LATE: Final = "The record was not durable in time."


class Recorder:
    """Writes calls' records, each within a deadline.

    Args:
        deadline_s: longest wait for one durable record.
        unrecorded: where calls may pass unrecorded, what counts them; else None.
    """

    def __init__(
        self,
        audit: AuditStore,
        incidents: IncidentStore,
        clock: Clock,
        metrics: Metrics,
        deadline_s: float,
        unrecorded: UnrecordedCalls | None = None,
    ) -> None:
        self.metrics = metrics
        self.unrecorded = unrecorded
        self._audit = audit
        self._incidents = incidents
        self._clock = clock
        self.deadline_s = deadline_s
        self._waiting: deque[tuple[float, asyncio.Future[Appended]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def append(
        self, call: CallRecord, kind: str, body: dict[str, Any], rows: Sequence[IncidentRow] = ()
    ) -> asyncio.Future[Appended]:
        """Start writing one record; its future fails with StorageUnavailable when the deadline passes.

        An outcome is owed: it is taken even where the queue is full, or the model would have worked for nothing.

        Args:
            observation: what the sensors saw, for those that learn; None where none is on.
        reservation: what the key's limits hold for it; None where it has none.
        rows: incidents that are stored in the record's own transaction.

        Raises:
            Overloaded, StorageUnavailable: the writer does not take it.
        """
        record = AuditRecord(
            kind=kind,
            audit_id=call.audit_id,
            tenant=call.key.tenant,
            key_id=call.key.key_id,
            request_id=call.request_id,
            time_ms=self._clock.now_ms(),
            session=call.session,
            user=call.user,
            body=body,
        )
        is_owed = kind == "outcome"
        if rows or call.capture is not None or (is_owed and call.incidents):
            # After the decision, or an outcome could come before it in the log where only one of them has incidents.
            contents = () if call.capture is None else call.capture.take_rows()
            future = self._incidents.append(record, rows, contents, owed=is_owed, after=call.decision)
        else:
            future = self._audit.append(record, owed=is_owed)
        if self.unrecorded is not None:
            return future  # whoever waits for it stops by itself, and how it ends at last must be known
        # One timer for all: a deadline of its own would cost each record more than its encoding.
        self._waiting.append((time.monotonic() + self.deadline_s, future))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)
        return future

    def _look(self) -> None:
        now = time.monotonic()
        waiting = self._waiting
        while waiting and (waiting[0][1].done() or waiting[0][0] <= now):
            _, future = waiting.popleft()
            if not future.done():
                future.set_exception(StorageUnavailable(_LATE))
                future.exception()  # seen here; whoever waits sees it too
        self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look) if waiting else None


class CallRecord:
    """One call as its records name it.

    Attributes:
        session, user: `sub_...` ids.
        started: when it came, in seconds of the monotonic clock.
        decision: the decision's write; None until it was handed to the writer.
        rows: incidents that the next record takes along.
        incidents: ids of every incident of this call.
        capture: its texts, where they are captured; each record takes along what is there.
        was_sent: whether the upstream may have worked for it, so that what was reserved counts.
        on_close: told once how the call ended, with the outcome.
        on_unrecorded: told once that the call passes unrecorded.
    """

    __slots__ = (
        "_ended",
        "_is_missed",
        "_recorder",
        "audit_id",
        "capture",
        "decision",
        "incidents",
        "key",
        "observation",
        "on_close",
        "on_unrecorded",
        "request_id",
        "reservation",
        "rows",
        "session",
        "started",
        "user",
        "was_sent",
    )

    def __init__(
        self,
        recorder: Recorder,
        audit_id: str,
        key: ApiKey,
        request_id: str,
        session: str | None,
        user: str | None,
        started: float,
        reservation: Reservation | None,
    ) -> None:
        self._recorder = recorder
        self.audit_id = audit_id
        self.key = key
        self.request_id = request_id
        self.session = session
        self.user = user
        self.started = started
        self.reservation = reservation
        self.decision: asyncio.Future[Appended] | None = None
        self.rows: list[IncidentRow] = []
        self.incidents: list[str] = []
        self.capture: CallCapture | None = None
        self.was_sent = False
        self.observation: Observation | None = None
        self.on_close: Callable[[dict[str, Any]], None] | None = None
        self.on_unrecorded: Callable[[], None] | None = None
        self._ended = False
        self._is_missed = False

    @property
    def may_pass_unrecorded(self) -> bool:
        """Whether the call goes on where its records cannot be written."""
        return self._recorder.unrecorded is not None

    def note_violations(self, violations: Sequence[Violation], rows: Sequence[IncidentRow]) -> None:
        """Keep incidents for the next record of this call."""
        self.rows += rows
        for violation in violations:
            self.incidents.append(violation.incident_id)
            self._recorder.metrics.incidents.add(violation.point, violation.category, violation.action)

    def decide(self, body: dict[str, Any]) -> None:
        """Start writing the decision.

        Raises:
            Overloaded, StorageUnavailable: the writer does not take it, and the call may not pass unrecorded.
        """
        try:
            self.decision = self._recorder.append(self, "decision", body, self._take_rows())
        except (Overloaded, StorageUnavailable) as failure:
            if not self.may_pass_unrecorded:
                raise
            self.decision = asyncio.get_running_loop().create_future()
            self.decision.set_exception(failure)
            self.decision.exception()  # seen here: the call passes
        self._recorder.metrics.in_flight.value += 1

    async def decided(self) -> None:
        """Wait until the decision is durable.

        Raises:
            StorageUnavailable: it is not, or not in time, and the call may not pass unrecorded.
        """
        if self.decision is None:
            return
        if self.may_pass_unrecorded:
            await self._await_or_miss(self.decision, "decision")
        else:
            await _durable(self.decision)

    async def end(self, outcome: dict[str, Any]) -> None:
        """Write the outcome, and wait until decision and outcome are durable; once per call.

        Raises:
            StorageUnavailable, Overloaded: one of them is not, and the call may not pass unrecorded.
        """
        if self._ended or self.decision is None:
            return
        began = time.monotonic()
        self._close(outcome)
        if self.may_pass_unrecorded:
            await self._end_or_miss(self.decision, outcome)
            return
        # Handed over before the decision is waited for, so that both may share one commit.
        written = self._hand_over(outcome)
        if written is not None:
            written.add_done_callback(_swallow)
        try:
            await _durable(self.decision)
            if written is not None:
                await _durable(written)
        except StorageUnavailable as failure:
            if written is not None:
                self._withhold(failure)
            raise
        self._recorder.metrics.record_seconds.add(time.monotonic() - began)

    async def _end_or_miss(self, decision: asyncio.Future[Appended], outcome: dict[str, Any]) -> None:
        """Write the outcome; where decision or outcome is not durable in time, count the call and let it go."""
        began = time.monotonic()
        try:
            written = self._hand_over(outcome)
        except (Overloaded, StorageUnavailable):
            written = None
        await self._await_or_miss(decision, "decision")
        if written is None:
            await self._miss("outcome", None)
        else:
            written.add_done_callback(_swallow)
            if not self._is_missed:
                await self._await_or_miss(written, "outcome")
        unrecorded = self._recorder.unrecorded
        if self._is_missed and unrecorded is not None:
            unrecorded.end(self.key, outcome["status"])
        self._recorder.metrics.record_seconds.add(time.monotonic() - began)

    async def _await_or_miss(self, future: asyncio.Future[Appended], part: str) -> None:
        unrecorded = self._recorder.unrecorded
        if self._is_missed or unrecorded is None:
            return
        if not future.done():
            # While an earlier write is late, this one is behind it.
            await asyncio.wait([future], timeout=0 if unrecorded.is_late else self._recorder.deadline_s)
        if not future.done() or future.exception() is not None:
            await self._miss(part, future)

    async def _miss(self, part: str, future: asyncio.Future[Appended] | None) -> None:
        """Count the call as unrecorded, durably where that is possible; once."""
        unrecorded = self._recorder.unrecorded
        if self._is_missed or unrecorded is None:
            return
        self._count_missed(unrecorded, part, future)
        await unrecorded.kept()

    def _miss_if_failed(self, decision: asyncio.Future[Appended]) -> None:
        unrecorded = self._recorder.unrecorded
        failed = not decision.cancelled() and decision.exception() is not None
        if failed and not self._is_missed and unrecorded is not None:
            self._count_missed(unrecorded, "decision", decision)

    def _count_missed(self, unrecorded: UnrecordedCalls, part: str, future: asyncio.Future[Appended] | None) -> None:
        self._is_missed = True
        late, reason = None, ""
        if future is not None and not future.done():
            future.add_done_callback(_swallow)
            late, reason = (self.audit_id, future), _LATE
        elif future is not None:
            reason = str(future.exception())
        unrecorded.miss(self.key, part, late, reason)
        if self.on_unrecorded is not None:
            self.on_unrecorded()

    def _withhold(self, failure: StorageUnavailable) -> None:
        """Add a last word to an outcome that may yet be written: the caller did not get what it says."""
        last = {"status": "withheld", "error": failure.code}
        with contextlib.suppress(LukhasError):
            self._recorder.append(self, "outcome", last).add_done_callback(_swallow)

    def end_unawaited(self, outcome: dict[str, Any]) -> None:
        """Write the outcome of a call whose caller is gone: nobody is left to wait for it."""
        if self._ended or self.decision is None:
            return
        self._close(outcome)
        self.decision.add_done_callback(_swallow)
        if self.may_pass_unrecorded:
            self.decision.add_done_callback(self._miss_if_failed)
        try:
            written = self._hand_over(outcome)
        except LukhasError:
            return  # closed as lost later
        if written is not None:
            written.add_done_callback(_swallow)

    def _hand_over(self, outcome: dict[str, Any]) -> asyncio.Future[Appended] | None:
        decision = self.decision
        if decision is not None and decision.done():
            failure = decision.exception()
            # A late decision may be written yet. Of one that failed, an outcome would say nothing.
            if failure is not None and str(failure) != _LATE:
                return None
        return self._recorder.append(self, "outcome", outcome, self._take_rows())

    def _take_rows(self) -> list[IncidentRow]:
        rows, self.rows = self.rows, []
        return rows

    def _close(self, outcome: dict[str, Any]) -> None:
        self._ended = True
        elapsed = time.monotonic() - self.started
        outcome["duration_ms"] = round(elapsed * 1000, 3)
        if self.on_close is not None:
            self.on_close(outcome)
        metrics = self._recorder.metrics
        metrics.in_flight.value -= 1
        metrics.calls.add(outcome["status"])
        metrics.call_seconds.add(elapsed)


def unrecorded() -> StorageUnavailable:
    """Return the refusal of a call whose record cannot be written."""
    return StorageUnavailable("The call was refused: its record could not be written.")


async def _durable(future: asyncio.Future[Appended]) -> None:
    if not future.done():
        # A waiter of its own: cancelling it must not cancel the record with it.
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: None if waiter.done() else waiter.set_result(None))
        await waiter
    failure = future.exception()
    if failure is not None:
        # Whatever the reason, a full disk or a row that the database rejects: the call is not on record.
        raise unrecorded() from failure


def _swallow(future: asyncio.Future[Appended]) -> None:
    if not future.cancelled():
        future.exception()  # seen: the decision is closed as lost later
