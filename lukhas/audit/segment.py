"""Segments: the log cut into months, each sealed with the root that the log had at its end.

A segment is a run of indexes, from the end of the one before to the first record of a later month. Sealed once, it
never changes: the log's tree vouches for it, and another root at its end means that the database was changed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, insert, select, update

from lukhas.audit import statement
from lukhas.audit.month import count_months, end_of_month, month_of, name_month
from lukhas.audit.proof import root_at
from lukhas.audit.record import AuditRecord, Entry
from lukhas.audit.store import AuditStore
from lukhas.audit.tile_store import DatabaseTiles
from lukhas.clock import Clock
from lukhas.errors import IntegrityError, InvalidId
from lukhas.ids import check_id, make_id
from lukhas.storage.engine import Database
from lukhas.storage.metadata import AUDIT_SEGMENT
from lukhas.storage.writer import GroupCommitWriter, Sink

log = logging.getLogger("lukhas.audit.segment")

GRACE_MS: Final = 3_600_000
TIMEOUT_S: Final = 60.0
SYSTEM: Final = "system"
# An id is made a moment before its record, and a call's records may stand hours apart.
_ID_SLACK_MS: Final = 3_600_000
_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True)
class Segment:
    """One sealed month.

    Attributes:
        name: 'YYYY-MM', in UTC.
        first_index: its first record.
        end_index: the index after its last.
        root: the log's root over the first `end_index` records.
        sealed_ms: when it was sealed.
        archive: where its archive is, None before it is archived.
        archive_sha256: of the archive's file, as hex.
        archive_bytes: of the archive's file.
        archived_ms: when the archive had been read back and compared.
        pruned_ms: when its records had been deleted from the database.
    """

    name: str
    first_index: int
    end_index: int
    root: bytes
    sealed_ms: int
    archive: str | None = None
    archive_sha256: str | None = None
    archive_bytes: int | None = None
    archived_ms: int | None = None
    pruned_ms: int | None = None

    def describe(self) -> dict[str, Any]:
        """Return it for an audit record or as JSON."""
        return {
            "name": self.name,
            "first_index": self.first_index,
            "end_index": self.end_index,
            "root": self.root.hex(),
            "sealed_ms": self.sealed_ms,
            "archive": self.archive,
            "archive_sha256": self.archive_sha256,
            "archive_bytes": self.archive_bytes,
            "archived_ms": self.archived_ms,
            "pruned_ms": self.pruned_ms,
        }


class _Change(NamedTuple):
    segment: Segment
    is_new: bool
    values: dict[str, Any]
    entry: Entry


class SegmentStore:
    """Seals months and keeps what became of them. Its methods block.

    Attributes:
        tiles: the log's tiles.
    """

    def __init__(
        self,
        database: Database,
        writer: GroupCommitWriter,
        audit: AuditStore,
        clock: Clock,
        *,
        actor: str = SYSTEM,
    ) -> None:
        """Prepare; nothing is read.

        Args:
            audit: records each change, in the change's own transaction.
            actor: whose records seal, archive and prune are: 'system', or 'cli' for a person at the command line.
        """
        self.tiles = DatabaseTiles(database)
        self._database = database
        self._writer = writer
        self._clock = clock
        self._actor = actor
        self._audit = audit
        self._sink: Sink[_Change, bool] = self._write

    def list(self) -> list[Segment]:
        """Return every segment, the oldest first.

        Raises:
            StorageUnavailable: the database cannot be read.
        """
        return read_segments(self._database)

    def check(self) -> list[Segment]:
        """Return every segment, compared with the tree as it is now.

        Raises:
            IntegrityError: the log no longer has the root that a segment was sealed with, or one is missing.
            StorageUnavailable: the database cannot be read.
        """
        segments = self.list()
        end = 0
        with self._database.reading() as connection:
            size = statement.read_head(connection)[0]
        for one in segments:
            is_next = one.first_index == end < one.end_index <= size
            if not is_next or root_at(self.tiles, one.end_index) != one.root:
                raise IntegrityError(
                    f"The segment {one.name} is not what was sealed: the root at record {one.end_index} is another.",
                    hint="Run: lukhas audit verify",
                )
            end = one.end_index
        return segments

    def seal(self) -> list[Segment]:
        """Seal every month that has been over for an hour, and return those that were not sealed before.

        Raises:
            IntegrityError: as `check`.
            StorageUnavailable, Overloaded: the database cannot be read or written.
        """
        self.check()
        sealed: list[Segment] = []
        while (found := self._find_due()) is not None:
            name, first, end = found
            segment = Segment(name, first, end, root_at(self.tiles, end), self._clock.now_ms())
            if self._submit(segment, {}, "sealed", is_new=True):
                sealed.append(segment)
                log.info("segment_sealed", extra={"segment": name, "first_index": first, "end_index": end})
        return sealed

    def mark(self, segment: Segment, event: str, **values: Any) -> None:
        """Change what is known of a segment, and record it, in one transaction.

        Args:
            event: what the audit record says: 'archived', 'pruning' or 'pruned'.
            values: columns that change; none leaves a record alone.
        """
        self._submit(segment, values, event)

    def _submit(self, segment: Segment, values: dict[str, Any], event: str, *, is_new: bool = False) -> bool:
        body = {"event": event, "segment": segment.describe() | values}
        record = AuditRecord(
            kind="segment",
            audit_id=make_id("aud"),
            tenant="",
            key_id=self._actor,
            request_id=None,
            time_ms=self._clock.now_ms(),
            session=None,
            user=None,
            body=body,
        )
        change = _Change(segment, is_new, values, self._audit.encode(record))
        return self._writer.submit_sync(self._sink, change, TIMEOUT_S)

    def _write(self, connection: Connection, changes: Sequence[_Change]) -> list[bool]:
        answers: list[bool] = []
        for segment, is_new, values, entry in changes:
            if is_new:
                # Another process may have sealed it since it was found.
                taken = select(AUDIT_SEGMENT.c.name).where(AUDIT_SEGMENT.c.end_index > segment.first_index)
                if connection.execute(taken.limit(1)).first() is not None:
                    answers.append(False)
                    continue
                connection.execute(insert(AUDIT_SEGMENT).values(**_to_row(segment)))
            elif values:
                connection.execute(update(AUDIT_SEGMENT).where(AUDIT_SEGMENT.c.name == segment.name).values(**values))
            self._audit.sink(connection, [entry])
            answers.append(True)
        return answers

    def _find_due(self) -> tuple[str, int, int] | None:
        """Return name, first index and end of the next segment; None where none is due."""
        now_ms = self._clock.now_ms()
        with self._database.reading() as connection:
            last = connection.execute(
                select(AUDIT_SEGMENT.c.name, AUDIT_SEGMENT.c.end_index).order_by(AUDIT_SEGMENT.c.end_index.desc())
            ).first()
            size = statement.read_head(connection)[0]
            first = 0 if last is None else int(last.end_index)
            # A record from the future, which a wrong clock made, must not keep the months from being sealed.
            began = connection.exec_driver_sql(
                f"SELECT time_ms FROM audit_record WHERE leaf_index >= {first} AND time_ms <= {now_ms} "  # noqa: S608
                "ORDER BY leaf_index LIMIT 1"
            ).scalar()
            if first >= size or began is None:
                return None
            name = month_of(began)
            if last is not None and count_months(name) <= count_months(last.name):
                name = name_month(count_months(last.name) + 1)
            until_ms = end_of_month(name)
            if now_ms < until_ms + GRACE_MS:
                return None
            found = connection.exec_driver_sql(_FIRST_AFTER.format(since=until_ms, now=now_ms, first=first)).scalar()
        return name, first, size if found is None else min(int(found), size)


# By tenant, since that is how times are indexed: reading the records themselves would read the whole month. The sum
# keeps SQLite from walking the records in their order instead.
_FIRST_AFTER: Final = """
WITH RECURSIVE tenants (tenant) AS (
    SELECT min(tenant) FROM audit_record
    UNION ALL
    SELECT (SELECT min(tenant) FROM audit_record WHERE tenant > tenants.tenant) FROM tenants
    WHERE tenants.tenant IS NOT NULL
)
SELECT min(found) FROM (
    SELECT (
        SELECT min(leaf_index + 0) FROM audit_record
        WHERE audit_record.tenant = tenants.tenant AND time_ms >= {since} AND time_ms <= {now} AND leaf_index >= {first}
    ) AS found FROM tenants WHERE tenants.tenant IS NOT NULL
) AS each_tenant
"""


def read_segments(database: Database) -> list[Segment]:
    """Return every segment of a log, the oldest first.

    Raises:
        StorageUnavailable: the database cannot be read.
    """
    with database.reading() as connection:
        rows = connection.execute(select(AUDIT_SEGMENT).order_by(AUDIT_SEGMENT.c.first_index)).all()
    return [
        Segment(
            name=row.name,
            first_index=row.first_index,
            end_index=row.end_index,
            root=bytes(row.root),
            sealed_ms=row.sealed_ms,
            archive=row.archive,
            archive_sha256=row.archive_sha256,
            archive_bytes=row.archive_bytes,
            archived_ms=row.archived_ms,
            pruned_ms=row.pruned_ms,
        )
        for row in rows
    ]


def find_pruned(database: Database, audit_id: str) -> Iterator[Segment]:
    """Yield the pruned segments that a record of this id may be in, by the time that the id carries.

    Raises:
        StorageUnavailable: the database cannot be read.
    """
    try:
        made_ms = _read_time(check_id("aud", audit_id))
    except InvalidId:
        return
    months = {month_of(max(0, made_ms + slack)) for slack in (-_ID_SLACK_MS, 0, _ID_SLACK_MS)}
    yield from (one for one in read_segments(database) if one.pruned_ms is not None and one.name in months)


def hint_pruned(database: Database, audit_id: str) -> str:
    """Return a sentence that names the archive where a record may be; empty where nothing of its time was pruned.

    Raises:
        StorageUnavailable: the database cannot be read.
    """
    # The name alone: where archives are kept is not for everybody who may ask for a record.
    names = [str(one.archive).rpartition("/")[2] for one in find_pruned(database, audit_id)]
    return f"Records of that month were pruned; they are in the archive {' or '.join(names)}." if names else ""


def _to_row(segment: Segment) -> dict[str, Any]:
    return segment.describe() | {"root": segment.root}


def _read_time(audit_id: str) -> int:
    """Return the moment that an id carries, in ms: the first 10 of its 26 characters, as in a ULID."""
    made_ms = 0
    for sign in audit_id[4:14]:
        made_ms = made_ms * 32 + _DIGITS.index(sign)
    return made_ms
