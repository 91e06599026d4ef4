"""Signed checkpoints as the database keeps them: made from the present head, never going back on an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, delete, select, text

from lukhas.audit import statement
from lukhas.audit.checkpoint import Checkpoint
from lukhas.audit.merkle import fold_root, unpack_frontier
from lukhas.audit.note import NoteSigner
from lukhas.clock import Clock
from lukhas.errors import ConfigurationError, IntegrityError
from lukhas.storage.engine import Database
from lukhas.storage.metadata import AUDIT_CHECKPOINT
from lukhas.storage.writer import GroupCommitWriter, Sink

_TIMEOUT_S: Final = 30.0
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_HOURLY_MS: Final = 30 * _DAY_MS
_DELETE_TOGETHER: Final = 500
# An earlier one of the same size stays: what was signed once may have been handed out.
_INSERT: Final = text(
    "INSERT INTO audit_checkpoint (size, epoch, root, time_ms, note) VALUES (:size, :epoch, :root, :time_ms, :note) "
    "ON CONFLICT (size) DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A signed state of the log.

    Attributes:
        size: records that it covers.
        root: the RFC 6962 root over them.
        time_ms: when it was signed, in ms since the epoch.
        note: the signed note, as anybody can verify it.
    """

    size: int
    root: bytes
    time_ms: int
    note: bytes


@dataclass(frozen=True, slots=True)
class _Draft:
    signed: StoredCheckpoint
    epoch: int


class CheckpointStore:
    """Signs, keeps and finds checkpoints. Its methods block, and are safe in any thread."""

    def __init__(
        self, database: Database, writer: GroupCommitWriter, clock: Clock, signer: NoteSigner | None = None
    ) -> None:
        """Prepare a store.

        Args:
            database: where the log is.
            writer: a running writer on it; not used for reading.
            clock: when a checkpoint was signed.
            signer: None where this process only reads.
        """
        self._database = database
        self._writer = writer
        self._clock = clock
        self._signer = signer
        # Bound once: the writer groups payloads by sink.
        self._insert: Sink[_Draft, StoredCheckpoint] = self._write
        self._delete: Sink[Sequence[int], int] = self._erase

    def sign(self) -> StoredCheckpoint:
        """Sign the log as it is now, where it has grown since the newest checkpoint; else return that one.

        What it returns is durable.

        Raises:
            IntegrityError: the log does not extend its newest checkpoint. Nothing is signed then.
            ConfigurationError: there is no key to sign with.
            StorageUnavailable, Overloaded: it cannot be read, or written in time.
        """
        signer = self._signer
        if signer is None:
            raise ConfigurationError("This process has no key to sign checkpoints with.")
        with self._database.reading() as connection:
            # In this order: between two statements PostgreSQL may let the log grow, and another process sign.
            newest, signed_epoch = _read_newest(connection)
            size, frontier, _ = statement.read_head(connection)
            epoch = int(connection.exec_driver_sql("SELECT epoch FROM audit_head WHERE log = 'main'").scalar_one())
        try:
            root = fold_root(unpack_frontier(frontier, size))
        except ValueError as wrong:
            raise IntegrityError("The audit log's stored head does not fit its size.") from wrong
        if newest is not None and signed_epoch == epoch:
            self._check_extends(newest, size, root)
            if newest.size == size:
                return newest
        note = Checkpoint(signer.verifier.name, size, root).sign(signer)
        draft = _Draft(StoredCheckpoint(size, root, self._clock.now_ms(), note), epoch)
        return self._writer.submit_sync(self._insert, draft, _TIMEOUT_S)

    def newest(self) -> StoredCheckpoint | None:
        """Return the newest checkpoint; None before the first.

        Raises:
            StorageUnavailable: the database cannot be read.
        """
        with self._database.reading() as connection:
            return _read_newest(connection)[0]

    def first_covering(self, index: int) -> StoredCheckpoint | None:
        """Return the smallest kept checkpoint that covers the record at an index; None where none does yet.

        Raises:
            StorageUnavailable: the database cannot be read.
        """
        query = select(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.size > index).order_by(AUDIT_CHECKPOINT.c.size)
        with self._database.reading() as connection:
            row = connection.execute(query.limit(1)).first()
        return None if row is None else _make(row)

    def read(self, first_size: int, end_size: int, most: int) -> list[StoredCheckpoint]:
        """Return up to `most` checkpoints, smallest first, of sizes from `first_size` up to, not including, `end_size`.

        Raises:
            StorageUnavailable: the database cannot be read.
        """
        size = AUDIT_CHECKPOINT.c.size
        query = select(AUDIT_CHECKPOINT).where(size >= first_size, size < end_size).order_by(size).limit(most)
        with self._database.reading() as connection:
            return [_make(row) for row in connection.execute(query)]

    def thin(self) -> int:
        """Delete checkpoints that nobody needs: of those older than a day one an hour stays, past 30 days one a day.

        Every 10 seconds one is signed, which would be three million rows a year; and each proves what those before
        it prove. The last of its hour or day stays, and so does the newest, whatever its age. What was shipped
        outside is not touched.

        Returns:
            How many were deleted.

        Raises:
            StorageUnavailable, Overloaded: the database cannot be read, or written in time.
        """
        now_ms = self._clock.now_ms()
        columns = (AUDIT_CHECKPOINT.c.size, AUDIT_CHECKPOINT.c.time_ms)
        query = select(*columns).where(AUDIT_CHECKPOINT.c.time_ms < now_ms - _DAY_MS).order_by(columns[0].desc())
        with self._database.reading() as connection:
            newest = _read_newest(connection)[0]
            old = [(int(size), int(time_ms)) for size, time_ms in connection.execute(query)]
        kept: set[tuple[int, int]] = set()
        doomed: list[int] = []
        for size, time_ms in old:
            span = _HOUR_MS if now_ms - time_ms < _HOURLY_MS else _DAY_MS
            bucket = (span, time_ms // span)
            if bucket in kept and (newest is None or size != newest.size):
                doomed.append(size)
            kept.add(bucket)
        return sum(
            self._writer.submit_sync(self._delete, doomed[start : start + _DELETE_TOGETHER], _TIMEOUT_S)
            for start in range(0, len(doomed), _DELETE_TOGETHER)
        )

    def _check_extends(self, newest: StoredCheckpoint, size: int, root: bytes) -> None:
        # Where they are not needed they are not loaded.
        from lukhas.audit.proof import root_at
        from lukhas.audit.tile_store import DatabaseTiles

        if newest.size > size:
            raise IntegrityError(
                f"The audit log has {size} records, and a checkpoint was signed over {newest.size}: it was cut.",
                hint="Run: lukhas audit verify",
            )
        found = root if newest.size == size else root_at(DatabaseTiles(self._database), newest.size)
        if found != newest.root:
            raise IntegrityError(
                f"The first {newest.size} records of the audit log are not those that were signed: it was changed.",
                hint="Run: lukhas audit verify",
            )

    @staticmethod
    def _write(connection: Connection, drafts: Sequence[_Draft]) -> list[StoredCheckpoint]:
        answers: list[StoredCheckpoint] = []
        for draft in drafts:
            made = draft.signed
            values: dict[str, Any] = {"size": made.size, "root": made.root, "time_ms": made.time_ms, "note": made.note}
            connection.execute(_INSERT, values | {"epoch": draft.epoch})
            row = connection.execute(select(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.size == made.size)).one()
            stored = _make(row)
            if stored.root != made.root:
                raise IntegrityError(f"Another state of the audit log was signed at {made.size} records.")
            answers.append(stored)
        return answers

    @staticmethod
    def _erase(connection: Connection, batches: Sequence[Sequence[int]]) -> list[int]:
        return [
            connection.execute(delete(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.size.in_(sizes))).rowcount
            for sizes in batches
        ]


def _read_newest(connection: Connection) -> tuple[StoredCheckpoint | None, int]:
    order = (AUDIT_CHECKPOINT.c.epoch.desc(), AUDIT_CHECKPOINT.c.size.desc())
    row = connection.execute(select(AUDIT_CHECKPOINT).order_by(*order).limit(1)).first()
    return (None, 0) if row is None else (_make(row), int(row.epoch))


def _make(row: Any) -> StoredCheckpoint:
    try:
        return StoredCheckpoint(int(row.size), bytes(row.root), int(row.time_ms), bytes(row.note))
    except (TypeError, ValueError) as wrong:  # SQLite keeps whatever type an edit has put there
        raise IntegrityError("A stored checkpoint of the audit log is not of the type that was written.") from wrong
