"""The audit store: append and read, on top of the group-commit writer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

from lukhas.audit import statement
from lukhas.audit.facade import audit_log_read, audit_log_write
from lukhas.audit.log import Appended, AuditLog, OpenDecision
from lukhas.audit.merkle import leaf_hash
from lukhas.audit.record import AuditRecord, Entry, encode_record, parse_record
from lukhas.audit.source import RecordSource
from lukhas.audit.tile_store import DatabaseTiles
from lukhas.clock import Clock
from lukhas.errors import IntegrityError
from lukhas.ids import check_id
from lukhas.storage.engine import Database
from lukhas.storage.writer import GroupCommitWriter, Sink

__all__ = ["Appended", "AuditRecord", "AuditStore", "StoredRecord", "audit_log_read", "audit_log_write"]

LOST: Final = "lost"
_APPEND_TIMEOUT_S: Final = 30.0
_CLOSE_TOGETHER: Final = 256
_READ_RECORD: Final = "SELECT leaf_index, audit_id, kind, tenant, time_ms, leaf_hash, data FROM audit_record "
_READ_OPEN: Final = (
    "SELECT leaf_index, audit_id, time_ms FROM audit_record AS made WHERE leaf_index >= {start} AND kind = 'decision' "
    "AND NOT EXISTS (SELECT 1 FROM audit_record AS ended WHERE ended.audit_id = made.audit_id AND "
    "ended.kind = 'outcome') ORDER BY leaf_index"
)


class StoredRecord(msgspec.Struct, frozen=True):
    """One record as it is stored. `data` is what was hashed into `leaf_hash`, byte for byte."""

    index: int
    audit_id: str
    kind: str
    tenant: str
    time_ms: int
    leaf_hash: bytes
    data: bytes


class AuditStore:
    """Appends records durably, and reads them by id. Bodies must be redacted before they come here.

    Attributes:
        source: the log in its order.
        tiles: the log's Merkle tree.
    """

    def __init__(self, database: Database, writer: GroupCommitWriter, clock: Clock) -> None:
        self.source = RecordSource(database)
        self.tiles = DatabaseTiles(database)
        self._database = database
        self._writer = writer
        self._clock = clock
        self._log = AuditLog()
        # Bound once: the writer groups payloads by sink.
        self._sink: Sink[Entry, Appended] = self._log.write

    @property
    def sink(self) -> Sink[Entry, Appended]:
        """The sink that `encode` makes payloads for: lets another sink record its change in its own transaction."""
        return self._sink

    def encode(self, record: AuditRecord) -> Entry:
        """Encode a record for `sink`."""
        return encode_record(record)

    def append(self, record: AuditRecord, *, owed: bool = False) -> asyncio.Future[Appended]:
        """Start writing one record, from an event loop; the future resolves when it is durable.

        Args:
            record: what to write.
            owed: it completes something already admitted, and is taken even where the queue is full.

        Raises:
            Overloaded: too many rows wait.
            StorageUnavailable: the writer is not running; the future raises it when the storage fails.
        """
        return self._writer.submit(self._sink, encode_record(record), owed=owed)

    def append_sync(self, record: AuditRecord, timeout_s: float = _APPEND_TIMEOUT_S) -> Appended:
        """Write one record durably, from a thread without an event loop.

        Raises:
            Overloaded, StorageUnavailable: as `append`, or the time is over.
        """
        return self._writer.submit_sync(self._sink, encode_record(record), timeout_s)

    def read(self, audit_id: str) -> Sequence[StoredRecord]:
        """Return every record of one id in the log's order; empty when there is none.

        Raises:
            InvalidId: the id has a wrong form.
            IntegrityError: a record's bytes are not those that were hashed.
            StorageUnavailable: the database cannot be read.
        """
        check_id("aud", audit_id)
        # The id was checked to hold letters and digits only, so it can stand in the statement of either database.
        return self._select(f"WHERE audit_id = '{audit_id}' ORDER BY leaf_index")

    def read_document(self, audit_id: str) -> dict[str, Any] | None:
        """Return all records of one id as one dict, or None when there is none.

        `decision` and `outcome` are the bodies of the first decision and of the last outcome (one that says 'lost'
        only when there is no other); `records` has every record whole.

        Raises:
            InvalidId, IntegrityError, StorageUnavailable: as `read`.
        """
        records = [parse_record(stored.data) for stored in self.read(audit_id)]
        if not records:
            return None
        first = records[0]
        outcomes = [one["body"] for one in records if one["kind"] == "outcome"]
        known = [body for body in outcomes if not _is_lost(body)]
        names = ("audit_id", "tenant", "key_id", "request_id", "session", "end_user", "time")
        return {
            **{name: first[name] for name in names},
            "decision": next((one["body"] for one in records if one["kind"] == "decision"), None),
            "outcome": (known or outcomes or [None])[-1],
            "records": records,
        }

    def explain_absence(self, audit_id: str) -> str:
        """Return in which archive a record may be that is not in the database; empty where nothing was pruned.

        Raises:
            StorageUnavailable: the database cannot be read.
        """
        from lukhas.audit.segment import hint_pruned

        return hint_pruned(self._database, audit_id)

    def head(self) -> tuple[int, bytes]:
        """Return the log's size and its RFC 6962 root hash.

        Raises:
            StorageUnavailable: the database cannot be read.
            IntegrityError: the stored head does not fit its size.
        """
        return self.source.head()

    def close_lost(self) -> int:
        """Close decisions that have no outcome, as a crash leaves them, and keep the watermark from now on.

        For the one serving process, at its start, before it appends. Only the log from the watermark on is read.

        Returns:
            How many were closed, each with an outcome whose status is 'lost'.
        """
        with self._database.reading() as connection:
            _, _, start = statement.read_head(connection)
            rows = connection.exec_driver_sql(_READ_OPEN.format(start=start)).all()
        still_open = [OpenDecision(audit_id, index, time_ms) for index, audit_id, time_ms in rows]
        self._log.serve(still_open)
        return self._close(still_open)

    def close_overdue(self, before_ms: int) -> int:
        """Close this process's decisions that are older than any call may last: their outcome could not be written.

        Args:
            before_ms: decisions made before this moment, in ms since the epoch, are closed.
        """
        return self._close([one for one in self._log.open_decisions() if one.time_ms < before_ms])

    def _close(self, decisions: Sequence[OpenDecision]) -> int:
        for start in range(0, len(decisions), _CLOSE_TOGETHER):
            part = [self._encode_lost(one) for one in decisions[start : start + _CLOSE_TOGETHER]]
            self._writer.submit_sync(self._log.write_together, part, _APPEND_TIMEOUT_S)
        return len(decisions)

    def _encode_lost(self, one: OpenDecision) -> Entry:
        made = parse_record(self._select(f"WHERE leaf_index = {one.index}")[0].data)
        record = AuditRecord(
            kind="outcome",
            audit_id=one.audit_id,
            tenant=made["tenant"],
            key_id=made["key_id"],
            request_id=made["request_id"],
            time_ms=self._clock.now_ms(),
            session=made["session"],
            user=made["end_user"],
            body={"status": LOST},
        )
        return encode_record(record)

    def _select(self, condition: str) -> list[StoredRecord]:
        with self._database.reading() as connection:
            rows = connection.exec_driver_sql(_READ_RECORD + condition).all()
        try:
            stored = [
                StoredRecord(index, audit_id, kind, tenant, time_ms, bytes(leaf), bytes(data))
                for index, audit_id, kind, tenant, time_ms, leaf, data in rows
            ]
        except TypeError as wrong:  # SQLite keeps whatever type an edit has put there
            raise IntegrityError("A record of the audit log is not of the type that was written.") from wrong
        for one in stored:
            if leaf_hash(one.data) != one.leaf_hash:
                raise IntegrityError(f"Record {one.index} of the audit log is not what was written.")
        return stored


def _is_lost(body: object) -> bool:
    return isinstance(body, dict) and cast(dict[str, object], body).get("status") == LOST
