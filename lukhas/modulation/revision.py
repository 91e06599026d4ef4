"""Revisions: every policy that was ever in force, who put it there, when and why, and how it was proved.

The newest event that puts a policy in force says which one is: the *standing* event. It is written before the policy
takes effect, so a restart, and every other process on the same database, finds what stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
import orjson
from sqlalchemy import Connection, Row, desc, func, insert, select, tuple_

from lukhas.clock import Clock
from lukhas.errors import IntegrityError, InvalidId, InvalidRequest, NotFound, PreconditionFailed
from lukhas.modulation.certificate import Certificate
from lukhas.modulation.policy import Policy, policy_id
from lukhas.storage.engine import Database
from lukhas.storage.metadata import POLICY_CERTIFICATE, POLICY_EVENT, POLICY_REVISION
from lukhas.storage.revision import bump_revision
from lukhas.storage.writer import GroupCommitWriter, Sink

EventName = Literal["in_force", "refused", "rolled_back", "shadow"]
Also: TypeAlias = tuple[Sink[Any, Any], Any]
"""Another sink with its payload, written in the same transaction: a change and its record are one."""

TOPIC: Final = "policy"
STANDING: Final = ("in_force", "rolled_back")
LONGEST_REASON: Final = 1000
_LONGEST_PROBLEM: Final = 8000
_TIMEOUT_S: Final = 30.0
_PREFIX: Final = re.compile(r"(?:pol_)?([0-9A-HJKMNP-TV-Z]{1,26})\Z", re.ASCII)
_REVISION: Final = POLICY_REVISION.c
_EVENT: Final = POLICY_EVENT.c
_CERTIFICATE: Final = POLICY_CERTIFICATE.c


class Revision(msgspec.Struct, frozen=True):
    """One policy's text as it was first seen.

    Attributes:
        source: where it was read from then.
        created_ms: when it was stored, in ms since the epoch.
    """

    policy_id: str
    sha256: str
    name: str
    text: str
    source: str
    created_ms: int


class RevisionEntry(msgspec.Struct, frozen=True):
    """One line of the list of revisions.

    Attributes:
        proof: result of its best certificate; None where there is none.
        event: its newest event.
    """

    policy_id: str
    sha256: str
    name: str
    source: str
    created_ms: int
    proof: str | None
    event: PolicyEvent | None


class PolicyEvent(msgspec.Struct, frozen=True):
    """What happened to a policy.

    Attributes:
        seq: grows with each event.
        policy_id: empty where a refused text could not even be read.
        who: an API key's id, `cli:` and a user's name, `file` for a change of the file, `gateway` for itself.
        event: 'in_force' and 'rolled_back' put it in force; 'refused' did not; 'shadow' decides beside.
        details: `file` and `sha256` where it came from a file, `problem` of a refusal, `before`, `certificate`.
    """

    seq: int
    policy_id: str
    time_ms: int
    who: str
    why: str
    event: str
    details: dict[str, Any]


class _Change(NamedTuple):
    policy: Policy | None
    policy_id: str
    certificate: Certificate | None
    time_ms: int
    who: str
    why: str
    event: EventName
    details: Mapping[str, Any]
    expected: int | None
    also: Also | None


class RevisionStore:
    """Reads and writes revisions, their events and certificates. Its writes block until they are durable."""

    def __init__(self, database: Database, writer: GroupCommitWriter, clock: Clock) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._sink: Sink[_Change, PolicyEvent] = self._write_changes
        self._certificate_sink: Sink[Certificate, None] = self._write_certificates

    def save(
        self,
        policy: Policy,
        certificate: Certificate | None,
        who: str,
        why: str,
        event: EventName,
        also: Also | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        expected: int | None = None,
    ) -> PolicyEvent:
        """Store a policy with an event, durably, all in one transaction.

        Args:
            also: another sink and its payload for the same transaction.
            details: what else is worth knowing, as JSON types.
            expected: the `seq` that must still stand, 0 for none; None where anything may.

        Raises:
            PreconditionFailed: another event has come to stand.
            StorageUnavailable, Overloaded: it could not be written.
        """
        now_ms = self._clock.now_ms()
        change = _Change(policy, policy.id, certificate, now_ms, who, why, event, {**(details or {})}, expected, also)
        return self._writer.submit_sync(self._sink, change, _TIMEOUT_S)

    def refuse(
        self,
        refused_id: str,
        problem: str,
        who: str,
        why: str,
        also: Also | None = None,
        *,
        policy: Policy | None = None,
        certificate: Certificate | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> PolicyEvent:
        """Store that a policy was refused, and its text where it could be read as a policy.

        Args:
            refused_id: id of the text; empty where there was none to read.
            problem: why it was refused.

        Raises:
            StorageUnavailable, Overloaded: it could not be written.
        """
        said = {**(details or {}), "problem": problem[:_LONGEST_PROBLEM]}
        now_ms = self._clock.now_ms()
        change = _Change(policy, refused_id, certificate, now_ms, who, why, "refused", said, None, also)
        return self._writer.submit_sync(self._sink, change, _TIMEOUT_S)

    def save_certificate(self, certificate: Certificate) -> None:
        """Store a certificate; again is no error.

        Raises:
            StorageUnavailable, Overloaded: it could not be written.
        """
        self._writer.submit_sync(self._certificate_sink, certificate, _TIMEOUT_S)

    def standing(self) -> PolicyEvent | None:
        """Return the event that says which policy is in force; None before the first."""
        return self._newest(_EVENT.event.in_(STANDING))

    def standing_if_changed(self, version: int) -> tuple[int, PolicyEvent | None]:
        """Return the database's present version, and the standing event where that is not the given one."""
        # Read before the event, so that a change in between is seen next time, not never.
        found = self._database.data_version()
        return found, None if found == version else self.standing()

    def last_of_file(self, *, is_taken_up: bool = False) -> PolicyEvent | None:
        """Return the newest event that came from a file's content, taken up or refused; or only taken up."""
        kinds = STANDING if is_taken_up else (*STANDING, "refused")
        return self._newest(_EVENT.details.contains('"file":'), _EVENT.event.in_(kinds))

    def was_in_force(self, revision_id: str) -> bool:
        """Say whether a policy was ever in force."""
        return self._newest(_EVENT.policy_id == revision_id, _EVENT.event.in_(STANDING)) is not None

    def events(
        self, *, limit: int = 100, before: int | None = None, revision_id: str | None = None
    ) -> list[PolicyEvent]:
        """Return events, newest first.

        Args:
            before: only those with a smaller `seq`.
            revision_id: only those of one policy.
        """
        query = select(POLICY_EVENT).order_by(desc(_EVENT.seq)).limit(limit)
        if before is not None:
            query = query.where(_EVENT.seq < before)
        if revision_id is not None:
            query = query.where(_EVENT.policy_id == revision_id)
        with self._database.reading() as connection:
            return [_read_event(row) for row in connection.execute(query).all()]

    def list(self, *, limit: int = 1000, before: tuple[int, str] | None = None) -> list[RevisionEntry]:
        """Return revisions without their texts, the newest first.

        Args:
            before: only those that come after this (created_ms, policy_id) in the list.
        """
        columns = [column for column in POLICY_REVISION.columns if column.name != "text"]
        query = select(*columns).order_by(desc(_REVISION.created_ms), desc(_REVISION.policy_id)).limit(limit)
        if before is not None:
            query = query.where(tuple_(_REVISION.created_ms, _REVISION.policy_id) < before)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
            ids = [row.policy_id for row in rows]
            newest = select(func.max(_EVENT.seq)).where(_EVENT.policy_id.in_(ids)).group_by(_EVENT.policy_id)
            events = connection.execute(select(POLICY_EVENT).where(_EVENT.seq.in_(newest))).all()
            proofs = connection.execute(
                select(_CERTIFICATE.policy_id, _CERTIFICATE.result)
                .where(_CERTIFICATE.policy_id.in_(ids))
                .order_by(_CERTIFICATE.created_ms)
            ).all()
        by_id = {row.policy_id: _read_event(row) for row in events}
        proof: dict[str, str] = {}
        for one in proofs:
            if one.result != "not proved" or one.policy_id not in proof:
                proof[one.policy_id] = one.result
        return [
            RevisionEntry(
                row.policy_id,
                row.sha256,
                row.name,
                row.source,
                row.created_ms,
                proof.get(row.policy_id),
                by_id.get(row.policy_id),
            )
            for row in rows
        ]

    def read(self, revision_id: str) -> Revision:
        """Return one revision by its id, or by a beginning of it that no other has; `pol_` may be left out.

        Raises:
            InvalidId: not an id, nor the beginning of one.
            NotFound: no revision has it.
            InvalidRequest: several have it.
            IntegrityError: the stored text is not what was stored.
        """
        found = _PREFIX.match(revision_id.strip().removeprefix("pol_").upper())
        if found is None:
            shown = revision_id if len(revision_id) <= 40 and revision_id.isprintable() else "The given text"
            raise InvalidId(
                f"'{shown}' is not a revision.",
                hint="Give an id as `lukhas policy history` shows it.",
                param="revision",
            )
        prefix = f"pol_{found[1]}"
        query = select(POLICY_REVISION).where(_REVISION.policy_id.startswith(prefix, autoescape=True)).limit(6)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        if not rows:
            raise NotFound(f"No revision begins with {prefix}.", hint="See: lukhas policy history", param="revision")
        if len(rows) > 1:
            known = ", ".join(row.policy_id for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
            raise InvalidRequest(
                f"Several revisions begin with {prefix}.", hint=f"Give more of it: {known}.", param="revision"
            )
        row = rows[0]
        if policy_id(row.text) != row.policy_id:
            raise IntegrityError(f"The stored text of {row.policy_id} is not what was stored.")
        return Revision(row.policy_id, row.sha256, row.name, row.text, row.source, row.created_ms)

    def find_certificate(self, revision_id: str) -> Certificate | None:
        """Return a policy's newest certificate, one that decides before one that says 'not proved'."""
        query = select(_CERTIFICATE.document).where(_CERTIFICATE.policy_id == revision_id)
        query = query.order_by(_CERTIFICATE.result == "not proved", desc(_CERTIFICATE.created_ms))
        with self._database.reading() as connection:
            documents = [bytes(document) for document in connection.execute(query.limit(10)).scalars()]
        for document in documents:
            try:
                return Certificate.decode(document)
            except IntegrityError:
                continue  # of a release that wrote another form
        return None

    def _newest(self, *conditions: Any) -> PolicyEvent | None:
        query = select(POLICY_EVENT).where(*conditions).order_by(desc(_EVENT.seq)).limit(1)
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else _read_event(row)

    def _write_changes(self, connection: Connection, changes: Sequence[_Change]) -> list[PolicyEvent]:
        return [self._write_change(connection, one) for one in changes]

    def _write_change(self, connection: Connection, one: _Change) -> PolicyEvent:
        # The lock comes first: of two changes that expect the same to stand, one must see the other.
        bump_revision(connection, TOPIC)
        stands = connection.execute(select(func.max(_EVENT.seq)).where(_EVENT.event.in_(STANDING))).scalar() or 0
        if one.expected is not None and stands != one.expected:
            raise PreconditionFailed(
                "The policy in force has changed since it was read.", hint="Read it again, then decide."
            )
        policy = one.policy
        if policy is not None:
            known = select(_REVISION.policy_id).where(_REVISION.policy_id == policy.id)
            if connection.execute(known).first() is None:
                row = {"policy_id": policy.id, "sha256": policy.sha256, "name": policy.name}
                row |= {"text": policy.text, "source": policy.source}
                connection.execute(insert(POLICY_REVISION).values(**row, created_ms=one.time_ms))
        if one.certificate is not None:
            self._write_certificates(connection, [one.certificate])
        values: dict[str, Any] = {"policy_id": one.policy_id, "time_ms": one.time_ms, "who": one.who, "why": one.why}
        values |= {"event": one.event, "details": orjson.dumps(dict(one.details)).decode()}
        inserted = connection.execute(insert(POLICY_EVENT).values(**values))
        if one.also is not None:
            sink, payload = one.also
            sink(connection, [payload])
        key = inserted.inserted_primary_key
        assert key is not None
        return PolicyEvent(int(key[0]), one.policy_id, one.time_ms, one.who, one.why, one.event, dict(one.details))

    def _write_certificates(self, connection: Connection, certificates: Sequence[Certificate]) -> list[None]:
        for one in certificates:
            if connection.execute(select(_CERTIFICATE.hash).where(_CERTIFICATE.hash == one.hash)).first() is None:
                row = {"hash": one.hash, "policy_id": one.policy, "result": one.result, "document": one.encode()}
                connection.execute(insert(POLICY_CERTIFICATE).values(**row, created_ms=self._clock.now_ms()))
        return [None] * len(certificates)


def check_reason(text: str) -> str:
    """Return why a change is made, without spaces at its ends.

    Raises:
        InvalidRequest: empty, longer than 1,000 characters, or with what cannot be printed.
    """
    reason = text.strip()
    if not reason or len(reason) > LONGEST_REASON or not reason.replace("\n", "").isprintable():
        raise InvalidRequest(f"A change needs a reason: 1 to {LONGEST_REASON} printable characters.", param="reason")
    return reason


def _read_event(row: Row[Any]) -> PolicyEvent:
    details = orjson.loads(row.details)
    return PolicyEvent(row.seq, row.policy_id, row.time_ms, row.who, row.why, row.event, details)
