"""Incidents: every violation as a row, stored with the call's record, remembered over a restart, and released.

A row and the audit record that tells of it are one transaction: nothing tightens for good that is not on record, and
nothing on record is forgotten.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import orjson
from sqlalchemy import Connection, Row, desc, insert, select, tuple_, update

from lukhas.access.ring import ApiKey
from lukhas.audit.content import ContentRow, write_contents
from lukhas.audit.redaction import redact, redact_text
from lukhas.audit.store import Appended, AuditRecord, AuditStore
from lukhas.clock import Clock
from lukhas.errors import InvalidRequest, LukhasError, NotFound
from lukhas.gateway.tightening import SOURCE, Raised
from lukhas.gateway.violation import Violation
from lukhas.ids import check_id
from lukhas.modulation.policy import Policy
from lukhas.modulation.state import SignalState, Subject
from lukhas.storage.engine import Database
from lukhas.storage.metadata import INCIDENT
from lukhas.storage.revision import bump_revision, read_revision
from lukhas.storage.writer import GroupCommitWriter

TOPIC: Final = "incident"
MOST_LISTED: Final = 1_000
LONGEST_REASON: Final = 500
_TIMEOUT_S: Final = 30.0
_MOST_REMEMBERED: Final = 10_000
_LONGEST_TOOL: Final = 256
_COLUMN: Final = INCIDENT.c
_RAISED: Final = msgspec.json.Decoder(tuple[Raised, ...])


class IncidentRow(msgspec.Struct, frozen=True):
    """One incident as it is stored.

    Attributes:
        incident_id: `inc_...`.
        audit_id: the call's.
        session, user: `sub_...` ids, where the call named them.
        time_ms: when, in ms since the epoch.
        point, category, rule, severity, action, tool, details: as the `Violation` has them.
        raised: what the call's violations left at each subject; nothing in shadow mode.
        until_ms: when all of that is over.
        released_ms: when all of it had been released; None where some is left, or nothing was raised.
    """

    incident_id: str
    audit_id: str
    tenant: str
    key_id: str
    session: str | None
    user: str | None
    time_ms: int
    point: str
    category: str
    rule: str
    severity: str
    action: str
    tool: str | None
    details: Mapping[str, Any]
    raised: tuple[Raised, ...]
    until_ms: int
    released_ms: int | None = None


class Target(NamedTuple):
    """What is released: a guard at a subject, as far as it was raised until now."""

    subject: Subject
    signal: str


class _Append(NamedTuple):
    entry: Any
    rows: Sequence[IncidentRow]
    contents: Sequence[ContentRow]


class _Release(NamedTuple):
    entry: Any
    targets: Sequence[Target]
    at_ms: int


_Payload: TypeAlias = _Append | _Release


class IncidentStore:
    """Writes and reads incidents.

    Args:
        audit: encodes records and writes them; its sink runs in the incidents' own transactions.
    """

    def __init__(self, database: Database, writer: GroupCommitWriter, clock: Clock, audit: AuditStore) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._audit = audit
        # One sink for both, so that a release and an incident are written in the order in which they came.
        self._sink = self._write
        self._releases: OrderedDict[Target, int] = OrderedDict()
        self._data_version = -1
        self._revision = -1
        self._seen: dict[tuple[str, Target], int] = {}

    def make_rows(
        self,
        violations: Sequence[Violation],
        raised: Sequence[Raised],
        audit_id: str,
        key: ApiKey,
        session: str | None,
        user: str | None,
    ) -> list[IncidentRow]:
        """Return one row for each violation of a call.

        Args:
            raised: as `tighten` returned it for these violations; nothing in shadow mode.
            session, user: `sub_...` ids.
        """
        now_ms = raised[0].at_ms if raised else self._clock.now_ms()
        until_ms = max((one.at_ms + one.ttl_ms for one in raised), default=now_ms)
        return [
            IncidentRow(
                incident_id=violation.incident_id,
                audit_id=audit_id,
                tenant=key.tenant,
                key_id=key.key_id,
                session=session,
                user=user,
                time_ms=now_ms,
                point=violation.point,
                category=violation.category,
                rule=violation.rule,
                severity=violation.severity,
                action=violation.action,
                tool=None if violation.tool is None else _shorten(violation.tool),
                details=violation.details,
                raised=tuple(raised),
                until_ms=until_ms,
            )
            for violation in violations
        ]

    def append(
        self,
        record: AuditRecord,
        rows: Sequence[IncidentRow],
        contents: Sequence[ContentRow] = (),
        *,
        owed: bool = False,
        after: asyncio.Future[Appended] | None = None,
    ) -> asyncio.Future[Appended]:
        """Start writing a record and the incidents that it tells of, in one transaction, from an event loop.

        Args:
            contents: captured texts that go into the same transaction.
            owed: taken even where the queue is full.
            after: a write that this one must follow, however it ends: give an outcome its decision's. Within one
                transaction the writer keeps the order of one sink's payloads, and this sink is not the audit log's own.

        Raises:
            Overloaded: too many rows wait.
            StorageUnavailable: the writer is not running; the future raises it when the storage fails.
        """
        payload = _Append(self._audit.encode(record), [self._mark(row) for row in rows], contents)
        if after is None or after.done():
            return self._writer.submit(self._sink, payload, owed=owed)
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()

        def follow(_: asyncio.Future[Appended]) -> None:
            try:
                written = self._writer.submit(self._sink, payload, owed=owed)
            except LukhasError as failure:
                if not answer.done():
                    answer.set_exception(failure)
                return
            written.add_done_callback(lambda done: _pass_on(done, answer))

        after.add_done_callback(follow)
        return answer

    def release(self, record: AuditRecord, targets: Sequence[Target], at_ms: int) -> asyncio.Future[Appended]:
        """Start writing a release and its record in one transaction; once durable, call `SignalState.release`.

        Args:
            targets: what is released.
            at_ms: what was raised until then is released.

        Raises:
            Overloaded, StorageUnavailable: as `append`.
        """
        future = self._writer.submit(self._sink, _Release(self._audit.encode(record), tuple(targets), at_ms))
        # A violation's row is written when its call ends, which may be after its release.
        future.add_done_callback(lambda done: self._remember(done, targets, at_ms))
        return future

    def release_sync(self, record: AuditRecord, targets: Sequence[Target], at_ms: int) -> None:
        """Write a release and its record, from a thread without an event loop; servers see it within a refresh.

        Raises:
            Overloaded, StorageUnavailable: it could not be written.
        """
        payload = _Release(self._audit.encode(record), tuple(targets), at_ms)
        self._writer.submit_sync(self._sink, payload, _TIMEOUT_S)

    def list(
        self,
        *,
        tenant: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        category: str | None = None,
        point: str | None = None,
        tool: str | None = None,
        limit: int = 100,
        cursor: tuple[int, str] | None = None,
    ) -> list[IncidentRow]:
        """Return incidents, newest first. Reads the database.

        Args:
            tenant: only this one's; None for every tenant's.
            since_ms, until_ms: only from this moment on, and before that one, in ms since the epoch.
            limit: most that are returned, up to 1,000.
            cursor: only those after this (time_ms, incident_id) in the list.
        """
        query = select(INCIDENT).order_by(desc(_COLUMN.time_ms), desc(_COLUMN.incident_id))
        for column, wanted in (
            (_COLUMN.tenant, tenant),
            (_COLUMN.category, category),
            (_COLUMN.point, point),
            (_COLUMN.tool, tool),
        ):
            if wanted is not None:
                query = query.where(column == wanted)
        if since_ms is not None:
            query = query.where(_COLUMN.time_ms >= since_ms)
        if until_ms is not None:
            query = query.where(_COLUMN.time_ms < until_ms)
        if cursor is not None:
            query = query.where(tuple_(_COLUMN.time_ms, _COLUMN.incident_id) < cursor)
        with self._database.reading() as connection:
            rows = connection.execute(query.limit(max(1, min(limit, MOST_LISTED)))).all()
        return [_read_row(row) for row in rows]

    def read(self, incident_id: str) -> IncidentRow:
        """Return one incident. Reads the database.

        Raises:
            InvalidId: not an incident's id.
            NotFound: there is none.
        """
        check_id("inc", incident_id)
        with self._database.reading() as connection:
            row = connection.execute(select(INCIDENT).where(_COLUMN.incident_id == incident_id)).first()
        if row is None:
            raise no_incident(incident_id)
        return _read_row(row)

    def restore(self, state: SignalState, policy: Policy, now_ms: int) -> int:
        """Raise again what incidents raised before a restart, and what has neither expired nor been released.

        Each keeps its own time, so that its decay goes on where it was. A moment that lies in the future, as a clock
        that was set back leaves it, counts as now. A signal that is no longer a guard of the policy gives way to the
        policy's violation signal.

        Returns:
            How many emissions there are again.
        """
        restored = 0
        for key_id, one, incident_id in self._living(now_ms):
            if one.released_ms is not None:
                self._seen[incident_id, Target(one.subject, one.signal)] = one.released_ms
                continue
            at_ms = min(one.at_ms, now_ms)
            if at_ms + one.ttl_ms <= now_ms or not 0 <= one.level <= 1:
                continue
            signal = one.signal if one.signal in policy.guards else policy.violations.signal
            state.emit(one.subject, signal, one.level, ttl_ms=one.ttl_ms, source=SOURCE, owner=key_id, now_ms=at_ms)
            restored += 1
        return restored

    def find_releases(self) -> Sequence[tuple[Target, int]]:
        """Return what any process, such as `lukhas incident release`, has released since the last look, and when.

        Cheap where nothing has changed. Ask in a thread every 200 ms; then `apply_releases` on the serving loop.

        Raises:
            StorageUnavailable: the database cannot be read.
        """
        # Read before the rows, so that a change in between is seen next time, not never.
        version = self._database.data_version()
        if version == self._data_version:
            return ()
        with self._database.reading() as connection:
            revision = read_revision(connection, TOPIC)
        found: dict[Target, int] = {}
        if revision != self._revision:
            seen: dict[tuple[str, Target], int] = {}
            for _, one, incident_id in self._living(self._clock.now_ms()):
                if one.released_ms is None:
                    continue
                target = Target(one.subject, one.signal)
                seen[incident_id, target] = one.released_ms
                if self._seen.get((incident_id, target)) != one.released_ms:
                    found[target] = max(one.released_ms, found.get(target, 0))
            self._seen = seen
        self._revision = revision
        self._data_version = version
        return tuple(found.items())

    def apply_releases(self, state: SignalState, releases: Sequence[tuple[Target, int]]) -> int:
        """Drop what `find_releases` has found to be released; return how many emissions that were."""
        dropped = 0
        for target, at_ms in releases:
            self._keep_release(target, at_ms)
            dropped += state.release(target.subject, target.signal, at_ms)
        return dropped

    def _living(self, now_ms: int) -> Sequence[tuple[str, Raised, str]]:
        query = select(_COLUMN.key_id, _COLUMN.raised, _COLUMN.incident_id).where(_COLUMN.until_ms > now_ms)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(_COLUMN.time_ms, _COLUMN.incident_id)).all()
        return [(key_id, one, incident_id) for key_id, raised, incident_id in rows for one in _read_raised(raised)]

    def _remember(self, done: asyncio.Future[Appended], targets: Sequence[Target], at_ms: int) -> None:
        if done.cancelled() or done.exception() is None:
            for target in targets:
                self._keep_release(target, at_ms)

    def _keep_release(self, target: Target, at_ms: int) -> None:
        self._releases[target] = max(at_ms, self._releases.get(target, 0))
        self._releases.move_to_end(target)
        if len(self._releases) > _MOST_REMEMBERED:
            self._releases.popitem(last=False)

    def _mark(self, row: IncidentRow) -> IncidentRow:
        """Return the row with the mark of what was released while its call went on."""
        moments = {target: self._releases.get(target) for target in (Target(r.subject, r.signal) for r in row.raised)}
        if not any(moments.values()):
            return row
        raised = tuple(_release_one(one, moments.get(Target(one.subject, one.signal))) for one in row.raised)
        return msgspec.structs.replace(row, raised=raised, released_ms=_whole_release(raised))

    def _write(self, connection: Connection, payloads: Sequence[_Payload]) -> list[Appended]:
        """Write incidents and releases in order, then their records. A sink of the group-commit writer."""
        for payload in payloads:
            if isinstance(payload, _Release):
                self._write_release(connection, payload)
                continue
            if payload.rows:
                connection.execute(insert(INCIDENT), [_to_values(row) for row in payload.rows])
            write_contents(connection, payload.contents)
        return list(self._audit.sink(connection, [payload.entry for payload in payloads]))

    def _write_release(self, connection: Connection, release: _Release) -> None:
        bump_revision(connection, TOPIC)
        wanted = set(release.targets)
        for subject in dict.fromkeys(target.subject for target in release.targets):
            query = select(_COLUMN.incident_id, _COLUMN.raised).where(
                _COLUMN.until_ms > release.at_ms,
                _COLUMN.released_ms.is_(None),
                _COLUMN.raised.contains(orjson.dumps(subject.id).decode(), autoescape=True),
            )
            for incident_id, stored in connection.execute(query).all():
                before = _read_raised(stored)
                raised = tuple(
                    _release_one(one, release.at_ms if Target(one.subject, one.signal) in wanted else None)
                    for one in before
                )
                if raised != before:
                    connection.execute(
                        update(INCIDENT)
                        .where(_COLUMN.incident_id == incident_id)
                        .values(raised=_encode(raised), released_ms=_whole_release(raised))
                    )


def _pass_on(done: asyncio.Future[Appended], answer: asyncio.Future[Appended]) -> None:
    failure = None if done.cancelled() else done.exception()
    if answer.done() or done.cancelled():
        return
    if failure is not None:
        answer.set_exception(failure)
    else:
        answer.set_result(done.result())


def check_reason(text: str) -> str:
    """Return why something is released, without spaces at its ends.

    Raises:
        InvalidRequest: empty, longer than 500 characters, or with what cannot be printed.
    """
    reason = text.strip()
    if not reason or len(reason) > LONGEST_REASON or not reason.replace("\n", "").isprintable():
        raise InvalidRequest(f"A release needs a reason: 1 to {LONGEST_REASON} printable characters.", param="reason")
    return reason


def no_incident(incident_id: str) -> NotFound:
    """Return the answer for an incident that is not there, or not the asker's."""
    return NotFound(f"There is no incident {incident_id}, or it is not yours to see.", hint="See: lukhas incident list")


def describe_incident(row: IncidentRow) -> dict[str, Any]:
    """Return an incident as plain JSON types."""
    document: dict[str, Any] = msgspec.to_builtins(row)
    document["end_user"] = document.pop("user")
    return document


def _shorten(tool: str) -> str:
    # PostgreSQL takes no null character, and one odd name must not keep the record from being written.
    return redact_text(tool.replace("\0", ""))[:_LONGEST_TOOL]


def _release_one(one: Raised, at_ms: int | None) -> Raised:
    if at_ms is None or one.released_ms is not None or one.at_ms > at_ms:
        return one
    return msgspec.structs.replace(one, released_ms=at_ms)


def _whole_release(raised: Sequence[Raised]) -> int | None:
    moments = [one.released_ms for one in raised if one.released_ms is not None]
    return max(moments) if moments and len(moments) == len(raised) else None


def _to_values(row: IncidentRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in row.__struct_fields__ if name != "user"}
    details = orjson.dumps(redact(row.details)).decode()
    return {**values, "end_user": row.user, "details": details, "raised": _encode(row.raised)}


def _encode(raised: Sequence[Raised]) -> str:
    return msgspec.json.encode(raised).decode()


def _read_raised(stored: str) -> tuple[Raised, ...]:
    try:
        return _RAISED.decode(stored)
    except msgspec.MsgspecError:
        return ()  # of a release that wrote another form: one row must not keep the gateway from starting


def _read_row(row: Row[Any]) -> IncidentRow:
    return IncidentRow(
        incident_id=row.incident_id,
        audit_id=row.audit_id,
        tenant=row.tenant,
        key_id=row.key_id,
        session=row.session,
        user=row.end_user,
        time_ms=row.time_ms,
        point=row.point,
        category=row.category,
        rule=row.rule,
        severity=row.severity,
        action=row.action,
        tool=row.tool,
        details=orjson.loads(row.details),
        raised=_read_raised(row.raised),
        until_ms=row.until_ms,
        released_ms=row.released_ms,
    )
